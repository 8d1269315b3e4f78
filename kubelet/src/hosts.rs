//! A pod's `/etc/hosts`, as upstream's kubelet writes it, and an `/etc/nsswitch.conf` that has its names looked for there and
//! in DNS. Pure functions.

use crate::environment;
use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;
use std::net::IpAddr;

const LOCAL: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// The whole file. A pod on the host's network has the host's own, `host`.
pub fn hosts(pod: &Pod, address: IpAddr, cluster_domain: &str, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text = String::new();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host);
    } else {
        let hostname = environment::hostname(pod);
        text.push_str("# Kubernetes-managed hosts file.\n");
        text.push_str(LOCAL);
        let subdomain = spec.and_then(|spec| spec.subdomain.as_deref());
        let names = match subdomain.filter(|subdomain| !subdomain.is_empty()) {
            Some(subdomain) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                format!("{hostname}.{subdomain}.{namespace}.svc.{cluster_domain}\t{hostname}")
            }
            None => hostname,
        };
        let _ = writeln!(text, "{address}\t{names}");
    }
    let mut aliases = spec
        .and_then(|spec| spec.host_aliases.as_ref())
        .into_iter()
        .flatten()
        .peekable();
    if aliases.peek().is_some() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

/// The host's nsswitch.conf with nothing but files and DNS for host names, or `None` if that is what it says. Other sources
/// (systemd's `resolve`, `mdns4_minimal`) ask the host's own services, which know nothing of the cluster and may have the
/// last word.
pub fn nsswitch(host: &str) -> Option<String> {
    let is_hosts = |line: &str| line.trim_start().starts_with("hosts:");
    let sources = host.lines().find(|line| is_hosts(line))?;
    let mut words = sources
        .split('#')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1);
    if words.all(|word| word == "files" || word == "dns") {
        return None;
    }
    let lines = host
        .lines()
        .map(|line| if is_hosts(line) { "hosts: files dns" } else { line });
    Some(lines.fold(String::new(), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file(spec: Value) -> String {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        hosts(
            &pod,
            [127, 244, 0, 2].into(),
            "cluster.local",
            "127.0.0.1 localhost\n192.0.2.7 box\n",
        )
    }

    #[test]
    fn a_pod_finds_itself_by_its_full_name_if_it_has_one() {
        let start = format!("# Kubernetes-managed hosts file.\n{LOCAL}");
        assert_eq!(
            file(json!({"containers": []})),
            format!("{start}127.244.0.2\tweb-0\n")
        );
        assert_eq!(
            file(json!({"containers": [], "hostname": "web-0", "subdomain": "nginx"})),
            format!("{start}127.244.0.2\tweb-0.nginx.shop.svc.cluster.local\tweb-0\n")
        );
    }

    #[test]
    fn aliases_come_last_and_a_pod_on_the_hosts_network_has_the_hosts_names() {
        let aliases = json!([
            {"ip": "127.0.0.1", "hostnames": ["foo.local", "bar.local"]},
            {"ip": "192.0.2.9", "hostnames": ["foo.remote"]},
        ]);
        let added =
            "\n# Entries added by HostAliases.\n127.0.0.1\tfoo.local\tbar.local\n192.0.2.9\tfoo.remote\n";
        let own = file(json!({"containers": [], "hostAliases": aliases}));
        assert!(own.ends_with(&format!("127.244.0.2\tweb-0\n{added}")), "{own}");
        assert_eq!(
            file(json!({"containers": [], "hostNetwork": true, "hostAliases": aliases})),
            format!(
                "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n192.0.2.7 box\n{added}"
            )
        );
    }

    #[test]
    fn names_come_from_files_and_dns_only() {
        for plain in [
            "",
            "passwd: files\n",
            "hosts: files dns\n",
            "hosts:\tdns files # myhostname\n",
        ] {
            assert_eq!(nsswitch(plain), None, "{plain:?}");
        }
        for other in [
            "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",
            "hosts:          files mdns4_minimal [NOTFOUND=return] dns",
        ] {
            assert_eq!(
                nsswitch(&format!("passwd: files\n{other}\nservices: db files")).as_deref(),
                Some("passwd: files\nhosts: files dns\nservices: db files\n")
            );
        }
    }
}
