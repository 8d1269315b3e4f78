//! `minReadySeconds` goes by the time that is in the pod's status, whoever looks at it.

use crate::sets::{create, is_ready, ready_set, ready_since, serve, uid, with_ready};
use e2e::binary::{Cluster, PATIENCE, eventually, stop};
use serde_json::json;

const SECONDS: i64 = 8;

/// It becomes available, and no sooner than it may.
fn becomes_available_in_time(cluster: &Cluster) {
    cluster.until_available("web", 1);
    let since = ready_since(&cluster.get("pod web-0")).expect("it is Ready");
    let waited = jiff::Timestamp::now().duration_since(since);
    assert!(waited.as_secs() >= SECONDS, "available after {waited:?}");
}

/// E20, and across a restart: its processes start anew and are Ready anew.
#[test]
fn a_pod_becomes_available_in_its_time_also_across_a_restart_of_petset() {
    let mut cluster = with_ready(json!({"replicas": 1, "minReadySeconds": SECONDS}));
    becomes_available_in_time(&cluster);
    let pod = cluster.get("pod web-0");
    cluster.terminate();
    cluster.start(&[]);
    let again = cluster.until("pod web-0", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(pod)
    });
    assert_eq!(uid(&again), uid(&pod));
    assert!(ready_since(&again) > ready_since(&pod));
    // Killed while the pod is Ready and not yet available: the pod goes on, and nothing wakes the next petset but the time.
    cluster.until("sts web", |set| {
        let status = &set["status"];
        status["readyReplicas"] == 1 && status["availableReplicas"] == 0
    });
    cluster.kill();
    cluster.start(&[]);
    becomes_available_in_time(&cluster);
    let after = cluster.get("pod web-0");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(ready_since(&after), ready_since(&again));
}

/// R3: the controller that ends its wait is not the one that saw it begin.
#[test]
fn a_controller_that_starts_anew_goes_on_waiting_where_the_other_was() {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver"]);
    let kubeconfig = cluster.data("kubeconfig");
    let controller = ["controller", "--kubeconfig", &kubeconfig];
    let mut first = cluster.spawn("controller", &controller);
    cluster.spawn_beside("kubelet", &["kubelet", "--kubeconfig", &kubeconfig]);
    serve(&cluster);
    let mut set = ready_set(&cluster, json!({"replicas": 1, "minReadySeconds": SECONDS}));
    // No volume: the default class of volumes is made by `up`.
    set["spec"]["volumeClaimTemplates"] = json!([]);
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["command"] = json!(["sleep", "1000"]);
    container["volumeMounts"] = json!([]);
    eventually("the namespace is complete", PATIENCE, || {
        cluster.look("sa default")
    });
    create(&cluster, &set);
    let ready = cluster.until("pod web-0", is_ready);
    stop(&mut first);
    cluster.spawn_beside("controller", &controller);
    becomes_available_in_time(&cluster);
    let after = cluster.get("pod web-0");
    assert_eq!(uid(&after), uid(&ready));
    assert_eq!(ready_since(&after), ready_since(&ready));
}
