//! Every small state that a set's pods can get into, by whatever users, processes and the controller do, and what
//! must be true of the plan in each: upstream's monotonic invariants.

use controller::statefulset::action::{Action, Plan};
use controller::statefulset::plan::plan;
use controller::statefulset::{Observed, Surroundings};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ordinals 0, 1 and 2 exist; sets have up to three replicas.
const ORDINALS: usize = 3;

/// Enough to reach every state at least once that matters here; a bound for slow machines.
const MOST_STATES: usize = 12_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Pending,
    Running,
    Ready,
    Failed,
    Succeeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SmallPod {
    phase: Phase,
    terminating: bool,
    /// Which of the two templates it was made from.
    template: usize,
}

impl SmallPod {
    fn is_available(self) -> bool {
        self.phase == Phase::Ready && !self.terminating
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    replicas: usize,
    /// What the set's template is, and what status.currentRevision says.
    template: usize,
    current: usize,
    pods: [Option<SmallPod>; ORDINALS],
}

/// What does not change in one exploration.
struct Kind {
    policy: &'static str,
    strategy: Value,
    names: [String; 2],
    revisions: Vec<ControllerRevision>,
    /// What has been built already: parsing is what takes the time.
    sets: RefCell<HashMap<State, Observed>>,
    pods: RefCell<HashMap<(usize, SmallPod), Arc<Pod>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Did {
    Created(usize, usize),
    Deleted(usize),
}

fn set(kind: &Kind, state: &State) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": {"replicas": state.replicas, "podManagementPolicy": kind.policy, "updateStrategy": kind.strategy,
            "selector": {"matchLabels": {"app": "web"}}, "template": template(state.template)},
        "status": {"replicas": 0, "currentRevision": kind.names[state.current]},
    })
}

fn template(number: usize) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": number.to_string()}]}})
}

/// The revisions of both templates, as the controller itself makes them.
fn kind(policy: &'static str, strategy: Value) -> Kind {
    let mut kind = Kind {
        policy,
        strategy,
        names: Default::default(),
        revisions: vec![],
        sets: RefCell::default(),
        pods: RefCell::default(),
    };
    for number in 0..2 {
        let state = State {
            replicas: 0,
            template: number,
            current: 0,
            pods: [None; ORDINALS],
        };
        let observed = Observed::new(&set(&kind, &state)).expect("a set");
        let plan = plan(&observed, Timestamp::UNIX_EPOCH);
        let Some(Action::CreateRevision(revision)) = plan.prepare.into_iter().flatten().flatten().next()
        else {
            panic!("a new set keeps its template");
        };
        kind.names[number] = revision.name_any();
        kind.revisions.push(ControllerRevision {
            revision: number as i64 + 1,
            ..*revision
        });
    }
    kind
}

fn pod(kind: &Kind, ordinal: usize, pod: SmallPod) -> Pod {
    let name = format!("web-{ordinal}");
    let ready = if pod.phase == Phase::Ready {
        "True"
    } else {
        "False"
    };
    let phase = match pod.phase {
        Phase::Ready => "Running".into(),
        phase => format!("{phase:?}"),
    };
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true});
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "ownerReferences": [owner],
            "deletionTimestamp": pod.terminating.then_some("1970-01-01T00:00:00Z"),
            "labels": {"app": "web", "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": ordinal.to_string(), "controller-revision-hash": kind.names[pod.template]}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
    }))
    .expect("a pod")
}

fn plan_for(kind: &Kind, state: &State) -> Plan {
    let alone = State {
        pods: [None; ORDINALS],
        ..state.clone()
    };
    let mut sets = kind.sets.borrow_mut();
    let observed = sets.entry(alone.clone()).or_insert_with(|| {
        // The set's own revision is the newest, so that there is nothing to write about it.
        let mut revisions = kind.revisions.clone();
        revisions[state.template].revision = 3;
        let around = Surroundings {
            revisions: revisions.into_iter().map(Arc::new).collect(),
            ..Surroundings::default()
        };
        Observed::new(&set(kind, &alone)).expect("a set").among(around)
    });
    let mut known = kind.pods.borrow_mut();
    let there = (0..ORDINALS).filter_map(|ordinal| Some((ordinal, state.pods[ordinal]?)));
    let pods = there.map(|(ordinal, small)| {
        known
            .entry((ordinal, small))
            .or_insert_with(|| Arc::new(pod(kind, ordinal, small)))
            .clone()
    });
    observed.pods = pods.collect();
    plan(observed, Timestamp::UNIX_EPOCH)
}

fn did(kind: &Kind, plan: &Plan) -> Vec<Did> {
    let ordinal_of = |name: &str| {
        name.strip_prefix("web-")
            .and_then(|digits| digits.parse().ok())
            .expect("web-N")
    };
    assert!(plan.prepare.is_empty(), "nothing to prepare: {:?}", plan.prepare);
    let actions = plan.steps.iter().flatten().flatten();
    let did = actions.map(|action| match action {
        Action::CreatePod(pod) => {
            let template = kind
                .names
                .iter()
                .position(|name| pod.labels()["controller-revision-hash"] == *name);
            Did::Created(ordinal_of(&pod.name_any()), template.expect("a known revision"))
        }
        Action::DeletePod { name, .. } => Did::Deleted(ordinal_of(name)),
        other => panic!("unexpected {other:?}"),
    });
    did.collect()
}

/// The state after the controller has done its plan.
fn after(kind: &Kind, state: &State, plan: &Plan) -> State {
    let mut after = state.clone();
    for did in did(kind, plan) {
        match did {
            Did::Created(ordinal, template) => {
                assert_eq!(after.pods[ordinal], None, "web-{ordinal} exists already");
                after.pods[ordinal] = Some(SmallPod {
                    phase: Phase::Pending,
                    terminating: false,
                    template,
                });
            }
            Did::Deleted(ordinal) => {
                let pod = after.pods[ordinal]
                    .as_mut()
                    .expect("only what is there is deleted");
                assert!(!pod.terminating, "web-{ordinal} is deleted a second time");
                pod.terminating = true;
            }
        }
    }
    let revision = plan
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_ref());
    if let Some(number) = revision.and_then(|name| kind.names.iter().position(|known| known == name)) {
        after.current = number;
    }
    after
}

/// What everybody else can do.
fn moves(state: &State) -> Vec<State> {
    let mut moves = vec![];
    for replicas in 0..=ORDINALS {
        moves.push(State {
            replicas,
            ..state.clone()
        });
    }
    moves.push(State {
        template: 1 - state.template,
        ..state.clone()
    });
    for ordinal in 0..ORDINALS {
        let Some(pod) = state.pods[ordinal] else { continue };
        let mut with = |pod: Option<SmallPod>| {
            let mut next = state.clone();
            next.pods[ordinal] = pod;
            moves.push(next);
        };
        if pod.terminating {
            with(None);
        } else {
            with(Some(SmallPod {
                terminating: true,
                ..pod
            }));
        }
        let phases: &[Phase] = match pod.phase {
            Phase::Pending => &[Phase::Running, Phase::Ready, Phase::Failed],
            Phase::Running => &[Phase::Ready, Phase::Failed, Phase::Succeeded],
            Phase::Ready => &[Phase::Running, Phase::Failed],
            Phase::Failed | Phase::Succeeded => &[],
        };
        for phase in phases {
            with(Some(SmallPod { phase: *phase, ..pod }));
        }
    }
    moves
}

/// Check what must hold in every state of this kind of set, and how many there are.
fn explore(kind: &Kind, check: impl Fn(&State, &Plan, &[Did])) -> usize {
    let start = State {
        replicas: 0,
        template: 0,
        current: 0,
        pods: [None; ORDINALS],
    };
    let mut known = HashMap::from([(start.clone(), None::<State>)]);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        let plan = plan_for(kind, &state);
        let did = did(kind, &plan);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&state, &plan, &did);
            check_always(&state, &plan, &did);
        }));
        if checked.is_err() {
            panic!(
                "{did:?} with status {:?} on the road {:#?}",
                plan.status,
                road(&known, &state)
            );
        }
        let next = moves(&state).into_iter().chain([after(kind, &state, &plan)]);
        for next in next {
            if known.len() < MOST_STATES && !known.contains_key(&next) {
                known.insert(next.clone(), Some(state.clone()));
                queue.push_back(next);
            }
        }
    }
    let states: Vec<_> = known.into_keys().collect();
    // A sample suffices: every state is on the way of some other.
    states
        .iter()
        .step_by(200)
        .for_each(|state| check_it_gets_there(kind, state));
    states.len()
}

/// The shortest way to a state: the best bug report there is.
fn road(known: &HashMap<State, Option<State>>, state: &State) -> Vec<State> {
    let steps = std::iter::successors(Some(state.clone()), |state| known[state].clone());
    let mut road: Vec<_> = steps.collect();
    road.reverse();
    road
}

fn check_always(state: &State, plan: &Plan, did: &[Did]) {
    for act in did {
        match *act {
            Did::Created(ordinal, _) => assert!(ordinal < state.replicas, "only what is wanted is created"),
            Did::Deleted(ordinal) => {
                let pod = state.pods[ordinal].expect("only what is there is deleted");
                let is_finished = matches!(pod.phase, Phase::Failed | Phase::Succeeded);
                let has_reason = ordinal >= state.replicas || is_finished || pod.template != state.template;
                assert!(
                    has_reason && !pod.terminating,
                    "web-{ordinal} is deleted without a reason"
                );
            }
        }
    }
    if let Some(status) = &plan.status {
        let pods: Vec<_> = state.pods.iter().flatten().collect();
        let ready = pods.iter().filter(|pod| pod.phase == Phase::Ready).count();
        let updated = pods
            .iter()
            .filter(|pod| !pod.terminating && pod.template == state.template)
            .count();
        let told = [
            Some(status.replicas),
            status.ready_replicas,
            status.available_replicas,
            status.updated_replicas,
        ];
        let told = told.map(|count| count.unwrap_or(0) as usize);
        assert_eq!(told, [pods.len(), ready, ready, updated]);
        assert!(status.current_replicas.unwrap_or(0) as usize <= pods.len());
    }
}

/// With a kubelet that makes everything ready and nobody who interferes, the set becomes what it should be.
/// (Except that, as in Kubernetes, an ordered set cannot remove two pods that have both ended.)
fn check_it_gets_there(kind: &Kind, start: &State) {
    let condemned = start.pods[start.replicas..].iter().flatten();
    let ended = condemned.filter(|pod| matches!(pod.phase, Phase::Failed | Phase::Succeeded));
    if ended.filter(|pod| !pod.terminating).count() > 1 {
        return;
    }
    let mut state = start.clone();
    for _ in 0..60 {
        let plan = plan_for(kind, &state);
        let next = after(kind, &state, &plan);
        let mut settled = next.clone();
        for pod in &mut settled.pods {
            *pod = pod.filter(|pod| !pod.terminating);
            if let Some(pod) = pod
                && matches!(pod.phase, Phase::Pending | Phase::Running)
            {
                pod.phase = Phase::Ready;
            }
        }
        if settled == state {
            break;
        }
        state = settled;
    }
    let partition = kind.strategy["rollingUpdate"]["partition"].as_u64().unwrap_or(0) as usize;
    for (ordinal, pod) in state.pods.iter().enumerate() {
        let is_there = ordinal < state.replicas;
        assert_eq!(
            pod.is_some_and(SmallPod::is_available),
            is_there,
            "from {start:#?} to {state:#?}"
        );
        if let Some(pod) = pod
            && kind.strategy["type"] == "RollingUpdate"
            && ordinal >= partition
        {
            assert_eq!(pod.template, state.template, "from {start:#?} to {state:#?}");
        }
    }
}

fn rolling(partition: usize) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}})
}

/// One thing at a time, nothing before its predecessors are available, the top first on the way down.
fn check_ordered(state: &State, _: &Plan, did: &[Did]) {
    assert!(did.len() <= 1, "one thing at a time: {did:?}");
    let all_available = |range: std::ops::Range<usize>| {
        state.pods[range]
            .iter()
            .all(|pod| pod.is_some_and(SmallPod::is_available))
    };
    match did {
        [Did::Created(ordinal, _)] => assert!(all_available(0..*ordinal), "a predecessor is not available"),
        [Did::Deleted(ordinal)] if *ordinal >= state.replicas => {
            assert!(
                state.pods[ordinal + 1..].iter().all(Option::is_none),
                "the highest goes first"
            );
            assert!(
                all_available(0..state.replicas),
                "nothing goes while something is to be brought in order"
            );
        }
        [Did::Deleted(ordinal)] => {
            let pod = state.pods[*ordinal].expect("it is there");
            let is_finished = matches!(pod.phase, Phase::Failed | Phase::Succeeded);
            assert!(
                is_finished || all_available(0..state.replicas),
                "an update waits for all"
            );
            assert!(all_available(0..*ordinal), "a predecessor is not available");
            let above = state.pods[ordinal + 1..]
                .iter()
                .take(state.replicas - ordinal - 1)
                .flatten();
            assert!(
                is_finished || above.into_iter().all(|pod| pod.template == state.template),
                "updates go top down"
            );
        }
        _ => {}
    }
}

#[test]
fn an_ordered_set_does_one_thing_at_a_time_in_order() {
    for partition in [0, 1] {
        let states = explore(&kind("OrderedReady", rolling(partition)), check_ordered);
        assert!(states > 10_000, "only {states} states");
    }
}

#[test]
fn an_ordered_set_with_on_delete_deletes_nothing_for_an_update() {
    let states = explore(
        &kind("OrderedReady", json!({"type": "OnDelete"})),
        |state, plan, did| {
            check_ordered(state, plan, did);
            for act in did {
                if let Did::Deleted(ordinal) = act {
                    let phase = state.pods[*ordinal].expect("it is there").phase;
                    assert!(*ordinal >= state.replicas || matches!(phase, Phase::Failed | Phase::Succeeded));
                }
            }
        },
    );
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn a_parallel_set_does_all_it_can_at_once_and_updates_within_its_budget() {
    let states = explore(&kind("Parallel", rolling(0)), |state, _, did| {
        for ordinal in 0..state.replicas {
            if state.pods[ordinal].is_none() {
                assert!(
                    did.iter()
                        .any(|act| matches!(act, Did::Created(created, _) if *created == ordinal))
                );
            }
        }
        for ordinal in state.replicas..ORDINALS {
            if state.pods[ordinal].is_some_and(|pod| !pod.terminating) {
                assert!(did.contains(&Did::Deleted(ordinal)), "web-{ordinal} is condemned");
            }
        }
        // Pods that work are given up only while no more than one is unavailable.
        let range = &state.pods[..state.replicas];
        let unavailable = range
            .iter()
            .filter(|pod| !pod.is_some_and(SmallPod::is_available))
            .count();
        let given_up = (0..state.replicas).filter(|ordinal| {
            did.contains(&Did::Deleted(*ordinal)) && range[*ordinal].is_some_and(SmallPod::is_available)
        });
        let given_up = given_up.count();
        assert!(
            given_up == 0 || unavailable + given_up <= 1,
            "{unavailable} unavailable, {given_up} given up"
        );
    });
    assert!(states > 10_000, "only {states} states");
}
