//! A node whose kubelet is played: pods that are bound to it become what the test says they are, and go when they
//! are deleted.

use super::InProcess;
use controller::runtime::{Cache, Key, Moved, watch};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::Config;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long it takes to bring a pod to the state that it is to be in, and to let one go.
pub const KUBELET: Duration = Duration::from_millis(20);

/// How often the node says that it is there; the node controller's patience is 50 seconds.
const HEARTBEAT: Duration = Duration::from_secs(40);

/// How a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not all of its containers were started.
    Pending,
    /// It runs, and its readiness probe fails.
    Unready,
    /// It runs and is Ready.
    Ready,
    /// It ended badly, and stays ended.
    Failed,
    /// It ended well, and stays ended.
    Succeeded,
}

impl Health {
    fn status(self) -> (&'static str, &'static str) {
        match self {
            Health::Pending => ("Pending", "False"),
            Health::Unready => ("Running", "False"),
            Health::Ready => ("Running", "True"),
            Health::Failed => ("Failed", "False"),
            Health::Succeeded => ("Succeeded", "False"),
        }
    }
}

/// What a test says about a pod.
type Judge = Arc<dyn Fn(&Pod) -> Health + Send + Sync>;

/// The node; dropping it leaves its pods as they are.
pub struct Node {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    client: Client,
    clock: events::Clock,
    judge: Mutex<Judge>,
    lets_go: AtomicBool,
    log: Mutex<Vec<String>>,
    pods: Cache<Pod>,
    moved: UnboundedSender<Key>,
}

impl Node {
    /// Add the node `node`, on which every pod becomes Ready, to a cluster, and wait until pods may be bound to it.
    pub async fn start(cluster: &InProcess) -> Self {
        let (moved, receiver) = unbounded_channel();
        let shared = Arc::new(Shared {
            client: cluster.client(),
            clock: cluster.clock(),
            judge: Mutex::new(Arc::new(|_| Health::Ready)),
            lets_go: AtomicBool::new(true),
            log: Mutex::default(),
            pods: Cache::default(),
            moved,
        });
        cluster
            .create("/api/v1/nodes", json!({"metadata": {"name": "node"}}))
            .await;
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().beat());
        tasks.spawn(shared.clone().watch());
        tasks.spawn(shared.clone().work(receiver));
        cluster
            .until("/api/v1/nodes/node", |node| {
                node["status"]["conditions"][0]["status"] == "True" && node["spec"]["taints"].is_null()
            })
            .await;
        Self {
            shared,
            _tasks: tasks,
        }
    }

    /// From now on pods are as `judge` says. One that has ended stays so, whatever it says.
    pub fn judge(&self, judge: impl Fn(&Pod) -> Health + Send + Sync + 'static) {
        *lock(&self.shared.judge) = Arc::new(judge);
        self.shared.look_at_all();
    }

    /// From now on the pod of this name is so, and every other one is Ready.
    pub fn only(&self, name: &'static str, health: Health) {
        self.judge(move |pod| {
            if pod.name_any() == name {
                health
            } else {
                Health::Ready
            }
        });
    }

    /// Whether pods that are deleted end, which they do until a test says otherwise.
    pub fn let_go(&self, lets_go: bool) {
        self.shared.lets_go.store(lets_go, Ordering::Relaxed);
        self.shared.look_at_all();
    }

    /// What was seen to happen to pods since the last call: `web-0 created`, `web-0 ready`, `web-0 deleting`,
    /// `web-0 gone`.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.log))
    }
}

impl Shared {
    fn look_at_all(&self) {
        for pod in self.pods.all() {
            let _ = self.moved.send(Key::of(&*pod));
        }
    }

    async fn beat(self: Arc<Self>) {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        loop {
            let ready =
                json!({"type": "Ready", "status": "True", "lastHeartbeatTime": (self.clock)().to_string()});
            let body = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
            let said = nodes.patch_status("node", &PatchParams::default(), &body).await;
            said.expect("the node is there");
            sleep(HEARTBEAT).await;
        }
    }

    async fn watch(self: Arc<Self>) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        watch(pods, Config::default(), &self.pods, |moved: Moved<Pod>| {
            let key = moved.key();
            let (before, after) = (moved.before.as_deref(), moved.after.as_deref());
            let turned = |is: fn(&Pod) -> bool| after.is_some_and(is) && !before.is_some_and(is);
            let happened = [
                (before.is_none(), "created"),
                (turned(is_ready), "ready"),
                (turned(is_deleted), "deleting"),
                (after.is_none(), "gone"),
            ];
            let happened = happened.into_iter().filter(|(so, _)| *so);
            lock(&self.log).extend(happened.map(|(_, what)| format!("{} {what}", key.name)));
            let _ = self.moved.send(key);
        })
        .await;
    }

    async fn work(self: Arc<Self>, mut moved: UnboundedReceiver<Key>) {
        let mut attending = JoinSet::new();
        while let Some(key) = moved.recv().await {
            attending.spawn(self.clone().attend(key));
            while attending.try_join_next().is_some() {}
        }
    }

    /// Bring one pod to the state that it is to be in.
    async fn attend(self: Arc<Self>, key: Key) {
        sleep(KUBELET).await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let Ok(Some(pod)) = pods.get_opt(&key.name).await else {
            return;
        };
        if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
            return;
        }
        if is_deleted(&pod) {
            if self.lets_go.load(Ordering::Relaxed) {
                self.end(&pods, &pod).await;
            }
            return;
        }
        let judge = lock(&self.judge).clone();
        let health = judge(&pod);
        if !is_finished(&pod) && told(&pod) != health.status() {
            self.tell(&pods, &pod, health).await;
        }
    }

    /// Its containers end, and then it may go; a finalizer may still hold it.
    async fn end(&self, pods: &Api<Pod>, pod: &Pod) {
        if !is_finished(pod) {
            self.tell(pods, pod, Health::Succeeded).await;
        }
        if pod.metadata.deletion_grace_period_seconds == Some(0) {
            return;
        }
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        // Somebody may have been quicker, by force.
        let _ = pods.delete(&pod.name_any(), &now).await;
    }

    async fn tell(&self, pods: &Api<Pod>, pod: &Pod, health: Health) {
        let (phase, is_ready) = health.status();
        let mut ready = json!({"type": "Ready", "status": is_ready});
        if told(pod).1 != is_ready {
            ready["lastTransitionTime"] = Value::from((self.clock)().to_string());
        }
        let body = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": phase, "conditions": [ready]}});
        // It may be gone meanwhile.
        let _ = pods
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(body))
            .await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The phase and whether it is Ready, as its status says.
fn told(pod: &Pod) -> (&str, &str) {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready"));
    (
        status.and_then(|status| status.phase.as_deref()).unwrap_or(""),
        ready.map_or("", |condition| &condition.status),
    )
}

fn is_ready(pod: &Pod) -> bool {
    told(pod) == Health::Ready.status()
}

fn is_finished(pod: &Pod) -> bool {
    matches!(told(pod).0, "Failed" | "Succeeded")
}

fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}
