//! A pod's `/etc/resolv.conf`: what its DNS policy, its DNS settings and the host's own file make of it. Pure functions.
//!
//! Source of the rules: <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/> and upstream's
//! `pkg/kubelet/network/dns`.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodDNSConfigOption};
use std::fmt;
use std::net::IpAddr;

/// The cluster's DNS, as pods are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Where it answers, port 53; none: pods use the host's.
    pub servers: Vec<IpAddr>,
    /// For example `cluster.local`.
    pub domain: String,
    /// Which pods reach no servers but these, since they are in a network of the cluster's. What the host's servers know
    /// they ask these for, which pass it on.
    pub alone_for: Alone,
}

/// Which pods are cut off from the host's DNS servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alone {
    /// None: all are on the host's network.
    #[default]
    Nobody,
    /// Those that are not on the host's network.
    OwnNetworks,
    /// All: what counts as the host's network is the cluster's.
    Everybody,
}

/// glibc reads no more.
const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCH_LINE: usize = 2048;
/// The longest name that can be a domain; glibc 2.28 aborts at longer ones.
const LONGEST_SEARCH: usize = 253;
/// So that `web-0.nginx` is looked for in the cluster first.
const OPTION: &str = "ndots:5";

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Domains in which short names are looked for.
    pub searches: Vec<String>,
    /// `ndots:5`
    pub options: Vec<String>,
}

/// A pod's own resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formed {
    /// What it says.
    pub conf: ResolvConf,
    /// What had to be left out: `DNSConfigForming` events.
    pub warnings: Vec<String>,
}

impl ResolvConf {
    /// What the host's file says. The last `search` line counts, and of each option the last value.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => conf.nameservers.extend(words.next()),
                Some("search") => {
                    let plain = |domain: String| match domain.as_str() {
                        "." => domain,
                        other => other.strip_suffix('.').unwrap_or(other).to_owned(),
                    };
                    conf.searches = words.map(plain).collect();
                }
                Some("options") => conf.options = merge(&conf.options, words),
                _ => {}
            }
        }
        conf
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in &self.nameservers {
            writeln!(f, "nameserver {server}")?;
        }
        for (keyword, words) in [("search", &self.searches), ("options", &self.options)] {
            if !words.is_empty() {
                writeln!(f, "{keyword} {}", words.join(" "))?;
            }
        }
        Ok(())
    }
}

/// The pod's resolv.conf; `None`: the host's, as it is and as it changes.
pub fn resolv_conf(pod: &Pod, cluster: &ClusterDns, host: &ResolvConf) -> Option<Formed> {
    let spec = pod.spec.as_ref()?;
    let on_host_network = spec.host_network == Some(true);
    let is_clusters = match spec.dns_policy.as_deref() {
        Some("None") => {
            return Some(fit(add(ResolvConf::default(), spec.dns_config.as_ref())));
        }
        Some("Default") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => !on_host_network,
    };
    let is_cut_off = match cluster.alone_for {
        Alone::Nobody => false,
        Alone::OwnNetworks => !on_host_network,
        Alone::Everybody => true,
    };
    let conf = if is_clusters && !cluster.servers.is_empty() {
        ResolvConf {
            nameservers: cluster.servers.iter().map(ToString::to_string).collect(),
            searches: searches(pod, &cluster.domain, host),
            options: vec![OPTION.into()],
        }
    } else if is_cut_off && !cluster.servers.is_empty() {
        ResolvConf {
            nameservers: cluster.servers.iter().map(ToString::to_string).collect(),
            ..host.clone()
        }
    } else if spec.dns_config.is_some() {
        host.clone()
    } else {
        return None;
    };
    Some(fit(add(conf, spec.dns_config.as_ref())))
}

/// The pod's namespace first, then all Services, the cluster, and where the host looks.
fn searches(pod: &Pod, domain: &str, host: &ResolvConf) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let own = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.to_owned(),
    ];
    once_each(own.into_iter().chain(host.searches.iter().cloned()))
}

/// What the pod itself wants, in addition; an option of its own replaces one of the same name.
fn add(mut conf: ResolvConf, own: Option<&PodDNSConfig>) -> ResolvConf {
    let Some(own) = own else { return conf };
    let all = |first: Vec<String>, more: &Option<Vec<String>>| {
        once_each(first.into_iter().chain(more.iter().flatten().cloned()))
    };
    conf.nameservers = all(conf.nameservers, &own.nameservers);
    conf.searches = all(conf.searches, &own.searches);
    let text = |option: &PodDNSConfigOption| {
        let name = option.name.clone()?;
        Some(match option.value.as_deref() {
            None | Some("") => name,
            Some(value) => format!("{name}:{value}"),
        })
    };
    conf.options = merge(&conf.options, own.options.iter().flatten().filter_map(text));
    conf
}

/// Options in the order in which their names came first, each with its last value.
fn merge(options: &[String], more: impl Iterator<Item = String>) -> Vec<String> {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let mut merged = options.to_vec();
    for option in more {
        match merged.iter_mut().find(|old| name(old) == name(&option)) {
            Some(old) => *old = option,
            None => merged.push(option),
        }
    }
    merged
}

fn once_each(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for word in words {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all
}

/// No more than resolvers read.
fn fit(mut conf: ResolvConf) -> Formed {
    let mut warnings = Vec::new();
    if conf.nameservers.len() > MOST_NAMESERVERS {
        conf.nameservers.truncate(MOST_NAMESERVERS);
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            conf.nameservers.join(" ")
        ));
    }
    let all = conf.searches.len();
    conf.searches.truncate(MOST_SEARCHES);
    conf.searches.retain(|search| search.len() <= LONGEST_SEARCH);
    while conf.searches.join(" ").len() > LONGEST_SEARCH_LINE {
        conf.searches.pop();
    }
    if conf.searches.len() < all {
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            conf.searches.join(" ")
        ));
    }
    Formed { conf, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "# made by hand\nnameserver 192.0.2.53 # first\nnameserver 2001:db8::53\nsearch old.example\n\
                        search example.com. example.org\noptions timeout:2 ndots:1\noptions timeout:3 rotate\n";
    const CLUSTER: &str = "nameserver 127.244.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local \
                           example.com example.org\noptions ndots:5\n";
    const HOSTS: &str = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.com example.org\n\
                         options timeout:3 ndots:1 rotate\n";

    fn formed(spec: Value, servers: &[&str]) -> Option<Formed> {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec});
        let mut pod: Pod = serde_json::from_value(pod).expect("a pod");
        if let Some(spec) = &mut pod.spec {
            spec.containers = Vec::new();
        }
        let cluster = ClusterDns {
            servers: servers.iter().map(|ip| ip.parse().expect("an address")).collect(),
            domain: "cluster.local".into(),
            alone_for: Alone::Nobody,
        };
        resolv_conf(&pod, &cluster, &ResolvConf::parse(HOST))
    }

    fn text(spec: Value, servers: &[&str]) -> Option<String> {
        let formed = formed(spec, servers)?;
        assert_eq!(formed.warnings, Vec::<String>::new());
        Some(formed.conf.to_string())
    }

    #[test]
    fn the_policy_says_whose_dns_a_pod_uses() {
        let one = &["127.244.0.1"][..];
        let cases = [
            (json!({"containers": []}), one, Some(CLUSTER)),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirst"}),
                one,
                Some(CLUSTER),
            ),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                one,
                None,
            ),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                one,
                Some(CLUSTER),
            ),
            (json!({"containers": [], "dnsPolicy": "Default"}), one, None),
            (json!({"containers": [], "dnsPolicy": "ClusterFirst"}), &[], None),
            (
                json!({"containers": [], "dnsPolicy": "ClusterFirst", "dnsConfig": {}}),
                &[],
                Some(HOSTS),
            ),
        ];
        for (spec, servers, expected) in cases {
            assert_eq!(text(spec.clone(), servers).as_deref(), expected, "{spec}");
        }
    }

    #[test]
    fn who_does_not_reach_the_hosts_servers_asks_the_clusters() {
        let host = ResolvConf::parse(HOST);
        let nameservers = |alone_for, policy: &str, host_network: bool| {
            let spec = json!({"containers": [], "dnsPolicy": policy, "hostNetwork": host_network});
            let pod = json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let cluster = ClusterDns {
                servers: vec![[10, 244, 0, 1].into()],
                domain: "cluster.local".into(),
                alone_for,
            };
            let formed = resolv_conf(&pod, &cluster, &host)?;
            assert!(formed.conf.searches.ends_with(&host.searches), "{formed:?}");
            Some(formed.conf.nameservers.join(" "))
        };
        for (alone, policy, host_network, expected) in [
            (Alone::Nobody, "Default", false, None),
            (Alone::OwnNetworks, "Default", false, Some("10.244.0.1")),
            (Alone::OwnNetworks, "ClusterFirst", false, Some("10.244.0.1")),
            (Alone::OwnNetworks, "ClusterFirst", true, None),
            (Alone::Everybody, "ClusterFirst", true, Some("10.244.0.1")),
        ] {
            let found = nameservers(alone, policy, host_network);
            assert_eq!(found.as_deref(), expected, "{alone:?} {policy} {host_network}");
        }
    }

    #[test]
    fn what_the_pod_wants_itself_comes_in_addition_and_its_options_win() {
        let config = json!({
            "nameservers": ["192.0.2.1", "127.244.0.1"],
            "searches": ["ns1.svc.cluster-domain.example", "example.com"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}, {"name": "timeout", "value": "1"}],
        });
        let with = |policy: &str| {
            let spec = json!({"containers": [], "dnsPolicy": policy, "dnsConfig": config});
            text(spec, &["127.244.0.1"]).expect("its own")
        };
        assert_eq!(
            with("None"),
            "nameserver 192.0.2.1\nnameserver 127.244.0.1\nsearch ns1.svc.cluster-domain.example example.com\n\
             options ndots:2 edns0 timeout:1\n"
        );
        assert_eq!(
            with("ClusterFirst"),
            "nameserver 127.244.0.1\nnameserver 192.0.2.1\nsearch shop.svc.cluster.local svc.cluster.local \
             cluster.local example.com example.org ns1.svc.cluster-domain.example\noptions ndots:2 edns0 timeout:1\n"
        );
        let host = formed(
            json!({"containers": [], "dnsPolicy": "Default", "dnsConfig": config}),
            &["127.244.0.1"],
        );
        let host = host.expect("its own");
        assert_eq!(
            host.conf.to_string(),
            "nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver 192.0.2.1\nsearch example.com example.org \
             ns1.svc.cluster-domain.example\noptions timeout:1 ndots:2 rotate edns0\n"
        );
        assert_eq!(
            host.warnings,
            [
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
              192.0.2.53 2001:db8::53 192.0.2.1"
            ]
        );
    }

    #[test]
    fn no_more_is_written_than_resolvers_read_and_that_is_said() {
        let none = |searches: Vec<String>| {
            let config = json!({"nameservers": ["192.0.2.1"], "searches": searches});
            let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config});
            formed(spec, &[]).expect("its own")
        };
        let short = |count: usize| (0..count).map(|n| format!("d{n}")).collect::<Vec<_>>();
        let long = |count: usize| (0..count).map(|n| format!("{n:0>199}")).collect::<Vec<_>>();
        let cases = [
            (short(32), 32),
            (short(33), 32),
            // Ten and the blanks between them are 1999 bytes, eleven 2199.
            (long(10), 10),
            (long(11), 10),
            (vec!["x".repeat(253)], 1),
            (vec!["x".repeat(254), "example.com".into()], 1),
        ];
        for (searches, kept) in cases {
            let all = searches.len();
            let formed = none(searches);
            assert_eq!(formed.conf.searches.len(), kept);
            assert_eq!(
                formed.warnings.len(),
                usize::from(kept < all),
                "{:?}",
                formed.warnings
            );
            let said = formed.warnings.first().is_none_or(|said| {
                said.starts_with("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ")
            });
            assert!(said, "{:?}", formed.warnings);
        }
    }
}
