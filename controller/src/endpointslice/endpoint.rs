//! From a pod that a Service selects to an endpoint and its ports (D2, D3). EndpointSlices and the older
//! Endpoints share what is here.

use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// 127.0.1.1
    IPv4,
    /// fd00::1
    IPv6,
}

impl Family {
    /// As ipFamilies and addressType write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::IPv4 => "IPv4",
            Family::IPv6 => "IPv6",
        }
    }

    fn of(address: &str) -> Self {
        if address.contains(':') {
            Family::IPv6
        } else {
            Family::IPv4
        }
    }
}

/// Does the Service have no address of its own?
pub fn is_headless(service: &Service) -> bool {
    cluster_ip(service) == "None"
}

fn cluster_ip(service: &Service) -> &str {
    let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    ip.unwrap_or_default()
}

/// The families that the Service's endpoints have addresses of.
pub fn families(service: &Service) -> Vec<Family> {
    let named = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let named: Vec<_> = named
        .into_iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::IPv4),
            "IPv6" => Some(Family::IPv6),
            _ => None,
        })
        .collect();
    match (named.is_empty(), cluster_ip(service)) {
        (false, _) => named,
        (true, "None" | "") => vec![Family::IPv4, Family::IPv6],
        (true, ip) => vec![Family::of(ip)],
    }
}

/// The pod's address in a family.
pub fn address(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    all.chain(status.pod_ip.as_deref())
        .find(|ip| !ip.is_empty() && Family::of(ip) == family)
}

/// May the pod be an endpoint at all? One that has finished or has no address yet is none.
pub fn is_endpoint(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed")
        && [Family::IPv4, Family::IPv6]
            .iter()
            .any(|family| address(pod, *family).is_some())
}

/// Is the pod's condition Ready true?
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Does the Service hand out the names of pods that are not ready?
pub fn publishes_not_ready(service: &Service) -> bool {
    let publish = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses);
    publish == Some(true)
}

/// The name under the Service's own that the pod asked for (D3).
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    let governed = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    governed.then_some(hostname)
}

/// Which pod an endpoint is.
pub fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod as an endpoint of the Service in one family; `None` if it has no address there.
pub fn endpoint(pod: &Pod, service: &Service, family: Family) -> Option<Endpoint> {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Some(Endpoint {
        addresses: vec![address(pod, family)?.into()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target_reference(pod)),
        ..Endpoint::default()
    })
}

/// The Service's ports as this pod has them. A named target port that the pod does not have is left out.
pub fn ports(pod: &Pod, service: &Service) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                // Empty when the port has no name, as upstream writes it.
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port)?),
                protocol: Some(protocol(port.protocol.as_deref()).into()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|p| !p.is_empty()).unwrap_or("TCP")
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        Some(IntOrString::String(name)) if !name.is_empty() => {
            let same = |candidate: &&ContainerPort| {
                candidate.name.as_ref() == Some(name)
                    && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
            };
            container_ports(pod).find(same).map(|found| found.container_port)
        }
        _ => Some(port.port),
    }
}

/// The ports of the containers, then those of sidecars (init containers that keep running).
fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    let init = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    containers
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
}

/// The labels of the pods that are the Service's endpoints; `None` if its endpoints are not ours to find.
pub fn selector(service: &Service) -> Option<&crate::selector::Labels> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector
        .as_ref()
        .filter(|selector| !external && !selector.is_empty())
}

/// Does the Service select a pod with these labels?
pub fn selects(service: &Service, pod: &Pod) -> bool {
    service.metadata.namespace == pod.metadata.namespace
        && selector(service).is_some_and(|selector| crate::selector::equal(selector, pod.labels()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::testing::{pod, service};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    #[test]
    fn conditions_follow_readiness_deletion_and_what_the_service_publishes() {
        for ready in [true, false] {
            for deleted in [true, false] {
                for published in [true, false] {
                    let status = if ready { "True" } else { "False" };
                    let mut pod = pod(0, json!({"conditions": [{"type": "Ready", "status": status}]}));
                    pod.metadata.deletion_timestamp = deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH));
                    let service = service(json!({"publishNotReadyAddresses": published}));
                    let found = endpoint(&pod, &service, Family::IPv4)
                        .unwrap()
                        .conditions
                        .unwrap();
                    assert_eq!(found.ready, Some(published || (ready && !deleted)));
                    assert_eq!((found.serving, found.terminating), (Some(ready), Some(deleted)));
                }
            }
        }
    }

    #[test]
    fn a_hostname_is_handed_out_only_by_the_governing_service() {
        let mut pod = pod(0, json!({}));
        assert_eq!(hostname(&pod, &service(json!({}))).as_deref(), Some("web-0"));
        let mut other = service(json!({}));
        other.metadata.name = Some("other".into());
        assert_eq!(hostname(&pod, &other), None);
        other = service(json!({}));
        other.metadata.namespace = Some("other".into());
        assert_eq!(hostname(&pod, &other), None);
        pod.spec.as_mut().unwrap().hostname = Some(String::new());
        assert_eq!(hostname(&pod, &service(json!({}))), None);
    }

    #[test]
    fn finished_pods_and_those_without_address_are_no_endpoints() {
        for (status, expected) in [
            (json!({}), true),
            (json!({"phase": "Pending"}), true),
            (json!({"phase": "Succeeded"}), false),
            (json!({"phase": "Failed"}), false),
            (json!({"podIP": ""}), false),
            (json!({"podIP": null, "podIPs": [{"ip": "fd00::1"}]}), true),
        ] {
            assert_eq!(is_endpoint(&pod(0, status.clone())), expected, "{status}");
        }
    }

    #[test]
    fn each_family_has_its_own_address() {
        let pod = pod(0, json!({"podIPs": [{"ip": "127.1.0.0"}, {"ip": "fd00::1"}]}));
        assert_eq!(address(&pod, Family::IPv4), Some("127.1.0.0"));
        assert_eq!(address(&pod, Family::IPv6), Some("fd00::1"));
        let table = [
            (
                json!({"ipFamilies": ["IPv6", "IPv4"]}),
                vec![Family::IPv6, Family::IPv4],
            ),
            (json!({"ipFamilies": null}), vec![Family::IPv4]),
            (
                json!({"ipFamilies": null, "clusterIP": "fd00::9"}),
                vec![Family::IPv6],
            ),
            (
                json!({"ipFamilies": null, "clusterIP": "None"}),
                vec![Family::IPv4, Family::IPv6],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(families(&service(spec.clone())), expected, "{spec}");
        }
    }

    #[test]
    fn sidecars_have_ports_and_other_init_containers_have_none() {
        let ports_of = |restart: serde_json::Value| {
            let mut pod = pod(0, json!({}));
            let port = json!([{"name": "http", "containerPort": 81}]);
            let init = json!([{"name": "c", "restartPolicy": restart, "ports": port}]);
            pod.spec.as_mut().unwrap().init_containers = serde_json::from_value(init).unwrap();
            ports(
                &pod,
                &service(json!({"ports": [{"port": 80, "targetPort": "http"}]})),
            )
        };
        assert_eq!(ports_of(json!("Always"))[0].port, Some(81));
        assert_eq!(ports_of(json!(null)), []);
    }
}
