//! Probes: when to ask, how to ask, and what so many equal answers in a row mean (reference, 3.6).

use crate::handler::{Answer, Handler, Target};
use k8s_openapi::api::core::v1::{Container, Probe};
use std::time::Duration;
use tokio::sync::mpsc;

/// The three probes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Holds the other two back until it has passed once.
    Startup,
    /// Decides whether the container is ready.
    Readiness,
    /// Its failure restarts the container.
    Liveness,
}

impl Kind {
    /// As in upstream's events: `Readiness probe failed: …`.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What a probe task reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One try failed: for the `Unhealthy` event.
    TryFailed(String),
    /// One try could not be made, which counts neither way: for the same event.
    Errored(String),
    /// One try succeeded, but not quite as it should: for the `ProbeWarning` event.
    Warned(String),
    /// The result has changed after enough equal answers.
    Changed(bool),
}

/// Counts answers until there are enough of one kind in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    success: u32,
    failure: u32,
    result: Option<bool>,
    last: Option<bool>,
    run: u32,
}

impl Threshold {
    /// `result` is what counts before the first probe: readiness failure, liveness success, startup unknown.
    pub fn new(probe: &Probe, result: Option<bool>) -> Self {
        let positive = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        Self {
            success: positive(probe.success_threshold, 1),
            failure: positive(probe.failure_threshold, 3),
            result,
            last: None,
            run: 0,
        }
    }

    /// Take an answer; the new result if it has changed.
    pub fn observe(&mut self, answer: bool) -> Option<bool> {
        self.run = if self.last == Some(answer) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(answer);
        let enough = if answer { self.success } else { self.failure };
        if self.run >= enough && self.result != Some(answer) {
            self.result = Some(answer);
            return Some(answer);
        }
        None
    }
}

/// What is reported of one try.
fn outcomes(threshold: &mut Threshold, answer: Answer) -> Vec<Outcome> {
    let (said, counted) = match answer {
        Answer::Success => (None, Some(true)),
        Answer::Warning(message) => (Some(Outcome::Warned(message)), Some(true)),
        Answer::Failure(message) => (Some(Outcome::TryFailed(message)), Some(false)),
        Answer::Error(message) => (Some(Outcome::Errored(message)), None),
    };
    let changed = counted.and_then(|answer| threshold.observe(answer));
    said.into_iter().chain(changed.map(Outcome::Changed)).collect()
}

/// A period or time-out of a probe; at least a second.
fn seconds(value: Option<i32>, default: u64) -> Duration {
    let value = value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
    Duration::from_secs(value.unwrap_or(default))
}

/// Probe until the container is gone or the receiver is dropped.
pub async fn run(
    kind: Kind,
    container: Container,
    target: Target,
    tell: mpsc::UnboundedSender<(Kind, Outcome)>,
) {
    let Some(probe) = kind.of(&container).cloned() else {
        return;
    };
    let Some(handler) = Handler::of_probe(&probe) else {
        return;
    };
    let initial = match kind {
        Kind::Startup => None,
        Kind::Readiness => Some(false),
        Kind::Liveness => Some(true),
    };
    let mut threshold = Threshold::new(&probe, initial);
    let delay = probe
        .initial_delay_seconds
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(0);
    tokio::time::sleep(Duration::from_secs(delay)).await;
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds, 10));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let timeout = seconds(probe.timeout_seconds, 1);
    loop {
        ticks.tick().await;
        let answer = match tokio::time::timeout(timeout, handler.probe(&container, &target)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Failure(handler.timeout_message(timeout)),
        };
        for outcome in outcomes(&mut threshold, answer) {
            if tell.send((kind, outcome)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(success: i32, failure: i32, initial: Option<bool>) -> Threshold {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        Threshold::new(&probe, initial)
    }

    #[test]
    fn only_enough_equal_answers_in_a_row_change_the_result() {
        let mut readiness = threshold(2, 3, Some(false));
        let answers = [
            true, false, true, true, false, false, true, false, false, false, false,
        ];
        let changes: Vec<_> = answers.iter().map(|a| readiness.observe(*a)).collect();
        let expected = [
            None,
            None,
            None,
            Some(true),
            None,
            None,
            None,
            None,
            None,
            Some(false),
            None,
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_startup_probe_tells_its_first_result_either_way() {
        assert_eq!(threshold(1, 1, None).observe(false), Some(false));
        assert_eq!(threshold(1, 1, None).observe(true), Some(true));
    }

    #[test]
    fn a_warning_counts_as_success_and_an_error_not_at_all() {
        let mut readiness = threshold(1, 1, Some(false));
        let text = || "text".to_owned();
        assert_eq!(
            outcomes(&mut readiness, Answer::Warning(text())),
            [Outcome::Warned(text()), Outcome::Changed(true)]
        );
        assert_eq!(
            outcomes(&mut readiness, Answer::Error(text())),
            [Outcome::Errored(text())]
        );
        assert_eq!(outcomes(&mut readiness, Answer::Success), []);
        assert_eq!(
            outcomes(&mut readiness, Answer::Failure(text())),
            [Outcome::TryFailed(text()), Outcome::Changed(false)]
        );
    }
}
