//! StorageClass: how volumes of a kind are made.

use super::changes::immutable;
use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, names};
use serde_json::Value;

/// The annotations that make a class the default one, the newer first.
pub const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The most bytes that all parameters may have together, and how many there may be.
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
const MAX_PARAMETERS: usize = 512;

static NAMES: Names = Names {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    categories: &[],
    namespaced: false,
    schema: "io.k8s.api.storage.v1.StorageClass",
    storage_group: "storage.k8s.io",
};

static COLUMNS: [Column; 6] = [
    parts::NAME,
    parts::column("Provisioner", "schema:provisioner"),
    parts::column("ReclaimPolicy", "schema:reclaimPolicy"),
    parts::column("VolumeBindingMode", "schema:volumeBindingMode"),
    parts::column("AllowVolumeExpansion", "schema:allowVolumeExpansion"),
    parts::AGE,
];

/// See [the module](self).
pub struct StorageClass;

impl Kind for StorageClass {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn set_defaults(&self, object: &mut Value) {
        for (field, default) in [("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")] {
            if object[field].is_null() {
                object[field] = default.into();
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut invalid = provisioner(object["provisioner"].as_str().unwrap_or_default());
        invalid.extend(parameters(&object["parameters"]));
        let choice = |field: &str, choices: &[&str]| {
            let value = &object[field];
            let known = choices.iter().any(|c| value == c);
            (!known).then(|| Invalid::not_supported(field, value.clone(), choices))
        };
        invalid.extend(choice("reclaimPolicy", &["Delete", "Retain"]));
        invalid.extend(choice(
            "volumeBindingMode",
            &["Immediate", "WaitForFirstConsumer"],
        ));
        invalid.extend(allowed_topologies(&object["allowedTopologies"]));
        invalid
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"]
            .iter()
            .flat_map(|field| immutable(field, &new[*field], &old[*field]))
            .chain(allowed_topologies(&new["allowedTopologies"]))
            .collect()
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if is_default(object) {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            parts::text(&object["provisioner"]),
            parts::text_or(&object["reclaimPolicy"], "Delete"),
            parts::text_or(&object["volumeBindingMode"], "Immediate"),
            (object["allowVolumeExpansion"] == true).into(),
            parts::age(object, now),
        ]
    }
}

/// Whether claims that name no class get this one.
pub fn is_default(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    DEFAULT_ANNOTATIONS.iter().any(|a| annotations[*a] == "true")
}

fn provisioner(name: &str) -> Vec<Invalid> {
    if name.is_empty() {
        return vec![Invalid::required("provisioner", "")];
    }
    Invalid::each("provisioner", name, names::qualified_name(&name.to_lowercase()))
}

fn parameters(map: &Value) -> Vec<Invalid> {
    if parts::size(map) > MAX_PARAMETERS {
        return vec![Invalid::too_long("parameters", MAX_PARAMETERS)];
    }
    let mut invalid = Vec::new();
    let mut bytes = 0;
    for (key, value) in super::config_map::entries(map) {
        if key.is_empty() {
            invalid.push(Invalid::malformed("parameters", key, "field can not be empty."));
        }
        bytes += key.len() + value.len();
    }
    if bytes > MAX_PARAMETER_BYTES {
        invalid.push(Invalid::too_long("parameters", MAX_PARAMETER_BYTES));
    }
    invalid
}

fn allowed_topologies(terms: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    for (i, term) in parts::items(terms).enumerate() {
        let expressions = &term["matchLabelExpressions"];
        for (j, expression) in parts::items(expressions).enumerate() {
            let field = format!("allowedTopologies[{i}].matchLabelExpressions[{j}]");
            if parts::items(&expression["values"]).next().is_none() {
                invalid.push(Invalid::required(format!("{field}.values"), ""));
            }
            let mut seen = Vec::new();
            for (k, value) in parts::texts(&expression["values"]).enumerate() {
                if seen.contains(&value) {
                    invalid.push(Invalid::duplicate(format!("{field}.values[{k}]"), value));
                }
                seen.push(value);
            }
            let key = expression["key"].as_str().unwrap_or_default();
            invalid.extend(Invalid::each(
                format!("{field}.key"),
                key,
                names::qualified_name(key),
            ));
        }
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_deletes_and_binds_at_once_unless_it_says_otherwise() {
        let mut object = json!({"provisioner": "p", "reclaimPolicy": "Retain"});
        StorageClass.set_defaults(&mut object);
        assert_eq!(
            object,
            json!({"provisioner": "p", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate"})
        );
        assert_eq!(StorageClass.validate_create(&object), []);
    }

    #[test]
    fn only_expansion_topologies_and_mount_options_may_change() {
        let old = json!({"provisioner": "p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
        let mut new = old.clone();
        new["allowVolumeExpansion"] = true.into();
        new["mountOptions"] = json!(["ro"]);
        assert_eq!(StorageClass.validate_update(&new, &old), []);
        new["volumeBindingMode"] = "WaitForFirstConsumer".into();
        new["parameters"] = json!({"a": "b"});
        assert_eq!(
            StorageClass.validate_update(&new, &old),
            [
                Invalid::malformed("parameters", json!({"a": "b"}), "field is immutable"),
                Invalid::malformed("volumeBindingMode", "WaitForFirstConsumer", "field is immutable"),
            ]
        );
    }

    #[test]
    fn the_default_class_is_marked_in_the_table() {
        let object = json!({"metadata": {"name": "a", "annotations": {DEFAULT_ANNOTATIONS[0]: "true"}}});
        let cells = StorageClass.cells(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells[0], "a (default)");
        assert_eq!(cells[4], false);
    }
}
