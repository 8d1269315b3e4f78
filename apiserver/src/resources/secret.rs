//! Secret: bytes by key, with a type that says which keys must be there.

use super::changes::immutable;
use super::config_map::{MAX_DATA_BYTES, changes_while_immutable, decoded, entries};
use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, names};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

static NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.Secret",
    storage_group: "",
};

static COLUMNS: [Column; 4] = [
    parts::NAME,
    parts::column("Type", "schema:type"),
    parts::column("Data", "schema:data"),
    parts::AGE,
];

/// See [the module](self).
pub struct Secret;

impl Kind for Secret {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn set_defaults(&self, object: &mut Value) {
        let plain = object
            .as_object_mut()
            .and_then(|object| object.remove("stringData"));
        for (key, value) in entries(&plain.unwrap_or_default()) {
            object["data"][key] = STANDARD.encode(value).into();
        }
        if object["type"].as_str().unwrap_or_default().is_empty() {
            object["type"] = "Opaque".into();
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        let mut bytes = 0;
        for (key, value) in entries(&object["data"]) {
            let field = format!("data[{key}]");
            invalid.extend(Invalid::each(&field, key, names::config_map_key(key)));
            bytes += decoded(value).len();
        }
        if bytes > MAX_DATA_BYTES {
            invalid.push(Invalid::too_long("data", MAX_DATA_BYTES));
        }
        invalid.extend(keys_of_type(object));
        invalid
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        let mut invalid = immutable("type", &new["type"], &old["type"]);
        invalid.extend(changes_while_immutable(new, old, &["data"]));
        invalid.extend(self.validate_create(new));
        invalid
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", object["type"].as_str().unwrap_or_default().into())]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            parts::name(object),
            parts::text(&object["type"]),
            parts::size(&object["data"]).into(),
            parts::age(object, now),
        ]
    }
}

/// What the type of a secret demands of its keys.
fn keys_of_type(object: &Value) -> Vec<Invalid> {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let has = |key: &str| object["data"].get(key).is_some();
    let required = |key: &str| Invalid::required(format!("data[{key}]"), "");
    let require_all = |keys: &[&str]| keys.iter().filter(|k| !has(k)).map(|k| required(k)).collect();
    match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let account = object["metadata"]["annotations"][ACCOUNT].as_str();
            match account.unwrap_or_default() {
                "" => vec![Invalid::required(format!("metadata.annotations[{ACCOUNT}]"), "")],
                _ => Vec::new(),
            }
        }
        "kubernetes.io/dockercfg" => json_object(object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_object(object, ".dockerconfigjson"),
        // Either may be missing, and both may be empty.
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require_all(&["username", "password"])
        }
        "kubernetes.io/ssh-auth"
            if object["data"]["ssh-privatekey"]
                .as_str()
                .unwrap_or_default()
                .is_empty() =>
        {
            vec![required("ssh-privatekey")]
        }
        "kubernetes.io/tls" => require_all(&["tls.crt", "tls.key"]),
        _ => Vec::new(),
    }
}

/// The value at `key` must be there and hold a JSON object.
fn json_object(object: &Value, key: &str) -> Vec<Invalid> {
    let field = format!("data[{key}]");
    let Some(value) = object["data"][key].as_str() else {
        return vec![Invalid::required(field, "")];
    };
    match serde_json::from_slice::<Option<Map<String, Value>>>(&decoded(value)) {
        Ok(_) => Vec::new(),
        Err(error) => vec![Invalid::malformed(
            field,
            "<secret contents redacted>",
            go_json_error(&error),
        )],
    }
}

/// What Go's `encoding/json` says where it says the same for every text; else serde's own words.
fn go_json_error(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_goes_over_data_and_is_never_read_back() {
        let mut object = json!({"data": {"a": "b2xk"}, "stringData": {"a": "new", "b": ""}});
        Secret.set_defaults(&mut object);
        assert_eq!(object, json!({"data": {"a": "bmV3", "b": ""}, "type": "Opaque"}));
    }

    #[test]
    fn a_type_demands_its_keys() {
        let fields = |object: &Value| -> Vec<String> {
            Secret
                .validate_create(object)
                .into_iter()
                .map(|i| i.field)
                .collect()
        };
        let table = [
            (json!({"type": "Opaque"}), vec![]),
            (
                json!({"type": "kubernetes.io/tls", "data": {"tls.key": ""}}),
                vec!["data[tls.crt]"],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                vec!["data[username]", "data[password]"],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth", "data": {"username": ""}}),
                vec![],
            ),
            (
                json!({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}}),
                vec!["data[ssh-privatekey]"],
            ),
            (
                json!({"type": "kubernetes.io/dockercfg"}),
                vec!["data[.dockercfg]"],
            ),
            (
                json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "e30="}}),
                vec![],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e2U="}}),
                vec!["data[.dockerconfigjson]"],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]"],
            ),
        ];
        for (object, expected) in table {
            assert_eq!(fields(&object), expected, "{object}");
        }
    }

    #[test]
    fn the_type_stays() {
        let old = json!({"type": "Opaque"});
        let new = json!({"type": "x"});
        assert_eq!(
            Secret.validate_update(&new, &old),
            [Invalid::malformed("type", "x", "field is immutable")]
        );
    }
}
