//! What to do about a set: a pure function of what was observed and the time.
//!
//! It reads like a sync of upstream's controller: adopt and release, find the revisions, bring every
//! replica in order, then remove the condemned pods, then update, and count. Nothing later is done while something
//! earlier has to be waited for. Each sync does one step; what it changes brings the next.

use super::action::{Action, Lane, Plan, Step, Verb};
use super::claims;
use super::event;
use super::identity::{
    available_after, identity_labels, identity_matches, is_available, is_created, is_finished, is_pending,
    is_ready, is_terminating, is_unavailable, new_pod, ordinal, pod_name, range, revision_of,
};
use super::members::members;
use super::observed::Observed;
use super::revision::{History, Revision, history};
use super::status;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::ops::Range;

/// How many pods are created in one sync at most.
const MOST_CREATED: usize = 1000;

/// Decide what to do about a set.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let set = &observed.set;
    let (members, owning) = members(observed);
    let history = history(observed);
    let mut sync = Sync::new(observed, &history, &members, now);
    // A set that is being deleted is only counted (R47).
    if set.metadata.deletion_timestamp.is_none() {
        // Where it stopped does not matter: what it waits for brings the next sync.
        let _ = sync.run();
    }
    let mut counts = status::count(&members, &history, sync.min_ready_seconds, now);
    counts.current -= sync.deleted_for_update;
    let status = status::status(set, &history, counts);
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let as_steps = |actions: Vec<Action>| actions.into_iter().map(|action| vec![vec![action]]);
    let adopting = as_steps(history.adopt.clone());
    Plan {
        prepare: adopting
            .chain(as_steps(owning))
            .chain(as_steps(history.write.iter().cloned().collect()))
            .collect(),
        steps: sync.steps,
        prune: history.excess(limit, &status::revisions_in_use(&members)),
        wake_at: wake_at(&members, sync.min_ready_seconds, now),
        status: status::is_news(set, &status).then_some(status),
    }
}

/// The next moment at which a Ready pod becomes available (R3). Just past it, because availability begins after
/// it; upstream looks a second later.
fn wake_at(members: &[&Pod], min_ready_seconds: i32, now: Timestamp) -> Option<Timestamp> {
    let waiting = members
        .iter()
        .filter(|pod| is_ready(pod) && !is_available(pod, min_ready_seconds, now));
    let next = waiting
        .filter_map(|pod| available_after(pod, min_ready_seconds))
        .min()?;
    next.checked_add(SignedDuration::from_millis(1)).ok()
}

/// One sync, on its way. `Break` means that nothing more is to be done in it.
struct Sync<'a> {
    observed: &'a Observed,
    set: &'a StatefulSet,
    history: &'a History,
    now: Timestamp,
    min_ready_seconds: i32,
    /// OrderedReady: one thing at a time. (Else Parallel: everything at once.)
    is_ordered: bool,
    /// The ordinals that there should be a pod for (R28).
    range: Range<i32>,
    /// The pods in the range.
    replicas: BTreeMap<i32, &'a Pod>,
    /// Pods out of the range, the highest ordinal first.
    condemned: Vec<&'a Pod>,
    steps: Vec<Step>,
    deleted_for_update: i32,
}

impl<'a> Sync<'a> {
    fn new(observed: &'a Observed, history: &'a History, members: &[&'a Pod], now: Timestamp) -> Self {
        let set = &observed.set;
        let spec = set.spec.clone().unwrap_or_default();
        let range = range(set);
        let (mut replicas, mut condemned) = (BTreeMap::new(), vec![]);
        for pod in members {
            match ordinal(pod) {
                Some(ordinal) if range.contains(&ordinal) => drop(replicas.insert(ordinal, *pod)),
                Some(_) => condemned.push(*pod),
                // A name whose ordinal does not parse is ignored (R28).
                None => {}
            }
        }
        condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
        Self {
            observed,
            set,
            history,
            now,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            is_ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            range,
            replicas,
            condemned,
            steps: vec![],
            deleted_for_update: 0,
        }
    }

    fn run(&mut self) -> ControlFlow<()> {
        self.bring_replicas_in_order()?;
        self.fix_owners_of_condemned_claims();
        self.remove_condemned()?;
        self.update()
    }

    /// Every replica in its order, or all at once (R29, R30).
    fn bring_replicas_in_order(&mut self) -> ControlFlow<()> {
        let mut lanes = vec![];
        let mut created = 0;
        for ordinal in self.range.clone() {
            let (lane, then) = match self.replicas.get(&ordinal) {
                Some(pod) => self.bring_in_order(pod),
                None => {
                    created += 1;
                    (self.create(ordinal), Break(()))
                }
            };
            lanes.push(lane);
            // What is left of a very large set is left to the syncs that the new pods bring.
            if (self.is_ordered && then.is_break()) || created == MOST_CREATED {
                self.add_lanes(lanes);
                return Break(());
            }
        }
        self.add_lanes(lanes);
        Continue(())
    }

    /// What one replica needs, and whether an ordered set may go on to the next.
    fn bring_in_order(&self, pod: &Pod) -> (Lane, ControlFlow<()>) {
        // Finished, well or not: it has to run again, once it is really gone (R29a).
        if is_finished(pod) {
            let lane = if is_terminating(pod) {
                vec![]
            } else {
                vec![delete(pod)]
            };
            return (lane, Break(()));
        }
        let mut lane = vec![];
        let mut owners = self.own_claims(pod, false);
        if is_pending(pod) {
            lane = self.create_claims(pod, None);
            lane.append(&mut owners);
        }
        if self.is_ordered && (is_terminating(pod) || !is_ready(pod) || !self.is_available(pod)) {
            return (lane, Break(()));
        }
        let storage_matches = claims::storage_matches(self.set, pod);
        if !identity_matches(self.set, pod) || !storage_matches || !owners.is_empty() {
            lane.extend(self.update_pod(pod, storage_matches, owners));
        }
        (lane, Continue(()))
    }

    /// The claims first, then the pod, then the claims' owners (R29b).
    fn create(&self, ordinal: i32) -> Lane {
        let revision = revision_for(self.set, self.history, ordinal);
        let pod = new_pod(self.set, revision, ordinal);
        let mut claims = claims::names(self.set, ordinal).filter_map(|name| self.claim(&name));
        if claims.any(|claim| claims::blocks_creation(self.set, claim, &pod)) {
            return vec![];
        }
        let mut lane = self.create_claims(&pod, Some(Verb::Create));
        let owners = self.own_claims(&pod, false);
        lane.push(Action::CreatePod(Box::new(pod)));
        lane.extend(owners);
        lane
    }

    /// Create the claims that are missing. One on its way out has to be waited for (R44).
    fn create_claims(&self, pod: &Pod, part_of: Option<Verb>) -> Lane {
        let Some(ordinal) = ordinal(pod) else {
            return vec![];
        };
        let mut lane = vec![];
        let mut terminating = vec![];
        for claim in claims::new_claims(self.set, ordinal) {
            match self.claim(&claim.name_any()) {
                None => lane.push(Action::CreateClaim {
                    claim: Box::new(claim),
                    pod: pod.name_any(),
                    part_of,
                }),
                Some(there) if there.metadata.deletion_timestamp.is_some() => {
                    terminating.push(format!("pvc {} is being deleted", there.name_any()));
                }
                Some(_) => {}
            }
        }
        if !terminating.is_empty() {
            let message = match &terminating[..] {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            lane.push(Action::Refuse {
                pod: pod.name_any(),
                verb: part_of,
                message,
            });
        }
        lane
    }

    /// Bring the owners of the pod's claims in line with the retention policy (R45). A claim that is not there is
    /// one that the same lane creates.
    fn own_claims(&self, pod: &Pod, is_condemned: bool) -> Lane {
        let Some(ordinal) = ordinal(pod) else {
            return vec![];
        };
        let mut lane = vec![];
        for new in claims::new_claims(self.set, ordinal) {
            let there = self.claim(&new.name_any());
            if is_condemned && there.is_none() {
                continue;
            }
            let claim = there.unwrap_or(&new);
            let owners = claims::owners_to_set(claim, self.set, pod, is_condemned);
            let is_being_created = !is_created(pod);
            if (is_being_created || owners.is_some())
                && claims::has_unexpected_controller(claim, self.set, pod)
            {
                lane.push(Action::Tell(event::conflicting_controller(&claim.name_any())));
            }
            lane.extend(owners.map(|owners| Action::OwnClaim {
                name: claim.name_any(),
                resource_version: claim.resource_version(),
                owners,
                pod: pod.name_any(),
                is_told: !is_condemned,
            }));
        }
        lane
    }

    /// Give a pod its name's labels and its claims' volumes (R24, R25, R29e).
    fn update_pod(&self, pod: &Pod, storage_matches: bool, owners: Lane) -> Lane {
        let Some(ordinal) = ordinal(pod) else {
            return vec![];
        };
        let mut lane = if storage_matches {
            vec![]
        } else {
            self.create_claims(pod, Some(Verb::Update))
        };
        lane.extend(owners);
        let others = pod.spec.as_ref().and_then(|spec| spec.volumes.clone());
        lane.push(Action::UpdatePod {
            name: pod.name_any(),
            resource_version: pod.resource_version(),
            labels: identity_labels(&pod_name(self.set, ordinal), ordinal),
            volumes: (!storage_matches)
                .then(|| claims::volumes(self.set, ordinal, others))
                .flatten(),
        });
        lane
    }

    /// Before a condemned pod goes its claims get the owner that lets them go with it (R31).
    fn fix_owners_of_condemned_claims(&mut self) {
        let lanes = self
            .condemned
            .iter()
            .map(|pod| self.own_claims(pod, true))
            .collect();
        self.add_lanes(lanes);
    }

    /// From the top: one at a time and only while all is well, or all at once (R31).
    fn remove_condemned(&mut self) -> ControlFlow<()> {
        if !self.is_ordered {
            let staying = self.condemned.iter().filter(|pod| !is_terminating(pod));
            let lanes = staying.map(|pod| vec![delete(pod)]).collect();
            self.add_lanes(lanes);
            return Continue(());
        }
        let Some(pod) = self.condemned.first() else {
            return Continue(());
        };
        let is_well = is_ready(pod) && self.is_available(pod);
        if !is_terminating(pod) && (is_well || self.is_first_unavailable(pod)) {
            self.steps.push(vec![vec![delete(pod)]]);
        }
        Break(())
    }

    /// Whether everything below the condemned pod is available: then it may go though it is not.
    fn is_first_unavailable(&self, pod: &Pod) -> bool {
        let below = self
            .condemned
            .iter()
            .filter(|other| ordinal(other) < ordinal(pod));
        self.unavailable() == 0 && !below.into_iter().any(|other| self.is_unavailable(other))
    }

    /// Delete pods of an old revision, so that they come back at the new one (R33–R37).
    ///
    /// `maxUnavailable` pods may be unavailable at once, wherever they are. Pods of an old revision that are
    /// unavailable already make nothing worse by being replaced, so they are, whatever the budget: a Parallel set
    /// recovers from a bad rollout. An OrderedReady set never gets here while a pod is unavailable.
    fn update(&mut self) -> ControlFlow<()> {
        let strategy = self
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.clone())
            .unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return Break(());
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        // An index, not an ordinal (R33).
        let lowest = self.range.start.saturating_add(rolling.partition.unwrap_or(0));
        let budget = max_unavailable(rolling.max_unavailable.as_ref(), self.range.len());
        let is_broken = |pod: &&Pod| self.is_unavailable(pod);
        // One that has finished has been deleted above.
        let is_outdated = |pod: &&Pod| {
            !is_terminating(pod) && !is_finished(pod) && revision_of(pod) != self.history.update.name
        };
        let from_the_top = self
            .replicas
            .range(lowest..)
            .rev()
            .map(|(_, pod)| *pod)
            .filter(is_outdated);
        let (broken, well): (Vec<_>, Vec<_>) = from_the_top.partition(is_broken);
        let well = well.into_iter().take(budget.saturating_sub(self.unavailable()));
        let deletes: Vec<_> = broken
            .into_iter()
            .chain(well)
            .map(|pod| vec![delete(pod)])
            .collect();
        self.deleted_for_update = i32::try_from(deletes.len()).unwrap_or(i32::MAX);
        self.add_lanes(deletes);
        Continue(())
    }

    /// How many of the pods that there should be are unavailable, or not there at all.
    fn unavailable(&self) -> usize {
        let available = self
            .replicas
            .values()
            .filter(|pod| !self.is_unavailable(pod))
            .count();
        self.range.len() - available
    }

    /// An ordered set does one after the other, a parallel one all at once.
    fn add_lanes(&mut self, mut lanes: Vec<Lane>) {
        lanes.retain(|lane| !lane.is_empty());
        if lanes.is_empty() {
            return;
        }
        if self.is_ordered {
            self.steps.extend(lanes.into_iter().map(|lane| vec![lane]));
        } else {
            self.steps.push(lanes);
        }
    }

    fn claim(&self, name: &str) -> Option<&PersistentVolumeClaim> {
        self.observed.claims.get(name).map(|claim| &**claim)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready_seconds, self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        is_unavailable(pod, self.min_ready_seconds, self.now)
    }
}

fn delete(pod: &Pod) -> Action {
    Action::DeletePod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    }
}

/// Which revision a missing ordinal gets (R26).
fn revision_for<'a>(set: &StatefulSet, history: &'a History, ordinal: i32) -> &'a Revision {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.clone())
        .unwrap_or_default();
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
