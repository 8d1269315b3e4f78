//! Which addresses of the host are relayed to whom: node ports of Services, and `hostPort`s of pods. Pure.

use super::port::{Protocol, ServicePort};
use crate::plan::is_terminal;
use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Pod};
use kube::Resource;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

/// Something that can be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opening {
    /// An address of the host.
    pub at: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Where what comes in goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Relayed {
    /// One of these. Never empty.
    pub to: Vec<SocketAddrV4>,
    /// Whether a client always meets the same one.
    pub affinity: bool,
    /// In words: what this is, if it cannot be had.
    pub what: &'static str,
    /// Whose it is.
    pub whose: ObjectReference,
}

/// What is to be listened on. `address` is for everything that names none. `apart`: pods have networks of their own; without
/// that a pod that listens on a port of the host's does so itself.
///
/// A node port without endpoints is not listened on, so that connections are refused at once.
pub fn wanted(
    ports: &[ServicePort],
    pods: &[Arc<Pod>],
    address: IpAddr,
    apart: bool,
) -> BTreeMap<Opening, Relayed> {
    let mut wanted = BTreeMap::new();
    for port in ports {
        if let Some(number) = port.node_port
            && !port.outside.endpoints().is_empty()
        {
            let opening = Opening {
                at: SocketAddr::new(address, number),
                protocol: port.protocol,
            };
            wanted.insert(
                opening,
                Relayed {
                    to: port.outside.endpoints().to_vec(),
                    affinity: port.affinity,
                    what: "node port",
                    whose: service_reference(port),
                },
            );
        }
    }
    for pod in pods {
        for (opening, to) in host_ports(pod, address, apart) {
            // Two pods that want the same are the scheduler's business, and a node port was there first.
            wanted.entry(opening).or_insert_with(|| Relayed {
                to: vec![to],
                affinity: false,
                what: "host port",
                whose: ObjectReference {
                    // A pod that changes in other ways has the same listeners.
                    resource_version: None,
                    ..pod.object_ref(&())
                },
            });
        }
    }
    wanted
}

fn host_ports(pod: &Pod, address: IpAddr, apart: bool) -> Vec<(Opening, SocketAddrV4)> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let ip: Option<Ipv4Addr> = ip.and_then(|ip| ip.parse().ok());
    let (Some(ip), Some(spec)) = (ip, &pod.spec) else {
        return Vec::new();
    };
    if is_terminal(pod) || spec.host_network == Some(true) {
        return Vec::new();
    }
    let opening = |port: &ContainerPort| {
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
        let (host, own) = (number(port.host_port?)?, number(port.container_port)?);
        if !apart && host == own {
            return None;
        }
        let named = port.host_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        let opening = Opening {
            at: SocketAddr::new(named.unwrap_or(address), host),
            protocol: Protocol::of(port.protocol.as_deref())?,
        };
        Some((opening, SocketAddrV4::new(ip, own)))
    };
    // Sidecars are the init containers that stay.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(opening)
        .collect()
}

fn service_reference(port: &ServicePort) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(port.namespace.clone()),
        name: Some(port.service.clone()),
        uid: Some(port.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::port::Backends;
    use super::*;
    use serde_json::{Value, json};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pod(ports: Value, phase: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "default", "uid": "u"},
            "spec": {"containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": phase, "podIP": "10.1.0.2"},
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn node_port(number: u16, outside: Backends) -> ServicePort {
        let cluster = "10.96.0.1:80".parse().expect("an address");
        ServicePort {
            namespace: "default".into(),
            service: "web".into(),
            uid: "u".into(),
            protocol: Protocol::Tcp,
            cluster,
            external: Vec::new(),
            node_port: Some(number),
            affinity: true,
            inside: Backends::Refused,
            outside,
        }
    }

    fn shown(wanted: &BTreeMap<Opening, Relayed>) -> Vec<String> {
        let one = |(opening, relayed): (&Opening, &Relayed)| {
            let to: Vec<_> = relayed.to.iter().map(ToString::to_string).collect();
            format!("{} {} > {}", opening.protocol, opening.at, to.join(" "))
        };
        wanted.iter().map(one).collect()
    }

    #[test]
    fn a_node_port_is_open_while_somebody_is_behind_it() {
        let endpoints = ["10.1.0.2:8080", "10.1.0.3:8080"].map(|a| a.parse().expect("an address"));
        let open = node_port(30080, Backends::Endpoints(endpoints.into()));
        let closed = [
            node_port(30081, Backends::Refused),
            node_port(30082, Backends::Dropped),
        ];
        let ports = [&[open][..], &closed].concat();
        let found = wanted(&ports, &[], ADDRESS, true);
        assert_eq!(
            shown(&found),
            ["TCP 127.0.0.1:30080 > 10.1.0.2:8080 10.1.0.3:8080"]
        );
        assert!(found.values().all(|relayed| relayed.affinity));
    }

    #[test]
    fn a_host_port_leads_to_its_pod_for_as_long_as_that_runs() {
        let ports = json!([
            {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.9"},
            {"containerPort": 81},
            {"containerPort": 82, "hostPort": 82, "protocol": "SCTP"},
        ]);
        let of = |phase: &str, apart: bool| shown(&wanted(&[], &[pod(ports.clone(), phase)], ADDRESS, apart));
        let http = "TCP 127.0.0.1:8080 > 10.1.0.2:80";
        assert_eq!(of("Running", true), [http, "UDP 127.0.0.9:53 > 10.1.0.2:53"]);
        // In the host's network the pod itself may listen on this port of the host's.
        assert_eq!(of("Running", false), [http]);
        assert!(of("Succeeded", true).is_empty() && of("Failed", true).is_empty());
    }

    #[test]
    fn a_pod_in_the_hosts_network_and_one_without_an_address_are_not_relayed_to() {
        let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
        let change = |change: fn(&mut Pod)| {
            let mut pod = Pod::clone(&pod(ports.clone(), "Running"));
            change(&mut pod);
            wanted(&[], &[Arc::new(pod)], ADDRESS, true).len()
        };
        assert_eq!(change(|_| ()), 1);
        assert_eq!(
            change(|pod| pod.spec.as_mut().expect("a spec").host_network = Some(true)),
            0
        );
        assert_eq!(
            change(|pod| pod.status.as_mut().expect("a status").pod_ip = None),
            0
        );
    }
}
