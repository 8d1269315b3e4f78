//! Taking fields and items out of an object.

use super::FieldSet;
use super::element;
use super::shape::{Shape, Type};
use serde_json::{Map, Value};

/// `value` without all that is in `gone`. A list or map of which nothing is left is null.
pub(super) fn remove(of: Type<'_>, value: &Value, gone: &FieldSet) -> Value {
    match (of.shape(), value) {
        (Shape::Struct(kind), Value::Object(fields)) => {
            from_map(fields, gone, |name| Type::field(kind, name))
        }
        (Shape::Map(values), Value::Object(fields)) => from_map(fields, gone, |_| Some(values)),
        (Shape::List(list, items), Value::Array(all)) => {
            let kept = all.iter().filter_map(|item| {
                let element = element::item(list, item);
                left_of(item, gone.child(&element), Some(items))
            });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { kept.into() }
        }
        _ => value.clone(),
    }
}

fn from_map<'a>(
    fields: &Map<String, Value>,
    gone: &FieldSet,
    of: impl Fn(&str) -> Option<Type<'a>>,
) -> Value {
    let kept = fields.iter().filter_map(|(name, value)| {
        let left = left_of(value, gone.child(&element::field(name)), of(name))?;
        Some((name.clone(), left))
    });
    let kept: Map<String, Value> = kept.collect();
    if kept.is_empty() {
        Value::Null
    } else {
        Value::Object(kept)
    }
}

/// What is left of a field or an item; `None` if it goes itself.
fn left_of(value: &Value, gone: Option<&FieldSet>, of: Option<Type<'_>>) -> Option<Value> {
    match (gone, of) {
        (Some(gone), _) if gone.is_member() => None,
        (Some(gone), Some(of)) => Some(remove(of, value, gone)),
        _ => Some(value.clone()),
    }
}
