//! Binds pods to nodes. On one machine the choice is small; what matters is what keeps a pod from being
//! bound: claims that are not ready, nodes that are not, taints and selectors.

pub mod plan;

use crate::runtime::{Cache, Context, Key, Moved, Queue, Teller, tell, watch, work};
use crate::volume::protection::claims;
use events::{EventType, Recorder};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use kube::{Api, Resource, ResourceExt};
use plan::{Verdict, plan};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bind every pod that can be bound, for ever.
pub async fn run(context: Context) {
    let client = &context.client;
    let clock = context.clock.clone();
    let recorder = Recorder::new(client.clone(), "default-scheduler", None, clock);
    let (teller, telling) = Teller::new();
    let queue = Queue::default();
    let (pods, nodes, seen) = (Cache::default(), Cache::default(), Cache::default());
    let unscheduled = Config::default().fields("spec.nodeName=");
    tokio::join!(
        watch(Api::<Pod>::all(client.clone()), unscheduled, &pods, |moved| {
            // One that has left the watch is bound or gone.
            if moved.after.is_some() {
                queue.add(moved.key());
            }
        }),
        watch(
            Api::<Node>::all(client.clone()),
            Config::default(),
            &nodes,
            |moved| {
                if is_news(&moved) {
                    pods.all().iter().for_each(|pod| queue.add(Key::of(pod.as_ref())));
                }
            }
        ),
        watch(
            Api::<PersistentVolumeClaim>::all(client.clone()),
            Config::default(),
            &seen,
            |moved| {
                let claim = moved.key();
                let waiting = pods.in_namespace(&claim.namespace);
                let waiting = waiting
                    .iter()
                    .filter(|pod| claims(pod).any(|name| name == claim.name));
                waiting.for_each(|pod| queue.add(Key::of(pod.as_ref())));
            }
        ),
        work(&queue, context.options.concurrent_syncs, |key| schedule(
            &context, &teller, key
        )),
        tell(telling, recorder),
    );
}

/// Has more of the node changed than its heartbeat?
fn is_news(moved: &Moved<Node>) -> bool {
    let relevant = |node: &Node| (node.spec.clone(), node.labels().clone(), plan::is_ready(node));
    let before = moved.before.as_deref().map(relevant);
    before != moved.after.as_deref().map(relevant)
}

async fn schedule(context: &Context, teller: &Teller, key: Key) -> Result<Option<Duration>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let Some(pod) = pods.get_opt(&key.name).await? else {
        return Ok(None);
    };
    let known: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &key.namespace);
    let mut found = BTreeMap::new();
    for name in claims(&pod) {
        if let Some(claim) = known.get_opt(name).await? {
            found.insert(name.to_owned(), claim);
        }
    }
    let nodes: Api<Node> = Api::all(context.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let now = (context.clock)();
    match plan(&pod, &nodes, &found, now) {
        Verdict::Ignore => {}
        Verdict::Wait(time) => return Ok(Some(time.unsigned_abs())),
        Verdict::Bind(node) => {
            bind(&pods, &pod, &node).await?;
            let text = format!("Successfully assigned {key} to {node}");
            teller.tell(&pod.object_ref(&()), EventType::Normal, "Scheduled", text);
        }
        Verdict::Unschedulable(message) => {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": since(&pod).unwrap_or(Time(now)),
            });
            if !is_told(&pod, &message) {
                let patch = json!({
                    "metadata": {"uid": pod.metadata.uid},
                    "status": {"conditions": [condition]},
                });
                let patch = Patch::Strategic(patch);
                pods.patch_status(&key.name, &PatchParams::default(), &patch)
                    .await?;
                teller.tell(
                    &pod.object_ref(&()),
                    EventType::Warning,
                    "FailedScheduling",
                    message,
                );
            }
        }
    }
    Ok(None)
}

async fn bind(pods: &Api<Pod>, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            // The apiserver refuses to bind another pod of the same name.
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.into()),
            ..ObjectReference::default()
        },
    };
    let params = PostParams::default();
    let _: serde_json::Value = pods
        .create_subresource("binding", &pod.name_any(), &params, &binding)
        .await?;
    Ok(())
}

/// Does the pod's status say so already?
fn is_told(pod: &Pod, message: &str) -> bool {
    scheduled(pod).is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message))
}

/// Since when the pod has not been schedulable.
fn since(pod: &Pod) -> Option<Time> {
    let condition = scheduled(pod).filter(|condition| condition.status == "False")?;
    condition.last_transition_time.clone()
}

fn scheduled(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")
}
