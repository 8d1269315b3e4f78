//! What the kubelet knows of a pod beyond the API object: one [`Record`] per container. Only the pod's own
//! worker changes it; [`plan`](crate::plan) and [`status`](crate::status) read it.

use crate::shim::protocol::Exit;
use crate::shim::protocol::pod::Identity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, ResourceRequirements};
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

impl BackOff {
    /// The delay before the restart of a container that has ended so many times in a row.
    pub fn delay(self, ends: u32) -> SignedDuration {
        let Some(doublings) = ends.checked_sub(2) else {
            return SignedDuration::ZERO;
        };
        let factor = 2i32.checked_pow(doublings).unwrap_or(i32::MAX);
        let delay = self.initial.checked_mul(factor).unwrap_or(self.max);
        delay.min(self.max)
    }
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
    /// Whether a regular container has been started by this kubelet: then init containers are history.
    pub initialized: bool,
    /// Why it is being evicted, if it is: it uses more than it may.
    pub evicted: Option<String>,
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
    /// How many instances in a row have ended that did not run for long.
    pub ends: u32,
    /// How long to wait after its end before the next restart.
    pub delay: SignedDuration,
    /// The container id of the newest instance, `petset://…`.
    pub id: Option<String>,
    /// The image that the newest instance was started with, as its container named it.
    pub image: Option<String>,
    /// What the image resolved to.
    pub image_id: String,
    /// Who the newest instance's program runs as.
    pub user: Option<Identity>,
    /// What the newest instance was given.
    pub resources: Option<ResourceRequirements>,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// Not started yet; nothing stands in the way.
    #[default]
    New,
    /// A start is under way. Until its outcome is known the API goes on showing what was before.
    Starting(Box<State>),
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
        matches!(self.state, State::Running { .. } | State::Starting(_))
    }

    /// How the newest instance that ended did so.
    pub fn terminated(&self) -> Option<&ContainerStateTerminated> {
        match self.settled() {
            State::Ended(terminated) => Some(terminated),
            _ => self.last.as_ref(),
        }
    }

    /// The state, or the one before a start that is under way.
    pub fn settled(&self) -> &State {
        match &self.state {
            State::Starting(before) => before,
            state => state,
        }
    }

    /// The number of the instance that the next start makes: 0, 1, 2 …
    pub fn next_instance(&self) -> i32 {
        self.restarts + i32::from(self.terminated().is_some())
    }

    /// A new instance runs.
    pub fn started(&mut self, id: String, now: Timestamp, started: bool, ready: bool) {
        self.count_instance();
        self.id = Some(id);
        self.state = State::Running {
            since: now,
            started,
            ready,
            stopping: false,
        };
    }

    /// There is a new instance; the one before becomes the last one.
    fn count_instance(&mut self) {
        self.restarts = self.next_instance();
        self.forget_start();
    }

    /// The state before a start that is over, taken out; an instance that had ended becomes the last one.
    fn forget_start(&mut self) -> State {
        let before = match std::mem::take(&mut self.state) {
            State::Starting(before) => *before,
            state => state,
        };
        if let State::Ended(ended) = &before {
            self.last = Some(ended.clone());
        }
        before
    }

    /// A start with this image begins. Another image than before has a clean slate.
    pub fn starting_with(&mut self, image: Option<&String>) {
        if self.image.as_ref() != image {
            (self.ends, self.delay) = (0, SignedDuration::ZERO);
            self.image = image.cloned();
        }
        self.starting();
    }

    /// A start begins.
    pub fn starting(&mut self) {
        let before = std::mem::take(&mut self.state);
        self.state = State::Starting(Box::new(before));
    }

    /// It could not be started, and not for a fault of its program: wait, twice as long each time in a row.
    pub fn wait(&mut self, reason: &str, message: String, now: Timestamp, back_off: BackOff) {
        let delay = match self.forget_start() {
            State::Waiting { delay, .. } => delay.checked_mul(2).unwrap_or(back_off.max),
            _ => back_off.initial,
        };
        let delay = delay.min(back_off.max);
        self.state = State::Waiting {
            reason: reason.into(),
            message,
            retry_at: now.checked_add(delay).unwrap_or(now),
            delay,
        };
    }

    /// It ended at `now`: the instance that ran, or one whose program could not even be started.
    pub fn ended(&mut self, mut terminated: ContainerStateTerminated, now: Timestamp, back_off: BackOff) {
        let since = match &self.state {
            State::Running { since, .. } => *since,
            _ => {
                self.count_instance();
                self.id = None;
                now
            }
        };
        terminated.container_id.clone_from(&self.id);
        terminated.finished_at = Some(Time(now));
        terminated.started_at = Some(Time(since));
        if now.duration_since(since) >= SETTLED {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        self.delay = back_off.delay(self.ends);
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

#[cfg(test)]
mod tests {
    use super::*;

    const BACK_OFF: BackOff = BackOff {
        initial: SignedDuration::from_secs(10),
        max: SignedDuration::from_secs(300),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a time")
    }

    fn exit(code: i32) -> ContainerStateTerminated {
        terminated(Exit { code, signal: None }, None)
    }

    fn run(record: &mut Record, from: i64, seconds: i64, code: i32) {
        record.starting();
        record.started(format!("petset://{from}"), at(from), true, true);
        record.ended(exit(code), at(from + seconds), BACK_OFF);
    }

    #[test]
    fn the_first_restart_is_immediate_and_then_delays_double_up_to_the_limit() {
        let (mut record, mut delays, mut now) = (Record::default(), Vec::new(), 0);
        for _ in 0..9 {
            run(&mut record, now, 1, 1);
            delays.push(record.delay.as_secs());
            assert_eq!(
                record.restart_at(),
                Some(at(now + 1) + record.delay),
                "counted from its end"
            );
            now += 1 + record.delay.as_secs();
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(record.restarts, 8);
    }

    #[test]
    fn ten_minutes_of_running_not_of_waiting_start_the_delays_afresh() {
        let mut record = Record::default();
        for n in 0..4 {
            run(&mut record, n * 10_000, 599, 1);
        }
        assert_eq!(record.delay.as_secs(), 40);
        run(&mut record, 50_000, 600, 1);
        assert_eq!(record.delay, SignedDuration::ZERO);
        run(&mut record, 60_000, 1, 1);
        assert_eq!(record.delay.as_secs(), 10);
    }

    #[test]
    fn tries_that_start_nothing_are_no_restarts_and_keep_the_crash_delay() {
        let mut record = Record::default();
        run(&mut record, 0, 1, 1);
        run(&mut record, 1, 1, 1);
        let (restarts, delay) = (record.restarts, record.delay);
        let mut waits = Vec::new();
        for n in 0..3 {
            record.starting();
            record.wait(
                "CreateContainerConfigError",
                "missing".into(),
                at(10 + n),
                BACK_OFF,
            );
            if let State::Waiting { delay, .. } = &record.state {
                waits.push(delay.as_secs());
            }
        }
        assert_eq!(waits, [10, 20, 40]);
        assert_eq!((record.restarts, record.delay), (restarts, delay));
        assert_eq!(record.last.as_ref().map(|l| l.exit_code), Some(1));
        assert_eq!(record.next_instance(), 2);
        run(&mut record, 100, 1, 0);
        assert_eq!(record.restarts, 2);
        assert_eq!(record.delay.as_secs(), 20);
    }

    #[test]
    fn a_delay_follows_from_how_often_a_container_has_ended() {
        let delays = [0, 1, 2, 3, 6, 7, 40, u32::MAX].map(|ends| BACK_OFF.delay(ends).as_secs());
        assert_eq!(delays, [0, 0, 10, 20, 160, 300, 300, 300]);
        let short = BackOff {
            initial: SignedDuration::from_secs(10),
            max: SignedDuration::from_secs(1),
        };
        assert_eq!(short.delay(2).as_secs(), 1);
    }

    #[test]
    fn a_program_that_does_not_start_counts_as_an_instance() {
        let mut record = Record::default();
        for _ in 0..3 {
            record.starting();
            record.ended(exit(128), at(0), BACK_OFF);
        }
        assert_eq!(record.restarts, 2);
        assert_eq!(record.delay.as_secs(), 20);
        assert_eq!(record.last.as_ref().map(|l| l.exit_code), Some(128));
    }

    #[test]
    fn an_instance_becomes_the_last_one_only_when_the_next_one_is_there() {
        let mut record = Record::default();
        run(&mut record, 0, 1, 3);
        record.starting();
        assert_eq!(record.last, None);
        assert_eq!(record.terminated().map(|t| t.exit_code), Some(3));
        assert!(record.is_active());
        record.started("petset://2".into(), at(5), true, true);
        assert_eq!(record.last.as_ref().map(|l| l.exit_code), Some(3));
        assert_eq!(record.restarts, 1);
    }
}
