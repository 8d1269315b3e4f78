//! `kubectl run` and `kubectl attach`: a person, or a pipe, at the main process of a pod.

use e2e::binary::{Cluster, Lines, PATIENCE, Ran, eventually, run};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// A program in this cluster's environment with this as its input.
fn with_input(cluster: &Cluster, input: &str, program: &str, arguments: &[&str]) -> Ran {
    let file = cluster.write("input", input);
    let kubectl = cluster.kubectl_command(&[]);
    let known = kubectl
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" < \"$0\""])
        .arg(file)
        .arg(program);
    run(command.args(arguments).envs(known))
}

/// `kubectl run` of a pod that is gone with its end, which hears what is typed here.
fn once<'a>(name: &'a str, script: &'a str) -> Vec<&'a str> {
    let run = [
        "run",
        "-i",
        "--rm",
        "--restart=Never",
        "--image=busybox",
        "--quiet",
    ];
    [&run[..], &[name, "--command", "--", "sh", "-c", script]].concat()
}

#[test]
fn a_pod_is_run_with_an_input_and_gone_with_its_end() {
    let cluster = Cluster::up();
    let script = "while read line; do echo got $line; done; echo the end";
    let ran = with_input(&cluster, "one\ntwo\n", "kubectl", &once("once", script));
    assert!(
        ran.out.starts_with("got one\ngot two\nthe end\n") && ran.status.success(),
        "{ran}"
    );
    cluster.until_gone("pod once");
}

#[test]
fn the_exit_code_of_a_pod_is_kubectls() {
    let cluster = Cluster::up();
    let script = "read line; echo $line is bad >&2; exit 3";
    let ran = with_input(&cluster, "this\n", "kubectl", &once("fails", script));
    assert_eq!(ran.status.code(), Some(3), "{ran}");
    assert!(ran.err.contains("this is bad\n"), "{ran}");
    cluster.until_gone("pod fails");
}

#[test]
fn a_person_at_a_terminal_has_one_in_the_pod() {
    let cluster = Cluster::up();
    let script = "read line; tty; echo got $line; test -t 0 && exit 4";
    let line = format!(
        "kubectl run -it --rm --restart=Never --image=busybox --quiet person --command -- sh -c '{script}'"
    );
    // `script` runs it on a terminal of its own, at which the input is typed.
    let ran = with_input(&cluster, "hello\n", "script", &["-qec", &line, "/dev/null"]);
    assert!(ran.out.contains("/dev/pts/"), "{ran}");
    assert!(ran.out.contains("got hello\r\n"), "{ran}");
    assert_eq!(ran.status.code(), Some(4), "{ran}");
    cluster.until_gone("pod person");
}

#[test]
fn who_attaches_sees_what_comes_from_then_on() {
    let cluster = Cluster::up();
    let script = "echo before; while read line; do echo got $line; done";
    let run_it =
        "run -i --leave-stdin-open --attach=false --restart=Never --image=busybox talker --command --";
    let arguments: Vec<&str> = run_it.split(' ').chain(["sh", "-c", script]).collect();
    run(&mut cluster.kubectl_command(&arguments)).ok();
    cluster.until("pod talker", |pod| pod["status"]["phase"] == "Running");
    eventually("it speaks", PATIENCE, || {
        let log = cluster.kubectl("logs talker");
        (log == "before\n").then_some(()).ok_or(log)
    });
    let listener = Lines::of(&mut cluster.kubectl_command(&["attach", "talker"]));
    // Nobody tells when the listener is there, so something is typed until it hears.
    let heard = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !heard.load(Ordering::Relaxed) {
                let attach = ["attach", "-i", "--quiet", "talker"];
                with_input(&cluster, "hello\n", "kubectl", &attach).ok();
            }
        });
        listener.until("what was typed", |line| {
            // Also if this fails, the other thread must end.
            heard.store(true, Ordering::Relaxed);
            assert_ne!(line, "before");
            line == "got hello"
        });
    });
    cluster.kubectl("delete pod talker --grace-period=1");
    listener.end();
}
