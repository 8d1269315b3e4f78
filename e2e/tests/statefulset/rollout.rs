//! A changed template reaches the pods: which ones, in which order, how many at once, and what a broken one does.

use crate::cluster::{COMES, Cluster, REPLACED, is_deleted, revision_of, steps, text, uid};
use e2e::in_process::{Health, PODS};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

/// `RollingUpdate` with this block.
fn rolling(block: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": block})
}

fn is_of_image(pod: &Pod, image: &str) -> bool {
    let spec = pod.spec.as_ref().expect("it has one");
    spec.containers[0].image.as_deref() == Some(image)
}

/// Pods of this image never become Ready.
fn unless(image: &'static str) -> impl Fn(&Pod) -> Health {
    move |pod| {
        if is_of_image(pod, image) {
            Health::Unready
        } else {
            Health::Ready
        }
    }
}

/// What the pods run, by ordinal.
async fn images(cluster: &Cluster) -> Vec<String> {
    cluster
        .images()
        .await
        .into_iter()
        .map(|(_, image)| image)
        .collect()
}

/// R33.
#[tokio::test(start_paused = true)]
async fn a_new_template_is_rolled_out_from_the_top_down() {
    let cluster = Cluster::with(json!({"replicas": 3})).await;
    let before = cluster.status("currentRevision").await;
    cluster.change_image("nginx:2").await;
    let set = cluster.until_rolled_out(3).await;
    assert_ne!(set["status"]["currentRevision"], before);
    assert_eq!(cluster.node.take_log(), steps([2, 1, 0], &REPLACED));
    assert_eq!(images(&cluster).await, ["nginx:2"; 3]);
}

/// E5: with a pod that is broken when the template changes; an ordered set waits for it, whichever it is.
#[tokio::test(start_paused = true)]
async fn a_rollout_waits_for_a_broken_pod_and_a_rollback_takes_the_old_revision_back() {
    let cluster = Cluster::with(json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}})).await;
    let first = cluster.status("currentRevision").await;
    cluster.node.only("web-1", Health::Unready);
    cluster.until_counts([3, 2, 2, 3]).await;
    cluster.change_image("nginx:2").await;
    let set = cluster
        .until_set(|set| set["status"]["updateRevision"] != first)
        .await;
    let second = set["status"]["updateRevision"].clone();
    cluster.rest().await;
    assert_eq!(images(&cluster).await, ["nginx:1"; 3]);
    assert_eq!(cluster.status("currentRevision").await, first);
    cluster.node.judge(|_| Health::Ready);
    let set = cluster.until_rolled_out(3).await;
    assert_eq!(set["status"]["currentRevision"], second);
    let expected = [steps([1], &["ready"]), steps([2, 1, 0], &REPLACED)].concat();
    assert_eq!(cluster.node.take_log(), expected);

    cluster.node.only("web-1", Health::Unready);
    cluster.until_counts([3, 2, 2, 3]).await;
    cluster.change_image("nginx:1").await;
    cluster
        .until_set(|set| set["status"]["updateRevision"] == first)
        .await;
    cluster.node.judge(|_| Health::Ready);
    let set = cluster.until_rolled_out(3).await;
    assert_eq!(set["status"]["currentRevision"], first);
    assert_eq!(images(&cluster).await, ["nginx:1"; 3]);
    let revisions = cluster.names(crate::cluster::REVISIONS).await;
    assert_eq!(revisions.len(), 2, "{revisions:?}");
}

/// R33: first one, then some, then all.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lowered_lets_the_template_reach_one_pod_after_the_other() {
    let cluster =
        Cluster::with(json!({"replicas": 3, "updateStrategy": rolling(json!({"partition": 3}))})).await;
    let first = cluster.status("currentRevision").await;
    cluster.change_image("nginx:2").await;
    cluster
        .until_set(|set| set["status"]["updateRevision"] != first)
        .await;
    cluster.rest().await;
    assert!(cluster.node.take_log().is_empty());
    for partition in [2, 1, 0] {
        let block = json!({"rollingUpdate": {"partition": partition}});
        cluster.change(json!({"updateStrategy": block})).await;
        cluster.until_counts([3, 3, 3, 3 - partition]).await;
        cluster.rest().await;
        let ordinal = i32::try_from(partition).expect("it is small");
        assert_eq!(cluster.node.take_log(), steps([ordinal], &REPLACED));
        let status = cluster.set().await["status"].clone();
        let is_over = partition == 0;
        assert_eq!(
            status["currentRevision"] == status["updateRevision"],
            is_over,
            "{status}"
        );
        let old = if is_over { 3 } else { partition };
        assert_eq!(status["currentReplicas"], old, "{status}");
    }
}

/// E7, I7, R26.
#[tokio::test(start_paused = true)]
async fn a_pod_below_the_partition_comes_back_at_the_old_revision() {
    let strategy = rolling(json!({"partition": 1}));
    let cluster = Cluster::with(json!({"replicas": 2, "updateStrategy": strategy})).await;
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    cluster.change_pod("web-0", held).await;
    let first = cluster.status("currentRevision").await;
    cluster.change_image("nginx:2").await;
    cluster.until_counts([2, 2, 2, 1]).await;
    let old = uid(&cluster.pod("web-0").await);
    cluster.node.only("web-0", Health::Failed);
    cluster.until_pod("web-0", is_deleted).await;
    cluster.until_counts([2, 1, 1, 1]).await;
    cluster.node.judge(|_| Health::Ready);
    cluster.rest().await;
    // What holds it is not over: its name is taken and it does not run.
    let still = cluster.pod("web-0").await;
    assert_eq!((uid(&still), is_deleted(&still)), (old.clone(), true));
    cluster
        .change_pod("web-0", json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.until_pod("web-0", |pod| uid(pod) != old).await;
    cluster.until_counts([2, 2, 2, 1]).await;
    assert_eq!(images(&cluster).await, ["nginx:1", "nginx:2"]);
    assert_eq!(Value::from(revision_of(&cluster.pod("web-0").await)), first);
    assert_eq!(cluster.status("currentRevision").await, first);
}

/// R26: with the usual defaults a pod that goes in the middle of a rollout comes back at the new revision.
#[tokio::test(start_paused = true)]
async fn a_pod_deleted_in_the_middle_of_a_rollout_comes_back_at_the_new_revision() {
    for (strategy, expected) in [
        (json!({}), "nginx:2"),
        // Without a block upstream counts pods of the old revision instead: this one is among them.
        (json!({"type": "RollingUpdate"}), "nginx:1"),
    ] {
        let cluster = Cluster::with(json!({"replicas": 3, "updateStrategy": strategy})).await;
        let first = text(&cluster.status("currentRevision").await);
        let is_first = move |pod: &Pod| pod.labels()["controller-revision-hash"] == first;
        // The first one that is replaced does not become Ready at first.
        cluster.node.judge(move |pod| {
            if pod.name_any() == "web-2" && !is_first(pod) {
                Health::Unready
            } else {
                Health::Ready
            }
        });
        cluster.change_image("nginx:2").await;
        cluster.until_counts([3, 2, 2, 1]).await;
        let old = uid(&cluster.pod("web-0").await);
        cluster.delete_pod("web-0").await;
        let pod = cluster.until_pod("web-0", |pod| uid(pod) != old).await;
        assert_eq!(pod["spec"]["containers"][0]["image"], expected, "{strategy}");
        cluster.node.judge(|_| Health::Ready);
        cluster.until_rolled_out(3).await;
        assert_eq!(images(&cluster).await, ["nginx:2"; 3]);
    }
}

/// E9, R37: once every pod is deleted by hand, everything is new; before, nothing is.
#[tokio::test(start_paused = true)]
async fn on_delete_replaces_nothing_and_a_deleted_pod_comes_back_at_the_new_revision() {
    let strategy = json!({"type": "OnDelete"});
    let cluster = Cluster::with(json!({"replicas": 3, "updateStrategy": strategy})).await;
    let first = text(&cluster.status("currentRevision").await);
    let delete_all = async || {
        for name in ["web-0", "web-1", "web-2"] {
            let by_force = json!({"gracePeriodSeconds": 0});
            cluster.delete(&format!("{PODS}/{name}"), by_force).await;
        }
        cluster.rest().await;
        cluster.until_available(3).await;
    };
    let revisions = async || -> Vec<String> { cluster.list(PODS).await.iter().map(revision_of).collect() };
    delete_all().await;
    assert_eq!(revisions().await, vec![first.clone(); 3]);
    cluster.change_image("nginx:2").await;
    let set = cluster
        .until_set(|set| set["status"]["updateRevision"] != first.as_str())
        .await;
    let second = text(&set["status"]["updateRevision"]);
    cluster.rest().await;
    assert_eq!(revisions().await, vec![first.clone(); 3]);
    let status = cluster.set().await["status"].clone();
    assert_eq!(status["currentRevision"], first.as_str());
    assert_eq!(
        (&status["currentReplicas"], &status["updatedReplicas"]),
        (&json!(3), &Value::Null)
    );
    delete_all().await;
    assert_eq!(revisions().await, vec![second; 3]);
    assert_eq!(images(&cluster).await, ["nginx:2"; 3]);
    assert_eq!(cluster.status("updatedReplicas").await, 3);
}

/// R34 and kubernetes issue 67250: what repairs it is the deletion of the pod that blocks.
#[tokio::test(start_paused = true)]
async fn a_bad_rollout_blocks_an_ordered_set_until_its_pod_is_deleted() {
    let cluster = Cluster::with(json!({"replicas": 3})).await;
    cluster.node.judge(unless("nginx:bad"));
    cluster.change_image("nginx:bad").await;
    cluster.until_counts([3, 2, 2, 1]).await;
    cluster.change_image("nginx:2").await;
    cluster.rest().await;
    assert_eq!(images(&cluster).await, ["nginx:1", "nginx:1", "nginx:bad"]);
    cluster.delete_pod("web-2").await;
    cluster.until_rolled_out(3).await;
    assert_eq!(images(&cluster).await, ["nginx:2"; 3]);
}

/// R34, R36.
#[tokio::test(start_paused = true)]
async fn a_parallel_set_recovers_from_a_bad_rollout() {
    let cluster = Cluster::with(json!({"replicas": 3, "podManagementPolicy": "Parallel"})).await;
    cluster.node.judge(unless("nginx:bad"));
    cluster.change_image("nginx:bad").await;
    cluster.until_counts([3, 2, 2, 1]).await;
    cluster.rest().await;
    assert_eq!(images(&cluster).await, ["nginx:1", "nginx:1", "nginx:bad"]);
    cluster.change_image("nginx:2").await;
    cluster.until_rolled_out(3).await;
    assert_eq!(images(&cluster).await, ["nginx:2"; 3]);
}

/// R35: percentages are rounded down, and 1 is the least.
#[tokio::test(start_paused = true)]
async fn as_many_pods_as_max_unavailable_says_are_replaced_at_once() {
    let cases = [
        (json!(1), 1),
        (json!(2), 2),
        (json!("10%"), 1),
        (json!("50%"), 2),
        (json!("79%"), 3),
        (json!("100%"), 5),
        (json!(7), 5),
    ];
    for policy in ["OrderedReady", "Parallel"] {
        let strategy = rolling(json!({"partition": 0}));
        let spec = json!({"replicas": 5, "podManagementPolicy": policy, "updateStrategy": strategy});
        let cluster = Cluster::with(spec).await;
        for (version, (max_unavailable, at_once)) in (2..).zip(&cases) {
            let case = format!("{max_unavailable} {policy}");
            let block = json!({"rollingUpdate": {"maxUnavailable": max_unavailable}});
            cluster.change(json!({"updateStrategy": block})).await;
            cluster.node.let_go(false);
            cluster.node.take_log();
            let image = format!("nginx:{version}");
            cluster.change_image(&image).await;
            cluster.rest().await;
            let mut log = cluster.node.take_log();
            log.sort_unstable();
            let expected: Vec<_> = (5 - at_once..5).map(|n| format!("web-{n} deleting")).collect();
            assert_eq!(log, expected, "{case}");
            cluster.node.let_go(true);
            cluster.until_rolled_out(5).await;
            assert_eq!(images(&cluster).await, [image.as_str(); 5], "{case}");
        }
    }
}

/// R35: pods below the partition count, although they are not replaced.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_unavailable_anywhere_counts_against_max_unavailable() {
    let strategy = rolling(json!({"maxUnavailable": 2, "partition": 1}));
    let spec = json!({"replicas": 4, "podManagementPolicy": "Parallel", "updateStrategy": strategy});
    let cluster = Cluster::with(spec).await;
    cluster.node.only("web-0", Health::Unready);
    cluster.until_counts([4, 3, 3, 4]).await;
    cluster.node.let_go(false);
    cluster.node.take_log();
    cluster.change_image("nginx:2").await;
    cluster.rest().await;
    assert_eq!(cluster.node.take_log(), ["web-3 deleting"]);
    cluster.node.let_go(true);
    cluster.until_counts([4, 3, 3, 3]).await;
    assert_eq!(
        images(&cluster).await,
        ["nginx:1", "nginx:2", "nginx:2", "nginx:2"]
    );
}

/// R36: pods that are broken already make nothing worse, so all of them go at once, and the healthy ones within the
/// budget after them.
#[tokio::test(start_paused = true)]
async fn broken_old_pods_of_a_parallel_set_are_replaced_whatever_the_budget() {
    let is_broken =
        |pod: &Pod| ["web-1", "web-3"].contains(&pod.name_any().as_str()) && is_of_image(pod, "nginx:1");
    let judge = move |pod: &Pod| {
        if is_broken(pod) {
            Health::Unready
        } else {
            Health::Ready
        }
    };
    for max_unavailable in ["20%", "50%"] {
        let strategy = rolling(json!({"maxUnavailable": max_unavailable}));
        let spec = json!({"replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": strategy});
        let cluster = Cluster::with(spec).await;
        cluster.node.judge(judge);
        cluster.until_counts([5, 3, 3, 5]).await;
        cluster.node.let_go(false);
        cluster.change_image("nginx:2").await;
        cluster.rest().await;
        let mut log = cluster.node.take_log();
        log.sort_unstable();
        assert_eq!(log, ["web-1 deleting", "web-3 deleting"], "{max_unavailable}");
        cluster.node.let_go(true);
        cluster.until_rolled_out(5).await;
        assert_eq!(images(&cluster).await, ["nginx:2"; 5]);
    }
}

/// R29: what is missing comes before what is outdated.
#[tokio::test(start_paused = true)]
async fn scaling_comes_before_updating() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    let containers = json!([{"name": "c", "image": "nginx:2"}]);
    cluster
        .change(json!({"replicas": 4, "template": {"spec": {"containers": containers}}}))
        .await;
    cluster.until_rolled_out(4).await;
    let expected = [steps([2, 3], &COMES), steps([1, 0], &REPLACED)].concat();
    assert_eq!(cluster.node.take_log(), expected);
}

/// R29d: each new pod has to be available, not only Ready, before the next old one goes.
#[tokio::test(start_paused = true)]
async fn a_rollout_goes_on_only_after_min_ready_seconds() {
    let cluster = Cluster::with(json!({"replicas": 2, "minReadySeconds": 30})).await;
    let began = tokio::time::Instant::now();
    cluster.change_image("nginx:2").await;
    cluster.until_counts([2, 2, 1, 1]).await;
    assert_eq!(cluster.node.take_log(), steps([1], &REPLACED));
    cluster.rest().await;
    assert!(cluster.node.take_log().is_empty());
    cluster.until_counts([2, 2, 2, 2]).await;
    // Times in an object are in whole seconds.
    let took = began.elapsed().as_secs();
    assert!((58..65).contains(&took), "took {took} s");
}
