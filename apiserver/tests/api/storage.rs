//! Claims, volumes and classes as the API takes them (rules P1, P2 and P14 of the reference).

use crate::client::{Api, claim, patch};
use crate::refusal::{Cause, assert_invalid};
use serde_json::{Value, json};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLAIM: &str = "/api/v1/namespaces/default/persistentvolumeclaims/d";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const VOLUMES: &str = "/api/v1/persistentvolumes";

const INVALID: &str = "FieldValueInvalid";
const REQUIRED: &str = "FieldValueRequired";
const FORBIDDEN: &str = "FieldValueForbidden";
const UNSUPPORTED: &str = "FieldValueNotSupported";

fn class(name: &str, changes: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "provisioner": "petset.dev/directory"});
    patch(&mut object, changes);
    object
}

fn wish(changes: &Value) -> Value {
    let mut object = claim("d", "1Gi");
    patch(&mut object, changes);
    object
}

fn volume(changes: &Value) -> Value {
    let mut object = json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"},
    }});
    patch(&mut object, changes);
    object
}

#[tokio::test]
async fn a_class_deletes_binds_at_once_and_does_not_grow_unless_it_says_so() {
    let api = Api::start().await;
    let stored = api.created(CLASSES, &class("a", &json!({}))).await;
    assert_eq!(stored["reclaimPolicy"], "Delete");
    assert_eq!(stored["volumeBindingMode"], "Immediate");
    assert_eq!(stored["allowVolumeExpansion"], Value::Null);
    for (row, change, causes) in [
        (
            "provisioner",
            json!({"provisioner": null}),
            vec![(REQUIRED, "provisioner: Required value")],
        ),
        (
            "reclaimPolicy",
            json!({"reclaimPolicy": "Burn"}),
            vec![(
                UNSUPPORTED,
                "reclaimPolicy: Unsupported value: \"Burn\": supported values: \"Delete\", \"Retain\"",
            )],
        ),
        (
            "volumeBindingMode",
            json!({"volumeBindingMode": "Later"}),
            vec![(
                UNSUPPORTED,
                "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            )],
        ),
    ] {
        let answer = api.post(CLASSES, class("b", &change)).await;
        assert_invalid(row, answer, "StorageClass.storage.k8s.io", "b", &causes);
    }
}

#[tokio::test]
async fn a_class_stays_as_it_is_but_for_growth_mounts_and_topologies() {
    let api = Api::start().await;
    api.created(CLASSES, &class("a", &json!({"parameters": {"a": "b"}})))
        .await;
    let path = format!("{CLASSES}/a");
    for (row, change, cause) in [
        (
            "parameters",
            json!({"parameters": {"a": "c"}}),
            "parameters: Invalid value: {\"a\":\"c\"}: field is immutable",
        ),
        (
            "provisioner",
            json!({"provisioner": "q"}),
            "provisioner: Invalid value: \"q\": field is immutable",
        ),
        (
            "reclaimPolicy",
            json!({"reclaimPolicy": "Retain"}),
            "reclaimPolicy: Invalid value: \"Retain\": field is immutable",
        ),
        (
            "volumeBindingMode",
            json!({"volumeBindingMode": "WaitForFirstConsumer"}),
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ),
    ] {
        let answer = api.merge(&path, change).await;
        assert_invalid(
            row,
            answer,
            "StorageClass.storage.k8s.io",
            "a",
            &[(INVALID, cause)],
        );
    }
    for change in [
        json!({"allowVolumeExpansion": true}),
        json!({"allowVolumeExpansion": null}),
        json!({"mountOptions": ["ro"]}),
        json!({"metadata": {"labels": {"a": "b"}}}),
    ] {
        assert_eq!(api.merge(&path, change.clone()).await.0, 200, "{change}");
    }
}

#[tokio::test]
async fn a_claim_gets_the_default_class_unless_it_says_none() {
    let api = Api::start().await;
    let default =
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    let without = api
        .created(CLAIMS, &wish(&json!({"metadata": {"name": "early"}})))
        .await;
    assert_eq!(without["spec"]["storageClassName"], Value::Null);
    api.created(CLASSES, &class("fast", &default)).await;
    api.created(CLASSES, &class("slow", &json!({}))).await;
    for (row, spec, expected) in [
        ("absent", json!({}), json!("fast")),
        ("none", json!({"storageClassName": ""}), json!("")),
        ("named", json!({"storageClassName": "slow"}), json!("slow")),
    ] {
        let stored = api.created(CLAIMS, &wish(&json!({ "spec": spec }))).await;
        assert_eq!(stored["spec"]["storageClassName"], expected, "{row}");
        assert_eq!(stored["spec"]["volumeMode"], "Filesystem", "{row}");
        assert_eq!(stored["status"], json!({"phase": "Pending"}), "{row}");
        assert_eq!(
            stored["metadata"]["finalizers"],
            json!(["kubernetes.io/pvc-protection"]),
            "{row}"
        );
        api.merge(CLAIM, json!({"metadata": {"finalizers": null}})).await;
        assert_eq!(api.delete(CLAIM, Value::Null).await.0, 200, "{row}");
    }
}

#[tokio::test]
async fn a_wrong_claim_is_refused_in_upstreams_words() {
    let api = Api::start().await;
    let modes = "\"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    let unknown_mode =
        format!("spec.accessModes: Unsupported value: \"Sometimes\": supported values: {modes}");
    let rows: Vec<(&str, Value, Vec<Cause>)> = vec![
        (
            "no mode",
            json!({"accessModes": null}),
            vec![(
                REQUIRED,
                "spec.accessModes: Required value: at least 1 access mode is required",
            )],
        ),
        (
            "unknown mode",
            json!({"accessModes": ["Sometimes"]}),
            vec![(UNSUPPORTED, &unknown_mode)],
        ),
        (
            "alone or not at all",
            json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}),
            vec![(
                FORBIDDEN,
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            )],
        ),
        (
            "no size",
            json!({"resources": null}),
            vec![(REQUIRED, "spec.resources[storage]: Required value")],
        ),
        (
            "size 0",
            json!({"resources": {"requests": {"storage": "0"}}}),
            vec![(
                INVALID,
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            )],
        ),
        (
            "volumeMode",
            json!({"volumeMode": "Tape"}),
            vec![(
                UNSUPPORTED,
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            )],
        ),
    ];
    for (row, spec, causes) in rows {
        let answer = api.post(CLAIMS, wish(&json!({ "spec": spec }))).await;
        assert_invalid(row, answer, "PersistentVolumeClaim", "d", &causes);
    }
    let malformed = wish(&json!({"spec": {"resources": {"requests": {"storage": "1Zi"}}}}));
    let (code, status) = api.post(CLAIMS, malformed).await;
    assert_eq!(
        (code, &status["reason"]),
        (400, &json!("BadRequest")),
        "{status:#}"
    );
}

/// A claim of 2Gi, bound to a volume of 2Gi, of a class that may or may not grow.
async fn bound(grows: bool) -> Api {
    let api = Api::start().await;
    api.created(CLASSES, &class("c", &json!({ "allowVolumeExpansion": grows })))
        .await;
    let spec =
        json!({"storageClassName": "c", "volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}});
    api.created(CLAIMS, &wish(&json!({ "spec": spec }))).await;
    let status = json!({"status": {"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]}});
    let (code, answer) = api.merge(&format!("{CLAIM}/status"), status).await;
    assert_eq!(code, 200, "{answer:#}");
    api
}

fn size(storage: &str) -> Value {
    json!({"spec": {"resources": {"requests": {"storage": storage}}}})
}

#[tokio::test]
async fn a_claim_is_frozen_but_for_its_size() {
    const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n@@ ";
    let api = bound(true).await;
    for (row, spec) in [
        ("class", json!({"storageClassName": "other"})),
        ("modes", json!({"accessModes": ["ReadWriteMany"]})),
        ("volume", json!({"volumeName": "other"})),
        ("selector", json!({"selector": {"matchLabels": {"a": "b"}}})),
        ("limits", json!({"resources": {"limits": {"storage": "9Gi"}}})),
    ] {
        let (code, status) = api.merge(CLAIM, json!({ "spec": spec })).await;
        assert_eq!(
            (code, &status["reason"]),
            (422, &json!("Invalid")),
            "{row}: {status:#}"
        );
        let message = status["message"].as_str().unwrap_or_default();
        let expected = format!("PersistentVolumeClaim \"d\" is invalid: {IMMUTABLE}");
        assert!(message.starts_with(&expected), "{row}: {message}");
        assert_eq!(
            status["details"]["causes"].as_array().map(Vec::len),
            Some(1),
            "{row}"
        );
    }
    let (code, grown) = api.merge(CLAIM, size("3Gi")).await;
    assert_eq!(
        (code, &grown["spec"]["resources"]["requests"]["storage"]),
        (200, &json!("3Gi"))
    );
    let (code, back) = api.merge(CLAIM, size("2560Mi")).await;
    assert_eq!(
        code, 200,
        "a growth that is not done yet may be taken back in part: {back:#}"
    );
    let answer = api.merge(CLAIM, size("1Gi")).await;
    let below = (
        FORBIDDEN,
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
    );
    assert_invalid(
        "below its capacity",
        answer,
        "PersistentVolumeClaim",
        "d",
        &[below],
    );
}

#[tokio::test]
async fn a_claim_does_not_grow_where_its_class_does_not() {
    let api = bound(false).await;
    let (code, status) = api.merge(CLAIM, size("3Gi")).await;
    assert_eq!(
        (code, &status["reason"]),
        (403, &json!("Forbidden")),
        "{status:#}"
    );
    assert_eq!(
        status["message"],
        "persistentvolumeclaims \"d\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    );
}

#[tokio::test]
async fn a_wrong_volume_is_refused_in_upstreams_words() {
    let api = Api::start().await;
    for (row, spec, causes) in [
        (
            "no capacity",
            json!({"capacity": null}),
            vec![
                (REQUIRED, "spec.capacity: Required value"),
                (
                    UNSUPPORTED,
                    "spec.capacity: Unsupported value: null: supported values: \"storage\"",
                ),
            ],
        ),
        (
            "no modes",
            json!({"accessModes": null}),
            vec![(REQUIRED, "spec.accessModes: Required value")],
        ),
        (
            "no source",
            json!({"hostPath": null}),
            vec![(REQUIRED, "spec: Required value: must specify a volume type")],
        ),
        (
            "a way out of the path",
            json!({"hostPath": {"path": "/a/../b"}}),
            vec![(
                INVALID,
                "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            )],
        ),
        (
            "local without a node",
            json!({"hostPath": null, "local": {"path": "/a"}}),
            vec![(
                REQUIRED,
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            )],
        ),
    ] {
        let answer = api.post(VOLUMES, volume(&json!({ "spec": spec }))).await;
        assert_invalid(row, answer, "PersistentVolume", "v", &causes);
    }
    let stored = api.created(VOLUMES, &volume(&json!({}))).await;
    assert_eq!(stored["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(stored["spec"]["volumeMode"], "Filesystem");
    assert_eq!(
        stored["metadata"]["finalizers"],
        json!(["kubernetes.io/pv-protection"])
    );
    let (code, status) = api
        .merge(
            &format!("{VOLUMES}/v"),
            json!({"spec": {"hostPath": {"path": "/other"}}}),
        )
        .await;
    assert_eq!(code, 422, "{status:#}");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with(
            "PersistentVolume \"v\" is invalid: spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n@@ "
        ),
        "{message}"
    );
}
