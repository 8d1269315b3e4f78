//! `kubectl top`: what pods and the node use, from the processes' own figures.

use e2e::binary::{Cluster, PATIENCE, eventually, run, table};
use serde_json::{Value, json};

fn pod(name: &str, labels: Value, containers: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1}})
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["sh", "-c", script]})
}

/// One pod that is busy, one that is not.
fn cluster() -> Cluster {
    let cluster = Cluster::up();
    let idle = "trap exit TERM; sleep 1000 & wait";
    let two = json!([shell("busy", "while :; do :; done"), shell("idle", idle)]);
    cluster.create(&pod("busy", json!({"app": "busy"}), two));
    cluster.create(&pod("idle", json!({"app": "idle"}), json!([shell("c", idle)])));
    for name in ["busy", "idle"] {
        cluster.until(&format!("pod {name}"), |pod| pod["status"]["phase"] == "Running");
    }
    cluster
}

/// A cell such as `250m` or `3Mi`.
#[track_caller]
fn number(cell: &str, unit: &str) -> u64 {
    let digits = cell.strip_suffix(unit);
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{cell:?} is no number of {unit:?}"))
}

#[test]
fn pods_containers_and_the_node_have_figures() {
    let cluster = cluster();
    let pods = table(&cluster.kubectl("top pods"));
    assert_eq!(pods[0], ["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    let names: Vec<&str> = pods[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["busy", "idle"]);

    // How busy it can be is up to what else this machine does: busier than what sleeps.
    let cpu = eventually("the busy pod is seen to be busy", PATIENCE, || {
        let said = cluster.kubectl("top pods --no-headers --sort-by=cpu");
        let rows = table(&said);
        let (first, second) = (number(&rows[0][1], "m"), number(&rows[1][1], "m"));
        (rows[0][0] == "busy" && first > second)
            .then_some(first)
            .ok_or(said)
    });
    assert!(cpu > 0);

    let containers = table(&cluster.kubectl("top pod busy --containers"));
    assert_eq!(containers[0], ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]);
    let names: Vec<&str> = containers[1..].iter().map(|row| row[1].as_str()).collect();
    assert_eq!(names, ["busy", "idle"]);

    let labelled = table(&cluster.kubectl("top pods -l app=idle --no-headers"));
    assert_eq!(labelled.len(), 1);
    assert_eq!(labelled[0][0], "idle");
    let everywhere = table(&cluster.kubectl("top pods -A --sum"));
    assert_eq!(
        everywhere[0],
        ["NAMESPACE", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    );
    assert_eq!(everywhere.len(), 5, "a line and a sum: {everywhere:?}");

    let nodes = table(&cluster.kubectl("top nodes"));
    assert_eq!(
        nodes[0],
        ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
    );
    assert!(
        number(&nodes[1][1], "m") > 0 && number(&nodes[1][3], "Mi") > 0,
        "{nodes:?}"
    );
    assert!(number(&nodes[1][4], "%") <= 100, "{nodes:?}");
}

#[test]
fn the_group_is_told_and_served_as_metrics_server_does() {
    let cluster = cluster();
    let resources = cluster.kubectl("api-resources --api-group=metrics.k8s.io --no-headers");
    assert_eq!(
        table(&resources),
        [
            ["nodes", "metrics.k8s.io/v1beta1", "false", "NodeMetrics"],
            ["pods", "metrics.k8s.io/v1beta1", "true", "PodMetrics"],
        ]
    );
    let shown = table(&cluster.kubectl("get pods.metrics.k8s.io"));
    assert_eq!(shown[0], ["NAME", "CPU", "MEMORY", "WINDOW"]);
    assert_eq!(shown.len(), 3);
    let explained = cluster.kubectl("explain pods.containers.usage --api-version=metrics.k8s.io/v1beta1");
    assert!(explained.contains("map[string]Quantity"), "{explained}");

    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/idle";
    let text = cluster.kubectl(&format!("get --raw {path}"));
    let metrics: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(metrics["metadata"]["labels"], json!({"app": "idle"}));
    assert_eq!(metrics["containers"][0]["name"], "c");
    for field in ["timestamp", "window"] {
        assert!(metrics[field].is_string(), "{text}");
    }

    assert_eq!(
        cluster.try_kubectl("top pod nope").fails(),
        "Error from server (NotFound): pods \"nope\" not found\n"
    );
    cluster.create(&pod(
        "stuck",
        json!({}),
        json!([{"name": "c", "image": "no-such-image"}]),
    ));
    assert_eq!(
        cluster.try_kubectl("top pod stuck").fails(),
        "Error from server (NotFound): podmetrics.metrics.k8s.io \"default/stuck\" not found\n"
    );
    let refused = run(&mut cluster.kubectl_command(&["delete", "pods.metrics.k8s.io", "idle"])).fails();
    assert!(refused.contains("MethodNotAllowed"), "{refused}");
}
