//! The Endpoints of a Service, the older form of its EndpointSlices (D4).

use crate::endpointslice::endpoint::{
    Family, address, families, hostname, is_endpoint, is_headless, is_ready, ports, publishes_not_ready,
    selector, selects, target_reference,
};
use crate::endpointslice::plan::{HEADLESS, LAST_CHANGE};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Who keeps the object, as a label says since 1.33.
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// How many addresses the object holds before it is cut off, and what then says so.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The one write that makes a Service's Endpoints right.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the object for the first time.
    Create(Box<Endpoints>),
    /// Replace it; it carries the resourceVersion it was made from.
    Update(Box<Endpoints>),
}

/// Whether this controller made the object.
pub fn is_managed(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1)
}

/// What is to be written, if anything; `now` is what the change annotation says.
pub fn plan<P: Borrow<Pod>>(
    service: &Service,
    pods: &[P],
    current: Option<&Endpoints>,
    now: &str,
) -> Option<Action> {
    selector(service)?;
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    let mut annotations = current
        .map(|current| current.annotations().clone())
        .unwrap_or_default();
    match truncated {
        true => annotations.insert(OVER_CAPACITY.into(), "truncated".into()),
        false => annotations.remove(OVER_CAPACITY),
    };
    if let Some(current) = current
        && current.subsets.as_deref().unwrap_or_default() == subsets
        && current.labels() == &labels
        && current.annotations() == &annotations
    {
        return None;
    }
    annotations.insert(LAST_CHANGE.into(), now.into());
    let metadata = current
        .map(|current| current.metadata.clone())
        .unwrap_or(ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        });
    let endpoints = Box::new(Endpoints {
        metadata: ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..metadata
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    });
    Some(match current {
        Some(_) => Action::Update(endpoints),
        None => Action::Create(endpoints),
    })
}

/// Name, port, protocol, application protocol: the order of ports in a subset.
type Port = (String, i32, String, Option<String>);

/// Pods with the same ports in one subset, everything sorted.
fn subsets<P: Borrow<Pod>>(service: &Service, pods: &[P]) -> Vec<EndpointSubset> {
    let family = families(service).first().copied().unwrap_or(Family::IPv4);
    let mut groups: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
    let selected = pods
        .iter()
        .map(Borrow::borrow)
        .filter(|pod| selects(service, pod));
    for pod in selected.filter(|pod| is_endpoint(pod)) {
        let unready_too = publishes_not_ready(service);
        if pod.metadata.deletion_timestamp.is_some() && !unready_too {
            continue;
        }
        let Some(ip) = address(pod, family) else { continue };
        let mut ports: Vec<Port> = ports(pod, service)
            .into_iter()
            .filter_map(|p| Some((p.name.unwrap_or_default(), p.port?, p.protocol?, p.app_protocol)))
            .collect();
        ports.sort();
        let portless = service
            .spec
            .as_ref()
            .is_none_or(|s| s.ports.as_ref().is_none_or(Vec::is_empty));
        if ports.is_empty() && !portless {
            continue;
        }
        let subset = groups.entry(ports).or_default();
        let list = match unready_too || is_ready(pod) {
            true => &mut subset.addresses,
            false => &mut subset.not_ready_addresses,
        };
        list.get_or_insert_default().push(EndpointAddress {
            ip: ip.into(),
            hostname: hostname(pod, service),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(target_reference(pod)),
        });
    }
    let sorted = groups.into_iter().map(|(ports, mut subset)| {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            list.iter_mut()
                .for_each(|list| list.sort_by(|a, b| order(a).cmp(&order(b))));
        }
        subset.ports = (!ports.is_empty()).then(|| ports.into_iter().map(port_of).collect());
        subset
    });
    sorted.collect()
}

fn port_of((name, port, protocol, app_protocol): Port) -> EndpointPort {
    EndpointPort {
        name: (!name.is_empty()).then_some(name),
        port,
        protocol: Some(protocol),
        app_protocol,
    }
}

fn order(address: &EndpointAddress) -> (&str, Option<&str>) {
    let uid = address
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    (&address.ip, uid)
}

/// Keep [`CAPACITY`] addresses, ready ones first; was there more?
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let mut room = CAPACITY;
    let mut cut = false;
    let mut keep = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            cut |= addresses.len() > room;
            addresses.truncate(room);
            room -= addresses.len();
            if addresses.is_empty() {
                *list = None;
            }
        }
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets
        .iter_mut()
        .for_each(|subset| keep(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::testing::{pod, service};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn unready(ordinal: usize) -> Pod {
        pod(
            ordinal,
            json!({"conditions": [{"type": "Ready", "status": "False"}]}),
        )
    }

    fn created(service: &Service, pods: &[Pod]) -> Endpoints {
        match plan(service, pods, None, "now") {
            Some(Action::Create(endpoints)) => *endpoints,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(endpoints: &Endpoints) -> Value {
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|address| address.ip.clone()).collect()
        };
        let subsets = endpoints.subsets.iter().flatten();
        json!(
            subsets
                .map(|s| (ips(&s.addresses), ips(&s.not_ready_addresses)))
                .collect::<Vec<_>>()
        )
    }

    #[test]
    fn ready_and_unready_pods_share_a_subset_sorted() {
        let service = service(json!({"clusterIP": "None", "ports": [{"name": "web", "port": 80}]}));
        let endpoints = created(&service, &[pod(2, json!({})), unready(1), pod(0, json!({}))]);
        assert_eq!(
            addresses(&endpoints),
            json!([[["127.1.0.0", "127.1.0.2"], ["127.1.0.1"]]])
        );
        assert_eq!(
            json!(endpoints.metadata.labels),
            json!({"team": "a", "service.kubernetes.io/headless": "", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
        );
        assert_eq!(
            json!(endpoints.subsets.unwrap()[0].ports),
            json!([{"name": "web", "port": 80, "protocol": "TCP"}])
        );
    }

    #[test]
    fn terminating_pods_are_left_out_unless_not_ready_ones_are_published() {
        let mut gone = pod(0, json!({}));
        gone.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let pods = [gone, unready(1)];
        let usual = created(&service(json!({"ports": [{"port": 80}]})), &pods);
        assert_eq!(addresses(&usual), json!([[[], ["127.1.0.1"]]]));
        let publishing = json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true});
        let published = created(&service(publishing), &pods);
        assert_eq!(addresses(&published), json!([[["127.1.0.0", "127.1.0.1"], []]]));
    }

    #[test]
    fn a_headless_service_may_have_no_ports() {
        let portless = service(json!({"clusterIP": "None"}));
        let endpoints = created(&portless, &[pod(0, json!({}))]);
        assert_eq!(addresses(&endpoints), json!([[["127.1.0.0"], []]]));
        assert_eq!(endpoints.subsets.unwrap()[0].ports, None);
    }

    #[test]
    fn what_is_right_is_not_written_again_and_no_pods_mean_no_subsets() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let pods = [pod(0, json!({}))];
        let endpoints = created(&service, &pods);
        assert_eq!(plan(&service, &pods, Some(&endpoints), "later"), None);
        let none: [Pod; 0] = [];
        match plan(&service, &none, Some(&endpoints), "later") {
            Some(Action::Update(updated)) => {
                assert_eq!(updated.subsets, None);
                assert_eq!(updated.annotations()[LAST_CHANGE], "later");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(created(&service, &none).subsets, None);
    }

    #[test]
    fn beyond_its_capacity_the_object_is_cut_off_and_says_so() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let mut pods: Vec<_> = (0..1001).map(|ordinal| pod(ordinal, json!({}))).collect();
        let endpoints = created(&service, &pods);
        assert_eq!(
            endpoints.subsets.as_ref().unwrap()[0]
                .addresses
                .as_ref()
                .unwrap()
                .len(),
            1000
        );
        assert_eq!(endpoints.annotations()[OVER_CAPACITY], "truncated");
        pods.truncate(1);
        match plan(&service, &pods, Some(&endpoints), "later") {
            Some(Action::Update(updated)) => assert!(!updated.annotations().contains_key(OVER_CAPACITY)),
            other => panic!("{other:?}"),
        }
    }
}
