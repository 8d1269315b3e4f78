//! What happens last: the pod is gone, has to go at once, or petset goes down.

use super::{LAST_RETRY, Notice, Worker};
use crate::plan::{self, Action, Plan};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::mpsc;

impl Worker {
    /// All is stopped: let go of what the pod held, and of the object if it is being deleted.
    pub(super) async fn finish(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.end_sandboxes().await;
        self.kubelet.addresses().release(&uid);
        if pod.metadata.deletion_timestamp.is_none() {
            // Nobody uses them any more; logs stay as long as the object does.
            self.remove_below(pod, "volumes").await;
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
        self.remove_below(pod, "").await;
    }

    async fn remove_below(&self, pod: &Pod, path: &str) {
        let directory = self.kubelet.pod_directory(pod).join(path);
        let doomed = directory.clone();
        let removed = tokio::task::spawn_blocking(move || crate::volume::remove::tree(&doomed)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove a pod's directory");
        }
    }

    /// The object is gone, so nothing of the pod may stay.
    pub(super) async fn remove_by_force(&mut self) {
        let pod = self.pod();
        self.tasks.shutdown().await;
        self.end_sandboxes().await;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.kubelet.addresses().release(uid);
        self.kubelet.containers.remove_pod(uid);
        self.remove_directory(&pod).await;
        self.finished = true;
    }

    /// Petset goes down: stop gracefully, and leave the object for the next start.
    pub(super) async fn stop_for_shutdown(&mut self, received: &mut mpsc::UnboundedReceiver<Notice>) {
        debug_assert!(self.shutdown.is_cancelled() || self.wanted.has_changed().is_err());
        self.ending.cancel();
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
