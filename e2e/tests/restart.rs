//! What stays when `petset up` ends, however it ends, and what it says when it cannot start.

use e2e::binary::{Cluster, PATIENCE, eventually, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

const KEPT: &str = "ns,sts,controllerrevisions,svc,pods,pvc,pv,sc,sa,configmaps,nodes";

/// UIDs by kind and name of everything that outlives a run.
fn identities(cluster: &Cluster) -> BTreeMap<String, String> {
    let list = cluster.get(&format!("{KEPT} -A"));
    let items = list["items"].as_array().expect("a list has items");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let identity = |object: &Value| {
        let metadata = &object["metadata"];
        let name = format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"])
        );
        (name, text(&metadata["uid"]))
    };
    items.iter().map(identity).collect()
}

/// The file in which a pod's program counts its starts.
fn starts(cluster: &Cluster, pod: &str) -> PathBuf {
    let claim = cluster.get(&format!("pvc data-{pod}"));
    let volume = cluster.get(&format!(
        "pv {}",
        claim["spec"]["volumeName"].as_str().expect("it is bound")
    ));
    let directory = volume["spec"]["hostPath"]["path"]
        .as_str()
        .expect("it is a directory");
    PathBuf::from(directory).join("starts")
}

/// Stop it somehow, start it again: the same objects, the same data, programs that were started once more.
fn comes_back(end: impl Fn(&mut Cluster)) {
    let mut cluster = Cluster::up_with_two_shells();
    let before = identities(&cluster);
    let authority = fs::read(cluster.data("pki/ca.crt")).expect("it is there");
    let files = ["db-0", "db-1"].map(|pod| starts(&cluster, pod));
    assert!(!cluster.processes().is_empty(), "pods are processes");

    end(&mut cluster);
    for file in &files {
        assert_eq!(fs::read_to_string(file).expect("data is kept"), "start\n");
    }
    let status = run(&mut cluster.petset(&["status"]));
    assert_eq!(status.status.code(), Some(1), "{status}");

    cluster.start(&[]);
    for file in &files {
        eventually("its program runs again", PATIENCE, || {
            let text = fs::read_to_string(file).map_err(|e| e.to_string())?;
            if text == "start\nstart\n" {
                Ok(())
            } else {
                Err(text)
            }
        });
    }
    cluster.until_available("db", 2);
    let after = identities(&cluster);
    assert_eq!(before, after);
    assert_eq!(
        fs::read(cluster.data("pki/ca.crt")).expect("it is there"),
        authority
    );
    let dug = cluster.dig("db-1.db.default.svc.cluster.local", "A");
    assert_eq!(
        dug.data(),
        [cluster.get("pod db-1")["status"]["podIP"]
            .as_str()
            .expect("it has one")]
    );
    for pod in ["db-0", "db-1"] {
        assert!(
            cluster
                .kubectl(&format!("logs {pod}"))
                .contains(&format!("I am {pod}, start 2"))
        );
    }
}

#[test]
fn after_sigterm_the_next_up_brings_back_the_same_cluster() {
    comes_back(|cluster| {
        let status = cluster.terminate();
        assert_eq!(status.code(), Some(0), "{}", cluster.said());
        assert!(
            cluster.processes().is_empty(),
            "it waits for what it started: {:?}",
            cluster.processes()
        );
    });
}

/// What tells the instances of containers apart.
fn instances(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.get("pods");
    let of = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let (id, restarts) = (&status["containerID"], &status["restartCount"]);
        format!(
            "{} {id} {restarts} {}",
            pod["metadata"]["name"], pod["status"]["podIP"]
        )
    };
    pods["items"].as_array().expect("a list").iter().map(of).collect()
}

/// End petset somehow: its pods go on, and are the same for the next one.
fn goes_on(arguments: &[&str], end: impl Fn(&mut Cluster)) {
    let mut cluster = Cluster::up_with_two_shells();
    if !arguments.is_empty() {
        cluster.terminate();
        cluster.start(arguments);
        eventually("both run again", PATIENCE, || {
            let instances = instances(&cluster).join(", ");
            let again = instances.matches(" 1 ").count() == 2;
            again.then_some(()).ok_or(instances)
        });
        cluster.until_available("db", 2);
    }
    let (before, identities_before) = (instances(&cluster), identities(&cluster));
    let files = ["db-0", "db-1"].map(|pod| starts(&cluster, pod));
    let count = |file: &PathBuf| fs::read_to_string(file).expect("data is kept").lines().count();
    let starts = files.each_ref().map(count);
    end(&mut cluster);
    assert!(cluster.processes().len() > 2, "{:?}", cluster.processes());
    cluster.start(arguments);
    cluster.until_available("db", 2);
    assert_eq!(instances(&cluster), before);
    assert_eq!(identities(&cluster), identities_before);
    assert_eq!(
        files.each_ref().map(count),
        starts,
        "no program was started again"
    );
    // It is the kubelet's as before: it can be looked into, and ends when it is told to.
    let said = cluster.kubectl("exec db-0 -- sh -c hostname");
    assert_eq!(said.trim(), "db-0");
    cluster.kubectl("delete pod db-0 --grace-period=1");
    cluster.until_available("db", 2);
    assert_eq!(count(&files[0]), starts[0] + 1);
    assert_eq!(count(&files[1]), starts[1]);
    cluster.terminate();
    if arguments.is_empty() {
        assert_eq!(cluster.processes(), Vec::<String>::new());
    }
}

#[test]
fn kill_9_of_petset_hurts_no_pod_and_the_next_up_takes_them_over() {
    goes_on(&[], Cluster::kill);
}

#[test]
fn with_keep_pods_they_go_on_after_a_stop_too() {
    goes_on(&["--keep-pods"], |cluster| {
        assert_eq!(cluster.terminate().code(), Some(0), "{}", cluster.said());
    });
}

#[test]
fn a_data_directory_has_one_petset_and_status_and_kubeconfig_tell_of_it() {
    let mut cluster = Cluster::new();
    let status = run(&mut cluster.petset(&["status"]));
    assert_eq!(status.status.code(), Some(1));
    assert!(status.err.contains("nothing runs on"), "{status}");
    assert!(status.err.contains("petset up"), "it says what to do: {status}");
    assert!(status.out.is_empty(), "{status}");

    cluster.start(&["--http", "127.0.0.1:0"]);
    let second = run(&mut cluster.petset(&["up"]));
    assert_eq!(second.status.code(), Some(1), "{second}");
    let holder = format!("in use by another petset (pid {})", cluster.pid());
    assert!(second.err.contains(&holder), "{second}");
    assert!(
        second
            .err
            .contains(&cluster.data("")[..cluster.data("").len() - 1]),
        "{second}"
    );
    assert!(second.err.contains("--data-dir"), "it says what to do: {second}");

    let text = run(&mut cluster.petset(&["status"])).ok();
    let json = run(&mut cluster.petset(&["status", "-o", "json"])).ok();
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["pid"], cluster.pid(), "the refused one has changed nothing");
    assert!(
        json["uptimeSeconds"]
            .as_i64()
            .is_some_and(|s| (0..60).contains(&s)),
        "{json}"
    );
    for (name, field) in [
        ("API", "api"),
        ("HTTP", "http"),
        ("DNS", "dns"),
        ("Version", "version"),
        ("Kubeconfig", "kubeconfig"),
    ] {
        let value = json[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {json}"));
        let line = text.lines().find(|line| line.starts_with(name));
        assert!(
            line.is_some_and(|line| line.ends_with(value)),
            "{name} {value} in\n{text}"
        );
    }
    let kubeconfig = run(&mut cluster.petset(&["kubeconfig"])).ok();
    assert_eq!(kubeconfig.trim_end(), cluster.data("kubeconfig"));
    let own = ["kubeconfig", "api.sock", "pki/ca.key", "pki/admin.token"].map(|file| cluster.data(file));
    for file in own {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(cluster.kubectl("get --raw /readyz"), "ok");
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let cluster = Cluster::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let cases = [
        ("--api", tcp.local_addr().expect("it is bound")),
        ("--http", tcp.local_addr().expect("it is bound")),
        ("--dns", udp.local_addr().expect("it is bound")),
    ];
    for (flag, address) in cases {
        let refused = run(&mut cluster.petset(&["up", flag, &address.to_string()]));
        assert_eq!(refused.status.code(), Some(1), "{refused}");
        for part in [
            format!("cannot listen on {address}"),
            flag.into(),
            "Address already in use".into(),
        ] {
            assert!(refused.err.contains(&part), "no {part:?} in {refused}");
        }
    }
    let everywhere = run(&mut cluster.petset(&["up", "--http", "0.0.0.0:0"]));
    assert_eq!(everywhere.status.code(), Some(1));
    assert!(everywhere.err.contains("loopback"), "{everywhere}");
}

#[test]
fn a_manifest_that_does_not_parse_is_named_by_file_document_and_line_before_anything_starts() {
    let cluster = Cluster::new();
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let broken = cluster.write(
        "broken.yaml",
        &format!("{good}---\nkind: ConfigMap\n  metadata: [\n"),
    );
    let refused = run(&mut cluster.petset(&["up", "-f", &broken.display().to_string()]));
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    for part in ["broken.yaml", "document 2", "line 6"] {
        assert!(refused.err.contains(part), "no {part:?} in {refused}");
    }
    assert!(!cluster.data_dir().join("store").exists(), "nothing was started");

    let refused = run(&mut cluster.petset(&["up", "-f", "nowhere.yaml"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.err.contains("nowhere.yaml"), "{refused}");
    let refused = run(&mut cluster.petset(&["up", "--dsn", "127.0.0.1:0"]));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.err.contains("unexpected argument '--dsn'"), "{refused}");

    let unknown = cluster.write(
        "unknown.yaml",
        "apiVersion: v1\nkind: Pets\nmetadata: {name: a}\n",
    );
    let refused = run(&mut cluster.petset(&["up", "-f", &unknown.display().to_string()]));
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    for part in ["unknown.yaml", "no matches for kind \"Pets\" in version \"v1\""] {
        assert!(refused.err.contains(part), "no {part:?} in {refused}");
    }
}
