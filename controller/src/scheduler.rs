//! Binds pods to nodes. On one machine the choice is small; what matters is what keeps a pod from being
//! bound: claims that are not ready, nodes that are not, taints and selectors.

pub mod claims;
pub mod node;
pub mod plan;
pub mod ports;
#[cfg(test)]
mod testing;

use crate::runtime::{Cache, Context, Key, Moved, Queue, Teller, tell, watch, work};
use crate::volume::matching::{claim_class, phase};
use crate::volume::protection::{claims as mentioned, is_active, is_placed};
use claims::{Step, is_bound, is_exclusive, volume_name};
use events::{EventType, Recorder};
use k8s_openapi::api::core::v1::{
    Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use kube::{Api, Resource, ResourceExt};
use plan::{Observed, Verdict, plan};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The scheduler and what its watches have seen.
struct Scheduler {
    context: Context,
    queue: Queue<Key>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    teller: Teller,
    /// Held from the look at who has a ReadWriteOncePod claim or a port of a node until a pod is bound, so that two
    /// pods that come at once do not both find it free.
    exclusive: Mutex<()>,
}

/// Bind every pod that can be bound, for ever.
pub async fn run(context: Context) {
    let client = context.client.clone();
    let clock = context.clock.clone();
    let concurrent = context.options.concurrent_syncs;
    let recorder = Recorder::new(client.clone(), "default-scheduler", None, clock);
    let (teller, telling) = Teller::new();
    let this = Scheduler {
        context,
        queue: Queue::default(),
        pods: Cache::default(),
        claims: Cache::default(),
        volumes: Cache::default(),
        teller,
        exclusive: Mutex::default(),
    };
    let (nodes, classes) = (Cache::default(), Cache::default());
    let all = Config::default;
    tokio::join!(
        watch(Api::all(client.clone()), all(), &this.pods, |moved| this
            .pod_moved(&moved)),
        watch(Api::all(client.clone()), all(), &nodes, |moved| this
            .node_moved(&moved)),
        watch(Api::all(client.clone()), all(), &this.claims, |moved| this
            .claim_moved(&moved)),
        watch(Api::all(client.clone()), all(), &this.volumes, |moved| this
            .volume_moved(&moved)),
        watch(Api::all(client.clone()), all(), &classes, |moved| this
            .class_moved(&moved)),
        work(&this.queue, concurrent, |key| this.schedule(key)),
        tell(telling, recorder),
    );
}

/// Whom a change concerns: pods without a node.
impl Scheduler {
    fn pod_moved(&self, moved: &Moved<Pod>) {
        if moved.after.as_deref().is_some_and(|pod| !is_placed(pod)) {
            self.queue.add(moved.key());
        }
        // Somebody may wait for a port or a claim that this pod had for itself.
        let had = moved.before.as_deref().is_some_and(is_active);
        if had && !moved.after.as_deref().is_some_and(is_active) {
            if moved
                .before
                .as_deref()
                .is_some_and(|pod| !ports::wanted(pod).is_empty())
            {
                self.add_all(|pod| !ports::wanted(pod).is_empty());
            }
            for name in moved.before.iter().flat_map(|pod| mentioned(pod)) {
                let key = Key::new(moved.key().namespace, name);
                if self.claims.get(&key).is_some_and(|claim| is_exclusive(&claim)) {
                    self.add_users(&key);
                }
            }
        }
    }

    fn node_moved(&self, moved: &Moved<Node>) {
        // More than its heartbeat?
        let relevant = |node: &Node| (node.spec.clone(), node.labels().clone(), node::is_ready(node));
        if moved.before.as_deref().map(relevant) != moved.after.as_deref().map(relevant) {
            self.add_all(|_| true);
        }
    }

    fn claim_moved(&self, moved: &Moved<PersistentVolumeClaim>) {
        self.add_users(&moved.key());
    }

    fn volume_moved(&self, moved: &Moved<PersistentVolume>) {
        // One that nobody has can be what a pod with an unbound claim waits for.
        if moved
            .after
            .as_deref()
            .is_some_and(|volume| phase(volume) == "Available")
        {
            self.add_all(|pod| mentioned(pod).next().is_some());
        }
    }

    fn class_moved(&self, moved: &Moved<StorageClass>) {
        if moved.after.is_some() {
            self.add_all(|pod| mentioned(pod).next().is_some());
        }
    }

    fn add_users(&self, claim: &Key) {
        let pods = self.pods.in_namespace(&claim.namespace);
        let uses = |pod: &Pod| !is_placed(pod) && mentioned(pod).any(|name| name == claim.name);
        let waiting = pods.iter().filter(|pod| uses(pod));
        waiting.for_each(|pod| self.queue.add(Key::of(pod.as_ref())));
    }

    fn add_all(&self, concerned: impl Fn(&Pod) -> bool) {
        let pods = self.pods.all();
        let waiting = pods.iter().filter(|pod| !is_placed(pod) && concerned(pod));
        waiting.for_each(|pod| self.queue.add(Key::of(pod.as_ref())));
    }
}

/// Observing.
impl Scheduler {
    async fn schedule(&self, key: Key) -> Result<Option<Duration>, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let Some(pod) = pods.get_opt(&key.name).await?.filter(|pod| !is_placed(pod)) else {
            return Ok(None);
        };
        let claims = self.claims_of(&pod, &key.namespace).await?;
        let wants_ports = !ports::wanted(&pod).is_empty();
        let _exclusively = match wants_ports || claims.values().any(is_exclusive) {
            true => Some(self.exclusive.lock().await),
            false => None,
        };
        let in_use = in_use(&pods, &key, &claims).await?;
        let others = match wants_ports {
            true => {
                let everywhere: Api<Pod> = Api::all(self.context.client.clone());
                everywhere.list(&ListParams::default()).await?.items
            }
            false => Vec::new(),
        };
        let classes = self.classes_of(&claims).await?;
        let volumes = self.volumes_for(&claims).await?;
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        let nodes = nodes.list(&ListParams::default()).await?.items;
        let verdict = plan(&Observed {
            pod: &pod,
            nodes: &nodes,
            claims: &claims,
            classes: &classes,
            volumes: &volumes,
            in_use: &in_use,
            others: &others,
        });
        match verdict {
            Verdict::Ignore | Verdict::Await => {}
            Verdict::Bind(node) => {
                bind(&pods, &pod, &node).await?;
                let text = format!("Successfully assigned {key} to {node}");
                self.teller
                    .tell(&pod.object_ref(&()), EventType::Normal, "Scheduled", text);
            }
            Verdict::Prepare(steps) => self.prepare(&key.namespace, steps).await?,
            Verdict::Unschedulable(message) => self.refuse(&pods, &pod, message).await?,
        }
        Ok(None)
    }

    async fn claims_of(
        &self,
        pod: &Pod,
        namespace: &str,
    ) -> Result<BTreeMap<String, PersistentVolumeClaim>, kube::Error> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), namespace);
        let mut found = BTreeMap::new();
        for name in mentioned(pod) {
            if let Some(claim) = claims.get_opt(name).await? {
                found.insert(name.to_owned(), claim);
            }
        }
        Ok(found)
    }

    /// The classes of the claims that are not bound.
    async fn classes_of(
        &self,
        claims: &BTreeMap<String, PersistentVolumeClaim>,
    ) -> Result<BTreeMap<String, StorageClass>, kube::Error> {
        let classes: Api<StorageClass> = Api::all(self.context.client.clone());
        let mut found = BTreeMap::new();
        let unbound = claims.values().filter(|claim| !is_bound(claim));
        for name in unbound.filter_map(claim_class).filter(|name| !name.is_empty()) {
            if let Some(class) = classes.get_opt(name).await? {
                found.insert(name.to_owned(), class);
            }
        }
        Ok(found)
    }

    /// The volumes of the claims that are bound, and all there are if one is not: fresh enough for choosing one,
    /// because it is reserved for exactly the version that was seen.
    async fn volumes_for(
        &self,
        claims: &BTreeMap<String, PersistentVolumeClaim>,
    ) -> Result<Vec<Arc<PersistentVolume>>, kube::Error> {
        let volumes: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let mut known = match claims.values().all(is_bound) {
            true => Vec::new(),
            false => self.volumes.all(),
        };
        // A watch that has seen nothing may not have begun.
        if known.is_empty() && !claims.values().all(is_bound) {
            let listed = volumes.list(&ListParams::default()).await?.items;
            known = listed.into_iter().map(Arc::new).collect();
        }
        for name in claims.values().filter(|claim| is_bound(claim)).map(volume_name) {
            match self.volumes.get(&Key::new("", name)) {
                Some(volume) => known.push(volume),
                None => known.extend(volumes.get_opt(name).await?.map(Arc::new)),
            }
        }
        Ok(known)
    }
}

/// Which ReadWriteOncePod claims of this pod another pod has.
async fn in_use(
    pods: &Api<Pod>,
    key: &Key,
    claims: &BTreeMap<String, PersistentVolumeClaim>,
) -> Result<BTreeSet<String>, kube::Error> {
    if !claims.values().any(is_exclusive) {
        return Ok(BTreeSet::new());
    }
    let others = pods.list(&ListParams::default()).await?.items;
    let others = others
        .iter()
        .filter(|pod| is_active(pod) && pod.name_any() != key.name);
    let in_use = others
        .flat_map(mentioned)
        .filter(|name| claims.get(*name).is_some_and(is_exclusive))
        .map(str::to_owned)
        .collect();
    Ok(in_use)
}

/// Acting.
impl Scheduler {
    async fn prepare(&self, namespace: &str, steps: Vec<Step>) -> Result<(), kube::Error> {
        let params = PatchParams::default();
        let volumes: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), namespace);
        for step in steps {
            match step {
                Step::Volume { name, patch } => {
                    volumes.patch(&name, &params, &Patch::Merge(patch)).await?;
                }
                Step::Claim { name, patch } => {
                    claims.patch(&name, &params, &Patch::Merge(patch)).await?;
                }
            }
        }
        Ok(())
    }

    /// Say that the pod has no place, once.
    async fn refuse(&self, pods: &Api<Pod>, pod: &Pod, message: String) -> Result<(), kube::Error> {
        if is_told(pod, &message) {
            return Ok(());
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since(pod).unwrap_or(Time((self.context.clock)())),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let patch = Patch::Strategic(patch);
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await?;
        let pod = pod.object_ref(&());
        self.teller
            .tell(&pod, EventType::Warning, "FailedScheduling", message);
        Ok(())
    }
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
