//! What has to hold in every state of the model.

use super::{
    Claims, ORDINALS, Owner, Phase, Pods, SmallPod, Spec, State, Watched, World, Write, is_orphaned,
};
use stateright::Property;
use std::sync::PoisonError;

/// A set, its pods and its claims, without what the controller knows of them.
pub type Alone = (Spec, u8, Pods, Claims);

pub const REASON: &str = "a pod is deleted only if it ended, is not wanted, or is to be replaced";
const ORDER: &str = "undisturbed, an ordered set creates no pod before its predecessors are ready";
const ONE_DOWN: &str = "undisturbed, an ordered rollout takes down one pod at a time";
const DOOMED: &str = "no pod is created onto a claim that goes with an earlier pod";
const RETAINED: &str = "a claim goes only with what the policy says";
const GOAL: &str = "left alone, the set becomes what it should be";

pub fn properties() -> Vec<Property<World>> {
    vec![
        Property::always(REASON, |_, state: &State| state.wrong != Some(REASON)),
        Property::always(ORDER, |_, state: &State| state.wrong != Some(ORDER)),
        Property::always(ONE_DOWN, |_, state: &State| state.wrong != Some(ONE_DOWN)),
        Property::always(DOOMED, |_, state: &State| state.wrong != Some(DOOMED)),
        Property::always(RETAINED, is_retained),
        Property::always(GOAL, World::gets_there),
        // That the dangers are there at all:
        Property::sometimes(
            "a delete is for an earlier pod of that name",
            |world: &World, state: &State| {
                let is_another =
                    |ordinal: usize, uid| state.pods.now()[ordinal].is_some_and(|pod| pod.uid != uid);
                world.budget.late == 0
                    || matches!(state.late, Some((Write::DeletePod { ordinal, uid }, _)) if is_another(ordinal, uid))
            },
        ),
        Property::sometimes(
            "a wanted pod waits for an earlier pod's claim to go",
            |world: &World, state: &State| {
                let (pods, claims) = (state.pods.now(), state.claims.now());
                let waits = |it: usize| {
                    pods[it].is_none() && claims[it].is_some_and(|claim| is_orphaned(claim, &pods))
                };
                !world.objects.settings().deletes_when_scaled()
                    || (0..usize::from(state.spec.replicas)).any(waits)
            },
        ),
        Property::sometimes("a plan is for a spec that has changed", |_, state: &State| {
            !state.writes.is_empty() && state.decided_for != state.spec
        }),
        Property::sometimes("a rollout completes", |world: &World, state: &State| {
            world.second_is_bad || state.current != world.start.template
        }),
    ]
}

/// The rule that a write breaks, if it does.
pub fn broken_by(world: &World, state: &State, write: Write) -> Option<&'static str> {
    let (pods, claims) = (state.pods.now(), state.claims.now());
    let replicas = usize::from(state.decided_for.replicas);
    let is_ordered = world.objects.settings().is_ordered;
    let is_undisturbed = state.left.deletes == world.budget.deletes
        && state.left.faults == world.budget.faults
        && state.left.late == world.budget.late
        && state.left.impatience == world.budget.impatience;
    let all_well =
        |mut range: std::ops::Range<usize>| range.all(|it| pods[it].is_some_and(SmallPod::is_well));
    if is_without_reason(world, state, write, state.decided_for) {
        return Some(REASON);
    }
    match write {
        Write::CreatePod { ordinal, .. } if pods[ordinal].is_none() => {
            if is_ordered && is_undisturbed && !all_well(0..ordinal) {
                return Some(ORDER);
            }
            let is_doomed = claims[ordinal].is_some_and(|claim| is_orphaned(claim, &pods));
            is_doomed.then_some(DOOMED)
        }
        Write::DeletePod { ordinal, .. } => {
            let is_update = ordinal < replicas && pods[ordinal].is_some_and(SmallPod::is_well);
            let others_well = all_well(0..ordinal) && all_well(ordinal + 1..replicas.max(ordinal + 1));
            // What is unblocked may have become ready since it was seen.
            let is_one_more = is_update && !others_well && !world.objects.settings().unblocks;
            (is_ordered && is_undisturbed && is_one_more).then_some(ONE_DOWN)
        }
        _ => None,
    }
}

/// Whether a write deletes a pod that has not ended, is wanted by the spec that the write was decided for, and is of
/// its template. (What a request meets that is for an earlier pod the API decides: it heeds UIDs.)
pub fn is_without_reason(world: &World, state: &State, write: Write, decided_for: Spec) -> bool {
    let Write::DeletePod { ordinal, uid } = write else {
        return false;
    };
    let pod = state.pods.now()[ordinal].filter(|pod| pod.uid == uid || !world.heeds_uids);
    pod.is_some_and(|pod| {
        let is_wanted = ordinal < usize::from(decided_for.replicas);
        pod.phase != Phase::Failed && is_wanted && pod.template == decided_for.template
    })
}

/// R45 at any moment: no owner that the policy does not know.
fn is_retained(world: &World, state: &State) -> bool {
    let (when_deleted, when_scaled) = world.objects.settings().retention.unwrap_or((false, false));
    state
        .claims
        .now()
        .iter()
        .flatten()
        .all(|claim| match claim.owner {
            Owner::Nobody => true,
            Owner::Set => when_deleted,
            Owner::Pod(_) => when_scaled,
        })
}

impl World {
    /// With nobody who interferes and a kubelet that works, whatever the state, the set becomes what it should be.
    fn gets_there(&self, state: &State) -> bool {
        let mut state = state.clone();
        while !state.writes.is_empty() {
            self.write(&mut state);
        }
        state.pods.list();
        state.claims.list();
        let state = state.canonical();
        let start = (state.spec, state.current, state.pods.now(), state.claims.now());
        if let Some(known) = self
            .ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&start)
        {
            return *known;
        }
        let gets_there = self.is_excused(start) || self.left_alone(state);
        self.ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(start, gets_there);
        gets_there
    }

    /// As in Kubernetes, an ordered set cannot remove two pods that have both ended.
    fn is_excused(&self, (spec, _, pods, _): Alone) -> bool {
        let condemned = pods[usize::from(spec.replicas)..].iter().flatten();
        let ended = condemned.filter(|pod| pod.phase == Phase::Failed && !pod.is_terminating);
        let is_hopeless = self.second_is_bad && spec.template == 1;
        is_hopeless || self.objects.settings().is_ordered && ended.count() > 1
    }

    fn left_alone(&self, mut state: State) -> bool {
        for _ in 0..60 {
            let before = (state.spec, state.current, state.pods.now(), state.claims.now());
            state.decided_for = state.spec;
            state.writes = self.objects.plan(before.0, before.1, before.2, before.3);
            while !state.writes.is_empty() {
                self.write(&mut state);
            }
            for ordinal in 0..ORDINALS {
                let pod = state.pods.now()[ordinal];
                let can_run = self.can_run(&state, ordinal);
                let pod = pod.filter(|pod| !pod.is_terminating).map(|pod| match pod.phase {
                    Phase::Pending | Phase::Unready if can_run => SmallPod {
                        phase: Phase::Ready,
                        ..pod
                    },
                    _ => pod,
                });
                self.set_pod(&mut state, ordinal, pod);
                self.collect(&mut state, ordinal);
            }
            state.pods = Watched::new(state.pods.now());
            state.claims = Watched::new(state.claims.now());
            state = state.canonical();
            if before == (state.spec, state.current, state.pods.now(), state.claims.now()) {
                return self.is_goal(before);
            }
        }
        false
    }

    fn is_goal(&self, (spec, current, pods, claims): Alone) -> bool {
        let is_right = |ordinal: usize| match pods[ordinal] {
            Some(pod) => {
                ordinal < usize::from(spec.replicas) && pod.is_well() && pod.template == spec.template
            }
            None => ordinal >= usize::from(spec.replicas),
        };
        let (when_deleted, _) = self.objects.settings().retention.unwrap_or((false, false));
        let owner = if when_deleted { Owner::Set } else { Owner::Nobody };
        let is_kept = |ordinal: usize| {
            let claim = claims[ordinal];
            !self.objects.has_claims()
                || ordinal >= usize::from(spec.replicas)
                || claim.is_some_and(|claim| claim.owner == owner)
        };
        current == spec.template && (0..ORDINALS).all(|ordinal| is_right(ordinal) && is_kept(ordinal))
    }
}
