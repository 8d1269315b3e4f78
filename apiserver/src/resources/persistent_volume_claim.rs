//! PersistentVolumeClaim: a wish for a volume, and what came of it.

use super::changes::{Field, Shape, diff, immutable};
use super::{claim_spec, parts, quantities};
use crate::resource::{Column, Kind, Names, Subresource};
use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path};
use serde_json::{Value, json};

/// Keeps a claim that is deleted until no pod uses it.
const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// The annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
    storage_group: "",
};

static COLUMNS: [Column; 9] = [
    parts::NAME,
    parts::column("Status", "schema:status.phase"),
    parts::column("Volume", "schema:spec.volumeName"),
    parts::column("Capacity", "schema:status.capacity"),
    parts::column("Access Modes", "schema:status.accessModes"),
    parts::column("StorageClass", "StorageClass of the pvc"),
    parts::column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    parts::AGE,
    parts::wide("VolumeMode", "schema:spec.volumeMode"),
];

/// The spec as upstream's internal type has it.
static SPEC: [Field; 9] = [
    ("AccessModes", "accessModes", Shape::Same),
    ("Selector", "selector", Shape::Same),
    (
        "Resources",
        "resources",
        Shape::Struct(&[
            ("Limits", "limits", Shape::Same),
            ("Requests", "requests", Shape::Same),
        ]),
    ),
    ("VolumeName", "volumeName", Shape::Text),
    ("StorageClassName", "storageClassName", Shape::Same),
    ("VolumeMode", "volumeMode", Shape::Same),
    (
        "DataSource",
        "dataSource",
        Shape::Pointer(&[
            ("APIGroup", "apiGroup", Shape::Same),
            ("Kind", "kind", Shape::Text),
            ("Name", "name", Shape::Text),
        ]),
    ),
    (
        "DataSourceRef",
        "dataSourceRef",
        Shape::Pointer(&[
            ("APIGroup", "apiGroup", Shape::Same),
            ("Kind", "kind", Shape::Text),
            ("Name", "name", Shape::Text),
            ("Namespace", "namespace", Shape::Same),
        ]),
    ),
    (
        "VolumeAttributesClassName",
        "volumeAttributesClassName",
        Shape::Same,
    ),
];

/// See [the module](self).
pub struct PersistentVolumeClaim;

impl Kind for PersistentVolumeClaim {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Status]
    }

    fn set_defaults(&self, object: &mut Value) {
        claim_spec::set_defaults(&mut object["spec"]);
        if object["status"]["phase"].as_str().unwrap_or_default().is_empty() {
            object["status"]["phase"] = "Pending".into();
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({ "phase": "Pending" });
        parts::add_finalizer(object, FINALIZER);
        align_data_sources(&mut object["spec"]);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        align_data_sources(&mut new["spec"]);
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        claim_spec::validate(&object["spec"], &Path::new("spec"))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        // Upstream checks the claim twice, and says so twice.
        let mut invalid = self.validate_create(new);
        invalid.extend(invalid.clone());
        invalid.extend(changes(new, old));
        invalid
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        if new["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        {
            invalid.push(Invalid::required("resourceVersion", ""));
        }
        for (name, quantity) in quantities::entries(&new["status"]["capacity"]) {
            invalid.extend(quantities::basic(&format!("status.capacity[{name}]"), &quantity));
        }
        for (name, quantity) in quantities::entries(&new["status"]["allocatedResources"]) {
            let field = format!("status.allocatedResources[{name}]");
            invalid.extend(quantities::basic(&field, &quantity));
        }
        invalid
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        if object["metadata"]["annotations"].get(CLASS_ANNOTATION).is_some() {
            warnings.push(format!(
                "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        let request = &object["spec"]["resources"]["requests"]["storage"];
        if let Ok(quantity) = Quantity::from_json(request)
            && !quantity.is_whole()
        {
            warnings.push(format!(
                "spec.resources.requests[storage]: fractional byte value \"{quantity}\" is invalid, must be an integer"
            ));
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let volume = parts::text(&spec["volumeName"]);
        let (capacity, modes) = if volume == "" {
            ("".into(), "".into())
        } else {
            let modes = parts::access_modes(&status["accessModes"]);
            (quantities::storage(&status["capacity"]), modes)
        };
        vec![
            parts::name(object),
            parts::phase_or_terminating(object),
            volume,
            capacity,
            modes,
            parts::storage_class(object),
            parts::text_or(&spec["volumeAttributesClassName"], "<unset>"),
            parts::age(object, now),
            parts::text_or(&spec["volumeMode"], "<unset>"),
        ]
    }
}

/// `dataSource` and `dataSourceRef` say the same, unless the latter points into another namespace.
fn align_data_sources(spec: &mut Value) {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    let foreign = reference["namespace"].as_str().is_some_and(|ns| !ns.is_empty());
    if !source.is_null() && reference.is_null() {
        spec["dataSourceRef"] = source.clone();
    } else if source.is_null() && !reference.is_null() && !foreign {
        let mut source = reference.clone();
        if let Some(source) = source.as_object_mut() {
            source.remove("namespace");
        }
        spec["dataSource"] = source;
    }
}

/// What an update changes that it may not: everything but the size and the attributes class of a bound claim,
/// the volume's name once, and a class where there was none.
fn changes(new: &Value, old: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let class_of = |object: &Value| object["metadata"]["annotations"][CLASS_ANNOTATION].clone();
    if class_of(new) != class_of(old) {
        let field = format!("metadata.annotations.{CLASS_ANNOTATION}");
        invalid.push(Invalid::malformed(
            field,
            parts::text(&class_of(new)),
            "field is immutable",
        ));
    }
    let bound = new["status"]["phase"] == "Bound";
    let (mut after, mut before) = (new["spec"].clone(), old["spec"].clone());
    let allow = |after: &mut Value, before: &Value, field: &str| match before.get(field) {
        Some(value) => after[field] = value.clone(),
        None => {
            after.as_object_mut().map(|after| after.remove(field));
        }
    };
    if parts::text(&before["volumeName"]) == "" {
        allow(&mut before, &after, "volumeName");
    }
    let annotated = class_of(old);
    if before["storageClassName"].is_null() && (annotated.is_null() || annotated == after["storageClassName"])
    {
        allow(&mut after, &before, "storageClassName");
    }
    if bound && !after["resources"]["requests"].is_null() {
        let size = before["resources"]["requests"]["storage"].clone();
        after["resources"]["requests"]["storage"] = size;
    }
    if bound && !after["volumeAttributesClassName"].is_null() {
        allow(&mut after, &before, "volumeAttributesClassName");
    }
    if after != before {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            diff(&SPEC, &before, &after)
        );
        invalid.push(Invalid::forbidden("spec", detail));
    }
    invalid.extend(shrinks(new, old));
    invalid.extend(immutable(
        "volumeMode",
        &new["spec"]["volumeMode"],
        &old["spec"]["volumeMode"],
    ));
    let class = "volumeAttributesClassName";
    if !old["spec"][class].is_null() && parts::text(&new["spec"][class]) == "" {
        let to = if new["spec"][class].is_null() {
            "nil"
        } else {
            "an empty string"
        };
        let detail = format!("update from non-nil value to {to} is forbidden");
        invalid.push(Invalid::forbidden(format!("spec.{class}"), detail));
    }
    invalid
}

/// A smaller wish takes back a growth that failed; it may not go below what the volume has.
fn shrinks(new: &Value, old: &Value) -> Option<Invalid> {
    let size = |map: &Value| Quantity::from_json(&map["storage"]).ok();
    let wish = |object: &Value| size(&object["spec"]["resources"]["requests"]);
    let (after, before) = (wish(new)?, wish(old)?);
    let has_at_least = match size(&old["status"]["capacity"]) {
        Some(capacity) => after <= capacity,
        None => after.sign() <= 0,
    };
    let detail = "field can not be less than status.capacity";
    (after < before && has_at_least).then(|| Invalid::forbidden("spec.resources.requests.storage", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(size: &str, phase: &str) -> Value {
        json!({
            "metadata": {"name": "d"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": size}},
            },
            "status": {"phase": phase, "capacity": {"storage": "1Gi"}},
        })
    }

    fn fields(new: &Value, old: &Value) -> Vec<String> {
        PersistentVolumeClaim
            .validate_update(new, old)
            .into_iter()
            .map(|i| i.field)
            .collect()
    }

    #[test]
    fn a_new_claim_is_pending_and_protected() {
        let mut object = claim("1Gi", "Bound");
        PersistentVolumeClaim.set_defaults(&mut object);
        PersistentVolumeClaim.prepare_create(&mut object);
        assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(object["status"], json!({"phase": "Pending"}));
    }

    #[test]
    fn only_a_bound_claim_may_grow() {
        assert_eq!(fields(&claim("2Gi", "Bound"), &claim("1Gi", "Bound")), [""; 0]);
        let refused =
            PersistentVolumeClaim.validate_update(&claim("2Gi", "Pending"), &claim("1Gi", "Pending"));
        assert_eq!(refused.len(), 1);
        assert!(refused[0].message().ends_with(
            "\n@@ -6,7 +6,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n-   \"storage\": \"1Gi\"\n+   \"storage\": \"2Gi\"\n   }\n  },\n  \"VolumeName\": \"\",\n"
        ));
    }

    #[test]
    fn a_wish_may_not_shrink_below_the_volume() {
        assert_eq!(fields(&claim("2Gi", "Bound"), &claim("3Gi", "Bound")), [""; 0]);
        let field = "spec.resources.requests.storage";
        assert_eq!(fields(&claim("1Gi", "Bound"), &claim("3Gi", "Bound")), [field]);
    }

    #[test]
    fn a_volume_and_a_class_may_be_filled_in_once() {
        let old = claim("1Gi", "Pending");
        let mut new = old.clone();
        new["spec"]["volumeName"] = "v".into();
        new["spec"]["storageClassName"] = "c".into();
        assert_eq!(fields(&new, &old), [""; 0]);
        assert_eq!(fields(&old, &new), ["spec"]);
    }

    #[test]
    fn capacity_shows_only_when_there_is_a_volume() {
        let mut object = claim("1Gi", "Pending");
        let cells = |object: &Value| PersistentVolumeClaim.cells(object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells(&object)[3..5], ["", ""]);
        object["spec"]["volumeName"] = "v".into();
        object["status"]["accessModes"] = json!(["ReadWriteOnce"]);
        object["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
        assert_eq!(cells(&object)[1..5], ["Terminating", "v", "1Gi", "RWO"]);
    }

    #[test]
    fn data_sources_say_the_same() {
        let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let mut spec = json!({ "dataSource": source });
        align_data_sources(&mut spec);
        assert_eq!(spec["dataSourceRef"], source);
        let mut spec = json!({"dataSourceRef": {"kind": "X", "name": "a", "namespace": "b"}});
        align_data_sources(&mut spec);
        assert_eq!(spec["dataSource"], Value::Null);
    }
}
