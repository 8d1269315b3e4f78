//! A reboot of the machine: every process is gone at once, the kernel counts processes anew, and files are as they were. Pods
//! come back as themselves, as on a node of another cluster: the same objects, each container started once more.

use e2e::binary::{Cluster, Level, PATIENCE, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// It is ready once somebody has put a file into its volume.
const PROGRAM: &str = r#"
cd $PETSET_ROOT/data
exec 9>>lock
flock -n 9 || echo "$HOSTNAME runs twice" >> violations
echo start >> starts
trap 'exit 0' TERM
while :; do sleep 1 & wait $!; done
"#;

fn manifest() -> Value {
    let volume = json!([{"name": "data", "mountPath": "/data"}]);
    let main = json!({"name": "main", "image": "shell", "command": ["sh", "-c", PROGRAM], "volumeMounts": volume,
        "readinessProbe": {"periodSeconds": 1, "exec": {"command": ["sh", "-c", "test -e $PETSET_ROOT/data/ready"]}}});
    let init = json!({"name": "init", "image": "shell", "volumeMounts": volume,
        "command": ["sh", "-c", "echo init >> $PETSET_ROOT/data/starts"]});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "16Mi"}}}});
    let labels = json!({"app": "db"});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "serviceName": "db", "replicas": 3, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 5, "initContainers": [init], "containers": [main]}},
        "volumeClaimTemplates": [claim]}})
}

fn volume(cluster: &Cluster, pod: &str) -> PathBuf {
    let claim = cluster.get(&format!("pvc data-{pod}"));
    let name = claim["spec"]["volumeName"].as_str().expect("it is bound");
    let volume = cluster.get(&format!("pv {name}"));
    let path = volume["spec"]["hostPath"]["path"].as_str();
    PathBuf::from(path.expect("it is a directory"))
}

/// When a process started, as the kernel counts it.
fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("a name").1;
    let start = fields.split_whitespace().nth(19);
    start.and_then(|number| number.parse().ok()).expect("a number")
}

/// What the kubelet's notes are after a reboot: of another boot of the kernel. And what they name may be there again, as
/// somebody else's process.
fn age_notes(directory: &Path, bystander: &Child) -> usize {
    let mut aged = 0;
    for entry in fs::read_dir(directory).expect("listed").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            aged += age_notes(&path, bystander);
        } else if entry.file_name() == "shim.json" {
            let mut notes: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
            assert!(notes["boot"].is_string(), "{notes}");
            notes["boot"] = json!("another");
            let process = json!([bystander.id(), start_time(bystander.id())]);
            let processes = notes["processes"].as_array_mut().expect("a list");
            processes.push(process.clone());
            notes["shim"] = process;
            fs::write(&path, notes.to_string()).expect("written");
            aged += 1;
        }
    }
    aged
}

fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn everything_comes_back(level: Level) {
    let mut cluster = Cluster::at(level);
    cluster.start(&[]);
    cluster.create(&manifest());
    cluster.until("pod db-0", |pod| status(pod)["state"]["running"].is_object());
    let first = volume(&cluster, "db-0");
    fs::write(first.join("ready"), "").expect("written");
    cluster.until("pod db-1", |pod| status(pod)["state"]["running"].is_object());
    let second = volume(&cluster, "db-1");
    let starts = |volume: &Path, expected: &str| {
        eventually("the program has started", PATIENCE, || {
            let text = fs::read_to_string(volume.join("starts")).unwrap_or_default();
            (text == expected).then_some(()).ok_or(text)
        });
    };
    starts(&second, "init\nstart\n");
    let before = ["db-0", "db-1"].map(|name| cluster.get(&format!("pod {name}")));

    let mut bystander = Command::new("sleep").arg("10000").spawn().expect("sleep");
    cluster.lose_power();
    assert!(age_notes(&cluster.data_dir().join("pods"), &bystander) >= 2);
    cluster.start(&[]);

    for (name, before) in ["db-0", "db-1"].iter().zip(&before) {
        let pod = cluster.until(&format!("pod {name}"), |pod| {
            status(pod)["restartCount"] == 1 && status(pod)["state"]["running"].is_object()
        });
        assert_eq!(pod["metadata"]["uid"], before["metadata"]["uid"], "the same pod");
        let last = &status(&pod)["lastState"]["terminated"];
        assert_eq!(last["containerID"], status(before)["containerID"], "{pod:#}");
        assert_ne!(status(&pod)["containerID"], status(before)["containerID"]);
        let events = format!("events --field-selector involvedObject.name={name},reason=SandboxChanged");
        let events = cluster.until(&events, |events| {
            events["items"].as_array().is_some_and(|items| !items.is_empty())
        });
        let message = "Pod sandbox changed, it will be killed and re-created.";
        assert_eq!(events["items"][0]["message"], message);
    }
    for volume in [&first, &second] {
        starts(volume, "init\nstart\ninit\nstart\n");
        assert!(!volume.join("violations").exists());
    }
    cluster.until("pod db-0", |pod| status(pod)["ready"] == true);
    // The set goes on where it was: the third is made once the second is ready, not before.
    assert!(cluster.look("pod db-2").is_err(), "its turn has not come");
    fs::write(second.join("ready"), "").expect("written");
    cluster.until("pod db-2", |pod| status(pod)["state"]["running"].is_object());
    assert_eq!(bystander.try_wait().expect("it is our child"), None, "it lives");
    bystander.kill().expect("it is ours to kill");
    bystander.wait().expect("it is our child");
}

#[test]
fn everything_comes_back_after_a_reboot_in_namespaces_of_root() {
    everything_comes_back(Level::ROOT);
}

#[test]
fn everything_comes_back_after_a_reboot_in_namespaces_of_an_ordinary_user() {
    everything_comes_back(Level::ORDINARY);
}

#[test]
fn everything_comes_back_after_a_reboot_of_plain_processes() {
    everything_comes_back(Level::PLAIN);
}
