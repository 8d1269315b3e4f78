//! Maps of resource quantities: `spec.capacity`, `status.allocatable` …

use super::parts;
use crate::validation::Invalid;
use crate::validation::quantity::Quantity;
use serde_json::Value;

/// Write every quantity of a map in its canonical form, as it is stored and answered. What is no quantity
/// stays: decoding refuses it.
pub fn canonicalise(object: &mut Value, pointer: &str) {
    let map = object.pointer_mut(pointer).and_then(Value::as_object_mut);
    for (_, value) in map.into_iter().flatten() {
        if let Ok(quantity) = Quantity::from_json(value) {
            *value = quantity.to_string().into();
        }
    }
}

/// The entries of a map with their quantities, sorted by name.
pub fn entries(map: &Value) -> impl Iterator<Item = (&str, Quantity)> {
    let mut entries: Vec<(&str, Quantity)> = map
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), Quantity::from_json(value).ok()?)))
        .collect();
    entries.sort_by_key(|(name, _)| *name);
    entries.into_iter()
}

/// A quantity that may not be negative.
pub fn not_negative(field: &str, quantity: &Quantity) -> Option<Invalid> {
    let detail = "must be greater than or equal to 0";
    (quantity.sign() < 0).then(|| Invalid::malformed(field, quantity.to_string(), detail))
}

/// A quantity that may be neither negative nor zero.
pub fn positive(field: &str, quantity: &Quantity) -> Option<Invalid> {
    let detail = "must be greater than zero";
    (quantity.sign() <= 0).then(|| Invalid::malformed(field, quantity.to_string(), detail))
}

/// A quantity of bytes whose whole value may not be negative.
pub fn basic(field: &str, quantity: &Quantity) -> Option<Invalid> {
    let detail = "must be a valid resource quantity";
    (quantity.value() < 0).then(|| Invalid::malformed(field, quantity.value(), detail))
}

/// The quantity of `storage` in a map as tables show it.
pub fn storage(map: &Value) -> Value {
    parts::text_or(&map["storage"], "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_written_in_one_way() {
        let mut object = json!({"spec": {"capacity": {"storage": "1024Mi", "cpu": 1.5}}});
        canonicalise(&mut object, "/spec/capacity");
        canonicalise(&mut object, "/spec/nothing");
        assert_eq!(
            object,
            json!({"spec": {"capacity": {"storage": "1Gi", "cpu": "1500m"}}})
        );
    }
}
