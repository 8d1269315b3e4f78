//! From a Service, its pods and its slices to the fewest writes that make the slices right.

use super::endpoint::{Family, endpoint, families, is_endpoint, is_headless, ports, selects};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// Which Service a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller, as the label has it.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Marks slices and Endpoints of headless Services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// When what led to the last write happened.
pub const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// How many endpoints a slice holds (upstream's default).
pub const MAX_ENDPOINTS: usize = 100;

/// One write. Slices are whole: an update carries the resourceVersion it was made from.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write a new slice.
    Create(Box<EndpointSlice>),
    /// Replace a slice.
    Update(Box<EndpointSlice>),
    /// Remove a slice that nothing is left for.
    Delete(Box<EndpointSlice>),
}

/// What tells slices apart: endpoints with the same family and the same ports share slices.
type Group = (Family, Vec<Port>);
/// A port in an order.
type Port = (Option<String>, Option<i32>, Option<String>, Option<String>);

/// The writes. `pods` may be any pods, `slices` are those labelled with the Service's name, `now` is what
/// the change annotation says.
pub fn plan<P: Borrow<Pod>>(
    service: &Service,
    pods: &[P],
    slices: &[EndpointSlice],
    now: &str,
) -> Vec<Action> {
    if super::endpoint::selector(service).is_none() {
        return Vec::new();
    }
    let ours = slices
        .iter()
        .filter(|slice| slice.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER))
        .filter(|slice| slice.metadata.deletion_timestamp.is_none());
    let wanted = wanted(service, pods);
    let mut existing: BTreeMap<Group, Vec<&EndpointSlice>> = BTreeMap::new();
    let mut leftover: Vec<&EndpointSlice> = Vec::new();
    for slice in ours {
        match group_of(slice) {
            Some(group) if wanted.contains_key(&group) => existing.entry(group).or_default().push(slice),
            _ => leftover.push(slice),
        }
    }
    let mut creates = Vec::new();
    let mut actions = Vec::new();
    for (group, endpoints) in wanted {
        let slices = existing.remove(&group).unwrap_or_default();
        let filled = fill(endpoints, &slices);
        for (index, (slice, endpoints)) in slices.iter().zip(filled.kept).enumerate() {
            if endpoints.is_empty() && !(filled.placeholder && index == 0) {
                leftover.push(slice);
            } else if let Some(update) = updated(service, slice, &group, endpoints, now) {
                actions.push(Action::Update(Box::new(update)));
            }
        }
        creates.extend(
            filled
                .new
                .into_iter()
                .map(|endpoints| new(service, &group, endpoints, now)),
        );
    }
    for slice in creates {
        // Writing into one that would be deleted is one write instead of two, and nobody who reads sees
        // a moment with neither.
        let reused = leftover
            .iter()
            .position(|old| old.address_type == slice.address_type);
        actions.push(match reused.map(|index| leftover.remove(index)) {
            Some(old) => Action::Update(Box::new(EndpointSlice {
                metadata: ObjectMeta {
                    annotations: slice.metadata.annotations,
                    labels: slice.metadata.labels,
                    ..old.metadata.clone()
                },
                ..slice
            })),
            None => Action::Create(Box::new(slice)),
        });
    }
    actions.extend(
        leftover
            .into_iter()
            .map(|slice| Action::Delete(Box::new(slice.clone()))),
    );
    actions
}

/// The endpoints there should be, by group; a family without any has one empty group.
fn wanted<P: Borrow<Pod>>(service: &Service, pods: &[P]) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let mut pods: Vec<&Pod> = pods.iter().map(Borrow::borrow).collect();
    pods.sort_by_key(|pod| pod.name_any());
    for family in families(service) {
        for pod in pods
            .iter()
            .filter(|pod| is_endpoint(pod) && selects(service, pod))
        {
            if let Some(endpoint) = endpoint(pod, service, family) {
                let ports = ports(pod, service).into_iter().map(port_key).collect();
                groups.entry((family, ports)).or_default().push(endpoint);
            }
        }
        if !groups.keys().any(|(present, _)| *present == family) {
            groups.insert((family, Vec::new()), Vec::new());
        }
    }
    groups
}

/// How endpoints are spread over slices.
struct Filled {
    /// For each slice there is what it should hold.
    kept: Vec<Vec<Endpoint>>,
    /// What new slices hold.
    new: Vec<Vec<Endpoint>>,
    /// The group is empty on purpose: its first slice stays.
    placeholder: bool,
}

/// Each endpoint stays where it is; new ones go first to slices that are written anyway, then to the
/// fullest that takes all of them, then to new slices.
fn fill(endpoints: Vec<Endpoint>, slices: &[&EndpointSlice]) -> Filled {
    let placeholder = endpoints.is_empty();
    let mut wanted: BTreeMap<Identity, Endpoint> = BTreeMap::new();
    let mut order = Vec::new();
    for endpoint in endpoints {
        let identity = identity(&endpoint);
        if wanted.insert(identity.clone(), endpoint).is_none() {
            order.push(identity);
        }
    }
    let mut written = BTreeSet::new();
    let mut kept: Vec<Vec<Endpoint>> = Vec::new();
    for (index, slice) in slices.iter().enumerate() {
        let held = slice.endpoints.iter().flatten();
        let keep: Vec<Endpoint> = held
            .filter_map(|endpoint| wanted.remove(&identity(endpoint)))
            .take(MAX_ENDPOINTS)
            .collect();
        if slice.endpoints.as_ref().is_none_or(|held| held != &keep) {
            written.insert(index);
        }
        kept.push(keep);
    }
    let mut new: Vec<Endpoint> = order
        .iter()
        .filter_map(|identity| wanted.remove(identity))
        .collect();
    for index in &written {
        let room = MAX_ENDPOINTS - kept[*index].len();
        kept[*index].extend(new.drain(..room.min(new.len())));
    }
    if !new.is_empty() && new.len() <= MAX_ENDPOINTS {
        let fitting = (0..kept.len()).filter(|index| kept[*index].len() + new.len() <= MAX_ENDPOINTS);
        if let Some(fullest) = fitting.max_by_key(|index| kept[*index].len()) {
            kept[fullest].append(&mut new);
        }
    }
    let mut new: Vec<Vec<Endpoint>> = new.chunks(MAX_ENDPOINTS).map(<[Endpoint]>::to_vec).collect();
    if placeholder && slices.is_empty() {
        new.push(Vec::new());
    }
    Filled {
        kept,
        new,
        placeholder,
    }
}

/// What makes an endpoint the same one, whatever its conditions are.
type Identity = (Vec<String>, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.clone(), uid)
}

fn new(service: &Service, group: &Group, endpoints: Vec<Endpoint>, now: &str) -> EndpointSlice {
    EndpointSlice {
        address_type: group.0.as_str().into(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            annotations: Some([(LAST_CHANGE.into(), now.into())].into()),
            owner_references: Some(vec![owner(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(group.1.iter().map(port_of).collect()),
    }
}

/// The slice as it should be; `None` if it is.
fn updated(
    service: &Service,
    slice: &EndpointSlice,
    group: &Group,
    endpoints: Vec<Endpoint>,
    now: &str,
) -> Option<EndpointSlice> {
    let labels = labels(service);
    let same = slice.endpoints.as_deref().unwrap_or_default() == endpoints
        && slice.labels() == &labels
        && slice.owner_references() == [owner(service)];
    if same {
        return None;
    }
    let mut updated = new(service, group, endpoints, now);
    let mut annotations = slice.annotations().clone();
    annotations.insert(LAST_CHANGE.into(), now.into());
    updated.metadata = ObjectMeta {
        annotations: Some(annotations),
        labels: Some(labels),
        owner_references: updated.metadata.owner_references,
        ..slice.metadata.clone()
    };
    Some(updated)
}

/// The Service's labels and the four of the slice.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: service.name_any(),
        uid: service.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn port_key(port: EndpointPort) -> Port {
    (port.name, port.port, port.protocol, port.app_protocol)
}

fn port_of((name, port, protocol, app_protocol): &Port) -> EndpointPort {
    EndpointPort {
        name: name.clone(),
        port: *port,
        protocol: protocol.clone(),
        app_protocol: app_protocol.clone(),
    }
}

fn group_of(slice: &EndpointSlice) -> Option<Group> {
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::IPv4,
        "IPv6" => Family::IPv6,
        _ => return None,
    };
    let ports = slice.ports.iter().flatten().cloned().map(port_key).collect();
    Some((family, ports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::testing::{pod, service};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:00:00Z";

    /// What the API server would hold after the actions.
    fn apply(slices: &[EndpointSlice], actions: Vec<Action>, counter: &mut usize) -> Vec<EndpointSlice> {
        let mut slices = slices.to_vec();
        for action in actions {
            match action {
                Action::Create(mut slice) => {
                    *counter += 1;
                    slice.metadata.name = Some(format!("web-{counter}"));
                    slice.metadata.generate_name = None;
                    slices.push(*slice);
                }
                Action::Update(slice) => {
                    let old = slices.iter_mut().find(|old| old.name_any() == slice.name_any());
                    let old = old.expect("an update is of a slice that is there");
                    assert_eq!(old.address_type, slice.address_type, "addressType is immutable");
                    *old = *slice;
                }
                Action::Delete(slice) => slices.retain(|old| old.name_any() != slice.name_any()),
            }
        }
        slices
    }

    fn addresses(slice: &EndpointSlice) -> Vec<String> {
        let endpoints = slice.endpoints.iter().flatten();
        endpoints
            .flat_map(|endpoint| endpoint.addresses.clone())
            .collect()
    }

    #[test]
    fn a_new_slice_is_as_upstream_writes_it() {
        let service = service(json!({"clusterIP": "None", "ports": [{"name": "web", "port": 80}]}));
        let actions = plan(&service, &[pod(0, json!({}))], &[], NOW);
        let [Action::Create(slice)] = &actions[..] else {
            panic!("{actions:?}")
        };
        let expected = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["127.1.0.0"],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "hostname": "web-0",
                "nodeName": "node",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-0", "uid": "web-0-uid"},
            }],
            "metadata": {
                "generateName": "web-",
                "namespace": "default",
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": NOW},
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": "web",
                    "service.kubernetes.io/headless": "",
                    "team": "a",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "web-uid",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "ports": [{"name": "web", "port": 80, "protocol": "TCP"}],
        });
        assert_eq!(serde_json::to_value(slice).unwrap(), expected);
    }

    #[test]
    fn a_change_of_readiness_is_one_update_of_one_slice() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let mut pods = vec![pod(0, json!({})), pod(1, json!({}))];
        let mut counter = 0;
        let slices = apply(&[], plan(&service, &pods, &[], NOW), &mut counter);
        assert_eq!(plan(&service, &pods, &slices, "later"), []);
        pods[1] = pod(1, json!({"conditions": [{"type": "Ready", "status": "False"}]}));
        let actions = plan(&service, &pods, &slices, "later");
        let [Action::Update(slice)] = &actions[..] else {
            panic!("{actions:?}")
        };
        let ready = slice
            .endpoints
            .iter()
            .flatten()
            .map(|e| e.conditions.as_ref().unwrap().ready);
        assert_eq!(ready.collect::<Vec<_>>(), [Some(true), Some(false)]);
        assert_eq!(slice.annotations()[LAST_CHANGE], "later");
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice_that_the_first_pod_fills() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let none: [Pod; 0] = [];
        let empty = apply(&[], plan(&service, &none, &[], NOW), &mut 0);
        assert_eq!(empty.len(), 1);
        assert_eq!(
            (&empty[0].endpoints, &empty[0].ports),
            (&Some(vec![]), &Some(vec![]))
        );
        assert_eq!(plan(&service, &none, &empty, NOW), []);
        let actions = plan(&service, &[pod(0, json!({}))], &empty, NOW);
        assert!(matches!(&actions[..], [Action::Update(_)]), "{actions:?}");
    }

    #[test]
    fn named_target_ports_split_pods_by_what_they_have() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let with = |ordinal: usize, port: Value| {
            let mut pod = pod(ordinal, json!({}));
            let containers = json!([{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]);
            pod.spec.as_mut().unwrap().containers = serde_json::from_value(containers).unwrap();
            pod
        };
        let pods = [
            with(0, json!(8080)),
            with(1, json!(9090)),
            pod(2, json!({})),
            with(3, json!(8080)),
        ];
        let slices = apply(&[], plan(&service, &pods, &[], NOW), &mut 0);
        let found: Vec<_> = slices
            .iter()
            .map(|slice| {
                (
                    slice.ports.iter().flatten().map(|p| p.port).collect::<Vec<_>>(),
                    addresses(slice),
                )
            })
            .collect();
        let ip = |ordinal: usize| format!("127.1.0.{ordinal}");
        assert_eq!(
            found,
            [
                (vec![], vec![ip(2)]),
                (vec![Some(8080)], vec![ip(0), ip(3)]),
                (vec![Some(9090)], vec![ip(1)]),
            ]
        );
    }

    #[test]
    fn slices_of_others_and_services_without_selector_are_left_alone() {
        let ours = service(json!({"ports": [{"port": 80}]}));
        let mut foreign = apply(&[], plan(&ours, &[pod(0, json!({}))], &[], NOW), &mut 0);
        foreign[0].labels_mut().insert(MANAGED_BY.into(), "me".into());
        let none: [Pod; 0] = [];
        let actions = plan(&ours, &none, &foreign, NOW);
        assert!(matches!(&actions[..], [Action::Create(_)]), "{actions:?}");
        for spec in [
            json!({"selector": null}),
            json!({"selector": {}}),
            json!({"type": "ExternalName"}),
        ] {
            assert_eq!(plan(&service(spec), &[pod(0, json!({}))], &[], NOW), []);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever pods come, change and go: every endpoint is in exactly one slice, none is too full,
        /// and a second look finds nothing to do.
        #[test]
        fn slices_hold_each_endpoint_once_and_settle(
            rounds in prop::collection::vec(prop::collection::btree_set(0usize..250, 0..230), 1..6),
        ) {
            let service = service(json!({"ports": [{"port": 80}]}));
            let (mut slices, mut counter) = (vec![], 0);
            for round in rounds {
                let pods: Vec<_> = round.iter().map(|ordinal| pod(*ordinal, json!({}))).collect();
                slices = apply(&slices, plan(&service, &pods, &slices, NOW), &mut counter);
                let mut held: Vec<_> = slices.iter().flat_map(addresses).collect();
                held.sort();
                let mut wanted: Vec<_> = round.iter().map(|ordinal| format!("127.1.0.{ordinal}")).collect();
                wanted.sort();
                prop_assert_eq!(held, wanted);
                prop_assert!(slices.iter().all(|slice| addresses(slice).len() <= MAX_ENDPOINTS));
                prop_assert!(!slices.is_empty());
                prop_assert_eq!(plan(&service, &pods, &slices, "later"), []);
            }
        }
    }
}
