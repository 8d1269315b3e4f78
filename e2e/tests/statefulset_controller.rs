//! The StatefulSet controller against the API server, both in this process on a paused clock, with a kubelet that
//! makes every pod Ready after a while and lets it go after a while.

use apiserver::auth::User;
use apiserver::{Options, Server};
use controller::runtime::{Cache, Context, Moved, watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Config;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::MemoryStore;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long the kubelet takes to make a pod Ready and to let one go.
const KUBELET: Duration = Duration::from_millis(20);

/// Longer than anything here takes, on the paused clock.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is seen to happen to pods: `web-0 created`, `web-0 ready`, `web-0 deleting`, `web-0 gone`.
type Log = Arc<Mutex<Vec<String>>>;

struct Cluster {
    client: Client,
    log: Log,
    start: Instant,
    _tasks: JoinSet<()>,
}

impl Cluster {
    async fn start() -> Self {
        let start = Instant::now();
        let began: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock: events::Clock =
            Arc::new(move || began + SignedDuration::try_from(start.elapsed()).expect("tests are short"));
        let options = Options {
            clock: clock.clone(),
            ..Options::default()
        };
        let server = Server::new(Arc::new(MemoryStore::new()), options);
        server
            .bootstrap()
            .await
            .expect("a store in memory takes everything");
        let router = apiserver::router(server).layer(axum::Extension(User::admin()));
        let client = Client::new(router, "default");
        let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an account");
        accounts
            .create(&PostParams::default(), &account)
            .await
            .expect("pods have an account");
        let context = Context {
            client: client.clone(),
            clock: clock.clone(),
            options: controller::Options::default(),
        };
        let log = Log::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(controller::statefulset::run(context));
        tasks.spawn(kubelet(client.clone(), clock, log.clone()));
        Self {
            client,
            log,
            start,
            _tasks: tasks,
        }
    }

    fn sets(&self) -> Api<StatefulSet> {
        Api::default_namespaced(self.client.clone())
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    async fn create(&self, spec: Value) {
        let mut set = json!({"metadata": {"name": "web"}, "spec": {"serviceName": "nginx",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]}}}});
        let fields = set["spec"].as_object_mut().expect("an object");
        fields.extend(spec.as_object().expect("an object").clone());
        let set = serde_json::from_value(set).expect("a set");
        self.sets()
            .create(&PostParams::default(), &set)
            .await
            .expect("the set is taken");
    }

    async fn patch(&self, body: Value) {
        let patched = self
            .sets()
            .patch("web", &PatchParams::default(), &Patch::Merge(body))
            .await;
        patched.expect("the set is patched");
    }

    /// Wait until the status says these counts of replicas, ready, available and updated ones.
    async fn until(&self, counts: [i32; 4]) -> StatefulSet {
        self.wait(format!("{counts:?}"), |set| {
            let status = set.status.clone().unwrap_or_default();
            let told = [
                Some(status.replicas),
                status.ready_replicas,
                status.available_replicas,
                status.updated_replicas,
            ];
            told.map(|count| count.unwrap_or(0)) == counts
                && status.observed_generation == set.metadata.generation
        })
        .await
    }

    async fn wait(&self, what: String, is_so: impl Fn(&StatefulSet) -> bool) -> StatefulSet {
        let sets = self.sets();
        let (sender, mut receiver) = unbounded_channel();
        let cache = Cache::default();
        let watching = watch(
            sets.clone(),
            Config::default(),
            &cache,
            |moved: Moved<StatefulSet>| {
                let _ = moved.after.map(|set| sender.send(set));
            },
        );
        let seen = async {
            loop {
                let set = receiver.recv().await.expect("the watch goes on");
                if is_so(&set) {
                    return StatefulSet::clone(&set);
                }
            }
        };
        let seen = async {
            tokio::select! { () = watching => unreachable!("it goes on"), set = seen => set }
        };
        match timeout(DEADLINE, seen).await {
            Ok(set) => set,
            Err(_) => panic!(
                "never {what}: {:#?}; pods: {:?}",
                sets.get("web").await,
                self.log.lock()
            ),
        }
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().expect("nobody panics"))
    }

    /// What is told about the set, and how often.
    async fn events(&self) -> Vec<(String, i32)> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let events = events.list(&ListParams::default()).await.expect("events").items;
        let told = |event: Event| (event.message.unwrap_or_default(), event.count.unwrap_or(0));
        events.into_iter().map(told).collect()
    }

    async fn images(&self) -> Vec<String> {
        let pods = self.pods().list(&ListParams::default()).await.expect("pods");
        let image = |pod: Pod| {
            pod.spec
                .and_then(|spec| spec.containers[0].image.clone())
                .unwrap_or_default()
        };
        pods.items.into_iter().map(image).collect()
    }
}

/// Binds pods, makes them Ready, lets them go.
async fn kubelet(client: Client, clock: events::Clock, log: Log) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let cache = Cache::default();
    let (sender, mut receiver) = unbounded_channel();
    let tell = |what: String| log.lock().expect("nobody panics").push(what);
    let watching = watch(pods.clone(), Config::default(), &cache, |moved: Moved<Pod>| {
        let is_ready = |pod: &Pod| {
            pod.status
                .as_ref()
                .is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let is_deleted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let name = moved.key().name;
        let before = moved.before.as_deref();
        match moved.after.as_deref() {
            None => tell(format!("{name} gone")),
            Some(pod) if before.is_none() => {
                tell(format!("{name} created"));
                let _ = sender.send(pod.clone());
            }
            Some(pod) if is_deleted(pod) && !before.is_some_and(is_deleted) => {
                tell(format!("{name} deleting"));
                let _ = sender.send(pod.clone());
            }
            Some(pod) if is_ready(pod) && !before.is_some_and(is_ready) => tell(format!("{name} ready")),
            Some(_) => {}
        }
    });
    let working = async {
        let mut running = JoinSet::new();
        while let Some(pod) = receiver.recv().await {
            running.spawn(work(pods.clone(), client.clone(), clock.clone(), pod));
        }
    };
    tokio::join!(watching, working);
}

async fn work(pods: Api<Pod>, client: Client, clock: events::Clock, pod: Pod) {
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        sleep(KUBELET).await;
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        pods.delete(&name, &now)
            .await
            .expect("a pod that was deleted can go");
        return;
    }
    bind(&client, &name).await;
    sleep(KUBELET).await;
    let ready = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Running", "conditions":
        [{"type": "Ready", "status": "True", "lastTransitionTime": clock().to_string()}]}});
    // It may have been deleted meanwhile.
    let _ = pods
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(ready))
        .await;
}

/// A pod without a node would not be given time to go.
async fn bind(client: &Client, name: &str) {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"kind": "Node", "name": "node"}});
    let path = format!("/api/v1/namespaces/default/pods/{name}/binding");
    let body = serde_json::to_vec(&binding).expect("JSON");
    let request = axum::http::Request::post(path)
        .header("content-type", "application/json")
        .body(body);
    let bound: Result<Value, _> = client.request(request.expect("a request")).await;
    bound.expect("the pod is bound");
}

#[tokio::test(start_paused = true)]
async fn pods_come_up_one_after_the_other_with_their_claims() {
    let cluster = Cluster::start().await;
    let claim = json!({"metadata": {"name": "www"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    cluster
        .create(json!({"replicas": 3, "volumeClaimTemplates": [claim]}))
        .await;
    cluster.until([3, 3, 3, 3]).await;
    let expected = [0, 1, 2]
        .map(|n| [format!("web-{n} created"), format!("web-{n} ready")])
        .concat();
    assert_eq!(cluster.take_log(), expected);
    // The kubelet's own time, and nothing that waits for anything else.
    let took = cluster.start.elapsed();
    assert!(took < 3 * KUBELET + Duration::from_millis(15), "took {took:?}");

    let pod = cluster.pods().get("web-1").await.expect("web-1");
    let spec = pod.spec.clone().expect("a spec");
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("web-1"), Some("nginx"))
    );
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client.clone());
    let claims = claims.list(&ListParams::default()).await.expect("claims");
    let names: Vec<_> = claims.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["www-web-0", "www-web-1", "www-web-2"]);

    // The name that Kubernetes 1.36 gives this very template: defaults and bytes are its own.
    let revisions: Api<ControllerRevision> = Api::default_namespaced(cluster.client.clone());
    let revisions = revisions.list(&ListParams::default()).await.expect("revisions");
    let names: Vec<_> = revisions.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["web-6578754d74"]);
}

#[tokio::test(start_paused = true)]
async fn scaling_removes_from_the_top_and_brings_back() {
    let cluster = Cluster::start().await;
    cluster.create(json!({"replicas": 3})).await;
    cluster.until([3, 3, 3, 3]).await;
    cluster.take_log();
    cluster.patch(json!({"spec": {"replicas": 1}})).await;
    cluster.until([1, 1, 1, 1]).await;
    assert_eq!(
        cluster.take_log(),
        ["web-2 deleting", "web-2 gone", "web-1 deleting", "web-1 gone"]
    );
    cluster.patch(json!({"spec": {"replicas": 2}})).await;
    cluster.until([2, 2, 2, 2]).await;
    assert_eq!(cluster.take_log(), ["web-1 created", "web-1 ready"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_template_is_rolled_out_from_the_top_down() {
    let cluster = Cluster::start().await;
    cluster.create(json!({"replicas": 3})).await;
    let before = cluster
        .until([3, 3, 3, 3])
        .await
        .status
        .and_then(|status| status.current_revision);
    cluster.take_log();
    let container = json!({"name": "c", "image": "nginx:2"});
    cluster
        .patch(json!({"spec": {"template": {"spec": {"containers": [container]}}}}))
        .await;
    let set = cluster
        .wait("rolled out".into(), |set| {
            let status = set.status.clone().unwrap_or_default();
            status.current_revision != before && status.current_revision == status.update_revision
        })
        .await;
    let replaced = |n: i32| ["deleting", "gone", "created", "ready"].map(|what| format!("web-{n} {what}"));
    assert_eq!(
        cluster.take_log(),
        [replaced(2), replaced(1), replaced(0)].concat()
    );
    assert_eq!(cluster.images().await, ["nginx:2"; 3]);
    assert_eq!(
        set.status.and_then(|status| status.current_revision).as_deref(),
        Some("web-77b5b5965d")
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_comes_back_as_itself_and_it_is_told() {
    let cluster = Cluster::start().await;
    cluster.create(json!({"replicas": 2})).await;
    cluster.until([2, 2, 2, 2]).await;
    cluster.take_log();
    let old = cluster.pods().get("web-0").await.expect("web-0").uid();
    cluster
        .pods()
        .delete("web-0", &DeleteParams::default())
        .await
        .expect("web-0 can be deleted");
    cluster.until([1, 1, 1, 1]).await;
    cluster.until([2, 2, 2, 2]).await;
    let expected = ["deleting", "gone", "created", "ready"].map(|what| format!("web-0 {what}"));
    assert_eq!(cluster.take_log(), expected);
    assert_ne!(cluster.pods().get("web-0").await.expect("web-0").uid(), old);

    let create = |n: i32| format!("Create Pod web-{n} in StatefulSet web successful");
    assert_eq!(cluster.events().await, [(create(0), 2), (create(1), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_followed_only_after_min_ready_seconds() {
    let cluster = Cluster::start().await;
    cluster
        .create(json!({"replicas": 2, "minReadySeconds": 10}))
        .await;
    cluster.until([1, 1, 0, 1]).await;
    assert_eq!(cluster.take_log(), ["web-0 created", "web-0 ready"]);
    cluster.until([2, 2, 2, 2]).await;
    let took = cluster.start.elapsed();
    assert!(
        (Duration::from_secs(20)..Duration::from_secs(22)).contains(&took),
        "took {took:?}"
    );
}
