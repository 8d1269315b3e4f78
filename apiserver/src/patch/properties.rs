//! What a strategic merge patch does to lists, against the shortest statements of its documentation: an item is its
//! key, a set is its members, an order is what it names, and retained keys are all that is left.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const POD: &str = "io.k8s.api.core.v1.Pod";

fn patched(object: &Value, patch: &Value) -> Value {
    let text = patch.to_string();
    let applied = apply(
        POD,
        object,
        PatchType::StrategicMerge,
        text.as_bytes(),
        FieldValidation::Strict,
    );
    applied.expect("it is applied").value
}

fn pod(containers: &BTreeMap<String, String>) -> Value {
    let containers = containers
        .iter()
        .map(|(name, image)| json!({"name": name, "image": image}));
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers.collect::<Vec<_>>()}})
}

fn images(pod: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let containers = pod["spec"]["containers"].as_array();
    let containers = containers.into_iter().flatten();
    containers
        .map(|one| (text(&one["name"]), text(&one["image"])))
        .collect()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().or_else(|| item[key].as_str()))
        .map(str::to_owned)
        .collect()
}

proptest! {
    #[test]
    fn items_are_changed_added_and_deleted_by_their_keys(
        live in proptest::collection::btree_map("[a-f]", "[xy]", 1..5),
        given in proptest::collection::btree_map("[a-h]", proptest::option::of("[xyz]"), 0..5),
    ) {
        let items: Vec<Value> = given
            .iter()
            .map(|(name, image)| match image {
                Some(image) => json!({"name": name, "image": image}),
                None => json!({"name": name, "$patch": "delete"}),
            })
            .collect();
        let after = patched(&pod(&live), &json!({"spec": {"containers": items}}));
        let mut expected = live;
        for (name, image) in given {
            match image {
                Some(image) => expected.insert(name, image),
                None => expected.remove(&name),
            };
        }
        prop_assert_eq!(images(&after), expected);
        let all: BTreeSet<String> = names(&after["spec"]["containers"], "name").into_iter().collect();
        prop_assert_eq!(all.len(), names(&after["spec"]["containers"], "name").len(), "every key once");
    }

    #[test]
    fn a_list_that_is_replaced_is_what_is_given(
        live in proptest::collection::btree_map("[a-f]", "[xy]", 1..5),
        given in proptest::collection::btree_map("[a-h]", "[xyz]", 1..5),
    ) {
        let mut items = pod(&given)["spec"]["containers"].clone();
        items.as_array_mut().expect("a list").push(json!({"$patch": "replace"}));
        let after = patched(&pod(&live), &json!({"spec": {"containers": items}}));
        prop_assert_eq!(images(&after), given);
    }

    #[test]
    fn what_an_order_names_comes_in_this_order(
        live in proptest::collection::btree_map("[a-f]", "[xy]", 1..6),
        order in Just(["a", "b", "c", "d", "e", "f", "g"]).prop_shuffle(),
        given in proptest::collection::btree_set("[a-g]", 0..4),
    ) {
        // As kubectl sends it: the order names all that is there after the patch.
        let order: Vec<&str> = order
            .into_iter()
            .filter(|name| live.contains_key(*name) || given.contains(*name))
            .collect();
        let items = order.iter().filter(|name| given.contains(**name));
        let items: Vec<Value> = items.map(|name| json!({"name": name, "image": "new"})).collect();
        let keys: Vec<Value> = order.iter().map(|name| json!({"name": name})).collect();
        let patch = json!({"spec": {"$setElementOrder/containers": keys, "containers": items}});
        let after = patched(&pod(&live), &patch);
        prop_assert_eq!(names(&after["spec"]["containers"], "name"), order);
    }

    #[test]
    fn a_set_gains_what_is_given_and_loses_what_is_deleted(
        live in proptest::collection::btree_set("[a-f]", 0..5),
        given in proptest::collection::btree_set("[a-d]", 1..4),
        deleted in proptest::collection::btree_set("[e-h]", 1..4),
    ) {
        let object = json!({"metadata": {"name": "p", "finalizers": live}});
        let patch = json!({"metadata": {"finalizers": given, "$deleteFromPrimitiveList/finalizers": deleted}});
        let after = patched(&object, &patch);
        let left: BTreeSet<String> = names(&after["metadata"]["finalizers"], "").into_iter().collect();
        let expected: BTreeSet<String> = live.union(&given).filter(|name| !deleted.contains(*name)).cloned().collect();
        prop_assert_eq!(left, expected);
    }

    #[test]
    fn of_a_volume_only_the_retained_keys_are_left(source in 0..3usize, other in 0..3usize) {
        let sources = [
            ("emptyDir", json!({})),
            ("hostPath", json!({"path": "/x"})),
            ("configMap", json!({"name": "c"})),
        ];
        let volume = |which: usize| {
            let (name, value) = &sources[which];
            json!({"name": "v", (*name): value})
        };
        let object = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [volume(source)]}});
        let mut given = volume(other);
        given["$retainKeys"] = json!(["name", sources[other].0]);
        let after = patched(&object, &json!({"spec": {"volumes": [given]}}));
        prop_assert_eq!(&after["spec"]["volumes"], &json!([volume(other)]));
    }
}
