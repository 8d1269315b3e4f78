//! `kubectl rollout` on StatefulSets: status, history, undo, restart, and pause, which there is not (section 8.2 of the
//! reference). What it says in the middle of a rollout is shown on an API with nobody behind it, where a rollout stands
//! still at every step.

use e2e::binary::{Cluster, Lines, Ran, run};
use serde_json::{Value, json};

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().expect("it has one").to_owned()
}

#[test]
fn a_set_is_rolled_out_restarted_and_undone() {
    let cluster = Cluster::with_two_shells();
    let uids = |cluster: &Cluster| ["pod db-0", "pod db-1"].map(|pod| uid(&cluster.get(pod)));
    let first = uids(&cluster);
    let environment = |cluster: &Cluster| {
        ["pod db-0", "pod db-1"].map(|pod| {
            let environment = cluster.get(pod)["spec"]["containers"][0]["env"].clone();
            let all = environment.as_array().cloned().unwrap_or_default();
            all.iter()
                .find(|e| e["name"] == "COLOUR")
                .map(|e| e["value"].clone())
        })
    };
    let revision = |number: i64| {
        let all = cluster.get("controllerrevisions")["items"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|r| r["revision"] == number);
        one.unwrap_or_else(|| panic!("no revision {number} in {all:#?}"))
            .clone()
    };
    let mut pods = cluster.watch("/api/v1/namespaces/default/pods?watch=true");
    cluster.kubectl("annotate sts db kubernetes.io/change-cause=blue");
    assert_eq!(
        cluster.kubectl("set env sts/db COLOUR=blue"),
        "statefulset.apps/db env updated\n"
    );
    let rolled = cluster.kubectl("rollout status sts/db --timeout=60s");
    assert!(
        rolled.contains("partitioned roll out complete: 2 new pods have been updated..."),
        "{rolled}"
    );
    let blue = Some(json!("blue"));
    assert_eq!(environment(&cluster), [blue.clone(), blue]);
    let second = uids(&cluster);
    assert!(first.iter().all(|old| !second.contains(old)));
    let gone =
        |event: &Value, pod: &str| event["type"] == "DELETED" && event["object"]["metadata"]["name"] == pod;
    pods.until("db-0 is replaced", |event| gone(event, "db-0"));
    assert!(
        pods.seen.iter().any(|event| gone(event, "db-1")),
        "from the top down"
    );

    assert_eq!(
        cluster.kubectl("rollout history sts/db"),
        "statefulset.apps/db \nREVISION  CHANGE-CAUSE\n1         <none>\n2         blue\n\n"
    );
    let detail = cluster.kubectl("rollout history sts/db --revision=2");
    assert!(
        detail.starts_with("statefulset.apps/db with revision #2\nPod Template:\n  Labels:\tapp=db\n"),
        "{detail}"
    );
    assert!(detail.contains("COLOUR:\tblue"), "{detail}");

    let plain = revision(1);
    assert_eq!(
        cluster.kubectl("rollout undo sts/db"),
        "statefulset.apps/db rolled back\n"
    );
    cluster.kubectl("rollout status sts/db --timeout=60s");
    assert_eq!(environment(&cluster), [None, None]);
    let again = revision(3);
    assert_eq!(
        (&again["metadata"]["name"], &again["metadata"]["uid"]),
        (&plain["metadata"]["name"], &plain["metadata"]["uid"]),
        "the first is used again, with a new number"
    );
    assert_eq!(
        cluster.get("sts db")["status"]["updateRevision"],
        plain["metadata"]["name"]
    );
    // Back to where it is already: whether kubectl notices depends on its version, the set does not change.
    let generation = cluster.get("sts db")["metadata"]["generation"].clone();
    cluster.kubectl("rollout undo sts/db --to-revision=3");
    assert_eq!(cluster.get("sts db")["metadata"]["generation"], generation);
    let unknown = cluster.try_kubectl("rollout undo sts/db --to-revision=1");
    assert_eq!(
        unknown.fails(),
        "error: unable to find specified revision 1 in history\n"
    );
    cluster.kubectl("rollout undo sts/db --to-revision=2");
    cluster.kubectl("rollout status sts/db --timeout=60s");
    let blue = Some(json!("blue"));
    assert_eq!(environment(&cluster), [blue.clone(), blue]);
    let current = cluster.get("sts db")["status"]["currentRevision"].clone();
    assert_eq!(revision(4)["metadata"]["name"], current);
    let revisions = cluster.get("controllerrevisions")["items"].clone();
    assert_eq!(revisions.as_array().map(Vec::len), Some(2), "{revisions:#}");
    for (verb, doing) in [("pause", "pausing"), ("resume", "resuming")] {
        let ran = cluster.try_kubectl(&format!("rollout {verb} sts/db"));
        assert_eq!(ran.status.code(), Some(1), "{ran}");
        assert_eq!(
            ran.err,
            format!("error: statefulsets.apps \"db\" {doing} is not supported\n")
        );
    }

    let third = uids(&cluster);
    assert_eq!(
        cluster.kubectl("rollout restart sts/db"),
        "statefulset.apps/db restarted\n"
    );
    cluster.kubectl("rollout status sts/db --timeout=60s");
    assert!(uids(&cluster).iter().all(|new| !third.contains(new)));
    cluster.until_available("db", 2);
}

/// A set of three on an API with nobody behind it; a rollout of it is what its status says.
fn still(strategy: &Value) -> Cluster {
    let cluster = Cluster::api_alone();
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "updateStrategy": strategy,
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }});
    cluster.create(&set);
    cluster
}

/// Give it this status, for the generation that it has.
fn becomes(cluster: &Cluster, status: &Value) {
    let mut status = status.clone();
    let generation = cluster.get("sts web")["metadata"]["generation"].clone();
    status["observedGeneration"] = generation;
    let patch = json!({ "status": status }).to_string();
    let arguments = [
        "patch",
        "sts",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    run(&mut cluster.kubectl_command(&arguments)).ok();
}

fn status_now(cluster: &Cluster) -> Ran {
    cluster.try_kubectl("rollout status sts/web --watch=false")
}

#[test]
fn rollout_status_says_how_far_a_partitioned_rollout_is() {
    let cluster = still(&json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}));
    let unobserved = "Waiting for statefulset spec update to be observed...\n";
    assert_eq!(status_now(&cluster).ok(), unobserved);
    for (status, said) in [
        (json!({"replicas": 3}), "Waiting for 3 pods to be ready...\n"),
        (
            json!({"replicas": 3, "readyReplicas": 1}),
            "Waiting for 2 pods to be ready...\n",
        ),
        (
            json!({"replicas": 3, "readyReplicas": 3}),
            "Waiting for partitioned roll out to finish: 0 out of 2 new pods have been updated...\n",
        ),
        (
            json!({"replicas": 3, "readyReplicas": 3, "updatedReplicas": 1}),
            "Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...\n",
        ),
        (
            json!({"replicas": 3, "readyReplicas": 3, "updatedReplicas": 2}),
            "partitioned roll out complete: 2 new pods have been updated...\n",
        ),
    ] {
        becomes(&cluster, &status);
        assert_eq!(status_now(&cluster).ok(), said, "{status}");
    }
    cluster.kubectl("scale sts web --replicas=4");
    assert_eq!(status_now(&cluster).ok(), unobserved);
}

#[test]
fn rollout_status_says_how_far_a_rollout_without_a_partition_is() {
    let cluster = still(&json!({"type": "RollingUpdate"}));
    for (status, said) in [
        (
            json!({"replicas": 3, "readyReplicas": 2, "currentRevision": "web-1", "updateRevision": "web-1"}),
            "Waiting for 1 pods to be ready...\n",
        ),
        (
            json!({"readyReplicas": 3, "updatedReplicas": 1, "updateRevision": "web-2"}),
            "waiting for statefulset rolling update to complete 1 pods at revision web-2...\n",
        ),
        (
            json!({"currentReplicas": 3, "updatedReplicas": 3, "currentRevision": "web-2"}),
            "statefulset rolling update complete 3 pods at revision web-2...\n",
        ),
    ] {
        becomes(&cluster, &status);
        assert_eq!(status_now(&cluster).ok(), said, "{status}");
    }
}

#[test]
fn rollout_status_waits_by_watching() {
    let cluster = still(&json!({"type": "RollingUpdate"}));
    becomes(
        &cluster,
        &json!({"replicas": 3, "currentRevision": "web-1", "updateRevision": "web-2"}),
    );
    let waiting = Lines::of(&mut cluster.kubectl_command(&["rollout", "status", "sts/web", "--timeout=60s"]));
    waiting.until("what it waits for", |line| {
        line == "Waiting for 3 pods to be ready..."
    });
    becomes(&cluster, &json!({"readyReplicas": 3, "updatedReplicas": 2}));
    let half = "waiting for statefulset rolling update to complete 2 pods at revision web-2...";
    waiting.until("how far it is", |line| line == half);
    becomes(
        &cluster,
        &json!({"currentRevision": "web-2", "currentReplicas": 3}),
    );
    let complete = "statefulset rolling update complete 3 pods at revision web-2...";
    assert_eq!(waiting.end(), (vec![complete.to_owned()], true));
}

#[test]
fn rollout_status_is_no_matter_of_on_delete() {
    let cluster = still(&json!({"type": "OnDelete"}));
    let ran = cluster.try_kubectl("rollout status sts/web");
    assert_eq!(ran.status.code(), Some(1), "{ran}");
    assert_eq!(
        ran.err,
        "error: rollout status is only available for RollingUpdate strategy type\n"
    );
}
