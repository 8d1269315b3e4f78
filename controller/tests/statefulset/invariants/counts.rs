//! What is counted, forgotten and waited for.

use super::{Check, is_candidate, ready_since};
use crate::settings::Strategy;
use controller::statefulset::action::Action;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use kube::ResourceExt;
use std::collections::BTreeSet;

impl Check<'_> {
    /// Every counter as R39 defines it, counted again.
    pub fn status(&self) {
        let count = |is: &dyn Fn(&super::Member<'_>) -> bool| {
            self.members.values().filter(|it| is(it)).count() as i32
        };
        let updated = count(&|it| !it.is_terminating && it.revision == self.update);
        let (replicas, ready) = (self.members.len() as i32, count(&|it| it.is_ready));
        let deletes_for_update = self
            .deleted()
            .into_iter()
            .filter(|it| self.settings.range().contains(&it.ordinal) && !it.is_finished);
        let mut current = count(&|it| !it.is_terminating && it.revision == self.current);
        current = (current - deletes_for_update.count() as i32).max(0);
        let mut current_revision = &self.current;
        let wanted = self.settings.replicas;
        let is_complete = updated == wanted && replicas == wanted && ready == wanted;
        if is_complete && self.settings.strategy != Strategy::OnDelete {
            (current, current_revision) = (updated, &self.update);
        }
        let available = count(&|it| it.is_ready && it.is_available);
        let expected = [replicas, ready, available, current, updated];
        let status = self.plan.status.clone().unwrap_or_else(|| self.api.status());
        assert_eq!(
            counters(&status),
            expected,
            "replicas, ready, available, current, updated"
        );
        assert_eq!(status.current_revision.as_ref(), Some(current_revision));
        assert_eq!(status.update_revision.as_ref(), Some(&self.update));
        assert_eq!(status.observed_generation, self.api.generation());
    }

    /// Only what nothing uses is forgotten, the oldest first, and so much that the limit is kept (R19).
    pub fn prune(&self) {
        let used: BTreeSet<_> = self.members.values().map(|it| it.revision).collect();
        let idle = self
            .api
            .revisions
            .values()
            .filter(|it| is_candidate(it))
            .filter(|it| {
                let name = it.name_any();
                name != self.current && name != self.update && !used.contains(&*name)
            });
        let mut idle: Vec<_> = idle.map(|it| (it.revision, it.name_any())).collect();
        idle.sort();
        let limit = self.settings.history_limit.unwrap_or(10);
        let excess = usize::try_from(limit).map_or(0, |limit| idle.len().saturating_sub(limit));
        let expected: Vec<_> = idle.into_iter().take(excess).map(|it| it.1).collect();
        let deleted = self.plan.prune.iter().map(|action| match action {
            Action::DeleteRevision { name, uid } => {
                assert_eq!(self.api.revisions[name].uid().as_ref(), Some(uid));
                name.clone()
            }
            other => panic!("{other:?} does not prune"),
        });
        assert_eq!(deleted.collect::<Vec<_>>(), expected, "pruned");
    }

    /// It looks again when a pod becomes available (R3), or sooner when there is something to tell.
    pub fn wake_up(&self) {
        let waiting = self.members.values().filter(|it| it.is_ready && !it.is_available);
        let wait = SignedDuration::from_secs(self.settings.min_ready_seconds.into());
        if let Some(next) = waiting.filter_map(|it| Some(ready_since(it.pod)? + wait)).min() {
            let at = self.plan.wake_at.expect("it looks again");
            assert!(at <= next + SignedDuration::from_secs(1), "{next} {at}");
        }
        assert!(
            self.plan.wake_at.is_none_or(|at| at > self.now),
            "it looks again at once, and again"
        );
    }
}

/// The counters of a status, in the order of R39.
fn counters(status: &StatefulSetStatus) -> [i32; 5] {
    [
        status.replicas,
        status.ready_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
        status.current_replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
    ]
}
