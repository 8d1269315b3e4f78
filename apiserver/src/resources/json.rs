//! Reading objects: fields by name, where what is absent is empty.

use serde_json::Value;

/// A text field, empty if it is not there.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A list field, empty if it is not there.
pub fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A list field to change, empty if it is not there.
pub fn items_mut<'a>(value: &'a mut Value, field: &str) -> &'a mut [Value] {
    match value.get_mut(field).and_then(Value::as_array_mut) {
        Some(items) => items,
        None => &mut [],
    }
}

/// The entries of a map field, sorted by key.
pub fn entries<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let entries = value[field].as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.as_str(), value))
}

/// A whole number, zero if it is not there.
pub fn integer(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// A boolean, false if it is not there.
pub fn flag(value: &Value, field: &str) -> bool {
    value[field].as_bool().unwrap_or_default()
}

/// Set a field that is not there.
pub fn default(value: &mut Value, field: &str, to: impl Into<Value>) {
    if let Some(object) = value.as_object_mut() {
        object.entry(field).or_insert_with(|| to.into());
    }
}

/// Set a field that is not there or empty text.
pub fn default_text(value: &mut Value, field: &str, to: &str) {
    if text(value, field).is_empty() {
        set(value, field, to);
    }
}

/// Set a field of an object; anything but an object is left alone.
pub fn set(value: &mut Value, field: &str, to: impl Into<Value>) {
    if let Some(object) = value.as_object_mut() {
        object.insert(field.to_owned(), to.into());
    }
}
