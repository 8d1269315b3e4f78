//! The kubelet against the API server with all controllers: pods as real processes, on a clock that runs.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use e2e::in_process::InProcess;
use jiff::SignedDuration;
use kubelet::Kubelet;
use kubelet::record::BackOff;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const DEADLINE: Duration = Duration::from_secs(120);
const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = "/api/v1/namespaces/default/pods/p";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = kubelet::internal_command(&arguments) {
        return code;
    }
    let trials = vec![
        trial("a_pod_runs_says_something_and_ends_gracefully", runs_and_ends),
        trial(
            "a_container_that_crashes_backs_off_and_keeps_its_previous_log",
            crashes,
        ),
        trial("readiness_follows_its_probe", readiness),
        trial(
            "a_failed_liveness_probe_restarts_the_container_in_the_same_pod",
            liveness,
        ),
        trial("every_kind_of_volume_is_there", volumes),
        trial("what_a_container_needs_may_come_later", missing),
        trial(
            "init_containers_come_first_and_sidecars_go_last",
            init_and_sidecar,
        ),
        trial("a_pod_deleted_by_force_leaves_no_process", by_force),
        trial("an_image_of_a_web_server_serves", web_server),
        trial("a_stateful_set_keeps_what_its_pods_wrote", keeps_volume),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        runtime.block_on(async {
            tokio::time::timeout(DEADLINE, test())
                .await
                .map_err(|_| Failed::from("took too long"))
        })
    })
}

/// A cluster with one node.
struct Cluster {
    api: InProcess,
    node: Node,
}

struct Node {
    router: Router,
    stop: CancellationToken,
    running: JoinHandle<Result<(), kubelet::Error>>,
}

impl Node {
    fn start(api: &InProcess) -> Self {
        /// Every cluster's pods have a network of their own, as clusters run side by side.
        static NETWORKS: AtomicU8 = AtomicU8::new(1);
        let (third, second) = (
            NETWORKS.fetch_add(1, Ordering::Relaxed),
            std::process::id() % 100 + 100,
        );
        let range = format!("127.{second}.{third}.0/24");
        let options = kubelet::Options {
            node_name: "node".into(),
            data_dir: api.elsewhere().join("node"),
            network: kubelet::network::Network::own(),
            cluster_network: None,
            pod_range: range.parse().expect("a range"),
            host_ip: [127, 0, 0, 1].into(),
            node_port_address: [127, 0, 0, 1].into(),
            api_server: None,
            cluster_dns: kubelet::dns::ClusterDns::default(),
            executable: std::env::current_exe().expect("the test knows its own path"),
            back_off: BackOff {
                initial: SignedDuration::from_millis(200),
                max: SignedDuration::from_millis(400),
            },
            isolation: kubelet::shim::protocol::Isolation::Mounts,
            keep_pods: false,
            log_max_size: 10 << 20,
            log_max_files: 5,
            most_processes: None,
            version: "0".into(),
            dns_server: None,
        };
        let kubelet = Kubelet::new(api.client(), api.clock(), options);
        let stop = CancellationToken::new();
        Self {
            router: kubelet::server::router(kubelet.clone()),
            running: tokio::spawn(kubelet.run(stop.clone())),
            stop,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("no panic").expect("no error");
    }
}

impl Cluster {
    async fn start() -> Self {
        let api = InProcess::start().await;
        let node = Node::start(&api);
        Self { api, node }
    }

    /// Create pod `p`.
    async fn create(&self, spec: Value) -> Value {
        // The API of these tests signs no tokens.
        let spec = with(spec, json!({"automountServiceAccountToken": false}));
        let metadata = json!({"name": "p", "labels": {"app": "test"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        self.api.create(PODS, pod).await
    }

    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        self.api.until(POD, is_so).await
    }

    /// What `kubectl logs p -c CONTAINER` shows.
    async fn log(&self, container: &str, query: &str) -> String {
        let uri = format!("/containerLogs/default/p/{container}?{query}");
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        let answer = self
            .node
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn end(self) {
        self.node.stop().await;
    }
}

/// A container of the host's shell.
fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "debian", "command": ["sh", "-c", script]})
}

fn with(mut container: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (container.as_object_mut(), more) {
        object.extend(more);
    }
    container
}

fn condition<'a>(pod: &'a Value, type_: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice);
    let found = conditions.unwrap_or_default().iter().find(|c| c["type"] == type_);
    found.unwrap_or(&Value::Null)
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready")["status"] == "True"
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"]
        .as_i64()
        .unwrap_or(0)
}

/// A script that stays until it is asked to go, having done `first`.
fn stays(first: &str) -> String {
    format!("trap 'echo goodbye; exit 0' TERM; {first}; while :; do sleep 0.05; done")
}

async fn until_file(path: &Path) -> String {
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.ends_with('\n')
        {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process of this id runs; a zombie does not.
fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

async fn runs_and_ends() {
    let cluster = Cluster::start().await;
    let file = cluster.api.elsewhere().join("order");
    let said = |word: &str| format!("echo {word} >> {}", file.display());
    let stop = json!({"exec": {"command": ["sh", "-c", said("preStop")]}});
    let begin = json!({"exec": {"command": ["sh", "-c", said("postStart")]}});
    let script = format!(
        "trap '{}; exit 0' TERM; echo hello $POD_IP; echo oops >&2; while :; do sleep 0.05; done",
        said("TERM")
    );
    let ip = json!([{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let more = json!({"env": ip, "lifecycle": {"preStop": stop, "postStart": begin}});
    cluster
        .create(json!({"containers": [with(shell("c", &script), more)]}))
        .await;
    let pod = cluster.until(is_ready).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready").get("reason"), None, "{pod:#}");
    let ip = pod["status"]["podIP"].as_str().expect("an address");
    let mut log = cluster.log("c", "").await;
    while !log.contains("oops") || !log.contains("hello") {
        log = cluster.log("c", "").await;
    }
    assert!(log.contains(&format!("hello {ip}\n")), "{log}");
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        cluster.api.until_told(reason).await;
    }
    cluster.api.delete(POD, Value::Null).await;
    cluster.api.until_gone(POD).await;
    assert_eq!(until_file(&file).await, "postStart\npreStop\nTERM\n");
    cluster.api.until_told("Killing").await;
    let left = std::fs::read_dir(cluster.api.elsewhere().join("node/pods")).expect("a directory");
    assert_eq!(left.count(), 0, "a pod that is gone has left a directory");
    cluster.end().await;
}

async fn crashes() {
    let cluster = Cluster::start().await;
    cluster
        .create(json!({"containers": [shell("c", "echo try; exit 3")]}))
        .await;
    let pod = cluster
        .until(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["state"]["waiting"]["reason"] == "CrashLoopBackOff" && restarts(pod) >= 2
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Running");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
    let message = status["state"]["waiting"]["message"].as_str().expect("a message");
    let uid = pod["metadata"]["uid"].as_str().expect("a UID");
    assert_eq!(
        message,
        format!("back-off 400ms restarting failed container=c pod=p_default({uid})")
    );
    assert_eq!(cluster.log("c", "previous=true").await, "try\n");
    assert!(
        cluster
            .api
            .until_told("BackOff")
            .await
            .contains("restarting failed container c")
    );
    cluster.end().await;
}

async fn readiness() {
    let cluster = Cluster::start().await;
    let file = cluster.api.elsewhere().join("ready");
    let probe = json!({"exec": {"command": ["test", "-e", file]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = with(shell("c", &stays(":")), json!({"readinessProbe": probe}));
    cluster.create(json!({"containers": [container]})).await;
    cluster.until(|pod| pod["status"]["phase"] == "Running").await;
    cluster.api.until_told("Unhealthy").await;
    let pod = cluster.api.get(POD).await.expect("the pod");
    assert_eq!(condition(&pod, "Ready")["reason"], "ContainersNotReady");
    std::fs::write(&file, "").expect("written");
    let pod = cluster.until(is_ready).await;
    assert_eq!(condition(&pod, "Ready").get("message"), None, "{pod:#}");
    std::fs::remove_file(&file).expect("removed");
    let pod = cluster.until(|pod| !is_ready(pod)).await;
    assert_eq!(restarts(&pod), 0);
    cluster.end().await;
}

async fn liveness() {
    let cluster = Cluster::start().await;
    let file = cluster.api.elsewhere().join("sick");
    let probe =
        json!({"exec": {"command": ["test", "!", "-e", file]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = with(shell("c", &stays(":")), json!({"livenessProbe": probe}));
    let created = cluster.create(json!({"containers": [container]})).await;
    cluster.until(is_ready).await;
    std::fs::write(&file, "").expect("written");
    let message = cluster.api.until_told("Killing").await;
    assert_eq!(message, "Container c failed liveness probe, will be restarted");
    std::fs::remove_file(&file).expect("removed");
    let pod = cluster.until(|pod| restarts(pod) >= 1 && is_ready(pod)).await;
    assert_eq!(pod["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        0
    );
    cluster.end().await;
}

async fn volumes() {
    let cluster = Cluster::start().await;
    let core = "/api/v1/namespaces/default";
    let make = |kind: &str, more: Value| {
        with(
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "it"}}),
            more,
        )
    };
    let map = make("ConfigMap", json!({"data": {"a": "map"}}));
    cluster.api.create(&format!("{core}/configmaps"), map).await;
    let secret = make("Secret", json!({"stringData": {"a": "secret"}}));
    cluster.api.create(&format!("{core}/secrets"), secret).await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disk"},
        "provisioner": "petset.dev/directory"});
    cluster
        .api
        .create("/apis/storage.k8s.io/v1/storageclasses", class)
        .await;
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "disk",
        "resources": {"requests": {"storage": "1Mi"}}}});
    cluster
        .api
        .create(
            &format!("{core}/persistentvolumeclaims"),
            make("PersistentVolumeClaim", claim),
        )
        .await;
    let labels = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
    let projected = json!({"sources": [{"configMap": {"name": "it"}}]});
    let host = cluster.api.elsewhere().join("host");
    let all = json!([
        {"name": "empty", "emptyDir": {}},
        {"name": "map", "configMap": {"name": "it"}},
        {"name": "secret", "secret": {"secretName": "it"}},
        {"name": "downward", "downwardAPI": {"items": labels}},
        {"name": "projected", "projected": projected},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "it"}},
        {"name": "host", "hostPath": {"path": host, "type": "DirectoryOrCreate"}},
    ]);
    let names = ["empty", "map", "secret", "downward", "projected", "claim", "host"];
    let mut mounts: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "mountPath": format!("/v/{name}")}))
        .collect();
    mounts.push(json!({"name": "empty", "mountPath": "/v/sub", "subPathExpr": "sub-$(WHO)"}));
    // Without namespaces the volumes are below PETSET_ROOT.
    let script = "cd ${PETSET_ROOT}/v && echo $(cat map/a secret/a downward/labels projected/a) \
        && echo kept > claim/file && echo host > host/file && echo sub > sub/file && cat empty/sub-me/file && echo fine; sleep 1000";
    let more = json!({"volumeMounts": mounts, "env": [{"name": "WHO", "value": "me"}]});
    let spec = json!({"containers": [with(shell("c", script), more)], "volumes": all,
        "terminationGracePeriodSeconds": 0});
    cluster.create(spec).await;
    cluster.until(is_ready).await;
    let mut log = cluster.log("c", "").await;
    while log.lines().count() < 3 {
        log = cluster.log("c", "").await;
    }
    assert_eq!(log, "mapsecretapp=\"test\"map\nsub\nfine\n");
    assert_eq!(until_file(&host.join("file")).await, "host\n");
    cluster.end().await;
}

async fn missing() {
    let cluster = Cluster::start().await;
    let key = json!({"configMapKeyRef": {"name": "later", "key": "k"}});
    let more = json!({"env": [{"name": "K", "valueFrom": key}]});
    let container = with(shell("c", &stays("echo got $K")), more);
    cluster.create(json!({"containers": [container]})).await;
    let pod = cluster
        .until(|pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(
        cluster.api.until_told("Failed").await,
        "Error: configmap \"later\" not found"
    );
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}, "data": {"k": "it"}});
    cluster
        .api
        .create("/api/v1/namespaces/default/configmaps", map)
        .await;
    let pod = cluster.until(is_ready).await;
    assert_eq!(restarts(&pod), 0, "tries that started nothing are no restarts");
    cluster.end().await;
}

async fn init_and_sidecar() {
    let cluster = Cluster::start().await;
    let file = cluster.api.elsewhere().join("order");
    let said = |word: &str| format!("echo {word} >> {}", file.display());
    let until_term = |name: &str| {
        let script = format!(
            "trap '{}; exit 0' TERM; {}; while :; do sleep 0.05; done",
            said(&format!("{name}-end")),
            said(name)
        );
        shell(name, &script)
    };
    let sidecar = with(until_term("side"), json!({"restartPolicy": "Always"}));
    let init = json!([
        shell("first", &said("first")),
        sidecar,
        shell("second", &said("second"))
    ]);
    cluster
        .create(json!({"initContainers": init, "containers": [until_term("main")]}))
        .await;
    let pod = cluster.until(is_ready).await;
    assert_eq!(condition(&pod, "Initialized")["status"], "True");
    loop {
        let text = until_file(&file).await;
        // The sidecar and what comes after it are side by side.
        if ["first", "side", "second", "main"]
            .iter()
            .all(|w| text.contains(w))
        {
            assert!(text.starts_with("first\n"), "{text}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cluster.api.delete(POD, Value::Null).await;
    cluster.api.until_gone(POD).await;
    assert!(until_file(&file).await.ends_with("main-end\nside-end\n"));
    cluster.end().await;
}

async fn by_force() {
    let cluster = Cluster::start().await;
    let file = cluster.api.elsewhere().join("pid");
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! > {}; wait; sleep 1000",
        file.display()
    );
    cluster.create(json!({"containers": [shell("c", &script)]})).await;
    cluster.until(is_ready).await;
    let pid = until_file(&file).await;
    assert!(alive(pid.trim()));
    cluster.api.delete(POD, json!({"gracePeriodSeconds": 0})).await;
    while alive(pid.trim()) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cluster.end().await;
}

async fn web_server() {
    let cluster = Cluster::start().await;
    let probe = json!({"httpGet": {"port": "web"}, "periodSeconds": 1});
    let container = json!({"name": "c", "image": "registry.k8s.io/nginx-slim:0.8", "readinessProbe": probe,
        "ports": [{"containerPort": 8080, "name": "web"}]});
    cluster.create(json!({"containers": [container]})).await;
    cluster.until(is_ready).await;
    assert!(
        cluster
            .api
            .until_told("Pulled")
            .await
            .contains("petset's own static web server")
    );
    cluster.end().await;
}

async fn keeps_volume() {
    let cluster = Cluster::start().await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disk"},
        "provisioner": "petset.dev/directory"});
    cluster
        .api
        .create("/apis/storage.k8s.io/v1/storageclasses", class)
        .await;
    let mount = json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let script = stays("echo $HOSTNAME >> ${PETSET_ROOT}/data/names; cat ${PETSET_ROOT}/data/names");
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "disk", "resources": {"requests": {"storage": "1Mi"}}}});
    let template = json!({"metadata": {"labels": {"app": "s"}},
        "spec": {"automountServiceAccountToken": false, "containers": [with(shell("c", &script), mount)]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"},
        "spec": {"serviceName": "s", "replicas": 2, "selector": {"matchLabels": {"app": "s"}},
            "template": template, "volumeClaimTemplates": [claim]}});
    cluster
        .api
        .create("/apis/apps/v1/namespaces/default/statefulsets", set)
        .await;
    let path = format!("{PODS}/s-1");
    let first = cluster.api.until(&path, is_ready).await;
    cluster.api.delete(&path, Value::Null).await;
    let is_new = |pod: &Value| pod["metadata"]["uid"] != first["metadata"]["uid"] && is_ready(pod);
    let second = cluster.api.until(&path, is_new).await;
    assert_eq!(
        second["status"]["podIP"], first["status"]["podIP"],
        "a pet keeps its address"
    );
    let request = || {
        Request::builder()
            .method(Method::GET)
            .uri("/containerLogs/default/s-1/c")
    };
    loop {
        let request = request().body(Body::empty()).expect("a request");
        let answer = cluster
            .node
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let log = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        if log.as_ref() == b"s-1\ns-1\n" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cluster.end().await;
}
