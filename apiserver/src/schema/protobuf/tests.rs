//! The second opinion is `k8s-pb`, generated from upstream's definitions: what we write it reads, and what it
//! writes we read, for every kind in it that can be asked for.

use super::*;
use crate::schema::types::{Node, find};
use k8s_pb::api;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use proptest::prelude::*;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

/// Reads a message and writes it again.
type Again = fn(&[u8]) -> Vec<u8>;

fn again<T: Message + Default>(message: &[u8]) -> Vec<u8> {
    T::decode(message)
        .expect("prost reads what we write")
        .encode_to_vec()
}

macro_rules! kinds {
    ($($api_version:literal $module:path { $($kind:ident)* })*) => {
        const KINDS: &[(&str, &str, Again)] = &[
            $($({
                use $module as module;
                ($api_version, stringify!($kind), again::<module::$kind> as Again)
            },)*)*
        ];
    };
}

kinds! {
    "v1" api::core::v1 {
        Binding ConfigMap Endpoints Event Namespace Node PersistentVolume PersistentVolumeClaim Pod
        PodTemplate Secret Service ServiceAccount
    }
    "v1" meta { Status }
    "apps/v1" api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
    "authentication.k8s.io/v1" api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
    "authorization.k8s.io/v1" api::authorization::v1 {
        LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
    }
    "autoscaling/v1" api::autoscaling::v1 { Scale }
    "autoscaling/v2" api::autoscaling::v2 { HorizontalPodAutoscaler }
    "batch/v1" api::batch::v1 { CronJob Job }
    "coordination.k8s.io/v1" api::coordination::v1 { Lease }
    "discovery.k8s.io/v1" api::discovery::v1 { EndpointSlice }
    "events.k8s.io/v1" api::events::v1 { Event }
    "networking.k8s.io/v1" api::networking::v1 { Ingress NetworkPolicy }
    "policy/v1" api::policy::v1 { Eviction PodDisruptionBudget }
    "rbac.authorization.k8s.io/v1" api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
    "storage.k8s.io/v1" api::storage::v1 { StorageClass VolumeAttachment }
}

/// Any value of a type, as JSON text would have it.
fn any_value(node: &Node, random: &mut SmallRng, depth: u32) -> Value {
    // None at all is nothing in a message, where JSON tells [] from null.
    let count = random.random_range(1..3_usize);
    match node {
        Node::Struct(kind) => {
            let mut object = serde_json::Map::new();
            let numbered = |name: &str| {
                fn has(layout: &Layout, index: usize) -> bool {
                    layout.0.iter().any(|(_, slot)| match slot {
                        Slot::Field(field) => *field == index,
                        Slot::Inline(inner) => has(inner, index),
                    })
                }
                kind.field(name)
                    .is_some_and(|(index, _)| has(kind.layout(), index))
            };
            for field in kind.fields().iter().filter(|field| numbered(&field.name)) {
                if random.random_ratio(1, 2 + depth) {
                    object.insert(field.name.to_string(), any_value(&field.node, random, depth + 1));
                }
            }
            Value::Object(object)
        }
        Node::Map(element) => {
            let entries = (0..count).map(|i| (format!("k{i}"), any_value(element, random, depth + 1)));
            Value::Object(entries.collect())
        }
        Node::List(element) => (0..count)
            .map(|_| any_value(element, random, depth + 1))
            .collect(),
        Node::String => ["", "a", "é\n", "web-0"][random.random_range(0..4)].into(),
        Node::Bytes => ["", "AAEC", "/w=="][random.random_range(0..3)].into(),
        Node::Bool => random.random::<bool>().into(),
        Node::Int32 => [0, 1, -1, i32::MAX, i32::MIN][random.random_range(0..5)].into(),
        Node::Int64 => [0, 1, -1, i64::MAX, i64::MIN][random.random_range(0..5)].into(),
        Node::Float => 0.5.into(),
        Node::Time => "2026-01-01T00:00:00Z".into(),
        Node::MicroTime => "1969-12-31T23:59:59.250000Z".into(),
        Node::Quantity => ["1", "500m", "2Gi"][random.random_range(0..3)].into(),
        Node::IntOrString => [json!(-3), json!("25%")][random.random_range(0..2)].clone(),
        Node::Raw => [json!({"a": [1, null]}), json!("x")][random.random_range(0..2)].clone(),
    }
}

fn raw(bytes: &[u8]) -> Vec<u8> {
    Envelope::open(bytes).expect("our own envelope").raw.to_vec()
}

fn read(schema: &str, raw: &[u8]) -> Result<Value, String> {
    let envelope = Envelope {
        api_version: "".into(),
        kind: "".into(),
        raw,
    };
    envelope.decode(schema)
}

fn named(mut object: Value, api_version: &str, kind: &str) -> Value {
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object
}

/// What the same object's JSON is decoded to.
fn expected(schema: &str, object: &Value) -> Value {
    let mut value = crate::schema::decode(schema, object.to_string().as_bytes())
        .expect("valid")
        .value;
    // Types of inner objects (claim templates) have no place in a message, and the outer one's is set by the reader.
    strip_types(&mut value, true);
    value
}

fn strip_types(value: &mut Value, outer: bool) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if outer || object.contains_key("metadata") {
        object.remove("apiVersion");
        object.remove("kind");
    }
    for templates in object
        .get_mut("spec")
        .into_iter()
        .filter_map(|spec| spec.get_mut("volumeClaimTemplates"))
    {
        templates
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(|claim| strip_types(claim, true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_we_write_prost_reads_and_what_it_writes_we_read(seed: u64) {
        for (api_version, kind, again) in KINDS {
            let root = root_of(api_version, kind).expect(kind);
            let object = any_value(&Node::Struct(root), &mut SmallRng::seed_from_u64(seed), 0);
            let object = named(object, api_version, kind);
            let ours = encode(&object).expect(kind);
            let theirs = again(&raw(&ours));
            let expected = expected(root.name, &object);
            let mut read_back = read(root.name, &theirs).expect(kind);
            strip_types(&mut read_back, true);
            prop_assert_eq!(&read_back, &expected, "{} through prost", kind);
        }
    }

    #[test]
    fn no_bytes_bring_the_reader_down(mut bytes: Vec<u8>, seed: u64, flips in 0..4_usize) {
        let mut random = SmallRng::seed_from_u64(seed);
        let (api_version, kind, _) = KINDS[random.random_range(0..KINDS.len())];
        let root = root_of(api_version, kind).expect(kind);
        let _ = Envelope::open(&bytes);
        let _ = read(root.name, &bytes);
        let object = any_value(&Node::Struct(root), &mut random, 0);
        bytes = encode(&named(object, api_version, kind)).expect(kind);
        for _ in 0..flips {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        if let Ok(envelope) = Envelope::open(&bytes) {
            let _ = envelope.decode(root.name);
        }
    }
}

#[test]
fn a_pod_of_prost_is_the_pod_of_the_manifest() {
    use api::core::v1 as core;
    let text = |text: &str| Some(text.to_owned());
    let pod = core::Pod {
        metadata: Some(meta::ObjectMeta {
            name: text("web"),
            labels: [("run".to_owned(), "web".to_owned())].into(),
            creation_timestamp: Some(meta::Time {
                seconds: None,
                nanos: None,
            }),
            ..Default::default()
        }),
        spec: Some(core::PodSpec {
            containers: vec![core::Container {
                name: text("web"),
                image: text("nginx"),
                env: vec![core::EnvVar {
                    name: text("PASSWORD"),
                    value: text(""),
                    value_from: Some(core::EnvVarSource {
                        secret_key_ref: Some(core::SecretKeySelector {
                            local_object_reference: Some(core::LocalObjectReference { name: text("db") }),
                            key: text("password"),
                            optional: Some(false),
                        }),
                        ..Default::default()
                    }),
                }],
                ..Default::default()
            }],
            volumes: vec![core::Volume {
                name: text("work"),
                volume_source: Some(core::VolumeSource {
                    empty_dir: Some(core::EmptyDirVolumeSource::default()),
                    ..Default::default()
                }),
            }],
            termination_grace_period_seconds: Some(0),
            ..Default::default()
        }),
        status: Some(core::PodStatus::default()),
    };
    let read = read("io.k8s.api.core.v1.Pod", &pod.encode_to_vec());
    let expected = json!({
        "metadata": {"name": "web", "labels": {"run": "web"}, "creationTimestamp": null},
        "spec": {
            "containers": [{"name": "web", "image": "nginx", "resources": {}, "env": [
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password", "optional": false}}},
            ]}],
            "volumes": [{"name": "work", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
        "status": {},
    });
    assert_eq!(
        read,
        crate::schema::decode("io.k8s.api.core.v1.Pod", expected.to_string().as_bytes()).map(|d| d.value)
    );
}

#[test]
fn what_is_no_envelope_is_refused_in_upstreams_words() {
    let refused = |body: &[u8]| Envelope::open(body).expect_err("no envelope");
    assert_eq!(refused(b""), "empty data");
    assert_eq!(
        refused(b"{}"),
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    );
    assert_eq!(refused(b"k8s\0"), "empty body");
    assert_eq!(refused(b"k8s\0\x0a\x09x"), "unexpected EOF");
    assert_eq!(
        refused(b"k8s\0\x08\x01"),
        "proto: wrong wireType = 0 for field TypeMeta"
    );
}

#[test]
fn a_field_of_another_wire_type_is_refused() {
    let mut message = wire::Writer::default();
    message.varint(2, 5);
    let refused = read("io.k8s.api.core.v1.ConfigMap", &message.0);
    assert_eq!(refused, Err("proto: wrong wireType = 0 for field Data".into()));
}

#[test]
fn a_message_in_two_parts_is_one() {
    let mut message = wire::Writer::default();
    message.bytes(1, b"\x0a\x01a");
    message.bytes(1, b"\x1a\x01b");
    let read = read("io.k8s.api.core.v1.ConfigMap", &message.0).expect("valid");
    assert_eq!(read["metadata"]["name"], "a");
    assert_eq!(read["metadata"]["namespace"], "b");
}

#[test]
fn a_list_and_a_watch_event_are_written_for_prost() {
    let metadata = json!({"name": "a", "resourceVersion": "7"});
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9", "remainingItemCount": 3},
        "items": [{"metadata": metadata, "data": {"k": "v"}}]});
    let read =
        api::core::v1::ConfigMapList::decode(&raw(&encode(&list).expect("a list"))[..]).expect("valid");
    assert_eq!(
        read.metadata.as_ref().and_then(|m| m.remaining_item_count),
        Some(3)
    );
    assert_eq!(read.items[0].data["k"], "v");

    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    let frame = watch_event("ADDED", &object).expect("an event");
    let (length, message) = frame.split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().expect("four")),
        u32::try_from(message.len()).expect("short")
    );
    let event = meta::WatchEvent::decode(message).expect("valid");
    assert_eq!(event.r#type.as_deref(), Some("ADDED"));
    let inner = event.object.and_then(|object| object.raw).expect("an object");
    let envelope = Envelope::open(&inner).expect("an envelope");
    assert_eq!((&*envelope.api_version, &*envelope.kind), ("v1", "ConfigMap"));
}

/// Reading goes down as deep as types nest, which is only an end if none contains itself.
#[test]
fn no_type_of_the_table_contains_itself() {
    fn check<'a>(node: &'a Node, above: &mut Vec<&'a str>) {
        match node {
            Node::Map(element) | Node::List(element) => check(element, above),
            Node::Struct(kind) if !kind.layout().is_empty() => {
                assert!(!above.contains(&kind.name), "{above:?} {}", kind.name);
                above.push(kind.name);
                kind.fields().iter().for_each(|field| check(&field.node, above));
                above.pop();
            }
            _ => {}
        }
    }
    for name in roots::names() {
        check(&Node::Struct(find(name).expect(name)), &mut Vec::new());
    }
}

/// A typing error in the table would otherwise be silence.
#[test]
fn every_name_in_the_table_is_a_field() {
    let lines: HashMap<&str, &str> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .collect();
    fn words(layout: &Layout) -> usize {
        layout
            .0
            .iter()
            .map(|(_, slot)| {
                if let Slot::Inline(inner) = slot {
                    words(inner) + 1
                } else {
                    1
                }
            })
            .sum()
    }
    fn named(lines: &HashMap<&str, &str>, name: &str) -> usize {
        let inner = |word: &str| {
            word.split(':')
                .next_back()
                .and_then(|word| word.strip_prefix('^'))
                .map(str::to_owned)
        };
        let words = lines
            .get(name)
            .unwrap_or_else(|| panic!("no line for {name}"))
            .split(' ');
        words
            .map(|word| 1 + inner(word).map_or(0, |name| named(lines, &name)))
            .sum()
    }
    for name in roots::names() {
        let kind = find(name).expect(name);
        if !kind.layout().is_empty() {
            assert_eq!(words(kind.layout()), named(&lines, table_name(name)), "{name}");
        }
    }
}
