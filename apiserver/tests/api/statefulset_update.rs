//! Section 1.3 of the reference: what may change in a stored StatefulSet, and how everything else is refused; and where
//! petset lets more through than upstream, claim templates that grow.

use crate::client::{Api, JSON_PATCH, MERGE, SETS, STRATEGIC, WEB, claim, set};
use crate::refusal::{Cause, assert_invalid};
use serde_json::{Value, json};

/// Charts and operators match on the beginning of this.
const REFUSAL: Cause = (
    "FieldValueForbidden",
    "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
);

/// `data` and `logs`, 1Gi each.
fn with_claims(changes: &Value) -> Value {
    let mut object =
        set(&json!({"spec": {"volumeClaimTemplates": [claim("data", "1Gi"), claim("logs", "1Gi")]}}));
    crate::client::patch(&mut object, changes);
    object
}

fn sized(data: &str, logs: &str) -> Value {
    json!({"spec": {"volumeClaimTemplates": [claim("data", data), claim("logs", logs)]}})
}

#[tokio::test]
async fn a_frozen_field_is_refused_by_every_verb_that_writes() {
    let api = Api::start().await;
    let first = api.created(SETS, &with_claims(&json!({}))).await;
    let mut labelled = claim("data", "1Gi");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let mut classed = claim("data", "1Gi");
    classed["spec"]["storageClassName"] = "fast".into();
    let mut moded = claim("data", "1Gi");
    moded["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    let mut limited = claim("data", "1Gi");
    limited["spec"]["resources"]["limits"] = json!({"storage": "2Gi"});
    let logs = claim("logs", "1Gi");
    let claims = |list: Value| json!({"volumeClaimTemplates": list});
    let other_label = json!({"matchLabels": {"app": "x"}});
    for (row, spec) in [
        ("serviceName", json!({"serviceName": "other"})),
        ("serviceName taken away", json!({"serviceName": null})),
        (
            "selector",
            json!({"selector": other_label, "template": {"metadata": {"labels": {"app": "x"}}}}),
        ),
        (
            "selector, one label more",
            json!({"selector": {"matchLabels": {"b": "c"}}, "template": {"metadata": {"labels": {"b": "c"}}}}),
        ),
        ("podManagementPolicy", json!({"podManagementPolicy": "Parallel"})),
        ("a claim's size", claims(json!([claim("data", "2Gi"), logs]))),
        ("a claim's class", claims(json!([classed, logs]))),
        ("a claim's labels", claims(json!([labelled, logs]))),
        ("a claim's modes", claims(json!([moded, logs]))),
        ("a claim's limits", claims(json!([limited, logs]))),
        ("a claim's name", claims(json!([claim("data2", "1Gi"), logs]))),
        (
            "a claim more",
            claims(json!([claim("data", "1Gi"), logs, claim("x", "1Gi")])),
        ),
        ("a claim less", claims(json!([logs]))),
        ("no claims", claims(Value::Null)),
        ("the claims' order", claims(json!([logs, claim("data", "1Gi")]))),
    ] {
        let change = json!({ "spec": spec });
        let put = api.put(WEB, with_claims(&change)).await;
        assert_invalid(row, put, "StatefulSet.apps", "web", &[REFUSAL]);
        let merged = api.merge(WEB, change.clone()).await;
        assert_invalid(row, merged, "StatefulSet.apps", "web", &[REFUSAL]);
        let mut with_more = change;
        with_more["spec"]["replicas"] = 3.into();
        let merged = api.merge(WEB, with_more).await;
        assert_invalid(row, merged, "StatefulSet.apps", "web", &[REFUSAL]);
    }
    let operations = json!([{"op": "replace", "path": "/spec/serviceName", "value": "other"}]);
    let patched = api.json("PATCH", WEB, JSON_PATCH, operations).await;
    assert_invalid("JSON patch", patched, "StatefulSet.apps", "web", &[REFUSAL]);
    let patched = api
        .json("PATCH", WEB, STRATEGIC, json!({"spec": {"serviceName": "other"}}))
        .await;
    assert_invalid("strategic patch", patched, "StatefulSet.apps", "web", &[REFUSAL]);
    assert_eq!(api.found(WEB).await, first, "nothing of it was stored");
}

#[tokio::test]
async fn the_mutable_fields_change_by_every_kind_of_write() {
    let api = Api::start().await;
    api.created(SETS, &with_claims(&json!({}))).await;
    let rows = [
        ("replicas", json!({"replicas": 3})),
        ("ordinals", json!({"ordinals": {"start": 2}})),
        (
            "template",
            json!({"template": {"metadata": {"annotations": {"a": "b"}}}}),
        ),
        (
            "updateStrategy",
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}),
        ),
        ("revisionHistoryLimit", json!({"revisionHistoryLimit": 2})),
        (
            "persistentVolumeClaimRetentionPolicy",
            json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}),
        ),
        ("minReadySeconds", json!({"minReadySeconds": 5})),
    ];
    let mut generation = 1;
    for (field, spec) in rows {
        for content_type in [MERGE, STRATEGIC] {
            let before = api.found(WEB).await;
            let path = if content_type == MERGE {
                WEB.to_owned()
            } else {
                format!("{WEB}?dryRun=All")
            };
            let (code, changed) = api
                .json("PATCH", &path, content_type, json!({ "spec": spec }))
                .await;
            assert_eq!(code, 200, "{field}: {changed:#}");
            if content_type == MERGE {
                generation += 1;
                assert_ne!(changed["spec"][field], before["spec"][field], "{field}");
            }
            assert_eq!(changed["metadata"]["generation"], generation, "{field}");
        }
    }
    let all = api.found(WEB).await;
    let (code, put) = api.put(WEB, all.clone()).await;
    assert_eq!((code, put), (200, all));
    // Everything that is left out goes back to its default, and all of that may change, too.
    let (code, put) = api.put(WEB, with_claims(&json!({}))).await;
    assert_eq!((code, &put["spec"]["replicas"]), (200, &json!(1)), "{put:#}");
}

#[tokio::test]
async fn a_changed_field_is_checked_like_a_new_one() {
    let api = Api::start().await;
    api.created(SETS, &set(&json!({}))).await;
    let negative = (
        "FieldValueInvalid",
        "spec.replicas: Invalid value: -2: must be greater than or equal to 0",
    );
    let answer = api.merge(WEB, json!({"spec": {"replicas": -2}})).await;
    assert_invalid("one cause", answer, "StatefulSet.apps", "web", &[negative]);
    let answer = api
        .merge(WEB, json!({"spec": {"replicas": -2, "serviceName": "other"}}))
        .await;
    assert_invalid(
        "two causes",
        answer,
        "StatefulSet.apps",
        "web",
        &[negative, REFUSAL],
    );
    let answer = api
        .merge(
            WEB,
            json!({"spec": {"template": {"metadata": {"labels": {"app": "y"}}}}}),
        )
        .await;
    let mismatch = (
        "FieldValueInvalid",
        "spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`",
    );
    assert_invalid("labels", answer, "StatefulSet.apps", "web", &[mismatch]);
}

#[tokio::test]
async fn a_size_may_be_written_in_another_way() {
    let api = Api::start().await;
    api.created(SETS, &with_claims(&json!({}))).await;
    for (data, logs) in [("1024Mi", "1Gi"), ("1073741824", "1Gi"), ("1Gi", "1048576Ki")] {
        let (code, answer) = api.put(WEB, with_claims(&sized(data, logs))).await;
        assert_eq!(code, 200, "{data} {logs}: {answer:#}");
    }
}

#[tokio::test]
async fn claim_templates_grow_where_the_set_asks_for_it() {
    let api = Api::start().await;
    api.created(SETS, &with_claims(&json!({}))).await;
    let asking = |asks: Value, data: &str, logs: &str| {
        let mut object = with_claims(&sized(data, logs));
        object["metadata"]["annotations"] = json!({"petset.dev/resize-claims": asks});
        object
    };
    let storage = |set: &Value| {
        let claims = set["spec"]["volumeClaimTemplates"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
        claims.iter().map(size).collect::<Vec<_>>()
    };
    for asks in ["false", "yes", ""] {
        let answer = api.put(WEB, asking(json!(asks), "2Gi", "1Gi")).await;
        assert_invalid(asks, answer, "StatefulSet.apps", "web", &[REFUSAL]);
    }
    // The annotation comes with the change, or before it.
    let (code, grown) = api.put(WEB, asking(json!("true"), "2Gi", "1Gi")).await;
    assert_eq!(code, 200, "{grown:#}");
    assert_eq!(storage(&grown), ["2Gi", "1Gi"]);
    assert_eq!(grown["metadata"]["generation"], 2);
    let (code, grown) = api.merge(WEB, sized("2Gi", "3Gi")).await;
    assert_eq!(
        (code, storage(&grown)),
        (200, vec![json!("2Gi"), json!("3Gi")]),
        "{grown:#}"
    );

    let lowered = (
        "FieldValueForbidden",
        "spec.volumeClaimTemplates[1].spec.resources.requests.storage: Forbidden: may be raised but not lowered: it was 3Gi and would be 1500Mi",
    );
    let answer = api.merge(WEB, sized("5Gi", "1500Mi")).await;
    assert_invalid("lowered", answer, "StatefulSet.apps", "web", &[lowered]);

    for (row, change) in [
        ("another field, too", json!({"spec": {"serviceName": "other"}})),
        (
            "a template more",
            json!({"spec": {"volumeClaimTemplates": [claim("data", "9Gi"), claim("logs", "9Gi"), claim("x", "1Gi")]}}),
        ),
        (
            "a template less",
            json!({"spec": {"volumeClaimTemplates": [claim("data", "9Gi")]}}),
        ),
        (
            "the order",
            json!({"spec": {"volumeClaimTemplates": [claim("logs", "9Gi"), claim("data", "9Gi")]}}),
        ),
    ] {
        let mut object = asking(json!("true"), "9Gi", "9Gi");
        crate::client::patch(&mut object, &change);
        let answer = api.put(WEB, object).await;
        assert_invalid(row, answer, "StatefulSet.apps", "web", &[REFUSAL]);
    }
    // Without the annotation in what is written now, it is upstream's rule again.
    let mut change = sized("9Gi", "9Gi");
    change["metadata"] = json!({"annotations": null});
    let answer = api.merge(WEB, change).await;
    assert_invalid(
        "annotation taken away",
        answer,
        "StatefulSet.apps",
        "web",
        &[REFUSAL],
    );
    assert_eq!(storage(&api.found(WEB).await), ["2Gi", "3Gi"]);
}
