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
                    "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched: only \
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{claim, volume};

    const DIR: &str = "/data/volumes";

    #[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
    fn taken(change: Value, phase: &str) -> PersistentVolume {
        let mut spec = json!({
            "claimRef": {"namespace": "default", "name": "c", "uid": "c-uid"},
            "hostPath": {"path": "/data/volumes/default_c_c-uid"},
        });
        spec.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let mut volume = volume("v", spec);
        volume.status.as_mut().unwrap().phase = Some(phase.into());
        volume
    }

    fn steps(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Vec<String> {
        let short = |action| match action {
            Action::PatchVolume { patch, .. } => format!("patch {}", patch["spec"]),
            Action::PatchVolumeStatus { patch, .. } => patch["status"]["phase"].as_str().unwrap().into(),
            Action::Reclaim { directory } => format!("remove {}", directory.display()),
            Action::LookAtClaim { namespace, name } => format!("look at {namespace}/{name}"),
            Action::Tell { reason, .. } => reason.into(),
            other => unreachable!("not for volumes: {other:?}"),
        };
        plan(volume, claim, Path::new(DIR))
            .into_iter()
            .map(short)
            .collect()
    }

    #[test]
    fn a_volume_follows_its_claim() {
        let mut fresh = volume("v", json!({}));
        fresh.status = None;
        assert_eq!(steps(&fresh, None), ["Available"]);
        let reserved = json!({"claimRef": {"namespace": "default", "name": "c", "uid": null}});
        assert_eq!(steps(&taken(reserved.clone(), "Pending"), None), ["Available"]);
        let unbound = claim("c", json!({}));
        assert_eq!(
            steps(&taken(reserved, "Available"), Some(&unbound)),
            ["look at default/c"]
        );
        assert_eq!(
            steps(&taken(json!({}), "Available"), Some(&unbound)),
            ["look at default/c"]
        );
        let bound = claim("c", json!({"volumeName": "v"}));
        assert_eq!(steps(&taken(json!({}), "Pending"), Some(&bound)), ["Bound"]);
        assert_eq!(steps(&taken(json!({}), "Bound"), Some(&bound)), [""; 0]);
    }

    #[test]
    fn the_reclaim_policy_decides_when_the_claim_is_gone() {
        let delete = json!({"persistentVolumeReclaimPolicy": "Delete"});
        let remove = "remove /data/volumes/default_c_c-uid";
        assert_eq!(steps(&taken(json!({}), "Bound"), None), ["Released"]);
        assert_eq!(steps(&taken(json!({}), "Released"), None), [""; 0]);
        assert_eq!(steps(&taken(delete.clone(), "Bound"), None), ["Released", remove]);
        assert_eq!(steps(&taken(delete.clone(), "Failed"), None), [remove]);
        // One of the same name is another claim.
        let mut later = claim("c", json!({}));
        later.metadata.uid = Some("later".into());
        assert_eq!(steps(&taken(delete, "Bound"), Some(&later)), ["Released", remove]);
        let recycle = json!({"persistentVolumeReclaimPolicy": "Recycle"});
        assert_eq!(
            steps(&taken(recycle, "Released"), None),
            ["Failed", "VolumeFailedRecycle"]
        );
    }

    #[test]
    fn what_is_not_ours_is_never_removed() {
        let delete = json!({"persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": "/home/me"}});
        assert_eq!(
            steps(&taken(delete.clone(), "Bound"), None),
            ["Released", "Failed", "VolumeFailedDelete"]
        );
        assert_eq!(steps(&taken(delete, "Failed"), None), [""; 0]);
    }

    #[test]
    fn a_volume_whose_claim_took_another_is_free_again() {
        let elsewhere = claim("c", json!({"volumeName": "other"}));
        let ours = taken(json!({}), "Bound");
        assert_eq!(
            steps(&ours, Some(&elsewhere)),
            ["patch {\"claimRef\":{\"resourceVersion\":null,\"uid\":null}}"]
        );
        let mut chosen = ours;
        chosen
            .annotations_mut()
            .insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        assert_eq!(steps(&chosen, Some(&elsewhere)), ["patch {\"claimRef\":null}"]);
    }
}
