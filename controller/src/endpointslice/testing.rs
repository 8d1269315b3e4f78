//! Objects for the tests of this folder and of Endpoints.

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

/// Service `default/web`, selecting `app: web`, with the fields of `spec` over its own.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn service(spec: Value) -> Service {
    let mut base = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "web-uid", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"}},
    });
    base["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(base).unwrap()
}

/// Pod `default/web-ORDINAL`, ready at 127.1.0.ORDINAL, with the fields of `status` over its own.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn pod(ordinal: usize, status: Value) -> Pod {
    let name = format!("web-{ordinal}");
    let mut base = json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("{name}-uid"), "labels": {"app": "web"},
        },
        "spec": {"containers": [], "hostname": name, "subdomain": "web", "nodeName": "node"},
        "status": {
            "phase": "Running",
            "podIP": format!("127.1.0.{ordinal}"),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    base["status"]
        .as_object_mut()
        .unwrap()
        .extend(status.as_object().unwrap().clone());
    serde_json::from_value(base).unwrap()
}
