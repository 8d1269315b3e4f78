//! Whether an applied configuration is of its type: what is wrong with it, in upstream's words.

use super::element;
use super::shape::Type;
use crate::schema::{ListKind, Node, go_print};
use crate::validation::go;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// What is wrong with `config`, which should be of the type `of`: one line, or several under `errors:`.
pub(super) fn validate(of: Type<'_>, config: &Value) -> Result<(), String> {
    let mut problems = Problems::default();
    problems.value(of, config);
    match problems.found.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

#[derive(Default)]
struct Problems {
    /// Where we are, as messages name it.
    path: String,
    found: Vec<String>,
}

impl Problems {
    fn add(&mut self, what: &str) {
        self.found.push(match self.path.as_str() {
            "" => what.to_owned(),
            path => format!("{path}: {what}"),
        });
    }

    /// Look at what is at `element` from here.
    fn at(&mut self, element: &str, look: impl FnOnce(&mut Self)) {
        let end = self.path.len();
        self.path += &element::print(element);
        look(self);
        self.path.truncate(end);
    }

    fn value(&mut self, of: Type<'_>, value: &Value) {
        if value.is_null() {
            return;
        }
        match (of.node, value) {
            (Node::Struct(kind), Value::Object(fields)) => {
                for (name, value) in fields {
                    let Some(of) = Type::field(kind, name) else {
                        // Upstream stops here, too.
                        return self.at(&element::field(name), |here| {
                            here.add("field not declared in schema");
                        });
                    };
                    self.at(&element::field(name), |here| here.value(of, value));
                }
            }
            (Node::Map(values), Value::Object(fields)) => self.map(Type::of(values), fields),
            (Node::List(items), Value::Array(all)) => self.items(of.list(), Type::of(items), all),
            (Node::Struct(_) | Node::Map(_), _) => self.add(&format!("expected map, got {}", shown(value))),
            (Node::List(_), _) => self.add(&format!("expected list, got {}", shown(value))),
            (Node::String | Node::Bytes, _) if !value.is_string() => {
                let value = go_syntax(value);
                self.add(&format!(
                    "expected string, got &value.valueUnstructured{{Value:{value}}}"
                ));
            }
            (Node::Int32 | Node::Int64 | Node::Float, _) if !value.is_number() => {
                let given = go_type(value);
                self.add(&format!("expected numeric (int or float), got {given}"));
            }
            (Node::Bool, _) if !value.is_boolean() => {
                self.add(&format!("expected boolean, got {}", shown(value)));
            }
            (Node::Time | Node::MicroTime | Node::Quantity | Node::IntOrString, _)
                if value.is_object() || value.is_array() =>
            {
                self.add(&format!("expected any scalar, got {}", shown(value)));
            }
            _ => {}
        }
    }

    fn map(&mut self, values: Type<'_>, fields: &Map<String, Value>) {
        for (name, value) in fields {
            self.at(&element::field(name), |here| here.value(values, value));
        }
    }

    fn items(&mut self, list: ListKind, items: Type<'_>, all: &[Value]) {
        let mut seen = HashSet::new();
        for (index, item) in all.iter().enumerate() {
            let element = match list {
                ListKind::Atomic => format!("i:{index}"),
                ListKind::Map(keys) => match keyless(keys, item) {
                    Some(why) => return self.add(&format!("element {index}: {why}")),
                    None => element::item(list, item),
                },
                ListKind::Set => match no_member(item) {
                    Some(why) => return self.add(&format!("element {index}: {why}")),
                    None => element::item(list, item),
                },
            };
            if !seen.insert(element.clone()) {
                let key = element::print(&element);
                self.add(&format!("duplicate entries for key {key}"));
            }
            self.at(&element, |here| here.value(items, item));
        }
    }
}

/// Why an item cannot be told apart by `keys`.
fn keyless(keys: &[&str], item: &Value) -> Option<String> {
    match item {
        Value::Null => Some("associative list with keys may not have a null element".to_owned()),
        Value::Object(fields) => {
            let missing = keys
                .iter()
                .find(|key| !fields.contains_key(**key) && element::default_of_key(key).is_none())?;
            Some(format!(
                "associative list with keys has an element that omits key field {} (and doesn't have default value)",
                go::quote(missing)
            ))
        }
        _ => Some("associative list with keys may not have non-map elements".to_owned()),
    }
}

/// Why an item cannot be one of a set.
fn no_member(item: &Value) -> Option<String> {
    let why = match item {
        Value::Null => "associative list without keys has an element that's an explicit null",
        Value::Object(_) => "associative list without keys has an element that's a map type",
        Value::Array(_) => "not supported: associative list with lists as elements",
        _ => return None,
    };
    Some(why.to_owned())
}

/// A value as Go's `%v` shows a pointer to what holds it.
fn shown(value: &Value) -> String {
    format!("&{{{}}}", go_print(value))
}

/// Its Go type.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%#v` shows it.
fn go_syntax(value: &Value) -> String {
    let all = |items: Vec<String>| format!("{}{{{}}}", go_type(value), items.join(", "));
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => go::quote(text),
        Value::Array(items) => all(items.iter().map(go_syntax).collect()),
        Value::Object(fields) => {
            let fields = fields.iter();
            all(fields
                .map(|(name, value)| format!("{}:{}", go::quote(name), go_syntax(value)))
                .collect())
        }
        scalar => scalar.to_string(),
    }
}
