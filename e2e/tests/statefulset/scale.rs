//! More pods and fewer: in order or all at once, with pods that are not well, and by every way to ask for it.

use crate::cluster::{COMES, Cluster, GOES, SET, SETS, is_ready, set, steps};
use axum::http::Method;
use e2e::in_process::{Health, PODS};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// R29, R31.
#[tokio::test(start_paused = true)]
async fn pods_go_from_the_top_one_by_one_and_come_back_from_the_bottom() {
    let cluster = Cluster::with(json!({"replicas": 4})).await;
    cluster.scale(1).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    assert_eq!(cluster.node.take_log(), steps([3, 2, 1], &GOES));
    cluster.scale(3).await;
    cluster.until_counts([3, 3, 3, 3]).await;
    assert_eq!(cluster.node.take_log(), steps([1, 2], &COMES));
}

/// R30, R31: nobody waits for anybody.
#[tokio::test(start_paused = true)]
async fn pods_of_a_parallel_set_come_and_go_all_at_once() {
    let cluster = Cluster::start().await;
    cluster
        .create_set(json!({"replicas": 5, "podManagementPolicy": "Parallel"}))
        .await;
    cluster.until_counts([5, 5, 5, 5]).await;
    let log = cluster.node.take_log();
    let (created, ready) = log.split_at(5);
    let all = |what: &str| (0..5).map(|n| format!("web-{n} {what}")).collect::<BTreeSet<_>>();
    assert_eq!(created.iter().cloned().collect::<BTreeSet<_>>(), all("created"));
    assert_eq!(ready.iter().cloned().collect::<BTreeSet<_>>(), all("ready"));
    cluster.scale(0).await;
    cluster.until_counts([0, 0, 0, 0]).await;
    let log = cluster.node.take_log();
    let (deleting, gone) = log.split_at(5);
    assert_eq!(deleting.iter().cloned().collect::<BTreeSet<_>>(), all("deleting"));
    assert_eq!(gone.iter().cloned().collect::<BTreeSet<_>>(), all("gone"));
}

/// E11.
#[tokio::test(start_paused = true)]
async fn a_parallel_set_grows_and_shrinks_though_its_pods_are_unready() {
    let cluster = Cluster::with(json!({"replicas": 1, "podManagementPolicy": "Parallel"})).await;
    cluster.node.only("web-0", Health::Unready);
    cluster.until_counts([1, 0, 0, 1]).await;
    cluster.scale(3).await;
    cluster.until_counts([3, 2, 2, 3]).await;
    cluster.node.judge(|_| Health::Ready);
    cluster.until_counts([3, 3, 3, 3]).await;
    cluster.node.judge(|_| Health::Unready);
    cluster.until_counts([3, 0, 0, 3]).await;
    cluster.scale(0).await;
    cluster.until_counts([0, 0, 0, 0]).await;
    assert!(cluster.names(PODS).await.is_empty());
}

/// R29d, and kubernetes' scenario of a set that halts while a pod is unhealthy.
#[tokio::test(start_paused = true)]
async fn an_unready_pod_keeps_an_ordered_set_from_growing_and_from_shrinking() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    cluster.node.only("web-0", Health::Unready);
    cluster.until_counts([2, 1, 1, 2]).await;
    cluster.scale(3).await;
    cluster.rest().await;
    assert_eq!(cluster.names(PODS).await, ["web-0", "web-1"]);
    cluster.scale(1).await;
    cluster.rest().await;
    assert_eq!(cluster.names(PODS).await, ["web-0", "web-1"]);
    assert!(cluster.node.take_log().is_empty());
    cluster.node.judge(|_| Health::Ready);
    cluster.until_counts([1, 1, 1, 1]).await;
    assert_eq!(
        cluster.node.take_log(),
        [steps([0], &["ready"]), steps([1], &GOES)].concat()
    );
}

/// R31: its two consequences.
#[tokio::test(start_paused = true)]
async fn one_unready_pod_is_scaled_away_and_two_hang_until_the_lower_one_recovers() {
    let unready = |names: &'static [&'static str]| {
        move |pod: &k8s_openapi::api::core::v1::Pod| {
            if names.contains(&pod.name_any().as_str()) {
                Health::Unready
            } else {
                Health::Ready
            }
        }
    };
    let cluster = Cluster::with(json!({"replicas": 3})).await;
    cluster.node.judge(unready(&["web-2"]));
    cluster.until_counts([3, 2, 2, 3]).await;
    cluster.scale(2).await;
    cluster.until_counts([2, 2, 2, 2]).await;

    let cluster = Cluster::with(json!({"replicas": 3})).await;
    cluster.node.judge(unready(&["web-1", "web-2"]));
    cluster.until_counts([3, 1, 1, 3]).await;
    cluster.scale(1).await;
    cluster.rest().await;
    assert_eq!(cluster.names(PODS).await, ["web-0", "web-1", "web-2"]);
    cluster.node.judge(unready(&["web-2"]));
    cluster.until_counts([1, 1, 1, 1]).await;
    let log = cluster.node.take_log();
    assert_eq!(log, [steps([1], &["ready"]), steps([2, 1], &GOES)].concat());
}

/// R31: nothing above goes while it may be that something below does not recover; the pod below the range goes last.
#[tokio::test(start_paused = true)]
async fn an_ordered_set_waits_for_each_pod_to_be_gone_before_the_next_goes() {
    let cluster = Cluster::with(json!({"replicas": 3})).await;
    cluster.node.let_go(false);
    cluster.scale(0).await;
    cluster.rest().await;
    assert_eq!(cluster.node.take_log(), ["web-2 deleting"]);
    // Includes the one that is on its way out (R39).
    cluster.until_counts([3, 3, 3, 2]).await;
    cluster.node.let_go(true);
    cluster.until_counts([0, 0, 0, 0]).await;
    let expected = [steps([2], &["gone"]), steps([1, 0], &GOES)].concat();
    assert_eq!(cluster.node.take_log(), expected);
}

/// I2.
#[tokio::test(start_paused = true)]
async fn replicas_follow_the_spec_and_every_generation_is_observed() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    for (replicas, generation) in [(3, 2), (0, 3), (2, 4)] {
        cluster.scale(replicas).await;
        let set = cluster.until_counts([replicas; 4]).await;
        assert_eq!(set["metadata"]["generation"], generation);
        assert_eq!(set["status"]["observedGeneration"], generation);
        assert_eq!(set["status"]["replicas"], replicas, "written at 0, too");
    }
    let metadata = json!({"annotations": {"test": "value"}});
    cluster.change(json!({"template": {"metadata": metadata}})).await;
    let set = cluster.until_rolled_out(2).await;
    assert_eq!(set["status"]["observedGeneration"], 5);
    for pod in cluster.list(PODS).await {
        assert_eq!(pod["metadata"]["annotations"]["test"], "value");
    }
}

/// E13.
#[tokio::test(start_paused = true)]
async fn the_scale_subresource_reads_and_changes_the_replicas_and_nothing_else() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    let path = format!("{SET}/scale");
    let before = cluster.set().await["spec"].clone();
    let mut scale = cluster.get(&path).await.expect("every set has one");
    assert_eq!(
        (&scale["apiVersion"], &scale["kind"]),
        (&json!("autoscaling/v1"), &json!("Scale"))
    );
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["metadata"]["resourceVersion"] = "".into();
    scale["spec"]["replicas"] = 2.into();
    let put = cluster.put(&path, scale).await;
    assert_eq!(put["spec"]["replicas"], 2);
    cluster.until_counts([2, 2, 2, 2]).await;
    let patched = cluster.patch(&path, json!({"spec": {"replicas": 4}})).await;
    assert_eq!(patched["spec"]["replicas"], 4);
    let mut after = cluster.until_counts([4, 4, 4, 4]).await["spec"].clone();
    after["replicas"] = 1.into();
    assert_eq!(after, before);
    let scale = cluster.get(&path).await.expect("every set has one");
    assert_eq!(scale["status"]["replicas"], 4);
}

/// E14.
#[tokio::test(start_paused = true)]
async fn sets_are_listed_patched_and_deleted_as_a_collection() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    let patch = json!({"metadata": {"labels": {"test": "patched"}}, "spec": {"replicas": 2, "template": {"spec": {
        "TerminationGracePeriodSeconds": 10, "containers": [{"name": "second", "image": "nginx:2"}]}}}});
    let patched = cluster.patch(SET, patch).await;
    assert_eq!(patched["spec"]["replicas"], 2);
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        (&containers[0]["name"], &containers[1]["name"]),
        (&json!("second"), &json!("c"))
    );
    let set = cluster.until_rolled_out(2).await;
    assert_eq!(set["metadata"]["labels"], json!({"test": "patched"}));
    for pod in cluster.list(PODS).await {
        assert!(is_ready(&pod));
        assert_eq!(pod["spec"]["containers"][0]["name"], "second");
    }
    let mut other = crate::cluster::set(json!({"replicas": 0}));
    other["metadata"]["name"] = "other".into();
    cluster.create(SETS, other).await;
    let everywhere = "/apis/apps/v1/statefulsets?labelSelector=test%3Dpatched";
    assert_eq!(cluster.names(everywhere).await, ["web"]);
    let deleted = cluster
        .send(
            Method::DELETE,
            &format!("{SETS}?labelSelector=test%3Dpatched"),
            &Value::Null,
        )
        .await;
    deleted.expect("it is deleted");
    cluster.until_gone(SET).await;
    assert!(cluster.names(everywhere).await.is_empty());
    assert_eq!(cluster.names(SETS).await, ["other"]);
    cluster.until_gone(&format!("{PODS}/web-0")).await;
}

/// R39: one set's pods are not another's, however alike they are called.
#[tokio::test(start_paused = true)]
async fn sets_with_similar_names_keep_to_their_own_pods() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    let mut other = set(json!({"replicas": 2}));
    other["metadata"]["name"] = "web-1".into();
    cluster.create(SETS, other).await;
    cluster.until_pod("web-1-1", is_ready).await;
    cluster.scale(1).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    cluster.rest().await;
    assert_eq!(cluster.names(PODS).await, ["web-0", "web-1-0", "web-1-1"]);
}
