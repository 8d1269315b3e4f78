//! What to do about a pod: a pure function of the API object, what is known of its containers, and the time.
//!
//! The rules are sections 3.4 (restarts), 3.5 (init containers and sidecars) and 3.8 (deletion) of the reference on
//! pod behaviour.

use crate::record::{PodRecord, Record, State};
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
}

/// Plan for `pod` at `now`.
pub fn plan(pod: &Pod, record: &PodRecord, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    if pod.metadata.deletion_timestamp.is_some() || is_terminal(pod) || has_finished(spec, record) {
        wind_down(spec, record, &mut plan);
    } else if !record.prepared {
        plan.actions.push(Action::Prepare);
    } else if run_init_containers(spec, record, now, &mut plan) {
        for container in &spec.containers {
            keep_running(container, restart_policy(spec), record, now, &mut plan);
        }
    }
    plan
}

fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
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
    let policy = restart_policy(spec);
    let ended_for_good =
        |container: &Container| match record.containers.get(&container.name).map(|r| &r.state) {
            Some(State::Ended(ended)) => !restarts(policy, ended.exit_code),
            _ => false,
        };
    let init_failed = spec.init_containers.iter().flatten().any(|container| {
        let failed = matches!(
            record.containers.get(&container.name).map(|r| &r.state),
            Some(State::Ended(ended)) if ended.exit_code != 0
        );
        failed && policy == "Never" && !is_sidecar(container)
    });
    init_failed || spec.containers.iter().all(ended_for_good)
}

fn restarts(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Stop what runs: containers first, then sidecars from the last to the first.
fn wind_down(spec: &PodSpec, record: &PodRecord, plan: &mut Plan) {
    let active = |container: &&Container| {
        record
            .containers
            .get(&container.name)
            .is_some_and(Record::is_active)
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let main: Vec<&Container> = spec
        .containers
        .iter()
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
    let initialized = spec
        .containers
        .iter()
        .any(|c| record.containers.get(&c.name).is_some_and(|r| r.id.is_some()));
    for container in init {
        let state = record.containers.get(&container.name).map(|r| &r.state);
        if is_sidecar(container) {
            keep_running(container, "Always", record, now, plan);
            if !initialized && !matches!(state, Some(State::Running { started: true, .. })) {
                return false;
            }
        } else if !initialized && !matches!(state, Some(State::Ended(ended)) if ended.exit_code == 0) {
            let policy = if restart_policy(spec) == "Never" {
                "Never"
            } else {
                "OnFailure"
            };
            keep_running(container, policy, record, now, plan);
            return false;
        }
    }
    true
}

/// Start a container that should run and does not, now or when its back-off is over.
fn keep_running(container: &Container, policy: &str, record: &PodRecord, now: Timestamp, plan: &mut Plan) {
    let start = Action::Start {
        container: container.name.clone(),
    };
    let at = match record.containers.get(&container.name).map(|r| (&r.state, r)) {
        None | Some((State::New, _)) => now,
        Some((State::Waiting { retry_at, .. }, _)) => *retry_at,
        Some((State::Ended(ended), r)) if restarts(policy, ended.exit_code) => r.restart_at().unwrap_or(now),
        Some(_) => return,
    };
    if at <= now {
        plan.actions.push(start);
    } else {
        plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}
