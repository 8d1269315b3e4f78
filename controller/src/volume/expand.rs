//! A bound claim that asks for more than it has (P14), as a user of a CSI driver sees it that grows the disk
//! and then the file system on it: the volume's capacity, the claim's, and the events of both.

use super::action::Action;
use super::claim::{Observed, same_object};
use super::matching::{capacity, requested};
use super::provision::directory;
use crate::quantity::nanos;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

/// The condition of a claim that is growing.
const RESIZING: &str = "Resizing";

/// The conditions that end with the growth.
const PASSING: [&str; 2] = [RESIZING, "FileSystemResizePending"];

/// The steps that make the claim as large as it asks to be; each may be the last one of this process.
pub fn plan(claim: &PersistentVolumeClaim, volume: &PersistentVolume, observed: &Observed) -> Vec<Action> {
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    let has = has.and_then(|capacity| nanos(capacity.get("storage")?));
    let requests = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let Some((wanted, has)) = requests.and_then(|r| r.get("storage")).zip(has) else {
        return Vec::new();
    };
    let allowed = observed
        .class
        .is_some_and(|class| class.allow_volume_expansion == Some(true));
    if requested(claim) <= has || !allowed {
        return Vec::new();
    }
    let begin = Action::normal(
        "ExternalExpanding",
        "waiting for an external controller to expand this PVC",
    );
    let name = volume.name_any();
    let Some(directory) = directory(volume, observed.volumes_dir) else {
        return vec![begin];
    };
    let mut actions = Vec::new();
    if !conditions(claim).any(|condition| condition.type_ == RESIZING) {
        actions.push(begin);
        let status = json!({"status": {
            "conditions": with_resizing(claim, observed),
            "allocatedResources": {"storage": wanted},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
        }});
        actions.push(Action::PatchClaimStatus(same_object(claim, status)));
        let text = format!("External resizer is resizing volume {name}");
        actions.push(Action::normal("Resizing", text));
    }
    if capacity(volume) < requested(claim) {
        actions.push(Action::Expand {
            name: name.clone(),
            directory,
            patch: json!({
                "metadata": {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version},
                "spec": {"capacity": {"storage": wanted}},
            }),
        });
    }
    actions.push(Action::normal(
        "FileSystemResizeRequired",
        "Require file system resize of volume on node",
    ));
    let lasting: Vec<_> = lasting(claim).collect();
    let status = json!({"status": {
        "capacity": {"storage": wanted},
        "conditions": if lasting.is_empty() { Value::Null } else { json!(lasting) },
        "allocatedResources": {"storage": wanted},
        "allocatedResourceStatuses": null,
    }});
    actions.push(Action::PatchClaimStatus(same_object(claim, status)));
    let text = format!("MountVolume.NodeExpandVolume succeeded for volume \"{name}\"");
    actions.push(Action::normal("FileSystemResizeSuccessful", text));
    actions
}

fn with_resizing(claim: &PersistentVolumeClaim, observed: &Observed) -> Vec<PersistentVolumeClaimCondition> {
    let resizing = PersistentVolumeClaimCondition {
        type_: RESIZING.into(),
        status: "True".into(),
        last_transition_time: Some(Time(observed.now)),
        ..PersistentVolumeClaimCondition::default()
    };
    lasting(claim).cloned().chain([resizing]).collect()
}

/// The conditions that others have set.
fn lasting(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &PersistentVolumeClaimCondition> {
    conditions(claim).filter(|condition| !PASSING.contains(&condition.type_.as_str()))
}

fn conditions(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &PersistentVolumeClaimCondition> {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
}
