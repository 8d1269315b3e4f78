//! Which pods are the set's: adoption, release, and names that are taken.

use crate::cluster::{Cluster, claim_template, is_deleted, name, owners, revision_of, text, uid};
use e2e::in_process::PODS;
use serde_json::{Value, json};

fn stray(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
}

/// R8, R24: the pod stays as it is and gets what it lacks.
#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_and_is_nobodys_is_adopted_and_gets_its_labels() {
    let cluster = Cluster::start().await;
    let pod = cluster.create(PODS, stray("web-0")).await;
    for other in ["db-0", "web-x", "web"] {
        cluster.create(PODS, stray(other)).await;
    }
    // OnDelete: nothing is replaced because its revision is unknown.
    let set = cluster
        .create_set(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}))
        .await;
    cluster.until_counts([2, 2, 2, 1]).await;
    let adopted = cluster.pod("web-0").await;
    assert_eq!(uid(&adopted), uid(&pod));
    assert_eq!(owners(&adopted), ["StatefulSet/web"]);
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["uid"], uid(&set));
    let labels = &adopted["metadata"]["labels"];
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-0");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "0");
    for other in ["db-0", "web-x", "web"] {
        assert!(owners(&cluster.pod(other).await).is_empty(), "{other}");
    }
}

/// R10.
#[tokio::test(start_paused = true)]
async fn an_adopted_pod_of_an_unknown_revision_is_replaced_in_its_turn() {
    let cluster = Cluster::start().await;
    let pod = cluster.create(PODS, stray("web-0")).await;
    cluster.create_set(json!({"replicas": 2})).await;
    let set = cluster.until_rolled_out(2).await;
    let replaced = cluster.pod("web-0").await;
    assert_ne!(uid(&replaced), uid(&pod));
    assert_eq!(revision_of(&replaced), text(&set["status"]["updateRevision"]));
    let log = cluster.node.take_log();
    let at = |what: &str| log.iter().position(|entry| entry == what);
    assert!(
        at("web-1 ready") < at("web-0 deleting"),
        "only when all are available: {log:?}"
    );
}

/// R8: the consequence for a stray pod that is no replica.
#[tokio::test(start_paused = true)]
async fn an_adopted_pod_out_of_range_is_removed() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, stray("web-7")).await;
    cluster.create_set(json!({"replicas": 1})).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    assert_eq!(cluster.names(PODS).await, ["web-0"]);
}

/// R7, R11.
#[tokio::test(start_paused = true)]
async fn a_pod_that_loses_its_labels_is_released_keeps_its_name_and_is_taken_back() {
    for policy in ["OrderedReady", "Parallel"] {
        let cluster = Cluster::with(json!({"replicas": 2, "podManagementPolicy": policy})).await;
        let before = uid(&cluster.pod("web-1").await);
        let relabel = |app: &str| json!({"metadata": {"labels": {"app": app}}});
        cluster.change_pod("web-1", relabel("other")).await;
        let released = cluster.until_pod("web-1", |pod| owners(pod).is_empty()).await;
        cluster.until_counts([1, 1, 1, 1]).await;
        cluster.rest().await;
        let still = cluster.pod("web-1").await;
        assert_eq!((uid(&still), is_deleted(&still)), (uid(&released), false));
        // That the name is taken is no failure (R9).
        let told = cluster.told().await;
        assert!(
            !told.iter().any(|(message, _)| message.contains("failed")),
            "{told:?}"
        );
        cluster.change_pod("web-1", relabel("web")).await;
        cluster.until_counts([2, 2, 2, 2]).await;
        let again = cluster.pod("web-1").await;
        assert_eq!(
            (uid(&again), owners(&again)),
            (before, vec!["StatefulSet/web".into()]),
            "{policy}"
        );
    }
}

/// R11, its other end.
#[tokio::test(start_paused = true)]
async fn a_released_pod_that_goes_makes_room_for_a_new_one() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    let relabel = json!({"metadata": {"labels": {"app": "other"}}});
    cluster.change_pod("web-0", relabel).await;
    let released = cluster.until_pod("web-0", |pod| owners(pod).is_empty()).await;
    cluster.delete_pod("web-0").await;
    cluster.until_counts([2, 2, 2, 2]).await;
    assert_ne!(uid(&cluster.pod("web-0").await), uid(&released));
}

/// R9.
#[tokio::test(start_paused = true)]
async fn a_pod_of_another_owner_keeps_its_name_until_it_goes_and_that_is_no_failure() {
    let cluster = Cluster::start().await;
    let boss = cluster
        .create(
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "boss"}}),
        )
        .await;
    let mut pod = stray("web-0");
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "boss",
        "uid": uid(&boss), "controller": true}]);
    let pod = cluster.create(PODS, pod).await;
    cluster
        .create_set(json!({"replicas": 2, "volumeClaimTemplates": [claim_template("www")]}))
        .await;
    cluster.until_counts([0, 0, 0, 0]).await;
    cluster.rest().await;
    let pods = cluster.list(PODS).await;
    let found: Vec<_> = pods.iter().map(|pod| (name(pod), uid(pod))).collect();
    assert_eq!(found, [("web-0".to_owned(), uid(&pod))]);
    let told = cluster.told().await;
    assert!(
        !told.iter().any(|(message, _)| message.contains("failed")),
        "{told:?}"
    );
    cluster.delete_pod("web-0").await;
    cluster.until_counts([2, 2, 2, 2]).await;
}
