//! What each object says about names: the Kubernetes DNS schema (version 1.1.0) as pure functions of one Service, one
//! EndpointSlice, one Pod or one Namespace. Sections 1 and 2 of the reference on DNS say which names there are.

use crate::Config;
use crate::name::Name;
use crate::set::Data;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How long an answer may be kept, in seconds; also the SOA's minimum, for negative answers.
pub const TTL: u32 = 5;

/// Numbers of the types that there are here (RFC 1035, 2782, 3596).
pub mod types {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// The servers of a zone.
    pub const NS: u16 = 2;
    /// Another name for a name.
    pub const CNAME: u16 = 5;
    /// What is said about a zone.
    pub const SOA: u16 = 6;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// Text.
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// Where a service is.
    pub const SRV: u16 = 33;
}
use types::{A, AAAA, CNAME, NS, PTR, SRV, TXT};

/// One thing said about one name: a record's data, or only that the name exists.
pub type Fact = (Name, Option<Data>);

/// What the zones say about themselves, but for their SOA.
pub fn apexes(config: &Config) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    for apex in config.apexes() {
        facts.add(apex, NS, &[config.server.as_wire()]);
    }
    for address in &config.addresses {
        facts.address(&config.server, *address);
    }
    if let Some(version) = facts.name(&["dns-version"]) {
        facts.add(&version, TXT, &[b"\x051.1.0"]);
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

/// What all endpoints of a slice have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// The Service's name.
    service: Name,
    /// The slice's ports.
    ports: Vec<EndpointPort>,
    /// That of all SRV records of the Service.
    weight: u16,
}

impl Common {
    /// Of this slice; `None` where the Service cannot have a name.
    pub fn new(config: &Config, slice: &EndpointSlice, weight: u16) -> Option<Self> {
        let (namespace, service) = service_of(slice)?;
        Some(Self {
            service: config.origin.descendant(&[service, namespace, "svc"])?,
            ports: slice.ports.clone().unwrap_or_default(),
            weight,
        })
    }
}

/// What names are made of in an endpoint; other changes of one change no name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    hostname: Option<String>,
    addresses: Vec<IpAddr>,
}

impl From<&Endpoint> for Member {
    /// An endpoint whose hostname cannot be a label is known by its addresses, like one without.
    fn from(endpoint: &Endpoint) -> Self {
        let hostname = endpoint.hostname.as_deref().filter(|h| is_label(h));
        Self {
            hostname: hostname.map(str::to_ascii_lowercase),
            addresses: endpoint.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        }
    }
}

/// What an endpoint of a headless Service says: its addresses under the Service's name and under its own, SRV, PTR.
pub fn endpoint(config: &Config, common: &Common, member: &Member) -> Vec<Fact> {
    let mut facts = Facts::new(config);
    for ip in &member.addresses {
        facts.address(&common.service, *ip);
        let dashed = || dashed(*ip);
        let label = member.hostname.clone().unwrap_or_else(dashed);
        let Some(name) = common.service.child(label) else {
            continue;
        };
        facts.address(&name, *ip);
        facts.pointer(*ip, &name);
        for port in &common.ports {
            facts.srv(&common.service, Port::from(port), &name, common.weight);
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

/// A port of a Service or of a slice.
struct Port<'a> {
    name: Option<&'a str>,
    protocol: Option<&'a str>,
    number: i32,
}

impl<'a> From<&'a EndpointPort> for Port<'a> {
    fn from(port: &'a EndpointPort) -> Self {
        Self {
            name: port.name.as_deref(),
            protocol: port.protocol.as_deref(),
            number: port.port.unwrap_or_default(),
        }
    }
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
        self.config.origin.descendant(labels)
    }

    /// A record whose data are these parts one behind the other.
    fn add(&mut self, name: &Name, type_: u16, parts: &[&[u8]]) {
        let bytes = parts.concat().into();
        self.list.push((name.clone(), Some(Data { type_, bytes })));
    }

    fn exists(&mut self, labels: &[&str]) {
        self.list.extend(self.name(labels).map(|name| (name, None)));
    }

    fn address(&mut self, name: &Name, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.add(name, A, &[&ip.octets()]),
            IpAddr::V6(ip) => self.add(name, AAAA, &[&ip.octets()]),
        }
    }

    /// The reverse name, in a zone of ours only.
    fn pointer(&mut self, ip: IpAddr, target: &Name) {
        let name = Name::reverse(ip);
        if self.config.reverse.iter().any(|apex| name.is_within(apex)) {
            self.add(&name, PTR, &[target.as_wire()]);
        }
    }

    fn alias(&mut self, name: &Name, target: &str) {
        if let Some(target) = Name::from_text(target).filter(|target| *target != Name::root()) {
            self.add(name, CNAME, &[target.as_wire()]);
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
            let port = Port {
                name: port.name.as_deref(),
                protocol: port.protocol.as_deref(),
                number: port.port,
            };
            self.srv(name, port, name, 100);
        }
    }

    /// Under `_port._protocol` where the port has a name, and under the bare Service for all ports, which is what
    /// peer finders ask for. Priority is 0 always.
    fn srv(&mut self, service: &Name, port: Port<'_>, target: &Name, weight: u16) {
        let Some(number) = u16::try_from(port.number).ok().filter(|number| *number > 0) else {
            return;
        };
        let fixed = [0, weight, number].map(u16::to_be_bytes).concat();
        let data: [&[u8]; 2] = [&fixed, target.as_wire()];
        self.add(service, SRV, &data);
        let Some(port_name) = port.name.filter(|name| !name.is_empty()) else {
            return;
        };
        let protocol = format!("_{}", port.protocol.unwrap_or("TCP"));
        if let Some(name) = service.descendant(&[format!("_{port_name}"), protocol]) {
            self.add(&name, SRV, &data);
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
