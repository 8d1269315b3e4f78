//! What to do about a pod: a pure function of the API object, what is known of its containers, and the time.
//!
//! The rules are sections 3.4 (restarts), 3.5 (init containers and sidecars) and 3.8 (deletion) of the reference on
//! pod behaviour.

use crate::ephemeral;
use crate::record::{PodRecord, Record, State};
use crate::restart::restarts;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// One thing to do, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find the pod's address and volumes.
    Prepare,
    /// Start a container that does not run.
    Start {
        /// Its name.
        container: String,
    },
    /// Stop a container that runs, gracefully.
    Stop {
        /// Its name.
        container: String,
        /// What the `Killing` event says.
        message: String,
    },
    /// Everything of the pod is stopped: release what it held and, if it is being deleted, remove the object.
    Finish,
}

/// All that is to be done now, and when to look again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In any order.
    pub actions: Vec<Action>,
    /// When time alone calls for another look.
    pub wake_at: Option<Timestamp>,
    /// Whether the pod's containers are being stopped, or have ended.
    pub is_ending: bool,
    /// Whether the pod has been active for longer than it may be (`activeDeadlineSeconds`).
    pub is_overdue: bool,
}

/// Plan for `pod` at `now`.
pub fn plan(pod: &Pod, record: &PodRecord, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    let deadline = deadline(pod, record);
    plan.is_overdue = deadline.is_some_and(|at| at <= now) && !is_terminal(pod);
    let is_evicted = record.evicted.is_some();
    let has_ended = is_terminal(pod) || has_finished(spec, record) || plan.is_overdue || is_evicted;
    if !has_ended {
        plan.wake_at = deadline;
    }
    plan.is_ending = pod.metadata.deletion_timestamp.is_some() || has_ended;
    if plan.is_ending {
        wind_down(spec, record, &mut plan);
    } else if !record.prepared {
        plan.actions.push(Action::Prepare);
    } else {
        // They need not wait for init containers: it may be these that one wants to look into.
        for container in ephemeral::containers(spec) {
            keep_running(spec, &container, record, now, &mut plan);
        }
        if run_init_containers(spec, record, now, &mut plan) {
            for container in &spec.containers {
                keep_running(spec, container, record, now, &mut plan);
            }
        }
    }
    plan
}

/// When the pod has been active for as long as it may be (`activeDeadlineSeconds`), counted from when a kubelet took it
/// on; `None`: it may for ever.
pub fn deadline(pod: &Pod, record: &PodRecord) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let told = pod
        .status
        .as_ref()
        .and_then(|s| s.start_time.as_ref())
        .map(|t| t.0);
    let length = jiff::SignedDuration::from_secs(seconds);
    told.or(record.start_time)?.checked_add(length).ok()
}

/// Whether the API already shows a phase that is final.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|s| s.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}

/// A restartable init container: it runs beside the others until they have ended.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a pod has run its course: every container has ended and none is to be restarted.
pub fn has_finished(spec: &PodSpec, record: &PodRecord) -> bool {
    let ended_for_good =
        |container: &Container| match record.containers.get(&container.name).map(|r| &r.state) {
            Some(State::Ended(ended)) => {
                !restarts(spec, container, ended.exit_code) && !has_changed(spec, container, record)
            }
            _ => false,
        };
    init_failed(spec, record) || spec.containers.iter().all(ended_for_good)
}

/// Whether an init container has failed for good.
pub fn init_failed(spec: &PodSpec, record: &PodRecord) -> bool {
    let failed = |container: &Container| {
        let ended = record
            .containers
            .get(&container.name)
            .and_then(Record::terminated);
        ended.is_some_and(|ended| ended.exit_code != 0 && !restarts(spec, container, ended.exit_code))
    };
    let mut init = spec.init_containers.iter().flatten();
    init.any(|container| !is_sidecar(container) && failed(container))
}

/// Stop what runs: containers first, then sidecars from the last to the first. [`Action::Finish`] once all is stopped.
pub fn wind_down(spec: &PodSpec, record: &PodRecord, plan: &mut Plan) {
    let active = |container: &&Container| {
        record
            .containers
            .get(&container.name)
            .is_some_and(Record::is_active)
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let ephemeral = ephemeral::containers(spec);
    let main: Vec<&Container> = spec
        .containers
        .iter()
        .chain(&ephemeral)
        .chain(init.iter().filter(|c| !is_sidecar(c)))
        .filter(active)
        .collect();
    let last_sidecar = init.iter().rev().filter(|c| is_sidecar(c)).find(active);
    let to_stop = if main.is_empty() {
        last_sidecar.into_iter().collect()
    } else {
        main
    };
    if to_stop.is_empty() {
        plan.actions.push(Action::Finish);
        return;
    }
    for container in to_stop {
        let state = record.containers.get(&container.name).map(|r| &r.state);
        if matches!(state, Some(State::Running { stopping: false, .. })) {
            plan.actions.push(Action::Stop {
                container: container.name.clone(),
                message: format!("Stopping container {}", container.name),
            });
        }
    }
}

/// Run init containers, each to its success before the next. True once the regular containers may run.
fn run_init_containers(spec: &PodSpec, record: &PodRecord, now: Timestamp, plan: &mut Plan) -> bool {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    // Once a regular container has been started, init containers are history, except for sidecars.
    let initialized = record.initialized;
    for container in init {
        let state = record.containers.get(&container.name).map(|r| &r.state);
        if is_sidecar(container) {
            keep_running(spec, container, record, now, plan);
            if !initialized && !matches!(state, Some(State::Running { started: true, .. })) {
                return false;
            }
        } else if !initialized && !matches!(state, Some(State::Ended(ended)) if ended.exit_code == 0) {
            keep_running(spec, container, record, now, plan);
            return false;
        }
    }
    true
}

/// Whether a container's image was changed after its newest instance had been started: then it is restarted, whatever
/// the policy says. Init containers that have their turn once are not.
fn has_changed(spec: &PodSpec, container: &Container, record: &PodRecord) -> bool {
    let stays = is_sidecar(container) || spec.containers.iter().any(|c| c.name == container.name);
    let started_with = record
        .containers
        .get(&container.name)
        .and_then(|r| r.image.as_ref());
    stays && started_with.is_some_and(|image| container.image.as_ref() != Some(image))
}

/// Start a container that should run and does not, now or when its back-off is over; stop one whose image has changed.
fn keep_running(spec: &PodSpec, container: &Container, record: &PodRecord, now: Timestamp, plan: &mut Plan) {
    let start = Action::Start {
        container: container.name.clone(),
    };
    let changed = has_changed(spec, container, record);
    let at = match record.containers.get(&container.name).map(|r| (&r.state, r)) {
        None | Some((State::New, _)) => now,
        Some((State::Waiting { .. } | State::Ended(_), _)) if changed => now,
        Some((State::Running { stopping: false, .. }, _)) if changed => {
            let name = &container.name;
            plan.actions.push(Action::Stop {
                container: name.clone(),
                message: format!("Container {name} definition changed, will be restarted"),
            });
            return;
        }
        Some((State::Waiting { retry_at, .. }, _)) => *retry_at,
        Some((State::Ended(ended), r)) if restarts(spec, container, ended.exit_code) => {
            r.restart_at().unwrap_or(now)
        }
        Some(_) => return,
    };
    if at <= now {
        plan.actions.push(start);
    } else {
        plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BackOff, terminated};
    use crate::shim::protocol::Exit;
    use serde_json::json;
    use std::collections::{BTreeSet, HashSet, VecDeque};

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).expect("a time")
    }

    /// Two init containers around a sidecar, and two regular containers.
    fn pod(policy: &str) -> Pod {
        let container = |name: &str| json!({"name": name, "image": "i"});
        let sidecar = json!({"name": "side", "image": "i", "restartPolicy": "Always"});
        let spec = json!({"restartPolicy": policy, "containers": [container("a"), container("b")],
            "initContainers": [container("first"), sidecar, container("second")]});
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        serde_json::from_value(pod).expect("a pod")
    }

    fn deleted(mut pod: Pod) -> Pod {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
        pod.metadata.deletion_timestamp = Some(time);
        pod
    }

    fn prepared() -> PodRecord {
        PodRecord {
            prepared: true,
            ..PodRecord::default()
        }
    }

    fn set(record: &mut PodRecord, name: &str, what: &str) {
        let container = record.containers.entry(name.into()).or_default();
        match what {
            "starting" => container.starting(),
            "running" => {
                container.starting();
                container.started("id".into(), now(), true, true);
            }
            "unstarted" => {
                container.starting();
                container.started("id".into(), now(), false, false);
            }
            code => {
                let code = code.parse().expect("an exit code");
                let exit = Exit { code, signal: None };
                container.ended(terminated(exit, None), now(), BackOff::default());
            }
        }
    }

    fn starts(plan: &Plan) -> Vec<&str> {
        let name = |action: &'_ Action| match action {
            Action::Start { container } => Some(container.clone()),
            _ => None,
        };
        let names: BTreeSet<String> = plan.actions.iter().filter_map(name).collect();
        ["first", "side", "second", "a", "b"]
            .into_iter()
            .filter(|n| names.contains(*n))
            .collect()
    }

    fn stops(plan: &Plan) -> Vec<&str> {
        let name = |action: &'_ Action| match action {
            Action::Stop { container, .. } => Some(container.clone()),
            _ => None,
        };
        let names: BTreeSet<String> = plan.actions.iter().filter_map(name).collect();
        ["first", "side", "second", "a", "b"]
            .into_iter()
            .filter(|n| names.contains(*n))
            .collect()
    }

    #[test]
    fn nothing_starts_before_volumes_and_address_are_there() {
        let plan = plan(&pod("Always"), &PodRecord::default(), now());
        assert_eq!(plan.actions, [Action::Prepare]);
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_sidecars_only_have_to_be_started() {
        let (pod, mut record) = (pod("Always"), prepared());
        let mut next = |name: &str, what: &str, expected: &[&str]| {
            if !name.is_empty() {
                set(&mut record, name, what);
            }
            assert_eq!(
                starts(&plan(&pod, &record, now())),
                expected,
                "after {name} {what}"
            );
        };
        next("", "", &["first"]);
        next("first", "running", &[]);
        // The first restart of one that failed is immediate.
        next("first", "1", &["first"]);
        next("first", "running", &[]);
        next("first", "0", &["side"]);
        next("side", "unstarted", &[]);
        next("side", "running", &["second"]);
        next("second", "running", &[]);
        next("second", "0", &["a", "b"]);
    }

    #[test]
    fn once_a_regular_container_was_started_only_sidecars_are_started_again() {
        let (pod, mut record) = (pod("Always"), prepared());
        record.initialized = true;
        set(&mut record, "side", "0");
        set(&mut record, "a", "running");
        assert_eq!(starts(&plan(&pod, &record, now())), ["side", "b"]);
    }

    #[test]
    fn a_restart_waits_for_its_back_off_and_the_plan_says_until_when() {
        let (pod, mut record) = (pod("Always"), prepared());
        record.initialized = true;
        set(&mut record, "side", "running");
        set(&mut record, "a", "running");
        for _ in 0..2 {
            set(&mut record, "b", "running");
            set(&mut record, "b", "1");
        }
        let waiting = plan(&pod, &record, now());
        let due = now() + jiff::SignedDuration::from_secs(10);
        assert_eq!((starts(&waiting), waiting.wake_at), (vec![], Some(due)));
        assert_eq!(starts(&plan(&pod, &record, due)), ["b"]);
    }

    #[test]
    fn a_pod_that_is_evicted_is_stopped_and_not_started_again() {
        let (pod, mut record) = (pod("Always"), prepared());
        record.initialized = true;
        record.evicted = Some("it used too much".into());
        for name in ["side", "a", "b"] {
            set(&mut record, name, "running");
        }
        assert_eq!(stops(&plan(&pod, &record, now())), ["a", "b"]);
        for name in ["a", "b", "side"] {
            set(&mut record, name, "143");
        }
        assert_eq!(plan(&pod, &record, now()).actions, [Action::Finish]);
    }

    #[test]
    fn restart_policies() {
        let table = [
            ("Always", "0", vec!["a"]),
            ("Always", "1", vec!["a"]),
            ("OnFailure", "0", vec![]),
            ("OnFailure", "1", vec!["a"]),
            ("Never", "0", vec![]),
            ("Never", "1", vec![]),
        ];
        for (policy, code, expected) in table {
            let (pod, mut record) = (pod(policy), prepared());
            record.initialized = true;
            set(&mut record, "side", "running");
            set(&mut record, "a", "running");
            set(&mut record, "b", "running");
            set(&mut record, "a", code);
            assert_eq!(starts(&plan(&pod, &record, now())), expected, "{policy} {code}");
        }
    }

    #[test]
    fn an_init_container_that_fails_with_never_ends_the_pod() {
        let (pod, mut record) = (pod("Never"), prepared());
        set(&mut record, "first", "running");
        set(&mut record, "first", "1");
        assert_eq!(plan(&pod, &record, now()).actions, [Action::Finish]);
    }

    #[test]
    fn sidecars_are_stopped_after_everything_else_and_then_the_pod_is_let_go() {
        let (pod, mut record) = (deleted(pod("Always")), prepared());
        record.initialized = true;
        for name in ["side", "a", "b"] {
            set(&mut record, name, "running");
        }
        assert_eq!(stops(&plan(&pod, &record, now())), ["a", "b"]);
        set(&mut record, "a", "0");
        assert_eq!(stops(&plan(&pod, &record, now())), ["b"]);
        set(&mut record, "b", "143");
        assert_eq!(stops(&plan(&pod, &record, now())), ["side"]);
        set(&mut record, "side", "143");
        assert_eq!(plan(&pod, &record, now()).actions, [Action::Finish]);
    }

    #[test]
    fn a_container_whose_image_has_changed_is_restarted_whatever_the_policy_and_without_back_off() {
        for policy in ["Always", "OnFailure", "Never"] {
            let (mut pod, mut record) = (pod(policy), prepared());
            record.initialized = true;
            set(&mut record, "side", "running");
            for name in ["a", "b"] {
                let container = record.containers.entry(name.into()).or_default();
                for _ in 0..3 {
                    container.starting_with(Some(&"i".to_owned()));
                    container.started("id".into(), now(), true, true);
                    let exit = Exit {
                        code: 1,
                        signal: None,
                    };
                    container.ended(terminated(exit, None), now(), BackOff::default());
                }
            }
            let running = record.containers.entry("b".into()).or_default();
            running.starting_with(Some(&"i".to_owned()));
            running.started("id".into(), now(), true, true);
            assert_eq!(stops(&plan(&pod, &record, now())), Vec::<&str>::new(), "{policy}");
            let spec = pod.spec.get_or_insert_default();
            for container in &mut spec.containers {
                container.image = Some("other".into());
            }
            let changed = plan(&pod, &record, now());
            assert_eq!(
                (starts(&changed), stops(&changed)),
                (vec!["a"], vec!["b"]),
                "{policy}"
            );
            let container = record.containers.entry("a".into()).or_default();
            container.starting_with(Some(&"other".to_owned()));
            assert_eq!((container.ends, container.delay), (0, jiff::SignedDuration::ZERO));
        }
    }

    #[test]
    fn a_pod_that_was_active_for_too_long_is_stopped_and_until_then_its_deadline_wakes() {
        let (mut pod, mut record) = (pod("Always"), prepared());
        pod.spec.get_or_insert_default().active_deadline_seconds = Some(60);
        record.start_time = Some(now());
        record.initialized = true;
        for name in ["side", "a", "b"] {
            set(&mut record, name, "running");
        }
        let after = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
        let early = plan(&pod, &record, after(59));
        assert_eq!((early.actions.len(), early.wake_at), (0, Some(after(60))));
        let late = plan(&pod, &record, after(60));
        assert!(late.is_overdue && late.wake_at.is_none());
        assert_eq!(stops(&late), ["a", "b"]);
        // What the API shows counts for more than when this kubelet took the pod on.
        let told = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(30));
        pod.status.get_or_insert_default().start_time = Some(told);
        assert!(!plan(&pod, &record, after(60)).is_overdue);
    }

    #[test]
    fn a_start_under_way_is_waited_for_before_a_deleted_pod_is_let_go() {
        let (pod, mut record) = (deleted(pod("Always")), prepared());
        set(&mut record, "first", "starting");
        let waits = Plan {
            is_ending: true,
            ..Plan::default()
        };
        assert_eq!(plan(&pod, &record, now()), waits);
    }

    #[test]
    fn an_ephemeral_container_is_started_once_beside_all_others_and_stopped_with_them() {
        let mut whole = pod("Always");
        let ephemeral = json!([{"name": "debugger", "image": "i"}]);
        let spec = whole.spec.get_or_insert_default();
        spec.ephemeral_containers = serde_json::from_value(ephemeral).expect("a list");
        let mut record = prepared();
        let is_started = |record: &PodRecord, pod: &Pod| {
            let container = "debugger".to_owned();
            let later = now() + jiff::SignedDuration::from_hours(1);
            plan(pod, record, later)
                .actions
                .contains(&Action::Start { container })
        };
        assert!(
            is_started(&record, &whole),
            "before the init containers have ended"
        );
        assert_eq!(starts(&plan(&whole, &record, now())), ["first"]);
        set(&mut record, "debugger", "running");
        assert!(!is_started(&record, &whole));
        let stop = plan(&deleted(whole.clone()), &record, now()).actions;
        assert!(matches!(stop.as_slice(), [Action::Stop { container, .. }] if container == "debugger"));
        set(&mut record, "debugger", "1");
        assert!(!is_started(&record, &whole));
        assert_eq!(plan(&deleted(whole), &record, now()).actions, [Action::Finish]);
    }

    #[test]
    fn a_final_phase_starts_nothing_again() {
        for phase in ["Succeeded", "Failed"] {
            let mut pod = pod("Always");
            pod.status.get_or_insert_default().phase = Some(phase.into());
            assert_eq!(plan(&pod, &prepared(), now()).actions, [Action::Finish]);
        }
    }

    /// Every state that a pod can come to, whatever its containers do and whenever it is deleted.
    #[test]
    fn in_every_reachable_state_the_order_of_containers_holds_and_nothing_is_forgotten() {
        for policy in ["Always", "OnFailure", "Never"] {
            let whole = pod(policy);
            let mut seen = HashSet::new();
            let mut queue = VecDeque::from([(prepared(), false)]);
            while let Some((record, gone)) = queue.pop_front() {
                if !seen.insert(format!("{gone} {record:?}")) {
                    continue;
                }
                let pod = if gone {
                    deleted(whole.clone())
                } else {
                    whole.clone()
                };
                // Back-off is not what this is about: long after.
                let later = now() + jiff::SignedDuration::from_hours(1);
                let plan = plan(&pod, &record, later);
                check(policy, gone, &record, &plan);
                for (next, gone) in successors(&record, gone, &plan) {
                    queue.push_back((next, gone));
                }
            }
            assert!(seen.len() > 500, "{policy}: only {} states", seen.len());
        }
    }

    fn successors(record: &PodRecord, gone: bool, plan: &Plan) -> Vec<(PodRecord, bool)> {
        let mut all = Vec::new();
        if !gone {
            all.push((record.clone(), true));
        }
        let mut put = |change: &dyn Fn(&mut PodRecord)| {
            let mut next = record.clone();
            change(&mut next);
            for container in next.containers.values_mut() {
                // Bounded: how often something was restarted does not matter here, only that it was.
                container.restarts = container.restarts.min(1);
                container.delay = jiff::SignedDuration::ZERO;
                container.ends = 0;
                container.last = None;
            }
            all.push((next, gone));
        };
        for name in starts(plan) {
            put(&|next| {
                next.initialized |= name == "a" || name == "b";
                next.containers.entry(name.into()).or_default().starting();
            });
        }
        for (name, container) in &record.containers {
            match container.state {
                State::Starting(_) => {
                    put(&|next| {
                        let it = next.containers.get_mut(name).expect("known");
                        it.started("id".into(), now(), true, true);
                    });
                }
                State::Running { .. } => {
                    put(&|next| set(next, name, "0"));
                    put(&|next| set(next, name, "1"));
                }
                _ => {}
            }
        }
        all
    }

    fn check(policy: &str, gone: bool, record: &PodRecord, plan: &Plan) {
        let active = |name: &str| record.containers.get(name).is_some_and(Record::is_active);
        let succeeded = |name: &str| {
            let state = record.containers.get(name).map(|r| &r.state);
            matches!(state, Some(State::Ended(e)) if e.exit_code == 0)
        };
        let why = || format!("{policy} gone={gone} {record:#?}\n{plan:#?}");
        let (starts, stops) = (starts(plan), stops(plan));
        let finish = plan.actions.contains(&Action::Finish);
        assert!(starts.iter().all(|n| !active(n)), "no container twice: {}", why());
        assert!(
            !gone || starts.is_empty(),
            "nothing starts in a deleted pod: {}",
            why()
        );
        assert!(!starts.contains(&"second") || succeeded("first"), "{}", why());
        if !record.initialized && starts.iter().any(|n| ["a", "b"].contains(n)) {
            assert!(succeeded("first") && succeeded("second"), "{}", why());
        }
        let others = ["first", "second", "a", "b"].into_iter().any(active);
        assert!(
            !stops.contains(&"side") || !others,
            "the sidecar goes last: {}",
            why()
        );
        let any_active = others || active("side");
        assert!(!finish || !any_active, "finished with something alive: {}", why());
        assert!(!gone || any_active || finish, "a deleted pod is stuck: {}", why());
        let idle = starts.is_empty() && stops.is_empty() && !finish && plan.wake_at.is_none();
        assert!(!idle || any_active, "nothing will ever happen: {}", why());
    }
}
