//! Which fields an applied configuration owns: all that it gives.
//!
//! A leaf is owned as a whole. A field that has fields of its own is not owned itself, only what is given in
//! it, unless it is given as null or empty; a map's key and a list's item are owned besides what is in them.

use super::FieldSet;
use super::element;
use super::shape::{Shape, Type};
use serde_json::{Map, Value};

/// The fields that `config` gives, which is of the type `of`.
pub(super) fn owned(of: Type<'_>, config: &Value) -> FieldSet {
    match of.shape() {
        Shape::Leaf => FieldSet::leaf(),
        Shape::Struct(kind) => fields(config, |name, value| {
            let below = Type::field(kind, name).map_or_else(FieldSet::leaf, |of| owned(of, value));
            (below, is_empty_map(value))
        }),
        Shape::Map(values) => fields(config, |_, value| (owned(values, value), true)),
        Shape::List(list, items) => {
            let mut set = FieldSet::default();
            for (element, values) in element::by_element(list, Some(config)) {
                let mut below = match values.as_slice() {
                    [only] => owned(items, only),
                    _ => FieldSet::leaf(),
                };
                below.own();
                set.insert(&element, below);
            }
            set
        }
    }
}

/// What is in the fields of `config`; `below` says what of a value is owned, and whether its field is, too.
fn fields(config: &Value, below: impl Fn(&str, &Value) -> (FieldSet, bool)) -> FieldSet {
    let none = Map::new();
    let mut set = FieldSet::default();
    for (name, value) in config.as_object().unwrap_or(&none) {
        let (mut below, itself) = below(name, value);
        if itself {
            below.own();
        }
        set.insert(&element::field(name), below);
    }
    set
}

fn is_empty_map(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}
