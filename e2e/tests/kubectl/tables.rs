//! `kubectl get`, plain and `-o wide`, of everything that belongs to a StatefulSet: titles and cells as upstream prints
//! them (section 8.1 of the reference).

use e2e::binary::{Cluster, run, table};
use serde_json::{Value, json};

fn set_status(cluster: &Cluster, what: &str, name: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    let arguments = [
        "patch",
        what,
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    run(&mut cluster.kubectl_command(&arguments)).ok();
}

/// It prints just this, with and without `-o wide`: titles, then the cells of each row.
#[track_caller]
fn shows(cluster: &Cluster, what: &str, plain: &[&[&str]], wide: &[&[&str]]) {
    for (flags, expected) in [("", plain), (" -o wide", wide)] {
        let shown = table(&cluster.kubectl(&format!("get {what}{flags}")));
        assert_eq!(shown, expected, "kubectl get {what}{flags}");
    }
}

#[test]
fn sets_pods_and_revisions() {
    let cluster = Cluster::api_alone();
    let containers = json!([{"name": "c", "image": "a:1"}, {"name": "d", "image": "b:2"}]);
    cluster.create(
        &json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}},
        }}),
    );
    set_status(
        &cluster,
        "sts",
        "web",
        &json!({"replicas": 2, "readyReplicas": 1}),
    );
    shows(
        &cluster,
        "sts",
        &[&["NAME", "READY", "AGE"], &["web", "1/3", "AGE"]],
        &[
            &["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"],
            &["web", "1/3", "AGE", "c,d", "a:1,b:2"],
        ],
    );

    let scale = table(&cluster.kubectl("get sts web --subresource=scale"));
    let expected = [["NAME", "DESIRED", "AVAILABLE", "AGE"], ["web", "3", "2", "AGE"]];
    assert_eq!(scale, expected);

    let uid = cluster.get("sts web")["metadata"]["uid"].clone();
    for (name, owners) in [
        (
            "web-1",
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": uid, "controller": true}]),
        ),
        ("stray", json!([])),
    ] {
        cluster.create(
            &json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 7, "data": {},
                    "metadata": {"name": name, "ownerReferences": owners}}),
        );
    }
    let revisions: &[&[&str]] = &[
        &["NAME", "CONTROLLER", "REVISION", "AGE"],
        &["stray", "<none>", "7", "AGE"],
        &["web-1", "statefulset.apps/web", "7", "AGE"],
    ];
    shows(&cluster, "controllerrevisions", revisions, revisions);

    // Pods need one, and no controller makes it here.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.create(&account);
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let ended = |reason: &str, code: i64| json!({"terminated": {"reason": reason, "exitCode": code}});
    let running = json!({"running": {"startedAt": "2024-01-01T00:00:00Z"}});
    for (name, phase, states) in [
        ("a-running", "Running", [&running, &running]),
        (
            "b-looping",
            "Running",
            [&waiting("CrashLoopBackOff"), &waiting("ErrImagePull")],
        ),
        (
            "c-creating",
            "Pending",
            [&waiting("ContainerCreating"), &waiting("ContainerCreating")],
        ),
        ("d-failed", "Failed", [&ended("", 3), &ended("Error", 1)]),
        (
            "e-done",
            "Succeeded",
            [&ended("Completed", 0), &ended("Completed", 0)],
        ),
        ("f-ending", "Running", [&running, &running]),
    ] {
        let spec =
            json!({"nodeName": "node-x", "containers": containers, "automountServiceAccountToken": false});
        cluster.create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}));
        let is_running = |state: &Value| !state["running"].is_null();
        let of = |name: &str, state: &Value| json!({"name": name, "image": "x", "imageID": "", "restartCount": 0, "ready": is_running(state), "state": state});
        let statuses = json!([of("c", states[0]), of("d", states[1])]);
        let status = json!({"phase": phase, "podIP": "127.0.0.9", "podIPs": [{"ip": "127.0.0.9"}], "containerStatuses": statuses});
        set_status(&cluster, "pod", name, &status);
    }
    cluster.kubectl("delete pod f-ending --wait=false");
    let said = [
        ("a-running", "2/2", "Running"),
        ("b-looping", "0/2", "CrashLoopBackOff"),
        ("c-creating", "0/2", "ContainerCreating"),
        ("d-failed", "0/2", "ExitCode:3"),
        ("e-done", "0/2", "Completed"),
        ("f-ending", "2/2", "Terminating"),
    ];
    let rows = said.map(|(name, ready, status)| [name, ready, status, "0", "AGE"]);
    let wide_rows = said.map(|(name, ready, status)| {
        [
            name,
            ready,
            status,
            "0",
            "AGE",
            "127.0.0.9",
            "node-x",
            "<none>",
            "<none>",
        ]
    });
    let mut plain: Vec<&[&str]> = vec![&["NAME", "READY", "STATUS", "RESTARTS", "AGE"]];
    plain.extend(rows.iter().map(|row| &row[..]));
    let mut wide: Vec<&[&str]> = vec![&[
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED NODE",
        "READINESS GATES",
    ]];
    wide.extend(wide_rows.iter().map(|row| &row[..]));
    shows(&cluster, "pods", &plain, &wide);
}

#[test]
fn services_and_endpoints() {
    let cluster = Cluster::api_alone();
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {
            "clusterIP": "None", "selector": {"app": "db", "tier": "x"},
            "ports": [{"name": "sql", "port": 5432}, {"name": "udp", "port": 53, "protocol": "UDP"}],
        }}),
    );
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "out"},
                "spec": {"type": "ExternalName", "externalName": "example.com"}}),
    );
    let service = |line: &[&'static str; 6]| *line;
    let db = service(&["db", "ClusterIP", "None", "<none>", "5432/TCP,53/UDP", "AGE"]);
    let out = service(&["out", "ExternalName", "<none>", "example.com", "<none>", "AGE"]);
    let titles = ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"];
    let wider = |line: [&'static str; 6], selector: &'static str| [&line[..], &[selector]].concat();
    let (titles_wide, db_wide, out_wide) = (
        wider(titles, "SELECTOR"),
        wider(db, "app=db,tier=x"),
        wider(out, "<none>"),
    );
    shows(
        &cluster,
        "services db out",
        &[&titles, &db, &out],
        &[&titles_wide, &db_wide, &out_wide],
    );

    let ports = json!([{"name": "sql", "port": 5432}]);
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db"}, "subsets": [
            {"addresses": [{"ip": "127.1.0.1"}, {"ip": "127.1.0.2"}], "ports": ports},
        ]}),
    );
    cluster.create(&json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "empty"}}));
    let endpoints: &[&[&str]] = &[
        &["NAME", "ENDPOINTS", "AGE"],
        &["db", "127.1.0.1:5432,127.1.0.2:5432", "AGE"],
        &["empty", "<none>", "AGE"],
    ];
    shows(&cluster, "endpoints db empty", endpoints, endpoints);

    cluster.create(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "db-x"}, "addressType": "IPv4",
                "ports": ports, "endpoints": [{"addresses": ["127.1.0.1"]}, {"addresses": ["127.1.0.2"]}]}),
    );
    cluster.create(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "empty"}, "addressType": "IPv6", "endpoints": []}),
    );
    let slices: &[&[&str]] = &[
        &["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"],
        &["db-x", "IPv4", "5432", "127.1.0.1,127.1.0.2", "AGE"],
        &["empty", "IPv6", "<unset>", "<unset>", "AGE"],
    ];
    shows(&cluster, "endpointslices db-x empty", slices, slices);
}

#[test]
fn claims_volumes_and_classes() {
    let cluster = Cluster::api_alone();
    let class = |name: &str, annotations: Value| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "p.io/x",
               "metadata": {"name": name, "annotations": annotations}, "volumeBindingMode": "WaitForFirstConsumer"})
    };
    cluster.create(&class("slow", json!({})));
    cluster.create(&class(
        "tidy",
        json!({"storageclass.kubernetes.io/is-default-class": "true"}),
    ));
    let mode = "WaitForFirstConsumer";
    let classes: &[&[&str]] = &[
        &[
            "NAME",
            "PROVISIONER",
            "RECLAIMPOLICY",
            "VOLUMEBINDINGMODE",
            "ALLOWVOLUMEEXPANSION",
            "AGE",
        ],
        &["slow", "p.io/x", "Delete", mode, "false", "AGE"],
        &["tidy (default)", "p.io/x", "Delete", mode, "false", "AGE"],
    ];
    // kubectl marks the default one only in what it names: the cell is the server's.
    shows(&cluster, "storageclasses slow tidy", classes, classes);

    for (name, volume) in [("a", Some("pv-a")), ("b", None), ("c", Some("pv-c"))] {
        let resources = json!({"requests": {"storage": "1Gi"}});
        cluster.create(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": resources, "storageClassName": "slow", "volumeName": volume,
            }}),
        );
        let Some(volume) = volume else { continue };
        let mode = if name == "a" {
            "ReadWriteOnce"
        } else {
            "ReadWriteOncePod"
        };
        let status = json!({"phase": "Bound", "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]});
        set_status(&cluster, "pvc", name, &status);
        cluster.create(
            &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": {
                "capacity": {"storage": "5Gi"}, "accessModes": [mode], "hostPath": {"path": "/x"},
                "storageClassName": "slow", "claimRef": {"namespace": "default", "name": name},
            }}),
        );
        set_status(&cluster, "pv", volume, &json!({"phase": "Bound"}));
    }
    cluster.create(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-free"}, "spec": {
            "capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany", "ReadOnlyMany"], "hostPath": {"path": "/y"},
            "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Block",
        }}),
    );
    set_status(
        &cluster,
        "pv",
        "pv-free",
        &json!({"phase": "Failed", "reason": "Broken"}),
    );
    cluster.kubectl("delete pvc c --wait=false");
    cluster.kubectl("delete pv pv-c --wait=false");

    let titles = [
        "NAME",
        "STATUS",
        "VOLUME",
        "CAPACITY",
        "ACCESS MODES",
        "STORAGECLASS",
        "VOLUMEATTRIBUTESCLASS",
        "AGE",
        "VOLUMEMODE",
    ];
    let a = [
        "a",
        "Bound",
        "pv-a",
        "5Gi",
        "RWO,ROX",
        "slow",
        "<unset>",
        "AGE",
        "Filesystem",
    ];
    let b = ["b", "Pending", "", "", "", "slow", "<unset>", "AGE", "Filesystem"];
    let c = [
        "c",
        "Terminating",
        "pv-c",
        "5Gi",
        "RWO,ROX",
        "slow",
        "<unset>",
        "AGE",
        "Filesystem",
    ];
    shows(
        &cluster,
        "pvc",
        &[&titles[..8], &a[..8], &b[..8], &c[..8]],
        &[&titles, &a, &b, &c],
    );
    let titles = [
        "NAME",
        "CAPACITY",
        "ACCESS MODES",
        "RECLAIM POLICY",
        "STATUS",
        "CLAIM",
        "STORAGECLASS",
        "VOLUMEATTRIBUTESCLASS",
        "REASON",
        "AGE",
        "VOLUMEMODE",
    ];
    let row = |name, modes, status, claim| {
        [
            name,
            "5Gi",
            modes,
            "Retain",
            status,
            claim,
            "slow",
            "<unset>",
            "",
            "AGE",
            "Filesystem",
        ]
    };
    let a = row("pv-a", "RWO", "Bound", "default/a");
    let c = row("pv-c", "RWOP", "Terminating", "default/c");
    let free = [
        "pv-free", "1Ti", "ROX,RWX", "Delete", "Failed", "", "", "<unset>", "Broken", "AGE", "Block",
    ];
    shows(
        &cluster,
        "pv",
        &[&titles[..10], &a[..10], &c[..10], &free[..10]],
        &[&titles, &a, &c, &free],
    );
}

#[test]
fn events() {
    let cluster = Cluster::api_alone();
    let now = jiff::Timestamp::now();
    cluster.create(&json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "web.1"}, "type": "Normal", "reason": "SuccessfulCreate",
                "message": "create Pod web-0 in StatefulSet web successful", "count": 3,
                "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(),
                "source": {"component": "statefulset-controller"},
                "involvedObject": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "namespace": "default",
                                   "fieldPath": "spec.x"}}),
    );
    let said = "create Pod web-0 in StatefulSet web successful";
    let source = "statefulset-controller";
    shows(
        &cluster,
        "events",
        &[
            &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
            &["AGE", "Normal", "SuccessfulCreate", "statefulset/web", said],
        ],
        &[
            &[
                "LAST SEEN",
                "TYPE",
                "REASON",
                "OBJECT",
                "SUBOBJECT",
                "SOURCE",
                "MESSAGE",
                "FIRST SEEN",
                "COUNT",
                "NAME",
            ],
            &[
                "AGE",
                "Normal",
                "SuccessfulCreate",
                "statefulset/web",
                "spec.x",
                source,
                said,
                "AGE",
                "3",
                "web.1",
            ],
        ],
    );
    let described = cluster.kubectl("events --for statefulset/web");
    let rows = table(&described);
    assert_eq!(rows[0], ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert_eq!(
        rows[1][1..],
        ["Normal", "SuccessfulCreate", "StatefulSet/web", said]
    );
}
