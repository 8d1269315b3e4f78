//! One replica: what its pod and its claims need, and what it is waited for (R29).

use super::action::{Action, Lane, Verb};
use super::identity::{
    identity_labels, identity_matches, is_created, is_finished, is_pending, is_ready, is_terminating,
    new_pod, ordinal, pod_name,
};
use super::plan::{MOST_WAITS, Sync, delete};
use super::rollout::revision_for;
use super::wait::Wait;
use super::{claims, event};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use std::ops::ControlFlow::{self, Break, Continue};

impl<'a> Sync<'a> {
    /// What one replica needs, and whether an ordered set may go on to the next.
    pub(super) fn bring_in_order(&mut self, ordinal: i32, pod: &'a Pod) -> (Lane, ControlFlow<()>) {
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
    pub(super) fn create(&mut self, ordinal: i32) -> Lane {
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
    pub(super) fn own_claims(&self, pod: &Pod, is_condemned: bool) -> Lane {
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

    fn claim(&self, name: &str) -> Option<&PersistentVolumeClaim> {
        self.observed.claims.get(name).map(|claim| &**claim)
    }
}

/// Whether the claims that the pod lacks are made: it is itself being made, or has not started (R29b, R29c).
fn makes_claims(pod: &Pod) -> bool {
    pod.metadata.uid.is_none() || is_pending(pod)
}

fn is_going(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}
