//! Section 1.2 of the reference: what a new StatefulSet may not say, and the whole answer to one that does.

use crate::client::{Api, SETS, WEB, claim, set};
use crate::refusal::{Cause, assert_invalid};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::Store;

const INVALID: &str = "FieldValueInvalid";
const REQUIRED: &str = "FieldValueRequired";
const FORBIDDEN: &str = "FieldValueForbidden";
const UNSUPPORTED: &str = "FieldValueNotSupported";
const NOT_FOUND: &str = "FieldValueNotFound";
const DUPLICATE: &str = "FieldValueDuplicate";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const MISMATCH: &str = "`selector` does not match template `labels`";
const NEGATIVE: &str = "must be greater than or equal to 0";
const LONG: &str = "must be no more than 52 characters: its pods are labelled controller-revision-hash with this name, a dash and a hash of up to 10 characters, and the value of a label has at most 63";

fn spec(fields: Value) -> Value {
    json!({ "spec": fields })
}

fn rolling(fields: Value) -> Value {
    spec(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": fields}}))
}

fn pod(fields: Value) -> Value {
    spec(json!({"template": {"spec": fields}}))
}

/// What is wrong, a merge patch that makes it so, and the causes that are told.
type Row = (&'static str, Value, Vec<(&'static str, String)>);

#[tokio::test]
async fn a_wrong_spec_is_refused_in_upstreams_words() {
    let api = Api::start().await;
    let mount = |name: &str| json!([{"name": "c", "image": "i:1", "volumeMounts": [{"name": name, "mountPath": "/d"}]}]);
    let wrong_claim = |fields: Value| spec(json!({"volumeClaimTemplates": [fields]}));
    let (invalid, negative) = (
        |field: &str, value: &str, why: &str| format!("{field}: Invalid value: {value}: {why}"),
        |field: &str, value: i64| format!("{field}: Invalid value: {value}: {NEGATIVE}"),
    );
    let label_mismatch = |labels: &str| invalid("spec.template.metadata.labels", labels, MISMATCH);
    let rows: Vec<Row> = vec![
        (
            "podManagementPolicy",
            spec(json!({"podManagementPolicy": "Random"})),
            vec![(INVALID, invalid("spec.podManagementPolicy", "\"Random\"", "must be 'OrderedReady' or 'Parallel'"))],
        ),
        (
            "updateStrategy.type",
            spec(json!({"updateStrategy": {"type": "Recreate"}})),
            vec![(
                INVALID,
                invalid(
                    "spec.updateStrategy",
                    "{\"Type\":\"Recreate\",\"RollingUpdate\":null}",
                    "must be 'RollingUpdate' or 'OnDelete'",
                ),
            )],
        ),
        (
            "updateStrategy.rollingUpdate with OnDelete",
            spec(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}})),
            vec![(
                INVALID,
                invalid(
                    "spec.updateStrategy.rollingUpdate",
                    "{\"Partition\":1,\"MaxUnavailable\":null}",
                    "only allowed for updateStrategy 'RollingUpdate'",
                ),
            )],
        ),
        (
            "partition",
            rolling(json!({"partition": -1})),
            vec![(INVALID, negative("spec.updateStrategy.rollingUpdate.partition", -1))],
        ),
        (
            "maxUnavailable 0",
            rolling(json!({"maxUnavailable": 0})),
            vec![(INVALID, invalid("spec.updateStrategy.rollingUpdate.maxUnavailable", "0", "cannot be 0"))],
        ),
        (
            "maxUnavailable 0%",
            rolling(json!({"maxUnavailable": "0%"})),
            vec![(INVALID, invalid("spec.updateStrategy.rollingUpdate.maxUnavailable", "\"0%\"", "cannot be 0"))],
        ),
        (
            "maxUnavailable below 0",
            rolling(json!({"maxUnavailable": -1})),
            vec![(INVALID, negative("spec.updateStrategy.rollingUpdate.maxUnavailable", -1))],
        ),
        (
            "maxUnavailable above 100%",
            rolling(json!({"maxUnavailable": "101%"})),
            vec![(
                INVALID,
                invalid(
                    "spec.updateStrategy.rollingUpdate.maxUnavailable",
                    "\"101%\"",
                    "must not be greater than 100%",
                ),
            )],
        ),
        (
            "maxUnavailable that is no percentage",
            rolling(json!({"maxUnavailable": "half"})),
            vec![
                (INVALID, invalid("spec.updateStrategy.rollingUpdate.maxUnavailable", "\"half\"", PERCENT)),
                (INVALID, invalid("spec.updateStrategy.rollingUpdate.maxUnavailable", "\"half\"", "cannot be 0")),
            ],
        ),
        (
            "maxUnavailable, a number as text",
            rolling(json!({"maxUnavailable": "5"})),
            vec![(INVALID, invalid("spec.updateStrategy.rollingUpdate.maxUnavailable", "\"5\"", PERCENT))],
        ),
        (
            "retention, both halves",
            spec(json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Burn", "whenScaled": "keep"}})),
            vec![
                (
                    UNSUPPORTED,
                    "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Burn\": supported values: \"Retain\", \"Delete\"".to_owned(),
                ),
                (
                    UNSUPPORTED,
                    "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"keep\": supported values: \"Retain\", \"Delete\"".to_owned(),
                ),
            ],
        ),
        ("replicas", spec(json!({"replicas": -1})), vec![(INVALID, negative("spec.replicas", -1))]),
        ("minReadySeconds", spec(json!({"minReadySeconds": -1})), vec![(INVALID, negative("spec.minReadySeconds", -1))]),
        ("ordinals.start", spec(json!({"ordinals": {"start": -2}})), vec![(INVALID, negative("spec.ordinals.start", -2))]),
        (
            "several, in upstream's order",
            spec(json!({
                "podManagementPolicy": "x", "replicas": -1, "minReadySeconds": -2, "ordinals": {"start": -3},
                "serviceName": "A",
            })),
            vec![
                (INVALID, invalid("spec.podManagementPolicy", "\"x\"", "must be 'OrderedReady' or 'Parallel'")),
                (INVALID, negative("spec.replicas", -1)),
                (INVALID, negative("spec.minReadySeconds", -2)),
                (INVALID, negative("spec.ordinals.start", -3)),
                (INVALID, invalid("spec.serviceName", "\"A\"", LABEL)),
            ],
        ),
        (
            "serviceName",
            spec(json!({"serviceName": "a.b"})),
            vec![(INVALID, invalid("spec.serviceName", "\"a.b\"", "must not contain dots"))],
        ),
        (
            "selector missing",
            spec(json!({"selector": null})),
            vec![
                (REQUIRED, "spec.selector: Required value".to_owned()),
                (INVALID, label_mismatch("{\"app\":\"web\"}")),
            ],
        ),
        (
            "selector empty",
            spec(json!({"selector": {"matchLabels": null}})),
            vec![(INVALID, invalid("spec.selector", "{}", "empty selector is invalid for statefulset"))],
        ),
        (
            "selector with an operator that is none",
            spec(json!({"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "Near", "values": ["web"]}]}})),
            vec![
                (
                    INVALID,
                    invalid("spec.selector.matchExpressions[0].operator", "\"Near\"", "not a valid selector operator"),
                ),
                (
                    INVALID,
                    "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Near\",\"values\":[\"web\"]}]}".to_owned(),
                ),
            ],
        ),
        (
            "selector with a label value that is none",
            spec(json!({"selector": {"matchLabels": {"app": "b c"}}})),
            vec![
                (INVALID, invalid("spec.selector.matchLabels", "\"b c\"", LABEL_VALUE)),
                (INVALID, "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b c\"}}".to_owned()),
            ],
        ),
        (
            "template labels that the selector does not select",
            spec(json!({"selector": {"matchLabels": {"app": "other"}}})),
            vec![(INVALID, label_mismatch("{\"app\":\"web\"}"))],
        ),
        (
            "template labels by an expression",
            spec(json!({"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}})),
            vec![(INVALID, label_mismatch("{\"app\":\"web\"}"))],
        ),
        (
            "no template labels",
            spec(json!({"template": {"metadata": null}})),
            vec![(INVALID, label_mismatch("null"))],
        ),
        (
            "template label and annotation rules",
            spec(json!({"template": {"metadata": {"labels": {"x": "-"}, "annotations": {"a b": ""}}}})),
            vec![
                (INVALID, invalid("spec.template.labels", "\"-\"", LABEL_VALUE)),
                (INVALID, invalid("spec.template.annotations", "\"a b\"", KEY)),
            ],
        ),
        (
            "restartPolicy",
            pod(json!({"restartPolicy": "Never"})),
            vec![(
                UNSUPPORTED,
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"".to_owned(),
            )],
        ),
        (
            "activeDeadlineSeconds",
            pod(json!({"activeDeadlineSeconds": 10})),
            vec![(
                FORBIDDEN,
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported".to_owned(),
            )],
        ),
        (
            "no containers",
            pod(json!({"containers": null})),
            vec![(REQUIRED, "spec.template.spec.containers: Required value".to_owned())],
        ),
        (
            "a container's name",
            pod(json!({"containers": [{"name": "C", "image": "i:1"}]})),
            vec![(INVALID, invalid("spec.template.spec.containers[0].name", "\"C\"", LABEL))],
        ),
        (
            "a container twice",
            pod(json!({"containers": [{"name": "c", "image": "i:1"}, {"name": "c", "image": "i:1"}]})),
            vec![(DUPLICATE, "spec.template.spec.containers[1].name: Duplicate value: \"c\"".to_owned())],
        ),
        (
            "a mount of nothing",
            pod(json!({"containers": mount("nope")})),
            vec![(NOT_FOUND, "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"nope\"".to_owned())],
        ),
        (
            "a claim template without a name",
            wrong_claim(json!({"spec": claim("", "1Gi")["spec"]})),
            vec![(REQUIRED, "spec.volumeClaimTemplates[0].metadata.name: Required value".to_owned())],
        ),
        (
            "a claim template without access modes",
            wrong_claim(json!({"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}})),
            vec![(
                REQUIRED,
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required".to_owned(),
            )],
        ),
        (
            "a claim template without a size",
            wrong_claim(json!({"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"]}})),
            vec![(REQUIRED, "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value".to_owned())],
        ),
        (
            "a claim template of no size",
            wrong_claim(claim("d", "0")),
            vec![(
                INVALID,
                invalid("spec.volumeClaimTemplates[0].spec.resources[storage]", "\"0\"", "must be greater than zero"),
            )],
        ),
    ];
    for (row, changes, causes) in rows {
        let causes: Vec<Cause> = causes
            .iter()
            .map(|(reason, text)| (*reason, text.as_str()))
            .collect();
        let answer = api.post(SETS, set(&changes)).await;
        assert_invalid(row, answer, "StatefulSet.apps", "web", &causes);
        assert_eq!(api.get(WEB).await.0, 404, "{row}: nothing is stored");
    }
}

#[tokio::test]
async fn what_upstream_accepts_is_accepted() {
    let api = Api::start().await;
    let mount = json!([{"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]);
    for (row, changes) in [
        ("a partition above replicas", rolling(json!({"partition": 9}))),
        (
            "maxUnavailable above replicas",
            rolling(json!({"maxUnavailable": 9})),
        ),
        ("maxUnavailable 100%", rolling(json!({"maxUnavailable": "100%"}))),
        ("Parallel", spec(json!({"podManagementPolicy": "Parallel"}))),
        ("no serviceName", spec(json!({"serviceName": null}))),
        ("no history at all", spec(json!({"revisionHistoryLimit": 0}))),
        (
            "an expression selects",
            spec(
                json!({"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
            ),
        ),
        (
            "a mount of a claim template",
            spec(
                json!({"template": {"spec": {"containers": mount}}, "volumeClaimTemplates": [claim("data", "1")]}),
            ),
        ),
    ] {
        let (code, answer) = api.post(SETS, set(&changes)).await;
        assert_eq!(code, 201, "{row}: {answer:#}");
        api.delete(WEB, Value::Null).await;
    }
    let negative = set(&spec(json!({"revisionHistoryLimit": -1}))).to_string();
    let response = api.send("POST", SETS, "application/json", negative).await;
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.headers()["warning"],
        "299 - \"spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended\""
    );
    assert!(response.into_body().collect().await.is_ok());
}

#[tokio::test]
async fn a_name_is_a_label_that_leaves_room_for_a_revision() {
    let api = Api::start().await;
    let (long, longer) = ("w".repeat(53), "w".repeat(64));
    let value = |name: &str, why: &str| format!("metadata.name: Invalid value: {name:?}: {why}");
    for (name, causes) in [
        ("Web_1", vec![value("Web_1", LABEL)]),
        ("web-", vec![value("web-", LABEL)]),
        ("a.b", vec![value("a.b", "must not contain dots")]),
        (&long, vec![value(&long, LONG)]),
        (
            &longer,
            vec![
                value(&longer, "must be no more than 63 characters"),
                value(&longer, LONG),
            ],
        ),
    ] {
        let causes: Vec<Cause> = causes.iter().map(|text| (INVALID, text.as_str())).collect();
        let answer = api.post(SETS, set(&json!({"metadata": {"name": name}}))).await;
        assert_invalid(name, answer, "StatefulSet.apps", name, &causes);
    }
    let answer = api.post(SETS, set(&json!({"metadata": {"name": null}}))).await;
    let nameless = [(
        REQUIRED,
        "metadata.name: Required value: name or generateName is required",
    )];
    assert_invalid("no name", answer, "StatefulSet.apps", "", &nameless);

    let longest = "w".repeat(52);
    api.created(SETS, &set(&json!({"metadata": {"name": longest}})))
        .await;
    // Of a generated name the prefix alone may be longer than what fits with its suffix.
    let base = "w".repeat(47);
    let generated = json!({"metadata": {"name": null, "generateName": base}});
    let made = api.created(SETS, &set(&generated)).await;
    assert_eq!(made["metadata"]["name"].as_str().map(str::len), Some(52));
}

#[tokio::test]
async fn a_name_that_is_stored_already_is_not_looked_at_again() {
    let api = Api::start().await;
    let stored = api.created(&format!("{SETS}?dryRun=All"), &set(&json!({}))).await;
    for name in ["old.dotted".to_owned(), "w".repeat(60)] {
        let mut old = stored.clone();
        old["metadata"]["name"] = name.as_str().into();
        old["metadata"]["finalizers"] = json!(["x.io/a"]);
        let key = format!("/apps/statefulsets/default/{name}");
        api.store
            .create(&key, old.to_string().into())
            .await
            .expect("stored");
        let path = format!("{SETS}/{name}");
        let (code, answer) = api.merge(&path, json!({"spec": {"replicas": 0}})).await;
        assert_eq!(code, 200, "{answer:#}");
        let (code, answer) = api
            .merge(&format!("{path}/scale"), json!({"spec": {"replicas": 2}}))
            .await;
        assert_eq!(code, 200, "{answer:#}");
        assert_eq!(api.delete(&path, Value::Null).await.0, 200);
        assert_eq!(
            api.merge(&path, json!({"metadata": {"finalizers": null}}))
                .await
                .0,
            200
        );
        assert_eq!(api.get(&path).await.0, 404, "it loses its finalizer and goes");
    }
}
