//! What petset does beyond Kubernetes: it says what a set waits for, and where the set asks for it, it helps itself.

use crate::cluster::{CLAIMS, Cluster, SET, claim_template, is_ready, of, set, text};
use axum::http::Method;
use e2e::in_process::{Health, PODS};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Longer than petset waits before it calls something unusual.
const LONG: Duration = Duration::from_secs(120);

/// From now on pods of the image `nginx:bad` do not become Ready.
fn bad_images_are_unready(cluster: &Cluster) {
    cluster.node.judge(|pod| {
        let spec = pod.spec.as_ref().expect("it has one");
        match spec.containers[0].image.as_deref() {
            Some("nginx:bad") => Health::Unready,
            _ => Health::Ready,
        }
    });
}

fn condition(set: &Value, type_: &str) -> (String, String, String) {
    let conditions = set["status"]["conditions"].as_array().into_iter().flatten();
    let mut found = conditions.filter(|condition| condition["type"] == type_);
    let found = found.next().cloned().unwrap_or_default();
    (
        text(&found["status"]),
        text(&found["reason"]),
        text(&found["message"]),
    )
}

async fn warnings(cluster: &Cluster) -> Vec<(String, i64)> {
    let events = cluster.list("/api/v1/namespaces/default/events").await;
    let of_set = events
        .iter()
        .filter(|event| event["involvedObject"]["kind"] == "StatefulSet");
    let warnings = of_set.filter(|event| event["type"] == "Warning");
    warnings
        .map(|event| (text(&event["message"]), event["count"].as_i64().unwrap_or(0)))
        .collect()
}

/// Kubernetes issue 67250: off unless the set asks for it, and then said once, with what helps.
#[tokio::test(start_paused = true)]
async fn a_blocked_rollout_is_told_once_with_the_command_that_helps() {
    let cluster = Cluster::with(json!({"replicas": 3})).await;
    bad_images_are_unready(&cluster);
    cluster.change_image("nginx:bad").await;
    cluster.until_counts([3, 2, 2, 1]).await;
    cluster.change_image("nginx:2").await;
    sleep(LONG).await;
    let set = cluster.set().await;
    let (status, reason, message) = condition(&set, "Progressing");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "RolloutBlocked"),
        "{message}"
    );
    assert!(
        message.contains("kubectl delete pod web-2 -n default"),
        "{message}"
    );
    let blocked: Vec<_> = warnings(&cluster)
        .await
        .into_iter()
        .filter(|(told, _)| *told == message)
        .collect();
    assert_eq!(blocked, [(message, 1)]);
    cluster.delete_pod("web-2").await;
    let set = cluster.until_rolled_out(3).await;
    assert_eq!(condition(&set, "Progressing").0, "True");
}

/// Kubernetes issue 67250.
#[tokio::test(start_paused = true)]
async fn a_set_that_asks_for_it_gets_past_a_bad_rollout_by_itself() {
    let cluster = Cluster::with(json!({"replicas": 3})).await;
    let annotations = json!({"petset.dev/unblock-rollout": "true"});
    cluster
        .merge(SET, json!({"metadata": {"annotations": annotations}}))
        .await;
    bad_images_are_unready(&cluster);
    cluster.change_image("nginx:bad").await;
    cluster.until_counts([3, 2, 2, 1]).await;
    sleep(LONG).await;
    let images: Vec<_> = cluster
        .images()
        .await
        .into_iter()
        .map(|(_, image)| image)
        .collect();
    assert_eq!(
        images,
        ["nginx:1", "nginx:1", "nginx:bad"],
        "there is nothing better yet"
    );
    cluster.node.take_log();
    cluster.change_image("nginx:2").await;
    cluster.until_rolled_out(3).await;
    let log = cluster.node.take_log();
    let replaced = crate::cluster::steps([2, 1, 0], &crate::cluster::REPLACED);
    assert_eq!(log, replaced);
}

/// Kubernetes issue 79606.
#[tokio::test(start_paused = true)]
async fn a_set_is_available_when_all_of_its_replicas_are() {
    let cluster = Cluster::start().await;
    cluster.node.judge(|_| Health::Unready);
    cluster.create_set(json!({"replicas": 1})).await;
    cluster.until_counts([1, 0, 0, 1]).await;
    assert_eq!(condition(&cluster.set().await, "Available").0, "False");
    cluster.node.judge(|_| Health::Ready);
    let set = cluster.until_counts([1, 1, 1, 1]).await;
    assert_eq!(condition(&set, "Available").0, "True");
    cluster.node.judge(|_| Health::Unready);
    let set = cluster.until_counts([1, 0, 0, 1]).await;
    assert_eq!(condition(&set, "Available").0, "False");
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_somebody_else_set_stays() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    let mut web = cluster.set().await;
    let foreign = json!({"type": "example.com/BackedUp", "status": "True", "reason": "Nightly"});
    let conditions = web["status"]["conditions"]
        .as_array_mut()
        .expect("there are some");
    conditions.push(foreign);
    cluster.put(&format!("{SET}/status"), web).await;
    cluster.scale(3).await;
    let web = cluster.until_counts([3, 3, 3, 3]).await;
    let (status, reason, _) = condition(&web, "example.com/BackedUp");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Nightly"));
    assert_eq!(condition(&web, "Available").0, "True");
}

/// Kubernetes issue 72891.
#[tokio::test(start_paused = true)]
async fn a_governing_service_that_is_missing_is_told_once_and_can_be_mended() {
    let cluster = Cluster::start().await;
    let services = "/api/v1/namespaces/default/services";
    cluster.delete(&of(services, "nginx"), Value::Null).await;
    cluster.create_set(json!({"replicas": 2})).await;
    cluster.until_counts([2, 2, 2, 2]).await;
    sleep(LONG).await;
    let (status, reason, message) = condition(&cluster.set().await, "GoverningService");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ServiceNotFound"));
    assert!(
        message.contains("\"nginx\"") && message.contains("clusterIP: None"),
        "{message}"
    );
    assert_eq!(warnings(&cluster).await, [(message, 1)]);
    let service =
        json!({"metadata": {"name": "nginx"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}});
    cluster.create(services, service).await;
    cluster
        .until_set(|set| condition(set, "GoverningService").0 == "True")
        .await;
}

/// Kubernetes issue 68737.
#[tokio::test(start_paused = true)]
async fn claims_grow_with_their_template_where_the_set_asks_for_it() {
    let cluster = Cluster::start().await;
    let mut template = claim_template("www");
    let spec = |template: &Value| json!({"replicas": 2, "volumeClaimTemplates": [template]});
    cluster.create_set(spec(&template)).await;
    cluster.until_counts([2, 2, 2, 2]).await;
    let before = cluster.uids(PODS).await;
    template["spec"]["resources"]["requests"]["storage"] = "3Gi".into();
    let refused = cluster.send(Method::PUT, SET, &set(spec(&template))).await;
    let refused = refused.expect_err("the template is frozen").to_string();
    assert!(
        refused.contains("spec: Forbidden: updates to statefulset spec for fields other than"),
        "{refused}"
    );
    let mut grown = set(spec(&template));
    grown["metadata"]["annotations"] = json!({"petset.dev/resize-claims": "true"});
    cluster.put(SET, grown).await;
    for claim in ["www-web-0", "www-web-1"] {
        let has_grown = |claim: &Value| claim["status"]["capacity"]["storage"] == "3Gi";
        cluster.until(&of(CLAIMS, claim), has_grown).await;
    }
    cluster
        .until_set(|set| condition(set, "ClaimsResized").0 == "True")
        .await;
    assert_eq!(cluster.uids(PODS).await, before, "no pod has noticed");
    // And a pod that is new gets its claim in the new size.
    cluster.scale(3).await;
    cluster.until_pod("web-2", is_ready).await;
    let claim = cluster.get(&of(CLAIMS, "www-web-2")).await.expect("it is there");
    assert_eq!(claim["status"]["capacity"]["storage"], "3Gi");
}
