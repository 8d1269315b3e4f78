//! ControllerRevisions: made, used again, renumbered and pruned.

use crate::cluster::{Cluster, REVISIONS, SET, name, owners, revision_of, set, text, uid};
use e2e::in_process::PODS;
use serde_json::{Value, json};

/// The revisions' numbers and names, the oldest first.
async fn history(cluster: &Cluster) -> Vec<(i64, String)> {
    let revisions = cluster.list(REVISIONS).await;
    let mut history: Vec<_> = revisions
        .iter()
        .map(|revision| (revision["revision"].as_i64().expect("a number"), name(revision)))
        .collect();
    history.sort_unstable();
    history
}

/// R13–R15: what a revision is.
#[tokio::test(start_paused = true)]
async fn a_revision_holds_the_template_and_belongs_to_the_set() {
    let cluster = Cluster::start().await;
    let mut web = set(json!({"replicas": 1}));
    web["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "the first"});
    cluster.create(crate::cluster::SETS, web).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    let revisions = cluster.list(REVISIONS).await;
    let [revision] = &revisions[..] else {
        panic!("{revisions:#?}")
    };
    assert_eq!(revision["revision"], 1);
    assert_eq!(owners(revision), ["StatefulSet/web"]);
    let labels = &revision["metadata"]["labels"];
    let hash = text(&labels["controller.kubernetes.io/hash"]);
    assert_eq!(
        (name(revision), text(&labels["app"])),
        (format!("web-{hash}"), "web".into())
    );
    assert_eq!(
        revision["metadata"]["annotations"]["kubernetes.io/change-cause"],
        "the first"
    );
    let mut template = cluster.set().await["spec"]["template"].clone();
    template["$patch"] = "replace".into();
    assert_eq!(revision["data"], json!({"spec": {"template": template}}));
}

/// R16.
#[tokio::test(start_paused = true)]
async fn going_back_takes_the_old_revision_with_its_name_and_a_new_number() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    let first = text(&cluster.status("updateRevision").await);
    cluster.change_image("nginx:2").await;
    let second = text(&cluster.until_rolled_out(1).await["status"]["updateRevision"]);
    assert_eq!(history(&cluster).await, [(1, first.clone()), (2, second.clone())]);
    let before = cluster.uids(REVISIONS).await;
    cluster.change_image("nginx:1").await;
    cluster
        .until_set(|set| set["status"]["currentRevision"] == first.as_str())
        .await;
    assert_eq!(history(&cluster).await, [(2, second), (3, first.clone())]);
    assert_eq!(cluster.uids(REVISIONS).await, before);
    assert_eq!(revision_of(&cluster.pod("web-0").await), first);
}

/// R16: the way `kubectl rollout undo` does it: a revision's data is the patch.
#[tokio::test(start_paused = true)]
async fn a_revisions_data_sent_as_a_patch_brings_its_template_back() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    let first = cluster.list(REVISIONS).await.remove(0);
    let containers = json!([{"name": "c", "image": "nginx:2"}, {"name": "d", "image": "nginx:2"}]);
    let metadata = json!({"annotations": {"a": "b"}});
    cluster
        .change(json!({"template": {"metadata": metadata, "spec": {"containers": containers}}}))
        .await;
    cluster.until_rolled_out(1).await;
    cluster.patch(SET, first["data"].clone()).await;
    cluster
        .until_set(|set| set["status"]["currentRevision"] == name(&first).as_str())
        .await;
    let pod = cluster.pod("web-0").await;
    assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(1));
    assert_eq!(pod["metadata"]["annotations"], Value::Null);
}

/// The numbers of the revisions that there are.
async fn kept_numbers(cluster: &Cluster) -> Vec<i64> {
    let history = history(cluster).await;
    history.into_iter().map(|(number, _)| number).collect()
}

/// R19: up to the limit besides those in use.
#[tokio::test(start_paused = true)]
async fn no_more_old_revisions_are_kept_than_the_limit_says() {
    for (limit, kept) in [(0, 1), (1, 2), (2, 3), (10, 5), (-1, 5)] {
        let cluster = Cluster::with(json!({"replicas": 1, "revisionHistoryLimit": limit})).await;
        for image in 2..=5 {
            cluster.change_image(&format!("nginx:{image}")).await;
            cluster.until_rolled_out(1).await;
        }
        cluster.rest().await;
        let numbers = kept_numbers(&cluster).await;
        let expected: Vec<i64> = (1..=5).skip(5 - kept).collect();
        assert_eq!(numbers, expected, "limit {limit}");
    }
}

/// R19: current, update and every pod's revision are in use.
#[tokio::test(start_paused = true)]
async fn a_revision_that_a_pod_was_made_from_is_kept_whatever_the_limit() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let spec = json!({"replicas": 3, "revisionHistoryLimit": 0, "updateStrategy": strategy});
    let cluster = Cluster::with(spec).await;
    cluster.change_image("nginx:2").await;
    cluster.until_counts([3, 3, 3, 1]).await;
    // web-2 stays at the second revision, and web-0 and web-1 at the first.
    let block = json!({"rollingUpdate": {"partition": 3}});
    let containers = json!([{"name": "c", "image": "nginx:3"}]);
    cluster
        .change(json!({"updateStrategy": block, "template": {"spec": {"containers": containers}}}))
        .await;
    cluster.until_counts([3, 3, 3, 0]).await;
    cluster.rest().await;
    let numbers = kept_numbers(&cluster).await;
    assert_eq!(numbers, [1, 2, 3]);
    cluster
        .change(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}))
        .await;
    cluster.until_rolled_out(3).await;
    cluster.rest().await;
    let numbers = kept_numbers(&cluster).await;
    assert_eq!(numbers, [3]);
}

/// R18: without the object nobody knows what the old template was, so that what it was counts as done.
#[tokio::test(start_paused = true)]
async fn a_current_revision_that_somebody_deletes_gives_way_to_the_update_revision() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let cluster = Cluster::with(json!({"replicas": 2, "updateStrategy": strategy})).await;
    let first = text(&cluster.status("currentRevision").await);
    cluster.change_image("nginx:2").await;
    cluster
        .until_set(|set| set["status"]["updateRevision"] != first.as_str())
        .await;
    cluster.delete(&format!("{REVISIONS}/{first}"), Value::Null).await;
    let old = uid(&cluster.pod("web-0").await);
    cluster.delete_pod("web-0").await;
    let pod = cluster.until_pod("web-0", |pod| uid(pod) != old).await;
    assert_eq!(pod["spec"]["containers"][0]["image"], "nginx:2");
    cluster
        .until_set(|set| set["status"]["currentRevision"] == set["status"]["updateRevision"])
        .await;
}

/// R17.
#[tokio::test(start_paused = true)]
async fn a_name_that_another_revision_has_makes_a_collision_that_is_counted() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    assert_eq!(cluster.status("collisionCount").await, 0);
    let taken = text(&cluster.status("updateRevision").await);
    cluster.delete(SET, Value::Null).await;
    cluster.until_gone(&format!("{REVISIONS}/{taken}")).await;
    cluster.until_gone(&format!("{PODS}/web-0")).await;
    cluster
        .create(
            REVISIONS,
            json!({"metadata": {"name": taken}, "data": {"spec": {}}, "revision": 1}),
        )
        .await;
    cluster.create_set(json!({"replicas": 1})).await;
    let set = cluster.until_counts([1, 1, 1, 1]).await;
    assert_eq!(set["status"]["collisionCount"], 1);
    assert_ne!(set["status"]["updateRevision"], taken.as_str());
    let revision = text(&set["status"]["updateRevision"]);
    assert_eq!(revision_of(&cluster.pod("web-0").await), revision);
}

/// R17, its other half, and R12.
#[tokio::test(start_paused = true)]
async fn a_revision_of_the_same_data_that_is_nobodys_is_adopted() {
    let cluster = Cluster::with(json!({"replicas": 1})).await;
    let mut revision = cluster.list(REVISIONS).await.remove(0);
    cluster.delete(SET, Value::Null).await;
    cluster
        .until_gone(&format!("{REVISIONS}/{}", name(&revision)))
        .await;
    cluster.until_gone(&format!("{PODS}/web-0")).await;
    let metadata = json!({"name": name(&revision), "labels": revision["metadata"]["labels"]});
    revision["metadata"] = metadata;
    let revision = cluster.create(REVISIONS, revision).await;
    assert!(owners(&revision).is_empty());
    cluster.create_set(json!({"replicas": 1})).await;
    let set = cluster.until_counts([1, 1, 1, 1]).await;
    assert_eq!(set["status"]["updateRevision"], name(&revision).as_str());
    assert_eq!(set["status"]["collisionCount"], 0);
    let adopted = cluster.list(REVISIONS).await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(
        (uid(&adopted[0]), owners(&adopted[0])),
        (uid(&revision), vec!["StatefulSet/web".into()])
    );
}
