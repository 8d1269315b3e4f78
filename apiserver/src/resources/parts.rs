//! Small parts that several kinds share: reading lists and texts, columns and cells of tables, finalizers.

use crate::resource::Column;
use crate::table;
use serde_json::Value;

/// The column of the object's name.
pub const NAME: Column = Column {
    name: "Name",
    r#type: "string",
    format: "name",
    description: "schema:metadata.name",
    priority: 0,
};

/// The column of the time since creation.
pub const AGE: Column = column("Age", "schema:metadata.creationTimestamp");

/// A column of text that is always shown.
pub const fn column(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        r#type: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// A column of text that only `-o wide` shows.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, description)
    }
}

/// The object's name.
pub fn name(object: &Value) -> Value {
    text(&object["metadata"]["name"])
}

/// How old the object is.
pub fn age(object: &Value, now: jiff::Timestamp) -> Value {
    table::age(&object["metadata"]["creationTimestamp"], now)
}

/// A text field, empty if it is not set.
pub fn text(value: &Value) -> Value {
    text_or(value, "")
}

/// A text field, or `absent` if it is not set or empty.
pub fn text_or(value: &Value, absent: &str) -> Value {
    match value.as_str().unwrap_or_default() {
        "" => absent.into(),
        set => set.into(),
    }
}

/// The texts of a list, in its order.
pub fn texts(list: &Value) -> impl Iterator<Item = &str> {
    items(list).filter_map(Value::as_str)
}

/// The items of a list; none if it is not set.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// How many keys a map has.
pub fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

/// Parts joined by commas, or `none` if there are none.
pub fn joined_or(parts: &[String], none: &str) -> Value {
    if parts.is_empty() {
        none.into()
    } else {
        parts.join(",").into()
    }
}

/// The first `shown` parts joined by commas, and how many more there are; `none` if there are none.
pub fn first_few(parts: &[String], shown: usize, none: &str) -> Value {
    if parts.len() <= shown {
        return joined_or(parts, none);
    }
    format!("{} + {} more...", parts[..shown].join(","), parts.len() - shown).into()
}

/// Labels or a selector as `a=1,b=2`, or `<none>`.
pub fn labels(map: &Value) -> Value {
    let mut pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    joined_or(&pairs, "<none>")
}

/// Access modes of volumes and claims in their short form, in a fixed order.
pub fn access_modes(modes: &Value) -> Value {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown: Vec<&str> = SHORT
        .iter()
        .filter(|(mode, _)| texts(modes).any(|m| m == *mode))
        .map(|(_, short)| *short)
        .collect();
    shown.join(",").into()
}

/// The phase of a volume or claim, which hides behind its deletion.
pub fn phase_or_terminating(object: &Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_null() {
        text(&object["status"]["phase"])
    } else {
        "Terminating".into()
    }
}

/// Add a finalizer that is not there yet.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    let present = &object["metadata"]["finalizers"];
    if !texts(present).any(|f| f == finalizer) {
        let mut all: Vec<Value> = items(present).cloned().collect();
        all.push(finalizer.into());
        object["metadata"]["finalizers"] = all.into();
    }
}

/// The class that a volume or claim names: the old beta annotation goes before the field.
pub fn storage_class(object: &Value) -> Value {
    let annotation = &object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    if annotation.is_string() {
        annotation.clone()
    } else {
        text(&object["spec"]["storageClassName"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_list_is_cut_and_says_how_much_is_missing() {
        let parts: Vec<String> = ["a", "b", "c", "d"].map(String::from).to_vec();
        assert_eq!(first_few(&parts, 3, "<none>"), "a,b,c + 1 more...");
        assert_eq!(first_few(&parts, 4, "<none>"), "a,b,c,d");
        assert_eq!(first_few(&[], 3, "<none>"), "<none>");
    }

    #[test]
    fn access_modes_are_short_and_ordered() {
        let modes = json!(["ReadWriteOncePod", "ReadWriteMany", "ReadWriteOnce"]);
        assert_eq!(access_modes(&modes), "RWO,RWX,RWOP");
        assert_eq!(access_modes(&Value::Null), "");
    }

    #[test]
    fn labels_are_sorted_by_key() {
        assert_eq!(labels(&json!({"b": "2", "a": "1"})), "a=1,b=2");
        assert_eq!(labels(&json!({})), "<none>");
    }
}
