//! Telling events without waiting for them: a sync goes on, the events are written behind it, in the order
//! they were told.

use events::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

struct Told {
    regarding: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
}

/// The end that tells. Clones tell into the same queue.
#[derive(Clone)]
pub struct Teller(UnboundedSender<Told>);

/// The end that writes: run it with [`tell`].
pub struct Telling(UnboundedReceiver<Told>);

impl Teller {
    /// Both ends.
    pub fn new() -> (Self, Telling) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), Telling(receiver))
    }

    /// Tell an event about `regarding`.
    pub fn tell(
        &self,
        regarding: &ObjectReference,
        event_type: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        // Nobody writes any more only when the controller is going down: then there is nobody to tell.
        let _ = self.0.send(Told {
            regarding: regarding.clone(),
            event_type,
            reason: reason.into(),
            message: message.into(),
        });
    }
}

/// Write what is told until nobody is left who could tell.
pub async fn tell(mut telling: Telling, recorder: Recorder) {
    while let Some(told) = telling.0.recv().await {
        recorder
            .record(&told.regarding, told.event_type, &told.reason, told.message)
            .await;
    }
}
