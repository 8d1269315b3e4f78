//! A set's status: what is counted, when a rollout is complete and what is worth writing.

use super::identity::{is_available, is_created, is_ready, is_terminating, revision_of};
use super::revision::History;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;

/// The numbers of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that exist, terminating, failed and condemned ones included.
    pub replicas: i32,
    /// Those that run and are Ready.
    pub ready: i32,
    /// Those of them that are available.
    pub available: i32,
    /// Those that stay and are at the current revision.
    pub current: i32,
    /// Those that stay and are at the update revision.
    pub updated: i32,
}

/// Count a set's pods (R39).
pub fn count(pods: &[&Pod], history: &History, min_ready_seconds: i32, now: Timestamp) -> Counts {
    let number = |is: &dyn Fn(&Pod) -> bool| {
        let count = pods.iter().filter(|pod| is(pod)).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    };
    let stays_at =
        |pod: &Pod, revision: &str| is_created(pod) && !is_terminating(pod) && revision_of(pod) == revision;
    Counts {
        replicas: number(&is_created),
        ready: number(&is_ready),
        available: number(&|pod| is_ready(pod) && is_available(pod, min_ready_seconds, now)),
        current: number(&|pod| stays_at(pod, &history.current.name)),
        updated: number(&|pod| stays_at(pod, &history.update.name)),
    }
}

/// The status that tells these counts; a rollout that turns out complete is told as such.
pub fn status(set: &StatefulSet, history: &History, mut counts: Counts) -> StatefulSetStatus {
    let mut current_revision = &history.current.name;
    if is_complete(set, counts) {
        counts.current = counts.updated;
        current_revision = &history.update.name;
    }
    // What upstream omits at zero is omitted, what it always writes is there.
    let some = |count: i32| (count != 0).then_some(count);
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: counts.replicas,
        ready_replicas: some(counts.ready),
        available_replicas: Some(counts.available),
        current_replicas: some(counts.current.max(0)),
        updated_replicas: some(counts.updated),
        current_revision: Some(current_revision.clone()),
        update_revision: Some(history.update.name.clone()),
        collision_count: Some(history.collision_count),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

/// Every pod there should be is there, Ready and at the update revision, and no other (R41). As in 1.36 a set
/// with OnDelete never completes: it stays at its current revision.
fn is_complete(set: &StatefulSet, counts: Counts) -> bool {
    let spec = set.spec.clone().unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(1);
    spec.update_strategy
        .and_then(|strategy| strategy.type_)
        .as_deref()
        != Some("OnDelete")
        && [counts.updated, counts.replicas, counts.ready]
            .iter()
            .all(|count| *count == wanted)
}

/// Whether the status says anything that the set's own does not (R42, and the conditions).
pub fn is_news(set: &StatefulSet, status: &StatefulSetStatus) -> bool {
    let old = set.status.clone().unwrap_or_default();
    status.observed_generation > old.observed_generation
        || status.replicas != old.replicas
        || status.ready_replicas.unwrap_or(0) != old.ready_replicas.unwrap_or(0)
        || status.available_replicas.unwrap_or(0) != old.available_replicas.unwrap_or(0)
        || status.current_replicas.unwrap_or(0) != old.current_replicas.unwrap_or(0)
        || status.updated_replicas.unwrap_or(0) != old.updated_replicas.unwrap_or(0)
        || status.current_revision != old.current_revision
        || status.update_revision != old.update_revision
        || status.conditions != old.conditions
}

/// The names of the revisions that pods were made from.
pub fn revisions_in_use(pods: &[&Pod]) -> BTreeSet<String> {
    pods.iter()
        .map(|pod| revision_of(pod).to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}
