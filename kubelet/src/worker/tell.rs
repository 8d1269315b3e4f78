//! Telling the API what has become of the pod: one write after the other, and none while it is but being started.

use super::{FIRST_RETRY, Notice, QUIET, Worker, version};
use crate::record::State;
use crate::status::{self, status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use std::sync::Arc;

impl Worker {
    /// Tell the API what has changed, beside everything else and one write after the other. True: it knows all.
    pub(super) fn tell_status(&mut self, pod: &Arc<Pod>) -> bool {
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

    pub(super) fn note_told(
        &mut self,
        pod: &Pod,
        status: PodStatus,
        result: Result<Option<u64>, kube::Error>,
    ) {
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
}
