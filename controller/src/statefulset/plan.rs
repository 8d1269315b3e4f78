//! What to do about a set: a pure function of what was observed and the time.
//!
//! It reads like a sync of upstream's controller: adopt and release, find the revisions, bring every
//! replica in order, then remove the condemned pods, then update, and count. Nothing later is done while something
//! earlier has to be waited for. Each sync does one step; what it changes brings the next.

use super::action::{Action, Lane, Plan, Step};
use super::condition::{Outlook, conditions};
use super::growth::growth;
use super::identity::{
    available_after, is_available, is_ready, is_terminating, is_unavailable, ordinal, range,
};
use super::members::members;
use super::observed::Observed;
use super::revision::{History, history};
use super::service;
use super::status;
use super::wait::Wait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::ops::Range;

/// How many pods are created in one sync at most.
const MOST_CREATED: usize = 1000;

/// How many things that a parallel set waits for are told at most.
pub(super) const MOST_WAITS: usize = 10;

/// Decide what to do about a set.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let set = &observed.set;
    let (members, owning) = members(observed);
    let history = history(observed);
    let mut sync = Sync::new(observed, &history, &members, now);
    // A set that is being deleted is only counted (R47).
    let is_kept = set.metadata.deletion_timestamp.is_none();
    if is_kept {
        // Where it stopped does not matter: what it waits for brings the next sync.
        let _ = sync.run();
    }
    let growth = growth(observed);
    if is_kept {
        sync.add_lanes(growth.actions.clone());
    }
    let mut counts = status::count(&members, &history, sync.min_ready_seconds, now);
    counts.current -= sync.deleted_for_update;
    let mut status = status::status(set, &history, counts);
    let mut wake_at = wake_at(&members, sync.min_ready_seconds, now);
    let mut news = vec![];
    if is_kept {
        let outlook = Outlook {
            counts,
            revision: &history.update.name,
            left_behind: sync.left_behind(),
            is_acting: !sync.steps.is_empty() || history.write.is_some(),
            waits: &sync.waits,
            service: service::trouble(observed),
            growth: &growth,
        };
        let told;
        (status.conditions, told) = conditions(set, &outlook, now);
        news = told;
        wake_at = wake_at.into_iter().chain(outlook.next_due(now)).min();
    }
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
        waits: sync.waits,
        news,
        wake_at,
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
pub(super) struct Sync<'a> {
    pub(super) observed: &'a Observed,
    pub(super) set: &'a StatefulSet,
    pub(super) history: &'a History,
    pub(super) now: Timestamp,
    pub(super) min_ready_seconds: i32,
    /// OrderedReady: one thing at a time. (Else Parallel: everything at once.)
    pub(super) is_ordered: bool,
    /// The ordinals that there should be a pod for (R28).
    pub(super) range: Range<i32>,
    /// The pods in the range.
    pub(super) replicas: BTreeMap<i32, &'a Pod>,
    /// Pods out of the range, the highest ordinal first.
    pub(super) condemned: Vec<&'a Pod>,
    steps: Vec<Step>,
    /// What was waited for on the way.
    pub(super) waits: Vec<Wait>,
    pub(super) deleted_for_update: i32,
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
            waits: vec![],
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
            let (lane, then) = match self.replicas.get(&ordinal).copied() {
                Some(pod) => self.bring_in_order(ordinal, pod),
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
            let going = self.condemned.iter().filter(|pod| is_terminating(pod));
            let going = going.filter_map(|pod| Wait::for_pod(pod, 0, self.now));
            self.waits.extend(going.take(MOST_WAITS));
            self.add_lanes(lanes);
            return Continue(());
        }
        let Some(pod) = self.condemned.first() else {
            return Continue(());
        };
        let waiting_for = if is_terminating(pod) || self.is_available_now(pod) {
            is_terminating(pod).then_some(*pod)
        } else {
            self.first_unavailable()
                .filter(|first| first.metadata.name != pod.metadata.name)
        };
        match waiting_for {
            None => self.steps.push(vec![vec![delete(pod)]]),
            Some(first) => {
                let next = self.condemned.iter().find(|pod| !is_terminating(pod));
                let removal = next.map(|pod| format!("the removal of Pod {}", pod.name_any()));
                let wait = Wait::for_pod(first, self.min_ready_seconds, self.now);
                self.waits.extend(wait.map(|wait| wait.holding_up(removal)));
            }
        }
        Break(())
    }

    /// The lowest condemned pod that is unavailable: it may go though it is, those above wait for it. (No replica is:
    /// a condemned pod's turn comes when all of them are available.)
    fn first_unavailable(&self) -> Option<&'a Pod> {
        let unavailable = self.condemned.iter().rev().find(|pod| self.is_unavailable(pod));
        unavailable.copied()
    }

    /// How many of the pods that there should be are unavailable, or not there at all.
    pub(super) fn unavailable(&self) -> usize {
        let available = self
            .replicas
            .values()
            .filter(|pod| !self.is_unavailable(pod))
            .count();
        self.range.len() - available
    }

    /// An ordered set does one after the other, a parallel one all at once.
    pub(super) fn add_lanes(&mut self, mut lanes: Vec<Lane>) {
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

    fn is_available_now(&self, pod: &Pod) -> bool {
        is_ready(pod) && self.is_available(pod)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready_seconds, self.now)
    }

    pub(super) fn is_unavailable(&self, pod: &Pod) -> bool {
        is_unavailable(pod, self.min_ready_seconds, self.now)
    }
}

pub(super) fn delete(pod: &Pod) -> Action {
    Action::DeletePod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    }
}
