//! Maps of resource quantities: `spec.capacity`, `status.allocatable` …

use super::parts;
use crate::validation::Invalid;
use crate::validation::quantity::Quantity;
use serde_json::Value;

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
    fn quantities_are_refused_by_their_sign() {
        let map = json!({"c": "1m", "b": "0", "a": "-1"});
        let refused = |rule: fn(&str, &Quantity) -> Option<Invalid>| -> Vec<String> {
            entries(&map)
                .filter_map(|(name, quantity)| rule(name, &quantity))
                .map(|i| i.field)
                .collect()
        };
        assert_eq!(refused(not_negative), ["a"]);
        assert_eq!(refused(positive), ["a", "b"]);
        assert_eq!(refused(basic), ["a"]);
    }
}
