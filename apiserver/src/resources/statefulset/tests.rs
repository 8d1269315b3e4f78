use super::*;

/// A stored set: `changes` over a minimal spec.
fn set_with(changes: &Value) -> Value {
    let mut object = json!({"metadata": {"name": "web"}, "spec": {
        "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}},
    }});
    for (field, value) in changes.as_object().into_iter().flatten() {
        set(&mut object["spec"], field, value.clone());
    }
    StatefulSet.set_defaults(&mut object);
    StatefulSet.prepare_create(&mut object);
    object
}

fn problems(changes: &Value) -> Vec<String> {
    let problems = StatefulSet.validate_create(&set_with(changes));
    problems.iter().map(ToString::to_string).collect()
}

fn update(changes: &Value, before: &Value) -> Vec<String> {
    let problems = StatefulSet.validate_update(&set_with(changes), &set_with(before));
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_minimal_set_reads_back_with_upstreams_defaults() {
    let object = set_with(
        &json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"],
                                  "resources": {"requests": {"storage": "1024Mi"}}}}]}),
    );
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    assert_eq!(spec["template"]["spec"]["enableServiceLinks"], Value::Null);
    assert_eq!(
        spec["volumeClaimTemplates"][0],
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "d"}, "status": {"phase": "Pending"},
               "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"}})
    );
    assert_eq!(object["status"], json!({"replicas": 0, "availableReplicas": 0}));
    assert_eq!(StatefulSet.validate_create(&object), []);
}

#[test]
fn the_rolling_update_block_is_filled_in_only_where_no_type_was_given() {
    for (given, stored) in [
        (json!({"type": "RollingUpdate"}), json!({"type": "RollingUpdate"})),
        (
            json!({"rollingUpdate": {}}),
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
        ),
        (
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}),
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}),
        ),
        (json!({"type": "OnDelete"}), json!({"type": "OnDelete"})),
    ] {
        assert_eq!(
            set_with(&json!({"updateStrategy": given}))["spec"]["updateStrategy"],
            stored
        );
    }
}

#[test]
fn wrong_specs_are_refused_in_upstreams_words() {
    let cases = [
        (
            json!({"podManagementPolicy": "Random"}),
            "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            json!({"updateStrategy": {"type": "Sideways"}}),
            "spec.updateStrategy: Invalid value: {\"Type\":\"Sideways\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
        ),
        (
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}}),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
        ),
        (
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "150%"}}}),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%",
        ),
        (
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": -1}}}),
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"replicas": -1}),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"ordinals": {"start": -1}}),
            "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"selector": {"matchLabels": {"app": "x"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            json!({"selector": {}}),
            "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
        ),
        (
            json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Burn"}}),
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Burn\": supported values: \"Retain\", \"Delete\"",
        ),
        (
            json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}),
            "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
        ),
    ];
    for (changes, expected) in cases {
        assert_eq!(problems(&changes), [expected], "{changes}");
    }
    let bad = json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}});
    assert_eq!(
        problems(&bad),
        [
            "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Near\",\"values\":[\"b\"]}]}",
        ]
    );
}

#[test]
fn mounts_may_refer_to_claim_templates() {
    let changes = json!({
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a", "volumeMounts": [
            {"name": "d", "mountPath": "/d"}, {"name": "nope", "mountPath": "/n"}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
    });
    assert_eq!(
        problems(&changes),
        ["spec.template.spec.containers[0].volumeMounts[1].name: Not found: \"nope\""]
    );
}

const REFUSAL: &str = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

#[test]
fn only_the_listed_fields_may_change() {
    let none = Vec::<String>::new();
    for change in [
        json!({}),
        json!({"replicas": 3, "minReadySeconds": 1, "revisionHistoryLimit": 2, "ordinals": {"start": 1}}),
        json!({"updateStrategy": {"type": "OnDelete"}, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}),
    ] {
        assert_eq!(update(&change, &json!({})), none, "{change}");
    }
    for change in [
        json!({"serviceName": "x"}),
        json!({"podManagementPolicy": "Parallel"}),
    ] {
        assert_eq!(update(&change, &json!({})), [REFUSAL], "{change}");
    }
    assert_eq!(
        update(&json!({"replicas": -2, "serviceName": "x"}), &json!({})),
        [
            "spec.replicas: Invalid value: -2: must be greater than or equal to 0",
            REFUSAL
        ]
    );
}

#[test]
fn what_was_wrong_before_does_not_stop_an_update() {
    let wrong = json!({"serviceName": "Not_A_Name"});
    assert_eq!(problems(&wrong).len(), 1);
    let more = json!({"serviceName": "Not_A_Name", "replicas": 2});
    assert_eq!(update(&more, &wrong), Vec::<String>::new());
}

#[test]
fn counts_in_a_status_do_not_contradict_each_other() {
    let new =
        json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "currentReplicas": -1}});
    let old = json!({"status": {"collisionCount": 1}});
    let problems: Vec<String> = StatefulSet
        .validate_status(&new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        problems,
        [
            "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0",
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
            "status.collisionCount: Invalid value: 0: cannot be decremented",
        ]
    );
}

#[test]
fn a_row_shows_readiness_and_images() {
    let mut object = set_with(&json!({"replicas": 3}));
    set(&mut object["status"], "readyReplicas", 1);
    let cells = StatefulSet.cells(&object, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        (&cells[0], &cells[1], &cells[3], &cells[4]),
        (&json!("web"), &json!("1/3"), &json!("c"), &json!("a:1"))
    );
    assert_eq!(cells.len(), StatefulSet.columns().len());
}
