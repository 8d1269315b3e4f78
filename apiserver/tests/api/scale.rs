//! Section 1.4 of the reference: the scale subresource.

use crate::client::{Api, JSON_PATCH, MERGE, SETS, STRATEGIC, WEB, set};
use crate::refusal::assert_invalid;
use serde_json::{Value, json};

const SCALE: &str = "/apis/apps/v1/namespaces/default/statefulsets/web/scale";

async fn with_three_of_five_ready() -> Api {
    let api = Api::start().await;
    let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "b"]}]});
    api.created(
        SETS,
        &set(&json!({"spec": {"replicas": 5, "selector": selector}})),
    )
    .await;
    let status = json!({"status": {"replicas": 4, "readyReplicas": 3}});
    assert_eq!(api.merge(&format!("{WEB}/status"), status).await.0, 200);
    api
}

#[tokio::test]
async fn a_scale_shows_what_is_wished_and_what_exists() {
    let api = with_three_of_five_ready().await;
    let set = api.found(WEB).await;
    let mut expected = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 5},
        "status": {"replicas": 4, "selector": "app=web,app in (b,web)"},
    });
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        expected["metadata"][field] = set["metadata"][field].clone();
    }
    assert_eq!(api.found(SCALE).await, expected);
}

#[tokio::test]
async fn every_write_of_a_scale_changes_the_replicas_and_nothing_else() {
    let api = with_three_of_five_ready().await;
    let put = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "web", "namespace": "default", "resourceVersion": ""},
        "spec": {"replicas": 2}, "status": {"replicas": 9, "selector": "x=y"},
    });
    let strategic = json!({"spec": {"replicas": 4}, "metadata": {"labels": {"a": "b"}}});
    for (row, method, content_type, body, replicas) in [
        ("PUT with an empty version", "PUT", "application/json", put, 2),
        ("strategic merge patch", "PATCH", STRATEGIC, strategic, 4),
        ("merge patch", "PATCH", MERGE, json!({"spec": {"replicas": 1}}), 1),
        (
            "JSON patch",
            "PATCH",
            JSON_PATCH,
            json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]),
            0,
        ),
    ] {
        let before = api.found(WEB).await;
        let (code, scale) = api.json(method, SCALE, content_type, body).await;
        assert_eq!(code, 200, "{row}: {scale:#}");
        assert_eq!(scale["spec"]["replicas"].as_i64().unwrap_or(0), replicas, "{row}");
        assert_eq!(
            scale["status"],
            json!({"replicas": 4, "selector": "app=web,app in (b,web)"}),
            "{row}"
        );
        let after = api.found(WEB).await;
        assert_eq!(
            scale["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"],
            "{row}"
        );
        let mut expected = before.clone();
        expected["spec"]["replicas"] = replicas.into();
        let generation = before["metadata"]["generation"].as_i64().expect("a number");
        expected["metadata"]["generation"] = (generation + 1).into();
        for field in ["resourceVersion", "managedFields"] {
            expected["metadata"][field] = after["metadata"][field].clone();
        }
        assert_eq!(after, expected, "{row}");
    }
}

#[tokio::test]
async fn a_scale_that_cannot_be_is_refused() {
    let api = with_three_of_five_ready().await;
    let negative = (
        "FieldValueInvalid",
        "spec.replicas: Invalid value: -3: must be greater than or equal to 0",
    );
    let scale =
        |metadata: Value, replicas: i64| json!({"metadata": metadata, "spec": {"replicas": replicas}});
    let put = api.put(SCALE, scale(json!({"name": "web"}), -3)).await;
    assert_invalid("PUT", put, "Scale.autoscaling", "web", &[negative]);
    let patch = api.merge(SCALE, json!({"spec": {"replicas": -3}})).await;
    assert_invalid("PATCH", patch, "Scale.autoscaling", "web", &[negative]);

    let (code, status) = api
        .put(SCALE, scale(json!({"name": "web", "resourceVersion": "1"}), 1))
        .await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")), "{status:#}");
    assert_eq!(
        status["details"],
        json!({"name": "web", "group": "apps", "kind": "statefulsets"})
    );
    let (code, status) = api.put(SCALE, scale(json!({"name": "other"}), 1)).await;
    assert_eq!(
        (code, &status["reason"]),
        (400, &json!("BadRequest")),
        "{status:#}"
    );
    let (code, status) = api.get(&SCALE.replace("web", "none")).await;
    assert_eq!(code, 404);
    assert_eq!(status["message"], "statefulsets.apps \"none\" not found");
    assert_eq!(api.found(WEB).await["spec"]["replicas"], 5);
}
