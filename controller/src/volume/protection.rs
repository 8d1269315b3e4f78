//! The finalizers that keep claims and volumes while they are in use (P10).

use super::matching::phase;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The patch that gives a claim its finalizer or, when it is deleted and no pod holds it, takes it away.
/// `pods` are those of its namespace.
pub fn protect_claim(claim: &PersistentVolumeClaim, pods: &[Pod]) -> Option<Value> {
    let held = pods.iter().any(|pod| holds(pod, &claim.name_any()));
    protect(&claim.metadata, CLAIM_FINALIZER, held)
}

/// The same for a volume, which its phase Bound holds.
pub fn protect_volume(volume: &PersistentVolume) -> Option<Value> {
    protect(&volume.metadata, VOLUME_FINALIZER, phase(volume) == "Bound")
}

/// The names of the claims that a pod mentions.
pub fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// A pod holds a claim from its scheduling until its object is gone, finished or not. Before it is
/// scheduled it cannot have started.
fn holds(pod: &Pod, claim: &str) -> bool {
    is_placed(pod) && claims(pod).any(|name| name == claim)
}

/// Has the pod a node?
pub fn is_placed(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

/// Can the pod use its claims now: has it a node, and has it not finished?
pub fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    is_placed(pod) && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Has the scheduler looked for a node and found none?
pub fn is_unschedulable(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

fn protect(metadata: &ObjectMeta, finalizer: &str, held: bool) -> Option<Value> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let protected = finalizers.iter().any(|f| f == finalizer);
    match (&metadata.deletion_timestamp, protected) {
        (None, false) => finalizers.push(finalizer.into()),
        (Some(_), true) if !held => finalizers.retain(|f| f != finalizer),
        _ => return None,
    }
    Some(json!({"metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{claim, volume};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn pod(node: Option<&str>, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [],
                "nodeName": node,
                "volumes": [{"name": "x", "emptyDir": {}}, {"name": "y", "persistentVolumeClaim": {"claimName": "c"}}],
            },
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn finalizers_after(patch: Option<Value>) -> Option<Value> {
        patch.map(|patch| patch["metadata"]["finalizers"].clone())
    }

    #[test]
    fn a_deleted_claim_stays_while_a_scheduled_pod_mentions_it() {
        let mut deleted = claim("c", json!({}));
        deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        deleted.metadata.finalizers = Some(vec![CLAIM_FINALIZER.into(), "mine".into()]);
        for (pods, goes) in [
            (vec![], true),
            (vec![pod(None, "Pending")], true),
            (vec![pod(Some(""), "Pending")], true),
            (vec![pod(Some("n"), "Running")], false),
            (vec![pod(Some("n"), "Succeeded")], false),
        ] {
            let expected = goes.then(|| json!(["mine"]));
            assert_eq!(
                finalizers_after(protect_claim(&deleted, &pods)),
                expected,
                "{pods:?}"
            );
        }
        deleted.metadata.name = Some("other".into());
        assert!(protect_claim(&deleted, &[pod(Some("n"), "Running")]).is_some());
    }

    #[test]
    fn a_live_object_gets_the_finalizer_once() {
        let mut live = volume("v", json!({}));
        assert_eq!(
            finalizers_after(protect_volume(&live)),
            Some(json!([VOLUME_FINALIZER]))
        );
        live.metadata.finalizers = Some(vec![VOLUME_FINALIZER.into()]);
        assert_eq!(protect_volume(&live), None);
    }

    #[test]
    fn a_deleted_volume_stays_while_bound() {
        let mut deleted = volume("v", json!({}));
        deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        deleted.metadata.finalizers = Some(vec![VOLUME_FINALIZER.into()]);
        assert_eq!(finalizers_after(protect_volume(&deleted)), Some(json!([])));
        deleted.status.as_mut().unwrap().phase = Some("Bound".into());
        assert_eq!(protect_volume(&deleted), None);
    }
}
