//! Who a pod is: its name and ordinal, whose it is, whether it is well, and the pod that an ordinal gets.

use super::claims;
use super::revision::Revision;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::ops::Range;

/// The label that names a pod for Services that select a single one.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label that holds the ordinal.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// The label that holds the name of the revision a pod was made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// A pod's name split at its last hyphen, when digits follow it (R6). The ordinal is missing when it is larger
/// than ordinals can be.
pub fn parent_and_ordinal(pod: &str) -> Option<(&str, Option<i32>)> {
    let (parent, digits) = pod.rsplit_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (parent, digits.parse().ok()))
}

/// Whether the pod's name makes it a member of the set, whatever its labels (R6).
pub fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    let name = pod.name_any();
    parent_and_ordinal(&name).is_some_and(|(parent, _)| parent == set.name_any())
}

/// The pod's ordinal, if it has one.
pub fn ordinal(pod: &Pod) -> Option<i32> {
    parent_and_ordinal(&pod.name_any())?.1
}

/// The ordinals that there should be a pod for (R28).
pub fn range(set: &StatefulSet) -> Range<i32> {
    let spec = set.spec.as_ref();
    let ordinals = spec.and_then(|spec| spec.ordinals.as_ref());
    let start = ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    start..start.saturating_add(replicas)
}

/// The name of the set's pod at this ordinal.
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The owner that manages an object, if it has one.
pub fn controller_of(object: &impl ResourceExt) -> Option<&OwnerReference> {
    object
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// What makes an object the set's.
pub fn owner_reference(set: &StatefulSet) -> OwnerReference {
    controller_reference(set)
}

/// What makes an object `owner`'s, to be managed by it.
pub fn controller_reference<T: Resource<DynamicType = ()>>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::api_version(&()).into_owned(),
        kind: T::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The name of the revision that the pod was made from (empty: unknown).
pub fn revision_of(pod: &Pod) -> &str {
    pod.labels().get(REVISION_LABEL).map_or("", String::as_str)
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

/// The API has taken it (R27, like all that follow).
pub fn is_created(pod: &Pod) -> bool {
    !phase(pod).is_empty()
}

/// Its containers have not all been started.
pub fn is_pending(pod: &Pod) -> bool {
    phase(pod) == "Pending"
}

/// It ended, well or not: a pod of a set has to run again either way.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

/// Somebody has deleted it; it is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Its condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Its Ready condition, when it is True.
fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    condition(pod, "Ready").filter(|condition| condition.status == "True")
}

/// It runs and is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    phase(pod) == "Running" && ready_condition(pod).is_some()
}

/// It has not been Ready since it started: its Ready condition is still what it was then. (Times are in seconds; one
/// more may have passed between start and status.)
pub fn was_never_ready(pod: &Pod) -> bool {
    let Some(ready) = condition(pod, "Ready") else {
        return true;
    };
    let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
    let started = started.or_else(|| pod.creation_timestamp()).map(|time| time.0);
    let since = ready.last_transition_time.as_ref().map(|time| time.0);
    let is_as_at_start = since
        .zip(started)
        .is_none_or(|(since, started)| since.duration_since(started) <= SignedDuration::from_secs(1));
    ready.status != "True" && is_as_at_start
}

/// It has been Ready for longer than `minReadySeconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    match ready_condition(pod) {
        None => false,
        Some(_) if min_ready_seconds == 0 => true,
        Some(_) => available_after(pod, min_ready_seconds).is_some_and(|at| at < now),
    }
}

/// The time after which a Ready pod is available.
pub fn available_after(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let since = ready_condition(pod)?.last_transition_time.as_ref()?.0;
    since
        .checked_add(SignedDuration::from_secs(min_ready_seconds.into()))
        .ok()
}

/// Not available, or not for long.
pub fn is_unavailable(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    !is_available(pod, min_ready_seconds, now) || is_terminating(pod)
}

/// The labels that a pod at its ordinal has to have.
pub fn identity_labels(pod_name: &str, ordinal: i32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME_LABEL.into(), pod_name.into()),
        (POD_INDEX_LABEL.into(), ordinal.to_string()),
    ])
}

/// Whether the pod answers to its name (R24).
pub fn identity_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let name = pod.name_any();
    ordinal(pod).is_some_and(|ordinal| pod_name(set, ordinal) == name)
        && pod.labels().get(POD_NAME_LABEL) == Some(&name)
}

/// The pod that `ordinal` gets, made from `revision` (R21–R23, R25).
pub fn new_pod(set: &StatefulSet, revision: &Revision, ordinal: i32) -> Pod {
    let name = pod_name(set, ordinal);
    let template = revision.template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    labels.extend(identity_labels(&name, ordinal));
    labels.insert(REVISION_LABEL.into(), revision.name.clone());

    let mut spec = revision.template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name.clone());
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|name| !name.is_empty());
    spec.volumes = claims::volumes(set, ordinal, spec.volumes);

    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name_any())),
            name: Some(name),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![owner_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_parent_and_an_ordinal() {
        let cases = [
            ("web-0", Some(("web", Some(0)))),
            ("web-1-23", Some(("web-1", Some(23)))),
            ("web-2147483647", Some(("web", Some(i32::MAX)))),
            ("web-2147483648", Some(("web", None))),
            ("web-", None),
            ("web-x", None),
            ("web-+1", None),
            ("web", None),
            ("-1", Some(("", Some(1)))),
        ];
        for (name, expected) in cases {
            assert_eq!(parent_and_ordinal(name), expected, "{name}");
        }
    }

    #[test]
    fn a_pod_is_available_only_after_more_than_min_ready_seconds() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "status": {"phase": "Running", "conditions":
                [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:10Z"}]}}))
        .expect("a pod");
        let available = [12, 13, 14].map(|now| is_available(&pod, 3, at(now)));
        assert_eq!(available, [false, false, true]);
        assert!(is_available(&pod, 0, at(10)));
    }
}
