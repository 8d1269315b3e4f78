//! What people do with kubectl all day, on StatefulSets and their pods.

use e2e::binary::{Cluster, PATIENCE, eventually, repository, run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Two shell pods, available.
fn two_shells() -> Cluster {
    let cluster = Cluster::up();
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    let said = cluster.kubectl(&format!("apply -f {manifest}"));
    assert_eq!(said, "service/db created\nstatefulset.apps/db created\n");
    cluster.until_available("db", 2);
    cluster
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().expect("it has one").to_owned()
}

/// A command whose lines are read as they come; it ends when this is dropped.
struct Lines {
    process: Child,
    lines: Receiver<String>,
}

impl Lines {
    fn of(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let output = process.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { process, lines }
    }

    #[track_caller]
    fn until(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if is_it(&line) => return,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line: {what}: {error}; seen: {seen:#?}"),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_set_is_applied_looked_at_and_scaled() {
    let cluster = two_shells();
    let manifest = repository("e2e/manifests/shells.yaml");
    let generation = cluster.get("sts db")["metadata"]["generation"].clone();
    let again = cluster.kubectl(&format!("apply -f {}", manifest.display()));
    // kubectl sends claim templates again, as it does everywhere: their defaults are not in the manifest.
    assert_eq!(again, "service/db unchanged\nstatefulset.apps/db configured\n");
    assert_eq!(cluster.get("sts db")["metadata"]["generation"], generation);

    let text = std::fs::read_to_string(&manifest).expect("it is in the repository");
    let changed = cluster
        .write("changed.yaml", &text.replace("replicas: 2", "replicas: 3"))
        .display()
        .to_string();
    let difference = cluster.try_kubectl(&format!("diff -f {changed}"));
    assert_eq!(difference.status.code(), Some(1), "{difference}");
    assert!(
        difference.out.lines().any(|l| l.trim_end() == "+  replicas: 3"),
        "{difference}"
    );
    assert!(
        cluster
            .kubectl(&format!("apply -f {changed}"))
            .contains("statefulset.apps/db configured")
    );
    cluster.until_available("db", 3);

    let scaled = cluster.kubectl("scale sts db --replicas=1 --current-replicas=3");
    assert_eq!(scaled, "statefulset.apps/db scaled\n");
    cluster.kubectl("wait --for=delete pod/db-2 pod/db-1 --timeout=60s");
    let refused = cluster
        .try_kubectl("scale sts db --replicas=0 --current-replicas=9")
        .fails();
    assert!(refused.contains("Expected replicas to be 9, was 1"), "{refused}");

    // `kubectl edit` with an editor that is no person.
    let editor = cluster.write("editor.sh", "sed -i 's/replicas: 1$/replicas: 2/' \"$1\"\n");
    let editor = format!("sh {}", editor.display());
    let edited = run(cluster
        .kubectl_command(&["edit", "sts", "db"])
        .env("KUBE_EDITOR", editor))
    .ok();
    assert_eq!(edited, "statefulset.apps/db edited\n");
    let waited = cluster.kubectl("wait --for=condition=Ready pod/db-0 --timeout=60s");
    assert_eq!(waited, "pod/db-0 condition met\n");
    cluster.until_available("db", 2);
    assert_eq!(
        cluster.kubectl("label sts db tier=back"),
        "statefulset.apps/db labeled\n"
    );
    assert_eq!(
        cluster.kubectl("get sts -l tier=back -o name"),
        "statefulset.apps/db\n"
    );
    assert_eq!(
        cluster.kubectl("annotate sts db note=here"),
        "statefulset.apps/db annotated\n"
    );

    let described = cluster.kubectl("describe sts db");
    for line in [
        "Name:               db",
        "Replicas:           2 desired | 2 total",
        "Pods Status:        2 Running / 0 Waiting / 0 Succeeded / 0 Failed",
    ] {
        assert!(
            described.lines().any(|l| l.trim_end() == line),
            "no {line:?} in\n{described}"
        );
    }
    assert!(described.contains("SuccessfulCreate"), "{described}");
    let described = cluster.kubectl("describe pod db-0");
    let words: Vec<Vec<&str>> = described
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    for expected in [
        vec!["Name:", "db-0"],
        vec!["Status:", "Running"],
        vec!["Controlled", "By:", "StatefulSet/db"],
        vec!["ClaimName:", "data-db-0"],
        vec!["Ready", "True"],
    ] {
        assert!(words.contains(&expected), "no {expected:?} in\n{described}");
    }
}

#[test]
fn the_api_explains_itself() {
    let cluster = Cluster::up();
    let resources = cluster.kubectl("api-resources --no-headers");
    for expected in [
        "pods po v1 true Pod",
        "persistentvolumeclaims pvc v1 true PersistentVolumeClaim",
        "statefulsets sts apps/v1 true StatefulSet",
        "storageclasses sc storage.k8s.io/v1 false StorageClass",
        "endpointslices discovery.k8s.io/v1 true EndpointSlice",
    ] {
        let is = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") == expected;
        assert!(resources.lines().any(is), "no {expected:?} in\n{resources}");
    }
    let versions = cluster.kubectl("api-versions");
    for version in ["v1", "apps/v1", "coordination.k8s.io/v1", "events.k8s.io/v1"] {
        assert!(
            versions.lines().any(|line| line == version),
            "no {version} in\n{versions}"
        );
    }
    let explained = cluster.kubectl("explain statefulset.spec.podManagementPolicy");
    assert!(
        explained.contains("StatefulSet") && explained.contains("OrderedReady"),
        "{explained}"
    );
    let explained = cluster.kubectl("explain pod.spec.containers.livenessProbe.httpGet");
    assert!(
        explained.contains("path") && explained.contains("scheme"),
        "{explained}"
    );
    assert!(cluster.kubectl("version").contains("v1.36"));
    assert!(cluster.kubectl("cluster-info").contains(&cluster.address("api")));
    let nodes = cluster.kubectl("get nodes -o custom-columns=:.kind --no-headers");
    assert_eq!(nodes.trim(), "Node");
}

#[test]
fn a_set_is_rolled_out_restarted_and_undone() {
    let cluster = two_shells();
    let uids = |cluster: &Cluster| ["pod db-0", "pod db-1"].map(|pod| uid(&cluster.get(pod)));
    let first = uids(&cluster);
    let environment = |cluster: &Cluster| {
        ["pod db-0", "pod db-1"].map(|pod| {
            let environment = cluster.get(pod)["spec"]["containers"][0]["env"].clone();
            let all = environment.as_array().cloned().unwrap_or_default();
            all.iter()
                .find(|e| e["name"] == "COLOUR")
                .map(|e| e["value"].clone())
        })
    };
    let mut pods = cluster.watch("/api/v1/namespaces/default/pods?watch=true");
    assert_eq!(
        cluster.kubectl("set env sts/db COLOUR=blue"),
        "statefulset.apps/db env updated\n"
    );
    let rolled = cluster.kubectl("rollout status sts/db --timeout=60s");
    assert!(
        rolled.contains("partitioned roll out complete: 2 new pods have been updated..."),
        "{rolled}"
    );
    let blue = Some(json!("blue"));
    assert_eq!(environment(&cluster), [blue.clone(), blue]);
    let second = uids(&cluster);
    assert!(first.iter().all(|old| !second.contains(old)));
    let gone =
        |event: &Value, pod: &str| event["type"] == "DELETED" && event["object"]["metadata"]["name"] == pod;
    pods.until("db-0 is replaced", |event| gone(event, "db-0"));
    assert!(
        pods.seen.iter().any(|event| gone(event, "db-1")),
        "from the top down"
    );

    let history = cluster.kubectl("rollout history sts/db");
    let revisions: Vec<&str> = history
        .lines()
        .filter(|line| line.starts_with(char::is_numeric))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(revisions, ["1", "2"], "{history}");
    assert!(
        cluster
            .kubectl("rollout history sts/db --revision=2")
            .contains("COLOUR")
    );
    assert_eq!(
        cluster.kubectl("rollout undo sts/db"),
        "statefulset.apps/db rolled back\n"
    );
    cluster.kubectl("rollout status sts/db --timeout=60s");
    assert_eq!(environment(&cluster), [None, None]);
    let revisions = cluster.get("controllerrevisions");
    assert_eq!(
        revisions["items"].as_array().map(Vec::len),
        Some(2),
        "the first is used again"
    );

    let third = uids(&cluster);
    assert_eq!(
        cluster.kubectl("rollout restart sts/db"),
        "statefulset.apps/db restarted\n"
    );
    cluster.kubectl("rollout status sts/db --timeout=60s");
    assert!(uids(&cluster).iter().all(|new| !third.contains(new)));
    cluster.until_available("db", 2);
}

#[test]
fn logs_and_gets_follow() {
    let cluster = two_shells();
    eventually("the log", PATIENCE, || {
        let ran = cluster.try_kubectl("logs db-0");
        (ran.out == "I am db-0, start 1\n")
            .then_some(())
            .ok_or_else(|| ran.to_string())
    });
    let following = Lines::of(&mut cluster.kubectl_command(&["logs", "-f", "db-0"]));
    let watching = Lines::of(&mut cluster.kubectl_command(&["get", "pods", "-w"]));
    following.until("what was said before", |line| line == "I am db-0, start 1");
    watching.until("what is", |line| line.starts_with("db-1"));
    cluster.kubectl("delete pod db-0");
    watching.until("its end", |line| {
        line.starts_with("db-0") && line.contains("Terminating")
    });
    watching.until("its return", |line| {
        line.starts_with("db-0") && line.contains("Running")
    });
    // The log of a pod that is gone ends, and with it kubectl.
    let ended = following.lines.recv_timeout(PATIENCE);
    assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    eventually("the new one's log", PATIENCE, || {
        let ran = cluster.try_kubectl("logs db-0 --tail=1 --timestamps");
        ran.out
            .ends_with("Z I am db-0, start 2\n")
            .then_some(())
            .ok_or_else(|| ran.to_string())
    });
    let refused = cluster.try_kubectl("logs db-0 -c side").fails();
    assert!(
        refused.contains("container side is not valid for pod db-0"),
        "{refused}"
    );
    let refused = cluster.try_kubectl("logs db-9").fails();
    assert!(refused.contains("pods \"db-9\" not found"), "{refused}");
}

#[test]
fn a_set_is_deleted_with_and_without_its_pods() {
    let cluster = two_shells();
    let pods = ["pod db-0", "pod db-1"].map(|pod| uid(&cluster.get(pod)));
    cluster.kubectl("delete sts db --cascade=orphan");
    cluster.until_gone("sts db");
    for (pod, before) in ["pod db-0", "pod db-1"].into_iter().zip(&pods) {
        let orphan = cluster.until(pod, |pod| pod["metadata"]["ownerReferences"].is_null());
        assert_eq!(&uid(&orphan), before);
        assert!(orphan["metadata"]["deletionTimestamp"].is_null(), "{orphan:#}");
    }
    // A set of the same name takes them over.
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    cluster.kubectl(&format!("apply -f {manifest}"));
    let set = uid(&cluster.until_available("db", 2));
    for (pod, before) in ["pod db-0", "pod db-1"].into_iter().zip(&pods) {
        let adopted = cluster.get(pod);
        assert_eq!(&uid(&adopted), before);
        assert_eq!(adopted["metadata"]["ownerReferences"][0]["uid"], set.as_str());
    }
    let mut seen = cluster.watch("/api/v1/namespaces/default/pods?watch=true");
    let mut sets = cluster.watch("/apis/apps/v1/namespaces/default/statefulsets?watch=true");
    cluster.kubectl("delete sts db --cascade=foreground");
    let last = sets.until("the set goes", |event| event["type"] == "DELETED");
    // Its dependants went first: nothing of it is left the moment it is gone.
    assert_eq!(cluster.kubectl("get pods -o name"), "");
    let gone =
        |event: &Value, name: &str| event["type"] == "DELETED" && event["object"]["metadata"]["name"] == name;
    for name in ["db-0", "db-1"] {
        if !seen.seen.iter().any(|event| gone(event, name)) {
            seen.until(name, |event| gone(event, name));
        }
    }
    assert_eq!(uid(&last["object"]), set);
    let waiting = sets
        .seen
        .iter()
        .any(|event| event["object"]["metadata"]["finalizers"] == json!(["foregroundDeletion"]));
    assert!(waiting, "{:#?}", sets.seen);
    for claim in ["pvc data-db-0", "pvc data-db-1"] {
        assert_eq!(cluster.get(claim)["status"]["phase"], "Bound");
    }
}
