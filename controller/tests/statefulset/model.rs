//! A model check of the plan with `stateright`: every state that a small set can get into while its controller decides
//! by what its watches have shown so far and may crash between any two writes, users scale, roll out and delete, pods
//! fail and claims are collected.
//!
//! The set is read afresh for each plan; pods and claims are seen late, each kind in its own time but in order, and the
//! controller waits for its own writes to be seen. What it writes carries the UID or the version that it decided by.
//! Revisions are left out: both templates' are always there.

mod objects;
mod rules;

use objects::Objects;
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::HashMap;
use std::sync::Mutex;

/// Ordinals 0, 1 and 2 exist.
pub const ORDINALS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Pending,
    Unready,
    Ready,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SmallPod {
    pub uid: u8,
    pub phase: Phase,
    pub is_terminating: bool,
    pub template: u8,
}

impl SmallPod {
    pub fn is_well(self) -> bool {
        self.phase == Phase::Ready && !self.is_terminating
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Nobody,
    Set,
    /// The pod of this UID.
    Pod(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SmallClaim {
    pub owner: Owner,
    pub is_terminating: bool,
}

pub type Pods = [Option<SmallPod>; ORDINALS];
pub type Claims = [Option<SmallClaim>; ORDINALS];

/// What users decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    pub replicas: u8,
    pub template: u8,
}

/// Objects of one kind: what the controller has seen of them, and what it will see next, the last being what is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watched<T> {
    seen: T,
    coming: Vec<T>,
    /// How much of what is coming has to be seen before the next plan, because the controller wrote it.
    owed: usize,
}

impl<T: Copy + PartialEq> Watched<T> {
    fn new(seen: T) -> Self {
        let coming = vec![];
        Self {
            seen,
            coming,
            owed: 0,
        }
    }

    pub fn now(&self) -> T {
        self.coming.last().copied().unwrap_or(self.seen)
    }

    /// Something changes. A watch is not further behind than `lag`.
    fn change(&mut self, now: T, lag: usize) {
        if now != self.now() {
            self.coming.push(now);
            if self.coming.len() > lag {
                self.see();
            }
        }
    }

    fn see(&mut self) {
        self.seen = self.coming.remove(0);
        self.owed = self.owed.saturating_sub(1);
    }

    /// A list shows what is.
    fn list(&mut self) {
        *self = Self::new(self.now());
    }
}

/// One write of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    CreatePod {
        ordinal: usize,
        template: u8,
    },
    DeletePod {
        ordinal: usize,
        uid: u8,
    },
    UpdatePod {
        ordinal: usize,
        was: SmallPod,
    },
    CreateClaim {
        ordinal: usize,
    },
    OwnClaim {
        ordinal: usize,
        was: Option<SmallClaim>,
        owner: Owner,
    },
    /// Nothing can be done now.
    Refuse,
    /// The template that the set was rolled out to.
    Status {
        current: u8,
    },
}

/// How much may still go wrong or be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    pub edits: u8,
    pub deletes: u8,
    pub faults: u8,
    pub crashes: u8,
    /// How many crashes leave a request under way that arrives later.
    pub late: u8,
    /// How often the controller does not wait for its own writes to be seen.
    pub impatience: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub spec: Spec,
    /// `status.currentRevision`.
    pub current: u8,
    pub pods: Watched<Pods>,
    pub claims: Watched<Claims>,
    /// What is left of the plan that is being carried out, and the spec that it was made for.
    pub writes: Vec<Write>,
    pub decided_for: Spec,
    /// A request that was under way when the controller crashed, and may still arrive.
    pub late: Option<(Write, Spec)>,
    pub left: Budget,
    /// A rule was broken on the way here.
    pub wrong: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Plan,
    Write,
    Crash {
        leaves_request: bool,
    },
    /// What was under way when the controller crashed arrives.
    Arrive,
    SeePods,
    SeeClaims,
    Kubelet(usize, Phase),
    Gone(usize),
    Collect(usize),
    Edit(Spec),
    DeletePod(usize),
    DeleteClaim(usize),
}

/// One kind of set, and what may happen to it.
pub struct World {
    pub objects: Objects,
    pub start: Spec,
    pub budget: Budget,
    /// How many changes a watch may be behind.
    pub lag: usize,
    /// Whether the API heeds the UID that a delete is for.
    pub heeds_uids: bool,
    /// Whether pods of the second template never get ready.
    pub second_is_bad: bool,
    /// Where sets end up that are left alone, by where they were.
    pub ends: Mutex<HashMap<rules::Alone, bool>>,
}

impl World {
    fn can_run(&self, state: &State, ordinal: usize) -> bool {
        let pod = state.pods.now()[ordinal];
        let is_bad = self.second_is_bad && pod.is_some_and(|pod| pod.template == 1);
        let claim = state.claims.now()[ordinal];
        !is_bad && (!self.objects.has_claims() || claim.is_some_and(|claim| !claim.is_terminating))
    }

    fn set_pod(&self, state: &mut State, ordinal: usize, pod: Option<SmallPod>) {
        let mut pods = state.pods.now();
        pods[ordinal] = pod;
        state.pods.change(pods, self.lag);
    }

    fn set_claim(&self, state: &mut State, ordinal: usize, claim: Option<SmallClaim>) {
        let mut claims = state.claims.now();
        claims[ordinal] = claim;
        state.claims.change(claims, self.lag);
    }

    /// A claim is deleted, and stays while a pod that has been placed uses it.
    fn delete_claim(&self, state: &mut State, ordinal: usize) {
        let is_used = state.pods.now()[ordinal].is_some_and(|pod| pod.phase != Phase::Pending);
        let claim = state.claims.now()[ordinal].filter(|_| is_used);
        let claim = claim.map(|claim| SmallClaim {
            is_terminating: true,
            ..claim
        });
        self.set_claim(state, ordinal, claim);
    }

    /// What the garbage collector and the claim's protection do about it, if anything.
    fn collect(&self, state: &mut State, ordinal: usize) {
        let Some(claim) = state.claims.now()[ordinal] else {
            return;
        };
        if claim.is_terminating || is_orphaned(claim, &state.pods.now()) {
            self.delete_claim(state, ordinal);
        }
    }

    /// Do the next write as the API does; a refusal ends the plan but for its status.
    fn write(&self, state: &mut State) {
        let write = state.writes.remove(0);
        if let Some(broken) = rules::broken_by(self, state, write) {
            state.wrong = Some(broken);
        }
        if let Err(()) = self.do_write(state, write) {
            state.writes.retain(|write| matches!(write, Write::Status { .. }));
        }
        // What was just written is what has to be seen before the next plan.
        match write {
            Write::CreatePod { .. } | Write::DeletePod { .. } | Write::UpdatePod { .. } => {
                state.pods.owed = state.pods.coming.len();
            }
            Write::CreateClaim { .. } | Write::OwnClaim { .. } => {
                state.claims.owed = state.claims.coming.len();
            }
            Write::Refuse | Write::Status { .. } => {}
        }
    }

    fn do_write(&self, state: &mut State, write: Write) -> Result<(), ()> {
        let (pods, claims) = (state.pods.now(), state.claims.now());
        match write {
            Write::CreatePod { ordinal, template } => {
                if pods[ordinal].is_some() {
                    return Err(());
                }
                let uid = state.free_uid();
                let phase = Phase::Pending;
                self.set_pod(
                    state,
                    ordinal,
                    Some(SmallPod {
                        uid,
                        phase,
                        is_terminating: false,
                        template,
                    }),
                );
            }
            Write::DeletePod { ordinal, uid } => {
                let Some(pod) = pods[ordinal] else { return Ok(()) };
                if pod.uid != uid && self.heeds_uids {
                    return Err(());
                }
                self.set_pod(
                    state,
                    ordinal,
                    Some(SmallPod {
                        is_terminating: true,
                        ..pod
                    }),
                );
            }
            Write::UpdatePod { ordinal, was } => {
                if pods[ordinal] != Some(was) {
                    return Err(());
                }
            }
            Write::CreateClaim { ordinal } => {
                if claims[ordinal].is_some() {
                    return Err(());
                }
                let claim = SmallClaim {
                    owner: Owner::Nobody,
                    is_terminating: false,
                };
                self.set_claim(state, ordinal, Some(claim));
            }
            Write::OwnClaim { ordinal, was, owner } => {
                let claim = claims[ordinal].ok_or(())?;
                if was.is_some_and(|was| was != claim) {
                    return Err(());
                }
                self.set_claim(state, ordinal, Some(SmallClaim { owner, ..claim }));
            }
            Write::Refuse => return Err(()),
            Write::Status { current } => state.current = current,
        }
        Ok(())
    }
}

/// Whether a claim belongs to a pod that is gone.
pub fn is_orphaned(claim: SmallClaim, pods: &Pods) -> bool {
    matches!(claim.owner, Owner::Pod(uid) if pods.iter().flatten().all(|pod| pod.uid != uid))
}

impl State {
    /// Every place that names a pod.
    fn uids(&mut self) -> Vec<&mut u8> {
        let pods = self
            .pods
            .coming
            .iter_mut()
            .chain([&mut self.pods.seen])
            .flatten()
            .flatten();
        let mut uids: Vec<_> = pods.map(|pod| &mut pod.uid).collect();
        let claims = self
            .claims
            .coming
            .iter_mut()
            .chain([&mut self.claims.seen])
            .flatten()
            .flatten();
        let late = self.late.iter_mut().map(|(write, _)| write);
        let writes = self.writes.iter_mut().chain(late);
        let mut owners: Vec<_> = claims.map(|claim| &mut claim.owner).collect();
        for write in writes {
            match write {
                Write::DeletePod { uid, .. } => uids.push(uid),
                Write::UpdatePod { was, .. } => uids.push(&mut was.uid),
                Write::OwnClaim { was, owner, .. } => {
                    owners.push(owner);
                    owners.extend(was.as_mut().map(|was| &mut was.owner));
                }
                _ => {}
            }
        }
        uids.extend(owners.into_iter().filter_map(|owner| match owner {
            Owner::Pod(uid) => Some(uid),
            _ => None,
        }));
        uids
    }

    /// A UID that nothing mentions.
    fn free_uid(&mut self) -> u8 {
        let used: Vec<_> = self.uids().into_iter().map(|uid| *uid).collect();
        (0..)
            .find(|uid| !used.contains(uid))
            .expect("few pods are mentioned")
    }

    /// UIDs mean nothing but who is who: the same state with the first that is mentioned as 0, the next as 1, ….
    fn canonical(mut self) -> Self {
        let mut known = vec![];
        for uid in self.uids() {
            let number = known.iter().position(|known| known == uid).unwrap_or_else(|| {
                known.push(*uid);
                known.len() - 1
            });
            *uid = u8::try_from(number).expect("few pods are mentioned");
        }
        self
    }
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            spec: self.start,
            current: self.start.template,
            pods: Watched::new([None; ORDINALS]),
            claims: Watched::new([None; ORDINALS]),
            writes: vec![],
            decided_for: self.start,
            late: None,
            left: self.budget,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.writes.is_empty() {
            let has_seen_all = state.pods.owed + state.claims.owed == 0;
            steps.extend((has_seen_all || state.left.impatience > 0).then_some(Step::Plan));
        } else {
            steps.push(Step::Write);
        }
        // Whoever crashes without a plan half done and with nothing to see has nothing to forget.
        let has_state =
            !state.writes.is_empty() || !state.pods.coming.is_empty() || !state.claims.coming.is_empty();
        if state.left.crashes > 0 && has_state {
            steps.push(Step::Crash {
                leaves_request: false,
            });
            let can_leave = state.left.late > 0 && !state.writes.is_empty();
            steps.extend(can_leave.then_some(Step::Crash { leaves_request: true }));
        }
        steps.extend(state.late.map(|_| Step::Arrive));
        steps.extend((!state.pods.coming.is_empty()).then_some(Step::SeePods));
        steps.extend((!state.claims.coming.is_empty()).then_some(Step::SeeClaims));
        for (ordinal, pod) in state.pods.now().into_iter().enumerate() {
            let Some(pod) = pod else { continue };
            if pod.is_terminating {
                steps.push(Step::Gone(ordinal));
            } else if state.left.deletes > 0 {
                steps.push(Step::DeletePod(ordinal));
            }
            let can_run = self.can_run(state, ordinal);
            if matches!(pod.phase, Phase::Pending | Phase::Unready) && can_run && !pod.is_terminating {
                steps.push(Step::Kubelet(ordinal, Phase::Ready));
            }
            if state.left.faults > 0 && !pod.is_terminating {
                match pod.phase {
                    Phase::Ready => {
                        steps.push(Step::Kubelet(ordinal, Phase::Unready));
                        steps.push(Step::Kubelet(ordinal, Phase::Failed));
                    }
                    Phase::Pending => steps.push(Step::Kubelet(ordinal, Phase::Failed)),
                    Phase::Unready | Phase::Failed => {}
                }
            }
        }
        for (ordinal, claim) in state.claims.now().into_iter().enumerate() {
            let Some(claim) = claim else { continue };
            if claim.is_terminating || is_orphaned(claim, &state.pods.now()) {
                steps.push(Step::Collect(ordinal));
            } else if state.left.deletes > 0 {
                steps.push(Step::DeleteClaim(ordinal));
            }
        }
        if state.left.edits > 0 {
            let Spec { replicas, template } = state.spec;
            let most = u8::try_from(ORDINALS).expect("few");
            steps.extend((replicas < most).then_some(Step::Edit(Spec {
                replicas: replicas + 1,
                template,
            })));
            steps.extend((replicas > 0).then_some(Step::Edit(Spec {
                replicas: replicas - 1,
                template,
            })));
            steps.push(Step::Edit(Spec {
                replicas,
                template: 1 - template,
            }));
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        let pods = state.pods.now();
        match step {
            Step::Plan => {
                if state.pods.owed + state.claims.owed > 0 {
                    state.left.impatience -= 1;
                }
                state.decided_for = state.spec;
                state.writes =
                    self.objects
                        .plan(state.spec, state.current, state.pods.seen, state.claims.seen);
                if state.writes.is_empty() {
                    return None;
                }
            }
            Step::Write => self.write(&mut state),
            Step::Crash { leaves_request } => {
                state.left.crashes -= 1;
                if leaves_request {
                    state.left.late -= 1;
                    state.late = state.writes.first().map(|write| (*write, state.decided_for));
                }
                state.writes.clear();
                state.pods.list();
                state.claims.list();
            }
            Step::Arrive => {
                let (write, decided_for) = state.late.take().expect("it is under way");
                if rules::is_without_reason(self, &state, write, decided_for) {
                    state.wrong = Some(rules::REASON);
                }
                // Nobody is left to hear that it was refused.
                let _ = self.do_write(&mut state, write);
            }
            Step::SeePods => state.pods.see(),
            Step::SeeClaims => state.claims.see(),
            Step::Kubelet(ordinal, phase) => {
                state.left.faults -= u8::from(phase != Phase::Ready);
                let pod = pods[ordinal].map(|pod| SmallPod { phase, ..pod });
                self.set_pod(&mut state, ordinal, pod);
            }
            Step::Gone(ordinal) => self.set_pod(&mut state, ordinal, None),
            Step::Collect(ordinal) => self.collect(&mut state, ordinal),
            Step::Edit(spec) => {
                state.left.edits -= 1;
                state.spec = spec;
            }
            Step::DeletePod(ordinal) => {
                state.left.deletes -= 1;
                let pod = pods[ordinal].map(|pod| SmallPod {
                    is_terminating: true,
                    ..pod
                });
                self.set_pod(&mut state, ordinal, pod);
            }
            Step::DeleteClaim(ordinal) => {
                state.left.deletes -= 1;
                self.delete_claim(&mut state, ordinal);
            }
        }
        if state.writes.is_empty() {
            state.decided_for = state.spec;
        }
        let state = state.canonical();
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        rules::properties()
    }
}

/// Check a world in all its states, and say how many there are.
fn explore(name: &str, world: World, at_least: usize) {
    let begun = std::time::Instant::now();
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    eprintln!(
        "{name}: {states} states, {} steps between them, in {:?}",
        checker.state_count(),
        begun.elapsed()
    );
    checker.assert_properties();
    assert!(states >= at_least, "{name}: only {states} states");
}

fn world(objects: Objects, budget: Budget) -> World {
    World {
        objects,
        start: Spec {
            replicas: 2,
            template: 0,
        },
        budget,
        lag: 2,
        heeds_uids: true,
        second_is_bad: false,
        ends: Mutex::default(),
    }
}

const BUDGET: Budget = Budget {
    edits: 2,
    deletes: 1,
    faults: 1,
    crashes: 1,
    late: 1,
    impatience: 0,
};

#[test]
fn an_ordered_set_survives_stale_caches_crashes_users_and_faults() {
    let budget = Budget { deletes: 0, ..BUDGET };
    explore("ordered", world(Objects::new(true, None, false), budget), 10_000);
}

#[test]
fn a_parallel_set_survives_stale_caches_crashes_users_and_faults() {
    let budget = Budget { edits: 1, ..BUDGET };
    explore(
        "parallel",
        world(Objects::new(false, None, false), budget),
        10_000,
    );
}

#[test]
fn claims_survive_too_whatever_the_policy() {
    for (name, is_ordered, retention) in [
        ("ordered, claims kept", true, None),
        ("ordered, claims deleted", true, Some((true, true))),
        ("parallel, claims deleted when scaled", false, Some((false, true))),
    ] {
        // Two edits: down, and up again while the claim of the pod that went is still there.
        let budget = Budget {
            deletes: u8::from(retention.is_none()),
            faults: 0,
            late: 0,
            ..BUDGET
        };
        explore(
            name,
            world(Objects::new(is_ordered, Some(retention), false), budget),
            4_000,
        );
    }
}

#[test]
fn a_controller_that_does_not_see_its_own_writes_does_no_harm_either() {
    for is_ordered in [true, false] {
        let budget = Budget {
            edits: 1,
            deletes: 0,
            crashes: 0,
            late: 0,
            impatience: 2,
            ..BUDGET
        };
        explore(
            "impatient",
            world(Objects::new(is_ordered, None, false), budget),
            5_000,
        );
    }
}

#[test]
fn an_unblocked_set_gets_over_a_template_whose_pods_never_get_ready() {
    let second_is_bad = true;
    let budget = Budget {
        deletes: 0,
        late: 0,
        ..BUDGET
    };
    let world = world(Objects::new(true, None, true), budget);
    explore(
        "unblocked",
        World {
            second_is_bad,
            ..world
        },
        10_000,
    );
}

#[test]
fn the_model_finds_the_harm_that_a_late_delete_does_where_uids_are_not_heeded() {
    let heeds_uids = false;
    let world = world(Objects::new(true, None, false), BUDGET);
    let checker = World { heeds_uids, ..world }.checker();
    let checker = checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker
        .discovery(rules::REASON)
        .expect("a pod that works is deleted");
    eprintln!("found: {:?}", found.into_actions());
}
