//! What people do with kubectl all day, on StatefulSets and their pods.

use e2e::binary::{Cluster, Lines, PATIENCE, eventually, repository, run};

/// Two shell pods, available.
fn two_shells() -> Cluster {
    let cluster = Cluster::up();
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    let said = cluster.kubectl(&format!("apply -f {manifest}"));
    assert_eq!(said, "service/db created\nstatefulset.apps/db created\n");
    cluster.until_available("db", 2);
    cluster
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
    shows(
        &cluster,
        "pod db-0",
        &[
            &["Name:", "db-0"],
            &["Status:", "Running"],
            &["Controlled", "By:", "StatefulSet/db"],
            &["ClaimName:", "data-db-0"],
            &["Ready", "True"],
            &["Normal", "Scheduled"],
        ],
    );
    shows(
        &cluster,
        "pvc data-db-0",
        &[
            &["Name:", "data-db-0"],
            &["Status:", "Bound"],
            &["Capacity:", "1Mi"],
            &["Access", "Modes:", "RWO"],
            &["Used", "By:", "db-0"],
            &["Normal", "ProvisioningSucceeded"],
        ],
    );
    let volume = cluster.get("pvc data-db-0")["spec"]["volumeName"].clone();
    let volume = volume.as_str().expect("it is bound");
    shows(
        &cluster,
        &format!("pv {volume}"),
        &[
            &["Name:", volume],
            &["Status:", "Bound"],
            &["Claim:", "default/data-db-0"],
            &["Reclaim", "Policy:", "Delete"],
            &["Finalizers:", "[kubernetes.io/pv-protection]"],
        ],
    );
}

/// `kubectl describe` has lines that begin with these words, in whatever columns.
#[track_caller]
fn shows(cluster: &Cluster, what: &str, expected: &[&[&str]]) {
    let described = cluster.kubectl(&format!("describe {what}"));
    let lines: Vec<Vec<&str>> = described
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    for words in expected {
        let is = |line: &Vec<&str>| line.starts_with(words);
        assert!(lines.iter().any(is), "no {words:?} in\n{described}");
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
    assert_eq!(following.end().0, [""; 0]);
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
