//! An identity never runs twice, whatever is done to its pod: the successor of one that was deleted, and then removed by force
//! while it was still stopping, waits until the last process of the one before is gone.
//!
//! What keeps the old pod is no clock: its preStop hook waits for a gate that nobody opens, and its shim, which would have to
//! kill it, is stopped (SIGSTOP).
//!
//! Neither does a container run beside what is left of the instance before it when all who held that were killed.

use e2e::binary::{Cluster, Level, PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Who finds the journal locked runs beside somebody. The lock is held by a process below the main one, too, which has a
/// session of its own and ignores SIGTERM as its parent does.
const PROGRAM: &str = r#"
cd $PETSET_ROOT/journal
exec 9>>lock
flock -n 9 || echo "$HOSTNAME runs twice" >> violations
trap '' TERM
[ -e gate ] || mkfifo gate
setsid sleep 10000 &
echo start >> starts
while :; do sleep 0.1; done
"#;

fn manifest() -> Value {
    let container = json!({"name": "main", "image": "shell", "command": ["sh", "-c", PROGRAM],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "cat $PETSET_ROOT/journal/gate"]}}},
        "volumeMounts": [{"name": "journal", "mountPath": "/journal"}]});
    let claim = json!({"metadata": {"name": "journal"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "16Mi"}}}});
    let labels = json!({"app": "one"});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "one"}, "spec": {
        "serviceName": "one", "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 600, "containers": [container]}},
        "volumeClaimTemplates": [claim]}})
}

/// A pod of another name, which has nothing to wait for.
fn witness(name: &str) -> Value {
    let container = json!({"name": "c", "image": "shell", "command": ["sleep", "10000"]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
}

/// A process that stands still until this is dropped.
struct Still(Pid);

impl Still {
    fn hold(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).expect("it is ours");
        Self(pid)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
}

/// The main process of a pod, as its container's id tells.
fn main_process(pod: &Value) -> i32 {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    let pid = id.and_then(|id| id.strip_prefix("petset://")?.split('-').next()?.parse().ok());
    pid.unwrap_or_else(|| panic!("no process id in {pod:#}"))
}

/// The shim that started a process.
fn shim_of(pid: i32) -> Pid {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("a name").1;
    let parent = fields.split_whitespace().nth(1).expect("a parent");
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).expect("it runs");
    assert_eq!(name.trim(), "petset-shim");
    Pid::from_raw(parent.parse().expect("a number"))
}

/// Where the only volume is.
fn volume_of(cluster: &Cluster) -> PathBuf {
    let path = cluster.get("pv")["items"][0]["spec"]["hostPath"]["path"].clone();
    PathBuf::from(path.as_str().expect("a directory"))
}

fn starts(volume: &Path) -> String {
    fs::read_to_string(volume.join("starts")).unwrap_or_default()
}

fn until_started(volume: &Path, times: usize) {
    eventually("the program has started", PATIENCE, || {
        let starts = starts(volume);
        (starts.lines().count() == times).then_some(()).ok_or(starts)
    });
}

fn the_successor_waits(level: Level) {
    let mut cluster = Cluster::at(level);
    cluster.start(&[]);
    cluster.create(&manifest());
    let pod = cluster.until("pod one-0", is_running);
    let volume = volume_of(&cluster);
    until_started(&volume, 1);
    let process = main_process(&pod);
    cluster.kubectl("delete pod one-0 --wait=false");
    let of_pod = "events --field-selector involvedObject.name=one-0,reason=Killing";
    cluster.until(of_pod, |events| {
        events["items"].as_array().is_some_and(|items| !items.is_empty())
    });
    let still = Still::hold(shim_of(process));
    cluster.kubectl("delete pod one-0 --force --grace-period=0 --wait=false");
    let other = |found: &Value| {
        found["metadata"]["uid"] != pod["metadata"]["uid"] && found["spec"]["nodeName"].is_string()
    };
    let successor = cluster.until("pod one-0", other);
    // Who is made later, again and again, has long been running.
    for number in 0..4 {
        let name = format!("witness-{number}");
        cluster.create(&witness(&name));
        cluster.until(&format!("pod {name}"), is_running);
    }
    let now = cluster.get("pod one-0");
    assert_eq!(now["metadata"]["uid"], successor["metadata"]["uid"]);
    assert!(!is_running(&now), "{now:#}");
    assert_eq!(starts(&volume), "start\n");
    assert_eq!(shim_of(process), still.0, "the one before is still there");
    drop(still);
    cluster.until("pod one-0", is_running);
    until_started(&volume, 2);
    assert!(!volume.join("violations").exists());
    // So that the cluster can be stopped without waiting for the gate.
    cluster.kubectl("delete sts one --cascade=orphan");
    cluster.kubectl("delete pod one-0 --force --grace-period=0");
}

#[test]
fn a_successor_waits_for_the_last_process_of_a_pod_that_was_removed_by_force_in_namespaces() {
    the_successor_waits(Level::ROOT);
}

#[test]
fn a_successor_waits_for_the_last_process_of_a_pod_that_was_removed_by_force_without_any() {
    the_successor_waits(Level::PLAIN);
}

fn nothing_is_left_when_all_who_held_it_are_killed(level: Level) {
    let mut cluster = Cluster::at(level);
    cluster.start(&["--crash-loop-max=1"]);
    cluster.create(&manifest());
    let pod = cluster.until("pod one-0", is_running);
    let volume = volume_of(&cluster);
    until_started(&volume, 1);
    let shim = shim_of(main_process(&pod));
    // Now nobody inherits what the shim leaves behind, and what the main process started has lost both parents.
    cluster.kill_holder();
    kill(shim, Signal::SIGKILL).expect("it runs");
    until_started(&volume, 2);
    assert!(!volume.join("violations").exists());
    cluster.kubectl("delete sts one --cascade=orphan");
    cluster.kubectl("delete pod one-0 --force --grace-period=0");
}

#[test]
fn a_container_waits_for_what_killed_ones_left_behind_in_namespaces() {
    nothing_is_left_when_all_who_held_it_are_killed(Level::ROOT);
}

#[test]
fn a_container_waits_for_what_killed_ones_left_behind_with_mounts_of_its_own() {
    nothing_is_left_when_all_who_held_it_are_killed(Level::MOUNTS);
}

#[test]
fn a_container_waits_for_what_killed_ones_left_behind_without_any() {
    nothing_is_left_when_all_who_held_it_are_killed(Level::PLAIN);
}
