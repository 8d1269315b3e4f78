//! What a namespace is born with and how it goes.

use e2e::in_process::InProcess;
use serde_json::{Value, json};

const OTHER: &str = "/api/v1/namespaces/other";

async fn start() -> InProcess {
    let cluster = InProcess::start().await;
    cluster
        .create("/api/v1/namespaces", json!({"metadata": {"name": "other"}}))
        .await;
    cluster
        .until(&format!("{OTHER}/serviceaccounts/default"), |_| true)
        .await;
    cluster
}

fn condition(namespace: &Value, type_: &str) -> Value {
    let conditions = namespace["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|c| c["type"] == type_)
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn every_namespace_has_an_account_and_the_certificate_and_gets_them_back() {
    let cluster = start().await;
    let certificate = format!("{OTHER}/configmaps/kube-root-ca.crt");
    let is_right = |config: &Value| config["data"]["ca.crt"] == "a certificate";
    cluster.until(&certificate, is_right).await;
    cluster
        .merge(&certificate, json!({"data": {"ca.crt": "forged"}}))
        .await;
    cluster.until(&certificate, is_right).await;
    cluster.delete(&certificate, Value::Null).await;
    cluster.until(&certificate, is_right).await;
    let account = format!("{OTHER}/serviceaccounts/default");
    let uid = |account: &Value| account["metadata"]["uid"].clone();
    let before = uid(&cluster.until(&account, |_| true).await);
    cluster.delete(&account, Value::Null).await;
    cluster.until(&account, |account| uid(account) != before).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_everything_in_it_along() {
    let cluster = start().await;
    for collection in ["configmaps", "secrets"] {
        let path = format!("{OTHER}/{collection}");
        cluster.create(&path, json!({"metadata": {"name": "a"}})).await;
    }
    cluster.delete(OTHER, Value::Null).await;
    cluster.until_gone(OTHER).await;
    for collection in ["configmaps", "secrets", "serviceaccounts"] {
        let left = cluster
            .get(&format!("{OTHER}/{collection}"))
            .await
            .expect("a list");
        assert_eq!(left["items"], json!([]), "{collection}");
    }
    // The name can be used again.
    cluster
        .create("/api/v1/namespaces", json!({"metadata": {"name": "other"}}))
        .await;
    cluster
        .until(&format!("{OTHER}/serviceaccounts/default"), |_| true)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_inside_holds_the_namespace_and_its_conditions_say_which() {
    let cluster = start().await;
    let config = json!({"metadata": {"name": "a", "finalizers": ["example.com/a"]}});
    cluster.create(&format!("{OTHER}/configmaps"), config).await;
    cluster.delete(OTHER, Value::Null).await;
    let remaining = "NamespaceFinalizersRemaining";
    let held = cluster
        .until(OTHER, |found| condition(found, remaining)["status"] == "True")
        .await;
    assert_eq!(held["status"]["phase"], "Terminating");
    assert_eq!(
        condition(&held, remaining)["message"],
        "Some content in the namespace has finalizers remaining: example.com/a in 1 resource instances"
    );
    assert_eq!(
        condition(&held, "NamespaceDeletionContentFailure")["reason"],
        "ContentDeleted"
    );
    let before = tokio::time::Instant::now();
    let free = json!({"metadata": {"finalizers": null}});
    cluster.merge(&format!("{OTHER}/configmaps/a"), free).await;
    cluster.until_gone(OTHER).await;
    let took = before.elapsed();
    assert!(
        took < std::time::Duration::from_secs(1),
        "nobody told that it went: {took:?}"
    );
}
