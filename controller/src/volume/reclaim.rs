//! What to do about one volume: its phase, and what becomes of it when its claim is gone (P11, P12).

use super::action::{Action, BOUND_BY_CONTROLLER, PROVISIONED_BY};
use super::matching::phase;
use super::provision::directory;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::path::Path;

/// The next steps for a volume. `claim` is what now has the name in its claimRef.
pub fn plan(
    volume: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
    volumes_dir: &Path,
) -> Vec<Action> {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return set_phase(volume, "Available", "").into_iter().collect();
    };
    let look_at_claim = || Action::LookAtClaim {
        namespace: reference.namespace.clone().unwrap_or_default(),
        name: reference.name.clone().unwrap_or_default(),
    };
    let uid = reference.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        // Reserved by its maker for a claim that may not exist yet.
        let mut actions: Vec<_> = set_phase(volume, "Available", "").into_iter().collect();
        actions.extend(claim.map(|_| look_at_claim()));
        return actions;
    }
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else {
        return release(volume, volumes_dir);
    };
    let chosen = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    match chosen.unwrap_or_default() {
        "" => vec![look_at_claim()],
        name if name == volume.name_any() => set_phase(volume, "Bound", "").into_iter().collect(),
        _ => part(volume, volumes_dir),
    }
}

/// The claim has bound to another volume.
fn part(volume: &PersistentVolume, volumes_dir: &Path) -> Vec<Action> {
    let provisioned = volume.annotations().contains_key(PROVISIONED_BY);
    if provisioned && policy(volume) == "Delete" {
        return release(volume, volumes_dir);
    }
    let mut patch = if volume.annotations().contains_key(BOUND_BY_CONTROLLER) {
        json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
    } else {
        json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}})
    };
    patch["metadata"]["uid"] = json!(volume.metadata.uid);
    patch["metadata"]["resourceVersion"] = json!(volume.metadata.resource_version);
    vec![Action::PatchVolume {
        name: volume.name_any(),
        patch,
    }]
}

/// The claim is gone: keep or remove, as the reclaim policy says.
fn release(volume: &PersistentVolume, volumes_dir: &Path) -> Vec<Action> {
    let mut actions = Vec::new();
    if !matches!(phase(volume), "Released" | "Failed") {
        actions.extend(set_phase(volume, "Released", ""));
    }
    match policy(volume) {
        "Delete" => match directory(volume, volumes_dir) {
            Some(directory) => actions.push(Action::Reclaim { directory }),
            None => actions.extend(fail(
                volume,
                "VolumeFailedDelete",
                &format!(
                    "error getting deleter volume plugin for volume \"{}\": no volume plugin matched: only \
                     directories in {} are removed, delete the volume's data and the object yourself",
                    volume.name_any(),
                    volumes_dir.display()
                ),
            )),
        },
        "Recycle" => actions.extend(fail(
            volume,
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!",
        )),
        _ => {}
    }
    actions
}

/// Phase Failed with an event, told once.
pub fn fail(volume: &PersistentVolume, reason: &'static str, message: &str) -> Vec<Action> {
    let failed = set_phase(volume, "Failed", message);
    let told = failed.is_some().then(|| Action::warning(reason, message));
    failed.into_iter().chain(told).collect()
}

fn set_phase(volume: &PersistentVolume, to: &str, message: &str) -> Option<Action> {
    let message = (!message.is_empty()).then_some(message);
    let status: Value = json!({"phase": to, "message": message, "reason": null});
    (phase(volume) != to).then(|| Action::PatchVolumeStatus {
        name: volume.name_any(),
        patch: json!({"metadata": {"uid": volume.metadata.uid}, "status": status}),
    })
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}
