//! Pod: containers that run together on a node. Its spec's defaults and rules are shared with pod templates.

pub mod admission;
pub mod defaults;
mod image;
pub mod qos;
mod status;
pub mod table;
mod update;
pub mod validate;
pub mod warnings;

use super::json::{default, flag, integer, items, set, text};
use crate::resource::{Column, Kind, Names, Subresource};
use crate::validation::{Invalid, Path};
use serde_json::{Value, json};

static NAMES: Names = Names {
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
};

/// See [the module](self).
pub struct Pod;

impl Kind for Pod {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn subresources(&self) -> &'static [Subresource] {
        &[
            Subresource::Attach,
            Subresource::Binding,
            Subresource::EphemeralContainers,
            Subresource::Eviction,
            Subresource::Exec,
            Subresource::Log,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::Resize,
            Subresource::Status,
        ]
    }

    fn has_generation(&self) -> bool {
        true
    }

    /// A pod without a node, or one that has ended, goes at once; any other waits for its processes.
    fn grace_period(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        let spec = &object["spec"];
        let ended = matches!(text(&object["status"], "phase"), "Failed" | "Succeeded");
        if text(spec, "nodeName").is_empty() || ended {
            return Some(0);
        }
        let seconds = asked.unwrap_or_else(|| integer(spec, "terminationGracePeriodSeconds"));
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            defaults::pod_spec(spec);
            if spec.is_object() {
                defaults::pod_only(spec);
            }
        }
        if object["status"].is_object() {
            let class = qos::class(&object["spec"]);
            let status = &mut object["status"];
            default(status, "qosClass", class);
            addresses(status);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        admission::create(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        admission::update(new, old);
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut problems = update::whole(object);
        let spec = &object["spec"];
        let path = Path::new("spec");
        if !items(spec, "ephemeralContainers").is_empty() {
            problems.push(Invalid::forbidden(
                path.child("ephemeralContainers"),
                "cannot be set on create",
            ));
        }
        if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            problems.push(Invalid::forbidden(path.child("nodeName"), detail));
        }
        problems
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        update::validate(new, old)
    }

    fn validate_ephemeral_containers(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        update::ephemeral_containers(new, old)
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        status::validate(new, old)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::pod(&object["spec"], &object["metadata"], &Path::default())
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let address = items(status, "podIPs")
            .first()
            .map_or("", |first| text(first, "ip"));
        let fields = [
            ("spec.nodeName", text(spec, "nodeName")),
            ("spec.restartPolicy", text(spec, "restartPolicy")),
            ("spec.schedulerName", text(spec, "schedulerName")),
            ("spec.serviceAccountName", text(spec, "serviceAccountName")),
            (
                "spec.hostNetwork",
                if flag(spec, "hostNetwork") {
                    "true"
                } else {
                    "false"
                },
            ),
            ("status.phase", text(status, "phase")),
            ("status.podIP", address),
            // A list has no text to compare with; upstream accepts the selector and matches only emptiness.
            ("status.podIPs", ""),
            ("status.nominatedNodeName", text(status, "nominatedNodeName")),
        ];
        fields.map(|(field, value)| (field, value.to_owned())).to_vec()
    }

    fn columns(&self) -> &'static [Column] {
        &table::COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        table::cells(object, now)
    }

    fn row_conditions(&self, object: &Value) -> Option<Value> {
        table::row_conditions(object)
    }
}

/// `podIP` is the first of `podIPs`, whichever of the two was written.
fn addresses(status: &mut Value) {
    let single = text(status, "podIP").to_owned();
    let first = items(status, "podIPs")
        .first()
        .map(|first| text(first, "ip").to_owned());
    match first {
        Some(first) if single.is_empty() => set(status, "podIP", first),
        first if !single.is_empty() && first.as_deref() != Some(&single) => {
            set(status, "podIPs", json!([{ "ip": single }]));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
