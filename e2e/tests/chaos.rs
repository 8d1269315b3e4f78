//! Pods under load, killed and deleted at random, while petset itself is killed at random, too: no write that a pod has
//! acknowledged is lost, no identity runs twice, and nothing is left behind: no process (and with it no namespace), no mount, no
//! cgroup, no network interface, no file.
//!
//! `PETSET_CHAOS_ROUNDS` and `PETSET_CHAOS_PODS` say how much of it (50 rounds of 30 pods are a good night's work).

use e2e::binary::{Cluster, Level, PATIENCE, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Each number goes to the journal first and is then acknowledged, on standard output. Somebody else with the same
/// journal would find it locked; and a process that is left of an earlier instance would still hold the lock.
const PROGRAM: &str = r#"
cd $PETSET_ROOT/journal
exec 9>>lock
flock -n 9 || echo "$HOSTNAME runs twice" >> violations
n=$(wc -l < journal || echo 0)
while :; do
  n=$((n + 1))
  echo $n >> journal && echo $n > acknowledged
  sleep 0.2
done
"#;

fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn manifest(pods: usize) -> Value {
    let container = json!({"name": "main", "image": "shell", "command": ["sh", "-c", PROGRAM],
        "resources": {"limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": "journal", "mountPath": "/journal"}]});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container],
        "automountServiceAccountToken": false});
    let claim = json!({"metadata": {"name": "journal"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "16Mi"}}}});
    let labels = json!({"app": "chaos"});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "chaos"}, "spec": {
        "serviceName": "chaos", "replicas": pods, "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": spec},
        "volumeClaimTemplates": [claim]}})
}

/// The volume of each pod.
fn volumes(cluster: &Cluster) -> Vec<PathBuf> {
    let volumes = cluster.get("pv");
    let items = volumes["items"].as_array().expect("a list");
    let path =
        |volume: &Value| PathBuf::from(volume["spec"]["hostPath"]["path"].as_str().expect("a directory"));
    items.iter().map(path).collect()
}

/// The last number that a pod has acknowledged; 0 while it is about to write it.
fn acknowledged(volume: &Path) -> usize {
    let text = fs::read_to_string(volume.join("acknowledged")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn check(volume: &Path, acknowledged: usize) {
    let violations = fs::read_to_string(volume.join("violations")).unwrap_or_default();
    assert_eq!(violations, "", "{}", volume.display());
    let journal = fs::read_to_string(volume.join("journal")).expect("there is a journal");
    let numbers: Vec<usize> = journal.lines().filter_map(|line| line.parse().ok()).collect();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected, "{}", volume.display());
    assert!(numbers.len() >= acknowledged, "{}", volume.display());
}

/// The main process of a pod, as its container's id tells.
fn main_process(pod: &Value) -> Option<Pid> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
    let running = &pod["status"]["containerStatuses"][0]["state"]["running"];
    let pid = id.strip_prefix("petset://")?.split('-').next()?.parse().ok()?;
    running.is_object().then_some(Pid::from_raw(pid))
}

/// One bad thing.
fn round(cluster: &mut Cluster, random: &mut SmallRng, pods: usize, arguments: &[&str]) {
    let name = format!("chaos-{}", random.random_range(0..pods));
    match random.random_range(0..6) {
        0 => {
            cluster.try_kubectl(&format!(
                "delete pod {name} --force --grace-period=0 --wait=false"
            ));
        }
        1 => {
            cluster.try_kubectl(&format!("delete pod {name} --wait=false"));
        }
        2 => {
            if cluster.holder().is_some() {
                cluster.kill_holder();
            }
        }
        3 => {
            if let Some(pid) = cluster
                .look(&format!("pod {name}"))
                .ok()
                .as_ref()
                .and_then(main_process)
            {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        _ => {
            cluster.try_kubectl(&format!("delete pod {name} --wait=false"));
            std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
            cluster.kill();
            if random.random_ratio(1, 4) && cluster.holder().is_some() {
                cluster.kill_holder();
            }
            cluster.start(arguments);
        }
    }
    std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
}

/// The UIDs of the pods that there are.
fn uids(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.get("pods");
    let items = pods["items"].as_array().expect("a list");
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().expect("a UID").to_owned();
    items.iter().map(uid).collect()
}

/// The cgroups of these pods.
fn cgroups(below: &Path, uids: &BTreeSet<String>) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found = Vec::new();
    for directory in directories {
        let name = directory.file_name().to_string_lossy().into_owned();
        if uids.iter().any(|uid| name.contains(uid)) {
            found.push(directory.path());
        }
        found.extend(cgroups(&directory.path(), uids));
    }
    found
}

const CGROUPS: &str = "/sys/fs/cgroup";

#[test]
fn whatever_is_killed_nothing_is_lost_doubled_or_left_with_mounts_of_their_own() {
    chaos(Level::MOUNTS);
}

#[test]
fn whatever_is_killed_nothing_is_lost_doubled_or_left_in_namespaces_of_root() {
    chaos(Level::ROOT);
}

#[test]
fn whatever_is_killed_nothing_is_lost_doubled_or_left_in_namespaces_of_an_ordinary_user() {
    chaos(Level::ORDINARY);
}

#[test]
fn whatever_is_killed_nothing_is_lost_doubled_or_left_of_plain_processes() {
    chaos(Level::PLAIN);
}

fn chaos(level: Level) {
    let (rounds, pods) = (number("PETSET_CHAOS_ROUNDS", 6), number("PETSET_CHAOS_PODS", 8));
    let seed = number("PETSET_CHAOS_SEED", std::process::id() as usize) as u64;
    eprintln!("PETSET_CHAOS_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let arguments = ["--crash-loop-max", "1"];
    let mut cluster = Cluster::at(level);
    cluster.start(&arguments);
    let manifest = cluster.write("chaos.json", &manifest(pods).to_string());
    cluster.kubectl(&format!("apply -f {}", manifest.display()));
    cluster.until_available("chaos", pods as i64);
    let volumes = volumes(&cluster);
    assert_eq!(volumes.len(), pods);
    let mut known = vec![0; pods];
    let mut all: BTreeSet<String> = uids(&cluster).into_iter().collect();
    for _ in 0..rounds {
        all.extend(uids(&cluster));
        round(&mut cluster, &mut random, pods, &arguments);
        for (volume, known) in volumes.iter().zip(&mut known) {
            *known = acknowledged(volume).max(*known);
        }
    }
    cluster.until_available("chaos", pods as i64);
    all.extend(uids(&cluster));
    for (volume, known) in volumes.iter().zip(known) {
        eventually("it goes on writing", PATIENCE, || {
            let now = acknowledged(volume);
            if now > known {
                Ok(())
            } else {
                Err(format!("{now} after {known}"))
            }
        });
        check(volume, known);
    }
    cluster.kubectl("delete sts chaos");
    cluster.until_gone("pod chaos-0");
    eventually("no pod is left", PATIENCE, || {
        let left = cluster.kubectl("get pods -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    cluster.terminate();
    eventually("no process is left", PATIENCE, || {
        let left = cluster.processes();
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    });
    assert_eq!(cgroups(Path::new(CGROUPS), &all), Vec::<PathBuf>::new());
    let links = run(Command::new("ip").args(["-o", "link"])).ok();
    assert!(!links.contains("pet"), "{links}");
    let directory = cluster.data_dir();
    let left: Vec<_> = fs::read_dir(directory.join("pods"))
        .expect("listed")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
    assert!(!mounts.contains(&directory.display().to_string()), "{mounts}");
}
