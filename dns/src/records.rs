//! Names from objects: the Kubernetes DNS schema (version 1.1.0) as a pure function of Services, EndpointSlices, Pods and
//! Namespaces. D1 to D9 of the reference say which names there are.

use crate::Config;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// How long an answer may be kept, in seconds; also the SOA's minimum, for negative answers.
pub const TTL: u32 = 5;

/// What stands at one name: a set of records for each type; none at all at an empty non-terminal.
pub type Node = BTreeMap<RecordType, Vec<Record>>;

/// Every name there is, in lower case.
pub type Names = HashMap<LowerName, Node>;

/// What the API shows.
#[derive(Clone, Debug, Default)]
pub struct Objects<'a> {
    /// All Services.
    pub services: Vec<&'a Service>,
    /// All EndpointSlices.
    pub slices: Vec<&'a EndpointSlice>,
    /// All Pods.
    pub pods: Vec<&'a Pod>,
    /// All Namespaces.
    pub namespaces: Vec<&'a Namespace>,
}

/// The names of a cluster. `serial` is the SOA's.
pub fn names(config: &Config, objects: &Objects<'_>, serial: u32) -> Names {
    let mut builder = Builder {
        config,
        names: Names::new(),
    };
    builder.apexes(serial);
    for namespace in &objects.namespaces {
        if let Some(name) = &namespace.metadata.name {
            builder.exists(&[name, "svc"]);
            builder.exists(&[name, "pod"]);
        }
    }
    let mut slices: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in &objects.slices {
        let service = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("kubernetes.io/service-name"));
        if let (Some(service), Some(namespace)) = (service, &slice.metadata.namespace) {
            slices.entry((namespace, service)).or_default().push(slice);
        }
    }
    for service in &objects.services {
        if let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace) {
            let of_service = slices
                .get(&(namespace.as_str(), name.as_str()))
                .map_or(&[][..], Vec::as_slice);
            builder.service(namespace, name, service, of_service);
        }
    }
    for pod in &objects.pods {
        builder.pod(pod);
    }
    builder.names
}

struct Builder<'a> {
    config: &'a Config,
    names: Names,
}

impl Builder<'_> {
    /// A name of the cluster's zone by its labels; `None` where a label cannot be one (such an object has no name).
    fn name(&self, labels: &[&str]) -> Option<Name> {
        let relative = Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?;
        relative
            .append_domain(&self.config.origin)
            .ok()
            .map(|name| name.to_lowercase())
    }

    /// Add a record, and with it every name between it and the apex.
    fn add(&mut self, name: &Name, data: RData) {
        let type_ = data.record_type();
        let record = Record::from_rdata(name.clone(), TTL, data);
        let set = self.node(name).entry(type_).or_default();
        if !set.contains(&record) {
            set.push(record);
        }
    }

    fn node(&mut self, name: &Name) -> &mut Node {
        let mut parent = name.base_name();
        while !parent.is_root()
            && !self.names.contains_key(&LowerName::new(&parent))
            && self.is_below_apex(&parent)
        {
            self.names.insert(LowerName::new(&parent), Node::new());
            parent = parent.base_name();
        }
        self.names.entry(LowerName::new(name)).or_default()
    }

    fn is_below_apex(&self, name: &Name) -> bool {
        let apexes = std::iter::once(&self.config.origin).chain(&self.config.reverse);
        apexes.into_iter().any(|apex| apex.zone_of(name))
    }

    fn exists(&mut self, labels: &[&str]) {
        if let Some(name) = self.name(labels) {
            self.node(&name);
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
        let name = Name::from(ip);
        if self.config.reverse.iter().any(|apex| apex.zone_of(&name)) {
            self.add(&name, RData::PTR(PTR(target.clone())));
        }
    }

    fn apexes(&mut self, serial: u32) {
        let (Some(server), Some(contact)) = (self.name(&["ns", "dns"]), self.name(&["hostmaster"])) else {
            return;
        };
        for apex in std::iter::once(&self.config.origin).chain(&self.config.reverse) {
            let soa = SOA::new(server.clone(), contact.clone(), serial, 7200, 1800, 86400, TTL);
            self.add(apex, RData::SOA(soa));
            self.add(apex, RData::NS(NS(server.clone())));
        }
        self.address(&server, self.config.address);
        if let Some(version) = self.name(&["dns-version"]) {
            self.add(&version, RData::TXT(TXT::new(vec!["1.1.0".into()])));
        }
        self.exists(&["svc"]);
        self.exists(&["pod"]);
    }

    fn service(&mut self, namespace: &str, service_name: &str, service: &Service, slices: &[&EndpointSlice]) {
        let Some(name) = self.name(&[service_name, namespace, "svc"]) else {
            return;
        };
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec
                .external_name
                .as_deref()
                .and_then(|t| Name::from_utf8(t).ok());
            if let Some(mut target) = target {
                target.set_fqdn(true);
                self.add(&name, RData::CNAME(CNAME(target)));
            }
        } else if spec.cluster_ip.as_deref() == Some("None") {
            self.headless(&name, slices);
        } else {
            self.cluster_ip(&name, service);
        }
    }

    /// One virtual address; SRV with the Service's own ports, since clients connect to the Service.
    fn cluster_ip(&mut self, name: &Name, service: &Service) {
        let Some(spec) = &service.spec else { return };
        let first = spec.cluster_ip.clone().into_iter();
        let all: BTreeSet<String> = spec.cluster_ips.iter().flatten().cloned().chain(first).collect();
        let addresses: Vec<IpAddr> = all.iter().filter_map(|ip| ip.parse().ok()).collect();
        for ip in &addresses {
            self.address(name, *ip);
            self.pointer(*ip, name);
        }
        if addresses.is_empty() {
            return;
        }
        for port in spec.ports.iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            self.srv(
                name,
                port.name.as_deref(),
                port.protocol.as_deref(),
                number,
                name,
                100,
            );
        }
    }

    /// The addresses of all endpoints that are ready, each under a name of its own, too (D3, D5).
    fn headless(&mut self, name: &Name, slices: &[&EndpointSlice]) {
        let published =
            |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        let endpoints = || {
            let all = slices
                .iter()
                .flat_map(|slice| slice.endpoints.iter().flatten().map(move |e| (*slice, e)));
            all.filter(move |(_, endpoint)| published(endpoint))
        };
        let weight = u16::try_from(100 / endpoints().count().max(1))
            .unwrap_or(1)
            .max(1);
        for (slice, endpoint) in endpoints() {
            for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                self.endpoint(name, slice, endpoint, ip, weight);
            }
        }
    }

    fn endpoint(
        &mut self,
        service: &Name,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        ip: IpAddr,
        weight: u16,
    ) {
        let label = endpoint
            .hostname
            .clone()
            .filter(|h| !h.is_empty())
            .unwrap_or_else(|| dashed(ip));
        let Ok(name) = service.prepend_label(label.to_lowercase()) else {
            return;
        };
        self.address(service, ip);
        self.address(&name, ip);
        self.pointer(ip, &name);
        for port in slice.ports.iter().flatten() {
            let Some(number) = port.port.and_then(|p| u16::try_from(p).ok()) else {
                continue;
            };
            self.srv(
                service,
                port.name.as_deref(),
                port.protocol.as_deref(),
                number,
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
        port: u16,
        target: &Name,
        weight: u16,
    ) {
        let data = RData::SRV(SRV::new(0, weight, port, target.clone()));
        self.add(service, data.clone());
        let Some(port_name) = port_name.filter(|n| !n.is_empty()) else {
            return;
        };
        let protocol = format!("_{}", protocol.unwrap_or("TCP").to_lowercase());
        let name = service
            .prepend_label(protocol)
            .and_then(|n| n.prepend_label(format!("_{port_name}")));
        if let Ok(name) = name {
            self.add(&name, data);
        }
    }

    /// `10-1-2-3.NAMESPACE.pod.ZONE`, ready or not.
    fn pod(&mut self, pod: &Pod) {
        let Some(status) = &pod.status else { return };
        let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let ip = status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let (Some(ip), false, false) = (ip, host_network, finished)
            && let Some(name) = self.name(&[&dashed(ip), namespace, "pod"])
        {
            self.address(&name, ip);
        }
    }
}

/// `10.1.2.3` as `10-1-2-3`.
fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}
