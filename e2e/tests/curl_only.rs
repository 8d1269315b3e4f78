//! The whole life of objects with curl alone, on every road to the API, with the credentials that `up` wrote.

use e2e::binary::{Cluster, Reply, Watch, run};
use serde_json::{Value, json};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";

/// A way to the API: curl's arguments for it, and what comes before a path.
struct Road {
    arguments: Vec<String>,
    base: String,
}

impl Road {
    fn new(base: String, arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            base,
        }
    }

    fn send(&self, cluster: &Cluster, method: &str, path: &str, content_type: &str, body: &Value) -> Reply {
        let (url, header) = (
            format!("{}{path}", self.base),
            format!("content-type: {content_type}"),
        );
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let text = body.to_string();
        arguments.extend(["-X", method, &url]);
        if !body.is_null() {
            arguments.extend(["-H", &header, "--data-binary", &text]);
        }
        cluster.curl(&arguments)
    }

    fn watch(&self, path: &str) -> Watch {
        let url = format!("{}{path}", self.base);
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.push(&url);
        Watch::start(&arguments)
    }
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.start(&["--http", "127.0.0.1:0"]);
    cluster
}

fn set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"serviceName": "db", "replicas": 0, "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "main", "image": "shell", "command": ["sleep", "1000"]}]}}}})
}

/// Create, get, list, watch, patch in three ways, update and delete.
fn live(cluster: &Cluster, road: &Road, namespace: &str) {
    let send = |method: &str, path: &str, content_type: &str, body: Value| {
        road.send(cluster, method, path, content_type, &body)
    };
    let json = "application/json";
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    send("POST", "/api/v1/namespaces", json, object).expect(201);
    let sets = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets");
    let one = format!("{sets}/db");

    let created = send("POST", &sets, json, set()).expect(201);
    let uid = created["metadata"]["uid"].clone();
    assert!(uid.is_string(), "{created:#}");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(
        created["spec"]["podManagementPolicy"], "OrderedReady",
        "defaults are set"
    );
    assert_eq!(
        send("GET", &one, json, Value::Null).expect(200)["metadata"]["uid"],
        uid
    );
    let list = send("GET", &sets, json, Value::Null).expect(200);
    assert_eq!(list["kind"], "StatefulSetList");
    assert_eq!(list["items"][0]["metadata"]["uid"], uid);
    let none = send(
        "GET",
        &format!("{sets}?labelSelector=app%3Dother"),
        json,
        Value::Null,
    )
    .expect(200);
    assert_eq!(none["items"], json!([]));

    let since = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("lists have one");
    let mut watch = road.watch(&format!("{sets}?watch=true&resourceVersion={since}"));
    let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/metadata/labels", "value": {"by": "json"}}]);
    let patched = send("PATCH", &one, JSON_PATCH, patch).expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"by": "json"}));
    let patch = json!({"metadata": {"labels": {"by": null, "also": "merge"}}});
    let patched = send("PATCH", &one, MERGE_PATCH, patch).expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"also": "merge"}));
    let containers = json!([{"name": "side", "image": "shell", "command": ["sleep", "1000"]}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let patched = send("PATCH", &one, STRATEGIC_PATCH, patch).expect(200);
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    let mut names: Vec<_> = containers
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| &c["name"])
        .collect();
    names.sort_by_key(|name| name.to_string());
    assert_eq!(names, ["main", "side"], "containers are merged by name");
    assert_eq!(patched["metadata"]["generation"], 2);

    let mut changed = send("GET", &one, json, Value::Null).expect(200);
    changed["metadata"]["annotations"] = json!({"by": "put"});
    // The controller may write the status meanwhile; this one is to win.
    changed["metadata"]["resourceVersion"] = Value::Null;
    send("PUT", &one, json, changed).expect(200);
    watch.until("the update", |event| {
        event["type"] == "MODIFIED" && event["object"]["metadata"]["annotations"]["by"] == "put"
    });
    let labels: Vec<&Value> = watch
        .seen
        .iter()
        .map(|event| &event["object"]["metadata"]["labels"])
        .collect();
    let by_json = labels.iter().position(|l| l["by"] == "json");
    let by_merge = labels.iter().position(|l| l["also"] == "merge");
    assert!(by_json.is_some() && by_json < by_merge, "{labels:?}");

    let gone = send("DELETE", &one, json, Value::Null).expect(200);
    assert_eq!(gone["kind"], "Status", "{gone:#}");
    assert_eq!(gone["status"], "Success", "{gone:#}");
    let last = watch.until("the deletion", |event| event["type"] == "DELETED");
    assert_eq!(last["object"]["metadata"]["uid"], uid);
    let missing = send("GET", &one, json, Value::Null).expect(404);
    assert_eq!(missing["reason"], "NotFound");
    assert_eq!(missing["message"], "statefulsets.apps \"db\" not found");
}

/// What the kubeconfig holds, decoded.
fn from_kubeconfig(cluster: &Cluster, path: &str) -> String {
    let template = format!("{{{{index {path} | base64decode}}}}");
    let arguments = [
        "config",
        "view",
        "--raw",
        "-o",
        &format!("go-template={template}"),
    ];
    run(&mut cluster.kubectl_command(&arguments)).ok()
}

#[test]
fn https_with_the_kubeconfigs_certificate() {
    let cluster = cluster();
    let file = |name: &str, path: &str| {
        let text = from_kubeconfig(&cluster, path);
        assert!(text.starts_with("-----BEGIN"), "{path} is PEM: {text}");
        cluster.write(name, &text).display().to_string()
    };
    let authority = file(
        "ca.crt",
        r#"(index .clusters 0).cluster "certificate-authority-data""#,
    );
    let certificate = file("client.crt", r#"(index .users 0).user "client-certificate-data""#);
    let key = file("client.key", r#"(index .users 0).user "client-key-data""#);
    let arguments = ["--cacert", &authority, "--cert", &certificate, "--key", &key];
    live(
        &cluster,
        &Road::new(cluster.address("api"), &arguments),
        "by-certificate",
    );
}

#[test]
fn https_with_the_token_the_unix_socket_and_plain_http() {
    let cluster = cluster();
    let (authority, socket) = (cluster.data("pki/ca.crt"), cluster.data("api.sock"));
    let token = std::fs::read_to_string(cluster.data("pki/admin.token")).expect("up wrote it");
    let bearer = format!("authorization: Bearer {}", token.trim());
    let roads = [
        (
            "by-token",
            Road::new(cluster.address("api"), &["--cacert", &authority, "-H", &bearer]),
        ),
        (
            "by-socket",
            Road::new("http://petset".into(), &["--unix-socket", &socket]),
        ),
        ("by-http", Road::new(cluster.address("http"), &[])),
    ];
    for (namespace, road) in &roads {
        live(&cluster, road, namespace);
    }
}

#[test]
fn without_credentials_there_is_nothing_to_see() {
    let cluster = cluster();
    let (api, authority) = (cluster.address("api"), cluster.data("pki/ca.crt"));
    let url = format!("{api}/api/v1/namespaces/default/pods");
    let anonymous = cluster.curl(&["--cacert", &authority, &url]).expect(401);
    assert_eq!(anonymous["reason"], "Unauthorized");
    let bearer = [
        "--cacert",
        &authority,
        "-H",
        "authorization: Bearer nonsense",
        &url,
    ];
    let wrong = cluster.curl(&bearer).expect(401);
    assert_eq!(
        (&wrong["reason"], &wrong["kind"]),
        (&json!("Unauthorized"), &json!("Status"))
    );
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    let maps = format!("{api}/api/v1/namespaces/default/configmaps");
    let header = "content-type: application/json";
    cluster
        .curl(&["--cacert", &authority, "-H", header, "-d", body, &maps])
        .expect(401);
    assert!(cluster.look("configmap a").is_err(), "it was not stored");
    let health = cluster.curl(&["--cacert", &authority, &format!("{api}/livez")]);
    assert_eq!(
        (health.code, health.body.as_str()),
        (200, "ok"),
        "whether it lives is everybody's to know"
    );

    // A certificate of another authority: curl does not talk to it.
    let stranger = run(std::process::Command::new("curl").args(["-q", "-sS", "--noproxy", "*", &url]));
    assert_eq!(stranger.status.code(), Some(60), "{stranger}");
}
