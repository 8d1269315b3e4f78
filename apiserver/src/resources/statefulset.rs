//! StatefulSet: pods with a stable name, address and volume each, one after the other.

mod update;
mod validate;

use super::claim_spec;
use super::json::{default, default_text, integer, items, items_mut, set, text};
use super::parts;
use super::pod::{defaults, warnings};
use crate::resource::{Column, Kind, Names, Subresource};
use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path, dns1123_label};
use serde_json::{Value, json};

static NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    schema: "io.k8s.api.apps.v1.StatefulSet",
    storage_group: "apps",
};

static COLUMNS: [Column; 5] = [
    parts::NAME,
    parts::column("Ready", "Number of the pod with ready state"),
    parts::AGE,
    parts::wide("Containers", "Names of each container in the template."),
    parts::wide("Images", "Images referenced by each container in the template."),
];

/// See [the module](self).
pub struct StatefulSet;

impl Kind for StatefulSet {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[Subresource::Scale, Subresource::Status]
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            spec_defaults(spec);
        }
        default(object, "status", json!({}));
        let status = &mut object["status"];
        default(status, "replicas", 0);
        default(status, "availableReplicas", 0);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut problems: Vec<Invalid> = validate::name(text(&object["metadata"], "name"))
            .into_iter()
            .collect();
        let skip = validate::Skip::default();
        problems.extend(validate::spec(&object["spec"], skip, &Path::new("spec")));
        problems
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        update::validate(new, old)
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        validate::status(&new["status"], &old["status"])
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns1123_label(name)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let template = &spec["template"];
        let mut warnings = warnings::pod(&template["spec"], &template["metadata"], &path.child("template"));
        for (i, claim) in items(spec, "volumeClaimTemplates").iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(i);
            warnings.extend(warnings::claim_spec(&claim["spec"], &path));
        }
        if integer(spec, "revisionHistoryLimit") < 0 {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let containers = items(&object["spec"]["template"]["spec"], "containers");
        let list = |field: &str| {
            let values: Vec<&str> = containers.iter().map(|c| text(c, field)).collect();
            values.join(",")
        };
        let ready = integer(&object["status"], "readyReplicas");
        vec![
            parts::name(object),
            format!("{ready}/{}", integer(&object["spec"], "replicas")).into(),
            parts::age(object, now),
            list("name").into(),
            list("image").into(),
        ]
    }
}

/// Upstream's defaults, except one: `maxUnavailable` is kept when it is given and never filled in, so that
/// an object that does not name it reads as it does where upstream's gate is off.
fn spec_defaults(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default_text(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    if text(strategy, "type").is_empty() {
        set(strategy, "type", "RollingUpdate");
        default(strategy, "rollingUpdate", json!({}));
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling_update) = strategy.get_mut("rollingUpdate")
    {
        default(rolling_update, "partition", 0);
    }
    default(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    for field in ["whenDeleted", "whenScaled"] {
        default_text(&mut spec["persistentVolumeClaimRetentionPolicy"], field, "Retain");
    }
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    if let Some(template) = spec.pointer_mut("/template/spec") {
        defaults::pod_spec(template);
    }
    for claim in items_mut(spec, "volumeClaimTemplates") {
        claim_template(claim);
    }
}

/// A claim template is a whole claim, with the status that every new claim has.
fn claim_template(claim: &mut Value) {
    set(claim, "apiVersion", "v1");
    set(claim, "kind", "PersistentVolumeClaim");
    if let Some(spec) = claim.get_mut("spec") {
        claim_spec::set_defaults(spec);
        let storage = spec.pointer_mut("/resources/requests/storage");
        if let Some(storage) = storage
            && let Ok(quantity) = Quantity::from_json(storage)
        {
            *storage = quantity.to_string().into();
        }
    }
    default(claim, "status", json!({}));
    default_text(&mut claim["status"], "phase", "Pending");
}

#[cfg(test)]
mod tests;
