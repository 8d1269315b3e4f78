//! A cluster with one node and the StatefulSet `web`.

use e2e::in_process::{InProcess, Node, PODS};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
pub const SET: &str = "/apis/apps/v1/namespaces/default/statefulsets/web";
pub const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
pub const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";

/// Longer than anything takes that is not waited for on purpose.
const REST: Duration = Duration::from_secs(5);

/// The API, the controllers and a played kubelet.
pub struct Cluster {
    api: InProcess,
    pub node: Node,
    pub start: Instant,
}

impl Deref for Cluster {
    type Target = InProcess;

    fn deref(&self) -> &InProcess {
        &self.api
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut InProcess {
        &mut self.api
    }
}

impl Cluster {
    pub async fn start() -> Self {
        let api = InProcess::start().await;
        let node = Node::start(&api).await;
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        let class = json!({"metadata": {"name": "directories", "annotations": annotations},
            "provisioner": "petset.dev/directory", "allowVolumeExpansion": true});
        api.create("/apis/storage.k8s.io/v1/storageclasses", class).await;
        let service =
            json!({"metadata": {"name": "nginx"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}});
        api.create("/api/v1/namespaces/default/services", service).await;
        Self {
            api,
            node,
            start: Instant::now(),
        }
    }

    /// A cluster in which the set with these fields has come to rest with every pod available.
    pub async fn with(spec: Value) -> Self {
        let cluster = Self::start().await;
        let set = cluster.create_set(spec).await;
        let replicas = set["spec"]["replicas"].as_i64().expect("it has a default");
        cluster.until_available(replicas).await;
        cluster.node.take_log();
        cluster
    }

    /// Create the set: one container, and these fields of its spec besides or instead.
    pub async fn create_set(&self, spec: Value) -> Value {
        self.create(SETS, set(spec)).await
    }

    /// Merge into the set's spec.
    pub async fn change(&self, spec: Value) -> Value {
        self.merge(SET, json!({"spec": spec})).await
    }

    /// Give the set's template an image.
    pub async fn change_image(&self, image: &str) {
        let containers = json!([{"name": "c", "image": image}]);
        self.change(json!({"template": {"spec": {"containers": containers}}}))
            .await;
    }

    pub async fn scale(&self, replicas: i64) {
        self.change(json!({"replicas": replicas})).await;
    }

    /// The set as it is.
    pub async fn set(&self) -> Value {
        self.get(SET).await.expect("the set is there")
    }

    /// A field of its status.
    pub async fn status(&self, field: &str) -> Value {
        self.set().await["status"][field].clone()
    }

    /// Wait until its spec has been seen and the status says these counts of replicas, ready, available and updated
    /// ones.
    pub async fn until_counts(&self, counts: [i64; 4]) -> Value {
        self.until_set(|set| self::counts(set) == counts).await
    }

    /// Wait until its spec has been seen and the set is as it should be.
    pub async fn until_set(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let is_seen = |set: &Value| set["status"]["observedGeneration"] == set["metadata"]["generation"];
        self.until(SET, |set| is_seen(set) && is_so(set)).await
    }

    /// Wait until there are so many pods, all available.
    pub async fn until_available(&self, replicas: i64) -> Value {
        self.until_set(|set| counts(set)[..3] == [replicas; 3]).await
    }

    /// Wait until every pod is at the update revision and that is the current one.
    pub async fn until_rolled_out(&self, replicas: i64) -> Value {
        self.until_set(|set| {
            let status = &set["status"];
            counts(set) == [replicas; 4] && status["currentRevision"] == status["updateRevision"]
        })
        .await
    }

    /// Let time pass until whatever is under way has ended.
    pub async fn rest(&self) {
        sleep(REST).await;
    }

    pub async fn pod(&self, name: &str) -> Value {
        let pod = self.get(&of(PODS, name)).await;
        pod.unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// Wait until a pod is as it should be.
    pub async fn until_pod(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.until(&of(PODS, name), is_so).await
    }

    /// Wait until these pods are there and no others.
    pub async fn until_pods(&self, expected: &[&str]) {
        let pods = self.until(PODS, |list| {
            let pods = list["items"].as_array().into_iter().flatten();
            pods.map(name).eq(expected.iter().copied())
        });
        pods.await;
    }

    pub async fn delete_pod(&self, name: &str) {
        self.delete(&of(PODS, name), Value::Null).await;
    }

    /// Merge into a pod.
    pub async fn change_pod(&self, name: &str, patch: Value) {
        self.merge(&of(PODS, name), patch).await;
    }

    /// The pods' names and images, by name.
    pub async fn images(&self) -> Vec<(String, String)> {
        let image = |pod: &Value| text(&pod["spec"]["containers"][0]["image"]);
        let pods = self.list(PODS).await;
        pods.iter().map(|pod| (name(pod), image(pod))).collect()
    }

    /// The names of a collection's objects.
    pub async fn names(&self, collection: &str) -> Vec<String> {
        self.list(collection).await.iter().map(name).collect()
    }

    /// The UIDs of a collection's objects, by name.
    pub async fn uids(&self, collection: &str) -> BTreeMap<String, String> {
        let objects = self.list(collection).await;
        objects
            .iter()
            .map(|object| (name(object), text(&object["metadata"]["uid"])))
            .collect()
    }

    /// What is told about the set, and how often.
    pub async fn told(&self) -> Vec<(String, i64)> {
        let events = self.list("/api/v1/namespaces/default/events").await;
        let events = events
            .iter()
            .filter(|event| event["involvedObject"]["kind"] == "StatefulSet");
        events
            .map(|event| (text(&event["message"]), event["count"].as_i64().unwrap_or(0)))
            .collect()
    }
}

/// The set `web` with these fields of its spec besides or instead.
pub fn set(spec: Value) -> Value {
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
        "serviceName": "nginx",
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    let fields = set["spec"].as_object_mut().expect("an object");
    fields.extend(spec.as_object().expect("an object").clone());
    set
}

/// A template of claims named `NAME-web-ORDINAL`.
pub fn claim_template(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}})
}

/// Replicas, ready, available and updated ones.
fn counts(set: &Value) -> [i64; 4] {
    [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
    ]
    .map(|field| set["status"][field].as_i64().unwrap_or(0))
}

/// The path of an object in a collection.
pub fn of(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

pub fn uid(object: &Value) -> String {
    text(&object["metadata"]["uid"])
}

/// The revision that a pod was made from.
pub fn revision_of(pod: &Value) -> String {
    text(&pod["metadata"]["labels"]["controller-revision-hash"])
}

pub fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// The kinds and names of an object's owners, each as `Kind/name`; all have to control and to block.
pub fn owners(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owner = |owner: &Value| {
        assert_eq!(
            (&owner["controller"], &owner["blockOwnerDeletion"]),
            (&json!(true), &json!(true)),
            "{object:#}"
        );
        format!("{}/{}", text(&owner["kind"]), text(&owner["name"]))
    };
    owners.into_iter().flatten().map(owner).collect()
}

/// What the log of the node says of these pods, one after the other, each going through all of `steps`.
pub fn steps(ordinals: impl IntoIterator<Item = i32>, steps: &[&str]) -> Vec<String> {
    let of_one = |ordinal: i32| steps.iter().map(move |step| format!("web-{ordinal} {step}"));
    ordinals.into_iter().flat_map(of_one).collect()
}

/// A pod comes up.
pub const COMES: [&str; 2] = ["created", "ready"];
/// A pod goes.
pub const GOES: [&str; 2] = ["deleting", "gone"];
/// A pod goes and another comes in its place.
pub const REPLACED: [&str; 4] = ["deleting", "gone", "created", "ready"];
