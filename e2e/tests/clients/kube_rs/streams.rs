//! Logs, exec, attach and port-forward over WebSockets.

use super::{client, from, pods_may_be_made, soon, stateful_set, until};
use e2e::binary::Cluster;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, LogParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Says its name, then repeats what it is told, and ends at `end`.
const ECHO: &str = r#"echo "I am $HOSTNAME"; while read -r line; do [ "$line" = end ] && exit 3; echo "told $line"; done; sleep 60"#;

/// The pod `web-0` of a set with this script, running.
async fn pod(client: &Client, script: &str) -> Api<Pod> {
    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    sets.create(&PostParams::default(), &stateful_set("web", script, 1))
        .await
        .expect("it is new");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let running = await_condition(pods.clone(), "web-0", conditions::is_pod_running());
    soon("it runs", running).await.expect("a watch");
    pods
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_and_followed() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let pods = pod(&client, "for n in 1 2 3; do echo line $n; done; sleep 60").await;
    let all = until("three lines", || async {
        let logs = pods
            .logs("web-0", &LogParams::default())
            .await
            .map_err(|error| error.to_string())?;
        if logs.lines().count() == 3 {
            Ok(logs)
        } else {
            Err(logs)
        }
    })
    .await;
    assert_eq!(all, "line 1\nline 2\nline 3\n");
    let last = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(pods.logs("web-0", &last).await.expect("logs"), "line 3\n");
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("web-0", &follow).await.expect("logs").lines();
    for expected in ["line 1", "line 2", "line 3"] {
        let line = soon("a line", lines.try_next()).await.expect("no error");
        assert_eq!(line.as_deref(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_run_in_a_container_with_its_input_output_and_exit_code() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let pods = pod(&client, "sleep 60").await;
    let script = "cat; echo done; echo oops >&2; exit 7";
    let parameters = AttachParams::default().stdin(true).stderr(true);
    let mut process = pods
        .exec("web-0", ["sh", "-c", script], &parameters)
        .await
        .expect("it starts");
    let mut stdin = process.stdin().expect("it was asked for");
    stdin.write_all("hällo\n".as_bytes()).await.expect("it is read");
    stdin.shutdown().await.expect("it is closed");
    drop(stdin);
    let (mut stdout, mut stderr) = (
        process.stdout().expect("asked for"),
        process.stderr().expect("asked for"),
    );
    let (mut out, mut err) = (String::new(), String::new());
    let status = process.take_status().expect("it is there once");
    soon("its output", stdout.read_to_string(&mut out))
        .await
        .expect("text");
    soon("its complaints", stderr.read_to_string(&mut err))
        .await
        .expect("text");
    assert_eq!((out.as_str(), err.as_str()), ("hällo\ndone\n", "oops\n"));
    let status = soon("its end", status).await.expect("it is told");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
    let causes = status
        .details
        .and_then(|details| details.causes)
        .expect("it has some");
    assert_eq!(causes[0].reason.as_deref(), Some("ExitCode"));
    assert_eq!(causes[0].message.as_deref(), Some("7"));

    let mut good = pods
        .exec("web-0", ["true"], &AttachParams::default())
        .await
        .expect("it starts");
    let status = soon("its end", good.take_status().expect("it is there once"))
        .await
        .expect("it is told");
    assert_eq!(status.status.as_deref(), Some("Success"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_attached_to() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let pods = pod(&client, ECHO).await;
    let parameters = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.attach("web-0", &parameters).await.expect("it is connected");
    let (mut stdin, mut stdout) = (
        process.stdin().expect("asked for"),
        process.stdout().expect("asked for"),
    );
    stdin.write_all(b"something\n").await.expect("it is read");
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains("told something\n") {
        let count = soon("its output", stdout.read(&mut buffer))
            .await
            .expect("it goes on");
        assert!(count > 0, "it has ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    process.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_a_pod_is_reached_by_several_connections() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let server = r#"
        use IO::Socket::INET; $| = 1;
        my $s = IO::Socket::INET->new(LocalAddr => "$ENV{PETSET_POD_IP}:8080", Listen => 16, ReuseAddr => 1) or die;
        while (my $c = $s->accept) { my $line = <$c>; print $c "you said $line"; close $c }
    "#;
    let pod: Pod = from(json!({
        "metadata": {"name": "server"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": "shell", "command": ["perl", "-e", server],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        }]},
    }));
    pods_may_be_made(&client).await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod)
        .await
        .expect("it is new");
    let is_ready = |pod: Option<&Pod>| {
        let conditions = pod
            .and_then(|pod| pod.status.as_ref())
            .and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    soon("it listens", await_condition(pods.clone(), "server", is_ready))
        .await
        .expect("a watch");
    for number in 0..3 {
        let mut forward = pods
            .portforward("server", &[8080])
            .await
            .expect("it is connected");
        let mut stream = forward.take_stream(8080).expect("it is there once");
        let failure = forward.take_error(8080).expect("it is there once");
        stream
            .write_all(format!("{number}\n").as_bytes())
            .await
            .expect("it is read");
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer))
            .await
            .expect("text");
        assert_eq!(answer, format!("you said {number}\n"));
        drop(stream);
        assert_eq!(soon("its end", failure).await, None);
    }
}
