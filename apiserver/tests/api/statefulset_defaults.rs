//! Section 1.1 of the reference: what a StatefulSet reads as that says little, and what the server keeps to itself.

use crate::client::{Api, SETS, WEB, claim, patch, set};
use serde_json::{Value, json};

/// Row, what is sent beyond the minimum, where to look, what is there (null: nothing).
type Row = (&'static str, Value, &'static str, Value);

fn rows() -> Vec<Row> {
    let claims = json!({"spec": {"volumeClaimTemplates": [claim("data", "1024Mi")]}});
    let container = |fields: Value| {
        let mut container = json!({"name": "c", "image": "nginx:1.27"});
        patch(&mut container, &fields);
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let none = || json!({});
    let strategy = |strategy: Value| json!({"spec": {"updateStrategy": strategy}});
    let retention = |policy: Value| json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}});
    let c = |field: &str| Box::leak(format!("/spec/template/spec/containers/0/{field}").into_boxed_str());
    let probe = json!({"readinessProbe": {"httpGet": {"port": 80}}});
    let hook = json!({"lifecycle": {"preStop": {"httpGet": {"port": 80}}}});
    vec![
        ("replicas", none(), "/spec/replicas", json!(1)),
        (
            "replicas, 0 stays",
            json!({"spec": {"replicas": 0}}),
            "/spec/replicas",
            json!(0),
        ),
        (
            "podManagementPolicy",
            none(),
            "/spec/podManagementPolicy",
            json!("OrderedReady"),
        ),
        (
            "updateStrategy",
            none(),
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
        ),
        (
            "updateStrategy, a type and no block",
            strategy(json!({"type": "RollingUpdate"})),
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate"}),
        ),
        (
            "updateStrategy, OnDelete",
            strategy(json!({"type": "OnDelete"})),
            "/spec/updateStrategy",
            json!({"type": "OnDelete"}),
        ),
        (
            "partition in a block",
            strategy(json!({"type": "RollingUpdate", "rollingUpdate": {}})),
            "/spec/updateStrategy/rollingUpdate",
            json!({"partition": 0}),
        ),
        (
            "maxUnavailable is kept",
            strategy(json!({"rollingUpdate": {"maxUnavailable": "30%"}})),
            "/spec/updateStrategy/rollingUpdate",
            json!({"partition": 0, "maxUnavailable": "30%"}),
        ),
        (
            "retention",
            none(),
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
        ),
        (
            "retention, one half",
            retention(json!({"whenDeleted": "Delete"})),
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Delete", "whenScaled": "Retain"}),
        ),
        (
            "retention, the other half",
            retention(json!({"whenScaled": "Delete"})),
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Retain", "whenScaled": "Delete"}),
        ),
        (
            "revisionHistoryLimit",
            none(),
            "/spec/revisionHistoryLimit",
            json!(10),
        ),
        (
            "revisionHistoryLimit, 0 stays",
            json!({"spec": {"revisionHistoryLimit": 0}}),
            "/spec/revisionHistoryLimit",
            json!(0),
        ),
        ("minReadySeconds", none(), "/spec/minReadySeconds", Value::Null),
        (
            "minReadySeconds, 0 goes",
            json!({"spec": {"minReadySeconds": 0}}),
            "/spec/minReadySeconds",
            Value::Null,
        ),
        ("ordinals", none(), "/spec/ordinals", Value::Null),
        (
            // Optional, and yet always written.
            "serviceName",
            json!({"spec": {"serviceName": null}}),
            "/spec/serviceName",
            json!(""),
        ),
        (
            "template.spec",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]}}}}),
            "/spec/template/spec",
            json!({
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler", "securityContext": {},
                "containers": [{
                    "name": "c", "image": "nginx:1.27", "imagePullPolicy": "IfNotPresent", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
            }),
        ),
        (
            "imagePullPolicy of :latest",
            container(json!({"image": "nginx:latest"})),
            c("imagePullPolicy"),
            json!("Always"),
        ),
        (
            "imagePullPolicy without a tag",
            container(json!({"image": "nginx"})),
            c("imagePullPolicy"),
            json!("Always"),
        ),
        (
            "imagePullPolicy of a digest",
            container(json!({"image": format!("nginx@sha256:{}", "a".repeat(64))})),
            c("imagePullPolicy"),
            json!("IfNotPresent"),
        ),
        (
            "volumeClaimTemplates",
            claims,
            "/spec/volumeClaimTemplates",
            json!([{
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
                "status": {"phase": "Pending"},
            }]),
        ),
        (
            "probes",
            container(probe),
            c("readinessProbe"),
            json!({
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
            }),
        ),
        (
            "hooks",
            container(hook),
            c("lifecycle"),
            json!({"preStop": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}}}),
        ),
        (
            "status is cleared",
            json!({"status": {"replicas": 7, "readyReplicas": 7, "currentRevision": "x"}}),
            "/status",
            json!({"replicas": 0, "availableReplicas": 0}),
        ),
        (
            "generation",
            json!({"metadata": {"generation": 7}}),
            "/metadata/generation",
            json!(1),
        ),
    ]
}

#[tokio::test]
async fn every_default_of_upstream_is_set_on_create() {
    let api = Api::start().await;
    for (row, sent, at, expected) in rows() {
        let stored = api.created(SETS, &set(&sent)).await;
        let found = stored.pointer(at).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{row}");
        assert_eq!(api.found(WEB).await, stored, "{row}");
        assert_eq!(api.delete(WEB, Value::Null).await.0, 200, "{row}");
    }
}

#[tokio::test]
async fn sending_the_first_manifest_again_changes_nothing() {
    let api = Api::start().await;
    for (row, sent, ..) in rows() {
        let stored = api.created(SETS, &set(&sent)).await;
        let (code, again) = api.put(WEB, set(&sent)).await;
        assert_eq!((code, &again), (200, &stored), "{row}");
        assert_eq!(api.delete(WEB, Value::Null).await.0, 200, "{row}");
    }
}

#[tokio::test]
async fn only_a_changed_spec_raises_the_generation() {
    let api = Api::start().await;
    api.created(SETS, &set(&json!({}))).await;
    for (row, change, expected) in [
        ("a label", json!({"metadata": {"labels": {"a": "b"}}}), 1),
        (
            "an annotation",
            json!({"metadata": {"annotations": {"a": "b"}}}),
            1,
        ),
        ("the same number", json!({"spec": {"replicas": 1}}), 1),
        (
            "a status in the main resource",
            json!({"status": {"replicas": 5}}),
            1,
        ),
        ("another number", json!({"spec": {"replicas": 2}}), 2),
        (
            "the template",
            json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}),
            3,
        ),
    ] {
        let (code, patched) = api.merge(WEB, change).await;
        assert_eq!(
            (code, &patched["metadata"]["generation"]),
            (200, &json!(expected)),
            "{row}"
        );
        assert_eq!(
            patched["status"],
            json!({"replicas": 0, "availableReplicas": 0}),
            "{row}"
        );
    }
}

#[tokio::test]
async fn a_put_needs_an_object_but_no_version() {
    let api = Api::start().await;
    let (code, status) = api.put(WEB, set(&json!({}))).await;
    assert_eq!((code, &status["reason"]), (404, &json!("NotFound")));
    assert_eq!(status["message"], "statefulsets.apps \"web\" not found");

    let first = api.created(SETS, &set(&json!({}))).await;
    let (code, put) = api.put(WEB, set(&json!({"spec": {"replicas": 2}}))).await;
    assert_eq!((code, &put["spec"]["replicas"]), (200, &json!(2)), "{put}");

    let (code, status) = api.put(WEB, first).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on statefulsets.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let (code, status) = api.post(SETS, set(&json!({}))).await;
    assert_eq!((code, &status["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(status["message"], "statefulsets.apps \"web\" already exists");
}
