use super::*;
use crate::managed_fields::{self, compare};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const SERVICE: &str = "io.k8s.api.core.v1.Service";
const STATEFUL_SET: &str = "io.k8s.api.apps.v1.StatefulSet";
const POD: &str = "io.k8s.api.core.v1.Pod";

fn writer(manager: &str, second: i64) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        time: jiff::Timestamp::from_second(1_700_000_000 + second).expect("in range"),
    }
}

fn decoded(schema: &str, object: &Value) -> Value {
    schema::decode(schema, object.to_string().as_bytes())
        .expect("decodes")
        .value
}

/// What an apply of `config` makes of `live`, or of nothing.
fn applied(
    schema: &str,
    live: Option<&Value>,
    config: &Value,
    by: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let empty = || {
        let mut empty = decoded(schema, &json!({}));
        empty["apiVersion"] = config["apiVersion"].clone();
        empty["kind"] = config["kind"].clone();
        empty
    };
    let live = live.cloned().unwrap_or_else(empty);
    let apply = Apply {
        schema,
        live: &live,
        config,
        writer: by,
        force,
        reset: Reset::These(&[&["f:status"]]),
    };
    let mut object = apply.run()?;
    object["metadata"]["uid"] = "u".into();
    Ok(object)
}

fn updated(schema: &str, live: Option<&Value>, after: &Value, by: Writer<'_>) -> Value {
    let mut after = decoded(schema, after);
    managed_fields::update(schema, live, &mut after, by);
    after["metadata"]["uid"] = "u".into();
    after
}

fn fields_of<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array();
    let mut entries = entries.into_iter().flatten();
    let found = entries.find(|entry| entry["manager"] == manager);
    found.map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

fn config_map(data: &Value) -> Value {
    without_empty(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}))
}

/// An object without empty lists and maps: to give one is to say something, which Go forgets.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .map(|(name, value)| (name, without_empty(value)));
            Value::Object(
                kept.filter(|(_, value)| !compare::is_empty(Some(value)))
                    .collect(),
            )
        }
        other => other,
    }
}

fn messages(error: ApplyError) -> String {
    match error {
        ApplyError::BadRequest(message) | ApplyError::Untyped(message) => message,
        ApplyError::Conflicts(conflicts) => conflict_status(&conflicts)["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn set(template: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {"template": {"spec": template}}})
}

#[test]
fn what_is_no_longer_given_goes_unless_somebody_else_owns_it() {
    let containers = |env: Value| set(&json!({"containers": [{"name": "c", "image": "i", "env": env}]}));
    let first = containers(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
    let created = applied(STATEFUL_SET, None, &first, writer("one", 0), false).expect("created");
    let other = containers(json!([{"name": "A", "value": "1"}]));
    let shared = applied(STATEFUL_SET, Some(&created), &other, writer("two", 1), false).expect("shared");
    let nothing = set(&json!({"containers": [{"name": "c", "image": "i"}]}));
    let left = applied(STATEFUL_SET, Some(&shared), &nothing, writer("one", 2), false).expect("applied");
    let env = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    assert_eq!(env(&left), json!([{"name": "A", "value": "1"}]));
    let gone = applied(STATEFUL_SET, Some(&left), &nothing, writer("two", 3), false).expect("applied");
    assert_eq!(env(&gone), Value::Null);
    let bare = set(&json!({}));
    let last = applied(STATEFUL_SET, Some(&gone), &bare, writer("one", 4), false).expect("applied");
    assert!(
        last["spec"]["template"]["spec"]["containers"][0].is_object(),
        "two has it"
    );
    assert_eq!(
        *fields_of(&last, "one"),
        json!({"f:spec": {"f:template": {"f:spec": {}}}})
    );
}

#[test]
fn conflicts_are_told_in_upstreams_words() {
    let created = updated(
        CONFIG_MAP,
        None,
        &config_map(&json!({"j": "1", "k": "1"})),
        writer("editor", 0),
    );
    let one = applied(
        CONFIG_MAP,
        Some(&created),
        &config_map(&json!({"n": "1"})),
        writer("one", 1),
        false,
    )
    .expect("no conflict");
    for (data, message) in [
        (
            json!({"k": "2"}),
            "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.k",
        ),
        (
            json!({"k": "2", "j": "2", "n": "2"}),
            "Apply failed with 3 conflicts: conflicts with \"editor\" using v1:\n- .data.j\n- .data.k\nconflicts with \"one\":\n- .data.n",
        ),
    ] {
        let refused = applied(
            CONFIG_MAP,
            Some(&one),
            &config_map(&data),
            writer("two", 2),
            false,
        );
        assert_eq!(refused.map_err(messages), Err(message.to_owned()));
    }
    let forced = applied(
        CONFIG_MAP,
        Some(&one),
        &config_map(&json!({"k": "2"})),
        writer("two", 2),
        true,
    );
    let forced = forced.expect("forced");
    assert_eq!(
        *fields_of(&forced, "editor"),
        json!({"f:data": {".": {}, "f:j": {}}})
    );
    assert_eq!(forced["data"], json!({"j": "1", "k": "2", "n": "1"}));
}

#[test]
fn a_configuration_that_is_not_of_its_type_is_refused_in_upstreams_words() {
    for (schema, config, why) in [
        (
            CONFIG_MAP,
            json!({"nope": 1}),
            ".nope: field not declared in schema",
        ),
        (
            CONFIG_MAP,
            json!({"data": {"k": 1}}),
            ".data.k: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            CONFIG_MAP,
            json!({"data": ["x"]}),
            ".data: expected map, got &{[x]}",
        ),
        (
            STATEFUL_SET,
            json!({"spec": {"replicas": "1"}}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            STATEFUL_SET,
            json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            STATEFUL_SET,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "args": [true]}]}}}}),
            ".spec.template.spec.containers[name=\"c\"].args[0]: expected string, got &value.valueUnstructured{Value:true}",
        ),
        (
            SERVICE,
            json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}}),
            ".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]",
        ),
        (
            CONFIG_MAP,
            json!({"metadata": {"finalizers": [{}]}, "immutable": 1}),
            "errors:\n  .immutable: expected boolean, got &{1}\n  .metadata.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
    ] {
        let refused = applied(schema, None, &config, writer("one", 0), false).map_err(messages);
        assert_eq!(
            refused,
            Err(format!(
                "failed to create typed patch object (/; /, Kind=): {why}"
            ))
        );
    }
    let claimed = json!({"metadata": {"managedFields": []}});
    let refused = applied(CONFIG_MAP, None, &claimed, writer("one", 0), false).map_err(messages);
    assert_eq!(refused, Err("metadata.managedFields must be nil".to_owned()));
}

#[test]
fn an_object_without_entries_was_written_before_the_first_apply() {
    let live = decoded(
        CONFIG_MAP,
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "data": {"k": "1"}}),
    );
    let after = applied(
        CONFIG_MAP,
        Some(&live),
        &config_map(&json!({"n": "1"})),
        writer("one", 0),
        false,
    );
    let after = after.expect("applied");
    assert_eq!(
        *fields_of(&after, BEFORE_FIRST_APPLY),
        json!({"f:data": {".": {}, "f:k": {}}})
    );
    let refused = applied(
        CONFIG_MAP,
        Some(&live),
        &config_map(&json!({"k": "2"})),
        writer("one", 0),
        false,
    );
    assert_eq!(
        refused.map_err(messages),
        Err(
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.k".to_owned()
        )
    );
}

#[test]
fn kubectl_may_take_what_it_applied_from_its_side_and_keeps_the_annotation() {
    const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut given = config_map(&json!({"j": "1", "k": "1"}));
    let last = given.to_string();
    given["metadata"]["annotations"] = json!({ ANNOTATION: last });
    let live = updated(CONFIG_MAP, None, &given, writer("kubectl-client-side-apply", 0));
    let config = config_map(&json!({"j": "2", "k": "1"}));
    let refused = applied(CONFIG_MAP, Some(&live), &config, writer("one", 1), false);
    assert!(refused.is_err(), "only kubectl looks at the annotation");
    let after = applied(CONFIG_MAP, Some(&live), &config, writer("kubectl", 1), false).expect("applied");
    assert_eq!(after["data"]["j"], "2");
    assert_eq!(
        after["metadata"]["annotations"][ANNOTATION],
        format!("{config}\n")
    );
    // What somebody changed since is a conflict.
    let mut edited = live.clone();
    edited["data"]["j"] = "9".into();
    let edited = updated(CONFIG_MAP, Some(&live), &edited, writer("editor", 2));
    let refused = applied(CONFIG_MAP, Some(&edited), &config, writer("kubectl", 3), false);
    assert_eq!(
        refused.map_err(messages),
        Err("Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.j".to_owned())
    );
}

#[test]
fn what_a_write_leaves_as_it_is_is_not_owned() {
    let given = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]}, "status": {"phase": "Running"}});
    for (reset, owned) in [
        (
            Reset::These(&[&["f:status"], &["f:metadata", "f:labels"]]),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {"f:limits": {"f:cpu": {}}}}}}}),
        ),
        (
            Reset::AllBut(&[&["f:status"]]),
            json!({"f:status": {"f:phase": {}}}),
        ),
        (
            Reset::AllBut(&[&["f:spec", "f:containers", "*", "f:resources"]]),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:resources": {"f:limits": {"f:cpu": {}}}}}}}),
        ),
    ] {
        let live = decoded(POD, &json!({"apiVersion": "v1", "kind": "Pod"}));
        let apply = Apply {
            schema: POD,
            live: &live,
            config: &given,
            writer: writer("one", 0),
            force: false,
            reset,
        };
        assert_eq!(*fields_of(&apply.run().expect("applied"), "one"), owned);
    }
}

#[test]
fn items_come_in_the_order_of_the_configuration_and_others_stay_before_what_they_were_before() {
    let finalizers = |names: &str| {
        let names: Vec<String> = names.chars().map(String::from).collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": names}})
    };
    for (live, config, expected) in [
        ("abc", "b", "abc"),
        ("abc", "cb", "acb"),
        ("ab", "c", "abc"),
        ("ax", "xna", "xna"),
        ("bax", "abn", "axbn"),
        ("", "ab", "ab"),
    ] {
        let before = updated(CONFIG_MAP, None, &finalizers(live), writer("editor", 0));
        let after = applied(
            CONFIG_MAP,
            Some(&before),
            &finalizers(config),
            writer("one", 1),
            false,
        );
        let after = after.expect("applied")["metadata"]["finalizers"].clone();
        let all: Vec<&str> = after
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(all.concat(), expected, "{live} with {config}");
    }
}

#[test]
fn the_replicas_owners_move_between_an_object_and_its_scale() {
    let fields = |replicas: bool| {
        let other = json!({"f:spec": {"f:serviceName": {}}});
        let both = json!({"f:spec": {"f:replicas": {}, "f:serviceName": {}}});
        if replicas { both } else { other }
    };
    let entry = |manager: &str, fields: Value| json!({"manager": manager, "operation": "Apply", "apiVersion": "apps/v1", "time": "2023-11-14T22:13:20Z", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let object = json!([entry("one", fields(true)), entry("two", fields(false))]);
    let scale = managed_fields::scale::to_scale(&object);
    assert_eq!(scale.as_array().map(Vec::len), Some(1));
    assert_eq!(scale[0]["apiVersion"], "autoscaling/v1");
    assert_eq!(
        managed_fields::scale::to_object(&object, &scale, "apps/v1"),
        object
    );
    let mut taken = scale;
    taken[0]["manager"] = "hpa".into();
    taken[0]["subresource"] = "scale".into();
    let mut owner = entry("hpa", json!({"f:spec": {"f:replicas": {}}}));
    owner["subresource"] = "scale".into();
    owner.as_object_mut().expect("an entry").remove("time");
    assert_eq!(
        managed_fields::scale::to_object(&object, &taken, "apps/v1"),
        json!([owner, entry("one", fields(false)), entry("two", fields(false))])
    );
}

/// A Service with some labels, ports and a selector, all of which may be missing.
fn any_service(ports: std::ops::Range<u16>) -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[abc]", "[xy]", 0..3);
    let ports = proptest::collection::btree_map(ports, "[pq]", 0..3);
    let selector = proptest::option::of(proptest::collection::btree_map("[ab]", "[xy]", 0..2));
    let finalizers = proptest::collection::btree_set("[abc]", 0..3);
    (labels, ports, selector, finalizers).prop_map(|(labels, ports, selector, finalizers)| {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(port, name)| json!({"port": port, "targetPort": port, "name": name}))
            .collect();
        let mut service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "labels": labels, "finalizers": finalizers}, "spec": {"ports": ports}});
        if let Some(selector) = selector {
            service["spec"]["selector"] = json!(selector);
        }
        without_empty(service)
    })
}

/// A write of a ConfigMap's data.
#[derive(Clone, Debug)]
struct Step {
    manager: &'static str,
    /// `None`: an update. `Some`: an apply, forced or not.
    apply: Option<bool>,
    data: BTreeMap<String, String>,
}

fn any_step() -> impl Strategy<Value = Step> {
    let manager = prop_oneof![Just("one"), Just("two"), Just("three")];
    let apply = prop_oneof![Just(None), Just(Some(false)), Just(Some(true))];
    let data = proptest::collection::btree_map("[abc]", "[xy]", 0..3);
    (manager, apply, data).prop_map(|(manager, apply, data)| Step { manager, apply, data })
}

/// What the rules of server-side apply say of the keys of a map, told the shortest way.
#[derive(Debug, Default)]
struct Model {
    values: BTreeMap<String, String>,
    /// Who owns a key: a manager, and whether by applying.
    owners: BTreeMap<String, BTreeSet<(&'static str, bool)>>,
    /// Who owns the map itself: the one whose update made it, for as long as there is a key, and after that until
    /// somebody makes it anew.
    map_owners: BTreeSet<(&'static str, bool)>,
}

impl Model {
    /// Do a step; or say with how many fields of others it is in conflict.
    fn step(&mut self, step: &Step) -> Result<(), usize> {
        let me = (step.manager, step.apply.is_some());
        let changed: Vec<&String> = step
            .data
            .iter()
            .filter(|(key, value)| self.values.get(*key) != Some(value))
            .map(|(key, _)| key)
            .collect();
        let others = |key: &String| {
            self.owners
                .get(key)
                .map_or(0, |owners| owners.iter().filter(|owner| **owner != me).count())
        };
        let is_new = self.values.is_empty() && !step.data.is_empty();
        let of_map = self.map_owners.len() * usize::from(is_new);
        let conflicts: usize = of_map + changed.iter().map(|key| others(key)).sum::<usize>();
        if step.apply == Some(false) && conflicts > 0 {
            return Err(conflicts);
        }
        if is_new {
            // An apply owns the keys that it gives, not what they are in.
            self.map_owners = BTreeSet::from_iter(step.apply.is_none().then_some(me));
        } else if step.apply.is_none() && step.data.is_empty() && !self.values.is_empty() {
            self.map_owners.clear();
        }
        for key in &changed {
            self.owners.insert((*key).clone(), BTreeSet::from([me]));
        }
        self.values.extend(step.data.clone());
        if step.apply.is_some() {
            for (key, owners) in &mut self.owners {
                if step.data.contains_key(key) {
                    owners.insert(me);
                } else if owners.remove(&me) && owners.is_empty() {
                    self.values.remove(key);
                }
            }
        } else {
            self.values.retain(|key, _| step.data.contains_key(key));
        }
        let values = &self.values;
        self.owners
            .retain(|key, owners| values.contains_key(key) && !owners.is_empty());
        Ok(())
    }
}

proptest! {
    #[test]
    fn applying_the_same_twice_changes_nothing(live in any_service(80..83), config in any_service(80..83)) {
        let live = updated(SERVICE, None, &live, writer("editor", 0));
        let once = applied(SERVICE, Some(&live), &config, writer("one", 1), true).expect("forced");
        let twice = applied(SERVICE, Some(&once), &config, writer("one", 2), false).expect("no conflict with itself");
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn what_is_applied_and_then_not_given_leaves_no_trace(live in any_service(80..83), config in any_service(90..93)) {
        // Nothing that the configuration gives is in the object already.
        let mut config = config;
        config["metadata"]["labels"] = json!({"z": "x"});
        config["metadata"]["finalizers"] = json!(["zz"]);
        if let Some(spec) = config.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("selector");
        }
        let live = updated(SERVICE, None, &live, writer("editor", 0));
        let with = applied(SERVICE, Some(&live), &config, writer("one", 1), false).expect("nobody owns it");
        let nothing = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}});
        let without = applied(SERVICE, Some(&with), &nothing, writer("one", 2), false).expect("no conflict");
        prop_assert_eq!(without, live);
    }

    #[test]
    fn an_apply_gives_what_its_configuration_says(live in any_service(80..83), config in any_service(80..83)) {
        let live = updated(SERVICE, None, &live, writer("editor", 0));
        let after = applied(SERVICE, Some(&live), &config, writer("one", 1), true).expect("forced");
        let root = schema::find(SERVICE).expect("known");
        let node = Node::Struct(root);
        prop_assert_eq!(&merge(Type::of(&node), &after, &config), &after);
        // And it owns just what it gives.
        let mut own = owned(Type::of(&node), &config);
        strip(&mut own);
        let entries = entry::decode(&after["metadata"]["managedFields"]).expect("entries");
        let entry = entries.iter().find(|entry| entry.manager == "one");
        prop_assert_eq!(entry.map(|entry| entry.fields.clone()).unwrap_or_default(), own);
    }

    #[test]
    fn conflicts_and_owners_are_those_of_the_model(steps in proptest::collection::vec(any_step(), 1..8)) {
        let mut model = Model::default();
        let mut live: Option<Value> = None;
        for (second, step) in steps.iter().enumerate() {
            let by = writer(step.manager, second as i64);
            let config = config_map(&json!(step.data));
            let after = match step.apply {
                Some(force) => applied(CONFIG_MAP, live.as_ref(), &config, by, force),
                None => Ok(updated(CONFIG_MAP, live.as_ref(), &config, by)),
            };
            let expected = model.step(step);
            let after = match (after, expected) {
                (Ok(after), Ok(())) => after,
                (Err(ApplyError::Conflicts(conflicts)), Err(count)) => {
                    prop_assert_eq!(conflicts.iter().map(|one| one.fields.paths().len()).sum::<usize>(), count);
                    continue;
                }
                (after, expected) => return Err(TestCaseError::fail(format!("{after:?} and not {expected:?}"))),
            };
            let data: BTreeMap<String, String> = serde_json::from_value(after["data"].clone()).unwrap_or_default();
            prop_assert_eq!(&data, &model.values);
            let mut owners: BTreeMap<String, BTreeSet<(&str, bool)>> = BTreeMap::new();
            for entry in entry::decode(&after["metadata"]["managedFields"]).expect("entries") {
                let manager = ["one", "two", "three"].into_iter().find(|name| *name == entry.manager);
                let owner = (manager.expect("one of them"), entry.operation == "Apply");
                for key in ["a", "b", "c"] {
                    let fields = json!({"f:data": {format!("f:{key}"): {}}});
                    let key_set = FieldSet::decode(&fields).expect("a set");
                    if !entry.fields.intersection(&key_set).is_empty() {
                        owners.entry(key.to_owned()).or_default().insert(owner);
                    }
                }
            }
            prop_assert_eq!(&owners, &model.owners);
            // An object of which nobody owns anything is not tracked by updates any more.
            if after["metadata"]["managedFields"].is_null() {
                break;
            }
            live = Some(after);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn of_every_kind_what_is_applied_is_owned_and_goes_with_its_owner(seed in any::<u64>()) {
        for kind in crate::resources::all() {
            let schema = kind.names().schema;
            let root = schema::find(schema).expect(schema);
            let node = Node::Struct(root);
            let of = Type::of(&node);
            let config = schema::arbitrary::object(root, seed);
            prop_assert_eq!(validate::validate(of, &config), Ok(()), "{}", schema);
            let object = decoded(schema, &config);
            let own = owned(of, &config);
            prop_assert_eq!(FieldSet::decode(&own.encode()), Some(own.clone()));
            prop_assert_eq!(compare(root, &object, &object), compare::Difference::default());
            // Laid over itself it is itself; laid over nothing it is there; taken away from itself nothing is left.
            prop_assert_eq!(merge(of, &config, &config), config.clone(), "{}", schema);
            prop_assert_eq!(decoded(schema, &merge(of, &json!({}), &config)), object, "{}", schema);
            prop_assert_eq!(prune(of, &config, &own, &own), config.clone(), "{}", schema);
            prop_assert_eq!(prune(of, &config, &own, &FieldSet::default()), Value::Null, "{}", schema);
        }
    }
}
