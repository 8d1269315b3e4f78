//! What volumes hold, who used them last, and what becomes of those that nobody needs: `petset status`,
//! `petset volumes` and `petset volumes prune`.

use e2e::binary::{Cluster, PATIENCE, Ran, eventually, petset_binary, run};
use e2e::in_process::{InProcess, PODS};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn petset(cluster: &Cluster, line: &str) -> Ran {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    run(&mut cluster.petset(&arguments))
}

/// What `petset volumes` lists, by name; each name says what it is.
fn listed(cluster: &Cluster, line: &str) -> Vec<(String, Value)> {
    let answer = petset(cluster, &format!("volumes -o json {line}")).ok();
    let answer: Value = serde_json::from_str(&answer).expect("it is JSON");
    let items = answer["items"].as_array().expect("a list").clone();
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.into_iter().map(|item| (name(&item), item)).collect()
}

fn volume_of(cluster: &Cluster, claim: &str) -> (String, PathBuf) {
    let claim = cluster.until(&format!("pvc {claim}"), |claim| {
        claim["status"]["phase"] == "Bound"
    });
    let volume = claim["spec"]["volumeName"]
        .as_str()
        .expect("it is bound")
        .to_owned();
    let found = cluster.get(&format!("pv {volume}"));
    let path = found["spec"]["hostPath"]["path"].as_str().expect("a directory");
    (volume, path.into())
}

fn scale_to_one(cluster: &Cluster) {
    cluster.kubectl("scale sts db --replicas=1");
    cluster.until_gone("pod db-1");
    let (volume, _) = volume_of(cluster, "data-db-1");
    cluster.until(&format!("pv {volume}"), |volume| {
        volume["metadata"]["annotations"]["petset.dev/last-used-by"] == "default/db-1"
    });
}

#[test]
fn a_claim_out_of_the_set_s_range_is_listed_with_its_last_user_and_goes_with_its_data_when_it_is_named() {
    let cluster = Cluster::up_with_two_shells();
    assert_eq!(
        petset(&cluster, "volumes").ok(),
        "no leftovers in namespace default\n"
    );
    let all = listed(&cluster, "--all");
    let standings: Vec<_> = all
        .iter()
        .map(|(name, item)| (name.as_str(), item["standing"].clone()))
        .collect();
    assert_eq!(
        standings,
        [("data-db-0", json!("in use")), ("data-db-1", json!("in use"))]
    );

    scale_to_one(&cluster);
    let left = listed(&cluster, "");
    assert_eq!(left.len(), 1, "{left:?}");
    let (name, item) = &left[0];
    assert_eq!(name, "data-db-1");
    assert_eq!(item["kind"], "PersistentVolumeClaim");
    assert_eq!(item["why"], "StatefulSet db has ordinals 0 to 0 only");
    assert_eq!(item["lastUsedBy"], "default/db-1");
    assert_eq!(item["capacityBytes"], 1 << 20);
    assert!(item["usedBytes"].as_u64().is_some_and(|used| used > 0), "{item}");
    let table = petset(&cluster, "volumes").ok();
    for part in [
        "NAME",
        "LAST USED BY",
        "pvc/data-db-1",
        "default/db-1 (",
        "1Mi",
        "has ordinals 0 to 0 only",
    ] {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    assert!(!table.contains("data-db-0"), "{table}");

    let refused = petset(&cluster, "volumes prune data-db-0");
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        refused.err.contains("pvc/data-db-0 is in use (used by pod db-0)"),
        "{refused}"
    );
    let refused = petset(&cluster, "volumes prune --yes nothing pv/nothing");
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        refused
            .err
            .contains("there is no claim nothing in namespace default"),
        "{refused}"
    );

    // Nobody can be asked, and nothing is named.
    let refused = petset(&cluster, "volumes prune");
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        refused
            .out
            .contains("pvc/data-db-1: claim default/data-db-1 with its volume"),
        "{refused}"
    );
    assert!(refused.err.contains("--yes"), "{refused}");

    let (volume, directory) = volume_of(&cluster, "data-db-1");
    assert!(directory.join("starts").exists());
    let pruned = petset(&cluster, "volumes prune data-db-1").ok();
    assert!(pruned.contains("removed pvc/data-db-1"), "{pruned}");
    assert!(!directory.exists());
    assert!(cluster.look("pvc data-db-1").is_err());
    assert!(cluster.look(&format!("pv {volume}")).is_err());
    assert!(
        volume_of(&cluster, "data-db-0").1.join("starts").exists(),
        "nothing else went"
    );
    assert_eq!(
        petset(&cluster, "volumes prune --yes").ok(),
        "nothing to remove: no leftovers in namespace default\n"
    );
}

#[test]
fn what_a_deleted_set_leaves_is_removed_after_yes_at_the_terminal_and_not_after_no() {
    let cluster = Cluster::up_with_two_shells();
    cluster.kubectl("delete sts db");
    cluster.until_gone("pod db-0");
    cluster.until_gone("pod db-1");
    eventually("their use is noted", PATIENCE, || {
        let left = listed(&cluster, "");
        let why: Vec<_> = left.iter().map(|(_, item)| item["why"].clone()).collect();
        if why == ["StatefulSet db is gone", "StatefulSet db is gone"] {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    });

    let said = at_terminal(&cluster, "volumes prune", "n\n");
    assert!(
        said.contains("Remove? [y/N]") && said.contains("nothing was removed"),
        "{said}"
    );
    let said = at_terminal(&cluster, "volumes prune data-db-0", "\n");
    assert!(
        said.contains("pvc/data-db-0: claim default/data-db-0 with its volume"),
        "named things are shown: {said}"
    );
    assert!(said.contains("nothing was removed"), "{said}");
    assert_eq!(listed(&cluster, "").len(), 2);

    let said = at_terminal(&cluster, "volumes prune", "y\n");
    for part in [
        "the data in",
        "2 in all",
        "removed pvc/data-db-0",
        "removed pvc/data-db-1",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert_eq!(listed(&cluster, "--all"), []);
    let left: Vec<_> = fs::read_dir(cluster.data("volumes"))
        .expect("it is there")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Run a command on a terminal of its own, with somebody who types `input`; what was shown.
fn at_terminal(cluster: &Cluster, line: &str, input: &str) -> String {
    let petset = petset_binary();
    let mut command = cluster.petset(&[]);
    // The same environment, on a terminal: `script` makes one.
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect();
    command = std::process::Command::new("script");
    let mut process = command
        .args([
            "--quiet",
            "--return",
            "--command",
            &format!("{} {line}", petset.display()),
            "/dev/null",
        ])
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run script, of util-linux: {error}"));
    let mut keyboard = process.stdin.take().expect("it is piped");
    keyboard.write_all(input.as_bytes()).expect("typed");
    let done = process.wait_with_output().expect("it ends");
    drop(keyboard);
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn released_and_available_volumes_and_lost_directories_are_pruned_and_foreign_data_stays() {
    let cluster = Cluster::up();
    let foreign = cluster.home().join("foreign");
    fs::create_dir(&foreign).expect("made");
    fs::write(foreign.join("file"), "precious").expect("written");
    let manifest = cluster.write(
        "claims.yaml",
        &format!(
            "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: kept}}
provisioner: example.com/disk
reclaimPolicy: Retain
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: c}}
spec: {{storageClassName: kept, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: admins}}
spec: {{capacity: {{storage: 9Gi}}, accessModes: [ReadWriteOnce], hostPath: {{path: {}}}}}
",
            foreign.display()
        ),
    );
    cluster.kubectl(&format!("apply -f {}", manifest.display()));
    let (volume, directory) = volume_of(&cluster, "c");
    fs::write(directory.join("file"), "data").expect("written");
    let lost = PathBuf::from(cluster.data("volumes/default_old_0123abcd"));
    let unknown = PathBuf::from(cluster.data("volumes/lost+found"));
    for directory in [&lost, &unknown] {
        fs::create_dir(directory).expect("made");
    }
    cluster.until("pv admins", |volume| volume["status"]["phase"] == "Available");

    let names = |line: &str| {
        listed(&cluster, line)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(""), ["c", "admins", "default_old_0123abcd"]);
    assert_eq!(
        names("-n other"),
        ["admins"],
        "a volume of no claim belongs to no namespace"
    );
    let refused = petset(&cluster, &format!("volumes prune pv/{volume}"));
    assert!(refused.err.contains("is bound to claim default/c"), "{refused}");

    let pruned = petset(&cluster, "volumes prune c").ok();
    assert!(
        pruned.contains(&format!("petset volumes prune pv/{volume}")),
        "it says what stays: {pruned}"
    );
    assert!(directory.join("file").exists(), "the policy is Retain");
    cluster.until(&format!("pv {volume}"), |volume| {
        volume["status"]["phase"] == "Released"
    });
    let (_, released) = listed(&cluster, "")
        .into_iter()
        .find(|(name, _)| *name == volume)
        .expect("it is listed");
    assert_eq!(released["why"], "claim default/c is gone, reclaim policy Retain");

    let announced = petset(&cluster, "volumes prune");
    for part in [
        format!(
            "pv/{volume}: volume {volume} with the data in {}",
            directory.display()
        ),
        format!(
            "pv/admins: volume admins; the data in {} stays",
            foreign.display()
        ),
        format!(
            "dir/default_old_0123abcd: directory {} with all its data",
            lost.display()
        ),
    ] {
        assert!(announced.out.contains(&part), "no {part:?} in {announced}");
    }
    petset(&cluster, "volumes prune -y").ok();
    assert_eq!(names("--all"), [""; 0]);
    assert!(!directory.exists() && !lost.exists());
    assert!(unknown.exists(), "petset did not make it");
    assert_eq!(
        fs::read_to_string(foreign.join("file")).expect("it is there"),
        "precious"
    );
}

#[test]
fn a_claim_that_is_full_is_warned_about_and_status_says_what_each_claim_uses() {
    let cluster = Cluster::up_with_two_shells();
    let (volume, directory) = volume_of(&cluster, "data-db-0");
    fs::write(directory.join("big"), vec![7; 3 << 20]).expect("written");
    let warned = cluster.until("events --field-selector=reason=VolumeOverCapacity", |events| {
        events["items"].as_array().is_some_and(|items| !items.is_empty())
    });
    let event = &warned["items"][0];
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["kind"], "PersistentVolumeClaim");
    assert_eq!(event["involvedObject"]["name"], "data-db-0");
    let message = event["message"].as_str().expect("text");
    for part in [
        "claim default/data-db-0 uses 3",
        "its capacity 1Mi",
        "kubectl -n default patch pvc data-db-0",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }

    let status = petset(&cluster, "status -o json").ok();
    let status: Value = serde_json::from_str(&status).expect("it is JSON");
    let claims = status["claims"].as_array().expect("a list");
    let names: Vec<_> = claims.iter().map(|claim| &claim["name"]).collect();
    assert_eq!(names, ["data-db-0", "data-db-1"]);
    let claim = &claims[0];
    assert_eq!(claim["volume"], volume.as_str());
    assert_eq!(claim["capacityBytes"], 1 << 20);
    assert!(
        claim["usedBytes"].as_u64().is_some_and(|used| used >= 3 << 20),
        "{claim}"
    );
    assert!(
        claim["percent"].as_u64().is_some_and(|percent| percent >= 300),
        "{claim}"
    );
    assert_eq!(
        (&claim["usedIsComplete"], &claim["enforced"]),
        (&json!(true), &json!(false))
    );
    let text = petset(&cluster, "status").ok();
    let line = text.lines().find(|line| line.starts_with("default/data-db-0"));
    let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words.len(), 6, "{text}");
    assert_eq!((words[1], words[3], words[5]), (volume.as_str(), "1Mi", "no"));
}

#[test]
fn looking_for_a_petset_where_there_is_none_says_so_and_makes_no_directory() {
    let cluster = Cluster::new();
    let nowhere = cluster.home().join("nowhere");
    for line in ["status", "volumes", "volumes prune", "kubeconfig"] {
        let mut command = cluster.petset(&line.split_whitespace().collect::<Vec<_>>());
        let refused = run(command.arg("--data-dir").arg(&nowhere));
        assert_eq!(refused.status.code(), Some(1), "{refused}");
        let expected = format!("nothing runs on {}: there is no petset there", nowhere.display());
        assert!(refused.err.contains(&expected), "{refused}");
        assert!(!Path::new(&nowhere).exists(), "{line} made it");
    }
}

async fn warnings(cluster: &InProcess) -> usize {
    let events = cluster.get(EVENTS).await.unwrap_or_default();
    let events = events["items"].as_array().cloned().unwrap_or_default();
    let warnings = events
        .iter()
        .filter(|event| event["reason"] == "VolumeOverCapacity");
    warnings
        .map(|event| usize::try_from(event["count"].as_u64().unwrap_or(0)).expect("few"))
        .sum()
}

/// A claim for 1Mi and its directory.
async fn small_claim(cluster: &InProcess) -> PathBuf {
    let class = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk", "allowVolumeExpansion": true});
    cluster
        .create("/apis/storage.k8s.io/v1/storageclasses", class)
        .await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}},
        "storageClassName": "fast",
    }});
    cluster.create(CLAIMS, claim).await;
    let bound = cluster
        .until(&format!("{CLAIMS}/c"), |claim| {
            claim["status"]["phase"] == "Bound"
        })
        .await;
    let uid = bound["metadata"]["uid"].as_str().expect("a UID");
    cluster.volumes().join(format!("default_c_{}", &uid[..8]))
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_warned_about_once_each_time_it_passes_its_capacity() {
    let cluster = InProcess::start().await;
    let file = small_claim(&cluster).await.join("file");
    let fill = || fs::write(&file, vec![7; 2 << 20]).expect("written");
    let some_looks = || tokio::time::sleep(Duration::from_secs(120));
    some_looks().await;
    assert_eq!(warnings(&cluster).await, 0);
    fill();
    cluster.until_told("VolumeOverCapacity").await;
    some_looks().await;
    assert_eq!(warnings(&cluster).await, 1, "it is still the same passing");
    fs::write(&file, "").expect("written");
    some_looks().await;
    fill();
    some_looks().await;
    assert_eq!(warnings(&cluster).await, 2);
    // A larger claim holds it.
    let larger = json!({"spec": {"resources": {"requests": {"storage": "4Mi"}}}});
    cluster.merge(&format!("{CLAIMS}/c"), larger).await;
    some_looks().await;
    fs::write(&file, vec![7; 6 << 20]).expect("written");
    some_looks().await;
    assert_eq!(warnings(&cluster).await, 3);
}

#[tokio::test(start_paused = true)]
async fn the_pod_that_used_a_volume_last_is_noted_on_it_when_the_pod_is_gone() {
    let cluster = InProcess::start().await;
    small_claim(&cluster).await;
    let claim = cluster.get(&format!("{CLAIMS}/c")).await.expect("it is there");
    let volume = format!(
        "/api/v1/persistentvolumes/{}",
        claim["spec"]["volumeName"].as_str().expect("it is bound")
    );
    let now = json!({"gracePeriodSeconds": 0});
    for (pod, node, last_user) in [
        ("unscheduled", Value::Null, None),
        ("first", json!("node"), Some("default/first")),
        ("second", json!("node"), Some("default/second")),
    ] {
        let object = json!({"metadata": {"name": pod}, "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "nginx"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        }});
        cluster.create(PODS, object).await;
        let path = format!("{PODS}/{pod}");
        cluster.until(&path, |_| true).await;
        // Long enough for the controllers to have seen it.
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.delete(&path, now.clone()).await;
        cluster.until_gone(&path).await;
        let noted = |volume: &Value| volume["metadata"]["annotations"]["petset.dev/last-used-by"].clone();
        match last_user {
            Some(user) => drop(cluster.until(&volume, |volume| noted(volume) == user).await),
            None => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let volume = cluster.get(&volume).await.expect("it is there");
                assert_eq!(noted(&volume), Value::Null);
            }
        }
    }
}
