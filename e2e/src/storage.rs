//! Claims, volumes, classes and the pods that use them, for the tests about storage.

use crate::in_process::InProcess;
use serde_json::{Value, json};

/// The claims of the default namespace.
pub const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
/// The volumes.
pub const VOLUMES: &str = "/api/v1/persistentvolumes";
/// The classes.
pub const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";

/// A claim for 1Gi, for one node at a time.
pub fn claim(name: &str, class: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": class,
    }})
}

/// A volume that an administrator made, without a class.
pub fn volume(name: &str, size: &str, path: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "hostPath": {"path": path},
        "persistentVolumeReclaimPolicy": "Retain",
    }})
}

/// The class `fast` with these fields.
pub fn class(fields: Value) -> Value {
    let mut class = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk"});
    merge(&mut class, fields);
    class
}

/// A pod that uses a claim.
pub fn pod(name: &str, claim: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "nginx"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
    }})
}

/// `object` with these fields in its spec.
pub fn with_spec(mut object: Value, fields: Value) -> Value {
    merge(&mut object["spec"], fields);
    object
}

fn merge(into: &mut Value, fields: Value) {
    let fields = fields.as_object().expect("an object").clone();
    into.as_object_mut().expect("an object").extend(fields);
}

/// Where an object of this collection is.
pub fn of(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}

/// Is the phase of a claim or volume this one?
pub fn is(phase: &str) -> impl Fn(&Value) -> bool {
    move |object| object["status"]["phase"] == phase
}

/// Is the claim or volume bound?
pub fn is_bound(object: &Value) -> bool {
    is("Bound")(object)
}

/// Make a node that is ready.
pub async fn add_node(cluster: &InProcess, name: &str) {
    let labels = json!({"kubernetes.io/hostname": name});
    let node = json!({"metadata": {"name": name, "labels": labels}});
    cluster.create("/api/v1/nodes", node).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    cluster
        .merge(&format!("/api/v1/nodes/{name}/status"), ready)
        .await;
}
