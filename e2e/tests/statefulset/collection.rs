//! The set is deleted: with what it made, before it, after it, or without it.

use crate::cluster::{
    CLAIMS, Cluster, GOES, REVISIONS, SET, claim_template, is_deleted, owners, set, steps, uid,
};
use e2e::in_process::PODS;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn propagation(policy: &str) -> Value {
    json!({"propagationPolicy": policy})
}

fn three() -> Value {
    json!({"replicas": 3, "volumeClaimTemplates": [claim_template("www")]})
}

/// R48: kubectl's default.
#[tokio::test(start_paused = true)]
async fn in_the_background_the_set_goes_first_and_what_it_made_follows() {
    let cluster = Cluster::with(three()).await;
    cluster.node.let_go(false);
    cluster.delete(SET, propagation("Background")).await;
    assert!(cluster.get(SET).await.is_none());
    assert_eq!(cluster.names(PODS).await.len(), 3);
    cluster.rest().await;
    // All together, without order (R47).
    let deleting: BTreeSet<_> = cluster.node.take_log().into_iter().collect();
    assert_eq!(deleting, (0..3).map(|n| format!("web-{n} deleting")).collect());
    cluster.node.let_go(true);
    for name in ["web-0", "web-1", "web-2"] {
        cluster.until_gone(&format!("{PODS}/{name}")).await;
    }
    cluster.rest().await;
    assert!(cluster.names(REVISIONS).await.is_empty());
    assert_eq!(cluster.names(CLAIMS).await.len(), 3, "the policy is Retain");
}

/// R47: while it waits only its status changes; nothing is created in the place of a pod that goes.
#[tokio::test(start_paused = true)]
async fn in_the_foreground_the_set_goes_last_and_makes_nothing_any_more() {
    let cluster = Cluster::with(three()).await;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    cluster.change_pod("web-1", hold).await;
    cluster.node.let_go(false);
    cluster.delete(SET, propagation("Foreground")).await;
    cluster.rest().await;
    let set = cluster.set().await;
    assert!(is_deleted(&set));
    assert_eq!(set["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let deleting: BTreeSet<_> = cluster.node.take_log().into_iter().collect();
    assert_eq!(deleting, (0..3).map(|n| format!("web-{n} deleting")).collect());
    cluster.node.let_go(true);
    cluster.until_gone(&format!("{PODS}/web-0")).await;
    cluster.until_gone(&format!("{PODS}/web-2")).await;
    cluster.rest().await;
    // It is still counted, and a pod that is held holds the set.
    let set = cluster.until_counts([1, 0, 0, 0]).await;
    assert!(is_deleted(&set));
    assert_eq!(cluster.names(PODS).await, ["web-1"]);
    cluster
        .change_pod("web-1", json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.until_gone(SET).await;
    assert!(cluster.names(PODS).await.is_empty());
    cluster.rest().await;
    assert!(cluster.names(REVISIONS).await.is_empty());
}

/// R48: the way round fields that cannot be changed.
#[tokio::test(start_paused = true)]
async fn a_set_made_anew_over_orphans_adopts_pods_and_revisions_and_uses_the_claims() {
    let mut spec = three();
    spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete"});
    let cluster = Cluster::with(spec.clone()).await;
    let old = uid(&cluster.set().await);
    let mut before = vec![];
    for collection in [PODS, REVISIONS, CLAIMS] {
        before.push(cluster.uids(collection).await);
    }
    cluster.delete(SET, propagation("Orphan")).await;
    cluster.until_gone(SET).await;
    cluster.rest().await;
    for collection in [PODS, REVISIONS, CLAIMS] {
        for object in cluster.list(collection).await {
            assert!(owners(&object).is_empty(), "{object:#}");
            assert!(!is_deleted(&object), "{object:#}");
        }
    }
    spec["serviceName"] = "other".into();
    let new = uid(&cluster.create(crate::cluster::SETS, set(spec)).await);
    assert_ne!(new, old);
    cluster.until_counts([3, 3, 3, 3]).await;
    cluster.rest().await;
    let mut after = vec![];
    for collection in [PODS, REVISIONS, CLAIMS] {
        after.push(cluster.uids(collection).await);
        for object in cluster.list(collection).await {
            assert_eq!(owners(&object), ["StatefulSet/web"], "{object:#}");
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], new);
        }
    }
    assert_eq!(after, before);
    assert!(cluster.node.take_log().is_empty(), "no pod has noticed");
}

/// R47: the documented way to an ordered end.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_scaled_to_0_and_then_deleted_ends_in_order() {
    let cluster = Cluster::with(three()).await;
    cluster.scale(0).await;
    cluster.until_counts([0, 0, 0, 0]).await;
    cluster.delete(SET, Value::Null).await;
    cluster.until_gone(SET).await;
    assert_eq!(cluster.node.take_log(), steps([2, 1, 0], &GOES));
    cluster.rest().await;
    assert!(cluster.names(REVISIONS).await.is_empty());
    assert_eq!(cluster.names(CLAIMS).await.len(), 3);
}

/// R7: what the set does not release while it is being deleted goes with it.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_being_deleted_releases_and_adopts_nothing() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    cluster.node.let_go(false);
    cluster.delete(SET, propagation("Foreground")).await;
    cluster.until_pod("web-1", is_deleted).await;
    let relabel = json!({"metadata": {"labels": {"app": "other"}}});
    cluster.change_pod("web-1", relabel).await;
    let stray = json!({"metadata": {"name": "web-2", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    cluster.create(PODS, stray).await;
    cluster.rest().await;
    assert_eq!(owners(&cluster.pod("web-1").await), ["StatefulSet/web"]);
    assert!(owners(&cluster.pod("web-2").await).is_empty());
    cluster.node.let_go(true);
    cluster.until_gone(SET).await;
    assert_eq!(cluster.names(PODS).await, ["web-2"]);
}
