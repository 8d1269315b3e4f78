//! `spec.ordinals.start`: where the names begin.

use crate::cluster::{COMES, Cluster, GOES, REPLACED, steps};
use e2e::in_process::{KUBELET, PODS};
use serde_json::{Value, json};

fn from(start: i64, replicas: i64) -> Value {
    json!({"replicas": replicas, "ordinals": {"start": start}})
}

/// I8.
#[tokio::test(start_paused = true)]
async fn names_begin_at_the_start_ordinal_and_scaling_keeps_the_lowest() {
    let cases = [
        (json!({"replicas": 3}), vec!["web-0", "web-1", "web-2"]),
        (
            json!({"replicas": 3, "ordinals": {}}),
            vec!["web-0", "web-1", "web-2"],
        ),
        (from(4, 4), vec!["web-4", "web-5", "web-6", "web-7"]),
        (
            from(2, 7),
            vec!["web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8"],
        ),
    ];
    for (spec, names) in cases {
        let cluster = Cluster::with(spec.clone()).await;
        assert_eq!(cluster.names(PODS).await, names, "{spec}");
        for (pod, name) in cluster.list(PODS).await.iter().zip(&names) {
            let index = name.trim_start_matches("web-");
            assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], index);
        }
        cluster.scale(1).await;
        cluster.until_counts([1, 1, 1, 1]).await;
        assert_eq!(cluster.names(PODS).await, names[..1], "{spec}");
    }
}

/// E30, R32: all of the new range is there before any of the old goes.
#[tokio::test(start_paused = true)]
async fn a_start_that_moves_up_makes_the_new_pods_before_the_old_ones_go() {
    let cluster = Cluster::with(from(2, 2)).await;
    cluster.change(json!({"ordinals": {"start": 4}})).await;
    cluster.until_pods(&["web-4", "web-5"]).await;
    cluster.until_available(2).await;
    let expected = [steps([4, 5], &COMES), steps([3, 2], &GOES)].concat();
    assert_eq!(cluster.node.take_log(), expected);
}

/// E31.
#[tokio::test(start_paused = true)]
async fn a_start_that_moves_down_by_one_moves_one_pod() {
    let cluster = Cluster::with(from(3, 2)).await;
    cluster.change(json!({"ordinals": {"start": 2}})).await;
    cluster.until_pods(&["web-2", "web-3"]).await;
    cluster.until_available(2).await;
    let expected = [steps([2], &COMES), steps([4], &GOES)].concat();
    assert_eq!(cluster.node.take_log(), expected);
}

/// E32.
#[tokio::test(start_paused = true)]
async fn without_ordinals_the_names_begin_at_0_again() {
    let cluster = Cluster::with(from(3, 2)).await;
    cluster.change(json!({"ordinals": null})).await;
    cluster.until_pods(&["web-0", "web-1"]).await;
    cluster.until_available(2).await;
    let expected = [steps([0, 1], &COMES), steps([4, 3], &GOES)].concat();
    assert_eq!(cluster.node.take_log(), expected);
}

/// R32 for Parallel: both at the same time.
#[tokio::test(start_paused = true)]
async fn a_parallel_set_moves_all_at_once() {
    let mut spec = from(0, 3);
    spec["podManagementPolicy"] = "Parallel".into();
    let cluster = Cluster::with(spec).await;
    let began = tokio::time::Instant::now();
    cluster.change(json!({"ordinals": {"start": 3}})).await;
    cluster.until_pods(&["web-3", "web-4", "web-5"]).await;
    cluster.until_available(3).await;
    assert!(
        began.elapsed() < 2 * KUBELET + KUBELET / 2,
        "took {:?}",
        began.elapsed()
    );
}

/// R33: `partition` is an index, not an ordinal.
#[tokio::test(start_paused = true)]
async fn a_partition_counts_from_the_start_ordinal() {
    let mut spec = from(5, 3);
    spec["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let cluster = Cluster::with(spec).await;
    cluster.change_image("nginx:2").await;
    cluster.until_counts([3, 3, 3, 1]).await;
    cluster.rest().await;
    assert_eq!(cluster.node.take_log(), steps([7], &REPLACED));
}
