//! What the kubelet knows of a pod beyond the API object: one [`Record`] per container. Only the pod's own
//! worker changes it; [`plan`](crate::plan) and [`status`](crate::status) read it.

use crate::shim::protocol::Exit;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A container that has run this long before it ended starts with a clean slate (upstream: 10 minutes).
const SETTLED: SignedDuration = SignedDuration::from_mins(10);

/// The delays between restarts of a container that keeps ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// Before the second restart; the first is immediate.
    pub initial: SignedDuration,
    /// What doubling stops at.
    pub max: SignedDuration,
}

impl Default for BackOff {
    /// Upstream's: 10 s, 20 s … 300 s.
    fn default() -> Self {
        Self {
            initial: SignedDuration::from_secs(10),
            max: SignedDuration::from_secs(300),
        }
    }
}

/// A pod as the kubelet has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRecord {
    /// When the kubelet took the pod on.
    pub start_time: Option<Timestamp>,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether its volumes and address are there, so that containers can start.
    pub prepared: bool,
    /// By container name, init containers included.
    pub containers: BTreeMap<String, Record>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// What it does now.
    pub state: State,
    /// How the instance before this one ended.
    pub last: Option<ContainerStateTerminated>,
    /// How many instances were started after the first.
    pub restarts: i32,
    /// How long to wait before the next restart.
    pub delay: SignedDuration,
    /// The container id of the newest instance, `petset://…`.
    pub id: Option<String>,
    /// What the image resolved to.
    pub image_id: String,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// Not started yet; nothing stands in the way.
    #[default]
    New,
    /// A start is under way.
    Starting,
    /// It cannot start for now.
    Waiting {
        /// For example `ErrImagePull`.
        reason: String,
        /// For the user.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
        /// How long the wait before that was, for doubling.
        delay: SignedDuration,
    },
    /// Its main process runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// Whether the startup probe, if any, has passed.
        started: bool,
        /// Whether the readiness probe, if any, has passed.
        ready: bool,
        /// Whether it is being stopped.
        stopping: bool,
    },
    /// It has ended, and no process of it is left.
    Ended(ContainerStateTerminated),
}

impl Record {
    /// Whether a process of it may be alive.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Starting)
    }

    /// How the newest instance that ended did so.
    pub fn terminated(&self) -> Option<&ContainerStateTerminated> {
        match &self.state {
            State::Ended(terminated) => Some(terminated),
            _ => self.last.as_ref(),
        }
    }

    /// A new instance runs.
    pub fn started(&mut self, id: String, now: Timestamp, started: bool, ready: bool) {
        self.note_last();
        if self.last.is_none() {
            // It had waited for something else than its own end.
            self.delay = SignedDuration::ZERO;
        }
        self.id = Some(id);
        self.state = State::Running {
            since: now,
            started,
            ready,
            stopping: false,
        };
    }

    /// The instance before becomes the last one, and this one counts as a restart of it.
    fn note_last(&mut self) {
        if let State::Ended(ended) = &self.state {
            self.last = Some(ended.clone());
            self.state = State::New;
        }
    }

    /// A start begins: from here on an earlier instance is the last one.
    pub fn starting(&mut self) {
        if self.terminated().is_some() {
            self.restarts += 1;
        }
        self.note_last();
        self.state = State::Starting;
    }

    /// It ended at `now`.
    pub fn ended(&mut self, mut terminated: ContainerStateTerminated, now: Timestamp, back_off: BackOff) {
        terminated.container_id.clone_from(&self.id);
        terminated.finished_at = Some(Time(now));
        let since = match &self.state {
            State::Running { since, .. } => *since,
            _ => now,
        };
        terminated.started_at = Some(Time(since));
        if now.duration_since(since) >= SETTLED {
            self.delay = SignedDuration::ZERO;
        } else if self.terminated().is_some() {
            let doubled = self.delay.checked_mul(2).unwrap_or(back_off.max);
            self.delay = doubled.max(back_off.initial).min(back_off.max);
        }
        self.state = State::Ended(terminated);
    }

    /// When an ended container may be started again (3.4: counted from its end).
    pub fn restart_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Ended(terminated) => terminated
                .finished_at
                .as_ref()
                .and_then(|finished| finished.0.checked_add(self.delay).ok()),
            _ => None,
        }
    }
}

/// Exit as the API tells it; `reason` is `Completed` or `Error` unless something better is known.
pub fn terminated(exit: Exit, message: Option<String>) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(if exit.code == 0 { "Completed" } else { "Error" }.into()),
        message,
        ..ContainerStateTerminated::default()
    }
}

/// `NAME_NAMESPACE(UID)`, as upstream names pods in messages.
pub fn full_name(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    format!(
        "{}_{}({})",
        part(&metadata.name),
        part(&metadata.namespace),
        part(&metadata.uid)
    )
}
