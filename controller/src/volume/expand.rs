//! A bound claim that asks for more than it has: a directory has no size, so it just grows (P14).

use super::action::Action;
use super::claim::same_object;
use super::matching::{capacity, requested};
use super::provision::directory;
use crate::quantity::nanos;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde_json::json;
use std::path::Path;

/// The steps that make the claim as large as it asks to be.
pub fn plan(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    class: Option<&StorageClass>,
    volumes_dir: &Path,
) -> Vec<Action> {
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    let has = has.and_then(|capacity| nanos(capacity.get("storage")?));
    let requests = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let Some((wanted, has)) = requests.and_then(|r| r.get("storage")).zip(has) else {
        return Vec::new();
    };
    let allowed = class.is_some_and(|class| class.allow_volume_expansion == Some(true));
    if requested(claim) <= has || !allowed {
        return Vec::new();
    }
    if directory(volume, volumes_dir).is_none() {
        let text = "waiting for an external controller to expand this PVC";
        return vec![Action::normal("ExternalExpanding", text)];
    }
    let mut actions = Vec::new();
    if capacity(volume) < requested(claim) {
        actions.push(Action::PatchVolume {
            name: volume.name_any(),
            patch: json!({
                "metadata": {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version},
                "spec": {"capacity": {"storage": wanted}},
            }),
        });
    }
    let status = json!({"status": {
        "capacity": {"storage": wanted},
        "allocatedResources": {"storage": wanted},
        "allocatedResourceStatuses": null,
    }});
    actions.push(Action::PatchClaimStatus(same_object(claim, status)));
    let text = format!("ExpandVolume succeeded for volume {}", volume.name_any());
    actions.push(Action::normal("VolumeResizeSuccessful", text));
    actions
}
