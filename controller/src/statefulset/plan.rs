//! What to do about a set: a pure function of what was observed and the time.
//!
//! It reads like a sync of upstream's controller: adopt and release, find the revisions, bring every
//! replica in order, then remove the condemned pods, then update, and count. Nothing later is done while something
//! earlier has to be waited for. Each sync does one step; what it changes brings the next.

use super::action::{Action, Lane, Plan, Step, Verb};
use super::claims;
use super::condition::{Outlook, conditions};
use super::event;
use super::growth::growth;
use super::identity::{
    available_after, identity_labels, identity_matches, is_available, is_created, is_finished, is_pending,
    is_ready, is_terminating, is_unavailable, new_pod, ordinal, pod_name, range,
};
use super::members::members;
use super::observed::Observed;
use super::revision::{History, history};
use super::rollout::revision_for;
use super::service;
use super::status;
use super::wait::Wait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::ops::Range;

/// How many pods are created in one sync at most.
const MOST_CREATED: usize = 1000;

/// How many things that a parallel set waits for are told at most.
const MOST_WAITS: usize = 10;

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
    observed: &'a Observed,
    pub(super) set: &'a StatefulSet,
    pub(super) history: &'a History,
    pub(super) now: Timestamp,
    pub(super) min_ready_seconds: i32,
    /// OrderedReady: one thing at a time. (Else Parallel: everything at once.)
    is_ordered: bool,
    /// The ordinals that there should be a pod for (R28).
    pub(super) range: Range<i32>,
    /// The pods in the range.
    pub(super) replicas: BTreeMap<i32, &'a Pod>,
    /// Pods out of the range, the highest ordinal first.
    condemned: Vec<&'a Pod>,
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

    /// What one replica needs, and whether an ordered set may go on to the next.
    fn bring_in_order(&mut self, ordinal: i32, pod: &'a Pod) -> (Lane, ControlFlow<()>) {
        // Finished, well or not: it has to run again, once it is really gone (R29a).
        if is_finished(pod) && !is_terminating(pod) {
            return (vec![delete(pod)], Break(()));
        }
        let replacement = self.wait_for(ordinal, pod);
        if is_finished(pod) {
            return (vec![], Break(()));
        }
        let mut lane = vec![];
        let mut owners = self.own_claims(pod, false);
        if is_pending(pod) {
            lane = self.create_claims(pod, None);
            lane.append(&mut owners);
        }
        if self.is_ordered && (is_terminating(pod) || !is_ready(pod) || !self.is_available(pod)) {
            lane.extend(replacement);
            return (lane, Break(()));
        }
        let storage_matches = claims::storage_matches(self.set, pod);
        if !identity_matches(self.set, pod) || !storage_matches || !owners.is_empty() {
            lane.extend(self.update_pod(pod, storage_matches, owners));
        }
        (lane, Continue(()))
    }

    /// Say what keeps a replica from being available, and what an ordered set does not do before it is. A pod that
    /// it would wait for in vain may be replaced instead.
    fn wait_for(&mut self, ordinal: i32, pod: &'a Pod) -> Lane {
        if self.is_ordered
            && let Some(lane) = self.unblock(pod)
        {
            return lane;
        }
        // A parallel set may have many that are on their way; it does not depend on them.
        if self.waits.len() < MOST_WAITS
            && let Some(wait) = Wait::for_pod(pod, self.min_ready_seconds, self.now)
        {
            let held_up = if self.is_ordered {
                self.held_up_by(ordinal)
            } else {
                None
            };
            self.waits.push(wait.holding_up(held_up));
        }
        vec![]
    }

    /// What an ordered set does next once the replica at `ordinal` is available.
    fn held_up_by(&self, ordinal: i32) -> Option<String> {
        let missing = (ordinal + 1..self.range.end).find(|above| !self.replicas.contains_key(above));
        if let Some(above) = missing {
            return Some(format!("the creation of Pod {}", pod_name(self.set, above)));
        }
        if let Some(pod) = self.condemned.first() {
            return Some(format!("the removal of Pod {}", pod.name_any()));
        }
        (!self.outdated().is_empty()).then(|| format!("the update to revision {}", self.history.update.name))
    }

    /// The claims first, then the pod, then the claims' owners (R29b).
    fn create(&mut self, ordinal: i32) -> Lane {
        let revision = revision_for(self.set, self.history, ordinal);
        let pod = new_pod(self.set, revision, ordinal);
        let name = pod.name_any();
        for claim in claims::names(self.set, ordinal) {
            let Some(claim) = self.claim(&claim) else { continue };
            let is_stale = claims::blocks_creation(self.set, claim, &pod);
            if is_stale || is_going(claim) {
                self.waits.push(Wait::for_claim(claim, &name));
            }
            if is_stale {
                return vec![];
            }
        }
        let mut lane = self.create_claims(&pod, Some(Verb::Create));
        // Trying to take the name would fail until it is free, and that is seen (R9).
        let mut others = self.observed.pods.iter();
        if let Some(taken) = others.find(|there| there.metadata.name == pod.metadata.name) {
            self.waits.push(Wait::for_name(taken, self.set, self.now));
            return lane;
        }
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
                Some(there) if is_going(there) => {
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
            // Of a missing claim there is nothing to own, unless it is being made.
            if there.is_none() && (is_condemned || !makes_claims(pod)) {
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
        let mut lane = if storage_matches || makes_claims(pod) {
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

    fn claim(&self, name: &str) -> Option<&PersistentVolumeClaim> {
        self.observed.claims.get(name).map(|claim| &**claim)
    }

    fn is_available_now(&self, pod: &Pod) -> bool {
        is_ready(pod) && self.is_available(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready_seconds, self.now)
    }

    pub(super) fn is_unavailable(&self, pod: &Pod) -> bool {
        is_unavailable(pod, self.min_ready_seconds, self.now)
    }
}

/// Whether the claims that the pod lacks are made: it is itself being made, or has not started (R29b, R29c).
fn makes_claims(pod: &Pod) -> bool {
    pod.metadata.uid.is_none() || is_pending(pod)
}

fn is_going(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}

pub(super) fn delete(pod: &Pod) -> Action {
    Action::DeletePod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    }
}
