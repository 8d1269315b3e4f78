//! What becomes of the dependents of an object that is deleted, for each propagation policy.

use e2e::in_process::InProcess;
use serde_json::{Value, json};

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn of(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}

async fn create(cluster: &InProcess, collection: &str, name: &str, owners: &[&Value]) -> Value {
    let reference = |owner: &&Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
        })
    };
    let owners: Vec<_> = owners.iter().map(reference).collect();
    cluster
        .create(
            collection,
            json!({"metadata": {"name": name, "ownerReferences": owners}}),
        )
        .await
}

/// An owner, its dependent, and that one's.
async fn family(cluster: &InProcess) {
    let owner = create(cluster, CONFIGS, "owner", &[]).await;
    let child = create(cluster, CONFIGS, "child", &[&owner]).await;
    create(cluster, SECRETS, "grandchild", &[&child]).await;
}

fn policy(policy: &str) -> Value {
    json!({"propagationPolicy": policy})
}

#[tokio::test(start_paused = true)]
async fn background_deletion_takes_the_owner_at_once_and_the_rest_after_it() {
    let cluster = InProcess::start().await;
    family(&cluster).await;
    cluster.delete(&of(CONFIGS, "owner"), policy("Background")).await;
    assert_eq!(cluster.get(&of(CONFIGS, "owner")).await, None);
    cluster.until_gone(&of(CONFIGS, "child")).await;
    cluster.until_gone(&of(SECRETS, "grandchild")).await;
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_keeps_the_owner_until_the_last_dependent_is_gone() {
    let cluster = InProcess::start().await;
    family(&cluster).await;
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    cluster.merge(&of(SECRETS, "grandchild"), held).await;
    cluster.delete(&of(CONFIGS, "owner"), policy("Foreground")).await;
    cluster
        .until(&of(SECRETS, "grandchild"), |s| {
            s["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    for name in ["owner", "child"] {
        let kept = cluster
            .get(&of(CONFIGS, name))
            .await
            .expect("kept until the last is gone");
        assert_eq!(
            kept["metadata"]["finalizers"],
            json!(["foregroundDeletion"]),
            "{name}"
        );
    }
    cluster
        .merge(
            &of(SECRETS, "grandchild"),
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
    cluster.until_gone(&of(CONFIGS, "owner")).await;
    assert_eq!(cluster.get(&of(CONFIGS, "child")).await, None);
    assert_eq!(cluster.get(&of(SECRETS, "grandchild")).await, None);
}

#[tokio::test(start_paused = true)]
async fn orphaning_deletion_leaves_dependents_without_owner() {
    let cluster = InProcess::start().await;
    family(&cluster).await;
    cluster.delete(&of(CONFIGS, "owner"), policy("Orphan")).await;
    cluster.until_gone(&of(CONFIGS, "owner")).await;
    let child = cluster.get(&of(CONFIGS, "child")).await.expect("left alone");
    assert_eq!(child["metadata"]["ownerReferences"], Value::Null);
    assert!(child["metadata"]["deletionTimestamp"].is_null());
    let grandchild = cluster.get(&of(SECRETS, "grandchild")).await.expect("left alone");
    assert_eq!(grandchild["metadata"]["ownerReferences"][0]["name"], "child");
}

#[tokio::test(start_paused = true)]
async fn one_owner_that_stays_is_enough() {
    let cluster = InProcess::start().await;
    let (one, two) = (
        create(&cluster, CONFIGS, "one", &[]).await,
        create(&cluster, CONFIGS, "two", &[]).await,
    );
    create(&cluster, SECRETS, "shared", &[&one, &two]).await;
    cluster.delete(&of(CONFIGS, "one"), Value::Null).await;
    let owners = |secret: &Value| {
        secret["metadata"]["ownerReferences"]
            .as_array()
            .map_or(0, Vec::len)
    };
    cluster
        .until(&of(SECRETS, "shared"), |secret| owners(secret) == 1)
        .await;
    cluster.delete(&of(CONFIGS, "two"), Value::Null).await;
    cluster.until_gone(&of(SECRETS, "shared")).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_never_was_or_is_another_by_now_owns_nothing() {
    let cluster = InProcess::start().await;
    let mut gone = create(&cluster, CONFIGS, "owner", &[]).await;
    gone["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    create(&cluster, SECRETS, "stray", &[&gone]).await;
    cluster.until_gone(&of(SECRETS, "stray")).await;
    assert!(cluster.get(&of(CONFIGS, "owner")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_is_none_and_an_event_says_so() {
    let cluster = InProcess::start().await;
    cluster
        .create("/api/v1/namespaces", json!({"metadata": {"name": "other"}}))
        .await;
    let there = "/api/v1/namespaces/other/configmaps";
    let owner = create(&cluster, there, "owner", &[]).await;
    create(&cluster, SECRETS, "stray", &[&owner]).await;
    cluster.until_gone(&of(SECRETS, "stray")).await;
    let told = cluster.until_told("OwnerRefInvalidNamespace").await;
    assert!(told.contains("does not exist in namespace \"default\""), "{told}");
    assert!(cluster.get(&of(there, "owner")).await.is_some());
}
