//! Names of real pods, asked for with dig: there before the first process, gone with the pod.

use e2e::binary::{Cluster, PATIENCE, eventually};
use serde_json::json;
use std::time::Instant;

const REPLICAS: i64 = 10;

/// A headless Service that publishes unready pods, and a set whose pods run `script`. They are never ready.
fn quorum(cluster: &Cluster, script: &str) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "raft"},
        "spec": {
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": {"app": "raft"},
            "ports": [{"name": "peer", "port": 7000}],
        },
    });
    let own = |field: &str| json!({"fieldRef": {"fieldPath": field}});
    let container = json!({
        "name": "member", "image": "busybox", "command": ["sh", "-c", script],
        "env": [
            {"name": "POD_NAME", "valueFrom": own("metadata.name")},
            {"name": "POD_IP", "valueFrom": own("status.podIP")},
        ],
        "readinessProbe": {"exec": {"command": ["false"]}},
    });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "raft"},
        "spec": {
            "serviceName": "raft", "replicas": REPLICAS, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "raft"}},
            "template": {
                "metadata": {"labels": {"app": "raft"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    });
    cluster.create(&service);
    cluster.create(&set);
}

#[test]
fn a_pod_that_is_published_unready_finds_its_own_name_the_first_time_it_asks() {
    let cluster = Cluster::up();
    let address = cluster.address("dns");
    let (host, port) = address.rsplit_once(':').expect("it has a port");
    let ask = format!(
        "dig -r @{host} -p {port} +tries=1 +time=10 +short $POD_NAME.raft.default.svc.cluster.local A"
    );
    // Nothing comes before the question.
    quorum(
        &cluster,
        &format!("{ask}; echo \"I am $POD_IP\"; exec sleep 1000000"),
    );
    for ordinal in 0..REPLICAS {
        let log = eventually("the pod has asked", PATIENCE, || {
            let log = cluster.try_kubectl(&format!("logs raft-{ordinal}"));
            let is_whole = log.status.success() && log.out.contains("I am ");
            is_whole.then(|| log.out.clone()).ok_or_else(|| log.to_string())
        });
        let lines: Vec<&str> = log.lines().collect();
        let [answer, own] = lines[..] else {
            panic!("raft-{ordinal} found nothing, or more than one: {log}")
        };
        assert_eq!(own, format!("I am {answer}"), "raft-{ordinal}");
    }
}

#[test]
fn a_pod_deleted_by_force_and_a_deleted_service_are_gone_from_answers_at_once() {
    let cluster = Cluster::up();
    quorum(&cluster, "exec sleep 1000000");
    let all = "raft.default.svc.cluster.local";
    let one = "raft-3.raft.default.svc.cluster.local";
    eventually("all are published", PATIENCE, || {
        let dug = cluster.dig(all, "A");
        (dug.answer.len() == REPLICAS as usize)
            .then_some(())
            .ok_or(dug.text)
    });
    // The set must not bring it back while we look.
    cluster.kubectl("delete sts raft --cascade=orphan");
    let before = cluster.dig(one, "A");
    assert_eq!(before.answer.len(), 1, "{}", before.text);
    cluster.kubectl("delete pod raft-3 --force --grace-period=0");
    let began = Instant::now();
    eventually("the pod has no name any more", PATIENCE, || {
        let dug = cluster.dig(one, "A");
        dug.is_empty_with_soa("NXDOMAIN").then_some(()).ok_or(dug.text)
    });
    println!("gone {:?} after kubectl had deleted it", began.elapsed());
    assert_eq!(cluster.dig(all, "A").answer.len(), REPLICAS as usize - 1);
    let reverse = before.answer[0]
        .data
        .split('.')
        .rev()
        .collect::<Vec<_>>()
        .join(".");
    let pointer = cluster.dig(&format!("{reverse}.in-addr.arpa"), "PTR");
    assert_eq!(pointer.status, "NXDOMAIN", "{}", pointer.text);

    cluster.kubectl("delete service raft");
    for name in [all, "raft-4.raft.default.svc.cluster.local"] {
        eventually("nobody answers for a Service that is gone", PATIENCE, || {
            let dug = cluster.dig(name, "A");
            dug.is_empty_with_soa("NXDOMAIN").then_some(()).ok_or(dug.text)
        });
    }
}
