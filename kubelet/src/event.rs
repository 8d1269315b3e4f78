//! Events about pods and their containers, written one after the other in the background: what they tell has already
//! happened and must not wait for them.

use crate::ephemeral;
use events::{EventType, Recorder};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Resource;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct News {
    regarding: ObjectReference,
    event_type: EventType,
    reason: &'static str,
    message: String,
}

/// The queue and its writer.
pub struct Events {
    recorder: Recorder,
    sender: mpsc::UnboundedSender<News>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<News>>>,
}

impl Events {
    pub fn new(recorder: Recorder) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            recorder,
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    /// Tell something about a pod, or about one container of it (`field_path` `spec.containers{NAME}`).
    pub fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        event_type: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.tell_of(reference(pod, container), event_type, reason, message);
    }

    /// Tell something about any object.
    pub fn tell_of(
        &self,
        regarding: ObjectReference,
        event_type: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        // Without a writer the kubelet is going down and nobody will read it.
        let _ = self.sender.send(News {
            regarding,
            event_type,
            reason,
            message: message.into(),
        });
    }

    /// Write what is told until `end`, and what was told before that.
    pub async fn write(&self, end: CancellationToken) {
        let receiver = self
            .receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut receiver) = receiver else { return };
        loop {
            let news = tokio::select! {
                biased;
                news = receiver.recv() => news,
                () = end.cancelled() => None,
            };
            let Some(News {
                regarding,
                event_type,
                reason,
                message,
            }) = news
            else {
                return;
            };
            self.recorder
                .record(&regarding, event_type, reason, message)
                .await;
        }
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let list = |name: &str| match &pod.spec {
        Some(spec) if spec.init_containers.iter().flatten().any(|c| c.name == name) => "initContainers",
        Some(spec) if ephemeral::is_one(spec, name) => "ephemeralContainers",
        _ => "containers",
    };
    ObjectReference {
        field_path: container.map(|name| format!("spec.{}{{{name}}}", list(name))),
        ..pod.object_ref(&())
    }
}
