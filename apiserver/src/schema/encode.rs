//! Values as text in the two ways in which upstream's messages show them: as Go writes JSON, and as Go prints
//! maps and slices with `%v`.

use serde_json::Value;
use std::fmt::Write as _;

/// The order of fields of the structs that messages show most; all others are sorted by name.
const FIELD_ORDER: [(&str, &[&str]); 3] = [
    (
        "metadata",
        &[
            "name",
            "generateName",
            "namespace",
            "selfLink",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
            "managedFields",
        ],
    ),
    (
        "managedFields",
        &[
            "manager",
            "operation",
            "apiVersion",
            "time",
            "fieldsType",
            "fieldsV1",
            "subresource",
        ],
    ),
    (
        "ownerReferences",
        &[
            "apiVersion",
            "kind",
            "name",
            "uid",
            "controller",
            "blockOwnerDeletion",
        ],
    ),
];

/// An object as JSON in the manner of Go: `<`, `>` and `&` escaped, the fields of metadata in the order of
/// its struct, unless `metadata_sorted` (a patch that touched it wrote it again as a map).
pub(crate) fn go_json(object: &Value, metadata_sorted: bool) -> String {
    let mut out = String::new();
    match object {
        Value::Object(fields) => {
            out.push('{');
            for (index, (name, value)) in fields.iter().enumerate() {
                write_key(&mut out, index, name);
                let order = (name == "metadata").then_some("metadata");
                write_json(&mut out, value, order, metadata_sorted);
            }
            out.push('}');
        }
        other => write_json(&mut out, other, None, false),
    }
    out
}

/// Write `value`, a struct called `order` if that has an order; `sorted`: not itself, only what is in it.
fn write_json(out: &mut String, value: &Value, order: Option<&str>, sorted: bool) {
    match value {
        Value::Object(fields) => {
            let order = FIELD_ORDER.iter().find(|(name, _)| Some(*name) == order);
            let rank = |name: &str| match order {
                Some((_, order)) if !sorted => order.iter().position(|field| *field == name),
                _ => None,
            };
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| rank(name).unwrap_or(usize::MAX));
            out.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                write_key(out, index, name);
                write_json(out, value, order.map(|_| name.as_str()), false);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write_json(out, item, order, sorted);
            }
            out.push(']');
        }
        Value::String(text) => write_string(out, text),
        other => write!(out, "{other}").expect("a string takes all that is written"),
    }
}

fn write_key(out: &mut String, index: usize, name: &str) {
    out.push_str(if index > 0 { "," } else { "" });
    write_string(out, name);
    out.push(':');
}

fn write_string(out: &mut String, text: &str) {
    let json = Value::from(text).to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return out.push_str(&json);
    }
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("a string takes all that is written");
            }
            other => out.push(other),
        }
    }
}

/// A value as Go's `%v` prints it: `map[spec:map[replicas:1]]`, `[a b]`, `<nil>`.
pub(crate) fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_print(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_in_the_order_of_its_struct_and_the_rest_sorted() {
        let object = json!({"kind": "K", "data": {"b": 1, "a": "<"}, "metadata": {"uid": "u", "name": "n", "labels": {"name": "x", "a": "y"},
            "managedFields": [{"apiVersion": "v1", "manager": "m", "fieldsV1": {"f:b": {}, "f:a": {}}}]}});
        assert_eq!(
            go_json(&object, false),
            r#"{"data":{"a":"\u003c","b":1},"kind":"K","metadata":{"name":"n","uid":"u","labels":{"a":"y","name":"x"},"managedFields":[{"manager":"m","apiVersion":"v1","fieldsV1":{"f:a":{},"f:b":{}}}]}}"#
        );
        let touched = go_json(&object, true);
        assert!(
            touched.contains(r#""metadata":{"labels":{"a":"y","name":"x"},"managedFields":[{"manager":"m""#),
            "{touched}"
        );
    }

    #[test]
    fn values_print_as_in_go() {
        let value = json!({"b": [1, "x", null, {"k": true}], "a": {}});
        assert_eq!(go_print(&value), "map[a:map[] b:[1 x <nil> map[k:true]]]");
    }
}
