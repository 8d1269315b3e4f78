//! Who a process is, what it finds again, and in which order processes come and go.

use crate::sets::{
    cluster, create, directory, ends, is_ready, names, pods, resume, scale, set, uid, until_says, with_ready,
};
use e2e::binary::{PATIENCE, eventually};
use serde_json::json;
use std::fs;
use std::path::Path;

const NAMES: [&str; 3] = ["web-0", "web-1", "web-2"];

/// E1.
#[test]
fn each_process_has_its_pods_name_and_finds_its_files_again_after_a_scale_to_0() {
    let cluster = cluster();
    create(&cluster, &set(&cluster, json!({"replicas": 3})));
    for (index, name) in NAMES.into_iter().enumerate() {
        until_says(&cluster, name, "hostname", &format!("{name}\n"));
        cluster.until("sts web", |set| {
            let ready = set["status"]["readyReplicas"].as_u64().unwrap_or(0);
            usize::try_from(ready) == Ok(index)
        });
        assert_eq!(pods(&cluster), NAMES[..=index], "the next one waits for this one");
        resume(&cluster, name);
    }
    cluster.until_available("web", 3);
    for name in NAMES {
        let link = directory(&cluster, name).join("link");
        assert_eq!(fs::read_link(link).expect("a link"), Path::new("hostname"));
    }
    let claims = NAMES.map(|name| uid(&cluster.get(&format!("pvc data-{name}"))).to_owned());

    scale(&cluster, 0);
    cluster.until_available("web", 0);
    eventually("no process is left", PATIENCE, || {
        let left = cluster.processes();
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    });
    assert_eq!(ends(&cluster), ["web-2", "web-1", "web-0"]);
    scale(&cluster, 3);
    cluster.until_available("web", 3);
    for (name, claim) in NAMES.iter().zip(&claims) {
        assert_eq!(uid(&cluster.get(&format!("pvc data-{name}"))), claim);
        // Once for each life; the second wrote into what the first had left.
        until_says(&cluster, name, "hostname", &format!("{name}\n{name}\n"));
        until_says(&cluster, name, "link", &format!("{name}\n{name}\n"));
    }
}

/// E11.
#[test]
fn a_parallel_set_grows_and_shrinks_though_its_processes_are_unready() {
    let cluster = cluster();
    create(
        &cluster,
        &set(
            &cluster,
            json!({"replicas": 1, "podManagementPolicy": "Parallel"}),
        ),
    );
    until_says(&cluster, "web-0", "hostname", "web-0\n");
    scale(&cluster, 3);
    for name in NAMES {
        until_says(&cluster, name, "hostname", &format!("{name}\n"));
        assert!(!is_ready(&cluster.get(&format!("pod {name}"))), "{name}");
    }
    for name in NAMES {
        resume(&cluster, name);
    }
    cluster.until_available("web", 3);
    for name in NAMES {
        crate::sets::break_(&cluster, name);
    }
    let unready = cluster.until("sts web", |set| set["status"]["readyReplicas"].is_null());
    assert_eq!(unready["status"]["replicas"], 3);
    scale(&cluster, 0);
    cluster.until_available("web", 0);
    assert!(pods(&cluster).is_empty());
    let mut ended = ends(&cluster);
    ended.sort_unstable();
    assert_eq!(ended, NAMES);
}

/// R47: the documented way to an ordered end; claims and data stay.
#[test]
fn a_set_that_is_scaled_to_0_and_then_deleted_ends_in_order() {
    let cluster = with_ready(json!({"replicas": 3}));
    let directories = NAMES.map(|name| directory(&cluster, name));
    scale(&cluster, 0);
    cluster.until_available("web", 0);
    cluster.kubectl("delete sts web");
    cluster.until_gone("sts web");
    assert_eq!(ends(&cluster), ["web-2", "web-1", "web-0"]);
    eventually("no process is left", PATIENCE, || {
        let left = cluster.processes();
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    });
    assert_eq!(names(&cluster, "pvc"), NAMES.map(|name| format!("data-{name}")));
    assert!(
        directories
            .iter()
            .all(|directory| directory.join("hostname").is_file())
    );
}

/// R29a, and what the kubelet does with a process that ends: it runs again in the same pod.
#[test]
fn a_process_that_ends_by_itself_runs_again_in_the_same_pod() {
    let cluster = with_ready(json!({"replicas": 1}));
    let pod = cluster.get("pod web-0");
    // The program that `sh` was started for by the shim, known by where it stands.
    let data = directory(&cluster, "web-0");
    until_says(&cluster, "web-0", "hostname", "web-0\n");
    let killed = cluster
        .processes()
        .iter()
        .filter(|line| line.contains("uname -n") && !line.contains("petset"))
        .filter_map(|line| line.split_once(':')?.0.parse::<i32>().ok())
        .map(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL))
        .filter(Result::is_ok)
        .count();
    assert!(killed > 0, "{:?}", cluster.processes());
    until_says(&cluster, "web-0", "hostname", "web-0\nweb-0\n");
    let again = cluster.until("pod web-0", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(pod)
    });
    assert_eq!(uid(&again), uid(&pod));
    assert_eq!(again["status"]["podIP"], pod["status"]["podIP"]);
    assert_eq!(directory(&cluster, "web-0"), data);
}
