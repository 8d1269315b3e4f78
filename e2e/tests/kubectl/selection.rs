//! Selectors on lists, watches and deletions, and patches of every kind on every part of a set (section 8.3 of the
//! reference), as kubectl sends them to an API with nobody behind it.

use e2e::binary::{Cluster, Lines, run};
use serde_json::{Value, json};

fn create(cluster: &Cluster, name: &str, labels: &Value) {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": labels}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }});
    cluster.create(&set);
}

#[test]
fn lists_watches_and_deletions_select() {
    let cluster = Cluster::api_alone();
    for (name, labels) in [
        ("a", json!({"tier": "front", "app": "x"})),
        ("b", json!({"tier": "back"})),
        ("c", json!({"tier": "back", "app": "x"})),
    ] {
        create(&cluster, name, &labels);
    }
    for (selection, expected) in [
        ("-l tier=back", "b c"),
        ("-l tier!=back", "a"),
        ("-l tier=back,app=x", "c"),
        ("-l tier=back,!app", "b"),
        ("-l app", "a c"),
        ("--field-selector metadata.name=b", "b"),
        ("--field-selector metadata.name!=b", "a c"),
        ("-A --field-selector metadata.namespace=default -l app", "a c"),
        ("-A --field-selector metadata.namespace=other", ""),
    ] {
        let names = cluster.kubectl(&format!(
            "get sts {selection} -o jsonpath={{.items[*].metadata.name}}"
        ));
        assert_eq!(names, expected, "{selection}");
    }
    let refused = cluster
        .try_kubectl("get sts --field-selector spec.replicas=1")
        .fails();
    let unknown =
        "\"spec.replicas\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    assert!(refused.contains(unknown), "{refused}");

    let watch = |selection: &[&str]| {
        let fixed = ["get", "sts", "--watch", "--output-watch-events", "-o"];
        let columns = "custom-columns=:type,:object.metadata.name";
        Lines::of(&mut cluster.kubectl_command(&[&fixed[..], &[columns], selection].concat()))
    };
    let told = |expected: &'static str| {
        move |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") == expected
    };
    let by_label = watch(&["-l", "app=x"]);
    let by_name = watch(&["--field-selector", "metadata.name=b"]);
    by_label.until("what there is", told("ADDED c"));
    by_name.until("what there is", told("ADDED b"));
    cluster.kubectl("label sts b app=x");
    by_label.until("what comes in", told("ADDED b"));
    by_name.until("what changes", told("MODIFIED b"));
    cluster.kubectl("label sts c app-");
    by_label.until("what goes out", told("DELETED c"));

    let deleted = cluster.kubectl("delete sts -l tier=back --cascade=orphan --wait=false");
    assert_eq!(
        deleted,
        "statefulset.apps \"b\" deleted\nstatefulset.apps \"c\" deleted\n"
    );
}

#[test]
fn a_collection_is_deleted_by_its_labels_in_one_request() {
    let cluster = Cluster::api_alone();
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "back")] {
        create(&cluster, name, &json!({"tier": tier}));
    }
    let socket = cluster.data("api.sock");
    let path = "http://petset/apis/apps/v1/namespaces/default/statefulsets?labelSelector=tier%3Dback";
    let answer = cluster
        .curl(&["-X", "DELETE", "--unix-socket", &socket, path])
        .expect(200);
    assert_eq!(answer["kind"], "StatefulSetList");
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(cluster.kubectl("get sts -o name"), "statefulset.apps/a\n");
}

#[test]
fn every_patch_type_works_on_the_set_its_status_and_its_scale() {
    let cluster = Cluster::api_alone();
    create(&cluster, "web", &json!({}));
    let patch = |subresource: &str, kind: &str, patch: &Value| {
        let (patch, kind) = (patch.to_string(), format!("--type={kind}"));
        let mut arguments = vec!["patch", "sts", "web", &kind, "-p", &patch];
        let flag = format!("--subresource={subresource}");
        if !subresource.is_empty() {
            arguments.push(&flag);
        }
        run(&mut cluster.kubectl_command(&arguments)).ok()
    };
    let patched = "statefulset.apps/web patched\n";
    let add = |path: &str, value: i64| json!([{"op": "add", "path": path, "value": value}]);
    let container = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "i:2"}]}}}});
    for (kind, change) in [
        ("strategic", container),
        ("merge", json!({"metadata": {"labels": {"by": "merge"}}})),
        ("json", add("/spec/minReadySeconds", 5)),
    ] {
        assert_eq!(patch("", kind, &change), patched, "{kind}");
    }
    let set = cluster.get("sts web");
    let containers = set["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("a list");
    let names: Vec<&Value> = containers.iter().map(|c| &c["name"]).collect();
    assert_eq!(
        names,
        ["d", "c"],
        "the new one comes first, as upstream's conformance test has it"
    );
    assert_eq!(
        (&set["metadata"]["labels"]["by"], &set["spec"]["minReadySeconds"]),
        (&json!("merge"), &json!(5))
    );

    for (kind, change) in [
        ("strategic", json!({"status": {"replicas": 3}})),
        ("merge", json!({"status": {"readyReplicas": 2}})),
        ("json", add("/status/updatedReplicas", 1)),
    ] {
        assert_eq!(patch("status", kind, &change), patched, "status, {kind}");
    }
    let status = &cluster.get("sts web")["status"];
    assert_eq!(
        (
            &status["replicas"],
            &status["readyReplicas"],
            &status["updatedReplicas"]
        ),
        (&json!(3), &json!(2), &json!(1))
    );

    for (kind, change, replicas) in [
        ("merge", json!({"spec": {"replicas": 4}}), 4),
        ("json", add("/spec/replicas", 5), 5),
        ("strategic", json!({"spec": {"replicas": 6}}), 6),
    ] {
        patch("scale", kind, &change);
        assert_eq!(
            cluster.get("sts web")["spec"]["replicas"],
            replicas,
            "scale, {kind}"
        );
    }
    assert_eq!(
        cluster.kubectl("scale sts web --replicas=7"),
        "statefulset.apps/web scaled\n"
    );
    assert_eq!(
        cluster.kubectl("scale sts --all --replicas=8"),
        "statefulset.apps/web scaled\n"
    );
    assert_eq!(cluster.get("sts web")["spec"]["replicas"], 8);
}
