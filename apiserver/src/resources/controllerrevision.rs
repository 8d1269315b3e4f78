//! ControllerRevision: an immutable snapshot of what a controller's pods are made from.

use super::json::text;
use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, Path, numbers};
use serde_json::Value;

static NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.apps.v1.ControllerRevision",
    storage_group: "apps",
};

static COLUMNS: [Column; 4] = [
    parts::NAME,
    parts::column("Controller", "Controller of the object"),
    parts::column("Revision", "schema:revision"),
    parts::AGE,
];

/// See [the module](self).
pub struct ControllerRevision;

impl Kind for ControllerRevision {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut problems = Vec::new();
        if object["data"].is_null() {
            problems.push(Invalid::required("data", "data is mandatory"));
        }
        problems.extend(numbers::non_negative(&object["revision"], &Path::new("revision")));
        problems
    }

    /// Its number may change, which is how a rollback works; its data may not.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        let mut problems = self.validate_create(new);
        if new["data"] != old["data"] {
            problems.push(Invalid::malformed(
                "data",
                new["data"].clone(),
                "field is immutable",
            ));
        }
        problems
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            parts::name(object),
            controller(object).into(),
            object["revision"].as_i64().unwrap_or_default().into(),
            parts::age(object, now),
        ]
    }
}

/// `statefulset.apps/web`, or `<none>`.
fn controller(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner["controller"] == true) else {
        return "<none>".to_owned();
    };
    let kind = text(owner, "kind").to_lowercase();
    let name = text(owner, "name");
    match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_data_is_mandatory_and_stays_while_the_number_moves() {
        let kind = ControllerRevision;
        let revision = json!({"revision": 1, "data": {"a": 1}});
        assert_eq!(kind.validate_create(&revision), []);
        assert_eq!(kind.validate_create(&json!({"revision": -1})).len(), 2);
        assert_eq!(
            kind.validate_update(&json!({"revision": 2, "data": {"a": 1}}), &revision),
            []
        );
        assert_eq!(
            kind.validate_update(&json!({"revision": 1, "data": {"a": 2}}), &revision)[0].to_string(),
            r#"data: Invalid value: {"a":2}: field is immutable"#
        );
    }

    #[test]
    fn the_controller_is_told_with_its_group() {
        let owned = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p"},
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}});
        assert_eq!(controller(&owned), "statefulset.apps/web");
        assert_eq!(controller(&json!({})), "<none>");
    }
}
