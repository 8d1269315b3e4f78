//! `kubectl logs` with all its flags, as upstream's answers them.

use e2e::binary::{Cluster, Level, Lines, PATIENCE, eventually, run};
use serde_json::{Value, json};
use std::process::{Child, Stdio};

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["sh", "-c", script]})
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["terminationGracePeriodSeconds"] = json!(1);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "chatty"}}, "spec": spec})
}

const STAY: &str = "trap exit TERM; sleep 1000 & wait";

/// Size and number of a log's files: there is room for a slow reader's log, and it is rotated soon.
const FILES: [&str; 4] = [
    "--container-log-max-size=1Mi",
    "--container-log-max-files=60",
    "--crash-loop-max",
    "1",
];

/// All of it in one cluster, where nothing is in the others' way.
fn everything(level: Level) -> Cluster {
    let mut cluster = Cluster::at(level);
    cluster.start(&FILES);
    chatty(&cluster);
    flags_choose_lines(&cluster);
    containers_are_chosen_and_named(&cluster);
    the_instance_before_has_a_log_and_a_terminal_has_carriage_returns(&cluster);
    a_follower_loses_nothing_when_the_log_is_rotated(&cluster);
    cluster
}

#[test]
fn logs_with_mounts_of_their_own() {
    let cluster = everything(Level::MOUNTS);
    // How a log is read has nothing to do with isolation.
    a_slow_reader_gets_all_of_a_long_log_and_takes_no_memory(&cluster);
}

#[test]
fn logs_in_namespaces_of_root() {
    everything(Level::ROOT);
}

#[test]
fn logs_in_namespaces_of_an_ordinary_user() {
    everything(Level::ORDINARY);
}

#[test]
fn logs_of_plain_processes() {
    everything(Level::PLAIN);
}

/// A pod with an init container and two others: `a` says 1 to 12, `b` one thing.
fn chatty(cluster: &Cluster) {
    let count = format!("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n; done; {STAY}");
    cluster.create(&pod(
        "p",
        json!({
            "initContainers": [container("setup", "echo set up")],
            "containers": [container("a", &count), container("b", &format!("echo b speaks; {STAY}"))],
        }),
    ));
    says(cluster, "p -c a", &lines(1..=12));
    says(cluster, "p -c b", "b speaks\n");
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

fn flags_choose_lines(cluster: &Cluster) {
    shows(cluster, "p -c a --tail=2", "11\n12\n", "");
    shows(cluster, "p -c a --tail=0", "", "");
    shows(cluster, "p -c a --limit-bytes=5", "1\n2\n3", "");
    shows(cluster, "p -c a --since=1h --tail=1", "12\n", "");
    shows(
        cluster,
        "p -c a --since-time=2000-01-01T00:00:00Z --tail=1",
        "12\n",
        "",
    );
    shows(cluster, "p -c a --since-time=2100-01-01T00:00:00Z", "", "");
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

fn containers_are_chosen_and_named(cluster: &Cluster) {
    let defaulted = "Defaulted container \"a\" out of: a, b, setup (init)\n";
    shows(cluster, "p --tail=1", "12\n", defaulted);
    shows(cluster, "p -c setup", "set up\n", "");
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
    shows(cluster, "-l app=chatty -c a", &lines(3..=12), "");
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

fn the_instance_before_has_a_log_and_a_terminal_has_carriage_returns(cluster: &Cluster) {
    let script = "echo one of many; exit 3";
    cluster.create(&pod("crash", json!({"containers": [container("c", script)]})));
    cluster.until("pod crash", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
    });
    says(cluster, "crash --previous", "one of many\n");

    let mut terminal = container("c", "echo hello; tty");
    terminal["tty"] = json!(true);
    let spec = json!({"containers": [terminal], "restartPolicy": "Never"});
    cluster.create(&pod("terminal", spec));
    cluster.until("pod terminal", |pod| pod["status"]["phase"] == "Succeeded");
    let said = run(&mut cluster.kubectl_command(&["logs", "terminal"])).ok();
    assert!(said.starts_with("hello\r\n/dev/pts/"), "{said:?}");
}

/// What `follow` has to tell of a log that is rotated several times meanwhile. The program says the next thousand lines when
/// somebody asks for them, so that nobody is ever too late.
fn a_follower_loses_nothing_when_the_log_is_rotated(cluster: &Cluster) {
    let gate = cluster.inside().join("gate").display().to_string();
    let filler = "x".repeat(400);
    // It has the gate open for writing, too: there is no end of it when who asked closes theirs.
    let script = format!(
        "mkfifo {gate}; exec 3<>{gate}; echo open; n=0; while read turn <&3; do i=0; while [ $i -lt 1000 ]; do \
         echo $n {filler}; n=$((n + 1)); i=$((i + 1)); done; done"
    );
    cluster.create(&pod("turns", json!({"containers": [container("c", &script)]})));
    cluster.until("pod turns", |pod| pod["status"]["phase"] == "Running");
    let follower = Lines::of(&mut cluster.kubectl_command(&["logs", "-f", "turns"]));
    follower.until("the gate is open", |line| line == "open");
    let mut next = 0;
    // 400 KB each: more than three files.
    for _ in 0..9 {
        let ask = format!("echo go > {gate}");
        run(&mut cluster.kubectl_command(&["exec", "turns", "--", "sh", "-c", &ask])).ok();
        for _ in 0..1000 {
            let line = follower.until("a line", |_| true);
            let number = line.split(' ').next();
            assert_eq!(number, Some(next.to_string().as_str()), "{line}");
            next += 1;
        }
    }
    cluster.kubectl("delete pod turns --grace-period=0 --force");
    assert_eq!(follower.end().0, Vec::<String>::new());
}

/// How much memory a process has now, in bytes.
fn memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.expect("a number") << 10
}

/// Wait until a command that nobody reads has no room left for what it is sent.
fn until_stuck(command: &Child) {
    let mut before = 0;
    eventually("nothing more is taken", PATIENCE, || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", command.id())).map_err(|e| e.to_string())?;
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        let now: u64 = read.and_then(|number| number.parse().ok()).ok_or("no number")?;
        let is_stuck = now > 1 << 20 && now == before;
        before = now;
        is_stuck.then_some(()).ok_or_else(|| now.to_string())
    });
}

fn a_slow_reader_gets_all_of_a_long_log_and_takes_no_memory(cluster: &Cluster) {
    const LENGTH: u64 = 24 << 20;
    const END: &str = "that was all\n";
    let line = "x".repeat(400);
    let script = format!("yes {line} | head -c {LENGTH}; echo; echo {END}{STAY}");
    cluster.create(&pod("long", json!({"containers": [container("c", &script)]})));
    says(cluster, "long --tail=1", END);
    let all = LENGTH + 1 + END.len() as u64;
    for arguments in [&["logs", "long"][..], &["logs", "-f", "long"]] {
        let before = memory_of(cluster.pid());
        let mut kubectl = cluster
            .kubectl_command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        until_stuck(&kubectl);
        let grown = memory_of(cluster.pid()).saturating_sub(before);
        assert!(
            grown < LENGTH / 2,
            "petset has taken {grown} bytes for who does not read"
        );
        let output = kubectl.stdout.take().expect("it is piped");
        let mut output = std::io::Read::take(output, all);
        let length = std::io::copy(&mut output, &mut std::io::sink()).expect("readable");
        assert_eq!(length, all, "{arguments:?}");
        // One that follows would go on.
        let _ = kubectl.kill();
        kubectl.wait().expect("it is our child");
    }
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
