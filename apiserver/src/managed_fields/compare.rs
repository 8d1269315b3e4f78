//! Which fields two objects of one type differ in.
//!
//! A leaf is a scalar, an atomic struct, map or list, or one that is empty on both sides; it is changed if
//! its values differ. What has fields or items of its own is changed itself only if it was not there at all
//! before: then it is the `.` beside them.

use super::FieldSet;
use super::element;
use super::shape::{Shape, Type};
use crate::schema::{ListKind, Struct};
use serde_json::{Map, Value};

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

fn value(of: Type<'_>, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let both_empty = is_empty(before) && is_empty(after);
    let mut difference = match of.shape() {
        Shape::Struct(kind) if !both_empty => fields(kind, before, after),
        Shape::Map(values) if !both_empty => map(values, before, after),
        Shape::List(list, items) if !both_empty => list_items(list, items, before, after),
        _ => return leaf(before, after),
    };
    match (before, after) {
        (None, _) => difference.changed.own(),
        (_, None) => difference.removed.own(),
        _ => {}
    }
    difference
}

/// Whether there is nothing in a value: no field, no item.
pub(super) fn is_empty(value: Option<&Value>) -> bool {
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

fn fields(kind: &'static Struct, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    for (name, of) in Type::fields(kind) {
        let before = before.and_then(|object| object.get(name));
        let after = after.and_then(|object| object.get(name));
        // Most fields are absent or the same on both sides.
        if before != after {
            difference.insert(&element::field(name), value(of, before, after));
        }
    }
    difference
}

fn map(values: Type<'_>, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let none = Map::new();
    let before = before.and_then(Value::as_object).unwrap_or(&none);
    let after = after.and_then(Value::as_object).unwrap_or(&none);
    let mut difference = Difference::default();
    let only_before = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(only_before) {
        difference.insert(
            &element::field(key),
            value(values, before.get(key), after.get(key)),
        );
    }
    difference
}

fn list_items(list: ListKind, items: Type<'_>, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let (before, after) = (
        element::by_element(list, before),
        element::by_element(list, after),
    );
    let mut difference = Difference::default();
    let only_before = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(only_before) {
        let (before, after) = (before.get(key), after.get(key));
        let below = match (before.map(Vec::as_slice), after.map(Vec::as_slice)) {
            (None | Some([_]), None | Some([_])) => {
                value(items, before.map(|one| one[0]), after.map(|one| one[0]))
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
