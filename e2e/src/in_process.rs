//! The API over a store in memory with every controller, all in this process: no port, no disk but the
//! volumes' directory, and time stands still while there is work (`start_paused`).

mod node;

pub use node::{Health, KUBELET, Node};

use apiserver::auth::User;
use apiserver::{Options, Server};
use axum::http::{Method, Request};
use jiff::SignedDuration;
use kube::Client;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::MemoryStore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The pods of the default namespace.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// Longer than anything waits for; on a paused clock this is no time.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at: at first, and at least.
const TICKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// The cluster; dropping it ends its controllers.
pub struct InProcess {
    client: Client,
    clock: events::Clock,
    directory: tempfile::TempDir,
    controllers: JoinSet<Result<(), controller::Error>>,
    options: controller::Options,
}

impl InProcess {
    /// Start one with the namespaces and ServiceAccounts every cluster has.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let start = Instant::now();
        let began: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        // Never twice the same time, as on a real clock: names of events are made of it.
        let calls = AtomicI64::new(0);
        let clock: events::Clock = Arc::new(move || {
            let elapsed = SignedDuration::try_from(start.elapsed()).expect("tests are short");
            began + elapsed + SignedDuration::from_nanos(calls.fetch_add(1, Ordering::Relaxed))
        });
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
        let options = controller::Options {
            volumes_dir: directory.path().join("volumes"),
            root_ca: Some("a certificate".into()),
            ..controller::Options::default()
        };
        let mut this = Self {
            client,
            clock,
            directory,
            controllers: JoinSet::new(),
            options,
        };
        this.start_controllers();
        this.until("/api/v1/namespaces/default/serviceaccounts/default", |_| true)
            .await;
        this
    }

    fn start_controllers(&mut self) {
        self.controllers.spawn(controller::run(
            self.client.clone(),
            self.clock.clone(),
            self.options.clone(),
            CancellationToken::new(),
        ));
    }

    /// End the controllers wherever they are, and start those that `chosen` selects (`*` is all of them, `*,-garbage`
    /// all but that one).
    pub async fn restart_controllers(&mut self, chosen: &str) {
        self.controllers.shutdown().await;
        self.options.controllers = chosen.parse().expect("a selection of controllers");
        self.start_controllers();
    }

    /// A client of this cluster's API.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The time that all components go by.
    pub fn clock(&self) -> events::Clock {
        self.clock.clone()
    }

    /// Create a pod labelled `app: web` that runs and is not ready, with a name of its own under the Service `web`.
    pub async fn add_pod(&self, name: &str, ip: &str) {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "c", "image": "nginx"}],
                "hostname": name, "subdomain": "web", "nodeName": "node",
            },
        });
        self.create(PODS, pod).await;
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        self.merge(&format!("{PODS}/{name}/status"), status).await;
    }

    /// Turn a pod ready, or not ready, as its kubelet would.
    pub async fn set_ready(&self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        self.merge(&format!("{PODS}/{name}/status"), status).await;
    }

    /// Where provisioned volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.directory.path().join("volumes")
    }

    /// A directory that is nobody's volume.
    pub fn elsewhere(&self) -> &Path {
        self.directory.path()
    }

    /// One request; the error is the API's.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        self.send_as(content_type, method, path, body).await
    }

    async fn send_as(
        &self,
        content_type: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type);
        self.client.request(request.body(body).expect("a request")).await
    }

    /// Create an object in a collection.
    pub async fn create(&self, path: &str, object: Value) -> Value {
        let created = self.send(Method::POST, path, &object).await;
        created.unwrap_or_else(|error| panic!("POST {path} {object}: {error}"))
    }

    /// Merge into an object.
    pub async fn merge(&self, path: &str, patch: Value) -> Value {
        let patched = self.send(Method::PATCH, path, &patch).await;
        patched.unwrap_or_else(|error| panic!("PATCH {path} {patch}: {error}"))
    }

    /// Patch an object as `kubectl patch` does: lists of containers are merged by name.
    pub async fn patch(&self, path: &str, patch: Value) -> Value {
        let strategic = "application/strategic-merge-patch+json";
        let patched = self.send_as(strategic, Method::PATCH, path, &patch).await;
        patched.unwrap_or_else(|error| panic!("PATCH {path} {patch}: {error}"))
    }

    /// Put an object in the place of what is there.
    pub async fn put(&self, path: &str, object: Value) -> Value {
        let put = self.send(Method::PUT, path, &object).await;
        put.unwrap_or_else(|error| panic!("PUT {path} {object}: {error}"))
    }

    /// The objects of a collection, or of a part that a query selects.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.unwrap_or_default();
        let items = list["items"].as_array().cloned();
        items.unwrap_or_else(|| panic!("{path} is no list: {list:#}"))
    }

    /// Delete an object.
    pub async fn delete(&self, path: &str, options: Value) {
        let deleted = self.send(Method::DELETE, path, &options).await;
        deleted.unwrap_or_else(|error| panic!("DELETE {path} {options}: {error}"));
    }

    /// What is at a path; nothing if nothing is.
    pub async fn get(&self, path: &str) -> Option<Value> {
        match self.send(Method::GET, path, &Value::Null).await {
            Ok(found) => Some(found),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// Wait until something is at the path and as it should be.
    pub async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let found = self.wait(path, |found| found.is_some_and(&is_so)).await;
        found.unwrap_or_default()
    }

    /// Wait until nothing is at the path.
    pub async fn until_gone(&self, path: &str) {
        self.wait(path, |found| found.is_none()).await;
    }

    /// Wait until an event with this reason is told in `default`; its message.
    pub async fn until_told(&self, reason: &str) -> String {
        let path = "/api/v1/namespaces/default/events";
        let find = |events: &Value| {
            let events = events["items"].as_array().into_iter().flatten();
            events
                .into_iter()
                .find(|event| event["reason"] == reason)
                .cloned()
        };
        let events = self.until(path, |events| find(events).is_some()).await;
        let event = find(&events).unwrap_or_default();
        event["message"].as_str().unwrap_or_default().to_owned()
    }

    async fn wait(&self, path: &str, is_so: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let began = Instant::now();
        loop {
            let found = self.get(path).await;
            if is_so(found.as_ref()) {
                return found;
            }
            assert!(self.controllers.len() == 1, "the controllers have ended");
            assert!(
                began.elapsed() < DEADLINE,
                "{path} never became what it should, but is {found:#?}"
            );
            // What takes longer is looked at less often.
            sleep((began.elapsed() / 16).clamp(TICKS.0, TICKS.1)).await;
        }
    }
}
