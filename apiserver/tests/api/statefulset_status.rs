//! The status subresource of StatefulSets: what may stand there, and that the rest of the object stays as it is.

use crate::client::{Api, JSON_PATCH, MERGE, SETS, STRATEGIC, WEB, set};
use crate::refusal::assert_invalid;
use serde_json::{Value, json};

const STATUS: &str = "/apis/apps/v1/namespaces/default/statefulsets/web/status";

#[tokio::test]
async fn a_status_write_leaves_the_spec_and_a_spec_write_the_status() {
    let api = Api::start().await;
    let first = api.created(SETS, &set(&json!({}))).await;
    let mut changed = first.clone();
    changed["spec"]["replicas"] = 9.into();
    changed["status"] =
        json!({"replicas": 2, "availableReplicas": 1, "readyReplicas": 1, "currentRevision": "web-1"});
    let (code, answer) = api.put(STATUS, changed.clone()).await;
    assert_eq!(code, 200, "{answer:#}");
    assert_eq!(answer["status"], changed["status"]);
    assert_eq!(answer["spec"], first["spec"]);
    assert_eq!(answer["metadata"]["generation"], 1);
    for (content_type, body) in [
        (
            MERGE,
            json!({"spec": {"replicas": 8}, "status": {"updatedReplicas": 1}}),
        ),
        (
            STRATEGIC,
            json!({"spec": {"replicas": 8}, "status": {"updatedReplicas": 2}}),
        ),
        (
            JSON_PATCH,
            json!([{"op": "add", "path": "/status/updatedReplicas", "value": 0}]),
        ),
    ] {
        let (code, answer) = api.json("PATCH", STATUS, content_type, body.clone()).await;
        assert_eq!(code, 200, "{content_type}: {answer:#}");
        assert_eq!(answer["spec"], first["spec"], "{content_type}");
        let wished = body["status"]["updatedReplicas"].as_i64().unwrap_or(0);
        assert_eq!(
            answer["status"]["updatedReplicas"].as_i64().unwrap_or(0),
            wished,
            "{content_type}"
        );
    }
    let (code, answer) = api
        .merge(WEB, json!({"spec": {"replicas": 2}, "status": null}))
        .await;
    assert_eq!((code, &answer["status"]), (200, &changed["status"]));
}

#[tokio::test]
async fn conditions_are_merged_by_type() {
    let api = Api::start().await;
    api.created(SETS, &set(&json!({}))).await;
    for (kind, status) in [
        ("Available", "False"),
        ("Progressing", "True"),
        ("Available", "True"),
    ] {
        let body = json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        let (code, answer) = api.json("PATCH", STATUS, STRATEGIC, body).await;
        assert_eq!(code, 200, "{answer:#}");
    }
    let stored = api.found(WEB).await;
    let conditions = stored["status"]["conditions"].as_array().expect("a list");
    let mut said: Vec<String> = conditions
        .iter()
        .map(|c| format!("{} {}", c["type"], c["status"]))
        .collect();
    said.sort();
    assert_eq!(said, ["\"Available\" \"True\"", "\"Progressing\" \"True\""]);
}

#[tokio::test]
async fn counts_that_contradict_each_other_are_refused() {
    let api = Api::start().await;
    api.created(SETS, &set(&json!({}))).await;
    let right = json!({"replicas": 3, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 3, "updatedReplicas": 3, "collisionCount": 2, "observedGeneration": 1});
    assert_eq!(api.merge(STATUS, json!({ "status": right })).await.0, 200);
    let invalid = "FieldValueInvalid";
    let negative = |field: &str, value: i64| {
        format!("status.{field}: Invalid value: {value}: must be greater than or equal to 0")
    };
    let above = |field: &str, value: i64, limit: &str| {
        format!("status.{field}: Invalid value: {value}: cannot be greater than status.{limit}")
    };
    let decremented =
        |value: i64| format!("status.collisionCount: Invalid value: {value}: cannot be decremented");
    let rows: Vec<(Value, Vec<String>)> = vec![
        (
            json!({"replicas": -1}),
            vec![
                negative("replicas", -1),
                above("readyReplicas", 2, "replicas"),
                above("currentReplicas", 3, "replicas"),
                above("updatedReplicas", 3, "replicas"),
                above("availableReplicas", 2, "replicas"),
            ],
        ),
        (
            json!({"readyReplicas": -1}),
            vec![
                negative("readyReplicas", -1),
                above("availableReplicas", 2, "readyReplicas"),
            ],
        ),
        (
            json!({"currentReplicas": -1}),
            vec![negative("currentReplicas", -1)],
        ),
        (
            json!({"updatedReplicas": -1}),
            vec![negative("updatedReplicas", -1)],
        ),
        (
            json!({"availableReplicas": -1}),
            vec![negative("availableReplicas", -1)],
        ),
        (
            json!({"observedGeneration": -1}),
            vec![negative("observedGeneration", -1)],
        ),
        (
            json!({"collisionCount": -1}),
            vec![negative("collisionCount", -1), decremented(-1)],
        ),
        (
            json!({"readyReplicas": 4}),
            vec![above("readyReplicas", 4, "replicas")],
        ),
        (
            json!({"currentReplicas": 4}),
            vec![above("currentReplicas", 4, "replicas")],
        ),
        (
            json!({"updatedReplicas": 4}),
            vec![above("updatedReplicas", 4, "replicas")],
        ),
        (
            json!({"availableReplicas": 3}),
            vec![above("availableReplicas", 3, "readyReplicas")],
        ),
        (
            json!({"availableReplicas": 4}),
            vec![
                above("availableReplicas", 4, "replicas"),
                above("availableReplicas", 4, "readyReplicas"),
            ],
        ),
        (json!({"collisionCount": 1}), vec![decremented(1)]),
        (json!({"collisionCount": null}), vec![decremented(0)]),
    ];
    for (change, causes) in rows {
        let row = change.to_string();
        let causes: Vec<_> = causes.iter().map(|text| (invalid, text.as_str())).collect();
        let answer = api.merge(STATUS, json!({ "status": change })).await;
        assert_invalid(&row, answer, "StatefulSet.apps", "web", &causes);
    }
    assert_eq!(
        api.merge(STATUS, json!({"status": {"collisionCount": 3}}))
            .await
            .0,
        200
    );
}
