//! From a Service, its pods and its slices to the fewest writes that make the slices right.

use super::endpoint::{Family, endpoint, families, is_endpoint, is_headless, ports, selects};
use super::spread::{Homes, fill};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use std::borrow::Borrow;
use std::collections::BTreeMap;

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
pub(super) type Group = (Family, Vec<Port>);
/// A port in an order.
pub(super) type Port = (Option<String>, Option<i32>, Option<String>, Option<String>);

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
    let ours: Vec<&EndpointSlice> = slices
        .iter()
        .filter(|slice| slice.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER))
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .collect();
    let wanted = wanted(service, pods);
    let homes = Homes::new(&wanted, &ours);
    let mut staying: BTreeMap<&Group, Vec<&EndpointSlice>> = BTreeMap::new();
    let (mut spare, mut leaving) = (Vec::new(), Vec::new());
    for slice in ours {
        match fate(service, slice, &wanted, &homes) {
            Fate::Stays(group) => staying.entry(group).or_default().push(slice),
            Fate::Spare => spare.push(slice),
            Fate::Leaves => leaving.push(slice),
        }
    }
    let (mut creates, mut takers, mut givers) = (Vec::new(), Vec::new(), Vec::new());
    for (group, endpoints) in &wanted {
        let slices = staying.remove(group).unwrap_or_default();
        let filled = fill(endpoints, &slices, &homes, |slice| {
            group_of(slice).as_ref() != Some(group)
        });
        for (index, (slice, kept)) in slices.into_iter().zip(filled.kept).enumerate() {
            if kept.endpoints.is_empty() && !(endpoints.is_empty() && index == 0) {
                // Not to be written anew: what it holds may first have to be elsewhere.
                leaving.push(slice);
            } else if let Some(update) = updated(service, slice, group, kept.endpoints, now) {
                let updates = if kept.gives { &mut givers } else { &mut takers };
                updates.push(Action::Update(Box::new(update)));
            }
        }
        creates.extend(
            filled
                .new
                .into_iter()
                .map(|endpoints| new(service, group, endpoints, now)),
        );
    }
    // Whoever reads between two writes must not miss an endpoint that only moves: it comes to its new slice before it
    // leaves the old one. Slices that give one away take none, so this order is always possible.
    let mut actions = Vec::new();
    for slice in creates {
        // Writing into one that would be deleted is one write instead of two.
        let reused = spare
            .iter()
            .position(|old| old.address_type == slice.address_type);
        actions.push(match reused.map(|index| spare.remove(index)) {
            Some(old) => Action::Update(Box::new(EndpointSlice {
                metadata: ObjectMeta {
                    annotations: slice.metadata.annotations,
                    labels: slice.metadata.labels,
                    owner_references: slice.metadata.owner_references,
                    ..old.metadata.clone()
                },
                ..slice
            })),
            None => Action::Create(Box::new(slice)),
        });
    }
    actions.extend(takers);
    actions.extend(givers);
    let deletes = spare.into_iter().chain(leaving);
    actions.extend(deletes.map(|slice| Action::Delete(Box::new(slice.clone()))));
    actions
}

/// What becomes of a slice that there is.
enum Fate<'a> {
    /// It goes on holding endpoints of this group; perhaps with other ports, when all of its endpoints have those now.
    Stays(&'a Group),
    /// It holds nothing that is wanted, so that anything may be written into it.
    Spare,
    /// What it holds has to be elsewhere before it goes.
    Leaves,
}

fn fate<'a>(
    service: &Service,
    slice: &EndpointSlice,
    wanted: &'a BTreeMap<Group, Vec<Endpoint>>,
    homes: &Homes<'a>,
) -> Fate<'a> {
    // One that belongs to an earlier Service of the name is being collected with that one.
    let is_anothers = !slice.owner_references().is_empty() && slice.owner_references() != [owner(service)];
    let Some(group) = group_of(slice).filter(|_| !is_anothers) else {
        return Fate::Leaves;
    };
    if let Some((group, _)) = wanted.get_key_value(&group) {
        return Fate::Stays(group);
    }
    let mut now = slice.endpoints.iter().flatten().filter_map(|e| homes.group(e));
    match now.next() {
        None => Fate::Spare,
        Some(first) if first.0 == group.0 && now.all(|other| other == first) => Fate::Stays(first),
        Some(_) => Fate::Leaves,
    }
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
        && group_of(slice).as_ref() == Some(group)
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
    use std::collections::BTreeSet;

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

    /// The addresses that each state of `slices` shows while the actions are done one by one.
    fn shown(slices: &[EndpointSlice], actions: Vec<Action>, counter: &mut usize) -> Vec<BTreeSet<String>> {
        let all = |slices: &[EndpointSlice]| slices.iter().flat_map(addresses).collect();
        let mut slices = slices.to_vec();
        let mut states = vec![all(&slices)];
        for action in actions {
            slices = apply(&slices, vec![action], counter);
            states.push(all(&slices));
        }
        states
    }

    /// A pod that has a named port.
    fn with_port(ordinal: usize, name: &str, number: u16) -> Pod {
        let mut pod = pod(ordinal, json!({}));
        let containers = json!([{"name": "c", "ports": [{"name": name, "containerPort": number}]}]);
        pod.spec.as_mut().unwrap().containers = serde_json::from_value(containers).unwrap();
        pod
    }

    #[test]
    fn endpoints_are_never_missing_while_the_ports_of_two_slices_change() {
        // By name web-10 comes before web-2, but it came to its slice as the eleventh.
        let pods: Vec<_> = (0..150).map(|ordinal| pod(ordinal, json!({}))).collect();
        let (mut slices, mut counter) = (vec![], 0);
        let before = service(json!({"ports": [{"port": 80}]}));
        for some in [&pods[..100], &pods[..]] {
            slices = apply(&slices, plan(&before, some, &slices, NOW), &mut counter);
        }
        let after = service(json!({"ports": [{"port": 81}]}));
        let actions = plan(&after, &pods, &slices, "later");
        assert!(
            matches!(&actions[..], [Action::Update(_), Action::Update(_)]),
            "{actions:?}"
        );
        for state in shown(&slices, actions, &mut counter) {
            assert_eq!(state.len(), 150);
        }
    }

    #[test]
    fn endpoints_are_never_missing_while_a_slice_is_split_or_slices_are_merged() {
        let pods: Vec<_> = (0..4)
            .map(|ordinal| with_port(ordinal, "http", if ordinal < 2 { 8080 } else { 9090 }))
            .collect();
        let numbered = service(json!({"ports": [{"port": 80}]}));
        let named = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let mut counter = 0;
        let one = apply(&[], plan(&numbered, &pods, &[], NOW), &mut counter);
        let two = apply(&[], plan(&named, &pods, &[], NOW), &mut counter);
        assert_eq!((one.len(), two.len()), (1, 2));
        for (service, slices) in [(&named, &one), (&numbered, &two)] {
            let actions = plan(service, &pods, slices, "later");
            for state in shown(slices, actions, &mut counter) {
                assert_eq!(state.len(), 4);
            }
        }
    }

    #[test]
    fn endpoints_are_never_missing_while_they_change_places() {
        // What one pod calls http the other calls metrics.
        let swapped = |ordinal: usize, http: u16, metrics: u16| {
            let mut pod = with_port(ordinal, "http", http);
            let container = &mut pod.spec.as_mut().unwrap().containers[0];
            let port = json!({"name": "metrics", "containerPort": metrics});
            let ports = container.ports.get_or_insert_default();
            ports.push(serde_json::from_value(port).unwrap());
            pod
        };
        let pods = [swapped(0, 1, 2), swapped(1, 2, 1)];
        let of = |port: &str| service(json!({"ports": [{"port": 80, "targetPort": port}]}));
        let mut counter = 0;
        let slices = apply(&[], plan(&of("http"), &pods, &[], NOW), &mut counter);
        let actions = plan(&of("metrics"), &pods, &slices, "later");
        for state in shown(&slices, actions.clone(), &mut counter) {
            assert_eq!(state.len(), 2);
        }
        let slices = apply(&slices, actions, &mut counter);
        assert_eq!(slices.iter().flat_map(addresses).count(), 2);
        assert_eq!(plan(&of("metrics"), &pods, &slices, NOW), []);
    }

    #[test]
    fn a_pods_successor_takes_its_place_in_the_same_write() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let pods: Vec<_> = (0..250).map(|ordinal| pod(ordinal, json!({}))).collect();
        let (mut slices, mut counter) = (vec![], 0);
        slices = apply(&slices, plan(&service, &pods, &slices, NOW), &mut counter);
        let mut replaced = pods;
        for ordinal in [7, 120, 249] {
            replaced[ordinal].metadata.uid = Some(format!("another-{ordinal}"));
            replaced[ordinal].status.as_mut().unwrap().pod_ip = Some(format!("127.2.0.{ordinal}"));
        }
        let ip = |network: u8, ordinal: usize| format!("127.{network}.0.{ordinal}");
        for state in shown(&slices, plan(&service, &replaced, &slices, NOW), &mut counter) {
            for ordinal in [7, 120, 249] {
                let old = state.contains(&ip(1, ordinal));
                assert_ne!(old, state.contains(&ip(2, ordinal)), "{ordinal}");
            }
        }
    }

    #[test]
    fn slices_of_an_earlier_service_of_the_name_are_replaced_not_adopted() {
        let mut service = service(json!({"ports": [{"port": 80}]}));
        let pods = [pod(0, json!({}))];
        let slices = apply(&[], plan(&service, &pods, &[], NOW), &mut 0);
        service.metadata.uid = Some("another".into());
        let actions = plan(&service, &pods, &slices, NOW);
        assert!(
            matches!(&actions[..], [Action::Create(_), Action::Delete(_)]),
            "{actions:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever pods come, change and go, and whatever the Service calls their ports: every endpoint is in exactly one
        /// slice, none is too full, a second look finds nothing to do, and between two writes nothing that was there
        /// and stays there is missing.
        #[test]
        fn slices_hold_each_endpoint_once_and_settle(
            rounds in prop::collection::vec(
                (prop::collection::btree_set(0usize..250, 0..230), 0..4usize), 1..6,
            ),
        ) {
            let (mut slices, mut counter) = (Vec::<EndpointSlice>::new(), 0);
            for (round, ports) in rounds {
                let target = [json!(8080), json!(9090), json!("http"), json!("other")][ports].clone();
                let service = service(json!({"ports": [{"port": 80, "targetPort": target}]}));
                let port = |ordinal: usize| [8080, 9090, 9090][ordinal % 3];
                let name = |ordinal: usize| if ordinal.is_multiple_of(2) { "http" } else { "other" };
                let pods: Vec<_> = round
                    .iter()
                    .map(|ordinal| with_port(*ordinal, name(*ordinal), port(*ordinal)))
                    .collect();
                let actions = plan(&service, &pods, &slices, NOW);
                let states = shown(&slices, actions.clone(), &mut counter);
                let stay: BTreeSet<_> = states[0].intersection(&states[states.len() - 1]).cloned().collect();
                for state in &states {
                    prop_assert!(state.is_superset(&stay));
                }
                slices = apply(&slices, actions, &mut counter);
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
