//! The set `web` of small shell programs, each with a volume through which a test speaks to it and hears from it.

use e2e::binary::{Cluster, PATIENCE, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Says its name and version in its volume, links to what it said, and adds its name to `$ENDS` when it is ended.
const PROGRAM: &str = r#"
trap 'echo "$HOSTNAME" >> "$ENDS"; exit 0' TERM
cd /data
uname -n >> hostname
ln -sfn hostname link
echo "$VERSION" > version
while :; do sleep 1 & wait $!; done
"#;

/// A cluster with nothing but the Service `web`.
pub fn cluster() -> Cluster {
    let cluster = Cluster::up();
    serve(&cluster);
    cluster
}

/// Create the headless Service `web`.
pub fn serve(cluster: &Cluster) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "peer", "port": 7070}]}});
    create(cluster, &service);
}

/// Create an object.
pub fn create(cluster: &Cluster, object: &Value) {
    cluster.write("object.json", &object.to_string());
    cluster.kubectl("create -f object.json");
}

/// The set, with these fields of its spec besides or instead. A pod is Ready while there is a file `ready` in its
/// volume.
pub fn set(cluster: &Cluster, spec: Value) -> Value {
    let probe = json!({"exec": {"command": ["test", "-f", "/data/ready"]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = json!({
        "name": "main",
        "image": "shell",
        "command": ["sh", "-c", PROGRAM],
        "env": [{"name": "VERSION", "value": "1"}, {"name": "ENDS", "value": ends_file(cluster)}],
        "readinessProbe": probe,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}}}});
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
        "serviceName": "web",
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}},
        "volumeClaimTemplates": [claim],
    }});
    let fields = set["spec"].as_object_mut().expect("an object");
    fields.extend(spec.as_object().expect("an object").clone());
    set
}

/// A set whose pods need nobody's word to be Ready.
pub fn ready_set(cluster: &Cluster, spec: Value) -> Value {
    let mut set = set(cluster, spec);
    set["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = Value::Null;
    set
}

/// A cluster in which the pods of a set that are Ready by themselves are all available.
pub fn with_ready(spec: Value) -> Cluster {
    let cluster = cluster();
    let set = ready_set(&cluster, spec);
    create(&cluster, &set);
    cluster.until_available("web", set["spec"]["replicas"].as_i64().expect("it says how many"));
    cluster
}

fn ends_file(cluster: &Cluster) -> String {
    cluster.home().join("ends").display().to_string()
}

/// The pods whose programs were asked to end so far, in that order.
pub fn ends(cluster: &Cluster) -> Vec<String> {
    let text = fs::read_to_string(ends_file(cluster)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Change the set by a merge patch.
pub fn patch(cluster: &Cluster, patch: &Value) {
    cluster.write("patch.json", &patch.to_string());
    cluster.kubectl("patch sts web --type merge --patch-file patch.json");
}

/// Roll out a version.
pub fn change_version(cluster: &Cluster, version: &str) {
    cluster.kubectl(&format!("set env sts/web VERSION={version}"));
}

pub fn scale(cluster: &Cluster, replicas: i64) {
    cluster.kubectl(&format!("scale sts web --replicas={replicas}"));
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The directory that is a pod's volume; there soon.
pub fn directory(cluster: &Cluster, pod: &str) -> PathBuf {
    let claim = cluster.until(&format!("pvc data-{pod}"), |claim| {
        claim["status"]["phase"] == "Bound"
    });
    let volume = cluster.get(&format!("pv {}", text(&claim["spec"]["volumeName"])));
    PathBuf::from(text(&volume["spec"]["hostPath"]["path"]))
}

/// Make a pod Ready.
pub fn resume(cluster: &Cluster, pod: &str) {
    fs::write(directory(cluster, pod).join("ready"), "").expect("a volume can be written to");
}

/// Let a pod's readiness probe fail.
pub fn break_(cluster: &Cluster, pod: &str) {
    fs::remove_file(directory(cluster, pod).join("ready")).expect("it was Ready");
}

/// Wait until a file of a pod's volume says so.
pub fn until_says(cluster: &Cluster, pod: &str, file: &str, expected: &str) {
    let file = directory(cluster, pod).join(file);
    eventually(&format!("{} is {expected:?}", file.display()), PATIENCE, || {
        let found = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if found == expected { Ok(()) } else { Err(found) }
    });
}

/// The names of the pods.
pub fn pods(cluster: &Cluster) -> Vec<String> {
    names(cluster, "pods")
}

/// The names of all objects of a kind.
pub fn names(cluster: &Cluster, kind: &str) -> Vec<String> {
    let list = cluster.get(kind);
    let items = list["items"].as_array().into_iter().flatten();
    items
        .map(|object| text(&object["metadata"]["name"]).to_owned())
        .collect()
}

/// The UID of an object.
pub fn uid(object: &Value) -> &str {
    text(&object["metadata"]["uid"])
}

pub fn is_ready(pod: &Value) -> bool {
    ready_since(pod).is_some()
}

/// When its condition Ready became true, if it is.
pub fn ready_since(pod: &Value) -> Option<jiff::Timestamp> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    ready["lastTransitionTime"].as_str()?.parse().ok()
}

/// Wait until that many pods exist, are Ready and at the update revision, and the set's rollout is over.
pub fn until_rolled_out(cluster: &Cluster, replicas: i64) -> Value {
    cluster.until("sts web", |set| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && status["currentRevision"] == status["updateRevision"]
            && [
                "replicas",
                "readyReplicas",
                "updatedReplicas",
                "availableReplicas",
            ]
            .iter()
            .all(|field| status[field] == replicas)
    })
}
