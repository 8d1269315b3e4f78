use super::*;
use proptest::prelude::*;

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const POD: &str = "io.k8s.api.core.v1.Pod";
const STATEFUL_SET: &str = "io.k8s.api.apps.v1.StatefulSet";

/// The second of an hour at which a write happens.
fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000 + second).expect("in range")
}

fn decoded(schema: &str, object: &Value) -> Value {
    schema::decode(schema, object.to_string().as_bytes())
        .expect("decodes")
        .value
}

/// `after` as it is written by `manager`.
fn written(schema: &str, before: Option<&Value>, after: &Value, manager: &str, second: i64) -> Value {
    let mut after = decoded(schema, after);
    update(
        schema,
        before,
        &mut after,
        Writer {
            manager,
            subresource: "",
            time: at(second),
        },
    );
    after
}

fn fields_of<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

fn config_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "data": data})
}

#[test]
fn a_creation_owns_what_it_gives() {
    let given = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"},
        "metadata": {"name": "a", "generateName": "a-", "namespace": "n", "labels": {"x": "1"}}});
    let created = written(CONFIG_MAP, None, &given, "me", 0);
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{"manager": "me", "operation": "Update", "apiVersion": "v1", "time": "2023-11-14T22:13:20Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}, "f:k": {}}, "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:x": {}}}}}])
    );
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    assert_eq!(
        written(CONFIG_MAP, None, &nothing, "me", 0)["metadata"].get("managedFields"),
        None
    );
}

#[test]
fn a_creation_does_not_own_what_is_wiped() {
    let given = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5}});
    assert_eq!(
        written(CONFIG_MAP, None, &given, "me", 0)["metadata"].get("managedFields"),
        None
    );
}

#[test]
fn lists_are_owned_by_key_by_value_or_whole() {
    let given = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "finalizers": ["example.com/a"],
            "ownerReferences": [{"uid": "u1", "name": "o", "kind": "K", "apiVersion": "v1"}]},
        "spec": {"serviceName": "s", "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"tolerations": [{"key": "k"}], "nodeSelector": {"a": "b"},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "args": ["x"], "ports": [{"containerPort": 80}],
                    "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}],
                    "resources": {"limits": {"cpu": "1"}}}]}}}});
    assert_eq!(
        *fields_of(&written(STATEFUL_SET, None, &given, "me", 0), "me"),
        json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"example.com/a\"": {}}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"u1\"}": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {}, "f:serviceName": {},
                "f:updateStrategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:partition": {}}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:tolerations": {}, "f:nodeSelector": {},
                    "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
                    "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:args": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                        "f:env": {".": {}, "k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:valueFrom": {".": {}, "f:configMapKeyRef": {}}}},
                        "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}}}}}}}})
    );
}

#[test]
fn an_update_takes_what_it_changes_and_time_moves_only_then() {
    let created = written(
        CONFIG_MAP,
        None,
        &config_map(&json!({"j": "1", "k": "1"})),
        "one",
        0,
    );
    let mut changed = created.clone();
    changed["data"] = json!({"j": "1", "k": "2", "n": "1"});
    let changed = written(CONFIG_MAP, Some(&created), &changed, "two", 5);
    assert_eq!(
        *fields_of(&changed, "one"),
        json!({"f:data": {".": {}, "f:j": {}}})
    );
    assert_eq!(
        *fields_of(&changed, "two"),
        json!({"f:data": {"f:k": {}, "f:n": {}}})
    );
    assert_eq!(
        changed["metadata"]["managedFields"][0]["time"],
        "2023-11-14T22:13:20Z"
    );
    assert_eq!(
        changed["metadata"]["managedFields"][1]["time"],
        "2023-11-14T22:13:25Z"
    );
    let same = written(CONFIG_MAP, Some(&changed), &changed, "three", 9);
    assert_eq!(same, changed);
}

#[test]
fn what_is_gone_leaves_all_entries_and_an_empty_entry_goes() {
    let created = written(CONFIG_MAP, None, &config_map(&json!({"k": "1"})), "one", 0);
    let mut added = created.clone();
    added["data"]["n"] = "1".into();
    let added = written(CONFIG_MAP, Some(&created), &added, "two", 1);
    let removed = written(
        CONFIG_MAP,
        Some(&added),
        &json!({"metadata": added["metadata"], "data": {"k": "1"}}),
        "three",
        2,
    );
    assert_eq!(*fields_of(&removed, "two"), Value::Null);
    assert_eq!(*fields_of(&removed, "three"), Value::Null);
    assert_eq!(
        *fields_of(&removed, "one"),
        json!({"f:data": {".": {}, "f:k": {}}})
    );
    let emptied = written(
        CONFIG_MAP,
        Some(&removed),
        &json!({"metadata": removed["metadata"]}),
        "three",
        3,
    );
    assert_eq!(emptied["metadata"].get("managedFields"), None);
}

#[test]
fn a_client_without_managed_fields_does_not_delete_them_but_an_empty_entry_does() {
    let created = written(CONFIG_MAP, None, &config_map(&json!({"k": "1"})), "one", 0);
    let replaced = written(
        CONFIG_MAP,
        Some(&created),
        &config_map(&json!({"k": "2"})),
        "one",
        1,
    );
    assert_eq!(
        *fields_of(&replaced, "one"),
        json!({"f:data": {".": {}, "f:k": {}}})
    );
    for nonsense in [
        json!([{"manager": "x", "operation": "Update", "fieldsType": "FieldsV2"}]),
        json!([{"manager": "x", "operation": "Frob", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}}]),
        json!([{"manager": "x", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"a": {}}}]),
    ] {
        let mut given = created.clone();
        given["metadata"]["managedFields"] = nonsense;
        assert_eq!(written(CONFIG_MAP, Some(&created), &given, "one", 1), created);
    }
    let mut reset = created.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    let reset = written(CONFIG_MAP, Some(&created), &reset, "one", 2);
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let later = written(
        CONFIG_MAP,
        Some(&reset),
        &config_map(&json!({"k": "3"})),
        "one",
        3,
    );
    assert_eq!(later["metadata"].get("managedFields"), None, "tracking has ended");
}

#[test]
fn a_client_may_edit_entries() {
    let created = written(
        CONFIG_MAP,
        None,
        &config_map(&json!({"j": "1", "k": "1"})),
        "one",
        0,
    );
    let mut edited = created.clone();
    edited["metadata"]["managedFields"][0]["manager"] = "other".into();
    let edited = written(CONFIG_MAP, Some(&created), &edited, "one", 1);
    assert_eq!(*fields_of(&edited, "other"), *fields_of(&created, "one"));
    assert_eq!(*fields_of(&edited, "one"), Value::Null);
}

#[test]
fn subresources_and_versions_are_entries_of_their_own() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}});
    let created = written(POD, None, &pod, "kubelet", 0);
    let mut after = created.clone();
    after["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}],
        "podIPs": [{"ip": "127.0.0.2"}], "hostIPs": [{"ip": "127.0.0.1"}]});
    update(
        POD,
        Some(&created),
        &mut after,
        Writer {
            manager: "kubelet",
            subresource: "status",
            time: at(1),
        },
    );
    let entries = after["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(
        entries[1]["fieldsV1"],
        json!({"f:status": {"f:phase": {}, "f:hostIPs": {}, "f:podIPs": {".": {}, "k:{\"ip\":\"127.0.0.2\"}": {".": {}, "f:ip": {}}},
            "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:type": {}, "f:status": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}}}}})
    );
}

#[test]
fn an_unnamed_writer_is_unknown() {
    let created = written(CONFIG_MAP, None, &config_map(&json!({"k": "1"})), "", 0);
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "unknown");
}

#[test]
fn the_oldest_of_too_many_entries_become_ancient_changes() {
    let mut object = written(CONFIG_MAP, None, &config_map(&json!({"k0": "1"})), "m0", 0);
    for n in 1..=11 {
        let mut next = object.clone();
        next["data"][format!("k{n}")] = "1".into();
        object = written(CONFIG_MAP, Some(&object), &next, &format!("m{n}"), n);
        let entries = object["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
        assert_eq!(entries, (n as usize + 1).min(10));
    }
    assert_eq!(
        *fields_of(&object, ANCIENT),
        json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}})
    );
    assert_eq!(*fields_of(&object, "m3"), json!({"f:data": {"f:k3": {}}}));
    assert_eq!(
        object["metadata"]["managedFields"][0]["time"],
        "2023-11-14T22:13:22Z"
    );
}

fn any_data() -> impl Strategy<Value = Value> {
    let data = proptest::collection::btree_map("[abc]", "[xy]", 0..3);
    let finalizers = proptest::collection::btree_set("[abc]", 0..3);
    (data, finalizers).prop_map(|(data, finalizers)| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": {"name": "a", "uid": "u", "finalizers": finalizers}});
        decoded(CONFIG_MAP, &object)
    })
}

/// All fields that any entry owns.
fn owned(object: &Value) -> FieldSet {
    let entries = entry::decode(&object["metadata"]["managedFields"]).expect("entries");
    entries
        .iter()
        .fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
}

proptest! {
    #[test]
    fn whatever_is_written_is_owned_once_and_nothing_else_is(steps in proptest::collection::vec((any_data(), 0..3usize), 1..6)) {
        let mut stored: Option<Value> = None;
        for (second, (given, manager)) in steps.into_iter().enumerate() {
            let manager = ["one", "two", "three"][manager];
            let tracked = stored.as_ref().is_none_or(|stored| stored["metadata"].get("managedFields").is_some());
            let after = written(CONFIG_MAP, stored.as_ref(), &given, manager, second as i64);
            let entries = entry::decode(&after["metadata"]["managedFields"]).expect("entries");
            for (index, entry) in entries.iter().enumerate() {
                prop_assert!(!entry.fields.is_empty());
                for other in &entries[index + 1..] {
                    prop_assert!(entry.fields.intersection(&other.fields).is_empty());
                }
            }
            let all = owned(&written(CONFIG_MAP, None, &given, "all", 0));
            prop_assert_eq!(owned(&after), if tracked { all } else { FieldSet::default() });
            stored = Some(after);
        }
    }
}
