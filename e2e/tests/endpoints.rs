//! EndpointSlices and Endpoints follow pods.

use e2e::in_process::{InProcess, PODS};
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/web";

async fn add_service(cluster: &InProcess) {
    let spec =
        json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "web", "port": 80}]});
    cluster
        .create(SERVICES, json!({"metadata": {"name": "web"}, "spec": spec}))
        .await;
}

/// Hostname and readiness of every endpoint of the only slice.
fn endpoints(slices: &Value) -> Value {
    let [slice] = &slices["items"].as_array().expect("a list")[..] else {
        return Value::Null;
    };
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints
        .iter()
        .map(|e| json!([e["hostname"], e["conditions"]["ready"]]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn endpoints_without_a_service_are_left_alone() {
    let cluster = InProcess::start().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let lock = cluster
        .create(endpoints, json!({"metadata": {"name": "lock"}}))
        .await;
    // A Service that comes later and is dealt with, so the lock has been, too.
    add_service(&cluster).await;
    cluster.until(ENDPOINTS, |web| web["metadata"].is_object()).await;
    cluster
        .until(&format!("{endpoints}/lock"), |now| {
            now["metadata"]["uid"] == lock["metadata"]["uid"]
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_readiness() {
    let cluster = InProcess::start().await;
    add_service(&cluster).await;
    cluster
        .until(SLICES, |slices| endpoints(slices) == json!([]))
        .await;
    cluster.add_pod("web-0", "127.1.0.1").await;
    cluster
        .until(SLICES, |slices| endpoints(slices) == json!([["web-0", false]]))
        .await;
    cluster.set_ready("web-0", true).await;
    let slices = cluster
        .until(SLICES, |slices| endpoints(slices) == json!([["web-0", true]]))
        .await;
    let name = slices["items"][0]["metadata"]["name"].as_str().expect("a name");
    assert_eq!((name.len(), &name[..4]), (9, "web-"));
    cluster.add_pod("web-1", "127.1.0.2").await;
    cluster
        .until(SLICES, |s| {
            endpoints(s) == json!([["web-0", true], ["web-1", false]])
        })
        .await;
    let legacy = cluster
        .until(ENDPOINTS, |e| e["subsets"][0]["notReadyAddresses"].is_array())
        .await;
    assert_eq!(legacy["subsets"][0]["addresses"][0]["ip"], "127.1.0.1");
    assert_eq!(legacy["subsets"][0]["notReadyAddresses"][0]["hostname"], "web-1");
    cluster.set_ready("web-0", false).await;
    cluster
        .until(SLICES, |s| {
            endpoints(s) == json!([["web-0", false], ["web-1", false]])
        })
        .await;
    for name in ["web-0", "web-1"] {
        cluster
            .delete(&format!("{PODS}/{name}"), json!({"gracePeriodSeconds": 0}))
            .await;
    }
    cluster
        .until(SLICES, |slices| endpoints(slices) == json!([]))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_turns_ready_is_an_endpoint_without_any_time_passing() {
    let cluster = InProcess::start().await;
    add_service(&cluster).await;
    cluster.add_pod("web-0", "127.1.0.1").await;
    cluster
        .until(SLICES, |slices| endpoints(slices) == json!([["web-0", false]]))
        .await;
    let before = tokio::time::Instant::now();
    cluster.set_ready("web-0", true).await;
    cluster
        .until(SLICES, |slices| endpoints(slices) == json!([["web-0", true]]))
        .await;
    let took = before.elapsed();
    assert!(
        took <= std::time::Duration::from_millis(5),
        "something waits: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_nobody_changes_is_not_written_and_what_somebody_removes_comes_back() {
    let cluster = InProcess::start().await;
    add_service(&cluster).await;
    cluster.add_pod("web-0", "127.1.0.1").await;
    cluster.set_ready("web-0", true).await;
    let ready = |slices: &Value| endpoints(slices) == json!([["web-0", true]]);
    let before = cluster.until(SLICES, ready).await;
    let annotated = json!({"metadata": {"annotations": {"a": "b"}}});
    cluster.merge(&format!("{PODS}/web-0"), annotated).await;
    // The removal is seen after the annotation.
    cluster.delete(ENDPOINTS, Value::Null).await;
    cluster
        .until(ENDPOINTS, |e| e["subsets"][0]["addresses"].is_array())
        .await;
    let after = cluster.until(SLICES, ready).await;
    let version = |slices: &Value| slices["items"][0]["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&before), version(&after));
}

#[tokio::test(start_paused = true)]
async fn endpoints_go_with_their_service() {
    let cluster = InProcess::start().await;
    add_service(&cluster).await;
    cluster
        .until(SLICES, |slices| endpoints(slices) == json!([]))
        .await;
    cluster.until(ENDPOINTS, |_| true).await;
    cluster.delete(&format!("{SERVICES}/web"), Value::Null).await;
    cluster.until_gone(ENDPOINTS).await;
    cluster.until(SLICES, |slices| slices["items"] == json!([])).await;
}
