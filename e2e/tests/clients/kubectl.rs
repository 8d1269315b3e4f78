//! kubectl is client-go: its watch and its informer, while petset is restarted under them.

use e2e::binary::{Cluster, Lines};

/// Stop petset somehow and start it on the same port.
fn restart(cluster: &mut Cluster, end: impl Fn(&mut Cluster)) {
    let address = cluster.address("api");
    end(cluster);
    cluster.start(&["--api", address.trim_start_matches("https://")]);
}

fn terminate(cluster: &mut Cluster) {
    assert!(cluster.terminate().success(), "{}", cluster.said());
}

#[test]
fn an_informer_goes_on_after_restarts_and_sees_the_rollout_end() {
    let mut cluster = Cluster::with_two_shells();
    // It cannot end while nothing starts pods.
    let change = r#"{"spec":{"template":{"metadata":{"annotations":{"change":"1"}},"spec":{"containers":[{"name":"main","command":["no-such-program"]}]}}}}"#;
    let mut patch = cluster.kubectl_command(&["patch", "sts", "db", "-p", change]);
    e2e::binary::run(&mut patch).ok();
    let arguments = ["rollout", "status", "sts/db", "--timeout=60s"];
    let status = Lines::of(&mut cluster.kubectl_command(&arguments));
    status.until("it waits", |line| line.contains("Waiting for"));
    cluster.until("pod db-1", |pod| {
        pod["spec"]["containers"][0]["command"][0] == "no-such-program"
    });
    restart(&mut cluster, terminate);
    restart(&mut cluster, Cluster::kill);
    cluster.kubectl("rollout undo sts/db");
    // What never was ready is in the way of an ordered rollout, as on any cluster.
    cluster.kubectl("delete pod db-1 --force");
    let (said, succeeded) = status.end();
    assert!(succeeded, "{said:#?}");
    let last = said.last().map(String::as_str);
    assert!(last.is_some_and(|last| last.contains("roll")), "{said:#?}");
}

#[test]
fn a_watch_ends_without_an_error_when_petset_stops() {
    let mut cluster = Cluster::up();
    let arguments = [
        "get",
        "configmaps",
        "--watch",
        "--output-watch-events",
        "--no-headers",
    ];
    let watch = Lines::of(&mut cluster.kubectl_command(&arguments));
    watch.until("it has listed", |line| line.contains("kube-root-ca.crt"));
    terminate(&mut cluster);
    let (said, succeeded) = watch.end();
    assert!(succeeded, "{said:#?}");
}
