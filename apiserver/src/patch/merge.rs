//! JSON merge patch (RFC 7386).

use super::{PatchError, parse_map};
use serde_json::{Map, Value};

/// The patch, and what it gives twice.
pub(super) fn parse(patch: &[u8]) -> Result<(Value, Vec<String>), PatchError> {
    parse_map(patch).map_err(|error| PatchError::BadRequest(format!("error decoding patch: {error}")))
}

/// Merge `patch` into `target`: objects are merged, null deletes, all else replaces.
pub(super) fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            apply(target.entry(name).or_insert(Value::Null), value);
        }
    }
}
