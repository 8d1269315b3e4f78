//! Namespace: what other objects live in. It goes only after everything in it has gone.

use super::parts;
use crate::resource::{Column, Kind, Names, Subresource};
use crate::validation::{Invalid, names};
use serde_json::{Value, json};

/// The label that every namespace carries, so that selectors can name one.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer in `spec.finalizers` that the namespace controller removes when all content is gone.
const FINALIZER: &str = "kubernetes";

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    schema: "io.k8s.api.core.v1.Namespace",
    storage_group: "",
};

static COLUMNS: [Column; 3] = [
    parts::NAME,
    parts::column("Status", "The status of the namespace"),
    parts::AGE,
];

/// See [the module](self).
pub struct Namespace;

impl Kind for Namespace {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Finalize, Subresource::Status]
    }

    fn verbs(&self) -> &'static [&'static str] {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
    }

    fn set_defaults(&self, object: &mut Value) {
        let name = object["metadata"]["name"].clone();
        if name.as_str().is_some_and(|name| !name.is_empty()) {
            object["metadata"]["labels"][NAME_LABEL] = name;
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        self.set_defaults(object);
        object["status"] = json!({ "phase": "Active" });
        let finalizers = &object["spec"]["finalizers"];
        if !parts::texts(finalizers).any(|f| f == FINALIZER) {
            let mut all: Vec<Value> = parts::items(finalizers).cloned().collect();
            all.push(FINALIZER.into());
            object["spec"]["finalizers"] = all.into();
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Only the finalize subresource changes the finalizers in the spec.
        new["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        parts::texts(&object["spec"]["finalizers"])
            .flat_map(|name| finalizer_name("spec.finalizers", name))
            .collect()
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<Invalid> {
        Vec::new()
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<Invalid> {
        let phase = &new["status"]["phase"];
        let (expected, detail) = if new["metadata"]["deletionTimestamp"].is_null() {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        } else {
            (
                "Terminating",
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )
        };
        if phase == expected {
            return Vec::new();
        }
        vec![Invalid::malformed("status.Phase", parts::text(phase), detail)]
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        // `name` is upstream's slip, kept there and here for compatibility.
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        vec![("status.phase", phase.into()), ("name", name.into())]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            parts::name(object),
            parts::text(&object["status"]["phase"]),
            parts::age(object, now),
        ]
    }
}

/// What is wrong with the name of a finalizer: it is `kubernetes`, `orphan`, `foregroundDeletion` or qualified.
pub fn finalizer_name(field: &str, name: &str) -> Vec<Invalid> {
    let mut invalid = Invalid::each(field, name, names::qualified_name(name));
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        invalid.push(Invalid::malformed(field, name, detail));
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_guarded() {
        let mut object =
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "status": {"phase": "Gone"}});
        Namespace.prepare_create(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "a", "labels": {"x": "y", "kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
    }

    #[test]
    fn an_update_leaves_the_finalizers_in_the_spec() {
        let old = json!({"spec": {"finalizers": ["kubernetes"]}});
        let mut new = json!({"spec": {}});
        Namespace.prepare_update(&mut new, &old);
        assert_eq!(new, old);
    }

    #[test]
    fn the_phase_follows_the_deletion() {
        let active = json!({"metadata": {}, "status": {"phase": "Active"}});
        let going =
            json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Active"}});
        assert_eq!(Namespace.validate_status(&active, &active), []);
        assert_eq!(Namespace.validate_status(&going, &active).len(), 1);
    }

    #[test]
    fn a_finalizer_is_standard_or_qualified() {
        assert_eq!(finalizer_name("f", "kubernetes"), []);
        assert_eq!(finalizer_name("f", "example.com/mine"), []);
        assert_eq!(finalizer_name("f", "mine").len(), 1);
    }
}
