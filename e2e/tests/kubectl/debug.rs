//! `kubectl debug`: ephemeral containers in a pod that runs, copies of pods, a pod on the node.

use e2e::binary::{Cluster, run};
use serde_json::{Value, json};

fn cluster() -> Cluster {
    let cluster = Cluster::up();
    let script = "trap exit TERM; sleep 1000 & wait";
    let container = json!({"name": "c", "image": "busybox", "command": ["sh", "-c", script]});
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}),
    );
    cluster.until("pod p", |pod| pod["status"]["phase"] == "Running");
    cluster
}

fn debug(cluster: &Cluster, arguments: &[&str]) -> String {
    run(&mut cluster.kubectl_command(&[&["debug"], arguments].concat())).ok()
}

/// The status of the ephemeral container `name`.
fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let statuses = pod["status"]["ephemeralContainerStatuses"].as_array();
    let mut named = statuses.into_iter().flatten();
    named
        .find(|status| status["name"] == name)
        .unwrap_or(&Value::Null)
}

#[test]
fn an_ephemeral_container_runs_once_in_a_pod_that_runs() {
    let cluster = cluster();
    let script = "echo hello from $HOSTNAME; exit 3";
    let arguments = [
        "p",
        "--image=busybox",
        "--target=c",
        "-c",
        "first",
        "--",
        "sh",
        "-c",
        script,
    ];
    let said = debug(&cluster, &arguments);
    assert!(said.starts_with("Targeting container \"c\"."), "{said}");
    let pod = cluster.until("pod p", |pod| {
        status(pod, "first")["state"]["terminated"].is_object()
    });
    let first = status(&pod, "first");
    assert_eq!(first["state"]["terminated"]["exitCode"], 3);
    assert_eq!(
        (&first["restartCount"], &first["ready"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["targetContainerName"], "c");
    assert_eq!(cluster.kubectl("logs p -c first"), "hello from p\n");

    // Another one, and the first stays as it ended; the pod and its other container are as before.
    debug(
        &cluster,
        &["p", "--image=busybox", "-c", "second", "--", "sleep", "1000"],
    );
    let pod = cluster.until("pod p", |pod| {
        status(pod, "second")["state"]["running"].is_object()
    });
    assert_eq!(status(&pod, "first")["restartCount"], 0);
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    let described = cluster.kubectl("describe pod p");
    assert!(
        described.contains("Ephemeral Containers:\n  first:"),
        "{described}"
    );
    let events = cluster.kubectl("get events -o jsonpath={.items[*].involvedObject.fieldPath}");
    assert!(events.contains("spec.ephemeralContainers{second}"), "{events}");

    // They go with their pod.
    cluster.kubectl("delete pod p");
    cluster.until_gone("pod p");
}

#[test]
fn an_ephemeral_container_never_changes_or_goes() {
    let cluster = cluster();
    debug(&cluster, &["p", "--image=busybox", "-c", "first", "--", "true"]);
    let refused = |patch: &str, why: &str| {
        let arguments = [
            "patch",
            "pod",
            "p",
            "--subresource=ephemeralcontainers",
            "--type=json",
            "-p",
            patch,
        ];
        let said = run(&mut cluster.kubectl_command(&arguments)).fails();
        assert!(said.contains(why), "{said}");
    };
    refused(
        r#"[{"op": "remove", "path": "/spec/ephemeralContainers/0"}]"#,
        "existing ephemeral containers \"first\" may not be removed",
    );
    refused(
        r#"[{"op": "replace", "path": "/spec/ephemeralContainers/0/image", "value": "other"}]"#,
        "existing ephemeral containers \"first\" may not be changed",
    );
    refused(
        r#"[{"op": "add", "path": "/spec/ephemeralContainers/-", "value": {"name": "c", "image": "i"}}]"#,
        "Duplicate value: \"c\"",
    );
}

#[test]
fn a_copy_of_a_pod_and_a_pod_on_the_node_can_be_had() {
    let cluster = cluster();
    let copy = [
        "p",
        "--copy-to=copy",
        "--container=c",
        "--",
        "sh",
        "-c",
        "echo copied; sleep 1000",
    ];
    debug(&cluster, &copy);
    cluster.until("pod copy", |pod| pod["status"]["phase"] == "Running");
    cluster.until("pod p", |pod| pod["status"]["phase"] == "Running");

    let node = cluster.kubectl("get nodes -o name");
    let node = node.trim();
    let said = debug(
        &cluster,
        &[node, "--image=busybox", "--", "sh", "-c", "ls -d /host/etc"],
    );
    assert!(said.contains("Creating debugging pod node-debugger-"), "{said}");
    let name = said
        .split_whitespace()
        .find(|word| word.starts_with("node-debugger-"))
        .expect("its name")
        .to_owned();
    cluster.until(&format!("pod {name}"), |pod| {
        pod["status"]["phase"] == "Succeeded"
    });
    assert_eq!(cluster.kubectl(&format!("logs {name}")), "/host/etc\n");
}
