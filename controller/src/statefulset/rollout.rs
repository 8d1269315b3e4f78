//! Bringing pods to the set's present template: which pods are replaced, and which revision a new pod gets.

use super::action::Action;
use super::event;
use super::identity::{is_finished, is_ready, is_terminating, range, revision_of, was_never_ready};
use super::plan::{Sync, delete};
use super::revision::{History, Revision};
use super::wait::{Wait, trouble};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::ops::ControlFlow::{self, Break};

/// Set to `true` on a set, this has a pod of an old revision replaced that was never Ready and would otherwise have to
/// be deleted by hand before an OrderedReady rollout could go on (kubernetes issue 67250).
pub const UNBLOCK_ROLLOUT: &str = "petset.dev/unblock-rollout";

impl<'a> Sync<'a> {
    /// Delete pods of an old revision, so that they come back at the new one (R33–R37).
    ///
    /// `maxUnavailable` pods may be unavailable at once, wherever they are. Pods of an old revision that are
    /// unavailable already make nothing worse by being replaced, so they are, whatever the budget: a Parallel set
    /// recovers from a bad rollout. An OrderedReady set never gets here while a pod is unavailable.
    pub(super) fn update(&mut self) -> ControlFlow<()> {
        let (broken, well): (Vec<_>, Vec<_>) = self
            .outdated()
            .into_iter()
            .partition(|pod| self.is_unavailable(pod));
        let rolling = strategy(self.set).rolling_update.unwrap_or_default();
        let budget = max_unavailable(rolling.max_unavailable.as_ref(), self.range.len());
        let unavailable = self.unavailable();
        let replaced = broken
            .iter()
            .chain(well.iter().take(budget.saturating_sub(unavailable)));
        let deletes: Vec<_> = replaced.map(|pod| vec![delete(pod)]).collect();
        if deletes.is_empty() && !well.is_empty() {
            self.hold_up_update();
        }
        self.deleted_for_update += i32::try_from(deletes.len()).unwrap_or(i32::MAX);
        self.add_lanes(deletes);
        Break(())
    }

    /// The pods that the strategy replaces, from the top down: of another revision than the set's, at an index of at
    /// least `partition` (an index, not an ordinal: R33), and not on their way out. With OnDelete there is none.
    pub(super) fn outdated(&self) -> Vec<&'a Pod> {
        let strategy = strategy(self.set);
        if is_on_delete(&strategy) {
            return vec![];
        }
        let partition = strategy.rolling_update.and_then(|rolling| rolling.partition);
        let lowest = self.range.start.saturating_add(partition.unwrap_or(0));
        let pods = self.replicas.range(lowest..).rev().map(|(_, pod)| *pod);
        // One that has finished is deleted for that (R29).
        pods.filter(|pod| !is_terminating(pod) && !is_finished(pod) && self.is_of_old_revision(pod))
            .collect()
    }

    fn is_of_old_revision(&self, pod: &Pod) -> bool {
        revision_of(pod) != self.history.update.name
    }

    /// How many pods stay at an old revision because the strategy leaves them there.
    pub(super) fn left_behind(&self) -> usize {
        let old = self.replicas.values().filter(|pod| self.is_of_old_revision(pod));
        old.count() - self.outdated().len()
    }

    /// What to do about a pod of an old revision that an OrderedReady set would wait for in vain: have it replaced
    /// if the user wants that, else say so.
    pub(super) fn unblock(&mut self, pod: &'a Pod) -> Option<Vec<Action>> {
        if is_ready(pod) || !(was_never_ready(pod) || trouble(pod).is_some()) {
            return None;
        }
        if !self
            .outdated()
            .iter()
            .any(|outdated| outdated.metadata.name == pod.metadata.name)
        {
            return None;
        }
        let (old, new) = (revision_of(pod), &self.history.update.name);
        if self
            .set
            .annotations()
            .get(UNBLOCK_ROLLOUT)
            .is_some_and(|value| value == "true")
        {
            self.deleted_for_update += 1;
            let told = event::rollout_unblocked(&pod.name_any(), old, new);
            return Some(vec![Action::Tell(told), delete(pod)]);
        }
        let (set, name) = (self.set.name_any(), pod.name_any());
        let namespace = self.set.namespace().unwrap_or_default();
        let wait = Wait::for_pod(pod, self.min_ready_seconds, self.now)?;
        self.waits.push(Wait {
            reason: "RolloutBlocked",
            what: format!("{} (revision {old})", wait.what),
            holds_up: Some(format!(
                "the update to revision {new}, which never replaces a pod before all are Ready"
            )),
            help: Some(format!(
                "Delete it (kubectl delete pod {name} -n {namespace}), or have the set do so: \
                 kubectl annotate sts {set} -n {namespace} {UNBLOCK_ROLLOUT}=true"
            )),
            ..wait
        });
        Some(vec![])
    }

    /// The pods that have used up what may be unavailable hold up the rest of the update.
    fn hold_up_update(&mut self) {
        let held_up = format!("the update to revision {}", self.history.update.name);
        for wait in &mut self.waits {
            wait.holds_up.get_or_insert_with(|| held_up.clone());
        }
    }
}

fn strategy(set: &StatefulSet) -> StatefulSetUpdateStrategy {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.clone());
    strategy.unwrap_or_default()
}

fn is_on_delete(strategy: &StatefulSetUpdateStrategy) -> bool {
    strategy.type_.as_deref() == Some("OnDelete")
}

/// Which revision a missing ordinal gets (R26).
pub(super) fn revision_for<'a>(set: &StatefulSet, history: &'a History, ordinal: i32) -> &'a Revision {
    let strategy = strategy(set);
    let index = ordinal - range(set).start;
    let current_below = match strategy.rolling_update {
        Some(rolling) => rolling.partition.unwrap_or(0),
        None if strategy.type_.as_deref() == Some("RollingUpdate") => set
            .status
            .as_ref()
            .and_then(|status| status.current_replicas)
            .unwrap_or(0),
        None => 0,
    };
    if index < current_below {
        &history.current
    } else {
        &history.update
    }
}

/// How many pods an update may make unavailable: a number, or a percentage rounded down, at least 1 (R35).
fn max_unavailable(setting: Option<&IntOrString>, replicas: usize) -> usize {
    let count = match setting {
        None => 1,
        Some(IntOrString::Int(count)) => usize::try_from(*count).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|digits| digits.parse::<usize>().ok())
                .unwrap_or(0);
            percent.saturating_mul(replicas) / 100
        }
    };
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_unavailable_is_a_number_or_a_percentage_rounded_down_and_at_least_one() {
        let text = |text: &str| Some(IntOrString::String(text.into()));
        let cases = [
            (None, 5, 1),
            (Some(IntOrString::Int(3)), 5, 3),
            (Some(IntOrString::Int(0)), 5, 1),
            (text("50%"), 5, 2),
            (text("10%"), 5, 1),
            (text("100%"), 5, 5),
            (text("nonsense"), 5, 1),
        ];
        for (setting, replicas, expected) in cases {
            assert_eq!(
                max_unavailable(setting.as_ref(), replicas),
                expected,
                "{setting:?}"
            );
        }
    }
}
