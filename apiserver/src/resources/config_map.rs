//! ConfigMap: text and bytes by key.

use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, names};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The most bytes that all values of a ConfigMap or Secret may have together.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.ConfigMap",
    storage_group: "",
};

static COLUMNS: [Column; 3] = [parts::NAME, parts::column("Data", "schema:data"), parts::AGE];

/// See [the module](self).
pub struct ConfigMap;

impl Kind for ConfigMap {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        let mut bytes = 0;
        for (key, value) in entries(&object["data"]) {
            let field = format!("data[{key}]");
            invalid.extend(Invalid::each(&field, key, names::config_map_key(key)));
            if object["binaryData"].get(key).is_some() {
                invalid.push(Invalid::malformed(
                    field,
                    key,
                    "duplicate of key present in binaryData",
                ));
            }
            bytes += value.len();
        }
        for (key, value) in entries(&object["binaryData"]) {
            let field = format!("binaryData[{key}]");
            invalid.extend(Invalid::each(&field, key, names::config_map_key(key)));
            bytes += decoded(value).len();
        }
        if bytes > MAX_DATA_BYTES {
            invalid.push(Invalid::too_long("", MAX_DATA_BYTES));
        }
        invalid
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        let mut invalid = changes_while_immutable(new, old, &["data", "binaryData"]);
        invalid.extend(self.validate_create(new));
        invalid
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let keys = parts::size(&object["data"]) + parts::size(&object["binaryData"]);
        vec![parts::name(object), keys.into(), parts::age(object, now)]
    }
}

/// The keys of a data map with their texts, sorted.
pub fn entries(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    let mut entries: Vec<(&str, &str)> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    entries.sort_unstable();
    entries.into_iter()
}

/// The bytes of a base64 value; decoding has already refused what is none.
pub fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap_or_default()
}

/// Once `immutable` is true, neither it nor any of `fields` may change.
pub fn changes_while_immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<Invalid> {
    if old["immutable"] != true {
        return Vec::new();
    }
    let unset = (new["immutable"] != true).then_some("immutable");
    let changed = fields.iter().copied().filter(|field| new[*field] != old[*field]);
    unset
        .into_iter()
        .chain(changed)
        .map(|field| Invalid::forbidden(field, "field is immutable when `immutable` is set"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_may_be_in_one_map_only() {
        let object = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"b": "AA=="}});
        let detail = "duplicate of key present in binaryData";
        assert_eq!(
            ConfigMap.validate_create(&object),
            [Invalid::malformed("data[b]", "b", detail)]
        );
    }

    #[test]
    fn data_and_binary_data_share_one_mebibyte() {
        let half = "x".repeat(MAX_DATA_BYTES / 2);
        let mut object = json!({"data": {"a": half}, "binaryData": {"b": STANDARD.encode(&half)}});
        assert_eq!(ConfigMap.validate_create(&object), []);
        object["data"]["c"] = "x".into();
        assert_eq!(
            ConfigMap.validate_create(&object),
            [Invalid::too_long("", MAX_DATA_BYTES)]
        );
    }

    #[test]
    fn an_immutable_one_stays_as_it_is_but_for_its_metadata() {
        let old = json!({"metadata": {}, "data": {"a": "1"}, "immutable": true});
        let labelled = json!({"metadata": {"labels": {"a": "b"}}, "data": {"a": "1"}, "immutable": true});
        assert_eq!(ConfigMap.validate_update(&labelled, &old), []);
        let changed = json!({"metadata": {}, "data": {"a": "2"}, "binaryData": {"c": "AA=="}});
        let fields: Vec<String> = ConfigMap
            .validate_update(&changed, &old)
            .into_iter()
            .map(|i| i.field)
            .collect();
        assert_eq!(fields, ["immutable", "data", "binaryData"]);
    }
}
