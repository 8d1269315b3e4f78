//! Path elements as `fieldsV1` writes them (`f:name`, `k:{"name":"c"}`, `v:"x"`, `i:0`) and as messages do
//! (`.name`, `[name="c"]`, `[="x"]`, `[0]`).

use crate::schema::{ListKind, go_print};
use crate::validation::go;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The element of a field or of a map's key.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The element of an item of a list.
pub(super) fn item(list: ListKind, item: &Value) -> String {
    match list {
        ListKind::Map(keys) => {
            let keys = keys.iter().map(|key| {
                let value = item.get(*key).filter(|value| !value.is_null()).cloned();
                let value = value.or_else(|| default_of_key(key)).unwrap_or_default();
                ((*key).to_owned(), value)
            });
            format!("k:{}", Value::Object(keys.collect()))
        }
        ListKind::Set | ListKind::Atomic => format!("v:{item}"),
    }
}

/// The value of a key that an item does not give: in all of the API only protocols have one.
pub(super) fn default_of_key(key: &str) -> Option<Value> {
    (key == "protocol").then(|| "TCP".into())
}

/// The items of a list under their elements. Several under one are no items to a merge, but one value.
pub(super) fn by_element(list: ListKind, items: Option<&Value>) -> BTreeMap<String, Vec<&Value>> {
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for value in items.and_then(Value::as_array).into_iter().flatten() {
        found.entry(item(list, value)).or_default().push(value);
    }
    found
}

/// An element as messages show it.
pub(super) fn print(element: &str) -> String {
    let Some((kind, text)) = element.split_once(':') else {
        return element.to_owned();
    };
    match kind {
        "f" => format!(".{text}"),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let keys = keys
                .iter()
                .map(|(key, value)| format!("{key}={}", print_value(value)));
            format!("[{}]", keys.collect::<Vec<_>>().join(","))
        }
        "v" => format!(
            "[={}]",
            print_value(&serde_json::from_str(text).unwrap_or_default())
        ),
        _ => format!("[{text}]"),
    }
}

fn print_value(value: &Value) -> String {
    match value {
        Value::String(text) => go::quote(text),
        Value::Null => "null".to_owned(),
        other => go_print(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_told_apart_and_shown() {
        let keys = ListKind::Map(&["port", "protocol"]);
        for (list, value, element, shown) in [
            (
                keys,
                json!({"port": 80, "name": "x"}),
                r#"k:{"port":80,"protocol":"TCP"}"#,
                r#"[port=80,protocol="TCP"]"#,
            ),
            (
                keys,
                json!({"port": 53, "protocol": "UDP"}),
                r#"k:{"port":53,"protocol":"UDP"}"#,
                r#"[port=53,protocol="UDP"]"#,
            ),
            (ListKind::Set, json!("a:b"), r#"v:"a:b""#, r#"[="a:b"]"#),
        ] {
            assert_eq!(item(list, &value), element);
            assert_eq!(print(element), shown);
        }
        assert_eq!(print("f:a.b/c"), ".a.b/c");
        assert_eq!(print("i:3"), "[3]");
    }
}
