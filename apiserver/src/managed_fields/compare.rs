//! Which fields two objects of one type differ in.
//!
//! A leaf is a scalar, an atomic struct, map or list, or one that is empty on both sides; it is changed if
//! its values differ. What has fields or items of its own is changed itself only if it was not there at all
//! before: then it is the `.` beside them.

use super::FieldSet;
use crate::schema::{Facts, ListKind, Node, Struct};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields of a new object that are not as they were, and those that are gone.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Difference {
    pub changed: FieldSet,
    pub removed: FieldSet,
}

impl Difference {
    fn insert(&mut self, element: &str, below: Self) {
        self.changed.insert(element, below.changed);
        self.removed.insert(element, below.removed);
    }
}

/// Compare two objects of the type `root`.
pub(super) fn compare(root: &'static Struct, before: &Value, after: &Value) -> Difference {
    fields(root, Some(before), Some(after))
}

fn compare_node(
    node: &Node,
    facts: Option<&Facts>,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Difference {
    let atomic = facts.is_some_and(|facts| facts.atomic);
    let both_empty = is_empty(before) && is_empty(after);
    let list = facts.map(|facts| facts.list).unwrap_or_default();
    let mut difference = match node {
        Node::Struct(kind) if !both_empty && (!kind.atomic || facts.is_some_and(|facts| facts.granular)) => {
            fields(kind, before, after)
        }
        Node::Map(element) if !both_empty && !atomic => map(element, before, after),
        Node::List(element) if !both_empty && list != ListKind::Atomic => items(element, list, before, after),
        _ => return leaf(before, after),
    };
    match (before, after) {
        (None, _) => difference.changed.own(),
        (_, None) => difference.removed.own(),
        _ => {}
    }
    difference
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn leaf(before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    match (before, after) {
        (Some(_), None) => difference.removed = FieldSet::leaf(),
        (before, after) if before != after => difference.changed = FieldSet::leaf(),
        _ => {}
    }
    difference
}

fn fields(kind: &Struct, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    for field in kind.fields() {
        let name: &str = &field.name;
        let before = before.and_then(|object| object.get(name));
        let after = after.and_then(|object| object.get(name));
        // Most fields are absent or the same on both sides.
        if before != after {
            let below = compare_node(&field.node, Some(&field.facts), before, after);
            difference.insert(&format!("f:{name}"), below);
        }
    }
    difference
}

fn map(element: &Node, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let none = Map::new();
    let before = before.and_then(Value::as_object).unwrap_or(&none);
    let after = after.and_then(Value::as_object).unwrap_or(&none);
    let mut difference = Difference::default();
    let only_before = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(only_before) {
        let below = compare_node(element, None, before.get(key), after.get(key));
        difference.insert(&format!("f:{key}"), below);
    }
    difference
}

fn items(element: &Node, list: ListKind, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let (before, after) = (by_element(list, before), by_element(list, after));
    let mut difference = Difference::default();
    let only_before = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(only_before) {
        let (before, after) = (before.get(key), after.get(key));
        let below = match (before.map(Vec::as_slice), after.map(Vec::as_slice)) {
            (None | Some([_]), None | Some([_])) => {
                compare_node(element, None, before.map(|one| one[0]), after.map(|one| one[0]))
            }
            // Several items with the same key are one value.
            (before, after) => {
                let together =
                    |items: Option<&[&Value]>| items.map(|items| items.iter().copied().cloned().collect());
                leaf(together(before).as_ref(), together(after).as_ref())
            }
        };
        difference.insert(key, below);
    }
    difference
}

/// The items of a list under their path elements.
fn by_element(list: ListKind, items: Option<&Value>) -> BTreeMap<String, Vec<&Value>> {
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in items.and_then(Value::as_array).into_iter().flatten() {
        found.entry(path_element(list, item)).or_default().push(item);
    }
    found
}

fn path_element(list: ListKind, item: &Value) -> String {
    match list {
        ListKind::Map(keys) => {
            let keys = keys.iter().map(|key| {
                let value = item.get(*key).filter(|value| !value.is_null()).cloned();
                (key.to_string(), value.unwrap_or_else(|| default_of_key(key)))
            });
            format!("k:{}", Value::Object(keys.collect()))
        }
        ListKind::Set | ListKind::Atomic => format!("v:{item}"),
    }
}

/// The value of a key that an item does not give: in all of the API only protocols have one.
fn default_of_key(key: &str) -> Value {
    match key {
        "protocol" => "TCP".into(),
        _ => Value::Null,
    }
}
