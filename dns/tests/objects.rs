//! Whatever objects come and go, in whatever order: the names follow from the objects that there are.

#[path = "support/fixture.rs"]
mod fixture;

use dns::table::{Names, Table};
use fixture::{config, key, slice};
use hickory_proto::rr::{LowerName, Name, RData, RecordType};
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

/// Every name with its records; the SOA, whose serial is a count of changes, by its type only.
fn written(names: &Names) -> BTreeMap<String, BTreeSet<String>> {
    let node = |node: &BTreeMap<RecordType, Vec<_>>| {
        let records = node.values().flatten();
        let line = |r: &hickory_proto::rr::Record| match r.data {
            RData::SOA(_) => "SOA".to_owned(),
            _ => r.to_string(),
        };
        records.map(line).collect()
    };
    names
        .iter()
        .map(|(name, n)| (name.to_string(), node(n)))
        .collect()
}

/// What is true of any zone.
fn check(names: &Names) {
    let config = config();
    for (name, node) in names.iter() {
        let text = name.to_string();
        assert_eq!(text, text.to_lowercase());
        let is_apex = config.apexes().any(|apex| LowerName::new(apex) == *name);
        assert!(
            is_apex || names.get(&name.base_name()).is_some(),
            "{text} hangs in the air"
        );
        for record in node.values().flatten() {
            assert_eq!(LowerName::new(&record.name), *name);
            let addresses = |target: &Name| {
                let node = names.get(&LowerName::new(target));
                let both = node.map(|n| [n.get(&RecordType::A), n.get(&RecordType::AAAA)]);
                both.into_iter()
                    .flatten()
                    .flatten()
                    .flatten()
                    .cloned()
                    .collect::<Vec<_>>()
            };
            match &record.data {
                RData::SRV(srv) => assert!(!addresses(&srv.target).is_empty(), "{record}"),
                RData::PTR(target) => {
                    let back = addresses(target);
                    let is_back = back.iter().filter_map(|r| r.data.ip_addr()).any(|ip| {
                        let mut reverse = Name::from(ip);
                        reverse.set_fqdn(true);
                        reverse == record.name
                    });
                    assert!(is_back, "{record}");
                }
                _ => {}
            }
        }
        for set in node.values() {
            assert_eq!(
                set.len(),
                set.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len()
            );
            assert!(!set.is_empty());
        }
    }
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
