//! kubectl's commands that make objects without a manifest. They send protobuf, as do Go's typed clients.

use e2e::binary::{Cluster, run};

#[test]
fn every_create_command_for_a_kind_that_is_served_works() {
    let cluster = Cluster::api_alone();
    let file = cluster.write("app.properties", "color=blue\n");
    let file = file.display();
    // No controller makes it here, and pods cannot be without.
    cluster.try_kubectl("create serviceaccount default");
    cluster.get("serviceaccount default");
    for (command, said) in [
        (
            format!("create configmap settings --from-literal=a=1 --from-file={file}"),
            "configmap/settings created\n",
        ),
        (
            "create secret generic passwords --from-literal=db=s3cret".into(),
            "secret/passwords created\n",
        ),
        (
            "create secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p"
                .into(),
            "secret/pull created\n",
        ),
        (
            "create serviceaccount robot".into(),
            "serviceaccount/robot created\n",
        ),
        (
            "create service clusterip web --tcp=80:8080".into(),
            "service/web created\n",
        ),
        (
            "create service clusterip heads --clusterip=None --tcp=80".into(),
            "service/heads created\n",
        ),
        (
            "create service nodeport np --tcp=80".into(),
            "service/np created\n",
        ),
        (
            "create service externalname out --external-name example.org".into(),
            "service/out created\n",
        ),
        ("create namespace other".into(), "namespace/other created\n"),
        (
            "run shell --image=busybox --env=A=1 --port=80 --labels=app=shell -- sleep 1000".into(),
            "pod/shell created\n",
        ),
        (
            "expose pod shell --port=80 --target-port=8080 --name=shell".into(),
            "service/shell exposed\n",
        ),
        (
            "create configmap dry --dry-run=server --from-literal=a=1".into(),
            "configmap/dry created (server dry run)\n",
        ),
    ] {
        assert_eq!(cluster.kubectl(&command), said, "{command}");
    }

    let settings = cluster.get("configmap settings");
    assert_eq!(
        settings["data"],
        serde_json::json!({"a": "1", "app.properties": "color=blue\n"})
    );
    // kubectl shows managedFields only when asked to.
    let manager = "jsonpath={.metadata.managedFields[0].manager}";
    let manager = cluster.kubectl(&format!(
        "get configmap settings --show-managed-fields -o {manager}"
    ));
    assert_eq!(manager, "kubectl-create");
    assert_eq!(cluster.get("secret passwords")["data"]["db"], "czNjcmV0");
    let web = cluster.get("service web");
    assert_eq!(
        web["spec"]["ports"],
        serde_json::json!([{"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080}])
    );
    assert_eq!(web["spec"]["type"], "ClusterIP");
    assert_eq!(cluster.get("service heads")["spec"]["clusterIP"], "None");
    assert_eq!(cluster.get("service out")["spec"]["externalName"], "example.org");
    let shell = cluster.get("pod shell");
    assert_eq!(shell["spec"]["containers"][0]["env"][0]["value"], "1");
    assert_eq!(
        shell["spec"]["containers"][0]["args"],
        serde_json::json!(["sleep", "1000"])
    );
    assert_eq!(cluster.get("service shell")["spec"]["selector"]["app"], "shell");

    // A second time the server refuses, in words that kubectl passes on.
    let again = cluster.try_kubectl("create configmap settings").fails();
    let expected = "error: failed to create configmap: configmaps \"settings\" already exists\n";
    assert_eq!(again, expected);
    let again = cluster.try_kubectl("create namespace other").fails();
    let expected = "Error from server (AlreadyExists): namespaces \"other\" already exists\n";
    assert_eq!(again, expected);
    let nowhere = cluster.try_kubectl("create serviceaccount a -n nowhere").fails();
    assert!(nowhere.contains("namespaces \"nowhere\" not found"), "{nowhere}");
}

#[test]
fn a_node_is_cordoned_and_drained_and_its_pods_are_evicted() {
    let cluster = Cluster::up();
    cluster.until("serviceaccount default", |_| true);
    cluster.kubectl("run shell --image=busybox --restart=Never --command -- sleep 1000");
    cluster.kubectl("wait pod shell --for=condition=Ready --timeout=60s");
    let node = cluster.kubectl("get nodes -o jsonpath={.items[0].metadata.name}");
    let said = cluster.kubectl(&format!("cordon {node}"));
    assert_eq!(said, format!("node/{node} cordoned\n"));
    let said = cluster.kubectl(&format!("drain {node} --force --grace-period=1 --timeout=60s"));
    let expected = format!(
        "node/{node} already cordoned\nevicting pod default/shell\npod/shell evicted\nnode/{node} drained\n"
    );
    assert_eq!(said, expected);
    cluster.until_gone("pod shell");
    let said = cluster.kubectl(&format!("uncordon {node}"));
    assert_eq!(said, format!("node/{node} uncordoned\n"));
}

#[test]
fn tokens_and_reviews_are_asked_for_in_protobuf() {
    let cluster = Cluster::api_alone();
    cluster.kubectl("create serviceaccount robot");
    let token = cluster.kubectl("create token robot --duration=1h --audience=me");
    assert_eq!(token.trim().split('.').count(), 3, "a signed token: {token}");
    let refused = cluster.try_kubectl("create token nobody").fails();
    assert!(
        refused.contains("serviceaccounts \"nobody\" not found"),
        "{refused}"
    );
    assert_eq!(cluster.kubectl("auth can-i create pods"), "yes\n");
    let who = cluster.kubectl("auth whoami -o jsonpath={.status.userInfo.groups}");
    assert!(who.contains("system:masters"), "{who}");
}

#[test]
fn the_body_of_a_create_command_is_protobuf() {
    let cluster = Cluster::api_alone();
    let said = run(&mut cluster.kubectl_command(&["create", "serviceaccount", "robot", "-v=8"]));
    assert!(said.status.success(), "{said}");
    assert!(said.err.contains("application/vnd.kubernetes.protobuf"), "{said}");
}
