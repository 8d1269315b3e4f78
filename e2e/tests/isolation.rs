//! Pods in networks of their own, as root and as an ordinary user, and plain processes: what people see of it.

use e2e::binary::{Cluster, Level, Lines, PATIENCE, eventually, repository, run};
use serde_json::Value;
use std::process::Command;

/// A cluster with the two pods of `twins.yaml`, both ready.
fn twins(level: Level) -> Cluster {
    let mut cluster = Cluster::at(level);
    cluster.start(&[]);
    let manifest = repository("e2e/manifests/twins.yaml").display().to_string();
    cluster.kubectl(&format!("apply -f {manifest}"));
    // Their probes are HTTP requests, so they have been reached when they are ready.
    cluster.until_available("twins", 2);
    cluster
}

/// `kubectl exec POD -- sh -c SCRIPT`
#[track_caller]
fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    run(&mut cluster.kubectl_command(&["exec", pod, "--", "sh", "-c", script])).ok()
}

/// `petset shell -- sh -c SCRIPT`
#[track_caller]
fn shell(cluster: &Cluster, script: &str) -> String {
    run(&mut cluster.petset(&["shell", "--", "sh", "-c", script])).ok()
}

fn pods_with_the_same_port_find_each_other(level: Level) {
    let cluster = twins(level);
    let name_of = |url: &str| format!("curl -sS --max-time 20 http://{url}/name");
    assert_eq!(exec(&cluster, "twins-0", &name_of("twins-1.twins")), "twins-1\n");
    let whole = "twins-0.twins.default.svc.cluster.local";
    assert_eq!(exec(&cluster, "twins-1", &name_of(whole)), "twins-0\n");
    assert_eq!(exec(&cluster, "twins-1", &name_of("127.0.0.1")), "twins-1\n");
    let ip = cluster.get("pod twins-1")["status"]["podIP"].clone();
    let ip = ip.as_str().expect("an address");
    assert!(ip.starts_with("10.244."), "{ip}");
    assert_eq!(exec(&cluster, "twins-1", "hostname -I || hostname -i").trim(), ip);
}

#[test]
fn pods_with_the_same_port_find_each_other_as_root() {
    pods_with_the_same_port_find_each_other(Level::ROOT);
}

#[test]
fn pods_with_the_same_port_find_each_other_as_an_ordinary_user() {
    pods_with_the_same_port_find_each_other(Level::ORDINARY);
}

fn people_reach_pods_from_outside(level: Level) {
    let cluster = twins(level);
    let logs = cluster.kubectl("logs twins-0");
    assert!(logs.starts_with("I am twins-0\n"), "{logs}");
    let proxy = "get --raw /api/v1/namespaces/default/pods/twins-1/proxy/name";
    assert_eq!(cluster.kubectl(proxy), "twins-1\n");
    let forward = ["port-forward", "--address=127.0.0.1", "pod/twins-0", ":80"];
    let forward = Lines::of(&mut cluster.kubectl_command(&forward));
    let prefix = "Forwarding from 127.0.0.1:";
    let line = forward.until("the port that is forwarded", |line| line.starts_with(prefix));
    let port = line.trim_start_matches(prefix).split(' ').next().expect("a port");
    let url = format!("http://127.0.0.1:{port}/name");
    let said = run(Command::new("curl").args(["-sS", "--max-time", "20", &url])).ok();
    assert_eq!(said, "twins-0\n");
    assert_eq!(
        shell(&cluster, "curl -sS --max-time 20 http://twins-1.twins/name"),
        "twins-1\n"
    );
    let found = shell(&cluster, "dig +short +search twins A | sort");
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(shell(&cluster, "kubectl get pods -o name").contains("pod/twins-0"));
    let failed = run(&mut cluster.petset(&["shell", "--", "sh", "-c", "exit 7"]));
    assert_eq!(failed.status.code(), Some(7));
}

#[test]
fn people_reach_pods_from_outside_as_root() {
    people_reach_pods_from_outside(Level::ROOT);
}

#[test]
fn people_reach_pods_from_outside_as_an_ordinary_user() {
    people_reach_pods_from_outside(Level::ORDINARY);
}

fn a_pod_reaches_the_api(level: Level) {
    let cluster = twins(level);
    let script = "dir=/var/run/secrets/kubernetes.io/serviceaccount; \
                  curl -sS --max-time 20 --cacert $dir/ca.crt -H \"Authorization: Bearer $(cat $dir/token)\" \
                  https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version";
    let version = exec(&cluster, "twins-0", script);
    assert!(version.contains("\"gitVersion\": \"v1.36"), "{version}");
}

#[test]
fn a_pod_reaches_the_api_as_root() {
    a_pod_reaches_the_api(Level::ROOT);
}

#[test]
fn a_pod_reaches_the_api_as_an_ordinary_user() {
    a_pod_reaches_the_api(Level::ORDINARY);
}

fn a_pod_on_the_nodes_network_has_the_nodes_address(level: Level) {
    let cluster = twins(level);
    let manifest = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host"}, "spec": {"hostNetwork": true,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "1000"]}]}}"#;
    let manifest = cluster.write("host.json", manifest).display().to_string();
    cluster.kubectl(&format!("apply -f {manifest}"));
    let pod = cluster.until("pod host", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"], "{pod:#}");
    let to = cluster.get("pod twins-0")["status"]["podIP"].clone();
    let to = to.as_str().expect("an address");
    let said = exec(
        &cluster,
        "host",
        &format!("curl -sS --max-time 20 http://{to}/name"),
    );
    assert_eq!(said, "twins-0\n");
    // It is gone before the rest, and takes nobody's address along.
    cluster.kubectl("delete pod host");
    assert_eq!(
        exec(
            &cluster,
            "twins-1",
            "curl -sS --max-time 20 http://twins-0.twins/name"
        ),
        "twins-0\n"
    );
}

#[test]
fn a_pod_on_the_nodes_network_has_the_nodes_address_as_root() {
    a_pod_on_the_nodes_network_has_the_nodes_address(Level::ROOT);
}

#[test]
fn a_pod_on_the_nodes_network_has_the_nodes_address_as_an_ordinary_user() {
    a_pod_on_the_nodes_network_has_the_nodes_address(Level::ORDINARY);
}

/// Stop it: no process and no link is left.
fn ends_without_a_trace(cluster: &mut Cluster) {
    assert!(cluster.terminate().success());
    eventually("all processes have gone", PATIENCE, || {
        let left = cluster.processes();
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    });
    let links = run(Command::new("ip").args(["-o", "link"])).ok();
    assert!(!links.contains("pet"), "{links}");
}

fn nothing_is_left_behind(level: Level) {
    let mut cluster = twins(level);
    let status = run(&mut cluster.petset(&["status"])).ok();
    assert!(
        status.contains("Isolation   namespaces (as --isolation says)"),
        "{status}"
    );
    assert!(status.contains("Pods        10.244.0.0/16"), "{status}");
    ends_without_a_trace(&mut cluster);
    // The same addresses again.
    cluster.start(&[]);
    cluster.until_available("twins", 2);
}

#[test]
fn nothing_is_left_behind_as_root() {
    nothing_is_left_behind(Level::ROOT);
}

#[test]
fn nothing_is_left_behind_as_an_ordinary_user() {
    nothing_is_left_behind(Level::ORDINARY);
}

#[test]
fn petset_may_be_killed_and_pods_are_reached_as_before() {
    let mut cluster = twins(Level::ORDINARY);
    let before = cluster.get("pod twins-0");
    cluster.kill();
    cluster.start(&[]);
    let url = "get --raw /api/v1/namespaces/default/pods/twins-0/proxy/name";
    eventually("the proxy reaches the pod again", PATIENCE, || {
        let ran = cluster.try_kubectl(url);
        (ran.out == "twins-0\n")
            .then_some(())
            .ok_or_else(|| ran.to_string())
    });
    let after = cluster.get("pod twins-0");
    for pointer in [
        "/metadata/uid",
        "/status/podIP",
        "/status/containerStatuses/0/containerID",
    ] {
        assert_eq!(before.pointer(pointer), after.pointer(pointer), "{pointer}");
    }
    eventually("names are answered again", PATIENCE, || {
        let script = "curl -sS --max-time 5 http://twins-0.twins/name";
        let ran = run(&mut cluster.kubectl_command(&["exec", "twins-1", "--", "sh", "-c", script]));
        (ran.out == "twins-0\n")
            .then_some(())
            .ok_or_else(|| ran.to_string())
    });
}

/// The containers' ids, by which instances are told apart.
fn containers(cluster: &Cluster) -> Vec<Value> {
    let pods = cluster.get("pods");
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    pods["items"].as_array().expect("a list").iter().map(id).collect()
}

/// Both find each other by name, and petset finds both.
#[track_caller]
fn reach_each_other(cluster: &Cluster, pods: [&str; 2]) {
    for (one, other) in [(pods[0], pods[1]), (pods[1], pods[0])] {
        let url = format!("http://{other}.twins/name");
        eventually(&format!("{one} reaches {other}"), PATIENCE, || {
            let script = format!("curl -sS --max-time 5 {url}");
            let ran = run(&mut cluster.kubectl_command(&["exec", one, "--", "sh", "-c", &script]));
            (ran.out.trim() == other)
                .then_some(())
                .ok_or_else(|| ran.to_string())
        });
        let proxy = format!("get --raw /api/v1/namespaces/default/pods/{one}/proxy/name");
        let ran = cluster.try_kubectl(&proxy);
        assert_eq!(ran.out.trim(), one, "{ran}");
    }
}

fn a_holder_may_be_killed_and_the_next_one_is_in_the_same_network(level: Level) {
    let mut cluster = twins(level);
    let before = containers(&cluster);
    // Petset goes on, and needs another one at once.
    cluster.kill_holder();
    reach_each_other(&cluster, ["twins-0", "twins-1"]);
    cluster.kubectl("scale sts twins --replicas=3");
    cluster.until_available("twins", 3);
    reach_each_other(&cluster, ["twins-0", "twins-2"]);
    assert_eq!(containers(&cluster)[..2], before);

    let before = containers(&cluster);
    cluster.kill();
    cluster.kill_holder();
    assert_eq!(cluster.holder(), None);
    cluster.start(&[]);
    reach_each_other(&cluster, ["twins-0", "twins-2"]);
    cluster.kubectl("scale sts twins --replicas=4");
    cluster.until_available("twins", 4);
    reach_each_other(&cluster, ["twins-0", "twins-3"]);
    assert_eq!(containers(&cluster)[..3], before);
    let found = shell(&cluster, "dig +short +search twins A");
    assert_eq!(found.lines().count(), 4, "{found}");

    // Without any holder it can be stopped, and everything goes.
    cluster.kill_holder();
    ends_without_a_trace(&mut cluster);
}

#[test]
fn a_holder_may_be_killed_and_the_next_one_is_in_the_same_network_as_root() {
    a_holder_may_be_killed_and_the_next_one_is_in_the_same_network(Level::ROOT);
}

#[test]
fn a_holder_may_be_killed_and_the_next_one_is_in_the_same_network_as_an_ordinary_user() {
    a_holder_may_be_killed_and_the_next_one_is_in_the_same_network(Level::ORDINARY);
}

#[test]
fn a_range_that_does_not_go_with_the_isolation_is_refused() {
    for (level, range, why) in [
        (Level::ORDINARY, "127.99.0.0/16", "pods cannot be on loopback"),
        (
            Level::ORDINARY,
            "10.96.1.0/24",
            "Services have their addresses in 10.96.0.0/12",
        ),
        (Level::PLAIN, "10.9.0.0/16", "pods live on the host's loopback"),
    ] {
        let cluster = Cluster::at(level);
        let refused = run(&mut cluster.petset(&["up", "--pod-cidr", range])).fails();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(cluster.processes(), Vec::<String>::new(), "after {why}");
    }
}

#[test]
fn plain_processes_are_on_loopback_and_find_their_volumes_by_the_environment() {
    let mut cluster = Cluster::at(Level::PLAIN);
    cluster.start(&[]);
    let status = run(&mut cluster.petset(&["status"])).ok();
    assert!(
        status.contains("Isolation   none (as --isolation says)"),
        "{status}"
    );
    let manifest = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "busybox",
            "command": ["sh", "-c", "echo mine > $PETSET_VOLUME_DATA/whose && exec sleep 1000"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}"#;
    let manifest = cluster.write("plain.json", manifest).display().to_string();
    cluster.kubectl(&format!("apply -f {manifest}"));
    let pod = cluster.until("pod plain", |pod| pod["status"]["phase"] == "Running");
    let ip = pod["status"]["podIP"].as_str().expect("an address");
    assert!(ip.starts_with("127."), "{ip}");
    let script = "cat $PETSET_ROOT/data/whose; echo $PETSET_POD_IP";
    let said = eventually("the file is written", PATIENCE, || {
        let ran = run(&mut cluster.kubectl_command(&["exec", "plain", "--", "sh", "-c", script]));
        ran.status
            .success()
            .then(|| ran.out.clone())
            .ok_or_else(|| ran.to_string())
    });
    assert_eq!(said, format!("mine\n{ip}\n"));
    assert_eq!(shell(&cluster, "echo here"), "here\n");
}
