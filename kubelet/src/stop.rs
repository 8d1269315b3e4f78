//! Stopping a container: preStop, TERM, the rest of the grace period, KILL of whatever is left (reference, 3.8).

use crate::Kubelet;
use crate::handler::{Handler, Target};
use crate::image::config::signal;
use crate::worker::Wanted;
use events::EventType;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a container gets at least between TERM and KILL, however long its preStop hook took.
const LEAST: Duration = Duration::from_secs(2);

/// One stop.
pub struct Stop {
    pub kubelet: Arc<Kubelet>,
    pub container: Container,
    pub target: Target,
    /// The pod as it is wanted: a second DELETE shortens the grace period.
    pub wanted: watch::Receiver<Wanted>,
    /// Of the probe that failed, or of an eviction.
    pub grace: Option<i64>,
}

impl Stop {
    /// Until no process of the container is left.
    pub async fn run(mut self) {
        let begun = Instant::now();
        let pod = self.wanted.borrow_and_update().pod.clone();
        if self.grace(begun).is_some_and(|d| d > begun) {
            self.pre_stop(&pod, begun).await;
        }
        let process = self.target.process.clone();
        process.signal(self.stop_signal(&pod)).await;
        let termed = Instant::now();
        loop {
            let deadline = match self.grace(begun) {
                Some(deadline) if deadline > begun => deadline.max(termed + LEAST),
                _ => break,
            };
            tokio::select! {
                () = process.gone() => return,
                () = tokio::time::sleep_until(deadline) => break,
                changed = self.wanted.changed() => if changed.is_err() {
                    // The worker is gone: nobody can shorten the period any more.
                    tokio::select! {
                        () = process.gone() => return,
                        () = tokio::time::sleep_until(deadline) => break,
                    }
                }
            }
        }
        process.kill().await;
        process.gone().await;
    }

    /// When patience ends; `None`: at once, for a pod that was removed by force.
    fn grace(&self, begun: Instant) -> Option<Instant> {
        let wanted = self.wanted.borrow();
        if wanted.removed {
            return None;
        }
        let spec = wanted.pod.spec.as_ref();
        let of_pod = spec
            .and_then(|s| s.termination_grace_period_seconds)
            .unwrap_or(30);
        let of_deletion = wanted.pod.metadata.deletion_grace_period_seconds;
        // Who deletes the pod meanwhile may shorten what was granted, not lengthen it.
        let seconds = self.grace.into_iter().chain(of_deletion).min().unwrap_or(of_pod);
        Some(begun + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    async fn pre_stop(&self, pod: &Pod, begun: Instant) {
        let hook = self
            .container
            .lifecycle
            .as_ref()
            .and_then(|l| l.pre_stop.as_ref());
        let Some(handler) = hook.and_then(Handler::of_hook) else {
            return;
        };
        let Some(deadline) = self.grace(begun) else { return };
        let ran = tokio::time::timeout_at(deadline, handler.run(&self.container, &self.target)).await;
        let failure = match ran {
            Ok(Ok(())) => return,
            Ok(Err(message)) => message,
            Err(_) => "it did not end within the grace period".to_owned(),
        };
        let name = self.container.name.as_str();
        tracing::info!(container = name, %failure, "a preStop hook failed");
        // As upstream's, the event does not say why: the answer of a hook may hold what is not for everybody.
        let message = "PreStopHook failed".to_owned();
        self.kubelet
            .events
            .tell(pod, Some(name), EventType::Warning, "FailedPreStopHook", message);
    }

    /// `lifecycle.stopSignal`, or what the container's image says, or TERM.
    fn stop_signal(&self, pod: &Pod) -> i32 {
        let lifecycle = self.container.lifecycle.as_ref();
        let named = lifecycle.and_then(|l| l.stop_signal.as_deref()).and_then(signal);
        let of_image = || {
            let containers = self.kubelet.pod_directory(pod).join("containers");
            let image = self
                .kubelet
                .catalog
                .store()
                .held(&containers.join(&self.container.name));
            image.and_then(|image| image.config.stop_signal())
        };
        named.or_else(of_image).unwrap_or(libc::SIGTERM)
    }
}
