//! Kinds for tests of the verbs, so that they do not depend on the real ones.

use crate::resource::{Kind, Names, Subresource};
use serde_json::Value;

/// A kind that does nothing of its own.
pub struct ConfigMap;

/// See [`ConfigMap`].
pub const CONFIG_MAP: ConfigMap = ConfigMap;

impl Kind for ConfigMap {
    fn names(&self) -> &'static Names {
        &Names {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            plural: "configmaps",
            singular: "configmap",
            short_names: &["cm"],
            categories: &[],
            namespaced: true,
            schema: "io.k8s.api.core.v1.ConfigMap",
            storage_group: "",
        }
    }
}

/// A kind that is deleted gracefully and has a status.
pub struct Pod;

/// See [`Pod`].
pub const POD: Pod = Pod;

impl Kind for Pod {
    fn names(&self) -> &'static Names {
        &Names {
            group: "",
            version: "v1",
            kind: "Pod",
            plural: "pods",
            singular: "pod",
            short_names: &["po"],
            categories: &["all"],
            namespaced: true,
            schema: "io.k8s.api.core.v1.Pod",
            storage_group: "",
        }
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Status]
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        match object["spec"]["nodeName"].as_str() {
            Some(_) => Some(asked.unwrap_or(30)),
            None => Some(0),
        }
    }
}
