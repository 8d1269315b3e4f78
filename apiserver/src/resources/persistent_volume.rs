//! PersistentVolume: a piece of storage, and the claim that has it.

mod source;

use super::changes::{diff, immutable};
use super::{parts, quantities};
use crate::resource::{Column, Kind, Names, Subresource};
use crate::validation::Invalid;
use crate::validation::names::dns1123_subdomain;
use serde_json::{Value, json};

/// Keeps a volume that is deleted until its claim has gone.
const FINALIZER: &str = "kubernetes.io/pv-protection";

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    namespaced: false,
    schema: "io.k8s.api.core.v1.PersistentVolume",
    storage_group: "",
};

static COLUMNS: [Column; 11] = [
    parts::NAME,
    parts::column("Capacity", "schema:spec.capacity"),
    parts::column("Access Modes", "schema:spec.accessModes"),
    parts::column("Reclaim Policy", "schema:spec.persistentVolumeReclaimPolicy"),
    parts::column("Status", "schema:status.phase"),
    parts::column("Claim", "schema:spec.claimRef"),
    parts::column("StorageClass", "StorageClass of the pv"),
    parts::column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    parts::column("Reason", "schema:status.reason"),
    parts::AGE,
    parts::wide("VolumeMode", "schema:spec.volumeMode"),
];

/// See [the module](self).
pub struct PersistentVolume;

impl Kind for PersistentVolume {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Status]
    }

    fn set_defaults(&self, object: &mut Value) {
        let defaults = [
            ("spec", "persistentVolumeReclaimPolicy", "Retain"),
            ("spec", "volumeMode", "Filesystem"),
            ("status", "phase", "Pending"),
        ];
        for (part, field, default) in defaults {
            let value = &mut object[part][field];
            if value.as_str().unwrap_or_default().is_empty() {
                *value = default.into();
            }
        }
        source::set_defaults(&mut object["spec"]);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({
            "phase": "Pending",
            "lastPhaseTransitionTime": object["metadata"]["creationTimestamp"],
        });
        parts::add_finalizer(object, FINALIZER);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, now: jiff::Timestamp) {
        const TIME: &str = "lastPhaseTransitionTime";
        let (new, old) = (&mut new["status"], &old["status"]);
        if new["phase"] != old["phase"] && (new[TIME].is_null() || new[TIME] == old[TIME]) {
            new[TIME] = format!("{now:.0}").into();
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        spec(&object["spec"])
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        // Upstream checks the volume twice, and says so twice.
        let mut invalid = self.validate_create(new);
        invalid.extend(invalid.clone());
        invalid.extend(changes(&new["spec"], &old["spec"]));
        invalid
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<Invalid> {
        match new["metadata"]["resourceVersion"].as_str().unwrap_or_default() {
            "" => vec![Invalid::required("resourceVersion", "")],
            _ => Vec::new(),
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let annotations = &object["metadata"]["annotations"];
        let mut warnings = Vec::new();
        for (annotation, since, field) in [
            (CLASS_ANNOTATION, "v1.8", "storageClassName"),
            (MOUNT_OPTIONS_ANNOTATION, "v1.31", "mountOptions"),
        ] {
            if annotations.get(annotation).is_some() {
                warnings.push(format!(
                    "metadata.annotations[{annotation}]: deprecated since {since}; use \"{field}\" attribute instead"
                ));
            }
        }
        if object["spec"]["persistentVolumeReclaimPolicy"] == "Recycle" {
            warnings.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        warnings
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        // Upstream's slip, kept there and here for compatibility.
        vec![(
            "name",
            object["metadata"]["name"].as_str().unwrap_or_default().into(),
        )]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let claim = &spec["claimRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let claim = match claim {
            Value::Null => String::new(),
            claim => format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])),
        };
        vec![
            parts::name(object),
            quantities::storage(&spec["capacity"]),
            parts::access_modes(&spec["accessModes"]),
            parts::text(&spec["persistentVolumeReclaimPolicy"]),
            parts::phase_or_terminating(object),
            claim.into(),
            parts::storage_class(object),
            parts::text_or(&spec["volumeAttributesClassName"], "<unset>"),
            parts::text(&object["status"]["reason"]),
            parts::age(object, now),
            parts::text_or(&spec["volumeMode"], "<unset>"),
        ]
    }
}

fn spec(spec: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let modes: Vec<&str> = parts::texts(&spec["accessModes"]).collect();
    let field = "spec.accessModes";
    if modes.is_empty() {
        invalid.push(Invalid::required(field, ""));
    }
    let known = [
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    for mode in modes.iter().filter(|mode| !known.contains(mode)) {
        invalid.push(Invalid::not_supported(field, *mode, &known));
    }
    if modes.contains(&"ReadWriteOncePod")
        && modes
            .iter()
            .any(|m| *m != "ReadWriteOncePod" && known.contains(m))
    {
        let detail = "may not use ReadWriteOncePod with other access modes";
        invalid.push(Invalid::forbidden(field, detail));
    }
    invalid.extend(capacity(&spec["capacity"]));
    invalid.extend(one_of(
        spec,
        "persistentVolumeReclaimPolicy",
        &["Delete", "Recycle", "Retain"],
    ));
    invalid.extend(source::node_affinity(&spec["nodeAffinity"]));
    invalid.extend(source::check(spec));
    let class = parts::text(&spec["storageClassName"]);
    if let Some(class) = class.as_str().filter(|class| !class.is_empty()) {
        invalid.extend(Invalid::each(
            "spec.storageClassName",
            class,
            dns1123_subdomain(class),
        ));
    }
    invalid.extend(one_of(spec, "volumeMode", &["Block", "Filesystem"]));
    if let Some(class) = spec["volumeAttributesClassName"].as_str() {
        let field = "spec.volumeAttributesClassName";
        if class.is_empty() {
            invalid.push(Invalid::required(field, "an empty string is disallowed"));
        } else {
            invalid.extend(Invalid::each(field, class, dns1123_subdomain(class)));
        }
        if spec["csi"].is_null() {
            let detail = "has to be specified when using volumeAttributesClassName";
            invalid.push(Invalid::required("spec.csi", detail));
        }
    }
    invalid
}

fn one_of(spec: &Value, field: &str, choices: &[&str]) -> Option<Invalid> {
    let value = &spec[field];
    let known = choices.iter().any(|choice| value == choice);
    (!known).then(|| Invalid::not_supported(format!("spec.{field}"), value.clone(), choices))
}

fn capacity(capacity: &Value) -> Vec<Invalid> {
    let field = "spec.capacity";
    let mut invalid = Vec::new();
    if parts::size(capacity) == 0 {
        invalid.push(Invalid::required(field, ""));
    }
    if capacity.get("storage").is_none() || parts::size(capacity) > 1 {
        invalid.push(Invalid::not_supported(field, capacity.clone(), &["storage"]));
    }
    for (name, quantity) in quantities::entries(capacity) {
        let field = format!("{field}[{name}]");
        invalid.extend(quantities::basic(&field, &quantity));
        invalid.extend(quantities::positive(&field, &quantity));
    }
    invalid
}

fn changes(new: &Value, old: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let mut compared = new.clone();
    // This one reference of a CSI volume may be filled in later.
    let secret = "/csi/controllerExpandSecretRef";
    if old.pointer(secret).is_none()
        && let Some(csi) = compared.pointer_mut("/csi").and_then(Value::as_object_mut)
        && !old["csi"].is_null()
    {
        csi.remove("controllerExpandSecretRef");
    }
    if source::names().any(|name| compared[name] != old[name]) {
        let detail = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            diff(&source::SOURCES, old, &compared)
        );
        invalid.push(Invalid::forbidden("spec.persistentvolumesource", detail));
    }
    invalid.extend(immutable("volumeMode", &new["volumeMode"], &old["volumeMode"]));
    let affinity = "nodeAffinity";
    if !old[affinity].is_null() && !source::same_but_for_beta_labels(&new[affinity], &old[affinity]) {
        let detail = "field is immutable, except for updating from beta label to GA";
        invalid.push(Invalid::malformed(affinity, new[affinity].clone(), detail));
    }
    let class = "volumeAttributesClassName";
    if !old[class].is_null() && new[class].is_null() {
        let detail = "update from non-nil value to nil is forbidden";
        invalid.push(Invalid::forbidden(format!("spec.{class}"), detail));
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Value {
        let mut object = json!({"metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}}});
        PersistentVolume.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_new_volume_is_retained_pending_and_protected() {
        let mut object = volume();
        object["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z".into();
        PersistentVolume.prepare_create(&mut object);
        assert_eq!(object["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(object["spec"]["hostPath"], json!({"path": "/tmp/x", "type": ""}));
        assert_eq!(
            object["status"]["lastPhaseTransitionTime"],
            "2024-01-01T00:00:00Z"
        );
        assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(PersistentVolume.validate_create(&object), []);
    }

    #[test]
    fn a_change_of_phase_is_timed() {
        let now = "2024-01-02T00:00:00.5Z".parse().unwrap();
        let old = json!({"status": {"phase": "Pending", "lastPhaseTransitionTime": "2024-01-01T00:00:00Z"}});
        let mut new = old.clone();
        PersistentVolume.prepare_status(&mut new, &old, now);
        assert_eq!(new, old);
        new["status"]["phase"] = "Available".into();
        PersistentVolume.prepare_status(&mut new, &old, now);
        assert_eq!(new["status"]["lastPhaseTransitionTime"], "2024-01-02T00:00:00Z");
    }

    #[test]
    fn capacity_is_storage_alone_and_positive() {
        let fields = |capacity: Value| -> Vec<String> {
            let mut object = volume();
            object["spec"]["capacity"] = capacity;
            PersistentVolume
                .validate_create(&object)
                .into_iter()
                .map(|i| i.field)
                .collect()
        };
        assert_eq!(fields(Value::Null), ["spec.capacity", "spec.capacity"]);
        assert_eq!(fields(json!({"storage": "1Gi", "cpu": "1"})), ["spec.capacity"]);
        assert_eq!(fields(json!({"storage": "0"})), ["spec.capacity[storage]"]);
    }

    #[test]
    fn where_the_data_lies_stays() {
        let old = volume();
        let mut new = old.clone();
        new["spec"]["hostPath"]["path"] = "/other".into();
        let refused = PersistentVolume.validate_update(&new, &old);
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0]
                .message()
                .contains("-  \"Path\": \"/tmp/x\",\n+  \"Path\": \"/other\",\n")
        );
        let mut kept = old.clone();
        kept["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
        kept["spec"]["capacity"]["storage"] = "2Gi".into();
        assert_eq!(PersistentVolume.validate_update(&kept, &old), []);
    }

    #[test]
    fn the_table_names_the_claim() {
        let mut object = volume();
        object["spec"]["claimRef"] = json!({"namespace": "a", "name": "b"});
        let cells = PersistentVolume.cells(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1..6], ["1Gi", "RWO", "Retain", "Pending", "a/b"]);
    }
}
