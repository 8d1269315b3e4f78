use super::*;
use proptest::prelude::*;
use serde_json::json;

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const POD: &str = "io.k8s.api.core.v1.Pod";
const STATEFUL_SET: &str = "io.k8s.api.apps.v1.StatefulSet";

fn decoded(schema: &str, value: &Value) -> Value {
    decode(schema, value.to_string().as_bytes())
        .expect("decodes")
        .value
}

fn error(schema: &str, text: &str) -> String {
    decode(schema, text.as_bytes()).expect_err(text)
}

#[test]
fn wrong_types_are_refused_in_the_words_of_go() {
    for (schema, text, expected) in [
        (
            CONFIG_MAP,
            r#"[]"#,
            "json: cannot unmarshal array into Go value of type v1.ConfigMap",
        ),
        (
            CONFIG_MAP,
            r#"{"data":{"k":1}}"#,
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            CONFIG_MAP,
            r#"{"data":[]}"#,
            "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            CONFIG_MAP,
            r#"{"metadata":{"name":true}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (
            CONFIG_MAP,
            r#"{"metadata":{"uid":1}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.uid of type types.UID",
        ),
        (
            CONFIG_MAP,
            r#"{"binaryData":{"k":"!!"}}"#,
            "illegal base64 data at input byte 0",
        ),
        (
            STATEFUL_SET,
            r#"{"spec":{"replicas":"x"}}"#,
            "json: cannot unmarshal string into Go struct field StatefulSetSpec.spec.replicas of type int32",
        ),
        (
            STATEFUL_SET,
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field StatefulSetSpec.spec.replicas of type int32",
        ),
        (
            STATEFUL_SET,
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field StatefulSetSpec.spec.replicas of type int32",
        ),
        (
            STATEFUL_SET,
            r#"{"spec":{"podManagementPolicy":1}}"#,
            "json: cannot unmarshal number into Go struct field StatefulSetSpec.spec.podManagementPolicy of type v1.PodManagementPolicyType",
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"command":"sh"}]}}"#,
            "json: cannot unmarshal string into Go struct field Container.spec.containers.command of type []string",
        ),
        (
            POD,
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"livenessProbe":{"tcpSocket":{"port":true}}}]}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            POD,
            r#"{"metadata":{"creationTimestamp":1}}"#,
            "json: cannot unmarshal number into Go value of type string",
        ),
    ] {
        assert_eq!(error(schema, text), expected, "{text}");
    }
}

#[test]
fn the_first_wrong_type_counts_unless_a_text_of_its_own_fails_later() {
    let text = r#"{"data":{"k":1},"immutable":"x"}"#;
    assert_eq!(
        error(CONFIG_MAP, text),
        "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
    );
    let text = r#"{"data":{"k":1},"metadata":{"creationTimestamp":1}}"#;
    assert_eq!(
        error(CONFIG_MAP, text),
        "json: cannot unmarshal number into Go value of type string"
    );
}

#[test]
fn unknown_and_duplicate_fields_are_told_in_document_order() {
    let text = r#"{"metadata":{"nope":1,"Name":"a"},"spec":{"containers":[{"name":"a"},{"foo":1,"env":[{"bar":1}]}]},
                   "extra":true,"metadata":{},"spec":{"nodeSelector":{"a":"1","a":"2"}},"extra":1}"#;
    assert_eq!(
        decode(POD, text.as_bytes()).expect("decodes").strict,
        [
            "unknown field \"metadata.nope\"",
            "unknown field \"metadata.Name\"",
            "unknown field \"spec.containers[1].foo\"",
            "unknown field \"spec.containers[1].env[0].bar\"",
            "unknown field \"extra\"",
            "duplicate field \"metadata\"",
            "duplicate field \"spec\"",
            "duplicate field \"spec.nodeSelector.a\"",
        ]
    );
}

#[test]
fn empty_optional_fields_vanish_and_null_is_absent() {
    let given = json!({"metadata": {"name": "a", "labels": null, "annotations": {}, "generation": 0}, "data": null,
                       "binaryData": {}, "immutable": false});
    assert_eq!(
        decoded(CONFIG_MAP, &given),
        json!({"metadata": {"name": "a"}, "immutable": false})
    );
    assert_eq!(
        decoded(CONFIG_MAP, &json!({"data": {"k": null}})),
        json!({"metadata": {}, "data": {"k": ""}})
    );
}

#[test]
fn pointers_keep_their_zeros() {
    let given = json!({"spec": {"replicas": 0, "minReadySeconds": 0, "serviceName": "s", "selector": {},
        "template": {"spec": {"automountServiceAccountToken": false, "hostNetwork": false, "containers": [{"name": "c"}],
                              "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}}},
        "volumeClaimTemplates": [{"spec": {"storageClassName": ""}}]}});
    let spec = &decoded(STATEFUL_SET, &given)["spec"];
    assert_eq!(
        *spec,
        json!({"replicas": 0, "serviceName": "s", "selector": {}, "updateStrategy": {},
            "template": {"metadata": {}, "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "resources": {}}],
                                  "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}}},
            "volumeClaimTemplates": [{"metadata": {}, "spec": {"storageClassName": "", "resources": {}}, "status": {}}]})
    );
}

#[test]
fn what_go_always_writes_is_there() {
    let set = decoded(STATEFUL_SET, &json!({}));
    assert_eq!(set["status"], json!({"replicas": 0, "availableReplicas": 0}));
    assert_eq!(set["metadata"], json!({}));
    let node = decoded("io.k8s.api.core.v1.Node", &json!({}));
    assert_eq!(
        node["status"]["daemonEndpoints"],
        json!({"kubeletEndpoint": {"Port": 0}})
    );
    let slice = decoded(
        "io.k8s.api.discovery.v1.EndpointSlice",
        &json!({"endpoints": [{"addresses": ["1.2.3.4"]}]}),
    );
    assert_eq!(
        slice,
        json!({"metadata": {}, "addressType": "", "ports": null,
        "endpoints": [{"addresses": ["1.2.3.4"], "conditions": {}}]})
    );
    let event = decoded("io.k8s.api.events.v1.Event", &json!({}));
    assert_eq!(event["deprecatedFirstTimestamp"], Value::Null);
    assert_eq!(event["deprecatedSource"], json!({}));
    let pod = decoded(
        POD,
        &json!({"spec": {"containers": [{"name": "c", "env": [{"name": "A", "valueFrom":
        {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]}}),
    );
    assert_eq!(
        pod.pointer("/spec/containers/0/env/0/valueFrom/resourceFieldRef/divisor"),
        Some(&json!("0"))
    );
}

#[test]
fn quantities_times_and_bytes_are_canonical() {
    let pod = decoded(
        POD,
        &json!({"metadata": {"creationTimestamp": "2024-01-01T01:00:00.5+01:00"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x": null}}}]}}),
    );
    assert_eq!(pod["metadata"]["creationTimestamp"], "2024-01-01T00:00:00Z");
    assert_eq!(
        pod.pointer("/spec/containers/0/resources/limits"),
        Some(&json!({"cpu": "500m", "memory": "1Gi", "x": "0"}))
    );
}

#[test]
fn raw_json_is_kept_whole() {
    let given =
        json!({"revision": 1, "data": {"spec": {"template": {"$patch": "replace", "x": null, "y": []}}}});
    let revision = decoded("io.k8s.api.apps.v1.ControllerRevision", &given);
    assert_eq!(revision["data"], given["data"]);
}

#[test]
fn an_unknown_schema_is_an_error() {
    assert_eq!(
        error("io.k8s.api.core.v1.Gadget", "{}"),
        "no kind with the schema \"io.k8s.api.core.v1.Gadget\" is known"
    );
}

#[test]
fn fields_and_types_have_upstreams_descriptions() {
    assert!(description(POD, "").starts_with("Pod is a collection of containers"));
    assert!(description(POD, "metadata.name").starts_with("Name must be unique within a namespace."));
    assert!(description(POD, "spec.containers.image").starts_with("Container image name."));
    assert!(description(STATEFUL_SET, "spec.template.spec.restartPolicy").starts_with("Restart policy"));
    assert_eq!(description(POD, "spec.nope"), "");
    assert_eq!(description("nope", "spec"), "");
}

fn some_config_map() -> impl Strategy<Value = Value> {
    let text = || "[a-z]{0,3}";
    let map = || proptest::collection::btree_map(text(), text(), 0..3);
    (map(), map(), proptest::option::of(any::<bool>()), text()).prop_map(|(labels, data, immutable, name)| {
        json!({"metadata": {"name": name, "labels": labels}, "data": data, "immutable": immutable})
    })
}

proptest! {
    #[test]
    fn decoding_again_changes_nothing(given in some_config_map()) {
        let once = decoded(CONFIG_MAP, &given);
        prop_assert_eq!(decoded(CONFIG_MAP, &once), once);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}\":,a-z0-9 \\\\.-]{0,60}") {
        let _ = decode(POD, text.as_bytes());
    }
}

/// Whether all that is in `part` is in `whole`, and the same there.
fn is_in(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|whole| is_in(value, whole))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_in(part, whole))
        }
        (part, whole) => part == whole,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_kind_comes_back_with_all_its_fields_and_without_unknown_ones(seed in any::<u64>()) {
        for kind in crate::resources::all() {
            let schema = kind.names().schema;
            let root = find(schema).expect(schema);
            let given = arbitrary::object(root, seed);
            let Decoded { value, strict } = decode(schema, given.to_string().as_bytes()).expect(schema);
            prop_assert_eq!(&strict, &Vec::<String>::new());
            prop_assert!(is_in(&given, &value), "{schema}: {given:#} in {value:#}");
            prop_assert_eq!(&decoded(schema, &value), &value, "{}", schema);
            let mut more = given.clone();
            more["metadata"]["nope"] = json!({"a": [1]});
            let pruned = decode(schema, more.to_string().as_bytes()).expect(schema);
            prop_assert_eq!(&pruned.strict, &["unknown field \"metadata.nope\""]);
            prop_assert_eq!(&pruned.value, &value, "{}", schema);
        }
    }
}
