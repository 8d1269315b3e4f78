//! Logs, read and followed.

use crate::{client, soon, stateful_set, until};
use e2e::binary::Cluster;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{LogParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};

/// The pod `web-0` of a set with this script, running.
async fn pod(client: &Client, script: &str) -> Api<Pod> {
    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    sets.create(&PostParams::default(), &stateful_set("web", script, 1))
        .await
        .expect("it is new");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let running = await_condition(pods.clone(), "web-0", conditions::is_pod_running());
    soon("it runs", running).await.expect("a watch");
    pods
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_and_followed() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let pods = pod(&client, "for n in 1 2 3; do echo line $n; done; sleep 60").await;
    let all = until("three lines", || async {
        let logs = pods
            .logs("web-0", &LogParams::default())
            .await
            .map_err(|error| error.to_string())?;
        if logs.lines().count() == 3 {
            Ok(logs)
        } else {
            Err(logs)
        }
    })
    .await;
    assert_eq!(all, "line 1\nline 2\nline 3\n");
    let last = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(pods.logs("web-0", &last).await.expect("logs"), "line 3\n");
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("web-0", &follow).await.expect("logs").lines();
    for expected in ["line 1", "line 2", "line 3"] {
        let line = soon("a line", lines.try_next()).await.expect("no error");
        assert_eq!(line.as_deref(), Some(expected));
    }
}
