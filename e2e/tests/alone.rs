//! The components as processes of their own, each knowing the API server by its kubeconfig only.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::IntoResponse;
use e2e::binary::{Cluster, PATIENCE, ask, eventually, repository, run};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};

#[test]
fn four_processes_make_a_stateful_set_run() {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver"]);
    let kubeconfig = cluster.data("kubeconfig");
    for component in ["controller", "kubelet", "dns"] {
        cluster.spawn_beside(component, &[component, "--kubeconfig", &kubeconfig]);
    }
    eventually("the node is Ready", PATIENCE, || {
        let nodes = cluster.try_kubectl("get nodes --no-headers");
        let ready = nodes.out.split_whitespace().nth(1) == Some("Ready");
        ready.then_some(()).ok_or_else(|| nodes.to_string())
    });
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    // A cluster's default StorageClass is `up`'s to make; alone, the one who applies says which.
    cluster.write("class.yaml", CLASS);
    cluster.kubectl("apply -f class.yaml");
    cluster.kubectl(&format!("apply -f {manifest}"));
    cluster.until_available("db", 2);
    for claim in ["data-db-0", "data-db-1"] {
        assert_eq!(cluster.get(&format!("pvc {claim}"))["status"]["phase"], "Bound");
    }
    eventually("the log comes through the kubelet's socket", PATIENCE, || {
        let logs = cluster.try_kubectl("logs db-1");
        let is_its = logs.out == "I am db-1, start 1\n";
        is_its.then_some(()).ok_or_else(|| logs.to_string())
    });

    let said = std::fs::read_to_string(cluster.log("dns")).expect("it says something");
    let address = said.split_whitespace().nth(2).expect("DNS at ADDRESS for …");
    let (host, port) = address.rsplit_once(':').expect("it has a port");
    eventually("the pod's name", PATIENCE, || {
        let name = "db-1.db.default.svc.cluster.local";
        let dug = run(Command::new("dig").args(["-r", &format!("@{host}"), "-p", port, "+short", name, "A"]));
        let own = cluster.get("pod db-1")["status"]["podIP"].clone();
        let same = Some(dug.out.trim()) == own.as_str();
        same.then_some(()).ok_or_else(|| dug.to_string())
    });
    cluster.kubectl("delete pod db-1");
    cluster.until_available("db", 2);
    cluster.kubectl("delete sts db");
    cluster.until_gone("pod db-0");
    cluster.until_gone("pod db-1");
}

const CLASS: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: directories
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: petset.dev/directory
"#;

#[test]
fn a_component_that_cannot_reach_its_api_server_says_so() {
    let cluster = Cluster::new();
    for component in ["controller", "kubelet", "dns"] {
        let missing = run(&mut cluster.petset(&[component, "--kubeconfig", "/nowhere/kubeconfig"]));
        assert_eq!(missing.status.code(), Some(1), "{missing}");
        assert!(missing.err.contains("/nowhere/kubeconfig"), "{missing}");
    }
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: a, user: {}}]\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n";
    let file = cluster.write("config", text).display().to_string();
    let unreachable = run(&mut cluster.petset(&["controller", "--kubeconfig", &file]));
    assert_eq!(unreachable.status.code(), Some(1), "{unreachable}");
    assert!(
        unreachable
            .err
            .contains("cannot reach the API server at http://127.0.0.1:1"),
        "{unreachable}"
    );
}

/// `petset dns` for the API server that a kubeconfig names, and where it answers.
struct Dns<'a> {
    cluster: &'a mut Cluster,
    address: String,
}

impl<'a> Dns<'a> {
    fn start(cluster: &'a mut Cluster, kubeconfig: &str, more: &[&str]) -> Self {
        cluster.spawn_beside("dns", &[&["dns", "--kubeconfig", kubeconfig], more].concat());
        let said = eventually("it says where it answers", PATIENCE, || {
            let said = std::fs::read_to_string(cluster.log("dns")).unwrap_or_default();
            let is_there = said.contains("DNS at ");
            is_there.then_some(said.clone()).ok_or(said)
        });
        let after = said
            .split("DNS at ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let address = after.expect("DNS at ADDRESS for …").to_owned();
        Self { cluster, address }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.cluster.log("dns")).unwrap_or_default()
    }

    /// The code and the data for `NAME.default.svc.cluster.local`.
    fn ask(&self, name: &str) -> (String, Vec<String>) {
        let dug = ask(&self.address, &format!("{name}.default.svc.cluster.local"), "A");
        let data = dug.data().into_iter().map(str::to_owned).collect();
        (dug.status, data)
    }

    fn until(&self, name: &str, status: &str, data: &[&str]) {
        eventually(&format!("{name} is {status} {data:?}"), PATIENCE, || {
            let found = self.ask(name);
            let is_so = found.0 == status && found.1 == data;
            is_so
                .then_some(())
                .ok_or_else(|| format!("{found:?}\n{}", self.said()))
        });
    }
}

fn headless() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "manual", "namespace": "default"},
        "spec": {"clusterIP": "None"},
    })
}

fn slice(address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "manual-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "manual"},
        },
        "endpoints": [{"addresses": [address], "hostname": "db"}], "ports": [],
    })
}

#[test]
fn dns_comes_up_before_its_api_server_and_goes_on_without_it() {
    let mut cluster = Cluster::api_alone();
    let api = cluster.address("api");
    let api = ["apiserver", "--api", api.trim_start_matches("https://")];
    let kubeconfig = cluster.data("kubeconfig");
    cluster.create(&headless());
    cluster.create(&slice("192.0.2.1"));
    cluster.terminate();

    let dns = Dns::start(&mut cluster, &kubeconfig, &[]);
    assert_eq!(dns.ask("db.manual").0, "SERVFAIL");
    eventually("it says that it cannot reach the API server", PATIENCE, || {
        let said = dns.said();
        said.contains("cannot reach the API server")
            .then_some(())
            .ok_or(said)
    });
    dns.cluster.start_as(&api);
    dns.until("db.manual", "NOERROR", &["192.0.2.1"]);
    dns.until("other", "NXDOMAIN", &[]);

    dns.cluster.terminate();
    // What was known stays known.
    dns.until("db.manual", "NOERROR", &["192.0.2.1"]);
    dns.until("other", "NXDOMAIN", &[]);
    dns.cluster.start_as(&api);
    let changed = dns.cluster.write("changed.json", &slice("192.0.2.2").to_string());
    dns.cluster.kubectl(&format!("replace -f {}", changed.display()));
    dns.until("db.manual", "NOERROR", &["192.0.2.2"]);
    let times = dns.said().matches("cannot reach the API server").count();
    assert!(times <= 3, "it says so again and again: {}", dns.said());
}

/// An API server for the user of one token, who may do what a ClusterRole for DNS servers allows and nothing else;
/// and what it was asked for.
struct Restricted {
    url: String,
    asked: Arc<Mutex<BTreeSet<String>>>,
    _serving: tokio::task::JoinSet<()>,
    client: kube::Client,
}

const TOKEN: &str = "a-token-of-the-dns-server";

impl Restricted {
    async fn serve(forbidden: &'static str) -> Self {
        let options = apiserver::Options::default();
        let server = apiserver::Server::new(Arc::new(store::MemoryStore::new()), options);
        server
            .bootstrap()
            .await
            .expect("a store in memory takes everything");
        let router = apiserver::router(server).layer(axum::Extension(apiserver::auth::User::admin()));
        let client = kube::Client::new(router.clone(), "default");
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let noting = asked.clone();
        let guard = axum::middleware::from_fn(move |request: Request, next: Next| {
            let asked = noting.clone();
            async move {
                let path = request.uri().path().to_owned();
                let line = format!("{} {path}", request.method());
                asked.lock().expect("no panic under the lock").insert(line);
                let token = request
                    .headers()
                    .get("authorization")
                    .and_then(|v| v.to_str().ok());
                let code = match token {
                    Some(bearer) if bearer == format!("Bearer {TOKEN}") && path.ends_with(forbidden) => 403,
                    Some(bearer) if bearer == format!("Bearer {TOKEN}") => return next.run(request).await,
                    _ => 401,
                };
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": "Forbidden", "message": format!("User \"dns\" cannot list {path}"),
                });
                let code = StatusCode::from_u16(code).expect("a code");
                (code, Json(status)).into_response()
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, router.layer(guard))
                .await
                .expect("it serves");
        });
        Self {
            url,
            asked,
            _serving: serving,
            client,
        }
    }

    async fn create(&self, path: &str, object: &Value) {
        let request = axum::http::Request::post(path).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).expect("a request");
        let created: Result<Value, _> = self.client.request(request).await;
        created.expect("it is created");
    }

    fn kubeconfig(&self, cluster: &Cluster) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: '{}'}}}}]\n\
             users: [{{name: a, user: {{token: {TOKEN}}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n",
            self.url
        );
        cluster.write("restricted", &text).display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_only_lists_and_watches_four_kinds_and_says_which_one_it_may_not() {
    let api = Restricted::serve("/pods").await;
    api.create("/api/v1/namespaces/default/services", &headless())
        .await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    api.create(slices, &slice("10.244.3.7")).await;
    let mut cluster = Cluster::new();
    let kubeconfig = api.kubeconfig(&cluster);
    let ranges = ["--pod-cidr", "10.244.0.0/16,10.245.0.0/16"];
    let dns = Dns::start(&mut cluster, &kubeconfig, &ranges);
    dns.until("db.manual", "NOERROR", &["10.244.3.7"]);
    // Pods' own names are missing, and that is no reason to doubt all others.
    dns.until("other", "NXDOMAIN", &[]);
    let pointer = ask(&dns.address, "7.3.244.10.in-addr.arpa", "PTR");
    assert_eq!(pointer.data(), ["db.manual.default.svc.cluster.local."]);
    let covered = ask(&dns.address, "1.0.245.10.in-addr.arpa", "PTR");
    assert_eq!(covered.status, "NXDOMAIN", "{}", covered.text);
    eventually("it says what it may not see", PATIENCE, || {
        let said = dns.said();
        let says = said.contains("verbs list and watch on pods");
        says.then_some(()).ok_or(said)
    });
    let said = dns.said();
    assert_eq!(said.matches("may not see").count(), 1, "{said}");
    let asked = api.asked.lock().expect("no panic under the lock").clone();
    let allowed = [
        "GET /api/v1/namespaces",
        "GET /api/v1/pods",
        "GET /api/v1/services",
        "GET /apis/discovery.k8s.io/v1/endpointslices",
    ];
    assert_eq!(asked.iter().map(String::as_str).collect::<Vec<_>>(), allowed);
}
