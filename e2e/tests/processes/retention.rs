//! Claims and their directories go when the retention policy says so, and not before.

use crate::sets::{directory, names, scale, uid, with_ready};
use e2e::binary::{Cluster, PATIENCE, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;

const NAMES: [&str; 3] = ["web-0", "web-1", "web-2"];

fn with_policy(when_deleted: &str, when_scaled: &str) -> (Cluster, [PathBuf; 3]) {
    let policy = json!({"whenDeleted": when_deleted, "whenScaled": when_scaled});
    let cluster = with_ready(json!({"replicas": 3, "persistentVolumeClaimRetentionPolicy": policy}));
    let directories = NAMES.map(|name| directory(&cluster, name));
    for directory in &directories {
        assert!(directory.join("hostname").is_file(), "{}", directory.display());
    }
    (cluster, directories)
}

/// The kinds and UIDs of every claim's owners.
fn owners(cluster: &Cluster) -> Vec<Vec<(Value, Value)>> {
    let claims = NAMES.map(|name| cluster.get(&format!("pvc data-{name}")));
    let of = |claim: &Value| {
        let owners = claim["metadata"]["ownerReferences"].as_array().cloned();
        let owners = owners.unwrap_or_default().into_iter();
        owners
            .map(|owner| (owner["kind"].clone(), owner["uid"].clone()))
            .collect()
    };
    claims.iter().map(of).collect()
}

fn is_the_sets(cluster: &Cluster) {
    let set = cluster.get("sts web");
    let expected = vec![(json!("StatefulSet"), json!(uid(&set)))];
    assert_eq!(owners(cluster), vec![expected; 3]);
}

fn until_nothing_is_left(cluster: &Cluster, directories: &[PathBuf]) {
    eventually("claims, volumes and directories go", PATIENCE, || {
        let left = names(cluster, "pvc,pv");
        let there: Vec<_> = directories
            .iter()
            .filter(|directory| directory.exists())
            .collect();
        let is_gone = left.is_empty() && there.is_empty();
        is_gone.then_some(()).ok_or_else(|| format!("{left:?} {there:?}"))
    });
}

/// E22.
#[test]
fn claims_and_directories_go_with_their_set() {
    let (cluster, directories) = with_policy("Delete", "Retain");
    is_the_sets(&cluster);
    cluster.kubectl("delete sts web");
    until_nothing_is_left(&cluster, &directories);
}

/// E25.
#[test]
fn claims_and_directories_go_with_their_set_after_a_pod_was_adopted() {
    let (cluster, directories) = with_policy("Delete", "Retain");
    let pod = cluster.get("pod web-2");
    cluster.kubectl(r#"patch pod web-2 --type merge -p {"metadata":{"ownerReferences":null}}"#);
    let adopted = cluster.until("pod web-2", |pod| {
        pod["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet"
    });
    assert_eq!(uid(&adopted), uid(&pod));
    is_the_sets(&cluster);
    cluster.kubectl("delete sts web");
    until_nothing_is_left(&cluster, &directories);
}

/// E23; and a pod that comes back starts with nothing.
#[test]
fn claims_and_directories_go_with_processes_that_are_scaled_away() {
    let (cluster, directories) = with_policy("Retain", "Delete");
    assert_eq!(owners(&cluster), vec![vec![]; 3]);
    scale(&cluster, 1);
    eventually("only the lowest claim is left", PATIENCE, || {
        let left = names(&cluster, "pvc");
        let there = directories.each_ref().map(|directory| directory.exists());
        let is_so = left == ["data-web-0"] && there == [true, false, false];
        is_so.then_some(()).ok_or_else(|| format!("{left:?} {there:?}"))
    });
    cluster.until_available("web", 1);
    scale(&cluster, 2);
    cluster.until_available("web", 2);
    let new = directory(&cluster, "web-1");
    assert_ne!(new, directories[1]);
    crate::sets::until_says(&cluster, "web-1", "hostname", "web-1\n");
    crate::sets::until_says(&cluster, "web-0", "hostname", "web-0\n");
}
