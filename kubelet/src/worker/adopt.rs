//! Taking over what an earlier kubelet started: the same processes go on, and what ended meanwhile is told as it was.

use super::Worker;
use super::ends::Ends;
use crate::console::Console;
use crate::process::Container as Process;
use crate::record::{Record, State};
use crate::start;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::sync::Arc;

impl Worker {
    /// Take over what shims hold of this pod.
    pub(super) async fn adopt(&mut self, held: Vec<Process>) {
        let pod = self.pod();
        for process in held {
            self.adopt_one(&pod, process).await;
        }
    }

    async fn adopt_one(&mut self, pod: &Arc<Pod>, process: Process) {
        let name = process.known.name.clone();
        let Some(container) = self.container(pod, &name) else {
            process.kill().await;
            return;
        };
        let spec = pod.spec.as_ref();
        self.record.initialized |= spec.is_some_and(|s| s.containers.iter().any(|c| c.name == name));
        let id = start::container_id(&process);
        let told = told(pod, &name).filter(|status| status.container_id.as_deref() == Some(&id));
        if process.state().gone && told.is_some_and(has_ended) {
            return;
        }
        let directory = self.kubelet.pod_directory(pod).join("containers").join(&name);
        let ends = Ends::read(&directory);
        let last = told.and_then(|status| status.last_state.as_ref()?.terminated.clone());
        let record = self.record.containers.entry(name).or_default();
        let before = match std::mem::take(&mut record.state) {
            State::Ended(before) if told.is_none() => Some(before),
            _ => last,
        };
        let told_that = |said: Option<bool>| said == Some(true);
        *record = Record {
            state: State::Running {
                since: process.known.started.min(self.kubelet.now()),
                started: container.startup_probe.is_none() || told_that(told.and_then(|s| s.started)),
                // It is as ready as it was, until a probe says otherwise.
                ready: container.readiness_probe.is_none() || told.is_some_and(|s| s.ready),
                stopping: false,
            },
            last: before,
            restarts: process.known.instance,
            id: Some(id),
            ends: ends.map_or(0, |e| e.before(process.known.instance, record.image.as_ref())),
            delay: SignedDuration::ZERO,
            image: record.image.take(),
            image_id: std::mem::take(&mut record.image_id),
            user: process.known.user.clone().or(record.user.take()),
            resources: record
                .resources
                .take()
                .or_else(|| Some(container.resources.clone().unwrap_or_default())),
        };
        let stdio = start::stdio(&container);
        let console = Console::new(process.clone(), stdio, container.stdin_once == Some(true));
        self.attend(pod, &container, process, console);
    }
}

fn told<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let regular = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    regular.chain(init).chain(ephemeral).find(|s| s.name == name)
}

/// Whether the API knows how the instance of this id ended.
fn has_ended(status: &ContainerStatus) -> bool {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.as_ref().and_then(|s| s.terminated.as_ref());
        terminated.is_some_and(|t| t.container_id == status.container_id)
    };
    let waits = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
    ended(&status.state) || waits && ended(&status.last_state)
}
