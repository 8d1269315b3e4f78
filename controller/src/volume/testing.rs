//! Objects for the tests of this folder.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// `base` with the fields of `change` put over those of its `spec`.
fn with_spec<K: DeserializeOwned>(mut base: Value, change: &Value) -> K {
    let spec = base["spec"].as_object_mut().unwrap();
    spec.extend(change.as_object().unwrap().clone());
    serde_json::from_value(base).unwrap()
}

/// A pending claim `default/NAME` for 1Gi, UID `NAME-uid`.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn claim(name: &str, spec: Value) -> PersistentVolumeClaim {
    let base = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid"), "resourceVersion": "7"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeMode": "Filesystem",
            "storageClassName": "",
        },
        "status": {"phase": "Pending"},
    });
    with_spec(base, &spec)
}

/// An available volume of 1Gi without class.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn volume(name: &str, spec: Value) -> PersistentVolume {
    let base = json!({
        "metadata": {"name": name, "uid": format!("{name}-uid"), "resourceVersion": "8"},
        "spec": {
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/data/x"},
            "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Available"},
    });
    with_spec(base, &spec)
}

/// A class that provisions, by `example.com/disk`.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn class(name: &str, change: Value) -> StorageClass {
    let mut base = json!({
        "metadata": {"name": name},
        "provisioner": "example.com/disk",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    });
    base.as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    serde_json::from_value(base).unwrap()
}
