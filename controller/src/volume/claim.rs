//! What to do about one claim: find it a volume or have one made, keep the two bound, see its loss.

use super::action::{Action, BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, STORAGE_PROVISIONER};
use super::expand;
use super::matching::{self, Reservation, claim_class, find, find_reserved, misfit, reservation};
use super::provision;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// The provisioner that never provisions (P9).
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What is known about a claim when its plan is made.
pub struct Observed<'a> {
    /// The claim itself.
    pub claim: &'a PersistentVolumeClaim,
    /// The volume that `spec.volumeName` names, where it exists.
    pub volume: Option<&'a PersistentVolume>,
    /// The volumes an unbound claim may get.
    pub volumes: &'a [Arc<PersistentVolume>],
    /// The claim's class, where it exists.
    pub class: Option<&'a StorageClass>,
    /// The name of the class that claims get which do not say any.
    pub default_class: Option<&'a str>,
    /// The pods that use the claim. (P8)
    pub users: &'a Users,
    /// Where directories of provisioned volumes go.
    pub volumes_dir: &'a Path,
    /// What time it is.
    pub now: Timestamp,
}

/// The pods that use a claim, as far as its binding is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// The names of those that have no node yet, in order.
    pub waiting: Vec<String>,
    /// Does one have a node already? It got it without the scheduler, which would have seen to the claim.
    pub placed: bool,
}

/// The next steps for a claim; none if all is as it should be.
pub fn plan(observed: &Observed) -> Vec<Action> {
    let claim = observed.claim;
    if claim.annotations().contains_key(BIND_COMPLETED) {
        return plan_bound(observed);
    }
    // Nothing is bound to a claim that is about to go.
    if claim.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    match volume_name(claim) {
        "" => plan_free(observed),
        name => plan_named(observed, name),
    }
}

/// An unbound claim that takes any volume that fits.
fn plan_free(observed: &Observed) -> Vec<Action> {
    let claim = observed.claim;
    // The scheduler chooses the volume or asks for one to be made; it never sees a pod that came with its
    // node, for whose sake the wait ends here.
    let delayed = observed.class.is_some_and(waits_for_consumer) && !observed.users.placed;
    let found = match delayed {
        true => find_reserved(claim, observed.volumes),
        false => find(claim, observed.volumes),
    };
    if let Some(volume) = found {
        return bind(claim, volume);
    }
    let mut actions = if delayed && !claim.annotations().contains_key(SELECTED_NODE) {
        vec![wait_for_consumer(&observed.users.waiting)]
    } else {
        match (claim_class(claim), observed.class) {
            (None, _) if observed.default_class.is_some() => {
                let class = observed.default_class;
                return vec![Action::PatchClaim(guarded(
                    claim,
                    json!({"spec": {"storageClassName": class}}),
                ))];
            }
            (None | Some(""), _) => vec![Action::normal(
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            )],
            (Some(name), None) => vec![Action::warning(
                "ProvisioningFailed",
                format!("storageclass.storage.k8s.io \"{name}\" not found"),
            )],
            (Some(_), Some(class)) => return plan_provisioning(observed, class),
        }
    };
    actions.extend(set_pending(claim));
    actions
}

fn wait_for_consumer(pods: &[String]) -> Action {
    match pods {
        [] => Action::normal(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        [pod] => Action::normal(
            "WaitForPodScheduled",
            format!("waiting for pod {pod} to be scheduled"),
        ),
        pods => Action::normal(
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", pods.join(",")),
        ),
    }
}

/// No volume fits and the class may make one (P7).
fn plan_provisioning(observed: &Observed, class: &StorageClass) -> Vec<Action> {
    let claim = observed.claim;
    if class.provisioner == NO_PROVISIONER {
        let mut actions = vec![Action::warning(
            "ProvisioningFailed",
            format!("no volume plugin matched name: {NO_PROVISIONER}"),
        )];
        actions.extend(set_pending(claim));
        return actions;
    }
    match provision::volume(claim, class, observed.volumes_dir) {
        Err(reason) => {
            let text = format!(
                "failed to provision volume with StorageClass \"{}\": {reason}",
                class.name_any()
            );
            let mut actions = vec![Action::warning("ProvisioningFailed", text)];
            actions.extend(set_pending(claim));
            actions
        }
        Ok(volume) => {
            let provisioner = &class.provisioner;
            let about = format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any());
            let name = volume.name_any();
            let binding = bind_with(claim, &volume, Some(provisioner));
            let mut actions = vec![Action::Provision(Box::new(volume))];
            actions.extend(binding);
            actions.extend([
                Action::normal(
                    "ExternalProvisioning",
                    format!(
                        "Waiting for a volume to be created either by the external provisioner '{provisioner}' \
                         or manually by the system administrator. If volume creation is delayed, please \
                         verify that the provisioner is running and correctly registered."
                    ),
                ),
                Action::normal(
                    "Provisioning",
                    format!("External provisioner is provisioning volume for claim \"{about}\""),
                ),
                Action::normal("ProvisioningSucceeded", format!("Successfully provisioned volume {name}")),
            ]);
            actions
        }
    }
}

/// An unbound claim whose user chose the volume (P4).
fn plan_named(observed: &Observed, name: &str) -> Vec<Action> {
    let claim = observed.claim;
    let Some(volume) = observed.volume else {
        return set_pending(claim);
    };
    match reservation(volume, claim) {
        Reservation::Ours => bind(claim, volume),
        Reservation::Other => {
            let text = format!("volume \"{name}\" already bound to a different claim.");
            let mut actions = vec![Action::warning("FailedBinding", text)];
            actions.extend(set_pending(claim));
            actions
        }
        Reservation::Free => match misfit(volume, claim) {
            None => bind(claim, volume),
            Some(why) => {
                let text = format!("Cannot bind to requested volume \"{name}\": {why}");
                let mut actions = vec![Action::warning("VolumeMismatch", text)];
                actions.extend(set_pending(claim));
                actions
            }
        },
    }
}

/// A claim whose binding was complete once: is it still true? (P11)
fn plan_bound(observed: &Observed) -> Vec<Action> {
    let claim = observed.claim;
    if volume_name(claim).is_empty() {
        let text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lose(claim, "ClaimLost", text);
    }
    let Some(volume) = observed.volume else {
        let text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lose(claim, "ClaimLost", text);
    };
    if reservation(volume, claim) == Reservation::Other {
        let text = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lose(claim, "ClaimMisbound", text);
    }
    let mut actions = bind(claim, volume);
    if actions.is_empty() {
        actions = expand::plan(claim, volume, observed);
    }
    actions
}

/// Bind the two: only what is not yet so (P5).
pub fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<Action> {
    bind_with(claim, volume, None)
}

fn bind_with(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    provisioner: Option<&str>,
) -> Vec<Action> {
    // The volume first: whoever writes its claimRef has won it. The claim's status comes last, so that
    // Bound means bound.
    let mut actions = Vec::new();
    actions.extend(take_volume(claim, volume));
    actions.extend(name_volume(claim, volume, provisioner));
    if matching::phase(volume) != "Bound" {
        actions.push(Action::PatchVolumeStatus {
            name: volume.name_any(),
            patch: json!({"status": {"phase": "Bound", "message": null, "reason": null}}),
        });
    }
    actions.extend(set_bound(claim, volume));
    actions
}

fn take_volume(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Action> {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let taken = reference.is_some_and(|r| r.uid.is_some() && r.uid == claim.metadata.uid);
    (!taken).then(|| Action::PatchVolume {
        name: volume.name_any(),
        patch: reserve(claim, volume),
    })
}

/// The patch of a volume that wins it for the claim; refused when somebody was faster.
pub fn reserve(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Value {
    let mut patch = json!({
        "metadata": {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version},
        "spec": {"claimRef": provision::claim_reference(claim)},
    });
    if volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none()) {
        patch["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
    }
    patch
}

fn name_volume(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    provisioner: Option<&str>,
) -> Option<Action> {
    let mut annotations = Map::new();
    let mut annotate = |key: &str, value: &str| {
        if claim.annotations().get(key).map(String::as_str) != Some(value) {
            annotations.insert(key.into(), value.into());
        }
    };
    for (key, provisioner) in STORAGE_PROVISIONER
        .into_iter()
        .zip(provisioner.into_iter().cycle())
    {
        annotate(key, provisioner);
    }
    annotate(BIND_COMPLETED, "yes");
    let named = !volume_name(claim).is_empty();
    if !named {
        annotate(BOUND_BY_CONTROLLER, "yes");
    }
    if named && annotations.is_empty() {
        return None;
    }
    let mut patch = json!({"metadata": {"annotations": annotations}});
    if !named {
        patch["spec"]["volumeName"] = volume.name_any().into();
    }
    Some(Action::PatchClaim(guarded(claim, patch)))
}

/// Phase Bound, with the access modes and the capacity of the volume.
fn set_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Action> {
    let spec = volume.spec.as_ref();
    let access_modes = spec.and_then(|spec| spec.access_modes.as_ref());
    let capacity = spec.and_then(|spec| spec.capacity.as_ref());
    let status = claim.status.as_ref();
    let bound = claim_phase(claim) == "Bound";
    if bound && status.and_then(|status| status.access_modes.as_ref()) == access_modes {
        return None;
    }
    let mut patch = json!({"status": {"phase": "Bound", "accessModes": access_modes}});
    if !bound {
        patch["status"]["capacity"] = json!(capacity);
    }
    Some(Action::PatchClaimStatus(same_object(claim, patch)))
}

fn set_pending(claim: &PersistentVolumeClaim) -> Vec<Action> {
    set_unbound(claim, "Pending").into_iter().collect()
}

fn lose(claim: &PersistentVolumeClaim, reason: &'static str, text: &str) -> Vec<Action> {
    let lost = set_unbound(claim, "Lost");
    let told = lost.is_some().then(|| Action::warning(reason, text));
    lost.into_iter().chain(told).collect()
}

fn set_unbound(claim: &PersistentVolumeClaim, phase: &str) -> Option<Action> {
    let patch = json!({"status": {"phase": phase, "accessModes": null, "capacity": null}});
    (claim_phase(claim) != phase).then(|| Action::PatchClaimStatus(same_object(claim, patch)))
}

/// `patch`, for this version of the claim only.
pub fn guarded(claim: &PersistentVolumeClaim, patch: Value) -> Value {
    let mut patch = same_object(claim, patch);
    patch["metadata"]["resourceVersion"] = json!(claim.metadata.resource_version);
    patch
}

/// `patch`, for this claim and not a later one of its name.
pub(super) fn same_object(claim: &PersistentVolumeClaim, mut patch: Value) -> Value {
    patch["metadata"]["uid"] = json!(claim.metadata.uid);
    patch
}

/// Is a claim of this class bound only when a pod that uses it is scheduled?
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    name.unwrap_or_default()
}

/// The claim's phase, `""` before its first.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{class, volume};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn claim(spec: Value) -> PersistentVolumeClaim {
        crate::volume::testing::claim("c", spec)
    }

    /// The plan with only these volumes and this class around, in short: one word per step, events as
    /// their reasons.
    fn steps(
        claim: &PersistentVolumeClaim,
        volumes: &[PersistentVolume],
        class: Option<&StorageClass>,
        users: &Users,
    ) -> Vec<String> {
        let shared: Vec<_> = volumes.iter().cloned().map(Arc::new).collect();
        let named = volumes
            .iter()
            .find(|volume| volume.name_any() == volume_name(claim));
        let observed = Observed {
            claim,
            volume: named,
            volumes: &shared,
            class,
            default_class: None,
            users,
            volumes_dir: Path::new("/data/volumes"),
            now: Timestamp::UNIX_EPOCH,
        };
        steps_of(&observed)
    }

    fn steps_of(observed: &Observed) -> Vec<String> {
        let phase = |patch: &Value| patch["status"]["phase"].as_str().unwrap_or("status").to_owned();
        plan(observed)
            .into_iter()
            .map(|action| match action {
                Action::PatchClaim(patch) => match patch["spec"]["storageClassName"].as_str() {
                    Some(class) => format!("class {class}"),
                    None => "claim".into(),
                },
                Action::PatchClaimStatus(patch) => format!("claim {}", phase(&patch)),
                Action::PatchVolume { name, .. } => name,
                Action::PatchVolumeStatus { name, patch } => format!("{name} {}", phase(&patch)),
                Action::Provision(volume) => format!("provision {}", volume.name_any()),
                Action::Expand { name, .. } => format!("expand {name}"),
                Action::Reclaim { .. } | Action::LookAtClaim { .. } => unreachable!("not for claims"),
                Action::Tell { reason, .. } => reason.into(),
            })
            .collect()
    }

    /// What binding to the volume `v` takes.
    const BINDING: [&str; 4] = ["v", "claim", "v Bound", "claim Bound"];

    /// What it takes to make a volume and bind to it.
    const PROVISIONING: [&str; 7] = [
        "provision pvc-c-uid",
        "claim",
        "pvc-c-uid Bound",
        "claim Bound",
        "ExternalProvisioning",
        "Provisioning",
        "ProvisioningSucceeded",
    ];

    fn nobody() -> Users {
        Users::default()
    }

    fn bound(volume: &str) -> PersistentVolumeClaim {
        let mut claim = claim(json!({"volumeName": volume}));
        claim
            .annotations_mut()
            .insert(BIND_COMPLETED.into(), "yes".into());
        let status = json!({"phase": "Bound", "accessModes": ["ReadWriteOnce", "ReadWriteMany"], "capacity": {"storage": "1Gi"}});
        claim.status = Some(serde_json::from_value(status).unwrap());
        claim
    }

    fn taken(name: &str, by: &str) -> PersistentVolume {
        let reference = json!({"namespace": "default", "name": "c", "uid": by});
        let mut volume = volume(name, json!({"claimRef": reference}));
        volume.status.as_mut().unwrap().phase = Some("Bound".into());
        volume
    }

    #[test]
    fn the_volume_is_won_before_the_claim_says_so() {
        let free = volume("v", json!({"capacity": {"storage": "5Gi"}}));
        assert_eq!(
            steps(&claim(json!({})), std::slice::from_ref(&free), None, &nobody()),
            BINDING
        );
        let patches = bind(&claim(json!({})), &free);
        let Action::PatchVolume { patch, .. } = &patches[0] else {
            panic!("{patches:?}")
        };
        assert_eq!(patch["metadata"]["resourceVersion"], "8");
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({BOUND_BY_CONTROLLER: "yes"})
        );
        assert_eq!(patch["spec"]["claimRef"]["uid"], "c-uid");
        let Action::PatchClaim(patch) = &patches[1] else {
            panic!("{patches:?}")
        };
        assert_eq!(
            *patch,
            json!({
                "metadata": {
                    "uid": "c-uid", "resourceVersion": "7",
                    "annotations": {BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"},
                },
                "spec": {"volumeName": "v"},
            })
        );
        let Action::PatchClaimStatus(patch) = &patches[3] else {
            panic!("{patches:?}")
        };
        assert_eq!(patch["status"]["capacity"], json!({"storage": "5Gi"}));
    }

    #[test]
    fn an_interrupted_binding_goes_on_where_it_stopped() {
        let claimed = taken("v", "c-uid");
        assert_eq!(
            steps(&claim(json!({})), std::slice::from_ref(&claimed), None, &nobody()),
            ["claim", "claim Bound"]
        );
        let mut named = bound("v");
        assert_eq!(
            steps(&named, std::slice::from_ref(&claimed), None, &nobody()),
            [""; 0]
        );
        named.status = None;
        assert_eq!(steps(&named, &[claimed], None, &nobody()), ["claim Bound"]);
    }

    #[test]
    fn what_cannot_be_bound_says_why() {
        let fast = || json!({"storageClassName": "fast"});
        let never = || class("fast", json!({"provisioner": NO_PROVISIONER}));
        let delayed = || class("fast", json!({"volumeBindingMode": "WaitForFirstConsumer"}));
        let table: [(_, _, &[&str]); 8] = [
            (json!({}), None, &["FailedBinding"]),
            (json!({"storageClassName": null}), None, &["FailedBinding"]),
            (fast(), None, &["ProvisioningFailed"]),
            (fast(), Some(never()), &["ProvisioningFailed"]),
            (fast(), Some(delayed()), &["WaitForFirstConsumer"]),
            (fast(), Some(class("fast", json!({}))), &PROVISIONING),
            (
                json!({"storageClassName": "fast", "selector": {}}),
                Some(class("fast", json!({}))),
                &["ProvisioningFailed"],
            ),
            (
                json!({"storageClassName": "fast", "volumeMode": "Block"}),
                Some(class("fast", json!({}))),
                &["ProvisioningFailed"],
            ),
        ];
        for (spec, class, expected) in table {
            assert_eq!(
                steps(&claim(spec.clone()), &[], class.as_ref(), &nobody()),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn a_default_class_is_given_to_claims_that_did_not_say_any() {
        let mut observed = Observed {
            claim: &claim(json!({"storageClassName": null})),
            volume: None,
            volumes: &[],
            class: None,
            default_class: Some("standard"),
            users: &nobody(),
            volumes_dir: Path::new("/data/volumes"),
            now: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(steps_of(&observed), ["class standard"]);
        // A volume without a class that fits comes first.
        let fitting = [Arc::new(volume("v", json!({})))];
        observed.volumes = &fitting;
        assert_eq!(steps_of(&observed), BINDING);
        // And "" is said.
        let none = claim(json!({"storageClassName": ""}));
        observed.claim = &none;
        observed.volumes = &[];
        assert_eq!(steps_of(&observed), ["FailedBinding"]);
    }

    #[test]
    fn a_delayed_binding_is_the_schedulers_to_begin() {
        let delayed = class("fast", json!({"volumeBindingMode": "WaitForFirstConsumer"}));
        let spec = json!({"storageClassName": "fast"});
        let waiting = claim(spec.clone());
        let fitting = [volume("v", spec.clone())];
        let waits = |users: &Users| steps(&waiting, &fitting, Some(&delayed), users);
        assert_eq!(waits(&nobody()), ["WaitForFirstConsumer"]);
        let mut users = Users {
            waiting: vec!["a".into(), "b".into()],
            placed: false,
        };
        assert_eq!(waits(&users), ["WaitForPodScheduled"]);
        let text = Action::normal("WaitForPodScheduled", "waiting for pods a,b to be scheduled");
        assert_eq!(wait_for_consumer(&users.waiting), text);
        let text = Action::normal("WaitForPodScheduled", "waiting for pod a to be scheduled");
        assert_eq!(wait_for_consumer(&users.waiting[..1]), text);
        // A pod that has a node already is not the scheduler's any more.
        users.placed = true;
        assert_eq!(waits(&users), BINDING);
        // The scheduler has taken the volume, or asks for one to be made.
        let taken = [taken("v", "c-uid")];
        assert_eq!(
            steps(&waiting, &taken, Some(&delayed), &nobody()),
            ["claim", "claim Bound"]
        );
        let mut selected = claim(spec);
        let annotations = selected.annotations_mut();
        annotations.insert(SELECTED_NODE.into(), "node".into());
        assert_eq!(
            steps(&selected, &fitting, Some(&delayed), &nobody()),
            PROVISIONING
        );
    }

    #[test]
    fn a_claim_that_names_its_volume_waits_for_that_one() {
        let named = claim(json!({"volumeName": "v"}));
        let nothing = [""; 0];
        assert_eq!(
            steps(&named, &[volume("other", json!({}))], None, &nobody()),
            nothing
        );
        assert_eq!(
            steps(&named, &[taken("v", "another")], None, &nobody()),
            ["FailedBinding"]
        );
        let small = volume("v", json!({"capacity": {"storage": "1Ki"}}));
        assert_eq!(steps(&named, &[small], None, &nobody()), ["VolumeMismatch"]);
        assert_eq!(steps(&named, &[volume("v", json!({}))], None, &nobody()), BINDING);
    }

    #[test]
    fn a_bound_claim_without_its_volume_is_lost_and_says_it_once() {
        let mut claim = bound("v");
        assert_eq!(steps(&claim, &[], None, &nobody()), ["claim Lost", "ClaimLost"]);
        assert_eq!(
            steps(&claim, &[taken("v", "another")], None, &nobody()),
            ["claim Lost", "ClaimMisbound"]
        );
        claim.status.as_mut().unwrap().phase = Some("Lost".into());
        assert_eq!(steps(&claim, &[], None, &nobody()), [""; 0]);
    }

    #[test]
    fn a_bound_claim_grows_where_its_class_allows_it() {
        let mut claim = bound("v");
        let bigger = json!({"requests": {"storage": "3Gi"}});
        claim.spec.as_mut().unwrap().resources = serde_json::from_value(bigger).ok();
        let mut volume = taken("v", "c-uid");
        let growing = |allowed: bool| class("fast", json!({"allowVolumeExpansion": allowed}));
        let grow = |claim: &PersistentVolumeClaim, volume: &PersistentVolume, allowed: bool| {
            let volumes = std::slice::from_ref(volume);
            steps(claim, volumes, Some(&growing(allowed)), &nobody())
        };
        assert_eq!(grow(&claim, &volume, false), [""; 0]);
        assert_eq!(grow(&claim, &volume, true), ["ExternalExpanding"]);
        let spec = volume.spec.as_mut().unwrap();
        spec.host_path.as_mut().unwrap().path = "/data/volumes/default_c_c-uid".into();
        let steps = [
            "ExternalExpanding",
            "claim status",
            "Resizing",
            "expand v",
            "FileSystemResizeRequired",
            "claim status",
            "FileSystemResizeSuccessful",
        ];
        assert_eq!(grow(&claim, &volume, true), steps);
        // Interrupted after the first status, and after the volume has grown.
        let conditions = json!([{"type": "Mine", "status": "True"}, {"type": "Resizing", "status": "True"}]);
        claim.status.as_mut().unwrap().conditions = serde_json::from_value(conditions).ok();
        assert_eq!(grow(&claim, &volume, true), steps[3..]);
        let capacity = json!({"storage": "3Gi"});
        volume.spec.as_mut().unwrap().capacity = serde_json::from_value(capacity).ok();
        assert_eq!(grow(&claim, &volume, true), steps[4..]);
    }

    #[test]
    fn growing_shows_in_the_conditions_and_leaves_those_of_others() {
        let mut claim = bound("v");
        claim.spec.as_mut().unwrap().resources =
            serde_json::from_value(json!({"requests": {"storage": "3Gi"}})).ok();
        claim.status.as_mut().unwrap().conditions =
            serde_json::from_value(json!([{"type": "Mine", "status": "True"}])).ok();
        let mut volume = taken("v", "c-uid");
        volume.spec.as_mut().unwrap().host_path.as_mut().unwrap().path = "/data/volumes/v".into();
        let observed = Observed {
            claim: &claim,
            volume: Some(&volume),
            volumes: &[],
            class: Some(&class("fast", json!({"allowVolumeExpansion": true}))),
            default_class: None,
            users: &nobody(),
            volumes_dir: Path::new("/data/volumes"),
            now: Timestamp::UNIX_EPOCH,
        };
        let statuses: Vec<_> = plan(&observed)
            .into_iter()
            .filter_map(|action| match action {
                Action::PatchClaimStatus(patch) => Some(patch["status"].clone()),
                _ => None,
            })
            .collect();
        let mine = json!({"type": "Mine", "status": "True"});
        let resizing =
            json!({"type": "Resizing", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        assert_eq!(
            statuses,
            [
                json!({
                    "conditions": [mine, resizing],
                    "allocatedResources": {"storage": "3Gi"},
                    "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
                }),
                json!({
                    "capacity": {"storage": "3Gi"},
                    "conditions": [mine],
                    "allocatedResources": {"storage": "3Gi"},
                    "allocatedResourceStatuses": null,
                }),
            ]
        );
    }

    #[test]
    fn nothing_is_bound_to_a_claim_that_is_deleted() {
        let mut claim = claim(json!({}));
        claim.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(steps(&claim, &[volume("v", json!({}))], None, &nobody()), [""; 0]);
    }
}
