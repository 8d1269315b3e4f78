//! The pod's status as the API shows it: a pure function of the pod, what is known of its containers, and the time
//! (reference, 3.1 to 3.4).

use crate::plan::{has_finished, is_sidecar, is_terminal};
use crate::record::{PodRecord, Record, State, full_name};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Types of the conditions that are the kubelet's; all others are left as they are.
const OWN: [&str; 4] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
];

/// The status of `pod` at `now`.
pub fn status(pod: &Pod, record: &PodRecord, host_ip: &str, now: Timestamp) -> PodStatus {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let before = pod.status.clone().unwrap_or_default();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let statuses = |containers: &[Container], waiting: &str| -> Vec<ContainerStatus> {
        containers
            .iter()
            .map(|c| container_status(pod, c, record, waiting, now))
            .collect()
    };
    let waiting = if init.is_empty() {
        "ContainerCreating"
    } else {
        "PodInitializing"
    };
    let init_statuses = statuses(init, "PodInitializing");
    let container_statuses = statuses(&spec.containers, waiting);
    let phase = match before.phase.as_deref() {
        // Final is final, whatever runs or does not run any more.
        Some(phase @ ("Succeeded" | "Failed")) => phase,
        _ => phase(pod, spec, record),
    };
    let conditions = conditions(pod, spec, record, phase, &container_statuses, &init_statuses, now);
    let address = record.address.map(|a| a.to_string()).or(before.pod_ip);
    PodStatus {
        observed_generation: pod.metadata.generation,
        phase: Some(phase.into()),
        conditions: Some(conditions),
        host_ip: Some(host_ip.into()),
        host_ips: Some(vec![HostIP { ip: host_ip.into() }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: before.start_time.or(record.start_time.map(Time)),
        init_container_statuses: Some(init_statuses).filter(|s| !s.is_empty()),
        container_statuses: Some(container_statuses),
        ..before
    }
}

/// 3.1, in its order.
fn phase(pod: &Pod, spec: &PodSpec, record: &PodRecord) -> &'static str {
    let state = |c: &Container| record.containers.get(&c.name);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let never = spec.restart_policy.as_deref() == Some("Never");
    let failed = |r: &Record| r.terminated().is_some_and(|t| t.exit_code != 0);
    if never
        && init
            .iter()
            .any(|c| !is_sidecar(c) && state(c).is_some_and(failed))
    {
        return "Failed";
    }
    let any_started = spec
        .containers
        .iter()
        .any(|c| state(c).is_some_and(|r| r.id.is_some()));
    if !any_started && !init.iter().all(|c| init_done(c, record)) && pod.metadata.deletion_timestamp.is_none()
    {
        return "Pending";
    }
    let ended = |c: &Container| state(c).is_some_and(|r| matches!(r.state, State::Ended(_)));
    let all_ended = spec.containers.iter().all(ended);
    if all_ended && (pod.metadata.deletion_timestamp.is_some() || has_finished(spec, record)) {
        let success = spec.containers.iter().all(|c| !state(c).is_some_and(failed));
        return if success { "Succeeded" } else { "Failed" };
    }
    let started_once = |c: &Container| {
        state(c).is_some_and(|r| matches!(r.state, State::Running { .. }) || r.terminated().is_some())
    };
    if spec.containers.iter().all(started_once) {
        "Running"
    } else {
        "Pending"
    }
}

/// Whether an init container no longer holds the others up.
fn init_done(container: &Container, record: &PodRecord) -> bool {
    match record.containers.get(&container.name).map(|r| &r.state) {
        Some(State::Running { started, .. }) => *started && is_sidecar(container),
        Some(State::Ended(ended)) => ended.exit_code == 0,
        _ => false,
    }
}

fn container_status(
    pod: &Pod,
    container: &Container,
    record: &PodRecord,
    waiting: &str,
    now: Timestamp,
) -> ContainerStatus {
    let unknown = Record::default();
    let known = record.containers.get(&container.name).unwrap_or(&unknown);
    let (started, ready) = match known.state {
        State::Running { started, ready, .. } => (started, ready && started),
        State::Ended(ref ended) => {
            // An init container that has done its work is ready.
            let is_init = pod
                .spec
                .as_ref()
                .and_then(|s| s.init_containers.as_ref())
                .is_some_and(|init| init.iter().any(|c| c.name == container.name && !is_sidecar(c)));
            (false, is_init && ended.exit_code == 0)
        }
        _ => (false, false),
    };
    let (state, last) = states(pod, container, known, waiting, now);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: known.image_id.clone(),
        container_id: known.id.clone(),
        ready,
        started: Some(started),
        restart_count: known.restarts,
        state: Some(state),
        last_state: Some(last),
        ..ContainerStatus::default()
    }
}

/// `state` and `lastState`.
fn states(
    pod: &Pod,
    container: &Container,
    known: &Record,
    waiting: &str,
    now: Timestamp,
) -> (ContainerState, ContainerState) {
    let last = ContainerState {
        terminated: known.last.clone(),
        ..ContainerState::default()
    };
    let wait = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message,
        }),
        ..ContainerState::default()
    };
    match &known.state {
        State::New | State::Starting => (wait(waiting, None), last),
        State::Waiting { reason, message, .. } => (wait(reason, Some(message.clone())), last),
        State::Running { since, .. } => {
            let running = ContainerStateRunning {
                started_at: Some(Time(*since)),
            };
            (
                ContainerState {
                    running: Some(running),
                    ..ContainerState::default()
                },
                last,
            )
        }
        State::Ended(ended) => {
            let terminated = ContainerState {
                terminated: Some(ended.clone()),
                ..ContainerState::default()
            };
            let backing_off = known.delay > SignedDuration::ZERO
                && pod.metadata.deletion_timestamp.is_none()
                && !is_terminal(pod)
                && known.restart_at().is_some_and(|at| at > now)
                && will_restart(pod, container, ended.exit_code);
            if backing_off {
                (
                    wait(
                        "CrashLoopBackOff",
                        Some(back_off_message(pod, container, known.delay)),
                    ),
                    terminated,
                )
            } else {
                (terminated, last)
            }
        }
    }
}

fn will_restart(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    match pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
        _ if is_sidecar(container) => true,
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    }
}

/// For example `back-off 1m20s restarting failed container=c pod=web-0_default(UID)`.
pub fn back_off_message(pod: &Pod, container: &Container, delay: SignedDuration) -> String {
    format!(
        "back-off {} restarting failed container={} pod={}",
        go_duration(delay),
        container.name,
        full_name(pod)
    )
}

/// Go's way to print a duration of whole seconds: `40s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: SignedDuration) -> String {
    let (millis, seconds) = (duration.subsec_millis(), duration.as_secs());
    let fraction = if millis == 0 {
        String::new()
    } else {
        format!(".{millis:03}").trim_end_matches('0').into()
    };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) if millis != 0 => format!("{millis}ms"),
        (0, 0, s) => format!("{s}{fraction}s"),
        (0, m, s) => format!("{m}m{s}{fraction}s"),
        (h, m, s) => format!("{h}h{m}m{s}{fraction}s"),
    }
}

/// The kubelet's conditions as they are now, those of others as they were (3.2).
fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    record: &PodRecord,
    phase: &str,
    containers: &[ContainerStatus],
    init: &[ContainerStatus],
    now: Timestamp,
) -> Vec<PodCondition> {
    let before = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let finished = matches!(phase, "Succeeded" | "Failed");
    let prepared = record.prepared && !finished;
    let any_started = containers.iter().any(|c| c.container_id.is_some());
    let incomplete: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .zip(init)
        .filter(|(c, _)| !any_started && !init_done(c, record))
        .map(|(_, s)| s.name.as_str())
        .collect();
    let sidecars_unready = spec
        .init_containers
        .iter()
        .flatten()
        .zip(init)
        .filter(|(c, s)| is_sidecar(c) && !s.ready);
    let unready: Vec<&str> = sidecars_unready
        .map(|(_, s)| s)
        .chain(containers.iter().filter(|c| !c.ready))
        .map(|s| s.name.as_str())
        .collect();
    let list = |names: &[&str]| format!("[{}]", names.join(" "));
    let containers_ready = match phase {
        "Succeeded" => Verdict::no("PodCompleted", None),
        "Failed" => Verdict::no("PodFailed", None),
        _ if !unready.is_empty() => {
            let message = format!("containers with unready status: {}", list(&unready));
            Verdict::no("ContainersNotReady", Some(message))
        }
        _ => Verdict::YES,
    };
    let ready = if containers_ready.yes {
        readiness_gates(spec, before)
    } else {
        containers_ready.clone()
    };
    let initialized = match phase {
        "Succeeded" => Verdict {
            reason: Some("PodCompleted"),
            ..Verdict::YES
        },
        _ if !incomplete.is_empty() => {
            let message = format!("containers with incomplete status: {}", list(&incomplete));
            Verdict::no("ContainersNotInitialized", Some(message))
        }
        _ => Verdict::YES,
    };
    let prepared = Verdict {
        yes: prepared,
        ..Verdict::YES
    };
    let own = OWN
        .into_iter()
        .zip([prepared, initialized, ready, containers_ready]);
    let own = own.map(|(type_, verdict)| verdict.condition(type_, before, pod.metadata.generation, now));
    let others = before
        .iter()
        .filter(|c| !OWN.contains(&c.type_.as_str()))
        .cloned();
    own.chain(others).collect()
}

/// All ready, if every gate's condition says so.
fn readiness_gates(spec: &PodSpec, before: &[PodCondition]) -> Verdict {
    let mut missing: Vec<String> = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        match before.iter().find(|c| c.type_ == gate.condition_type) {
            None => missing.push(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(condition) if condition.status != "True" => missing.push(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        Verdict::YES
    } else {
        Verdict::no("ReadinessGatesNotReady", Some(missing.join(", ")))
    }
}

/// What a condition says.
#[derive(Clone)]
struct Verdict {
    yes: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const YES: Verdict = Verdict {
        yes: true,
        reason: None,
        message: None,
    };

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self {
            yes: false,
            reason: Some(reason),
            message,
        }
    }

    /// `lastTransitionTime` moves only when the status flips: minReadySeconds counts from it.
    fn condition(
        self,
        type_: &str,
        before: &[PodCondition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> PodCondition {
        let status = if self.yes { "True" } else { "False" };
        let since = before
            .iter()
            .find(|c| c.type_ == type_ && c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        PodCondition {
            type_: type_.into(),
            status: status.into(),
            reason: self.reason.map(Into::into),
            message: self.message,
            last_transition_time: Some(since.unwrap_or(Time(now))),
            observed_generation: generation,
            ..PodCondition::default()
        }
    }
}
