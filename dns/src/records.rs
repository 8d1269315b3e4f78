//! What each object says about names: the Kubernetes DNS schema (version 1.1.0) as pure functions of one Service, one
//! EndpointSlice, one Pod or one Namespace. Sections 1 and 2 of the reference on DNS say which names there are.

use crate::Config;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{LowerName, Name, RData};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How long an answer may be kept, in seconds; also the SOA's minimum, for negative answers.
pub const TTL: u32 = 5;

/// One thing said about one name: a record's data, or only that the name exists.
pub type Fact = (LowerName, Option<RData>);

/// What the zones say about themselves. `serial` is the SOA's.
pub fn apexes(config: &Config, serial: u32) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    let (Some(server), Some(contact)) = (facts.name(&["ns", "dns"]), facts.name(&["hostmaster"])) else {
        return Vec::new();
    };
    for apex in config.apexes() {
        let soa = SOA::new(server.clone(), contact.clone(), serial, 7200, 1800, 86400, TTL);
        facts.add(apex, RData::SOA(soa));
        facts.add(apex, RData::NS(NS(server.clone())));
    }
    facts.address(&server, config.address);
    if let Some(version) = facts.name(&["dns-version"]) {
        facts.add(&version, RData::TXT(TXT::new(vec!["1.1.0".into()])));
    }
    facts.exists(&["svc"]);
    facts.exists(&["pod"]);
    facts.list
}

/// A namespace exists, and with it the names under which its Services and Pods would be.
pub fn namespace(config: &Config, namespace: &Namespace) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    if let Some(name) = &namespace.metadata.name {
        facts.exists(&[name, "svc"]);
        facts.exists(&[name, "pod"]);
    }
    facts.list
}

/// What a Service says by itself: an alias, or virtual addresses. A headless one's names are its slices'.
pub fn service(config: &Config, service: &Service) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    let (Some(namespace), Some(service_name)) = (&service.metadata.namespace, &service.metadata.name) else {
        return Vec::new();
    };
    let (Some(name), Some(spec)) = (facts.name(&[service_name, namespace, "svc"]), &service.spec) else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        facts.alias(&name, spec.external_name.as_deref().unwrap_or_default());
    } else if !is_headless(service) {
        facts.cluster_ip(&name, service);
    }
    facts.list
}

/// Whether the Service's addresses are those of its endpoints.
pub fn is_headless(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName") && spec.cluster_ip.as_deref() == Some("None")
}

/// The Service that a slice belongs to, as namespace and name.
pub fn service_of(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let labels = slice.metadata.labels.as_ref()?;
    let service = labels.get("kubernetes.io/service-name")?;
    Some((slice.metadata.namespace.as_deref()?, service))
}

/// The endpoints of a slice that have names: ready ones, and those nobody knows better of. The slice's author has
/// already minded `publishNotReadyAddresses`.
pub fn published(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    let is_ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    slice.endpoints.iter().flatten().filter(is_ready)
}

/// What a slice says about its headless Service's names. `weight` is for all SRV records of the Service.
pub fn slice(config: &Config, slice: &EndpointSlice, weight: u16) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    let Some((namespace, service)) = service_of(slice) else {
        return Vec::new();
    };
    let Some(name) = facts.name(&[service, namespace, "svc"]) else {
        return Vec::new();
    };
    for endpoint in published(slice) {
        for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
            facts.endpoint(&name, slice, endpoint, ip, weight);
        }
    }
    facts.list
}

/// `10-1-2-3.NAMESPACE.pod.ZONE` while the pod lives, ready or not.
pub fn pod(config: &Config, pod: &Pod) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let addresses: BTreeSet<IpAddr> = all
        .chain(&status.pod_ip)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    for ip in addresses {
        if let Some(name) = facts.name(&[&dashed(ip), namespace, "pod"]) {
            facts.address(&name, ip);
        }
    }
    facts.list
}

/// Facts that are being collected.
struct Facts<'a> {
    config: &'a Config,
    list: Vec<Fact>,
}

impl<'a> Facts<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            list: Vec::new(),
        }
    }

    /// A name of the cluster's zone by its labels; `None` where a label cannot be one (such an object has no name).
    fn name(&self, labels: &[&str]) -> Option<Name> {
        let relative = Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?;
        let name = relative.append_domain(&self.config.origin).ok()?;
        Some(name.to_lowercase())
    }

    fn add(&mut self, name: &Name, data: RData) {
        self.list.push((LowerName::new(name), Some(data)));
    }

    fn exists(&mut self, labels: &[&str]) {
        if let Some(name) = self.name(labels) {
            self.list.push((LowerName::new(&name), None));
        }
    }

    fn address(&mut self, name: &Name, ip: IpAddr) {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.add(name, data);
    }

    /// The reverse name, in a zone of ours only.
    fn pointer(&mut self, ip: IpAddr, target: &Name) {
        let mut name = Name::from(ip);
        name.set_fqdn(true);
        if self.config.reverse.iter().any(|apex| apex.zone_of(&name)) {
            self.add(&name, RData::PTR(PTR(target.clone())));
        }
    }

    fn alias(&mut self, name: &Name, target: &str) {
        if let Ok(mut target) = Name::from_utf8(target)
            && !target.is_root()
        {
            target.set_fqdn(true);
            self.add(name, RData::CNAME(CNAME(target)));
        }
    }

    /// Virtual addresses; SRV with the Service's own ports, since clients connect to the Service.
    fn cluster_ip(&mut self, name: &Name, service: &Service) {
        let Some(spec) = &service.spec else { return };
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let addresses: BTreeSet<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
        for ip in &addresses {
            self.address(name, *ip);
            self.pointer(*ip, name);
        }
        if addresses.is_empty() {
            return;
        }
        for port in spec.ports.iter().flatten() {
            self.srv(
                name,
                port.name.as_deref(),
                port.protocol.as_deref(),
                port.port,
                name,
                100,
            );
        }
    }

    /// An address under the Service's name and under the endpoint's own. An endpoint whose hostname cannot be a label is
    /// known by its address, like one without.
    fn endpoint(
        &mut self,
        service: &Name,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        ip: IpAddr,
        weight: u16,
    ) {
        self.address(service, ip);
        let hostname = endpoint.hostname.as_deref().filter(|h| is_label(h));
        let label = hostname.map_or_else(|| dashed(ip), str::to_ascii_lowercase);
        let Ok(name) = service.prepend_label(label.as_bytes()) else {
            return;
        };
        self.address(&name, ip);
        self.pointer(ip, &name);
        for port in slice.ports.iter().flatten() {
            self.srv(
                service,
                port.name.as_deref(),
                port.protocol.as_deref(),
                port.port.unwrap_or_default(),
                &name,
                weight,
            );
        }
    }

    /// Under `_port._protocol` where the port has a name, and under the bare Service for all ports, which is what
    /// peer finders ask for.
    fn srv(
        &mut self,
        service: &Name,
        port_name: Option<&str>,
        protocol: Option<&str>,
        port: i32,
        target: &Name,
        weight: u16,
    ) {
        let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else {
            return;
        };
        let data = RData::SRV(SRV::new(0, weight, port, target.clone()));
        self.add(service, data.clone());
        let Some(port_name) = port_name.filter(|n| !n.is_empty()) else {
            return;
        };
        let protocol = format!("_{}", protocol.unwrap_or("TCP").to_ascii_lowercase());
        let port_name = format!("_{}", port_name.to_ascii_lowercase());
        let name = service
            .prepend_label(protocol.as_bytes())
            .and_then(|n| n.prepend_label(port_name.as_bytes()));
        if let Ok(name) = name {
            self.add(&name, data);
        }
    }
}

/// Whether this can be a host's own label (RFC 1123).
fn is_label(text: &str) -> bool {
    let fits = (1..=63).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-');
    fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `10.1.2.3` as `10-1-2-3`, `fd00::` as `fd00--0`, since a label cannot end in a dash.
fn dashed(ip: IpAddr) -> String {
    let mut label = ip.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_as_a_label_never_ends_in_a_dash() {
        let label = |ip: &str| dashed(ip.parse().expect("an address"));
        assert_eq!(label("127.0.0.7"), "127-0-0-7");
        assert_eq!(label("fd00::10"), "fd00--10");
        assert_eq!(label("fd00::"), "fd00--0");
        assert_eq!(label("::"), "--0");
    }

    #[test]
    fn only_a_hosts_label_is_one() {
        assert!(is_label("web-0") && is_label(&"x".repeat(63)));
        for wrong in ["", "a.b", "-a", "a-", "a_b", "ä", &"x".repeat(64)] {
            assert!(!is_label(wrong), "{wrong:?}");
        }
    }
}
