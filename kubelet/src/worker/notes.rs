//! What happened beside the worker, written into its record: volumes, starts, probes, ends.

use super::ends::Ends;
use super::{CONFIG_RETRY, FIRST_RETRY, LAST_RETRY, Live, Notice, Worker};
use crate::console::Console;
use crate::exec;
use crate::handler::Target;
use crate::probe::{self, Kind, Outcome};
use crate::process::Container as Process;
use crate::record::{Record, State, terminated};
use crate::shim::protocol::Exit;
use crate::start::{self, Failure, Running};
use crate::status::{back_off_message, will_restart};
use crate::volume::{NotReady, Ready};
use events::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

impl Worker {
    pub(super) fn note(&mut self, notice: Notice) {
        let pod = self.pod();
        match notice {
            // It has been quiet for long enough.
            Notice::Hurry => self.quiet_until = Some(self.kubelet.now()),
            Notice::Volumes(result) => self.note_volumes(&pod, result),
            Notice::Started { container, result } => match result {
                Ok(running) => self.note_started(&pod, &container, *running),
                Err(failure) => self.note_failure(&pod, &container, failure),
            },
            Notice::Ended { container, ending } => {
                let message = self.termination_message(&pod, &container, ending.exit);
                let mut ended = terminated(ending.exit, message);
                if ending.oom_killed {
                    ended.reason = Some("OOMKilled".into());
                }
                // One that ended while no kubelet looked did so then, not now.
                let at = ending.at.min(self.kubelet.now());
                self.note_ended(&pod, &container, ended, at);
            }
            Notice::Probed {
                container,
                kind,
                outcome,
            } => self.note_probe(&pod, &container, kind, outcome),
            Notice::Used { usage, took } => self.note_used(&usage, took),
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
                // What comes next is its start, and that is one write again.
                self.quiet_until = None;
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
        let (id, now) = (start::container_id(&running.process), self.kubelet.now());
        let record = self.record.containers.entry(name.to_owned()).or_default();
        record.image_id = running.image.what;
        record.user.clone_from(&running.process.known.user);
        record.resources = Some(container.resources.clone().unwrap_or_default());
        record.started(
            id,
            running.process.known.started.min(now),
            container.startup_probe.is_none(),
            container.readiness_probe.is_none(),
        );
        self.attend(pod, &container, running.process, running.console);
    }

    /// Follow a container that runs, and let clients reach it.
    pub(super) fn attend(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        process: Process,
        console: Arc<Console>,
    ) {
        let name = container.name.as_str();
        let directory = self.kubelet.pod_directory(pod).join("containers").join(name);
        let log = self.kubelet.logs.begin(&directory, process.known.instance);
        let (tell, ending, of) = (self.notices.clone(), process.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let ended = ending.ended().await;
            ending.gone().await;
            drop(log);
            let _ = tell.send(Notice::Ended {
                container: of,
                ending: ended,
            });
        });
        let reachable = exec::Running::new(process.clone(), console, self.record.address);
        let started = process.known.started.min(self.kubelet.now());
        self.kubelet.containers.insert(pod, name, reachable, started);
        let live = Live {
            process,
            probes: Vec::new(),
        };
        self.live.insert(name.to_owned(), live);
        let state = self.record.containers.get(name).map(|r| &r.state);
        if matches!(state, Some(State::Running { started: false, .. })) {
            self.watch_probe(container, Kind::Startup);
        } else {
            self.watch_after_startup(container);
        }
    }

    fn watch_after_startup(&mut self, container: &Container) {
        self.watch_probe(container, Kind::Readiness);
        self.watch_probe(container, Kind::Liveness);
    }

    fn watch_probe(&mut self, container: &Container, kind: Kind) {
        let Some(live) = self.live.get_mut(&container.name) else {
            return;
        };
        if kind.of(container).is_none() {
            return;
        }
        let target = Target {
            process: live.process.clone(),
            address: self.record.address,
            network: self.kubelet.options.network.clone(),
        };
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        let probing = probe::run(kind, container.clone(), target, sender);
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
                self.warn(pod, name, "Unhealthy", message);
            }
            (_, Outcome::Errored(message)) => {
                let title = kind.title();
                let message = format!("{title} probe errored and resulted in unknown state: {message}");
                self.warn(pod, name, "Unhealthy", message);
            }
            (_, Outcome::Warned(message)) => {
                let message = format!("{} probe warning: {message}", kind.title());
                self.warn(pod, name, "ProbeWarning", message);
            }
            (Kind::Readiness, Outcome::Changed(now_ready)) => *ready = now_ready,
            (Kind::Startup, Outcome::Changed(true)) => {
                *started = true;
                if let Some(live) = self.live.get_mut(name) {
                    live.probes.drain(..).for_each(|task| task.abort());
                }
                self.watch_after_startup(&container);
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

    fn warn(&self, pod: &Pod, container: &str, reason: &'static str, message: String) {
        let events = &self.kubelet.events;
        events.tell(pod, Some(container), EventType::Warning, reason, message);
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
                self.note_ended(pod, name, ended, now);
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
                self.note_ended(pod, name, ended, now);
                return;
            }
            Failure::Sandbox(message) => {
                let message = format!("Failed to create pod sandbox: {message}");
                self.kubelet.events.tell(
                    pod,
                    None,
                    EventType::Warning,
                    "FailedCreatePodSandBox",
                    message.clone(),
                );
                ("ContainerCreating", message)
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
            Failure::NeverPull(message) => {
                tell("ErrImageNeverPull", message.clone());
                tell("Failed", "Error: ErrImageNeverPull".into());
                ("ErrImageNeverPull", message)
            }
            Failure::ImageName(message) => {
                tell("InspectFailed", message.clone());
                tell("Failed", "Error: InvalidImageName".into());
                ("InvalidImageName", message)
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

    fn note_ended(&mut self, pod: &Arc<Pod>, name: &str, ended: ContainerStateTerminated, at: Timestamp) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.kubelet.containers.remove(uid, name);
        if let Some(live) = self.live.remove(name) {
            live.probes.iter().for_each(AbortHandle::abort);
        }
        let back_off = self.kubelet.options.back_off;
        let record = self.record.containers.entry(name.to_owned()).or_default();
        let exit_code = ended.exit_code;
        record.ended(ended, at, back_off);
        let delay = record.delay;
        self.write_ends(pod, name);
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

    /// For the next kubelet. What this one ends because it goes down itself does not count.
    fn write_ends(&self, pod: &Pod, name: &str) {
        let Some(record) = self.record.containers.get(name) else {
            return;
        };
        let directory = self.kubelet.pod_directory(pod).join("containers").join(name);
        if !self.shutdown.is_cancelled() {
            if let Err(error) = Ends::of(record).write(&directory) {
                tracing::debug!(directory = %directory.display(), %error, "a container's end is not written down");
            }
        } else if record.ends == 1 {
            // It had run for long enough.
            Ends::forget(&directory);
        }
    }
}
