//! Versions of a program reach its processes.

use crate::sets::{
    break_, change_version, cluster, create, is_ready, pods, resume, set, text, uid, until_rolled_out,
    until_says, with_ready,
};
use e2e::binary::Cluster;
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["web-0", "web-1", "web-2"];

fn each_says(cluster: &Cluster, versions: [&str; 3]) {
    for (name, version) in NAMES.iter().zip(versions) {
        until_says(cluster, name, "version", &format!("{version}\n"));
    }
}

fn revision(cluster: &Cluster, which: &str) -> String {
    text(&cluster.get("sts web")["status"][which]).to_owned()
}

/// E5.
#[test]
fn a_rollout_waits_for_a_broken_process_and_undo_goes_back_to_the_old_revision() {
    let cluster = cluster();
    create(
        &cluster,
        &set(
            &cluster,
            json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}}),
        ),
    );
    NAMES.iter().for_each(|name| resume(&cluster, name));
    cluster.until_available("web", 3);
    let first = revision(&cluster, "currentRevision");
    assert_eq!(revision(&cluster, "updateRevision"), first);
    for name in NAMES {
        let labels = &cluster.get(&format!("pod {name}"))["metadata"]["labels"];
        assert_eq!(labels["controller-revision-hash"], first.as_str());
    }

    break_(&cluster, "web-1");
    cluster.until("pod web-1", |pod| !is_ready(pod));
    cluster.until("sts web", |set| set["status"]["readyReplicas"] == 2);
    let before = NAMES.map(|name| uid(&cluster.get(&format!("pod {name}"))).to_owned());
    let mut watch = cluster.watch("/api/v1/namespaces/default/pods?watch=true&resourceVersion=1");
    change_version(&cluster, "2");
    cluster.until("sts web", |set| set["status"]["updateRevision"] != first.as_str());
    let now = NAMES.map(|name| uid(&cluster.get(&format!("pod {name}"))).to_owned());
    assert_eq!(now, before, "an ordered set waits");
    resume(&cluster, "web-1");
    until_rolled_out(&cluster, 3);
    each_says(&cluster, ["2", "2", "2"]);
    watch.until("web-0 is replaced", |event| {
        event["type"] == "DELETED" && event["object"]["metadata"]["name"] == "web-0"
    });
    let gone = watch.seen.iter().filter(|event| event["type"] == "DELETED");
    let gone: Vec<_> = gone
        .map(|event| text(&event["object"]["metadata"]["name"]))
        .collect();
    assert_eq!(gone, ["web-2", "web-1", "web-0"]);

    let second = revision(&cluster, "currentRevision");
    break_(&cluster, "web-1");
    cluster.until("pod web-1", |pod| !is_ready(pod));
    let said = cluster.kubectl("rollout undo sts/web");
    assert_eq!(said, "statefulset.apps/web rolled back\n");
    cluster.until("sts web", |set| set["status"]["updateRevision"] == first.as_str());
    resume(&cluster, "web-1");
    cluster.kubectl("rollout status sts/web --timeout=60s");
    until_rolled_out(&cluster, 3);
    each_says(&cluster, ["1", "1", "1"]);
    assert_eq!(revision(&cluster, "currentRevision"), first);
    let mut revisions = crate::sets::names(&cluster, "controllerrevisions");
    revisions.sort_unstable();
    let mut expected = [first, second];
    expected.sort_unstable();
    assert_eq!(revisions, expected, "no third one is made");
}

/// E7, I7.
#[test]
fn a_process_below_the_partition_comes_back_as_the_old_version_once_nothing_holds_its_pod() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let cluster = with_ready(json!({"replicas": 3, "updateStrategy": strategy}));
    let first = revision(&cluster, "currentRevision");
    cluster.kubectl(r#"patch pod web-0 --type merge -p {"metadata":{"finalizers":["example.com/hold"]}}"#);
    change_version(&cluster, "2");
    each_says(&cluster, ["1", "2", "2"]);
    cluster.until("sts web", |set| {
        let status = &set["status"];
        status["readyReplicas"] == 3 && status["updatedReplicas"] == 2
    });
    let old = cluster.get("pod web-0");
    cluster.kubectl("delete pod web-0 --wait=false");
    // Its process has ended, and its name is still taken.
    let held = cluster.until("pod web-0", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(uid(&held), uid(&old));
    assert_eq!(crate::sets::ends(&cluster), ["web-2", "web-1", "web-0"]);
    cluster.until("sts web", |set| set["status"]["readyReplicas"] == 2);
    cluster.kubectl(r#"patch pod web-0 --type merge -p {"metadata":{"finalizers":null}}"#);
    let new = cluster.until("pod web-0", |pod| uid(pod) != uid(&old) && is_ready(pod));
    assert_eq!(
        new["metadata"]["labels"]["controller-revision-hash"],
        first.as_str()
    );
    until_says(&cluster, "web-0", "hostname", "web-0\nweb-0\n");
    each_says(&cluster, ["1", "2", "2"]);
    assert_eq!(revision(&cluster, "currentRevision"), first);
}

/// E9.
#[test]
fn on_delete_leaves_processes_alone_until_their_pods_are_deleted() {
    let cluster = with_ready(json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}));
    let first = revision(&cluster, "currentRevision");
    let replace_all = || {
        let old = NAMES.map(|name| uid(&cluster.get(&format!("pod {name}"))).to_owned());
        cluster.kubectl("delete pods -l app=web --force --grace-period=0");
        for (name, old) in NAMES.iter().zip(&old) {
            cluster.until(&format!("pod {name}"), |pod| uid(pod) != old && is_ready(pod));
        }
        cluster.until_available("web", 3);
    };
    let revisions = || -> Vec<Value> {
        let pods = NAMES.map(|name| cluster.get(&format!("pod {name}")));
        let revision = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].clone();
        pods.iter().map(revision).collect()
    };
    replace_all();
    assert_eq!(revisions(), [first.as_str(); 3]);
    change_version(&cluster, "2");
    let set = cluster.until("sts web", |set| set["status"]["updateRevision"] != first.as_str());
    let second = text(&set["status"]["updateRevision"]);
    assert_eq!(set["status"]["currentRevision"], first.as_str());
    assert_eq!(revisions(), [first.as_str(); 3]);
    replace_all();
    assert_eq!(revisions(), [second; 3]);
    each_says(&cluster, ["2", "2", "2"]);
    assert_eq!(pods(&cluster), NAMES);
}
