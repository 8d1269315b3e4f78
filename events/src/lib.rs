//! Kubernetes Events as the components tell them: `core/v1` objects whose count rises when the same thing
//! happens again, as client-go's recorder keeps them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What time it is: a parameter, so that tests decide.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How many different events are remembered in order to count their repetition (client-go's default).
const REMEMBERED: usize = 4096;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Things go as they should.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Two events with equal keys are one event that happened twice.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    kind: String,
    name: String,
    uid: String,
    field_path: String,
    event_type: EventType,
    reason: String,
    message: String,
}

/// What was written for a key.
struct Recorded {
    name: String,
    count: i32,
    at: Timestamp,
}

/// Writes events of one component.
#[derive(Clone)]
pub struct Recorder {
    client: kube::Client,
    component: &'static str,
    host: Option<String>,
    clock: Clock,
    recorded: Arc<Mutex<HashMap<Key, Recorded>>>,
}

impl Recorder {
    /// A recorder for `component` (for example `statefulset-controller`); `host` is the node's name for
    /// a component that runs on a node.
    pub fn new(client: kube::Client, component: &'static str, host: Option<String>, clock: Clock) -> Self {
        Self {
            client,
            component,
            host,
            clock,
            recorded: Arc::default(),
        }
    }

    /// Tell an event about `regarding`. An event is news, not state: a failure to write it is logged and
    /// forgotten.
    pub async fn record(
        &self,
        regarding: &ObjectReference,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        let key = Key {
            namespace: regarding.namespace.clone().unwrap_or_else(|| "default".into()),
            kind: regarding.kind.clone().unwrap_or_default(),
            name: regarding.name.clone().unwrap_or_default(),
            uid: regarding.uid.clone().unwrap_or_default(),
            field_path: regarding.field_path.clone().unwrap_or_default(),
            event_type,
            reason: reason.into(),
            message,
        };
        // Held over the write so that a repetition cannot overtake its first occurrence.
        let mut recorded = self.recorded.lock().await;
        if let Err(error) = self.write(&mut recorded, key, regarding).await {
            tracing::warn!(component = self.component, reason, %error, "event not recorded");
        }
    }

    async fn write(
        &self,
        recorded: &mut HashMap<Key, Recorded>,
        key: Key,
        regarding: &ObjectReference,
    ) -> Result<(), kube::Error> {
        let now = (self.clock)();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        if let Some(earlier) = recorded.get_mut(&key) {
            let again = Event {
                count: Some(earlier.count + 1),
                last_timestamp: Some(Time(now)),
                ..Event::default()
            };
            let patch = Patch::Merge(&again);
            match events.patch(&earlier.name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    earlier.count += 1;
                    earlier.at = now;
                    return Ok(());
                }
                // The event has expired or its namespace was emptied: tell it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(&key.name, now)),
                namespace: Some(key.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: regarding.clone(),
            reason: Some(key.reason.clone()),
            message: Some(key.message.clone()),
            type_: Some(key.event_type.as_str().into()),
            source: Some(EventSource {
                component: Some(self.component.into()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.into()),
            reporting_instance: self.host.clone(),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        let name = event.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &event).await?;
        if recorded.len() >= REMEMBERED
            && let Some(oldest) = recorded.iter().min_by_key(|(_, r)| r.at).map(|(k, _)| k.clone())
        {
            recorded.remove(&oldest);
        }
        recorded.insert(
            key,
            Recorded {
                name,
                count: 1,
                at: now,
            },
        );
        Ok(())
    }
}

/// client-go's name for an event: the object's name and the time in hexadecimal nanoseconds.
fn event_name(object: &str, now: Timestamp) -> String {
    format!("{object}.{:x}", now.as_nanosecond())
}
