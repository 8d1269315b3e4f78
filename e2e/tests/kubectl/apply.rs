//! `kubectl apply` in its two forms, `diff`, `patch`, `replace`, `edit`, `set`, `label` and `annotate`, on an API with nobody
//! behind it, so that nothing else writes: what they say, what comes out, and who owns it then. One test has a whole cluster, for what that owns.

use e2e::binary::{Cluster, run};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The manifest of a ConfigMap with this data, as a file.
fn config_map(cluster: &Cluster, data: &[(&str, &str)]) -> String {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n".to_owned();
    for (key, value) in data {
        writeln!(text, "  {key}: {value:?}").expect("a string takes all that is written");
    }
    let name = format!("settings-{}.yaml", data.len());
    cluster.write(&name, &text).display().to_string()
}

const WEB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 0
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: c
        image: nginx:1.27
        env: [{name: A, value: '1'}, {name: B, value: '2'}]
        ports: [{containerPort: 80}]
";

fn web(cluster: &Cluster, replaced: &[(&str, &str)]) -> String {
    let mut text = WEB.to_owned();
    for (from, to) in replaced {
        assert!(text.contains(from), "{from} is not in the manifest");
        text = text.replace(from, to);
    }
    cluster.write("web.yaml", &text).display().to_string()
}

/// What the managers own, as (manager, operation, subresource, fields).
fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = entries.into_iter().flatten().map(|entry| {
        (
            text(&entry["manager"]),
            text(&entry["operation"]),
            text(&entry["subresource"]),
            entry["fieldsV1"].clone(),
        )
    });
    entries.collect()
}

fn owner(manager: &str, operation: &str, fields: Value) -> (String, String, String, Value) {
    (manager.to_owned(), operation.to_owned(), String::new(), fields)
}

/// An object with `metadata.managedFields`, which kubectl leaves out of what it prints otherwise.
fn managed(cluster: &Cluster, what: &str) -> Value {
    let said = cluster.kubectl(&format!("get {what} -o json --show-managed-fields"));
    serde_json::from_str(&said).expect("kubectl prints JSON")
}

#[test]
fn an_apply_on_the_server_creates_updates_and_leaves_no_trace_of_what_is_not_given_any_more() {
    let cluster = Cluster::api_alone();
    let apply = |data: &[(&str, &str)]| {
        let file = config_map(&cluster, data);
        cluster.kubectl(&format!("apply --server-side -f {file}"))
    };
    let dry = config_map(&cluster, &[("k", "v")]);
    assert_eq!(
        cluster.kubectl(&format!("apply --server-side --dry-run=server -f {dry}")),
        "configmap/settings serverside-applied (server dry run)\n"
    );
    cluster.try_kubectl("get cm settings").fails();
    assert_eq!(
        apply(&[("j", "1"), ("k", "v")]),
        "configmap/settings serverside-applied\n"
    );
    let created = managed(&cluster, "cm settings");
    assert_eq!(
        owners(&created),
        [owner(
            "kubectl",
            "Apply",
            json!({"f:data": {"f:j": {}, "f:k": {}}})
        )]
    );
    apply(&[("j", "1"), ("k", "v")]);
    assert_eq!(
        managed(&cluster, "cm settings"),
        created,
        "applied twice, changed once"
    );
    cluster.kubectl("patch cm settings -p {\"data\":{\"other\":\"1\"}}");
    apply(&[("j", "1")]);
    let left = managed(&cluster, "cm settings");
    assert_eq!(left["data"], json!({"j": "1", "other": "1"}));
    assert_eq!(
        owners(&left),
        [
            owner("kubectl", "Apply", json!({"f:data": {"f:j": {}}})),
            owner("kubectl-patch", "Update", json!({"f:data": {"f:other": {}}})),
        ]
    );
}

#[test]
fn what_others_own_is_a_conflict_until_it_is_forced() {
    let cluster = Cluster::api_alone();
    let file = config_map(&cluster, &[("k", "v")]);
    cluster.kubectl(&format!("apply --server-side --field-manager=one -f {file}"));
    let file = config_map(&cluster, &[("k", "w")]);
    let refused = cluster.try_kubectl(&format!("apply --server-side --field-manager=two -f {file}"));
    assert_eq!(
        refused.fails(),
        "error: Apply failed with 1 conflict: conflict with \"one\": .data.k
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts
"
    );
    let forced = format!("apply --server-side --field-manager=two --force-conflicts -f {file}");
    assert_eq!(
        cluster.kubectl(&forced),
        "configmap/settings serverside-applied\n"
    );
    let taken = managed(&cluster, "cm settings");
    assert_eq!(taken["data"], json!({"k": "w"}));
    assert_eq!(
        owners(&taken),
        [owner("two", "Apply", json!({"f:data": {"f:k": {}}}))]
    );
    let wrong = cluster.write(
        "wrong.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\nnope: 1\n",
    );
    let refused = cluster.try_kubectl(&format!(
        "apply --server-side --validate=false -f {}",
        wrong.display()
    ));
    let refused = refused.fails();
    let why = "failed to create typed patch object (default/settings; /v1, Kind=ConfigMap): .nope: field not declared in schema";
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn an_object_moves_from_an_apply_of_the_client_to_one_of_the_server_and_back() {
    let cluster = Cluster::api_alone();
    let file = web(&cluster, &[]);
    assert_eq!(
        cluster.kubectl(&format!("apply -f {file}")),
        "statefulset.apps/web created\n"
    );
    let managers = |object: &Value| -> Vec<(String, String)> {
        let all = owners(object).into_iter();
        all.map(|(manager, operation, ..)| (manager, operation)).collect()
    };
    let is = |manager: &str, operation: &str| (manager.to_owned(), operation.to_owned());
    assert_eq!(
        managers(&managed(&cluster, "sts web")),
        [is("kubectl-client-side-apply", "Update")]
    );
    let file = web(
        &cluster,
        &[("nginx:1.27", "nginx:1.28"), (", {name: B, value: '2'}", "")],
    );
    assert_eq!(
        cluster.kubectl(&format!("apply --server-side -f {file}")),
        "statefulset.apps/web serverside-applied\n"
    );
    let moved = managed(&cluster, "sts web");
    // What kubectl owns for the annotation's sake has no time, as it changed nothing, and so comes first.
    assert_eq!(
        managers(&moved),
        [is("kubectl-last-applied", "Apply"), is("kubectl", "Apply")]
    );
    let container = &moved["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "nginx:1.28");
    assert_eq!(
        container["env"],
        json!([{"name": "A", "value": "1"}]),
        "B was given once"
    );
    let last = &moved["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(
        last.as_str().is_some_and(|last| last.contains("nginx:1.28")),
        "{last}"
    );
    // Back again: the annotation is what the client compares with.
    let file = web(&cluster, &[("name: A", "name: C")]);
    assert_eq!(
        cluster.kubectl(&format!("apply -f {file}")),
        "statefulset.apps/web configured\n"
    );
    let back = cluster.get("sts web");
    assert_eq!(
        back["spec"]["template"]["spec"]["containers"][0]["env"],
        json!([{"name": "C", "value": "1"}, {"name": "B", "value": "2"}])
    );
}

#[test]
fn a_diff_shows_what_either_apply_would_change_and_changes_nothing() {
    let cluster = Cluster::api_alone();
    let file = web(&cluster, &[]);
    cluster.kubectl(&format!("apply -f {file}"));
    assert_eq!(cluster.kubectl(&format!("diff -f {file}")), "");
    let before = managed(&cluster, "sts web");
    let file = web(&cluster, &[("nginx:1.27", "nginx:1.28")]);
    for how in ["diff", "diff --server-side --force-conflicts"] {
        let shown = cluster.try_kubectl(&format!("{how} -f {file}"));
        assert_eq!(shown.status.code(), Some(1), "{shown}");
        let lines: Vec<&str> = shown.out.lines().map(str::trim_end).collect();
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with('-') && line.ends_with("image: nginx:1.27")),
            "{shown}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with('+') && line.ends_with("image: nginx:1.28")),
            "{shown}"
        );
    }
    assert_eq!(managed(&cluster, "sts web"), before);
}

#[test]
fn an_apply_of_the_client_merges_lists_by_their_keys_and_its_annotation_is_seen_and_set() {
    let cluster = Cluster::api_alone();
    let file = web(&cluster, &[]);
    cluster.kubectl(&format!("create -f {file}"));
    let applied = cluster.try_kubectl(&format!("apply -f {file}"));
    assert!(
        applied
            .err
            .contains("is missing the kubectl.kubernetes.io/last-applied-configuration annotation"),
        "{applied}"
    );
    applied.ok();
    cluster.kubectl("set env sts/web HAND=made");
    let file = web(
        &cluster,
        &[("{name: A, value: '1'}, ", "{name: M, value: '3'}, ")],
    );
    cluster.kubectl(&format!("apply -f {file}"));
    let environment = cluster.get("sts web")["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let mut names: Vec<&str> = environment
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["B", "HAND", "M"], "A was applied, HAND was not");

    let seen = cluster.kubectl("apply view-last-applied sts/web -o json");
    let seen: Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(
        seen["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"],
        "M"
    );
    let file = web(&cluster, &[("replicas: 0", "replicas: 5")]);
    let set = cluster.kubectl(&format!("apply set-last-applied -f {file}"));
    assert_eq!(set, "statefulset.apps/web configured\n");
    let seen = cluster.kubectl("apply view-last-applied sts/web -o json");
    assert!(seen.contains("\"replicas\": 5"), "{seen}");
    assert_eq!(cluster.get("sts web")["spec"]["replicas"], 0);
    let editor = cluster.write("editor.sh", "sed -i 's/replicas: 5$/replicas: 6/' \"$1\"\n");
    let editor = format!("sh {}", editor.display());
    run(cluster
        .kubectl_command(&["apply", "edit-last-applied", "sts/web"])
        .env("KUBE_EDITOR", editor))
    .ok();
    let seen = cluster.kubectl("apply view-last-applied sts/web -o json");
    assert!(seen.contains("\"replicas\": 6"), "{seen}");
}

#[test]
fn a_patch_of_each_type_changes_the_set_its_status_and_its_scale() {
    let cluster = Cluster::api_alone();
    let file = web(&cluster, &[]);
    cluster.kubectl(&format!("create -f {file}"));
    let patch =
        |more: &[&str]| run(&mut cluster.kubectl_command(&[&["patch", "sts", "web"], more].concat())).ok();
    let said = patch(&[
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"}]}]}}}}"#,
    ]);
    assert_eq!(said, "statefulset.apps/web patched\n");
    patch(&["--type=merge", "-p", r#"{"metadata":{"labels":{"m":"1"}}}"#]);
    patch(&[
        "--type=json",
        "-p",
        r#"[{"op":"test","path":"/metadata/labels/m","value":"1"},{"op":"add","path":"/metadata/labels/j","value":"2"}]"#,
    ]);
    let unchanged = patch(&["--type=merge", "-p", r#"{"metadata":{"labels":{"m":"1"}}}"#]);
    assert_eq!(unchanged, "statefulset.apps/web patched (no change)\n");
    patch(&[
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"replicas":3},"spec":{"replicas":9}}"#,
    ]);
    patch(&[
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":2}}"#,
    ]);
    let after = managed(&cluster, "sts web");
    assert_eq!(
        after["spec"]["template"]["spec"]["containers"][0]["env"],
        json!([{"name": "B", "value": "2"}])
    );
    assert_eq!(after["metadata"]["labels"], json!({"m": "1", "j": "2"}));
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(2), &json!(3))
    );
    let patched: Vec<(String, Value)> = owners(&after)
        .into_iter()
        .filter(|(manager, ..)| manager == "kubectl-patch")
        .map(|(_, _, subresource, fields)| (subresource, fields))
        .collect();
    for (subresource, fields) in [
        (
            "",
            json!({"f:metadata": {"f:labels": {".": {}, "f:j": {}, "f:m": {}}}}),
        ),
        ("scale", json!({"f:spec": {"f:replicas": {}}})),
        ("status", json!({"f:status": {"f:replicas": {}}})),
    ] {
        assert!(
            patched.contains(&(subresource.to_owned(), fields)),
            "{subresource}: {patched:#?}"
        );
    }
    let refused = run(&mut cluster.kubectl_command(&[
        "patch",
        "sts",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"test","path":"/spec/replicas","value":7}]"#,
    ]));
    assert!(
        refused
            .fails()
            .contains("the server rejected our request due to an error in our request")
    );
}

#[test]
fn a_scale_may_be_applied_and_takes_the_replicas_from_whoever_had_them() {
    let cluster = Cluster::api_alone();
    let file = web(&cluster, &[]);
    cluster.kubectl(&format!("apply --server-side -f {file}"));
    let scale = "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: web, namespace: default}, spec: {replicas: 4}}";
    let path = "/apis/apps/v1/namespaces/default/statefulsets/web/scale?fieldManager=scaler";
    let socket = cluster.data("api.sock");
    let send = |path: &str| {
        let url = format!("http://petset{path}");
        let body = [
            "-X",
            "PATCH",
            "-H",
            "Content-Type: application/apply-patch+yaml",
            "-d",
            scale,
        ];
        cluster.curl(&[&["--unix-socket", socket.as_str(), url.as_str()], &body[..]].concat())
    };
    assert_eq!(
        send(path).expect(409)["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"
    );
    let forced = send(&format!("{path}&force=true")).expect(200);
    assert_eq!(forced["spec"]["replicas"], 4);
    let after = managed(&cluster, "sts web");
    let all = owners(&after);
    assert!(
        all.contains(&(
            "scaler".into(),
            "Apply".into(),
            "scale".into(),
            json!({"f:spec": {"f:replicas": {}}})
        )),
        "{all:#?}"
    );
    let kubectl = all
        .iter()
        .find(|(manager, ..)| manager == "kubectl")
        .expect("it applied the rest");
    assert_eq!(kubectl.3["f:spec"].get("f:replicas"), None);
}

#[test]
fn set_label_annotate_edit_and_replace_change_what_they_say() {
    let cluster = Cluster::api_alone();
    let file = web(&cluster, &[]);
    cluster.kubectl(&format!("create -f {file}"));
    for (command, said) in [
        (
            "set image sts/web c=nginx:1.29",
            "statefulset.apps/web image updated\n",
        ),
        ("set env sts/web A-", "statefulset.apps/web env updated\n"),
        (
            "set resources sts web --limits=cpu=1,memory=1Gi",
            "statefulset.apps/web resource requirements updated\n",
        ),
        (
            "set serviceaccount sts web robot",
            "statefulset.apps/web serviceaccount updated\n",
        ),
        ("label sts web tier=front", "statefulset.apps/web labeled\n"),
        ("label sts web tier=front", "statefulset.apps/web not labeled\n"),
        ("label sts web tier-", "statefulset.apps/web unlabeled\n"),
        ("annotate sts web note=here", "statefulset.apps/web annotated\n"),
    ] {
        assert_eq!(cluster.kubectl(command), said, "{command}");
    }
    let refused = cluster.try_kubectl("annotate sts web note=there").fails();
    assert!(refused.contains("--overwrite is false but found the following declared annotation(s): 'note' already has a value (here)"), "{refused}");
    let after = cluster.get("sts web");
    let pod = &after["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "nginx:1.29");
    assert_eq!(pod["containers"][0]["env"], json!([{"name": "B", "value": "2"}]));
    assert_eq!(
        pod["containers"][0]["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}})
    );
    assert_eq!(pod["serviceAccountName"], "robot");
    assert_eq!(after["metadata"]["annotations"], json!({"note": "here"}));
    cluster.create(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        cluster.kubectl("set selector service web app=web"),
        "service/web selector updated\n"
    );
    assert_eq!(
        cluster.get("service web")["spec"]["selector"],
        json!({"app": "web"})
    );

    let editor = cluster.write(
        "editor.sh",
        "sed -i 's/revisionHistoryLimit: 10$/revisionHistoryLimit: 9/' \"$1\"\n",
    );
    let editor = format!("sh {}", editor.display());
    let edited = run(cluster
        .kubectl_command(&["edit", "sts", "web"])
        .env("KUBE_EDITOR", &editor))
    .ok();
    assert_eq!(edited, "statefulset.apps/web edited\n");
    let unchanged = run(cluster
        .kubectl_command(&["edit", "sts", "web"])
        .env("KUBE_EDITOR", &editor))
    .err;
    assert!(
        unchanged.contains("Edit cancelled, no changes made."),
        "{unchanged}"
    );
    let before = cluster.get("sts web")["metadata"]["uid"].clone();
    let file = web(&cluster, &[("replicas: 0", "replicas: 3")]);
    assert_eq!(
        cluster.kubectl(&format!("replace -f {file}")),
        "statefulset.apps/web replaced\n"
    );
    let replaced = cluster.get("sts web");
    assert_eq!(
        (&replaced["metadata"]["uid"], &replaced["spec"]["replicas"]),
        (&before, &json!(3))
    );
    assert_eq!(replaced["metadata"].get("annotations"), None);
    let said = cluster.kubectl(&format!("replace --force --grace-period=0 -f {file}"));
    assert!(said.ends_with("statefulset.apps/web replaced\n"), "{said}");
    assert_ne!(cluster.get("sts web")["metadata"]["uid"], before);
}

#[test]
fn what_petset_itself_writes_is_owned_by_the_parts_of_kubernetes() {
    let cluster = Cluster::with_two_shells();
    let pod = managed(&cluster, "pod db-0");
    let owners = owners(&pod);
    let of = |subresource: &str| -> Vec<&str> {
        let matching = owners.iter().filter(|(_, _, of, _)| of == subresource);
        matching.map(|(manager, _, _, _)| manager.as_str()).collect()
    };
    assert_eq!(of(""), ["kube-controller-manager"], "{owners:?}");
    assert!(of("status").contains(&"kubelet"), "{owners:?}");
    assert!(of("binding").is_empty(), "{owners:?}");
}
