//! kube-rs, over HTTPS with the kubeconfig that petset writes.

mod controller;
mod objects;
mod restart;
mod streams;
mod watching;

use e2e::binary::{Cluster, PATIENCE};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A client as any program would make it.
async fn client(cluster: &Cluster) -> Client {
    let file = Kubeconfig::read_from(cluster.data("kubeconfig")).expect("it can be read");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("it is complete")).expect("it can be used")
}

/// Pods cannot be made before their namespace has its service account, which takes a moment after the first start.
async fn pods_may_be_made(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let there = await_condition(accounts, "default", conditions::is_created());
    soon("the service account", there).await.expect("a watch");
}

/// What comes in time.
#[track_caller]
fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let in_time = timeout(PATIENCE, future).await;
        in_time.unwrap_or_else(|_| panic!("{caller}: after {}s still not: {what}", PATIENCE.as_secs()))
    }
}

/// Look until it is so.
async fn until<T, F: Future<Output = Result<T, String>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("still not: {what}; last seen: {last}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// An object from JSON.
fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("it is one")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    from(json!({"metadata": {"name": name, "labels": {"of": "test"}}, "data": {"k": value}}))
}

/// A set of shells.
fn stateful_set(name: &str, script: &str, replicas: i32) -> StatefulSet {
    from(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": "shell", "command": ["sh", "-c", script], "stdin": true,
                    }],
                },
            },
        },
    }))
}

/// Waits for its end, which comes at once.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";
