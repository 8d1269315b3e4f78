//! What hostile manifests try, and what comes of it: names and paths that lead out of volumes, environments that no
//! program can have. (A container's own attempts are in `kubelet/tests/view.rs`, archives' in the image's tests.)

use e2e::binary::{Cluster, Level, PATIENCE, Ran, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A pod whose container mounts a volume that an init container has prepared.
fn pod(prepare: &str, mount: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [{
                "name": "prepare",
                "image": "busybox",
                "command": ["sh", "-c", prepare],
                "volumeMounts": [{"name": "v", "mountPath": "/tmp/v"}]
            }],
            "containers": [{
                "name": "c",
                "image": "busybox",
                "command": ["sh", "-c", "ls $PETSET_ROOT/tmp/inside; sleep 1000"],
                "volumeMounts": [mount]
            }]
        }
    })
}

fn apply(cluster: &Cluster, object: &Value) -> Ran {
    let file = cluster.write("object.json", &object.to_string());
    cluster.try_kubectl(&format!("apply -f {}", file.display()))
}

#[test]
fn names_and_paths_that_lead_out_of_a_volume_are_refused_by_the_api() {
    let cluster = Cluster::up();
    let mount = |sub_path: &str| json!({"name": "v", "mountPath": "/tmp/inside", "subPath": sub_path});
    for (sub_path, message) in [
        ("../..", "must not contain '..'"),
        ("/etc", "must be a relative path"),
    ] {
        let refused = apply(&cluster, &pod("true", mount(sub_path))).fails();
        assert!(refused.contains(message), "{sub_path}: {refused}");
    }
    for name in ["..", "a/../../b", "../../../etc"] {
        let mut object = pod("true", json!({"name": name, "mountPath": "/tmp/inside"}));
        object["spec"]["volumes"][0]["name"] = json!(name);
        object["spec"]["initContainers"] = json!([]);
        let refused = apply(&cluster, &object).fails();
        assert!(
            refused.contains("spec.volumes[0].name: Invalid value"),
            "{name}: {refused}"
        );
    }
    let mut object = pod("true", json!({"name": "v", "mountPath": "/tmp/inside"}));
    object["spec"]["volumes"][0] =
        json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "../../x"}]}});
    let refused = apply(&cluster, &object).fails();
    assert!(refused.contains("must not contain '..'"), "{refused}");
}

/// What hostile pods do when they run, one after the other in one cluster, which has bounds for logs.
fn everything(level: Level, bounds: &[&str]) {
    let mut cluster = Cluster::at(level);
    let logs = ["--container-log-max-size=64Ki", "--container-log-max-files=3"];
    cluster.start(&[&logs, bounds].concat());
    a_sub_path_through_a_link_out_of_the_volume_is_never_mounted_and_one_inside_is(&cluster);
    an_environment_that_no_program_can_have_fails_to_start_and_harms_nothing_else(&cluster);
    a_flood_of_output_keeps_to_the_log_s_bounds_and_can_be_read_and_ended(&cluster);
    if !bounds.is_empty() {
        who_forks_without_end_comes_to_one(&cluster);
    }
}

/// Of processes, in a container.
const MOST: &str = "--pod-max-pids=40";

#[test]
fn hostile_pods_with_mounts_of_their_own() {
    everything(Level::MOUNTS, &[]);
}

#[test]
fn hostile_pods_in_namespaces_of_root() {
    everything(Level::ROOT, &[MOST]);
}

#[test]
fn hostile_pods_in_namespaces_of_an_ordinary_user() {
    everything(Level::ORDINARY, &[MOST]);
}

#[test]
fn hostile_plain_processes() {
    everything(Level::PLAIN, &[]);
}

/// The kernel refuses the shell a process, and it gives up; all that it has started goes with its container.
fn who_forks_without_end_comes_to_one(cluster: &Cluster) {
    let mut object = pod("true", json!({"name": "v", "mountPath": "/tmp/inside"}));
    object["spec"]["initContainers"] = json!([]);
    object["spec"]["restartPolicy"] = json!("Never");
    let script = "n=0; while [ $n -lt 1000 ]; do sleep 4321 & n=$((n + 1)); echo $n; done";
    object["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    apply(cluster, &object).ok();
    let ended = cluster.until("pod p", |pod| pod["status"]["phase"] == "Failed");
    let terminated = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 2, "{ended:#}");
    let log = cluster.kubectl("logs p");
    assert!(log.contains("Cannot fork"), "{log}");
    let most = log.lines().filter_map(|line| line.parse::<u32>().ok()).max();
    assert!(most.is_some_and(|most| (20..40).contains(&most)), "{log}");
    let left: Vec<String> = cluster.processes();
    assert!(!left.iter().any(|line| line.contains("4321")), "{left:#?}");
    cluster.kubectl("delete pod p");
}

fn a_sub_path_through_a_link_out_of_the_volume_is_never_mounted_and_one_inside_is(cluster: &Cluster) {
    let mount = json!({"name": "v", "mountPath": "/tmp/inside", "subPath": "link"});
    for target in ["/etc", "../../../../../../etc"] {
        let prepare = format!("ln -s {target} $PETSET_ROOT/tmp/v/link");
        apply(cluster, &pod(&prepare, mount.clone())).ok();
        let state = cluster.until("pod p", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CreateContainerConfigError"
        });
        let message = &state["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
        let message = message.as_str().expect("a message");
        let expected = "failed to prepare subPath for volumeMount \"v\" of container \"c\"";
        assert!(message.starts_with(expected), "{message}");
        cluster.kubectl("delete pod p --now");
    }
    let prepare = "cd $PETSET_ROOT/tmp/v; mkdir real; touch real/seen; ln -s real link";
    apply(cluster, &pod(prepare, mount)).ok();
    cluster.until("pod p", |pod| pod["status"]["phase"] == "Running");
    let seen = || cluster.kubectl("logs p -c c");
    eventually("the log", PATIENCE, || match seen() {
        log if log.trim() == "seen" => Ok(()),
        log => Err(log),
    });
    cluster.kubectl("delete pod p --now");
}

fn an_environment_that_no_program_can_have_fails_to_start_and_harms_nothing_else(cluster: &Cluster) {
    let mut object = pod("true", json!({"name": "v", "mountPath": "/tmp/inside"}));
    object["spec"]["initContainers"] = json!([]);
    // The kernel takes no string of more than 128 KiB.
    object["spec"]["containers"][0]["env"] = json!([{"name": "HUGE", "value": "x".repeat(200 << 10)}]);
    let file = cluster.write("object.json", &object.to_string());
    // Not applied: its annotation would be as huge.
    cluster.kubectl(&format!("create -f {}", file.display()));
    let failed = |state: &Value| state["terminated"]["reason"] == "StartError";
    let found = cluster.until("pod p", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        failed(&status["state"]) || failed(&status["lastState"])
    });
    let status = &found["status"]["containerStatuses"][0];
    let states = [&status["state"], &status["lastState"]];
    let terminated = states
        .into_iter()
        .find(|state| failed(state))
        .expect("it was just seen");
    let message = terminated["terminated"]["message"].as_str().expect("a message");
    assert!(message.contains("argument list too long"), "{message}");
    assert_eq!(terminated["terminated"]["exitCode"], 128);
    object["metadata"]["name"] = json!("q");
    object["spec"]["containers"][0]["env"] = json!([]);
    apply(cluster, &object).ok();
    cluster.until("pod q", |pod| pod["status"]["phase"] == "Running");
    cluster.kubectl("delete pod p q --now");
}

/// The files of the log of container `c` of pod `p`, with their sizes. A file that is renamed meanwhile counts by either name.
fn log_files(cluster: &Cluster) -> BTreeMap<String, u64> {
    let pods = std::fs::read_dir(cluster.data_dir().join("pods")).expect("listed");
    pods.flatten()
        .filter(|pod| pod.file_name().to_string_lossy().starts_with("default_p_"))
        .flat_map(|pod| {
            std::fs::read_dir(pod.path().join("containers/c"))
                .into_iter()
                .flatten()
        })
        .flatten()
        .map(|file| {
            let size = file.metadata().map_or(0, |m| m.len());
            (file.file_name().to_string_lossy().into_owned(), size)
        })
        .filter(|(name, _)| name.contains(".log"))
        .collect()
}

fn a_flood_of_output_keeps_to_the_log_s_bounds_and_can_be_read_and_ended(cluster: &Cluster) {
    let mut object = pod("true", json!({"name": "v", "mountPath": "/tmp/inside"}));
    object["spec"]["containers"][0]["command"] = json!(["yes", "flood"]);
    apply(cluster, &object).ok();
    eventually("the oldest of it has gone", PATIENCE, || {
        let files = log_files(cluster);
        let first = cluster.try_kubectl("logs p -c c --tail=1");
        (files.contains_key("0.log.2") && first.status.success())
            .then_some(())
            .ok_or_else(|| format!("{files:?}, {first}"))
    });
    for _ in 0..6 {
        let files = log_files(cluster);
        let known = |name: &String| ["0.log", "0.log.1", "0.log.2"].contains(&name.as_str());
        // Each file may be passed by what is read at once, with its times.
        let small = |size: &u64| *size < (64 << 10) + (1 << 20);
        assert!(files.keys().all(known) && files.values().all(small), "{files:?}");
        // The last line may not have been read to its end yet.
        let last = cluster.kubectl("logs p -c c --tail=1");
        assert!(!last.is_empty() && "flood\n".contains(&last), "{last:?}");
    }
    cluster.kubectl("delete pod p --grace-period=1");
    cluster.until_gone("pod p");
}
