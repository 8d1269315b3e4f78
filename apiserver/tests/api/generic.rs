//! What holds for objects of every kind, shown on ConfigMaps: writes, lists, watches, deletion.

use crate::client::Api;
use apiserver::{Options, Server};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::{MemoryStore, Store};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

impl Api {
    async fn config_map(&self, name: &str, metadata: Value) -> Value {
        let mut object = json!({"metadata": metadata});
        object["metadata"]["name"] = name.into();
        let (code, created) = self.post(MAPS, object).await;
        assert_eq!(code, 201, "{created}");
        created
    }

    async fn watch(&self, query: &str) -> Lines {
        let response = self
            .send("GET", &format!("{MAPS}?watch=1&{query}"), "", Body::empty())
            .await;
        assert_eq!(response.status(), StatusCode::OK);
        Lines {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

/// The events of a watch.
struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` at the end of the body.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
            let frame = frame.await.expect("an event before the deadline")?;
            let data = frame.expect("no error").into_data().expect("data");
            self.rest.extend_from_slice(&data);
        }
    }

    /// The next event as `TYPE name`.
    async fn told(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        format!(
            "{} {}",
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"])
        )
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let api = Api::start().await;
    let created = api.config_map("a", json!({})).await;
    assert_eq!(created["kind"], "ConfigMap");
    assert!(created["metadata"]["uid"].is_string());
    let path = format!("{MAPS}/a");
    assert_eq!(api.get(&path).await, (200, created.clone()));

    let mut changed = created.clone();
    changed["data"] = json!({"k": "v"});
    let (code, updated) = api.json("PUT", &path, "application/json", changed.clone()).await;
    assert_eq!((code, &updated["data"]["k"]), (200, &json!("v")));
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );

    let (code, status) = api.json("PUT", &path, "application/json", changed).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));

    let (code, status) = api.delete(&path, Value::Null).await;
    assert_eq!((code, &status["status"]), (200, &json!("Success")));
    assert_eq!(api.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_its_resource_version() {
    let api = Api::start().await;
    let created = api.config_map("a", json!({"labels": {"x": "1"}})).await;
    let (code, patched) = api
        .merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"x": "1"}}}))
        .await;
    assert_eq!(code, 200);
    assert_eq!(
        patched["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn nobody_gets_nothing() {
    let server = Server::new(Arc::new(MemoryStore::new()), Options::default());
    let request = Request::get(MAPS).body(Body::empty()).expect("a request");
    let response = apiserver::router(server)
        .oneshot(request)
        .await
        .expect("the router cannot fail");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_revision() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.config_map(name, json!({})).await;
    }
    let (_, first) = api.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    api.delete(&format!("{MAPS}/c"), Value::Null).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (_, second) = api.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert!(second["metadata"]["continue"].is_null());
}

#[tokio::test]
async fn a_page_is_filled_with_what_the_selector_selects() {
    let api = Api::start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "y"), ("d", "x"), ("e", "x")] {
        api.config_map(name, json!({"labels": {"app": app}})).await;
    }
    let (_, list) = api.get(&format!("{MAPS}?limit=2&labelSelector=app%3Dx")).await;
    assert_eq!(names(&list), ["a", "d"]);
    let token = list["metadata"]["continue"].as_str().expect("a token");
    let path = format!("{MAPS}?limit=2&labelSelector=app%3Dx&continue={token}");
    assert_eq!(names(&api.get(&path).await.1), ["e"]);
}

#[tokio::test]
async fn a_name_is_not_a_prefix_of_a_name() {
    let api = Api::start().await;
    api.config_map("web", json!({})).await;
    api.config_map("web-1", json!({})).await;
    let (_, list) = api
        .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dweb"))
        .await;
    assert_eq!(names(&list), ["web"]);
}

#[tokio::test]
async fn a_watch_sees_the_past_then_the_future() {
    let api = Api::start().await;
    let created = api.config_map("a", json!({})).await;
    api.config_map("b", json!({})).await;
    let version = created["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    let mut watch = api.watch(&format!("resourceVersion={version}")).await;
    assert_eq!(watch.told().await, "ADDED b");
    api.merge(&format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await;
    assert_eq!(watch.told().await, "MODIFIED a");
    api.delete(&format!("{MAPS}/b"), Value::Null).await;
    assert_eq!(watch.told().await, "DELETED b");
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_there_is() {
    let api = Api::start().await;
    api.config_map("a", json!({})).await;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = api.watch(query).await;
    assert_eq!(watch.told().await, "ADDED a");
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    api.config_map("b", json!({})).await;
    assert_eq!(watch.told().await, "ADDED b");
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_watch_by_its_labels() {
    let api = Api::start().await;
    let mut watch = api.watch("labelSelector=app%3Dx").await;
    api.config_map("a", json!({})).await;
    for app in ["x", "y"] {
        let patch = json!({"metadata": {"labels": {"app": app}}});
        assert_eq!(api.merge(&format!("{MAPS}/a"), patch).await.0, 200);
    }
    assert_eq!(watch.told().await, "ADDED a");
    assert_eq!(watch.told().await, "DELETED a");
}

#[tokio::test]
async fn what_is_compacted_is_gone_for_lists_pages_and_watches() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.config_map(name, json!({})).await;
    }
    let (_, page) = api.get(&format!("{MAPS}?limit=1")).await;
    let version = page["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    let (code, _) = api
        .get(&format!(
            "{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(code, 200);
    api.config_map("d", json!({})).await;
    api.store.compact(api.store.current()).await.expect("compacted");

    let (code, status) = api
        .get(&format!(
            "{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")), "{status}");
    let (code, status) = api.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")), "{status}");
    assert!(
        status["metadata"]["continue"].is_string(),
        "a list can go on without its consistency: {status}"
    );
    let mut watch = api.watch(&format!("resourceVersion={version}")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{event}"
    );
    assert!(watch.next().await.is_none(), "and nothing after it");
}

#[tokio::test]
async fn a_watch_ends_with_the_server() {
    let api = Api::start().await;
    let mut watch = api.watch("resourceVersion=1").await;
    api.options.stop.cancel();
    while let Some(event) = watch.next().await {
        assert_ne!(event["type"], "ERROR");
    }
}

#[tokio::test]
async fn the_last_finalizer_takes_the_object_with_it() {
    let api = Api::start().await;
    api.config_map("a", json!({"finalizers": ["x.io/a"]})).await;
    let path = format!("{MAPS}/a");
    let (code, deleting) = api.delete(&path, Value::Null).await;
    assert_eq!(code, 200);
    assert!(deleting["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.get(&path).await.0, 200);
    assert_eq!(
        api.merge(&path, json!({"metadata": {"finalizers": null}}))
            .await
            .0,
        200
    );
    assert_eq!(api.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_deletion_is_refused_for_another_uid() {
    let api = Api::start().await;
    api.config_map("a", json!({})).await;
    let options = json!({"preconditions": {"uid": "other"}});
    let (code, status) = api.delete(&format!("{MAPS}/a"), options).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalizer() {
    let api = Api::start().await;
    let (code, _) = api
        .post("/api/v1/namespaces", json!({"metadata": {"name": "x"}}))
        .await;
    assert_eq!(code, 201);
    let (code, namespace) = api.delete("/api/v1/namespaces/x", Value::Null).await;
    assert_eq!(
        (code, &namespace["status"]["phase"]),
        (200, &json!("Terminating"))
    );
    let maps = "/api/v1/namespaces/x/configmaps";
    let (code, status) = api.post(maps, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "configmaps \"a\" is forbidden: unable to create new content in namespace x because it is being terminated"
    );
    let finalized = json!({"metadata": {"name": "x"}, "spec": {"finalizers": []}});
    let path = "/api/v1/namespaces/x/finalize";
    assert_eq!(api.json("PUT", path, "application/json", finalized).await.0, 200);
    assert_eq!(api.get("/api/v1/namespaces/x").await.0, 404);
}

#[tokio::test]
async fn the_first_namespaces_stay() {
    let api = Api::start().await;
    let (code, status) = api.delete("/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let api = Api::start().await;
    api.config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let patches = (0..20).map(|i| {
        let mut data = json!({});
        data[format!("k{i}")] = "v".into();
        api.merge(&path, json!({"data": data}))
    });
    for (code, answer) in futures::future::join_all(patches).await {
        assert_eq!(code, 200, "{answer}");
    }
    let (_, object) = api.get(&path).await;
    assert_eq!(object["data"].as_object().map(serde_json::Map::len), Some(20));
}

#[tokio::test]
async fn concurrent_services_get_different_addresses() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/services";
    let creates = (0..20).map(|i| {
        let service = json!({
            "metadata": {"name": format!("s{i}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        });
        api.post(path, service)
    });
    let mut seen = std::collections::HashSet::new();
    for (code, service) in futures::future::join_all(creates).await {
        assert_eq!(code, 201, "{service}");
        assert!(seen.insert(service["spec"]["clusterIP"].to_string()));
        assert!(seen.insert(service["spec"]["ports"][0]["nodePort"].to_string()));
    }
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let api = Api::start().await;
    let path = format!("{MAPS}?dryRun=All");
    assert_eq!(api.post(&path, json!({"metadata": {"name": "a"}})).await.0, 201);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.0, 404);
    api.config_map("b", json!({})).await;
    assert_eq!(
        api.delete(&format!("{MAPS}/b?dryRun=All"), Value::Null).await.0,
        200
    );
    assert_eq!(api.get(&format!("{MAPS}/b")).await.0, 200);
}

#[tokio::test]
async fn too_large_a_body_is_refused() {
    let api = Api::start().await;
    let body = format!(r#"{{"data": "{}"}}"#, "a".repeat(3_500_000));
    let response = api.send("POST", MAPS, "application/json", body).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let api = Api::start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        api.config_map(name, json!({"labels": {"app": app}})).await;
    }
    let (code, list) = api
        .delete(&format!("{MAPS}?labelSelector=app%3Dx"), Value::Null)
        .await;
    assert_eq!((code, names(&list)), (200, vec!["a", "c"]));
    assert_eq!(names(&api.get(MAPS).await.1), ["b"]);
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_told_as_a_status() {
    let api = Api::start().await;
    assert_eq!(api.get("/api/v1/nothings").await.1["reason"], "NotFound");
    assert_eq!(
        api.json("PUT", MAPS, "application/json", json!({})).await.1["reason"],
        "MethodNotAllowed"
    );
    assert_eq!(
        api.post("/version", json!({})).await.1["reason"],
        "MethodNotAllowed"
    );
    let response = api.send("GET", "/nope", "", Body::empty()).await;
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(text, "404 page not found\n");
}
