//! What is secret stays out of logs, events, messages and status.

use crate::{create, token, with_token};
use e2e::binary::{Cluster, PATIENCE, eventually};
use serde_json::json;

const VALUE: &str = "hunter2-VERY-secret-value";
/// The same as the API carries it.
const ENCODED: &str = "aHVudGVyMi1WRVJZLXNlY3JldC12YWx1ZQ==";

#[test]
fn a_secret_is_in_no_log_event_or_status() {
    let mut cluster = Cluster::new();
    cluster.start_traced(&["up"]);
    cluster.until("sa default", |_| true);
    let secrets = "/api/v1/namespaces/default/secrets";
    create(
        &cluster,
        secrets,
        &json!({"metadata": {"name": "s"}, "stringData": {"password": VALUE, "bad=key".replace('=', "."): VALUE}}),
    );
    let environment = json!([
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "LOST", "valueFrom": {"secretKeyRef": {"name": "s", "key": "lost", "optional": true}}},
    ]);
    let container = |name: &str, command: &[&str]| {
        json!({
            "name": name, "image": "sh", "command": command, "env": environment,
            "envFrom": [{"secretRef": {"name": "s"}, "prefix": "P_"}],
            "volumeMounts": [{"name": "v", "mountPath": "/secret"}],
        })
    };
    let pod = |name: &str, container: &serde_json::Value, items: &serde_json::Value| {
        json!({
            "metadata": {"name": name},
            "spec": {"containers": [container], "restartPolicy": "Never",
                "volumes": [{"name": "v", "secret": {"secretName": "s", "items": items}}]},
        })
    };
    let pods = "/api/v1/namespaces/default/pods";
    let all = json!([{"key": "password", "path": "password"}]);
    // One that works, one whose program is missing, one whose key is missing, one whose volume is.
    create(
        &cluster,
        pods,
        &pod(
            "fine",
            &container("c", &["sh", "-c", "test \"$PASSWORD\" && exit 0"]),
            &all,
        ),
    );
    create(
        &cluster,
        pods,
        &pod(
            "unstartable",
            &container("c", &["/no/such/program", "$(PASSWORD)"]),
            &all,
        ),
    );
    let mut lost = container("c", &["true"]);
    lost["env"][1]["valueFrom"]["secretKeyRef"]["optional"] = false.into();
    create(&cluster, pods, &pod("keyless", &lost, &all));
    create(
        &cluster,
        pods,
        &pod(
            "unmountable",
            &container("c", &["true"]),
            &json!([{"key": "lost", "path": "x"}]),
        ),
    );
    cluster.until("pod fine", |pod| pod["status"]["phase"] == "Succeeded");
    let waiting = |name: &str| {
        cluster.until(&format!("pod {name}"), |pod| {
            pod["status"]["containerStatuses"][0]["state"]
                .as_object()
                .is_some_and(|state| {
                    state
                        .values()
                        .any(|state| state["reason"].is_string() && state["reason"] != "ContainerCreating")
                })
        });
    };
    waiting("unstartable");
    waiting("keyless");
    eventually("the volume that cannot be made is told", PATIENCE, || {
        let events = cluster.kubectl("get events");
        events.contains("FailedMount").then_some(()).ok_or(events)
    });
    // Writes that are refused, with the value in them.
    for body in [
        json!({"metadata": {"name": "-"}, "stringData": {"password": VALUE}}),
        json!({"metadata": {"name": "x"}, "data": {"password": VALUE}}),
        json!({"metadata": {"name": "x"}, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": ENCODED}}),
        json!({"metadata": {"name": "x"}, "stringData": {"bad/key": VALUE}}),
    ] {
        let reply = cluster.curl(&[
            "--unix-socket",
            &cluster.data("api.sock"),
            &format!("http://petset{secrets}"),
            "-H",
            "Content-Type: application/json",
            "-d",
            &body.to_string(),
        ]);
        assert!(reply.code >= 400, "{reply:?}");
        assert!(
            !reply.body.contains(VALUE) && !reply.body.contains(ENCODED),
            "{reply:?}"
        );
    }
    let account = token(&cluster, "default", &json!({}));
    with_token(&cluster, &account, "/api/v1/namespaces/default/pods").expect(403);
    with_token(
        &cluster,
        &format!("{account}x"),
        "/api/v1/namespaces/default/pods",
    )
    .expect(401);
    let admin = std::fs::read_to_string(cluster.data_dir().join("pki/admin.token")).expect("a token");
    with_token(&cluster, admin.trim(), "/api/v1/namespaces/default/pods").expect(200);

    let told = cluster.kubectl("get events,pods -o yaml") + &cluster.kubectl("describe pods");
    let log = cluster.said();
    assert!(log.contains("TRACE"), "the log is not traced");
    let bytes: Vec<String> = ENCODED.bytes().map(|byte| byte.to_string()).collect();
    for hidden in [VALUE, ENCODED, &bytes.join(", "), admin.trim(), &account] {
        for (what, text) in [("the log", &log), ("events, status or descriptions", &told)] {
            let found = text.lines().find(|line| line.contains(hidden));
            assert!(found.is_none(), "{what} tell what is secret: {found:?}");
        }
    }
}
