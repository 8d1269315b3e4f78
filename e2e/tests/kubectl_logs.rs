//! `kubectl logs` with all its flags, as upstream's answers them.

use e2e::binary::{Cluster, PATIENCE, eventually, run};
use serde_json::{Value, json};

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["sh", "-c", script]})
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["terminationGracePeriodSeconds"] = json!(1);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "chatty"}}, "spec": spec})
}

const STAY: &str = "trap exit TERM; sleep 1000 & wait";

/// A pod with an init container and two others: `a` says 1 to 12, `b` one thing.
fn cluster() -> Cluster {
    let cluster = Cluster::up();
    let count = format!("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n; done; {STAY}");
    cluster.create(&pod(
        "p",
        json!({
            "initContainers": [container("setup", "echo set up")],
            "containers": [container("a", &count), container("b", &format!("echo b speaks; {STAY}"))],
        }),
    ));
    says(&cluster, "p -c a", &lines(1..=12));
    says(&cluster, "p -c b", "b speaks\n");
    cluster
}

fn lines(numbers: impl Iterator<Item = u32>) -> String {
    numbers.map(|n| format!("{n}\n")).collect()
}

/// Sooner or later just this is the log.
#[track_caller]
fn says(cluster: &Cluster, what: &str, expected: &str) {
    eventually(&format!("logs {what}"), PATIENCE, || {
        let ran = cluster.try_kubectl(&format!("logs {what}"));
        (ran.out == expected).then_some(()).ok_or_else(|| ran.to_string())
    });
}

/// This is what it says on standard output, and on standard error.
#[track_caller]
fn shows(cluster: &Cluster, what: &str, out: &str, err: &str) {
    let ran = cluster.try_kubectl(&format!("logs {what}"));
    assert_eq!((ran.out.as_str(), ran.err.as_str()), (out, err), "logs {what}");
}

#[test]
fn flags_choose_lines() {
    let cluster = cluster();
    shows(&cluster, "p -c a --tail=2", "11\n12\n", "");
    shows(&cluster, "p -c a --tail=0", "", "");
    shows(&cluster, "p -c a --limit-bytes=5", "1\n2\n3", "");
    shows(&cluster, "p -c a --since=1h --tail=1", "12\n", "");
    shows(
        &cluster,
        "p -c a --since-time=2000-01-01T00:00:00Z --tail=1",
        "12\n",
        "",
    );
    shows(&cluster, "p -c a --since-time=2100-01-01T00:00:00Z", "", "");
    let timed = cluster.kubectl("logs p -c a --timestamps --tail=1");
    let (time, text) = timed.split_once(' ').expect("a time and a text");
    assert_eq!(text, "12\n");
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{timed}");

    let both = cluster
        .try_kubectl("logs p -c a --since=1h --since-time=2000-01-01T00:00:00Z")
        .fails();
    assert_eq!(
        both,
        "error: at most one of `sinceTime` or `sinceSeconds` may be specified\n"
    );
    let none = cluster.try_kubectl("logs p -c a --previous").fails();
    assert_eq!(
        none,
        "Error from server (BadRequest): previous terminated container \"a\" in pod \"p\" not found\n"
    );
}

#[test]
fn containers_are_chosen_and_named() {
    let cluster = cluster();
    let defaulted = "Defaulted container \"a\" out of: a, b, setup (init)\n";
    shows(&cluster, "p --tail=1", "12\n", defaulted);
    shows(&cluster, "p -c setup", "set up\n", "");
    // In which order is kubectl's affair, and has changed with its versions.
    let sorted = |what: &str| {
        let said = cluster.kubectl(&format!("logs {what}"));
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(
        sorted("p --all-containers --tail=1"),
        ["12", "b speaks", "set up"]
    );
    assert_eq!(
        sorted("p --all-containers --prefix --tail=1"),
        ["[pod/p/a] 12", "[pod/p/b] b speaks", "[pod/p/setup] set up"]
    );
    // A selector shows ten lines unless told otherwise.
    shows(&cluster, "-l app=chatty -c a", &lines(3..=12), "");
    let many = cluster
        .try_kubectl("logs -f -l app=chatty --all-containers --max-log-requests=2")
        .fails();
    assert_eq!(
        many,
        "error: you are attempting to follow 3 log streams, but maximum allowed concurrency is 2, use --max-log-requests to increase the limit\n"
    );
    let unknown = cluster.try_kubectl("logs p -c nope").fails();
    assert_eq!(unknown, "error: container nope is not valid for pod p\n");
}

#[test]
fn the_instance_before_has_a_log_and_a_terminal_has_carriage_returns() {
    let cluster = Cluster::up();
    let script = "echo one of many; exit 3";
    cluster.create(&pod("crash", json!({"containers": [container("c", script)]})));
    cluster.until("pod crash", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
    });
    says(&cluster, "crash --previous", "one of many\n");

    let mut terminal = container("c", "echo hello; tty; exit 0");
    terminal["tty"] = json!(true);
    let spec = json!({"containers": [terminal], "restartPolicy": "Never"});
    cluster.create(&pod("terminal", spec));
    cluster.until("pod terminal", |pod| pod["status"]["phase"] == "Succeeded");
    let said = run(&mut cluster.kubectl_command(&["logs", "terminal"])).ok();
    assert!(said.starts_with("hello\r\n/dev/pts/"), "{said:?}");
}

#[test]
fn a_set_stands_for_its_first_pod() {
    let cluster = Cluster::up_with_two_shells();
    let ran = cluster.try_kubectl("logs sts/db --tail=1");
    assert_eq!(ran.err, "Found 2 pods, using pod/db-0\n");
    assert_eq!(ran.out, "I am db-0, start 1\n");
    let all = cluster.kubectl("logs -l app=db --prefix --tail=1");
    for pod in ["db-0", "db-1"] {
        let line = all.lines().find(|line| line.starts_with(&format!("[pod/{pod}/")));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("I am {pod}, start 1"))),
            "{all}"
        );
    }
}
