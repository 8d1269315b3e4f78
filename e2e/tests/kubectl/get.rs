//! `kubectl get` in all its forms, and what asks the server about itself.

use e2e::binary::{Cluster, Lines, run, table};
use serde_json::{Value, json};

/// ConfigMaps `NAME-00`, `NAME-01`, … that differ in a label.
fn config_maps(cluster: &Cluster, name: &str, count: usize) {
    let items: Vec<Value> = (0..count)
        .map(|i| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"number": format!("{:02}", count - i)},
                "metadata": {"name": format!("{name}-{i:02}"), "labels": {"part": if i % 2 == 0 { "even" } else { "odd" }}}})
        })
        .collect();
    cluster.create(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
}

/// An object with nothing but a name.
fn bare(cluster: &Cluster, kind: &str, name: &str) {
    cluster.create(&json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}));
}

#[test]
fn every_form_of_output_says_the_same() {
    let cluster = Cluster::api_alone();
    config_maps(&cluster, "m", 3);
    let get =
        |arguments: &[&str]| run(&mut cluster.kubectl_command(&[&["get", "cm"], arguments].concat())).ok();
    let names = "m-00 m-01 m-02";
    assert_eq!(get(&["-o", "jsonpath={.items[*].metadata.name}"]), names);
    let template = "{{range $i, $m := .items}}{{if $i}} {{end}}{{$m.metadata.name}}{{end}}";
    assert_eq!(get(&["-o", &format!("go-template={template}")]), names);
    assert_eq!(
        get(&["-o", "name"]),
        "configmap/m-00\nconfigmap/m-01\nconfigmap/m-02\n"
    );
    let columns = get(&[
        "-o",
        "custom-columns=NAME:.metadata.name,N:.data.number,NONE:.data.none",
    ]);
    assert_eq!(table(&columns)[1], ["m-00", "03", "<none>"]);
    let json: Value = serde_json::from_str(&get(&["-o", "json"])).expect("JSON");
    assert_eq!(
        (&json["kind"], &json["items"][2]["data"]["number"]),
        (&json!("List"), &json!("01"))
    );
    assert!(get(&["m-00", "-o", "yaml"]).contains("\n  number: \"03\"\n"));
    assert!(!get(&["m-00", "-o", "yaml"]).contains("managedFields"));
    assert!(get(&["m-00", "-o", "yaml", "--show-managed-fields"]).contains("\n  managedFields:\n"));

    let sorted = get(&["--sort-by=.data.number", "--no-headers"]);
    let order: Vec<&str> = sorted.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(order, ["m-02", "m-01", "m-00"]);
    let labels = get(&["--show-labels", "-L", "part"]);
    assert_eq!(table(&labels)[0], ["NAME", "DATA", "AGE", "PART", "LABELS"]);
    assert_eq!(table(&labels)[2], ["m-01", "1", "AGE", "odd", "part=odd"]);
    let kinds = get(&["--show-kind", "-l", "part=odd", "--no-headers"]);
    assert!(kinds.starts_with("configmap/m-01 "), "{kinds}");
    let everywhere = cluster.kubectl("get cm -A --field-selector metadata.name=m-02");
    assert_eq!(table(&everywhere)[0], ["NAMESPACE", "NAME", "DATA", "AGE"]);
    assert_eq!(table(&everywhere).len(), 2, "{everywhere}");

    let nothing = cluster.try_kubectl("get cm -l part=none");
    assert_eq!(
        (nothing.out.as_str(), nothing.err.as_str()),
        ("", "No resources found in default namespace.\n")
    );
    let missing = cluster.try_kubectl("get cm none").fails();
    assert_eq!(
        missing,
        "Error from server (NotFound): configmaps \"none\" not found\n"
    );
    assert_eq!(cluster.kubectl("get cm none --ignore-not-found"), "");
    let unknown = cluster.try_kubectl("get widgets").fails();
    assert_eq!(
        unknown,
        "error: the server doesn't have a resource type \"widgets\"\n"
    );
    let raw = cluster.kubectl("get --raw /api/v1/namespaces/default/configmaps/m-00");
    assert_eq!(
        serde_json::from_str::<Value>(&raw).expect("JSON")["kind"],
        "ConfigMap"
    );
}

#[test]
fn lists_come_in_chunks_that_make_a_whole() {
    let cluster = Cluster::api_alone();
    config_maps(&cluster, "m", 25);
    let ran = cluster.try_kubectl("get cm --chunk-size=10 -o name -v=6");
    let requests = ran
        .err
        .lines()
        .filter(|line| line.contains("configmaps?") && line.contains("limit=10"));
    // One for each ten.
    assert_eq!(requests.count(), 3, "{}", ran.err);
    assert_eq!(ran.ok().lines().count(), 25);
    let whole = cluster.kubectl("get cm --no-headers");
    assert_eq!(
        cluster
            .kubectl("get cm --no-headers --chunk-size=7")
            .lines()
            .count(),
        whole.lines().count()
    );
}

#[test]
fn all_is_what_belongs_to_workloads() {
    let cluster = Cluster::api_alone();
    bare(&cluster, "ServiceAccount", "default");
    let container = json!([{"name": "c", "image": "i:1"}]);
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "None"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": container}}),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": container}}}}),
    ] {
        cluster.create(&object);
    }
    let names = cluster.kubectl("get all --field-selector metadata.name=web -o name");
    assert_eq!(names, "pod/web\nservice/web\nstatefulset.apps/web\n");
}

#[test]
fn a_watch_tells_what_happens() {
    let cluster = Cluster::api_alone();
    config_maps(&cluster, "m", 1);
    let words = |expected: &'static str| {
        move |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ") == expected
    };
    let mut command = cluster.kubectl_command(&["get", "cm", "-w", "--output-watch-events"]);
    let watch = Lines::of(&mut command);
    watch.until("titles", words("EVENT NAME DATA"));
    watch.until("what there is", words("ADDED m-00 1"));
    let only = Lines::of(&mut cluster.kubectl_command(&["get", "cm", "--watch-only", "-o", "name"]));
    let json = Lines::of(&mut cluster.kubectl_command(&[
        "get",
        "cm",
        "m-00",
        "-w",
        "-o",
        "jsonpath={.data.number}{\"\\n\"}",
    ]));
    json.until("what there is", |line| line == "01");
    // `--watch-only` says nothing until something happens, so changes go on until it has seen one.
    for round in 0.. {
        let patch = json!({"data": {"number": format!("{}", 100 + round)}}).to_string();
        run(&mut cluster.kubectl_command(&["patch", "cm", "m-00", "-p", &patch])).ok();
        if only.seen(|line| line == "configmap/m-00") {
            break;
        }
        assert!(round < 200, "--watch-only saw nothing");
    }
    watch.until("a change", words("MODIFIED m-00 1"));
    json.until("a change", |line| line == "100");
    cluster.kubectl("delete cm m-00");
    watch.until("the end", words("DELETED m-00 1"));
    bare(&cluster, "ConfigMap", "m-01");
    watch.until("what is new", words("ADDED m-01 0"));
}

#[test]
fn waiting_ends_when_what_is_waited_for_is_so() {
    let cluster = Cluster::api_alone();
    bare(&cluster, "ServiceAccount", "default");
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "p"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}}),
    );
    let status = |status: Value| {
        let patch = json!({ "status": status }).to_string();
        run(&mut cluster.kubectl_command(&["patch", "pod", "p", "--subresource=status", "-p", &patch])).ok();
    };
    let wait =
        |arguments: &[&str]| cluster.kubectl_command(&[&["wait", "--timeout=60s"], arguments].concat());
    let ready = Lines::of(&mut wait(&["--for=condition=Ready", "pod/p"]));
    let running = Lines::of(&mut wait(&[
        "--for=jsonpath={.status.phase}=Running",
        "pod",
        "-l",
        "app=p",
    ]));
    let gone = Lines::of(&mut wait(&["--for=delete", "pod/p"]));
    let born = Lines::of(&mut wait(&["--for=create", "configmap/later"]));
    status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
    for waiting in [ready, running] {
        assert_eq!(waiting.end(), (vec!["pod/p condition met".to_owned()], true));
    }
    let timeout = cluster
        .try_kubectl("wait --for=condition=Ready=false pod/p --timeout=0.1s")
        .fails();
    assert_eq!(timeout, "error: timed out waiting for the condition on pods/p\n");
    let none = cluster
        .try_kubectl("wait --for=condition=Ready pod/none --timeout=0.1s")
        .fails();
    assert_eq!(none, "Error from server (NotFound): pods \"none\" not found\n");
    cluster.kubectl("delete pod p --now");
    assert_eq!(gone.end(), (vec!["pod/p condition met".to_owned()], true));
    bare(&cluster, "ConfigMap", "later");
    assert_eq!(
        born.end(),
        (vec!["configmap/later condition met".to_owned()], true)
    );
}

#[test]
fn events_are_told_in_their_order() {
    let cluster = Cluster::api_alone();
    for (name, reason, kind, minute) in [
        ("b", "Second", "Warning", 2),
        ("a", "First", "Normal", 1),
        ("c", "Third", "Normal", 3),
    ] {
        let time = format!("2026-01-01T00:0{minute}:00Z");
        cluster.create(&json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": kind, "reason": reason,
            "message": "it happened", "firstTimestamp": time, "lastTimestamp": time, "count": 1,
            "involvedObject": {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "namespace": "default"}}));
    }
    let reasons = |line: &str| -> Vec<String> {
        let said = cluster.kubectl(line);
        said.lines()
            .filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned))
            .collect()
    };
    assert_eq!(reasons("events --no-headers"), ["First", "Second", "Third"]);
    assert_eq!(reasons("events --no-headers --types=Warning"), ["Second"]);
    assert_eq!(reasons("events --no-headers --for configmap/c"), ["Third"]);
    assert_eq!(
        reasons("get events --no-headers --sort-by=.lastTimestamp"),
        ["First", "Second", "Third"]
    );
    assert_eq!(
        reasons("get events --no-headers --field-selector type=Warning,involvedObject.name=b"),
        ["Second"]
    );
    let watching = Lines::of(&mut cluster.kubectl_command(&["events", "--watch", "-o", "name"]));
    watching.until("what there was", |line| line == "event/c");
}

#[test]
fn the_server_is_asked_about_itself() {
    let cluster = Cluster::up();
    let listed = cluster.kubectl("api-resources --namespaced=false --verbs=create,delete -o name");
    for name in [
        "namespaces",
        "nodes",
        "persistentvolumes",
        "storageclasses.storage.k8s.io",
    ] {
        assert!(listed.lines().any(|line| line == name), "no {name} in {listed}");
    }
    assert!(!listed.contains("pods"), "{listed}");
    let listed = cluster.kubectl("api-resources --api-group=apps --sort-by=name -o wide");
    let rows = table(&listed);
    assert_eq!(
        rows[0],
        [
            "NAME",
            "SHORTNAMES",
            "APIVERSION",
            "NAMESPACED",
            "KIND",
            "VERBS",
            "CATEGORIES"
        ]
    );
    let set = [
        "statefulsets",
        "sts",
        "apps/v1",
        "true",
        "StatefulSet",
        "create,delete,deletecollection,get,list,patch,update,watch",
        "all",
    ];
    assert_eq!(rows[rows.len() - 1], set);
    let version: Value = serde_json::from_str(&cluster.kubectl("version -o json")).expect("JSON");
    assert_eq!(
        (
            &version["serverVersion"]["major"],
            &version["serverVersion"]["minor"]
        ),
        (&json!("1"), &json!("36"))
    );
    assert!(
        cluster
            .kubectl("get --raw /readyz?verbose")
            .ends_with("readyz check passed\n")
    );
    assert!(cluster.kubectl("get --raw /version").contains("gitVersion"));
    let explained = cluster.kubectl("explain sts.spec.updateStrategy --recursive");
    for line in [
        "  rollingUpdate\t<RollingUpdateStatefulSetStrategy>",
        "    partition\t<integer>",
        "  enum: OnDelete, RollingUpdate",
    ] {
        assert!(
            explained.lines().any(|l| l.trim_end() == line),
            "no {line:?} in\n{explained}"
        );
    }
    let explained = cluster.kubectl("explain pod.spec.containers --output=plaintext-openapiv2");
    assert!(
        explained.contains("<[]Object>") && explained.contains("-required-"),
        "{explained}"
    );
    let wrong = cluster.try_kubectl("explain sts.spec.nope").fails();
    assert_eq!(wrong, "error: field \"nope\" does not exist\n");
}
