//! The pod's status as the API shows it: a pure function of the pod, what is known of its containers, and the time
//! (reference, 3.1 to 3.4).

use crate::ephemeral;
use crate::eviction;
use crate::plan::{deadline, has_finished, init_failed, is_sidecar, is_terminal};
use crate::record::{PodRecord, Record, State, full_name};
use crate::restart::restarts;
use crate::shim::protocol::pod::Identity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, ContainerUser,
    HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodSpec, PodStatus, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

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
    let ephemeral = ephemeral::containers(spec);
    let most = MESSAGES / (spec.containers.len() + init.len() + ephemeral.len()).max(1);
    let statuses = |containers: &[Container], waiting: &str| -> Vec<ContainerStatus> {
        let status = |container: &Container| {
            let mut status = container_status(pod, container, record, waiting);
            let states = [&mut status.state, &mut status.last_state];
            states
                .into_iter()
                .flatten()
                .for_each(|state| shorten(state, most));
            status
        };
        containers.iter().map(status).collect()
    };
    let waiting = if init.is_empty() {
        "ContainerCreating"
    } else {
        "PodInitializing"
    };
    let init_statuses = statuses(init, "PodInitializing");
    let container_statuses = statuses(&spec.containers, waiting);
    let mut ephemeral_statuses = statuses(&ephemeral, "ContainerCreating");
    for status in &mut ephemeral_statuses {
        // Nobody asks whether they are: they serve nothing.
        (status.ready, status.started) = (false, None);
    }
    let (phase, failure) = match before.phase.as_deref() {
        // Final is final, whatever runs or does not run any more.
        Some(phase @ ("Succeeded" | "Failed")) => (phase, None),
        _ if record.evicted.is_some() && !runs(record) => {
            let message = record.evicted.as_deref().unwrap_or_default();
            ("Failed", Some((eviction::REASON, message)))
        }
        _ if deadline(pod, record).is_some_and(|at| at <= now) && !runs(record) => {
            ("Failed", Some(DEADLINE_EXCEEDED))
        }
        _ => (phase(pod, spec, record), None),
    };
    let conditions = conditions(pod, spec, record, phase, &container_statuses, &init_statuses, now);
    let address = record.address.map(|a| a.to_string()).or(before.pod_ip);
    PodStatus {
        observed_generation: pod.metadata.generation,
        phase: Some(phase.into()),
        reason: failure.map(|(reason, _)| reason.into()).or(before.reason),
        message: failure.map(|(_, message)| message.into()).or(before.message),
        conditions: Some(conditions),
        host_ip: Some(host_ip.into()),
        host_ips: Some(vec![HostIP { ip: host_ip.into() }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: before.start_time.or(record.start_time.map(Time)),
        init_container_statuses: Some(init_statuses).filter(|s| !s.is_empty()),
        container_statuses: Some(container_statuses),
        ephemeral_container_statuses: Some(ephemeral_statuses).filter(|s| !s.is_empty()),
        ..before
    }
}

/// The status that the API shows as far as the kubelet can know: what it was told last, which the watch may not have
/// brought back yet, with the conditions of others as the watch has them. Transitions are counted from this.
pub fn known(seen: Option<&PodStatus>, told: &PodStatus) -> PodStatus {
    let own = told.conditions.iter().flatten();
    let own = own.filter(|c| OWN.contains(&c.type_.as_str()));
    let others = seen.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let others = others.filter(|c| !OWN.contains(&c.type_.as_str()));
    PodStatus {
        conditions: Some(own.chain(others).cloned().collect()),
        phase: told.phase.clone(),
        start_time: told.start_time.clone(),
        ..seen.cloned().unwrap_or_default()
    }
}

/// Whether somebody else has changed a condition of ours, for example because the node was thought to be lost.
pub fn is_contradicted(seen: Option<&PodStatus>, told: &PodStatus) -> bool {
    let conditions = |status: &PodStatus| {
        let own = status.conditions.iter().flatten();
        let own = own.filter(|c| OWN.contains(&c.type_.as_str()));
        let own = own.map(|c| (c.type_.clone(), c.status.clone()));
        own.collect::<BTreeMap<String, String>>()
    };
    seen.is_some_and(|seen| conditions(seen) != conditions(told))
}

/// Whether two statuses say the same of a pod's containers, though perhaps of another generation of its spec.
pub fn says_the_same(one: &PodStatus, other: &PodStatus) -> bool {
    let timeless = |status: &PodStatus| {
        let mut status = status.clone();
        status.observed_generation = None;
        for condition in status.conditions.iter_mut().flatten() {
            condition.observed_generation = None;
        }
        status
    };
    timeless(one) == timeless(other)
}

/// The strategic merge patch that makes the API show `status`: conditions that are others' are left out of it, and what
/// a condition of ours says no more is taken away (conditions are merged by their type).
pub fn patch(uid: Option<&str>, status: &PodStatus) -> Value {
    let mut patch = json!({"metadata": {"uid": uid}, "status": status});
    if let Some(conditions) = patch["status"]["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"].as_str().is_some_and(|t| OWN.contains(&t)));
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            for field in ["reason", "message"] {
                condition.entry(field).or_insert(Value::Null);
            }
        }
    }
    patch
}

/// Reason and message of a pod whose `activeDeadlineSeconds` are over. It fails once nothing of it runs any more.
const DEADLINE_EXCEEDED: (&str, &str) = (
    "DeadlineExceeded",
    "Pod was active on the node longer than the specified deadline",
);

fn runs(record: &PodRecord) -> bool {
    record.containers.values().any(Record::is_active)
}

/// 3.1, in its order.
fn phase(pod: &Pod, spec: &PodSpec, record: &PodRecord) -> &'static str {
    let state = |c: &Container| record.containers.get(&c.name);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let failed = |r: &Record| r.terminated().is_some_and(|t| t.exit_code != 0);
    if init_failed(spec, record) {
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
    // A phase is final: not while a sidecar still has work to do.
    let sidecar_runs = init
        .iter()
        .any(|c| is_sidecar(c) && state(c).is_some_and(Record::is_active));
    let all_ended = !sidecar_runs && spec.containers.iter().all(ended);
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

/// How many bytes the termination messages of a pod may have in all, each container's as many.
const MESSAGES: usize = 12 << 10;

fn shorten(state: &mut ContainerState, most: usize) {
    if let Some(message) = state.terminated.as_mut().and_then(|t| t.message.as_mut()) {
        let end = (0..=most.min(message.len()))
            .rev()
            .find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or_default());
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

fn container_status(pod: &Pod, container: &Container, record: &PodRecord, waiting: &str) -> ContainerStatus {
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
    let (state, last) = states(pod, container, known, waiting);
    ContainerStatus {
        name: container.name.clone(),
        image: known
            .image
            .clone()
            .or_else(|| container.image.clone())
            .unwrap_or_default(),
        image_id: known.image_id.clone(),
        container_id: known.id.clone(),
        ready,
        started: Some(started),
        restart_count: known.restarts,
        state: Some(state),
        last_state: Some(last),
        // These are there once there has been an instance, the mounts from the beginning.
        allocated_resources: known
            .resources
            .as_ref()
            .and_then(|given| given.requests.clone())
            .filter(|requests| !requests.is_empty()),
        resources: known.resources.clone(),
        user: known.user.as_ref().map(user),
        volume_mounts: container
            .volume_mounts
            .as_ref()
            .filter(|mounts| !mounts.is_empty())
            .map(|mounts| mounts.iter().map(mount).collect()),
        ..ContainerStatus::default()
    }
}

fn user(identity: &Identity) -> ContainerUser {
    let groups: Vec<i64> = identity.groups.iter().copied().map(i64::from).collect();
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: identity.uid.into(),
            gid: identity.gid.into(),
            supplemental_groups: Some(groups).filter(|groups| !groups.is_empty()),
        }),
    }
}

/// Whether mounts below a read-only one are so, too, is said of read-only ones. Whoever demands it has it: a mount is made
/// read-only with all that is below it.
fn mount(mount: &VolumeMount) -> VolumeMountStatus {
    let read_only = mount.read_only == Some(true);
    let recursive = match mount.recursive_read_only.as_deref() {
        Some("Enabled" | "IfPossible") => "Enabled",
        _ => "Disabled",
    };
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: read_only.then_some(true),
        recursive_read_only: read_only.then(|| recursive.to_owned()),
        volume_status: None,
    }
}

/// `state` and `lastState`.
fn states(
    pod: &Pod,
    container: &Container,
    known: &Record,
    waiting: &str,
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
    match known.settled() {
        State::New | State::Starting(_) => (wait(waiting, None), last),
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

/// Whether a container that ended with this code is started again, as long as its pod is to run.
pub fn will_restart(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    restarts(spec, container, exit_code)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BackOff, terminated};
    use crate::shim::protocol::Exit;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a time")
    }

    fn pod(policy: &str, init: &[&str], containers: &[&str]) -> Pod {
        let container = |name: &&str| match name.strip_prefix('+') {
            Some(name) => json!({"name": name, "image": "i", "restartPolicy": "Always"}),
            None => json!({"name": name, "image": "i"}),
        };
        let all = |names: &[&str]| names.iter().map(container).collect::<Vec<_>>();
        let spec =
            json!({"restartPolicy": policy, "initContainers": all(init), "containers": all(containers)});
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 1});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    /// What happened to a container, in words: `run` and exit codes, `wait` for one that cannot start, `unready`
    /// and `unstarted` for probes that have not passed, `start` for a start under way.
    fn record(history: &[(&str, &str)]) -> PodRecord {
        let mut all = PodRecord {
            prepared: true,
            address: Some([127, 0, 0, 2].into()),
            ..PodRecord::default()
        };
        for (name, words) in history {
            let container = all.containers.entry((*name).into()).or_default();
            for word in words.split_whitespace() {
                match word {
                    "start" => container.starting(),
                    "run" | "unready" | "unstarted" => {
                        container.starting();
                        let (started, ready) = (word != "unstarted", word == "run");
                        container.started("petset://1".into(), at(0), started, ready);
                    }
                    "wait" => {
                        container.starting();
                        container.wait("ErrImagePull", "no".into(), at(0), BackOff::default());
                    }
                    code => {
                        let code = code.parse().expect("an exit code");
                        let exit = terminated(Exit { code, signal: None }, None);
                        container.ended(exit, at(1), BackOff::default());
                    }
                }
            }
        }
        all
    }

    fn told(pod: &Pod, record: &PodRecord) -> PodStatus {
        status(pod, record, "127.0.0.1", at(2))
    }

    fn phase_of(pod: &Pod, record: &PodRecord) -> String {
        told(pod, record).phase.unwrap_or_default()
    }

    /// `Type=Status Reason Message`, of the kubelet's own conditions.
    fn condition(status: &PodStatus, type_: &str) -> String {
        let all = status.conditions.as_deref().unwrap_or_default();
        let one = all.iter().find(|c| c.type_ == type_).expect("the condition");
        let rest = [one.reason.as_deref(), one.message.as_deref()];
        let rest: Vec<_> = rest.into_iter().flatten().collect();
        format!("{} {}", one.status, rest.join(" ")).trim().to_owned()
    }

    #[test]
    fn the_phase_follows_from_the_containers() {
        type History = &'static [(&'static str, &'static str)];
        let table: &[(&str, &[&str], History, &str)] = &[
            ("Always", &[], &[], "Pending"),
            ("Always", &[], &[("a", "run")], "Pending"),
            ("Always", &[], &[("a", "run"), ("b", "start")], "Pending"),
            ("Always", &[], &[("a", "run"), ("b", "wait")], "Pending"),
            ("Always", &[], &[("a", "run"), ("b", "run")], "Running"),
            ("Always", &[], &[("a", "run"), ("b", "unready")], "Running"),
            ("Always", &[], &[("a", "run"), ("b", "run 1")], "Running"),
            ("Always", &[], &[("a", "run"), ("b", "run 1 start")], "Running"),
            ("Always", &[], &[("a", "run"), ("b", "run 1 wait")], "Running"),
            ("Always", &[], &[("a", "run 0"), ("b", "run 0")], "Running"),
            ("OnFailure", &[], &[("a", "run 0"), ("b", "run 0")], "Succeeded"),
            ("OnFailure", &[], &[("a", "run 1"), ("b", "run 0")], "Running"),
            ("Never", &[], &[("a", "run 0"), ("b", "run 0")], "Succeeded"),
            ("Never", &[], &[("a", "run 0"), ("b", "run 2")], "Failed"),
            ("Never", &[], &[("a", "run 0"), ("b", "run")], "Running"),
            ("Always", &["i"], &[], "Pending"),
            ("Always", &["i"], &[("i", "run")], "Pending"),
            ("Always", &["i"], &[("i", "run 1")], "Pending"),
            ("Never", &["i"], &[("i", "run 1")], "Failed"),
            ("Always", &["i"], &[("i", "run 0")], "Pending"),
            (
                "Always",
                &["i"],
                &[("i", "run 0"), ("a", "run"), ("b", "run")],
                "Running",
            ),
            ("Always", &["+s"], &[("s", "unstarted")], "Pending"),
            (
                "Always",
                &["+s"],
                &[("s", "run 1"), ("a", "run"), ("b", "run")],
                "Running",
            ),
            (
                "Never",
                &["+s"],
                &[("s", "run"), ("a", "run 0"), ("b", "run 0")],
                "Running",
            ),
            (
                "Never",
                &["+s"],
                &[("s", "run 143"), ("a", "run 0"), ("b", "run 0")],
                "Succeeded",
            ),
        ];
        for (policy, init, history, expected) in table {
            let pod = pod(policy, init, &["a", "b"]);
            let phase = phase_of(&pod, &record(history));
            assert_eq!(phase, *expected, "{policy} {init:?} {history:?}");
        }
    }

    #[test]
    fn a_deleted_pod_ends_as_its_exit_codes_say() {
        let table = [("run 0", "Succeeded"), ("run 143", "Failed"), ("run", "Running")];
        for (history, expected) in table {
            let mut pod = pod("Always", &[], &["a"]);
            pod.metadata.deletion_timestamp = Some(Time(at(0)));
            assert_eq!(phase_of(&pod, &record(&[("a", history)])), expected, "{history}");
        }
    }

    #[test]
    fn a_pod_that_was_active_for_too_long_has_failed_once_nothing_of_it_runs() {
        let mut pod = pod("Always", &[], &["a"]);
        pod.spec.get_or_insert_default().active_deadline_seconds = Some(60);
        let status_of = |history, seconds| {
            let mut record = record(&[("a", history)]);
            record.start_time = Some(at(0));
            let status = status(&pod, &record, "127.0.0.1", at(seconds));
            (
                status.phase.unwrap_or_default(),
                status.reason.unwrap_or_default(),
            )
        };
        let words = |phase: &str, reason: &str| (phase.to_owned(), reason.to_owned());
        assert_eq!(status_of("run", 59), words("Running", ""));
        assert_eq!(status_of("run", 60), words("Running", ""));
        assert_eq!(status_of("run 143", 60), words("Failed", "DeadlineExceeded"));
        assert_eq!(status_of("wait", 60), words("Failed", "DeadlineExceeded"));
    }

    #[test]
    fn an_evicted_pod_has_failed_once_nothing_of_it_runs() {
        let pod = pod("Always", &[], &["a"]);
        let status_of = |history| {
            let mut record = record(&[("a", history)]);
            record.evicted = Some("too much. ".into());
            let status = told(&pod, &record);
            (status.phase, status.reason, status.message)
        };
        let words = |phase: &str, reason: Option<&str>, message: Option<&str>| {
            (
                Some(phase.to_owned()),
                reason.map(str::to_owned),
                message.map(str::to_owned),
            )
        };
        assert_eq!(status_of("run"), words("Running", None, None));
        let evicted = words("Failed", Some("Evicted"), Some("too much. "));
        assert_eq!(status_of("run 143"), evicted);
        assert_eq!(status_of("wait"), evicted);
    }

    /// `status.containerStatuses[0]` as JSON, of a container of this spec.
    fn container_json(container: Value, record: &PodRecord) -> Value {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let status = serde_json::to_value(told(&pod, record)).expect("JSON");
        status["containerStatuses"][0].clone()
    }

    #[test]
    fn mounts_are_shown_from_the_beginning_and_what_an_instance_was_given_once_there_is_one() {
        let container = json!({"name": "a", "image": "i", "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "map", "mountPath": "/etc/map", "readOnly": true},
            {"name": "map", "mountPath": "/etc/all", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        ]});
        let mounts = json!([
            {"name": "data", "mountPath": "/data"},
            {"name": "map", "mountPath": "/etc/map", "readOnly": true, "recursiveReadOnly": "Disabled"},
            {"name": "map", "mountPath": "/etc/all", "readOnly": true, "recursiveReadOnly": "Enabled"},
        ]);
        let before = container_json(container.clone(), &record(&[]));
        assert_eq!(before["volumeMounts"], mounts);
        for field in ["resources", "allocatedResources", "user"] {
            assert_eq!(before.get(field), None, "{field}");
        }
        let mut running = record(&[("a", "run")]);
        let one = running.containers.get_mut("a").expect("it is there");
        one.user = Some(Identity {
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
        });
        one.resources = Some(Default::default());
        let shown = container_json(container.clone(), &running);
        assert_eq!(shown["volumeMounts"], mounts);
        assert_eq!(shown["resources"], json!({}));
        assert_eq!(shown.get("allocatedResources"), None);
        let user = json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [8, 9]}});
        assert_eq!(shown["user"], user);
        let given = json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi", "cpu": "100m"}});
        let one = running.containers.get_mut("a").expect("it is there");
        one.resources = serde_json::from_value(given.clone()).expect("resources");
        // A change of the spec gives a running instance nothing.
        let shown = container_json(container, &running);
        assert_eq!(shown["resources"], given);
        assert_eq!(shown["allocatedResources"], given["requests"]);
        let plain = container_json(json!({"name": "a", "image": "i"}), &running);
        assert_eq!(plain.get("volumeMounts"), None);
    }

    #[test]
    fn the_messages_of_many_containers_are_shorter() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let pod = pod("Never", &[], &names);
        let mut record = record(&names.map(|name| (name, "run 1")));
        for one in record.containers.values_mut() {
            if let State::Ended(ended) = &mut one.state {
                ended.message = Some("ö".repeat(2000));
            }
        }
        for status in told(&pod, &record).container_statuses.expect("statuses") {
            let ended = status.state.and_then(|s| s.terminated).expect("it has ended");
            assert_eq!(ended.message, Some("ö".repeat(1024)));
        }
    }

    #[test]
    fn a_final_phase_stays_whatever_is_known() {
        for phase in ["Succeeded", "Failed"] {
            let mut pod = pod("Always", &[], &["a"]);
            pod.status.get_or_insert_default().phase = Some(phase.into());
            for history in ["", "run", "run 0", "run 1"] {
                assert_eq!(phase_of(&pod, &record(&[("a", history)])), phase);
            }
        }
    }

    #[test]
    fn conditions_say_what_is_missing() {
        let whole = pod("Always", &["i", "+s"], &["a", "b"]);
        let of = |history: &[(&str, &str)], type_: &str| condition(&told(&whole, &record(history)), type_);
        assert_eq!(
            of(&[], "Initialized"),
            "False ContainersNotInitialized containers with incomplete status: [i s]"
        );
        assert_eq!(
            of(&[("i", "run 0"), ("s", "unstarted")], "Initialized"),
            "False ContainersNotInitialized containers with incomplete status: [s]"
        );
        let all = [("i", "run 0"), ("s", "run"), ("a", "run"), ("b", "unready")];
        assert_eq!(of(&all, "Initialized"), "True");
        let unready = "False ContainersNotReady containers with unready status: [b]";
        assert_eq!(of(&all, "ContainersReady"), unready);
        assert_eq!(of(&all, "Ready"), unready);
        let sidecar = [("i", "run 0"), ("s", "unready"), ("a", "run"), ("b", "run")];
        assert_eq!(
            of(&sidecar, "Ready"),
            "False ContainersNotReady containers with unready status: [s]"
        );
        let ready = [("i", "run 0"), ("s", "run"), ("a", "run"), ("b", "run")];
        for type_ in OWN {
            assert_eq!(of(&ready, type_), "True", "{type_}");
        }
    }

    #[test]
    fn conditions_of_a_pod_that_has_ended() {
        let once = pod("Never", &[], &["a"]);
        for (code, reason, initialized) in [
            ("0", "PodCompleted", "True PodCompleted"),
            ("1", "PodFailed", "True"),
        ] {
            let status = told(&once, &record(&[("a", &format!("run {code}"))]));
            assert_eq!(condition(&status, "Ready"), format!("False {reason}"));
            assert_eq!(condition(&status, "ContainersReady"), format!("False {reason}"));
            assert_eq!(condition(&status, "Initialized"), initialized);
            assert_eq!(condition(&status, "PodReadyToStartContainers"), "False");
        }
    }

    #[test]
    fn readiness_gates_hold_a_pod_back_and_conditions_of_others_stay() {
        let mut gated = pod("Always", &[], &["a"]);
        let gate = json!([{"conditionType": "example.com/ok"}]);
        gated.spec.get_or_insert_default().readiness_gates = serde_json::from_value(gate).expect("gates");
        let running = record(&[("a", "run")]);
        let before = condition(&told(&gated, &running), "Ready");
        assert!(before.starts_with("False ReadinessGatesNotReady"), "{before}");
        for (value, ready) in [("False", "False"), ("True", "True")] {
            let foreign = PodCondition {
                type_: "example.com/ok".into(),
                status: value.into(),
                ..PodCondition::default()
            };
            gated.status.get_or_insert_default().conditions = Some(vec![foreign.clone()]);
            let status = told(&gated, &running);
            assert!(condition(&status, "Ready").starts_with(ready));
            assert_eq!(condition(&status, "ContainersReady"), "True");
            assert!(status.conditions.iter().flatten().any(|c| *c == foreign));
            let patch = patch(Some("u"), &status);
            let sent = patch["status"]["conditions"].as_array().expect("conditions");
            assert!(sent.iter().all(|c| c["type"] != "example.com/ok"), "{patch}");
        }
    }

    #[test]
    fn a_transition_is_a_change_of_status_and_nothing_else() {
        let mut pod = pod("Always", &[], &["a", "b"]);
        let mut since = |history: &[(&str, &str)], now: i64| {
            let status = status(&pod, &record(history), "127.0.0.1", at(now));
            let conditions = status.conditions.as_deref().unwrap_or_default();
            let ready = conditions.iter().find(|c| c.type_ == "Ready").expect("Ready");
            let since = ready.last_transition_time.as_ref().map(|t| t.0);
            pod.status = Some(status);
            since
        };
        assert_eq!(since(&[], 0), Some(at(0)));
        // Another reason, the same status.
        assert_eq!(since(&[("a", "run")], 1), Some(at(0)));
        assert_eq!(since(&[("a", "run"), ("b", "run")], 2), Some(at(2)));
        assert_eq!(since(&[("a", "run"), ("b", "run")], 3), Some(at(2)));
        assert_eq!(since(&[("a", "run"), ("b", "run 1")], 4), Some(at(4)));
    }

    #[test]
    fn transitions_count_from_what_was_told_even_if_the_watch_is_behind() {
        let mut pod = pod("Always", &[], &["a"]);
        let seen = told(&pod, &record(&[]));
        let running = record(&[("a", "run")]);
        pod.status = Some(seen.clone());
        let first = status(&pod, &running, "127.0.0.1", at(3));
        // The watch still has `seen`.
        pod.status = Some(known(Some(&seen), &first));
        assert_eq!(status(&pod, &running, "127.0.0.1", at(9)), first);
        assert!(!is_contradicted(Some(&first), &first));
        assert!(is_contradicted(Some(&seen), &first));
    }

    #[test]
    fn a_new_generation_alone_says_nothing_new() {
        let mut pod = pod("Always", &[], &["a"]);
        let running = record(&[("a", "run")]);
        let first = told(&pod, &running);
        pod.metadata.generation = Some(2);
        pod.status = Some(first.clone());
        let second = told(&pod, &running);
        assert!(first != second && says_the_same(&first, &second));
        let ended = told(&pod, &record(&[("a", "run 1")]));
        assert!(!says_the_same(&first, &ended));
    }

    #[test]
    fn a_patch_takes_the_reason_of_a_condition_away_when_it_holds() {
        let pod = pod("Always", &[], &["a"]);
        let patch = patch(Some("u"), &told(&pod, &record(&[("a", "run")])));
        let conditions = patch["status"]["conditions"].as_array().expect("conditions");
        let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("Ready");
        assert_eq!(ready["status"], "True");
        assert_eq!(
            (ready.get("reason"), ready.get("message")),
            (Some(&Value::Null), Some(&Value::Null))
        );
        assert_eq!(patch["metadata"]["uid"], "u");
    }

    fn shown(pod: &Pod, history: &str) -> (String, String) {
        let status = told(pod, &record(&[("a", history)]));
        let one = status.container_statuses.unwrap_or_default().remove(0);
        let text = |state: Option<ContainerState>| {
            let state = state.unwrap_or_default();
            let waiting = state.waiting.and_then(|w| w.reason);
            let running = state.running.map(|_| "running".to_owned());
            let ended = state.terminated.map(|t| t.exit_code.to_string());
            waiting.or(running).or(ended).unwrap_or_default()
        };
        (
            text(one.state),
            format!("{} {}", text(one.last_state), one.restart_count),
        )
    }

    #[test]
    fn states_of_a_container_and_of_the_one_before() {
        let always = pod("Always", &[], &["a"]);
        let table = [
            ("", "ContainerCreating", " 0"),
            ("start", "ContainerCreating", " 0"),
            ("wait", "ErrImagePull", " 0"),
            ("wait start", "ErrImagePull", " 0"),
            ("run", "running", " 0"),
            ("run 1", "1", " 0"),
            ("run 1 start", "1", " 0"),
            ("run 1 run", "running", "1 1"),
            ("run 1 run 2", "CrashLoopBackOff", "2 1"),
            ("run 1 run 2 start", "CrashLoopBackOff", "2 1"),
            ("run 1 run 2 run", "running", "2 2"),
        ];
        for (history, state, last) in table {
            assert_eq!(shown(&always, history), (state.into(), last.into()), "{history}");
        }
        let with_init = pod("Always", &["i"], &["a"]);
        assert_eq!(shown(&with_init, "").0, "PodInitializing");
        let once = pod("Never", &[], &["a"]);
        assert_eq!(shown(&once, "run 1").0, "1");
    }

    #[test]
    fn back_off_messages_have_durations_as_go_writes_them() {
        let table = [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")];
        for (seconds, text) in table {
            assert_eq!(go_duration(SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(go_duration(SignedDuration::from_millis(50)), "50ms");
        assert_eq!(go_duration(SignedDuration::from_millis(1500)), "1.5s");
        let pod = pod("Always", &[], &["a"]);
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        assert_eq!(
            back_off_message(&pod, container, SignedDuration::from_secs(80)),
            "back-off 1m20s restarting failed container=a pod=p_n(u)"
        );
    }
}
