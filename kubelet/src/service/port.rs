//! One port of a Service, and where connections to it go: a pure function of Services and EndpointSlices, as upstream's
//! `CategorizeEndpoints` (pkg/proxy/topology.go) decides it. IPv4 only, like petset's pods.

use k8s_openapi::api::core::v1::{Service, ServicePort as SpecPort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// The label by which a slice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services with this label are for another proxy than the cluster's own.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Services and slices with this label have no virtual address.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What a port speaks. SCTP is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// `None`: not one that is carried. Nothing means TCP.
    pub fn of(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }

    /// Its number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// One of these gets it. Never empty; in order, none twice.
    Endpoints(Vec<SocketAddrV4>),
    /// It is refused: nobody is there.
    Refused,
    /// It is not answered: somebody is there, but not on this node, and the policy is `Local`.
    Dropped,
}

impl Backends {
    /// Who gets connections; nobody if they are refused or dropped.
    pub fn endpoints(&self) -> &[SocketAddrV4] {
        match self {
            Self::Endpoints(endpoints) => endpoints,
            Self::Refused | Self::Dropped => &[],
        }
    }
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The Service's UID.
    pub uid: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The cluster IP and the port.
    pub cluster: SocketAddrV4,
    /// `externalIPs` and the port.
    pub external: Vec<SocketAddrV4>,
    /// `nodePort`.
    pub node_port: Option<u16>,
    /// `sessionAffinity: ClientIP`: a client's connections go to the same endpoint.
    pub affinity: bool,
    /// For connections to the cluster IP (`internalTrafficPolicy`).
    pub inside: Backends,
    /// For connections to external IPs and node ports (`externalTrafficPolicy`).
    pub outside: Backends,
}

impl ServicePort {
    /// Whether it is that of the API server's own Service.
    pub fn is_api(&self) -> bool {
        (self.namespace.as_str(), self.service.as_str()) == ("default", "kubernetes")
    }
}

/// The cluster IP and port of the API server's Service, if connections to it lead to this server.
pub fn leading_to(ports: &[ServicePort], server: SocketAddrV4) -> Option<SocketAddrV4> {
    let leads = |port: &&ServicePort| port.is_api() && port.inside.endpoints().contains(&server);
    ports.iter().find(leads).map(|port| port.cluster)
}

/// Every port of every Service that has a cluster IP, in order of namespace, name and port.
pub fn service_ports(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    node: &str,
) -> Vec<ServicePort> {
    let mut of_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices {
        if let Some((namespace, service)) = owner(slice) {
            of_service.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services {
        let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else {
            continue;
        };
        let slices = of_service.get(&(namespace.as_str(), name.as_str()));
        let slices = slices.map_or(&[][..], Vec::as_slice);
        ports.extend(ports_of(service, namespace, name, slices, node));
    }
    ports.sort_by(|a, b| {
        let key = |port: &ServicePort| (port.cluster.port(), port.protocol);
        (&a.namespace, &a.service, key(a)).cmp(&(&b.namespace, &b.service, key(b)))
    });
    ports
}

/// Namespace and name of the Service that a slice is about.
fn owner(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let labels = slice.metadata.labels.as_ref()?;
    let counts = slice.address_type == "IPv4" && !labels.contains_key(HEADLESS);
    let namespace = slice.metadata.namespace.as_deref()?;
    counts.then(|| Some((namespace, labels.get(SERVICE_NAME)?.as_str())))?
}

fn ports_of(
    service: &Service,
    namespace: &str,
    name: &str,
    slices: &[&EndpointSlice],
    node: &str,
) -> Vec<ServicePort> {
    let Some((spec, cluster_ip)) = service.spec.as_ref().zip(cluster_ip(service)) else {
        return Vec::new();
    };
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let external = spec.external_ips.iter().flatten();
    let external: Vec<Ipv4Addr> = external.filter_map(|ip| ip.parse().ok()).collect();
    let port_of = |port: &SpecPort| {
        let protocol = Protocol::of(port.protocol.as_deref())?;
        let number = u16::try_from(port.port).ok()?;
        let known = known_endpoints(slices, port.name.as_deref().unwrap_or_default(), protocol, node);
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok());
        Some(ServicePort {
            namespace: namespace.into(),
            service: name.into(),
            uid: service.metadata.uid.clone().unwrap_or_default(),
            protocol,
            cluster: SocketAddrV4::new(cluster_ip, number),
            external: external.iter().map(|ip| SocketAddrV4::new(*ip, number)).collect(),
            node_port: node_port.filter(|port| *port != 0),
            affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
            inside: backends(&known, is_local(&spec.internal_traffic_policy)),
            outside: backends(&known, is_local(&spec.external_traffic_policy)),
        })
    };
    spec.ports.iter().flatten().filter_map(port_of).collect()
}

/// `None`: nothing for a proxy to do.
fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    let labels = service.metadata.labels.as_ref();
    let labelled = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
    let spec = service.spec.as_ref()?;
    if labelled(OTHER_PROXY) || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|ip| ip.parse().ok()).next()
}

/// What an endpoint's conditions mean for new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    ready: bool,
    /// On its way out, but it still answers.
    serves_its_end: bool,
    local: bool,
}

impl Known {
    fn of(endpoint: &Endpoint, node: &str) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let condition = |value: Option<bool>, unknown: bool| value.unwrap_or(unknown);
        let ready = condition(conditions.and_then(|c| c.ready), true);
        let serving = condition(conditions.and_then(|c| c.serving), ready);
        let terminating = condition(conditions.and_then(|c| c.terminating), false);
        Self {
            ready,
            serves_its_end: serving && terminating,
            // petset's own slices name the node; one that names none was written by hand for an address anywhere.
            local: endpoint.node_name.as_deref() == Some(node),
        }
    }
}

/// The endpoints of a port by address. One that stands in two slices counts as what is better.
fn known_endpoints(
    slices: &[&EndpointSlice],
    name: &str,
    protocol: Protocol,
    node: &str,
) -> BTreeMap<SocketAddrV4, Known> {
    let mut found: BTreeMap<SocketAddrV4, Known> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let ports = ports.filter(|port| {
            port.name.as_deref().unwrap_or_default() == name
                && Protocol::of(port.protocol.as_deref()) == Some(protocol)
        });
        for number in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                // The first address stands for all, as upstream's proxies and API say.
                let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else {
                    continue;
                };
                let known = Known::of(endpoint, node);
                let kept = found.entry(SocketAddrV4::new(ip, number)).or_insert(known);
                if known.ready && !kept.ready {
                    *kept = known;
                }
            }
        }
    }
    found
}

/// The ready ones; if there is none, those that end but still answer.
fn backends(known: &BTreeMap<SocketAddrV4, Known>, only_local: bool) -> Backends {
    let choose = |local: bool| -> Vec<SocketAddrV4> {
        let eligible = || known.iter().filter(move |(_, known)| known.local || !local);
        let ready: Vec<_> = eligible().filter(|(_, k)| k.ready).map(|(a, _)| *a).collect();
        if !ready.is_empty() {
            return ready;
        }
        eligible()
            .filter(|(_, k)| k.serves_its_end)
            .map(|(a, _)| *a)
            .collect()
    };
    match choose(only_local) {
        chosen if !chosen.is_empty() => Backends::Endpoints(chosen),
        _ if only_local && !choose(false).is_empty() => Backends::Dropped,
        _ => Backends::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NODE: &str = "here";

    fn service(spec: Value) -> Arc<Service> {
        let metadata = json!({"name": "web", "namespace": "default"});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Service"))
    }

    fn plain() -> Value {
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]})
    }

    /// Endpoints are given as `ADDRESS FLAGS`: r(eady), s(erving), t(erminating), e(lsewhere).
    fn slice(ports: Value, endpoints: &[&str]) -> Arc<EndpointSlice> {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|text| {
                let (address, flags) = text.split_once(' ').expect("address and flags");
                let node = if flags.contains('e') { "there" } else { NODE };
                let conditions = json!({"ready": flags.contains('r'), "serving": flags.contains('s'),
                    "terminating": flags.contains('t')});
                json!({"addresses": [address], "nodeName": node, "conditions": conditions})
            })
            .collect();
        let metadata = json!({"name": "web-x", "namespace": "default", "labels": {SERVICE_NAME: "web"}});
        let slice =
            json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).expect("a slice"))
    }

    fn http() -> Value {
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
    }

    fn one(spec: Value, slices: &[Arc<EndpointSlice>]) -> ServicePort {
        let mut ports = service_ports(&[service(spec)], slices, NODE);
        assert_eq!(ports.len(), 1, "{ports:?}");
        ports.remove(0)
    }

    fn shown(backends: &Backends) -> String {
        match backends {
            Backends::Endpoints(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                all.join(" ").replace("10.1.0.", "").replace(":8080", "")
            }
            Backends::Refused => "refused".into(),
            Backends::Dropped => "dropped".into(),
        }
    }

    #[test]
    fn connections_go_to_ready_endpoints_or_else_to_those_that_end_but_still_answer() {
        for (endpoints, cluster, local) in [
            (&["10.1.0.2 rs", "10.1.0.1 rs"][..], "1 2", "1 2"),
            (&["10.1.0.1 rs", "10.1.0.2 "], "1", "1"),
            (&["10.1.0.1 rs", "10.1.0.2 st"], "1", "1"),
            (&["10.1.0.1 ", "10.1.0.2 st", "10.1.0.3 t"], "2", "2"),
            (&["10.1.0.1 ", "10.1.0.3 t"], "refused", "refused"),
            (&[], "refused", "refused"),
            (&["10.1.0.1 rse"], "1", "dropped"),
            (&["10.1.0.1 rse", "10.1.0.2 st"], "1", "2"),
            (&["10.1.0.1 rse", "10.1.0.2 rs"], "1 2", "2"),
            // publishNotReadyAddresses: ready whatever else.
            (&["10.1.0.1 rt"], "1", "1"),
        ] {
            let slices = [slice(http(), endpoints)];
            let port = one(plain(), &slices);
            assert_eq!(shown(&port.inside), cluster, "{endpoints:?}");
            let mut spec = plain();
            spec["internalTrafficPolicy"] = json!("Local");
            let port = one(spec.clone(), &slices);
            assert_eq!(
                (shown(&port.inside), shown(&port.outside)),
                (local.into(), cluster.into())
            );
            spec["internalTrafficPolicy"] = json!("Cluster");
            spec["externalTrafficPolicy"] = json!("Local");
            let port = one(spec, &slices);
            assert_eq!(
                (shown(&port.inside), shown(&port.outside)),
                (cluster.into(), local.into())
            );
        }
    }

    #[test]
    fn conditions_that_are_not_given_count_as_upstreams_do() {
        let of = |conditions: Value| {
            let endpoint = json!({"addresses": ["10.1.0.1"], "conditions": conditions});
            Known::of(&serde_json::from_value(endpoint).expect("an endpoint"), NODE)
        };
        let known = |ready, serves_its_end| Known {
            ready,
            serves_its_end,
            local: false,
        };
        assert_eq!(of(Value::Null), known(true, false));
        assert_eq!(of(json!({"ready": false})), known(false, false));
        assert_eq!(
            of(json!({"ready": false, "terminating": true})),
            known(false, false)
        );
        assert_eq!(of(json!({"terminating": true})), known(true, true));
    }

    #[test]
    fn ports_of_slices_are_found_by_name_and_protocol() {
        let spec = json!({"clusterIP": "10.96.0.9", "sessionAffinity": "ClientIP", "type": "NodePort",
            "externalIPs": ["192.0.2.1", "2001:db8::1"],
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"}, {"name": "x", "port": 1, "protocol": "SCTP"}]});
        let ports =
            json!([{"name": "dns", "port": 1053, "protocol": "UDP"}, {"name": "dns-tcp", "port": 2053}]);
        let slices = [
            slice(ports, &["10.1.0.1 rs"]),
            slice(
                json!([{"name": "dns", "port": 3053, "protocol": "TCP"}, {"name": "dns-tcp"}]),
                &["10.1.0.2 rs"],
            ),
            // The same endpoint twice, while it moves from one slice to another.
            slice(
                json!([{"name": "dns", "port": 1053, "protocol": "UDP"}]),
                &["10.1.0.1 ", "10.1.0.3 rs"],
            ),
        ];
        let found = service_ports(&[service(spec)], &slices, NODE);
        let at = |ip: [u8; 4], port| SocketAddrV4::new(ip.into(), port);
        let [tcp, udp] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((tcp.protocol, udp.protocol), (Protocol::Tcp, Protocol::Udp));
        assert_eq!(tcp.inside.endpoints(), [at([10, 1, 0, 1], 2053)]);
        assert_eq!(
            udp.inside.endpoints(),
            [at([10, 1, 0, 1], 1053), at([10, 1, 0, 3], 1053)]
        );
        assert_eq!((tcp.node_port, udp.node_port), (None, Some(30053)));
        assert_eq!(udp.external, [at([192, 0, 2, 1], 53)]);
        assert!(udp.affinity);
    }

    #[test]
    fn services_without_a_virtual_address_and_those_of_other_proxies_are_left_alone() {
        let slices = [slice(http(), &["10.1.0.1 rs"])];
        for change in [
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            json!({"type": "ExternalName", "clusterIP": "", "clusterIPs": null}),
        ] {
            let mut spec = plain();
            for (field, value) in change.as_object().expect("an object") {
                spec[field] = value.clone();
            }
            assert_eq!(service_ports(&[service(spec)], &slices, NODE), []);
        }
        let mut other = Service::clone(&service(plain()));
        other.metadata.labels = Some([(OTHER_PROXY.into(), "mine".into())].into());
        assert_eq!(service_ports(&[Arc::new(other)], &slices, NODE), []);
    }

    #[test]
    fn slices_of_other_services_namespaces_and_families_do_not_count() {
        let change = |change: fn(&mut EndpointSlice)| {
            let mut slice = EndpointSlice::clone(&slice(http(), &["10.1.0.1 rs"]));
            change(&mut slice);
            let port = one(plain(), &[Arc::new(slice)]);
            shown(&port.inside)
        };
        assert_eq!(change(|_| ()), "1");
        assert_eq!(change(|s| s.metadata.namespace = Some("other".into())), "refused");
        assert_eq!(change(|s| s.metadata.labels = None), "refused");
        assert_eq!(change(|s| s.address_type = "IPv6".into()), "refused");
        let headless = |s: &mut EndpointSlice| {
            let labels = s.metadata.labels.get_or_insert_default();
            labels.insert(HEADLESS.into(), String::new());
        };
        assert_eq!(change(headless), "refused");
    }

    #[test]
    fn the_apis_own_service_is_used_only_if_it_leads_to_the_server() {
        let port = |service: &str, endpoints: &[&str]| ServicePort {
            namespace: "default".into(),
            service: service.into(),
            uid: String::new(),
            protocol: Protocol::Tcp,
            cluster: "10.96.0.1:443".parse().expect("an address"),
            external: Vec::new(),
            node_port: None,
            affinity: false,
            inside: match endpoints {
                [] => Backends::Refused,
                some => Backends::Endpoints(some.iter().map(|e| e.parse().expect("an address")).collect()),
            },
            outside: Backends::Refused,
        };
        let server = "10.244.0.1:6443".parse().expect("an address");
        let found = |service, endpoints: &[&str]| leading_to(&[port(service, endpoints)], server);
        let address = "10.96.0.1:443".parse().ok();
        assert_eq!(found("kubernetes", &["10.244.0.1:6443"]), address);
        assert_eq!(found("kubernetes", &["10.244.0.1:6444"]), None);
        assert_eq!(found("kubernetes", &[]), None);
        assert_eq!(found("other", &["10.244.0.1:6443"]), None);
    }
}
