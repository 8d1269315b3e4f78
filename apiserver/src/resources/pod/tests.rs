use super::*;

/// A pod as it is stored, made from the fields of its spec.
fn pod(spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
    Pod.set_defaults(&mut pod);
    Pod.prepare_create(&mut pod);
    pod
}

fn changed(old: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut new = old.clone();
    change(&mut new);
    Pod.set_defaults(&mut new);
    Pod.prepare_update(&mut new, old);
    let problems = Pod.validate_update(&new, old);
    problems.iter().map(ToString::to_string).collect()
}

fn plain() -> Value {
    pod(&json!({"containers": [{"name": "c", "image": "a:1"}]}))
}

#[test]
fn a_plain_pod_is_sound() {
    assert_eq!(Pod.validate_create(&plain()), []);
    assert_eq!(Pod.warnings(&plain()), Vec::<String>::new());
}

#[test]
fn images_tolerations_and_a_shorter_deadline_may_change() {
    let old = plain();
    let none = Vec::<String>::new();
    assert_eq!(
        changed(&old, |pod| set(&mut pod["spec"]["containers"][0], "image", "b:2")),
        none
    );
    let toleration = json!([{"key": "a", "operator": "Exists"}]);
    assert_eq!(
        changed(&old, |pod| {
            let mut all = toleration.as_array().cloned().unwrap_or_default();
            all.extend(items(&pod["spec"], "tolerations").to_vec());
            set(&mut pod["spec"], "tolerations", all);
        }),
        none
    );
    assert_eq!(
        changed(&old, |pod| set(&mut pod["spec"], "activeDeadlineSeconds", 5)),
        none
    );
}

#[test]
fn nothing_else_of_a_spec_may_change() {
    let old = plain();
    let more = json!([{"name": "c", "image": "a"}, {"name": "d", "image": "a"}]);
    assert_eq!(
        changed(&old, |pod| set(&mut pod["spec"], "containers", more)),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let refusal = changed(&old, |pod| set(&mut pod["spec"], "hostname", "h"));
    assert_eq!(refusal.len(), 1);
    assert!(
        refusal[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"),
        "{refusal:?}"
    );
    let gone = changed(&old, |pod| {
        set(&mut pod["spec"], "tolerations", json!([{"operator": "Exists"}]))
    });
    assert_eq!(
        gone,
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
}

#[test]
fn a_pod_waits_for_its_processes_only_where_it_runs() {
    let mut object = plain();
    assert_eq!(Pod.grace_period(&object, None), Some(0));
    set(&mut object["spec"], "nodeName", "n");
    assert_eq!(Pod.grace_period(&object, None), Some(30));
    assert_eq!(Pod.grace_period(&object, Some(5)), Some(5));
    assert_eq!(Pod.grace_period(&object, Some(0)), Some(0));
    assert_eq!(Pod.grace_period(&object, Some(-1)), Some(1));
    set(&mut object["status"], "phase", "Succeeded");
    assert_eq!(Pod.grace_period(&object, None), Some(0));
}

#[test]
fn pod_addresses_agree_whichever_was_written() {
    for status in [
        json!({"podIP": "10.0.0.1"}),
        json!({"podIPs": [{"ip": "10.0.0.1"}]}),
    ] {
        let mut object = plain();
        set(&mut object, "status", status);
        Pod.set_defaults(&mut object);
        assert_eq!(object["status"]["podIP"], "10.0.0.1");
        assert_eq!(object["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
        let selectable = Pod.selectable_fields(&object);
        assert!(selectable.contains(&("status.podIP", "10.0.0.1".to_owned())));
    }
}

#[test]
fn a_terminated_container_that_may_not_restart_stays_terminated() {
    let mut old = pod(&json!({"containers": [{"name": "c", "image": "a:1"}], "restartPolicy": "Never"}));
    set(
        &mut old["status"],
        "containerStatuses",
        json!([{"name": "c", "state": {"terminated": {"exitCode": 1}}}]),
    );
    let mut new = old.clone();
    set(
        &mut new["status"],
        "containerStatuses",
        json!([{"name": "c", "state": {"running": {}}}]),
    );
    set(&mut new["status"], "podIPs", json!([{"ip": "nope"}]));
    let problems: Vec<String> = Pod
        .validate_status(&new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        problems,
        [
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.podIPs[0]: Invalid value: \"nope\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ]
    );
}
