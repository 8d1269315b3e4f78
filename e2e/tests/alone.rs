//! The components as processes of their own, each knowing the API server by its kubeconfig only.

use e2e::binary::{Cluster, PATIENCE, eventually, repository, run};
use std::process::Command;

#[test]
fn four_processes_make_a_stateful_set_run() {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver"]);
    let kubeconfig = cluster.data("kubeconfig");
    for component in ["controller", "kubelet", "dns"] {
        cluster.spawn_beside(component, &[component, "--kubeconfig", &kubeconfig]);
    }
    eventually("the node is Ready", PATIENCE, || {
        let nodes = cluster.try_kubectl("get nodes --no-headers");
        let ready = nodes.out.split_whitespace().nth(1) == Some("Ready");
        ready.then_some(()).ok_or_else(|| nodes.to_string())
    });
    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    // A cluster's default StorageClass is `up`'s to make; alone, the one who applies says which.
    cluster.write("class.yaml", CLASS);
    cluster.kubectl("apply -f class.yaml");
    cluster.kubectl(&format!("apply -f {manifest}"));
    cluster.until_available("db", 2);
    for claim in ["data-db-0", "data-db-1"] {
        assert_eq!(cluster.get(&format!("pvc {claim}"))["status"]["phase"], "Bound");
    }
    eventually("the log comes through the kubelet's socket", PATIENCE, || {
        let logs = cluster.try_kubectl("logs db-1");
        let is_its = logs.out == "I am db-1, start 1\n";
        is_its.then_some(()).ok_or_else(|| logs.to_string())
    });

    let said = std::fs::read_to_string(cluster.log("dns")).expect("it says something");
    let address = said.split_whitespace().nth(2).expect("DNS at ADDRESS for …");
    let (host, port) = address.rsplit_once(':').expect("it has a port");
    eventually("the pod's name", PATIENCE, || {
        let name = "db-1.db.default.svc.cluster.local";
        let dug = run(Command::new("dig").args(["-r", &format!("@{host}"), "-p", port, "+short", name, "A"]));
        let own = cluster.get("pod db-1")["status"]["podIP"].clone();
        let same = Some(dug.out.trim()) == own.as_str();
        same.then_some(()).ok_or_else(|| dug.to_string())
    });
    cluster.kubectl("delete pod db-1");
    cluster.until_available("db", 2);
    cluster.kubectl("delete sts db");
    cluster.until_gone("pod db-0");
    cluster.until_gone("pod db-1");
}

const CLASS: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: directories
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: petset.dev/directory
"#;

#[test]
fn a_component_that_cannot_reach_its_api_server_says_so() {
    let cluster = Cluster::new();
    for component in ["controller", "kubelet", "dns"] {
        let missing = run(&mut cluster.petset(&[component, "--kubeconfig", "/nowhere/kubeconfig"]));
        assert_eq!(missing.status.code(), Some(1), "{missing}");
        assert!(missing.err.contains("/nowhere/kubeconfig"), "{missing}");
    }
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: a, user: {}}]\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n";
    let file = cluster.write("config", text).display().to_string();
    let unreachable = run(&mut cluster.petset(&["controller", "--kubeconfig", &file]));
    assert_eq!(unreachable.status.code(), Some(1), "{unreachable}");
    assert!(
        unreachable
            .err
            .contains("cannot reach the API server at http://127.0.0.1:1"),
        "{unreachable}"
    );
}
