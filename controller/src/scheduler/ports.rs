//! Ports of the node that pods ask for (`hostPort`), and which of them are taken (upstream's filter NodePorts).

use crate::volume::protection::is_active;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

/// A port of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

/// Every address of the node.
const ANY: &str = "0.0.0.0";

impl HostPort {
    /// Two pods cannot have both.
    fn excludes(&self, other: &Self) -> bool {
        let same_address = self.address == other.address || self.address == ANY || other.address == ANY;
        same_address && self.protocol == other.protocol && self.port == other.port
    }
}

/// What a pod asks for. Of init containers only those that go on beside the others do.
pub fn wanted(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                address: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| ANY.into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

/// Whether another pod of the node has one of the ports that `pod` asks for.
pub fn are_taken(pod: &Pod, node: &str, others: &[Pod]) -> bool {
    let wanted = wanted(pod);
    let on_node = |other: &&Pod| {
        let placed = other.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        placed == Some(node) && is_active(other) && other.uid() != pod.uid()
    };
    !wanted.is_empty()
        && others
            .iter()
            .filter(on_node)
            .flat_map(self::wanted)
            .any(|taken| wanted.iter().any(|port| port.excludes(&taken)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(uid: &str, ports: Value, phase: &str) -> Pod {
        let containers = json!([{"name": "c", "ports": ports}]);
        let spec = json!({"nodeName": "n", "containers": containers});
        let pod = json!({"metadata": {"uid": uid}, "spec": spec, "status": {"phase": phase}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_port_is_taken_on_an_address_and_for_a_protocol() {
        let taken = |port: Value| {
            let first = pod("1", json!([port]), "Running");
            move |port: Value| are_taken(&pod("2", json!([port]), ""), "n", std::slice::from_ref(&first))
        };
        let any = taken(json!({"containerPort": 80, "hostPort": 80}));
        assert!(any(json!({"containerPort": 8080, "hostPort": 80})));
        assert!(any(
            json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"})
        ));
        assert!(!any(json!({"containerPort": 80, "hostPort": 81})));
        assert!(!any(
            json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"})
        ));
        assert!(!any(json!({"containerPort": 80})));
        let one = taken(json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}));
        assert!(one(json!({"containerPort": 80, "hostPort": 80})));
        assert!(!one(
            json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.2"})
        ));
    }

    #[test]
    fn pods_that_have_ended_and_pods_of_other_nodes_hold_no_port() {
        let port = json!([{"containerPort": 80, "hostPort": 80}]);
        let new = pod("2", port.clone(), "");
        assert!(!are_taken(&new, "n", &[pod("1", port.clone(), "Succeeded")]));
        assert!(!are_taken(&new, "m", &[pod("1", port.clone(), "Running")]));
        assert!(!are_taken(&new, "n", &[pod("2", port, "Running")]));
    }

    #[test]
    fn a_sidecar_asks_for_ports_and_another_init_container_does_not() {
        let init = |policy: Value| {
            let ports = json!([{"containerPort": 80, "hostPort": 80}]);
            let init = json!([{"name": "i", "restartPolicy": policy, "ports": ports}]);
            let pod = json!({"spec": {"containers": [], "initContainers": init}});
            wanted(&serde_json::from_value(pod).unwrap()).len()
        };
        assert_eq!((init(json!("Always")), init(Value::Null)), (1, 0));
    }
}
