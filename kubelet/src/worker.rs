//! One pod's worker: observe, plan, act, until the pod is gone.
//!
//! Everything that happens comes in as a `Notice` or as a new [`Wanted`]; after each the worker plans afresh and writes
//! the status if it has changed. What takes time runs beside it and reports back.

use crate::Kubelet;
use crate::handler::Target;
use crate::plan::{self, Action, Plan, is_sidecar, plan};
use crate::probe::{self, Kind, Outcome};
use crate::process::Container as Process;
use crate::record::{PodRecord, Record, State, terminated};
use crate::shim::protocol::Exit;
use crate::start::{Failure, Running, Start};
use crate::status::{self, back_off_message, go_duration, status, will_restart};
use crate::stop::Stop;
use crate::volume::{NotReady, Ready, Volumes};
use events::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// The pod as the API last showed it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The object.
    pub pod: Arc<Pod>,
    /// Whether the object is gone: then so must be its processes, at once.
    pub removed: bool,
}

/// Delays between tries of what does not depend on the pod: its volumes, the API server.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// The longest pause before another look for a ConfigMap or Secret that a container needs.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(2);

/// For how long a pod that is being started keeps quiet: mostly it runs before, and one write tells it all.
const QUIET: SignedDuration = SignedDuration::from_millis(50);

/// How often files that follow other objects are brought up to date.
const REFRESH: Duration = Duration::from_secs(10);

/// What happened beside the worker.
enum Notice {
    Volumes(Result<BTreeMap<String, Ready>, NotReady>),
    Started {
        container: String,
        result: Result<Running, Failure>,
    },
    Ended {
        container: String,
        exit: Exit,
    },
    Probed {
        container: String,
        kind: Kind,
        outcome: Outcome,
    },
    /// The API has been told this status, or could not be.
    Told(Box<PodStatus>, Result<Option<u64>, kube::Error>),
}

struct Live {
    process: Process,
    probes: Vec<AbortHandle>,
}

struct Worker {
    kubelet: Arc<Kubelet>,
    wanted: watch::Receiver<Wanted>,
    record: PodRecord,
    volumes: BTreeMap<String, Ready>,
    live: BTreeMap<String, Live>,
    notices: mpsc::UnboundedSender<Notice>,
    tasks: JoinSet<()>,
    /// Whether volumes are being made.
    preparing: bool,
    retry: Duration,
    /// Why a volume could not be made, as far as it has been told.
    mount_failure: Option<NotReady>,
    /// What the API has been told.
    told: Option<PodStatus>,
    /// The resource version that came of it: a watch that is behind it knows less than we do.
    told_version: Option<u64>,
    /// Whether it is being told something.
    telling: bool,
    /// When to try again after it could not be.
    tell_at: Option<Timestamp>,
    /// When a pod that is being started has been quiet for long enough; and, while it is, when to look again.
    quiet_until: Option<Timestamp>,
    speak_at: Option<Timestamp>,
    finished: bool,
    shutdown: CancellationToken,
}

/// Run one pod until it is gone, or until `shutdown` with its processes stopped.
pub async fn run(kubelet: Arc<Kubelet>, wanted: watch::Receiver<Wanted>, shutdown: CancellationToken) {
    let (notices, mut received) = mpsc::unbounded_channel();
    let pod = wanted.borrow().pod.clone();
    let mut worker = Worker {
        record: recollect(&pod, kubelet.now()),
        told: pod.status.clone(),
        told_version: version(&pod),
        quiet_until: None,
        speak_at: None,
        telling: false,
        tell_at: None,
        kubelet,
        wanted,
        volumes: BTreeMap::new(),
        live: BTreeMap::new(),
        notices,
        tasks: JoinSet::new(),
        preparing: false,
        retry: FIRST_RETRY,
        mount_failure: None,
        finished: false,
        shutdown: shutdown.clone(),
    };
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.tick().await;
    loop {
        let wake_at = if shutdown.is_cancelled() {
            None
        } else {
            worker.step().await
        };
        if worker.finished || shutdown.is_cancelled() {
            break;
        }
        let sleep = wake_at
            .map(|at| at.duration_since(worker.kubelet.now()))
            .map(|d| d.unsigned_abs());
        tokio::select! {
            Some(notice) = received.recv() => worker.note(notice),
            changed = worker.wanted.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            _ = refresh.tick() => worker.refresh(),
            () = shutdown.cancelled() => {}
        }
        while let Ok(notice) = received.try_recv() {
            worker.note(notice);
        }
        while worker.tasks.try_join_next().is_some() {}
    }
    if !worker.finished {
        worker.stop_for_shutdown(&mut received).await;
    }
}

/// The version of an object; versions can be compared.
fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref()?.parse().ok()
}

/// What can be known of a pod that an earlier kubelet ran: its restart counts, and that none of its processes is left.
fn recollect(pod: &Pod, now: Timestamp) -> PodRecord {
    let status = pod.status.as_ref();
    let mut record = PodRecord {
        start_time: Some(status.and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0)),
        ..PodRecord::default()
    };
    let statuses = status.iter().flat_map(|s| {
        s.container_statuses
            .iter()
            .flatten()
            .chain(s.init_container_statuses.iter().flatten())
    });
    for known in statuses {
        let state = known.state.as_ref();
        let was = state.and_then(|s| s.terminated.clone());
        let last = known.last_state.as_ref().and_then(|s| s.terminated.clone());
        if known.container_id.is_none() && was.is_none() && last.is_none() {
            continue;
        }
        let backing_off = state.is_some_and(|s| s.waiting.is_some());
        let vanished = || ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when petset was started again".into()),
            container_id: known.container_id.clone(),
            ..ContainerStateTerminated::default()
        };
        let ended = was
            .or_else(|| last.clone().filter(|_| backing_off))
            .unwrap_or_else(vanished);
        let before = last.filter(|l| *l != ended);
        let memory = Record {
            state: State::Ended(ended),
            last: before,
            restarts: known.restart_count,
            id: known.container_id.clone(),
            image_id: known.image_id.clone(),
            ..Record::default()
        };
        record.containers.insert(known.name.clone(), memory);
    }
    if !plan::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none() {
        run_init_containers_again(pod, &mut record);
    }
    record
}

/// What init containers set up may be gone with the processes: as after upstream's loss of a sandbox they run again,
/// unless nothing of the pod is ever to be restarted.
fn run_init_containers_again(pod: &Pod, record: &mut PodRecord) {
    let Some(spec) = &pod.spec else { return };
    if plan::restart_policy(spec) == "Never" {
        return;
    }
    let init = spec.init_containers.iter().flatten();
    for container in init.filter(|c| !is_sidecar(c)) {
        if let Some(known) = record.containers.get_mut(&container.name)
            && let State::Ended(ended) = std::mem::take(&mut known.state)
        {
            known.last = Some(ended);
        }
    }
}

impl Worker {
    fn pod(&self) -> Arc<Pod> {
        self.wanted.borrow().pod.clone()
    }

    fn container(&self, pod: &Pod, name: &str) -> Option<Container> {
        let spec = pod.spec.as_ref()?;
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .find(|c| c.name == name)
            .cloned()
    }

    /// Plan and act once; when to look again.
    async fn step(&mut self) -> Option<Timestamp> {
        if self.wanted.borrow_and_update().removed {
            self.remove_by_force().await;
            return None;
        }
        let pod = self.pod();
        let plan = plan(&pod, &self.record, self.kubelet.now());
        let mut finish = false;
        for action in plan.actions {
            match action {
                Action::Prepare => self.prepare(&pod),
                Action::Start { container } => self.start(&pod, &container),
                Action::Stop { container, message } => self.stop(&pod, &container, message, None),
                Action::Finish => finish = true,
            }
        }
        let told = self.tell_status(&pod);
        if finish && told {
            self.finish(&pod).await;
        }
        [plan.wake_at, self.tell_at, self.speak_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// A little later, and later each time.
    fn soon(&mut self) -> Option<Timestamp> {
        let pause = SignedDuration::try_from(self.retry).ok()?;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.kubelet.now().checked_add(pause).ok()
    }

    fn prepare(&mut self, pod: &Arc<Pod>) {
        if self.record.address.is_none() {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            let (namespace, name) = (part(&pod.metadata.namespace), part(&pod.metadata.name));
            let uid = part(&pod.metadata.uid);
            self.record.address = self.kubelet.addresses().assign(&namespace, &name, &uid);
            if self.record.address.is_none() {
                let message = format!(
                    "no address is free in {}: see --pod-cidr",
                    self.kubelet.options.pod_range
                );
                self.kubelet
                    .events
                    .tell(pod, None, EventType::Warning, "FailedCreatePodSandBox", message);
            }
        }
        if !self.preparing {
            self.preparing = true;
            let pause = if self.record.address.is_some() {
                Duration::ZERO
            } else {
                LAST_RETRY
            };
            self.make_volumes(pod, pause);
        }
    }

    fn make_volumes(&mut self, pod: &Arc<Pod>, after: Duration) {
        let (kubelet, pod, address) = (self.kubelet.clone(), pod.clone(), self.record.address);
        let tell = self.notices.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            let directory = kubelet.pod_directory(&pod);
            let sources = kubelet.sources(address);
            let volumes = Volumes {
                client: &kubelet.client,
                pod: &pod,
                directory: &directory,
                sources: &sources,
            };
            let _ = tell.send(Notice::Volumes(volumes.make().await));
        });
    }

    /// Bring files that follow other objects up to date.
    fn refresh(&mut self) {
        let pod = self.pod();
        if self.record.prepared && Volumes::follow_objects(&pod) && !plan::is_terminal(&pod) {
            self.make_volumes(&pod, Duration::ZERO);
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, name: &str) {
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let spec = pod.spec.as_ref();
        self.record.initialized |= spec.is_some_and(|s| s.containers.iter().any(|c| c.name == name));
        let record = self.record.containers.entry(name.to_owned()).or_default();
        if matches!(record.state, State::Ended(_)) && record.delay > SignedDuration::ZERO {
            tracing::debug!(container = name, delay = %go_duration(record.delay), "restarting after back-off");
        }
        record.starting();
        let start = Start {
            kubelet: self.kubelet.clone(),
            pod: pod.clone(),
            container,
            volumes: self.volumes.clone(),
            address: self.record.address,
            instance: record.next_instance(),
        };
        let (tell, container) = (self.notices.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let result = start.run().await;
            let _ = tell.send(Notice::Started { container, result });
        });
    }

    fn stop(&mut self, pod: &Pod, name: &str, message: String, grace: Option<i64>) {
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let Some(live) = self.live.get(name) else { return };
        if let Some(State::Running { stopping, .. }) =
            self.record.containers.get_mut(name).map(|r| &mut r.state)
        {
            if *stopping {
                return;
            }
            *stopping = true;
        }
        self.kubelet
            .events
            .tell(pod, Some(name), EventType::Normal, "Killing", message);
        let stop = Stop {
            kubelet: self.kubelet.clone(),
            container,
            target: Target {
                process: live.process.clone(),
                address: self.record.address,
            },
            wanted: self.wanted.clone(),
            grace,
        };
        self.tasks.spawn(stop.run());
    }

    fn note(&mut self, notice: Notice) {
        let pod = self.pod();
        match notice {
            Notice::Volumes(result) => self.note_volumes(&pod, result),
            Notice::Started { container, result } => match result {
                Ok(running) => self.note_started(&pod, &container, running),
                Err(failure) => self.note_failure(&pod, &container, failure),
            },
            Notice::Ended { container, exit } => {
                let message = self.termination_message(&pod, &container, exit);
                self.note_ended(&pod, &container, terminated(exit, message));
            }
            Notice::Probed {
                container,
                kind,
                outcome,
            } => self.note_probe(&pod, &container, kind, outcome),
            Notice::Told(status, result) => self.note_told(&pod, *status, result),
        }
    }

    fn note_volumes(&mut self, pod: &Arc<Pod>, result: Result<BTreeMap<String, Ready>, NotReady>) {
        match result {
            Ok(volumes) => {
                self.volumes = volumes;
                self.retry = FIRST_RETRY;
                self.record.prepared = self.record.address.is_some();
                self.preparing = false;
            }
            // A refresh that fails leaves the files as they are.
            Err(_) if self.record.prepared => {}
            Err(not_ready) => {
                if !not_ready.waiting && self.mount_failure.as_ref() != Some(&not_ready) {
                    let message = not_ready.event_message();
                    self.mount_failure = Some(not_ready);
                    self.kubelet
                        .events
                        .tell(pod, None, EventType::Warning, "FailedMount", message);
                }
                let pause = self.retry;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                self.make_volumes(pod, pause);
            }
        }
    }

    fn note_started(&mut self, pod: &Arc<Pod>, name: &str, running: Running) {
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let now = self.kubelet.now();
        let id = format!("petset://{}-{name}-{}", running.process.pid, now.as_millisecond());
        let record = self.record.containers.entry(name.to_owned()).or_default();
        record.image_id = running.image.what;
        record.started(
            id,
            now,
            container.startup_probe.is_none(),
            container.readiness_probe.is_none(),
        );
        let (tell, process, of) = (self.notices.clone(), running.process.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let exit = process.exited().await;
            process.gone().await;
            let _ = tell.send(Notice::Ended { container: of, exit });
        });
        self.live.insert(
            name.to_owned(),
            Live {
                process: running.process,
                probes: Vec::new(),
            },
        );
        if container.startup_probe.is_some() {
            self.watch_probe(pod, &container, Kind::Startup);
        } else {
            self.watch_after_startup(pod, &container);
        }
    }

    fn watch_after_startup(&mut self, pod: &Arc<Pod>, container: &Container) {
        self.watch_probe(pod, container, Kind::Readiness);
        self.watch_probe(pod, container, Kind::Liveness);
    }

    fn watch_probe(&mut self, pod: &Arc<Pod>, container: &Container, kind: Kind) {
        let Some(live) = self.live.get_mut(&container.name) else {
            return;
        };
        if kind.of(container).is_none() {
            return;
        }
        let target = Target {
            process: live.process.clone(),
            address: self.record.address,
        };
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        let probing = probe::run(kind, Pod::clone(pod), container.clone(), target, sender);
        let (tell, name) = (self.notices.clone(), container.name.clone());
        let task = self.tasks.spawn(async move {
            let forward = async {
                while let Some((kind, outcome)) = outcomes.recv().await {
                    let _ = tell.send(Notice::Probed {
                        container: name.clone(),
                        kind,
                        outcome,
                    });
                }
            };
            tokio::join!(probing, forward);
        });
        live.probes.push(task);
    }

    fn note_probe(&mut self, pod: &Arc<Pod>, name: &str, kind: Kind, outcome: Outcome) {
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let Some(record) = self.record.containers.get_mut(name) else {
            return;
        };
        let State::Running {
            started,
            ready,
            stopping,
            ..
        } = &mut record.state
        else {
            return;
        };
        match (kind, outcome) {
            // While the pod is deleted only readiness counts.
            (Kind::Startup | Kind::Liveness, _) if deleting || *stopping => {}
            (_, Outcome::TryFailed(message)) => {
                let message = format!("{} probe failed: {message}", kind.title());
                self.kubelet
                    .events
                    .tell(pod, Some(name), EventType::Warning, "Unhealthy", message);
            }
            (Kind::Readiness, Outcome::Changed(now_ready)) => *ready = now_ready,
            (Kind::Startup, Outcome::Changed(true)) => {
                *started = true;
                if let Some(live) = self.live.get_mut(name) {
                    live.probes.drain(..).for_each(|task| task.abort());
                }
                self.watch_after_startup(pod, &container);
            }
            (Kind::Liveness, Outcome::Changed(true)) => {}
            (Kind::Startup | Kind::Liveness, Outcome::Changed(false)) => {
                let title = kind.title().to_lowercase();
                let message = format!("Container {name} failed {title} probe, will be restarted");
                let grace = kind
                    .of(&container)
                    .and_then(|p| p.termination_grace_period_seconds);
                self.stop(pod, name, message, grace);
            }
        }
    }

    fn note_failure(&mut self, pod: &Arc<Pod>, name: &str, failure: Failure) {
        let now = self.kubelet.now();
        let tell = |reason: &'static str, message: String| {
            self.kubelet
                .events
                .tell(pod, Some(name), EventType::Warning, reason, message);
        };
        let (reason, message) = match failure {
            Failure::Start(message) => {
                tell("Failed", format!("Error: {message}"));
                let ended = ContainerStateTerminated {
                    exit_code: 128,
                    reason: Some("StartError".into()),
                    message: Some(message),
                    ..ContainerStateTerminated::default()
                };
                self.note_ended(pod, name, ended);
                return;
            }
            Failure::Hook(message) => {
                let ended = terminated(
                    Exit {
                        code: 137,
                        signal: Some(9),
                    },
                    Some(message),
                );
                self.note_ended(pod, name, ended);
                return;
            }
            Failure::Image(message) => {
                let image = self
                    .container(pod, name)
                    .and_then(|c| c.image)
                    .unwrap_or_default();
                tell("Failed", format!("Failed to pull image {image:?}: {message}"));
                let known = self.record.containers.get(name).map(Record::settled);
                if !matches!(known, Some(State::Waiting { .. })) {
                    tell("Failed", "Error: ErrImagePull".into());
                    ("ErrImagePull", message)
                } else {
                    tell("BackOff", format!("Back-off pulling image {image:?}"));
                    tell("Failed", "Error: ImagePullBackOff".into());
                    let message = format!("Back-off pulling image {image:?}: ErrImagePull: {message}");
                    ("ImagePullBackOff", message)
                }
            }
            Failure::Config(message) => {
                // Said once: the next tries come soon.
                let known = self.record.containers.get(name).map(Record::settled);
                let said =
                    matches!(known, Some(State::Waiting { message: before, .. }) if *before == message);
                if !said {
                    tell("Failed", format!("Error: {message}"));
                }
                ("CreateContainerConfigError", message)
            }
        };
        // What is missing may come any moment, unlike a program that keeps ending.
        let mut back_off = self.kubelet.options.back_off;
        if reason == "CreateContainerConfigError" {
            back_off.max = back_off.max.min(CONFIG_RETRY);
        }
        let record = self.record.containers.entry(name.to_owned()).or_default();
        record.wait(reason, message, now, back_off);
    }

    fn note_ended(&mut self, pod: &Arc<Pod>, name: &str, ended: ContainerStateTerminated) {
        if let Some(live) = self.live.remove(name) {
            live.probes.iter().for_each(AbortHandle::abort);
        }
        let back_off = self.kubelet.options.back_off;
        let now = self.kubelet.now();
        let record = self.record.containers.entry(name.to_owned()).or_default();
        let exit_code = ended.exit_code;
        record.ended(ended, now, back_off);
        let delay = record.delay;
        let Some(container) = self.container(pod, name) else {
            return;
        };
        let deleting = pod.metadata.deletion_timestamp.is_some();
        if delay > SignedDuration::ZERO && !deleting && will_restart(pod, &container, exit_code) {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            let message = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                part(&pod.metadata.name),
                part(&pod.metadata.namespace),
                part(&pod.metadata.uid)
            );
            tracing::debug!(message = back_off_message(pod, &container, delay));
            self.kubelet
                .events
                .tell(pod, Some(name), EventType::Warning, "BackOff", message);
        }
    }

    /// What the container left in its termination log, or the end of its log if it asks for that (4 KiB; 2 KiB or
    /// 80 lines).
    fn termination_message(&self, pod: &Pod, name: &str, exit: Exit) -> Option<String> {
        let container = self.container(pod, name)?;
        let directory = self.kubelet.pod_directory(pod).join("containers").join(name);
        let text = std::fs::read(directory.join("termination-log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned();
        if !text.is_empty() {
            return Some(text);
        }
        let falls_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if exit.code == 0 || !falls_back {
            return None;
        }
        let instance = self.record.containers.get(name).map_or(0, |r| r.restarts);
        tail_of_log(&directory, instance)
    }

    /// Tell the API what has changed, beside everything else and one write after the other. True: it knows all.
    fn tell_status(&mut self, pod: &Arc<Pod>) -> bool {
        let host_ip = self.kubelet.options.host_ip.to_string();
        let now = self.kubelet.now();
        if self.telling || self.tell_at.is_some_and(|at| at > now) {
            return false;
        }
        (self.tell_at, self.speak_at) = (None, None);
        let mut seen = Pod::clone(pod);
        if let Some(told) = &self.told {
            if version(pod) > self.told_version && status::is_contradicted(pod.status.as_ref(), told) {
                self.told = None;
            } else {
                seen.status = Some(status::known(pod.status.as_ref(), told));
            }
        }
        let status = status(&seen, &self.record, &host_ip, now);
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let same = |told: &PodStatus| *told == status || deleting && status::says_the_same(told, &status);
        if self.told.as_ref().is_some_and(same) {
            return true;
        }
        if let Some(until) = self.quiet_until(&status, now) {
            self.speak_at = Some(until);
            return false;
        }
        self.telling = true;
        let (pods, name) = self.api(pod);
        let patch = Patch::Strategic(status::patch(pod.metadata.uid.as_deref(), &status));
        let tell = self.notices.clone();
        self.tasks.spawn(async move {
            let written = pods.patch_status(&name, &PatchParams::default(), &patch).await;
            let written = written.map(|pod| version(&pod));
            let _ = tell.send(Notice::Told(Box::new(status), written));
        });
        false
    }

    /// Whether the pod is still being started, so that it is too early to tell of it.
    fn is_starting(&self) -> bool {
        let mut states = self.record.containers.values().map(|r| &r.state);
        self.preparing || self.record.containers.is_empty() || states.any(|s| matches!(s, State::Starting(_)))
    }

    /// Until when not to tell `status`, which says no more than that the pod is being started.
    fn quiet_until(&mut self, status: &PodStatus, now: Timestamp) -> Option<Timestamp> {
        let pending = |status: &PodStatus| matches!(status.phase.as_deref(), None | Some("Pending"));
        if !pending(status) || !self.told.as_ref().is_none_or(pending) || !self.is_starting() {
            return None;
        }
        let until = *self.quiet_until.get_or_insert(now.checked_add(QUIET).ok()?);
        Some(until).filter(|until| *until > now)
    }

    fn note_told(&mut self, pod: &Pod, status: PodStatus, result: Result<Option<u64>, kube::Error>) {
        self.telling = false;
        match result {
            Ok(version) => {
                self.told = Some(status);
                self.told_version = version;
                self.retry = FIRST_RETRY;
            }
            // It is gone, or another of its name has come: the watch will say so.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {
                self.told = Some(status);
            }
            Err(error) => {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(pod, %error, "the pod's status is not written; trying again");
                self.tell_at = self.soon();
            }
        }
    }

    /// The pods of the pod's namespace, and its name.
    fn api(&self, pod: &Pod) -> (Api<Pod>, String) {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let client = self.kubelet.client.clone();
        let pods = Api::namespaced(client, &part(&pod.metadata.namespace));
        (pods, part(&pod.metadata.name))
    }

    /// All is stopped: let go of what the pod held, and of the object if it is being deleted.
    async fn finish(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.kubelet.addresses().release(&uid);
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        self.remove_directory(pod).await;
        let (pods, name) = self.api(pod);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match pods.delete(&name, &parameters).await {
            Ok(_) => self.finished = pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => self.finished = true,
            Err(error) => {
                tracing::warn!(pod = name, %error, "the pod is not removed; trying again");
                tokio::time::sleep(self.retry).await;
                self.retry = (self.retry * 2).min(LAST_RETRY);
            }
        }
    }

    async fn remove_directory(&self, pod: &Pod) {
        let directory = self.kubelet.pod_directory(pod);
        let removed = tokio::fs::remove_dir_all(&directory).await;
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove a pod's directory");
        }
    }

    /// The object is gone, so nothing of the pod may stay.
    async fn remove_by_force(&mut self) {
        let pod = self.pod();
        for live in self.live.values() {
            live.process.kill().await;
        }
        for live in self.live.values() {
            live.process.gone().await;
        }
        self.tasks.shutdown().await;
        self.kubelet
            .addresses()
            .release(pod.metadata.uid.as_deref().unwrap_or_default());
        self.remove_directory(&pod).await;
        self.finished = true;
    }

    /// Petset goes down: stop gracefully, and leave the object for the next start.
    async fn stop_for_shutdown(&mut self, received: &mut mpsc::UnboundedReceiver<Notice>) {
        debug_assert!(self.shutdown.is_cancelled() || self.wanted.has_changed().is_err());
        let pod = self.pod();
        let Some(spec) = &pod.spec else { return };
        loop {
            let mut plan = Plan::default();
            plan::wind_down(spec, &self.record, &mut plan);
            for action in plan.actions {
                match action {
                    Action::Stop { container, message } => self.stop(&pod, &container, message, None),
                    _ => return,
                }
            }
            match received.recv().await {
                Some(notice) => self.note(notice),
                None => return,
            }
        }
    }
}

fn tail_of_log(directory: &Path, instance: i32) -> Option<String> {
    let text = std::fs::read_to_string(directory.join(format!("{instance}.log"))).ok()?;
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.splitn(4, ' ').nth(3))
        .collect();
    let mut tail = lines[lines.len().saturating_sub(80)..].join("\n");
    if tail.len() > 2048 {
        let from = (tail.len() - 2048..tail.len())
            .find(|n| tail.is_char_boundary(*n))
            .unwrap_or(tail.len());
        tail.drain(..from);
    }
    Some(tail).filter(|t| !t.is_empty())
}
