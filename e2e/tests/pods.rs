//! What the API shows of pods, and what their containers find: in the isolations that differ, as root and as an ordinary user.

use e2e::binary::{Cluster, Level, PATIENCE, eventually, run};
use serde_json::{Value, json};
use std::process::Command;

fn cluster(level: Level) -> Cluster {
    let mut cluster = Cluster::at(level);
    cluster.start(&[]);
    cluster
}

fn apply(cluster: &Cluster, manifest: &Value) {
    let name = manifest["metadata"]["name"].as_str().expect("a name");
    let file = cluster.write(&format!("{name}.json"), &manifest.to_string());
    cluster.kubectl(&format!("apply -f {}", file.display()));
}

/// A pod `NAME` with one container `c` that runs a script; `more` is laid over the container.
fn pod(name: &str, script: &str, more: Value) -> Value {
    let mut container = json!({"name": "c", "image": "busybox", "command": ["sh", "-c", script]});
    for (field, value) in more.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}})
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["ready"] == true
}

/// `kubectl exec POD -- sh -c SCRIPT`
#[track_caller]
fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    run(&mut cluster.kubectl_command(&["exec", pod, "--", "sh", "-c", script])).ok()
}

/// Wait for an event about a pod; its message.
fn event(cluster: &Cluster, pod: &str, reason: &str) -> String {
    let selected = format!("events --field-selector involvedObject.name={pod},reason={reason}");
    let found = cluster.until(&selected, |found| found["items"][0].is_object());
    assert_eq!(found["items"][0]["type"], "Warning", "{found:#}");
    found["items"][0]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it(level: Level) {
    let cluster = cluster(level);
    let mut alone = pod(
        "alone",
        "trap 'exit 3' TERM; sleep 1000 & wait",
        json!({
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        }),
    );
    alone["spec"]["volumes"] = json!([{"name": "cache", "emptyDir": {"sizeLimit": "1024Ki"}}]);
    apply(&cluster, &alone);
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": alone["spec"]});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "replicas": 1, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template}});
    apply(&cluster, &set);
    cluster.until("pod alone", is_ready);
    let first = cluster.until("pod db-0", is_ready)["metadata"]["uid"].clone();
    for name in ["alone", "db-0"] {
        // What is as large as the limit may stay; not what is larger.
        exec(&cluster, name, "head -c 3000000 /dev/zero > /cache/file");
    }
    let message = "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ";
    assert_eq!(event(&cluster, "db-0", "Evicted"), message);
    let evicted = cluster.until("pod alone", |pod| pod["status"]["phase"] == "Failed");
    let status = &evicted["status"];
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Evicted"), &json!(message))
    );
    let conditions = status["conditions"].as_array().expect("conditions");
    assert!(
        conditions.iter().all(|c| c["type"] != "DisruptionTarget"),
        "{status:#}"
    );
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3,
        "{status:#}"
    );
    cluster.until("pod db-0", |pod| is_ready(pod) && pod["metadata"]["uid"] != first);
    assert_eq!(exec(&cluster, "db-0", "ls /cache"), "");
}

#[test]
fn a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it_in_mounts() {
    a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it(Level::MOUNTS);
}

#[test]
fn a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it_as_root() {
    a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it(Level::ROOT);
}

#[test]
fn a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it_as_an_ordinary_user() {
    a_pod_that_writes_too_much_is_evicted_and_its_set_replaces_it(Level::ORDINARY);
}

fn what_a_container_writes_outside_of_volumes_counts_against_its_limit(level: Level) {
    let cluster = cluster(level);
    let limit = json!({"resources": {"limits": {"ephemeral-storage": "1Mi"}}});
    apply(&cluster, &pod("writer", "sleep 1000", limit));
    cluster.until("pod writer", is_ready);
    exec(&cluster, "writer", "head -c 3000000 /dev/zero > /opt/file");
    let evicted = cluster.until("pod writer", |pod| pod["status"]["phase"] == "Failed");
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!(evicted["status"]["message"], message, "{evicted:#}");
}

#[test]
fn what_a_container_writes_outside_of_volumes_counts_against_its_limit_as_root() {
    what_a_container_writes_outside_of_volumes_counts_against_its_limit(Level::ROOT);
}

#[test]
fn what_a_container_writes_outside_of_volumes_counts_against_its_limit_as_an_ordinary_user() {
    what_a_container_writes_outside_of_volumes_counts_against_its_limit(Level::ORDINARY);
}

fn the_status_says_who_a_program_is_and_what_it_was_given(level: Level) {
    let cluster = cluster(level);
    let more = json!({
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}},
        "securityContext": {"runAsUser": 1234, "runAsGroup": 2345},
    });
    apply(&cluster, &pod("known", "id -u; id -g; sleep 1000", more));
    let known = cluster.until("pod known", is_ready);
    let status = &known["status"]["containerStatuses"][0];
    let given = json!({"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "64Mi"}});
    assert_eq!(status["resources"], given);
    assert_eq!(status["allocatedResources"], given["requests"]);
    let user = json!({"linux": {"uid": 1234, "gid": 2345, "supplementalGroups": [2345]}});
    assert_eq!(status["user"], user);
    let said = eventually("what it says", PATIENCE, || {
        let said = cluster.kubectl("logs known");
        (said.lines().count() == 2).then_some(said.clone()).ok_or(said)
    });
    assert_eq!(said, "1234\n2345\n");
    // The service account's token is there without being asked for.
    let mounts = &status["volumeMounts"];
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(mounts[0]["mountPath"], place, "{mounts:#}");
    assert_eq!(
        (&mounts[0]["readOnly"], &mounts[0]["recursiveReadOnly"]),
        (&json!(true), &json!("Disabled"))
    );
}

#[test]
fn the_status_says_who_a_program_is_and_what_it_was_given_as_root() {
    the_status_says_who_a_program_is_and_what_it_was_given(Level::ROOT);
}

#[test]
fn the_status_says_who_a_program_is_and_what_it_was_given_as_an_ordinary_user() {
    the_status_says_who_a_program_is_and_what_it_was_given(Level::ORDINARY);
}

#[test]
fn a_probe_that_is_sent_elsewhere_succeeds_with_a_warning() {
    let cluster = cluster(Level::ROOT);
    let server = "import http.server as h
class Elsewhere(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header('Location', 'http://elsewhere/')
        self.end_headers()
        self.wfile.write(b'there')
h.HTTPServer(('', 80), Elsewhere).serve_forever()";
    let more = json!({"command": ["python3", "-c", server],
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1}});
    apply(&cluster, &pod("sent", "", more));
    cluster.until("pod sent", is_ready);
    assert_eq!(
        event(&cluster, "sent", "ProbeWarning"),
        "Readiness probe warning: Probe terminated redirects, Response body: there"
    );
}

#[test]
fn a_probe_that_cannot_be_made_counts_neither_way() {
    let cluster = cluster(Level::MOUNTS);
    let probe = json!({"livenessProbe": {"exec": {"command": ["/no/such/program"]}, "periodSeconds": 1,
        "failureThreshold": 1}});
    apply(&cluster, &pod("alive", "sleep 1000", probe));
    let message = event(&cluster, "alive", "Unhealthy");
    let expected = "Liveness probe errored and resulted in unknown state: ";
    assert!(message.starts_with(expected), "{message}");
    let alive = cluster.get("pod alive");
    assert_eq!(
        alive["status"]["containerStatuses"][0]["restartCount"], 0,
        "{alive:#}"
    );
    assert!(is_ready(&alive));
}

#[test]
fn a_crashing_container_goes_on_waiting_when_petset_is_started_again() {
    let mut cluster = cluster(Level::MOUNTS);
    apply(&cluster, &pod("crashing", "exit 1", json!({})));
    let waits = |pod: &Value, for_so_long: &str| {
        let state = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = state["message"].as_str().unwrap_or_default();
        message.starts_with(&format!("back-off {for_so_long} restarting failed container=c"))
    };
    cluster.until("pod crashing", |pod| waits(pod, "20s"));
    cluster.kill();
    cluster.start(&[]);
    let after = cluster.until("pod crashing", |pod| waits(pod, "40s"));
    // Three ends before, then the one after that which it had waited for.
    assert_eq!(
        after["status"]["containerStatuses"][0]["restartCount"], 3,
        "{after:#}"
    );
}

fn a_terminal_is_the_containers_own(level: Level) {
    let cluster = cluster(level);
    let script =
        "tty; stat -c %a%t /dev/console; [ /dev/console -ef /dev/pts/0 ] && echo the same; exec sleep 1000";
    let more = json!({"tty": true, "stdin": true, "securityContext": {"runAsUser": 1234}});
    apply(&cluster, &pod("typed", script, more));
    cluster.until("pod typed", is_ready);
    let said = eventually("what it says", PATIENCE, || {
        let said = cluster.kubectl("logs typed").replace('\r', "");
        (said.lines().count() == 3).then_some(said.clone()).ok_or(said)
    });
    assert!(
        said.starts_with("/dev/pts/0\n") && said.ends_with("the same\n"),
        "{said}"
    );
    let script = "tty; stat -c %u $(tty); stty size; echo typed > $(tty)";
    let line = format!("stty cols 99 rows 33; kubectl exec -it typed -- sh -c '{script}'");
    // kubectl wants a terminal of its own.
    let kubectl = cluster.kubectl_command(&[]);
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .current_dir(cluster.home());
    command.envs(
        kubectl
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let said = run(&mut command).ok().replace('\r', "");
    // The end of the input, as its terminal writes it.
    let said = said.replace("^@", "");
    assert_eq!(said, "/dev/pts/1\n1234\n33 99\ntyped\n");
}

#[test]
fn a_terminal_is_the_containers_own_as_root() {
    a_terminal_is_the_containers_own(Level::ROOT);
}

#[test]
fn a_terminal_is_the_containers_own_as_an_ordinary_user() {
    a_terminal_is_the_containers_own(Level::ORDINARY);
}

fn the_api_answers_at_its_services_address_from_the_first_moment(level: Level) {
    let mut cluster = Cluster::at(level);
    let script = "echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT; \
                  curl -sS --max-time 10 --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
                  https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version || echo failed; exec sleep 1000";
    let file = cluster.write("first.json", &pod("first", script, json!({})).to_string());
    let file = file.display().to_string();
    cluster.start(&["-f", &file]);
    let said = eventually("what it says", PATIENCE, || {
        let said = cluster.try_kubectl("logs first").out;
        (said.ends_with('}') || said.contains("failed"))
            .then_some(said.clone())
            .ok_or(said)
    });
    assert!(
        said.starts_with("10.96.0.1:443\n") && said.contains("gitVersion"),
        "{said}"
    );
}

#[test]
fn the_api_answers_at_its_services_address_from_the_first_moment_as_root() {
    the_api_answers_at_its_services_address_from_the_first_moment(Level::ROOT);
}

#[test]
fn the_api_answers_at_its_services_address_from_the_first_moment_as_an_ordinary_user() {
    the_api_answers_at_its_services_address_from_the_first_moment(Level::ORDINARY);
}

#[test]
fn a_failed_liveness_probe_stops_a_container_with_its_own_signal_and_within_the_probes_grace() {
    let cluster = cluster(Level::MOUNTS);
    let probe = |grace: u32| {
        json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1,
            "terminationGracePeriodSeconds": grace})
    };
    let by_signal = json!({"lifecycle": {"stopSignal": "SIGUSR1"}, "livenessProbe": probe(20)});
    let script = "trap 'exit 7' USR1; trap : TERM; while :; do sleep 0.1; done";
    let mut signalled = pod("signalled", script, by_signal);
    let mut stubborn = pod(
        "stubborn",
        "trap : TERM; while :; do sleep 0.1; done",
        json!({"livenessProbe": probe(1)}),
    );
    for pod in [&mut signalled, &mut stubborn] {
        pod["spec"]["os"] = json!({"name": "linux"});
        pod["spec"]["terminationGracePeriodSeconds"] = 45.into();
        apply(&cluster, pod);
    }
    let ended = |name: &str| {
        let pod = cluster.until(&format!("pod {name}"), |pod| {
            pod["status"]["containerStatuses"][0]["lastState"]["terminated"].is_object()
        });
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"].clone()
    };
    assert_eq!(ended("signalled")["exitCode"], 7);
    let killed = ended("stubborn");
    assert_eq!(killed["exitCode"], 137);
    let at = |field: &str| {
        let text = killed[field].as_str().expect("a time");
        text.parse::<jiff::Timestamp>().expect("a time")
    };
    let ran = at("finishedAt").duration_since(at("startedAt"));
    assert!(ran < jiff::SignedDuration::from_secs(30), "{killed:#}");
}

#[test]
fn a_hook_that_is_answered_has_succeeded_and_of_one_that_fails_no_more_is_said() {
    let cluster = cluster(Level::ROOT);
    let server = "import http.server as h
class Broken(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)
h.HTTPServer(('', 80), Broken).serve_forever()";
    let more = json!({"command": ["python3", "-c", server],
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}});
    apply(&cluster, &pod("server", "", more));
    let server = cluster.until("pod server", is_ready);
    let asks = json!({"httpGet": {"host": server["status"]["podIP"], "port": 80}});
    let fails = json!({"exec": {"command": ["sh", "-c", "echo secret; exit 1"]}});
    let hooks = json!({"lifecycle": {"postStart": asks, "preStop": fails}});
    apply(&cluster, &pod("hooked", "exec sleep 1000", hooks));
    cluster.until("pod hooked", is_ready);
    cluster.kubectl("delete pod hooked");
    assert_eq!(
        event(&cluster, "hooked", "FailedPreStopHook"),
        "PreStopHook failed"
    );
    let none = cluster.get("events --field-selector involvedObject.name=hooked,reason=FailedPostStartHook");
    assert_eq!(none["items"], json!([]));
}

#[test]
fn a_hook_that_does_not_end_keeps_neither_its_pod_nor_petset_from_stopping() {
    let mut cluster = cluster(Level::MOUNTS);
    let hook = json!({"lifecycle": {"postStart": {"exec": {"command": ["sleep", "1000"]}}}});
    for name in ["deleted", "left"] {
        // Its log is not shown yet.
        let sign = cluster.home().join(name);
        let script = format!(
            "trap 'exit 0' TERM; echo > {}; while :; do sleep 0.1; done",
            sign.display()
        );
        apply(&cluster, &pod(name, &script, hook.clone()));
        eventually("its program runs", PATIENCE, || {
            sign.exists()
                .then_some(())
                .ok_or_else(|| format!("no {}", sign.display()))
        });
    }
    assert_eq!(cluster.get("pod deleted")["status"]["phase"], "Pending");
    cluster.kubectl("delete pod deleted --wait=false");
    cluster.until_gone("pod deleted");
    assert!(cluster.terminate().success());
}
