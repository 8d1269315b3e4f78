use super::*;
use proptest::prelude::*;

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const POD: &str = "io.k8s.api.core.v1.Pod";
const STATEFUL_SET: &str = "io.k8s.api.apps.v1.StatefulSet";
const SERVICE: &str = "io.k8s.api.core.v1.Service";

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"j": "w", "k": "v"}})
}

fn patched(schema: &str, object: &Value, patch_type: PatchType, patch: &Value) -> Value {
    let patch = patch.to_string();
    apply(
        schema,
        object,
        patch_type,
        patch.as_bytes(),
        FieldValidation::Warn,
    )
    .expect("applies")
    .value
}

fn refused(schema: &str, object: &Value, patch_type: PatchType, patch: &str) -> PatchError {
    apply(
        schema,
        object,
        patch_type,
        patch.as_bytes(),
        FieldValidation::Warn,
    )
    .expect_err(patch)
}

fn internal(message: &str) -> PatchError {
    PatchError::Internal(message.to_owned())
}

mod json_patch {
    use super::*;

    fn raw(object: &Value, operations: &Value) -> Option<Value> {
        let patch = json::parse(operations.to_string().as_bytes()).expect("parses");
        json::apply(object, &patch.operations).ok()
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        let object = json!({"a": [1, 2], "b": {"c/d": 1, "e~f": 2}});
        for (operations, result) in [
            (
                json!([{"op": "add", "path": "/a/1", "value": 9}]),
                json!({"a": [1, 9, 2], "b": {"c/d": 1, "e~f": 2}}),
            ),
            (
                json!([{"op": "add", "path": "/a/-", "value": 9}]),
                json!({"a": [1, 2, 9], "b": {"c/d": 1, "e~f": 2}}),
            ),
            (
                json!([{"op": "add", "path": "/a/2", "value": 9}]),
                json!({"a": [1, 2, 9], "b": {"c/d": 1, "e~f": 2}}),
            ),
            (
                json!([{"op": "remove", "path": "/a/-1"}]),
                json!({"a": [1], "b": {"c/d": 1, "e~f": 2}}),
            ),
            (
                json!([{"op": "remove", "path": "/b/c~1d"}]),
                json!({"a": [1, 2], "b": {"e~f": 2}}),
            ),
            (
                json!([{"op": "replace", "path": "/b/e~0f", "value": 3}]),
                json!({"a": [1, 2], "b": {"c/d": 1, "e~f": 3}}),
            ),
            (
                json!([{"op": "move", "from": "/a/0", "path": "/c"}]),
                json!({"a": [2], "b": {"c/d": 1, "e~f": 2}, "c": 1}),
            ),
            (
                json!([{"op": "copy", "from": "/a", "path": "/b"}]),
                json!({"a": [1, 2], "b": [1, 2]}),
            ),
            (
                json!([{"op": "test", "path": "/a/0", "value": 1}, {"op": "test", "path": "/zzz"}]),
                object.clone(),
            ),
        ] {
            assert_eq!(raw(&object, &operations), Some(result), "{operations}");
        }
    }

    #[test]
    fn what_cannot_be_applied_is_rejected_whole() {
        for operation in [
            json!({"op": "test", "path": "/data/k", "value": "z"}),
            json!({"op": "remove", "path": "/data/zzz"}),
            json!({"op": "replace", "path": "/data/zzz", "value": "1"}),
            json!({"op": "add", "path": "/metadata/annotations/a", "value": "1"}),
            json!({"op": "add", "path": "/data/k/x", "value": "1"}),
            json!({"op": "move", "from": "/nope", "path": "/data/x"}),
            json!({"op": "frob", "path": "/data/k"}),
            json!({"op": "remove", "path": ""}),
            json!({"path": "/data/k"}),
        ] {
            let patch = json!([{"op": "add", "path": "/data/n", "value": "1"}, operation]).to_string();
            assert_eq!(
                refused(CONFIG_MAP, &config_map(), PatchType::Json, &patch),
                PatchError::rejected(),
                "{patch}"
            );
        }
    }

    #[test]
    fn malformed_patches_are_bad_requests() {
        for (patch, message) in [
            (
                r#"{"op":"add"}"#,
                "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                "[1]",
                "json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
            ),
            (
                r#"[{"op":1}]"#,
                "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
            ("[", "unexpected end of JSON input"),
        ] {
            let expected = PatchError::BadRequest(format!("error decoding patch: {message}"));
            assert_eq!(
                refused(CONFIG_MAP, &config_map(), PatchType::Json, patch),
                expected
            );
        }
    }

    #[test]
    fn too_many_operations_and_too_large_copies_are_refused() {
        let many = vec![json!({"op": "test", "path": "/data/k", "value": "v"}); 10_001];
        let error = refused(
            CONFIG_MAP,
            &config_map(),
            PatchType::Json,
            &Value::from(many).to_string(),
        );
        assert_eq!(
            error,
            PatchError::TooLarge("The allowed maximum operations in a JSON patch is 10000, got 10001".into())
        );
        // Each copy doubles the map.
        let doubling: Vec<Value> = (0..64)
            .map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/{n}")}))
            .collect();
        let error = refused(
            CONFIG_MAP,
            &config_map(),
            PatchType::Json,
            &Value::from(doubling).to_string(),
        );
        assert!(matches!(error, PatchError::TooLarge(_)), "{error:?}");
    }

    #[test]
    fn unknown_and_duplicate_members_are_told() {
        let patch = br#"[{"op":"add","path":"/data/n","value":"1","x":1,"op":"add"}]"#;
        let result = apply(
            CONFIG_MAP,
            &config_map(),
            PatchType::Json,
            patch,
            FieldValidation::Warn,
        )
        .expect("applies");
        assert_eq!(
            result.strict,
            [
                "json patch duplicate field \"[0].op\"",
                "json patch unknown field \"[0].x\""
            ]
        );
    }
}

#[test]
fn a_result_of_a_wrong_type_is_shown_whole() {
    let message = "Invalid value: \"{\\\"apiVersion\\\":\\\"v1\\\",\\\"data\\\":{\\\"j\\\":\\\"w\\\",\\\"k\\\":1},\\\"kind\\\":\\\"ConfigMap\\\",\
                   \\\"metadata\\\":{\\\"name\\\":\\\"a\\\",\\\"labels\\\":{\\\"x\\\":\\\"1\\\"}}}\": \
                   json: cannot unmarshal number into Go struct field ConfigMap.data of type string";
    let expected = PatchError::Unprocessable(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
        "message": format!(" \"\" is invalid: patch: {message}"),
        "details": {"causes": [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]},
    }));
    assert_eq!(
        refused(CONFIG_MAP, &config_map(), PatchType::Merge, r#"{"data":{"k":1}}"#),
        expected
    );
    let replace = r#"[{"op":"replace","path":"/data/k","value":1}]"#;
    assert_eq!(
        refused(CONFIG_MAP, &config_map(), PatchType::Json, replace),
        expected
    );
}

#[test]
fn a_result_of_another_kind_is_read_as_that_kind() {
    let PatchError::Unprocessable(status) = refused(
        CONFIG_MAP,
        &config_map(),
        PatchType::Merge,
        r#"{"kind":"Secret"}"#,
    ) else {
        panic!("unprocessable")
    };
    let message = status["message"].as_str().expect("a message");
    assert!(
        message.ends_with(": illegal base64 data at input byte 0"),
        "{message}"
    );
}

#[test]
fn strict_validation_refuses_what_otherwise_warns() {
    let patch = br#"{"nope":1,"metadata":{"zip":2}}"#;
    let warned = apply(
        CONFIG_MAP,
        &config_map(),
        PatchType::Merge,
        patch,
        FieldValidation::Warn,
    )
    .expect("applies");
    assert_eq!(
        warned.strict,
        ["unknown field \"metadata.zip\"", "unknown field \"nope\""]
    );
    let refused = apply(
        CONFIG_MAP,
        &config_map(),
        PatchType::Merge,
        patch,
        FieldValidation::Strict,
    )
    .expect_err("strict");
    let PatchError::Unprocessable(status) = refused else {
        panic!("unprocessable")
    };
    let message = status["message"].as_str().expect("a message");
    let end = ": strict decoding error: unknown field \"metadata.zip\", unknown field \"nope\"";
    assert!(message.ends_with(end), "{message}");
    assert!(
        message.contains(r#"\"metadata\":{\"labels\":{\"x\":\"1\"},\"name\":\"a\",\"zip\":2}"#),
        "{message}"
    );
}

#[test]
fn a_merge_patch_must_be_a_map() {
    let expected =
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
    assert_eq!(
        refused(CONFIG_MAP, &config_map(), PatchType::Merge, "[1]"),
        PatchError::BadRequest(expected.into())
    );
    let expected = "json: cannot unmarshal array into Go value of type map[string]interface {}";
    assert_eq!(
        refused(CONFIG_MAP, &config_map(), PatchType::StrategicMerge, "[1]"),
        PatchError::BadRequest(expected.into())
    );
}

mod strategic_patch {
    use super::*;

    fn set() -> Value {
        json!({"spec": {"replicas": 1, "serviceName": "s", "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [
                {"name": "c", "image": "c:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                 "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}], "args": ["x", "y"]},
                {"name": "d", "image": "d:1"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "a"}],
            "nodeSelector": {"a": "1", "b": "2"},
        }}}})
    }

    /// The pod spec after a patch of the pod spec.
    fn spec(patch: &Value) -> Value {
        let patch = json!({"spec": {"template": {"spec": patch}}});
        patched(STATEFUL_SET, &set(), PatchType::StrategicMerge, &patch)
            .pointer("/spec/template/spec")
            .cloned()
            .expect("a spec")
    }

    fn names(list: &Value) -> Vec<&str> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["name"].as_str())
            .collect()
    }

    fn refused_spec(patch: &Value) -> PatchError {
        let patch = json!({"spec": {"template": {"spec": patch}}});
        refused(
            STATEFUL_SET,
            &set(),
            PatchType::StrategicMerge,
            &patch.to_string(),
        )
    }

    #[test]
    fn lists_of_structs_are_merged_by_their_key() {
        let result = spec(
            &json!({"containers": [{"name": "c", "image": "c:2", "env": [{"name": "B", "value": "9"}, {"name": "C", "value": "3"}],
            "ports": [{"containerPort": 80, "protocol": "UDP"}]}]}),
        );
        let container = &result["containers"][0];
        assert_eq!(names(&result["containers"]), ["c", "d"]);
        assert_eq!(container["image"], "c:2");
        assert_eq!(
            container["env"],
            json!([{"name": "A", "value": "1"}, {"name": "B", "value": "9"}, {"name": "C", "value": "3"}])
        );
        assert_eq!(
            container["ports"][0],
            json!({"containerPort": 80, "name": "web", "protocol": "UDP"})
        );
    }

    #[test]
    fn an_item_that_is_new_comes_first() {
        assert_eq!(
            names(&spec(&json!({"containers": [{"name": "new", "image": "n"}]}))["containers"]),
            ["new", "c", "d"]
        );
    }

    #[test]
    fn atomic_lists_are_replaced_and_maps_merged() {
        let result = spec(
            &json!({"tolerations": [{"key": "b"}], "nodeSelector": {"a": null, "c": "3"},
            "containers": [{"name": "c", "args": ["z"]}]}),
        );
        assert_eq!(result["tolerations"], json!([{"key": "b"}]));
        assert_eq!(result["nodeSelector"], json!({"b": "2", "c": "3"}));
        assert_eq!(result["containers"][0]["args"], json!(["z"]));
    }

    #[test]
    fn patch_delete_takes_an_item_out() {
        assert_eq!(
            names(&spec(&json!({"containers": [{"name": "d", "$patch": "delete"}]}))["containers"]),
            ["c"]
        );
        let ports = &spec(
            &json!({"containers": [{"name": "c", "ports": [{"containerPort": 81, "$patch": "delete"}]}]}),
        )["containers"][0]["ports"];
        assert_eq!(*ports, json!([{"containerPort": 80, "name": "web"}]));
    }

    #[test]
    fn patch_replace_replaces_a_map_or_a_list() {
        assert_eq!(
            spec(&json!({"nodeSelector": {"$patch": "replace", "z": "1"}}))["nodeSelector"],
            json!({"z": "1"})
        );
        let containers =
            &spec(&json!({"containers": [{"$patch": "replace"}, {"name": "e", "image": "e"}]}))["containers"];
        assert_eq!(names(containers), ["e"]);
    }

    #[test]
    fn a_revisions_data_brings_its_template_back_whole() {
        let data = json!({"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"app": "old"}},
            "spec": {"containers": [{"name": "old", "image": "o", "resources": {}}]}}}});
        let result = patched(STATEFUL_SET, &set(), PatchType::StrategicMerge, &data);
        assert_eq!(result["spec"]["replicas"], 1);
        assert_eq!(
            result["spec"]["template"],
            json!({"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [{"name": "old", "image": "o", "resources": {}}]}})
        );
    }

    #[test]
    fn set_element_order_orders() {
        let order = json!({"$setElementOrder/containers": [{"name": "d"}, {"name": "c"}], "containers": [{"name": "c", "image": "c:3"}]});
        let result = spec(&order);
        assert_eq!(names(&result["containers"]), ["d", "c"]);
        assert_eq!(result["containers"][1]["image"], "c:3");
        let env =
            json!({"containers": [{"name": "c", "$setElementOrder/env": [{"name": "B"}, {"name": "A"}]}]});
        assert_eq!(names(&spec(&env)["containers"][0]["env"]), ["B", "A"]);
    }

    #[test]
    fn an_order_that_does_not_name_what_is_patched_is_refused() {
        let patch = json!({"$setElementOrder/containers": [{"name": "d"}], "containers": [{"name": "c", "image": "nginx:3"}]});
        let message = "The order in patch list:\n[map[image:nginx:3 name:c]]\n doesn't match $setElementOrder list:\n[map[name:d]]\n";
        assert_eq!(refused_spec(&patch), internal(message));
    }

    #[test]
    fn retain_keys_drops_the_other_fields() {
        let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]});
        assert_eq!(
            spec(&patch)["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/x"}}])
        );
        let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/x"}}]});
        assert_eq!(
            refused_spec(&patch),
            PatchError::BadRequest("invalid patch format of retainKeys".into())
        );
    }

    #[test]
    fn errors_are_in_upstreams_words() {
        assert_eq!(
            refused_spec(&json!({"containers": [{"image": "x"}]})),
            internal("map: map[image:x] does not contain declared merge key: name")
        );
        assert_eq!(
            refused_spec(&json!({"nodeSelector": {"$patch": "frob"}})),
            internal("unknown patch type: frob in map: map[$patch:frob]")
        );
        assert_eq!(
            refused_spec(&json!({"$setElementOrder/nope": []})),
            internal("unable to find api field in struct PodSpec for the json field \"nope\"")
        );
        let status = |detail: &str| PatchError::invalid("map[spec:map[replicas:x]]", detail);
        assert_eq!(
            refused(
                STATEFUL_SET,
                &set(),
                PatchType::StrategicMerge,
                r#"{"spec":{"replicas":"x"}}"#
            ),
            status("unrecognized type: int32")
        );
    }

    #[test]
    fn the_converter_has_words_of_its_own() {
        for (patch, detail) in [
            (
                json!({"spec": {"serviceName": 1}}),
                "cannot convert int64 to string",
            ),
            (
                json!({"spec": {"serviceName": true}}),
                "unrecognized type: string",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "cannot convert float64 to int32",
            ),
            (
                json!({"spec": {"template": 1}}),
                "cannot restore struct from: int64",
            ),
            (
                json!({"spec": {"volumeClaimTemplates": "x"}}),
                "cannot restore slice from string",
            ),
            (
                json!({"metadata": {"labels": []}}),
                "cannot restore map from slice",
            ),
        ] {
            let shown = go_print(&patch);
            let error = refused(
                STATEFUL_SET,
                &set(),
                PatchType::StrategicMerge,
                &patch.to_string(),
            );
            assert_eq!(error, PatchError::invalid(&shown, detail));
        }
    }

    #[test]
    fn sets_of_strings_are_merged_and_items_deleted_by_value() {
        let object = json!({"metadata": {"name": "a", "finalizers": ["example.com/a", "example.com/b"]}});
        let finalizers = |patch: Value| {
            patched(CONFIG_MAP, &object, PatchType::StrategicMerge, &patch)["metadata"]["finalizers"].clone()
        };
        assert_eq!(
            finalizers(json!({"metadata": {"finalizers": ["example.com/c"]}})),
            json!(["example.com/c", "example.com/a", "example.com/b"])
        );
        assert_eq!(
            finalizers(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}})),
            json!(["example.com/b"])
        );
        let ordered = json!({"metadata": {"$setElementOrder/finalizers": ["example.com/b", "example.com/c"], "finalizers": ["example.com/c"]}});
        assert_eq!(
            finalizers(ordered),
            json!(["example.com/a", "example.com/b", "example.com/c"])
        );
    }

    #[test]
    fn a_three_way_patch_of_kubectl_apply_is_understood() {
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"$setElementOrder/ports": [{"containerPort": 80}], "name": "a", "ports": [{"containerPort": 80, "name": "n"}]},
                           {"name": "b", "image": "b:1"}, {"$patch": "delete", "name": "gone"}]}});
        let pod =
            json!({"spec": {"containers": [{"name": "gone", "image": "g"}, {"name": "a", "image": "a"}]}});
        // The patch names `a` before `b`, the order asked for has it the other way round.
        assert!(matches!(
            refused(POD, &pod, PatchType::StrategicMerge, &patch.to_string()),
            PatchError::Internal(_)
        ));
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": patch["spec"]["containers"]}});
        let result = patched(POD, &pod, PatchType::StrategicMerge, &patch);
        assert_eq!(
            result["spec"]["containers"],
            json!([{"name": "a", "image": "a", "resources": {}, "ports": [{"containerPort": 80, "name": "n"}]},
                   {"name": "b", "image": "b:1", "resources": {}}])
        );
    }

    #[test]
    fn services_ports_are_merged_by_port() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}});
        let result = patched(
            SERVICE,
            &service,
            PatchType::StrategicMerge,
            &json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}),
        );
        assert_eq!(
            result["spec"]["ports"],
            json!([{"port": 81, "name": "b", "targetPort": 0}])
        );
    }

    #[test]
    fn directives_without_anything_to_act_on_leave_nothing_behind() {
        let patch = br#"{"metadata":{"annotations":{"$patch":"replace","a":"1","b":null}},"data":{"$patch":"delete"}}"#;
        let object = json!({"metadata": {"name": "a"}});
        let result = apply(
            CONFIG_MAP,
            &object,
            PatchType::StrategicMerge,
            patch,
            FieldValidation::Strict,
        )
        .expect("applies");
        assert_eq!(
            result.value,
            json!({"metadata": {"name": "a", "annotations": {"a": "1"}}})
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn merged(object: &Value, patch: &Value) -> Value {
    let mut target = object.clone();
    merge::apply(&mut target, patch);
    target
}

fn has_null_member(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| {
        fields
            .values()
            .any(|value| value.is_null() || has_null_member(value))
    })
}

proptest! {
    #[test]
    fn a_merge_patch_twice_is_a_merge_patch_once(object in any_json(), patch in any_json()) {
        let once = merged(&object, &patch);
        prop_assert_eq!(merged(&once, &patch), once);
    }

    #[test]
    fn an_object_is_a_merge_patch_to_itself(object in any_json()) {
        prop_assume!(!has_null_member(&object));
        prop_assert_eq!(merged(&object, &object), object);
    }

    #[test]
    fn a_strategic_patch_with_all_of_an_object_changes_nothing(names in proptest::collection::btree_set("[a-f]", 0..5), first in any::<prop::sample::Index>()) {
        let mut names: Vec<String> = names.into_iter().collect();
        if !names.is_empty() {
            let by = first.index(names.len());
            names.rotate_left(by);
        }
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        let pod = json!({"metadata": {"finalizers": names}, "spec": {"containers": containers}});
        let decoded = schema::decode(POD, pod.to_string().as_bytes()).expect("decodes").value;
        prop_assert_eq!(patched(POD, &decoded, PatchType::StrategicMerge, &decoded), decoded);
    }
}
