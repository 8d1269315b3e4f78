//! Whatever objects come and go, in whatever order: the names follow from the objects that there are.

#[path = "support/fixture.rs"]
mod fixture;

use dns::name::Name;
use dns::names::Names;
use dns::set::Set;
use dns::table::Table;
use dns::zone::Zone;
use fixture::{config, key, slice};
use hickory_proto::rr::RData;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// One event: an object of a name is so now, or gone.
#[derive(Clone, Debug)]
enum Event {
    Service(&'static str, Option<Box<Service>>),
    Slice(&'static str, Option<Box<EndpointSlice>>),
    Pod(&'static str, Option<Box<Pod>>),
}

/// Labels good and bad.
fn label() -> impl Strategy<Value = String> {
    let odd = ["web-0", "WEB-0", "web-1", "a.b", "", "_tcp", "*", "-", "ü", "x y"];
    prop_oneof![
        4 => prop::sample::select(odd.map(String::from).to_vec()),
        1 => Just("l".repeat(63)),
        1 => Just("l".repeat(64)),
        1 => Just("l".repeat(300)),
    ]
}

fn address() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "127.244.0.1",
        "127.244.0.2",
        "10.96.0.1",
        "fd00::1",
        "fd00::",
        "::",
        "300.1.1.1",
        "",
        "no",
        "8.8.8.8",
    ])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "C"])
}

fn service() -> impl Strategy<Value = Service> {
    let type_ = prop::sample::select(vec![None, Some("ClusterIP"), Some("ExternalName")]);
    let external = prop_oneof![label(), Just("a.default.svc.cluster.local".to_owned())];
    let port = (label(), any::<i32>()).prop_map(|(name, port)| json!({"name": name, "port": port}));
    let cluster_ip = prop_oneof![2 => Just("None"), 1 => address()];
    (
        name(),
        type_,
        cluster_ip,
        external,
        prop::collection::vec(port, 0..3),
    )
        .prop_map(|(name, type_, ip, external, ports)| {
            let service = json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": type_, "clusterIP": ip, "externalName": external, "ports": ports},
            });
            serde_json::from_value(service).expect("a Service")
        })
}

fn endpoint_slice() -> impl Strategy<Value = EndpointSlice> {
    let endpoint = (
        prop::collection::vec(address(), 0..3),
        prop::option::of(label()),
        any::<Option<bool>>(),
    );
    let endpoint = endpoint.prop_map(|(addresses, hostname, ready)| {
        json!({"addresses": addresses, "hostname": hostname, "conditions": {"ready": ready}})
    });
    let protocol = prop::sample::select(vec!["TCP", "UDP", "x.y"]);
    let port = (prop::option::of(label()), protocol, -1..70_000)
        .prop_map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}));
    (
        name(),
        name(),
        prop::collection::vec(endpoint, 0..5),
        prop::collection::vec(port, 0..3),
    )
        .prop_map(|(name, service, endpoints, ports)| slice(name, service, json!(ports), json!(endpoints)))
}

fn pod() -> impl Strategy<Value = Pod> {
    let phase = prop::sample::select(vec!["Pending", "Running", "Failed"]);
    (name(), address(), address(), phase).prop_map(|(name, ip, other, phase)| {
        let pod = json!({
            "metadata": {"name": name, "namespace": "default"},
            "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}, {"ip": other}]},
        });
        serde_json::from_value(pod).expect("a Pod")
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (name(), prop::option::weighted(0.7, service())).prop_map(|(n, o)| Event::Service(n, o.map(Box::new))),
        4 => (name(), prop::option::weighted(0.7, endpoint_slice())).prop_map(|(n, o)| Event::Slice(n, o.map(Box::new))),
        1 => (name(), prop::option::weighted(0.7, pod())).prop_map(|(n, o)| Event::Pod(n, o.map(Box::new))),
    ]
}

fn take(table: &mut Table, event: &Event) {
    match event {
        Event::Service(name, object) => {
            let mut object = object.clone();
            if let Some(object) = &mut object {
                object.metadata.name = Some((*name).into());
            }
            table.service(&key(name), object.as_deref());
        }
        Event::Slice(name, object) => table.slice(&key(name), object.as_deref()),
        Event::Pod(name, object) => table.pod(&key(name), object.as_deref()),
    }
}

/// Every name with its records; the SOA, whose serial is a count of changes, only in its zone.
fn written(names: &Names) -> BTreeMap<String, BTreeSet<String>> {
    let zone = Zone::new(&config(), names.clone(), true);
    let lines = |name: &Name| {
        let records = zone.records_at(name).into_iter();
        let others = records.filter(|record| !matches!(record.data, RData::SOA(_)));
        others.map(|record| record.to_string()).collect()
    };
    names
        .iter()
        .map(|node| (node.name.to_string(), lines(&node.name)))
        .collect()
}

/// What is true of any zone.
fn check(names: &Names) {
    let config = config();
    let zone = Zone::new(&config, names.clone(), true);
    let mut records = 0;
    for node in names.iter() {
        let name = &node.name;
        assert_eq!(name.to_string(), name.to_string().to_lowercase());
        let parent = name.parent().expect("the root is not ours");
        let is_apex = zone.is_apex(name.as_wire());
        assert!(
            is_apex || names.get(parent.as_wire()).is_some(),
            "{name} hangs in the air"
        );
        let types: Vec<u16> = node.sets.iter().map(Set::type_).collect();
        assert!(
            types.is_sorted() && !node.sets.iter().any(Set::is_empty),
            "{name}: {types:?}"
        );
        let all = zone.records_at(name);
        for record in &all {
            let addresses = |target: &hickory_proto::rr::Name| {
                let records = zone.records_at(&Name::from(target)).into_iter();
                records
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            };
            assert_eq!(Name::from(&record.name), *name);
            match &record.data {
                RData::SRV(srv) => assert!(!addresses(&srv.target).is_empty(), "{record}"),
                RData::PTR(target) => {
                    let mut back = addresses(target).into_iter();
                    assert!(back.any(|ip| Name::reverse(ip) == *name), "{record}");
                }
                _ => {}
            }
        }
        let different: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(different.len(), all.len());
        records += all.len() - usize::from(is_apex);
    }
    assert_eq!((names.iter().count(), records), (names.len(), names.records()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_are_those_of_the_objects_that_there_are_however_they_came(events in prop::collection::vec(event(), 1..25)) {
        let mut table = Table::new(config());
        let mut last = BTreeMap::new();
        for event in &events {
            take(&mut table, event);
            check(&table.commit());
            let of = match event {
                Event::Service(name, _) => ("service", *name),
                Event::Slice(name, _) => ("slice", *name),
                Event::Pod(name, _) => ("pod", *name),
            };
            last.insert(of, event);
        }
        let mut fresh = Table::new(config());
        for event in last.values().rev() {
            take(&mut fresh, event);
        }
        prop_assert_eq!(written(&table.commit()), written(&fresh.commit()));
    }

    #[test]
    fn when_every_object_is_gone_only_the_zone_is_left(events in prop::collection::vec(event(), 1..25)) {
        let mut table = Table::new(config());
        let before = written(&table.commit());
        for event in &events {
            take(&mut table, event);
        }
        for name in ["a", "b", "C"] {
            table.slice(&key(name), None);
            table.pod(&key(name), None);
            table.service(&key(name), None);
        }
        prop_assert_eq!(written(&table.commit()), before);
    }
}

#[test]
fn a_version_stays_as_it_is_while_newer_ones_come() {
    let mut table = fixture::table();
    let before = table.commit();
    let kept = written(&before);
    table.service(&key("nginx"), None);
    let after = table.commit();
    assert_eq!(written(&before), kept);
    assert_ne!(written(&after), kept);
}
