//! How objects lie in the store: keys, and bytes that can be answered without decoding them.
//!
//! An object is stored as JSON that starts with `{"metadata":{`, without `apiVersion`, `kind` and
//! `metadata.resourceVersion`: the first two follow from the key, the last from the revision. What a
//! client gets is those bytes with the missing fields put in front.

use crate::resource::Kind;
use bytes::Bytes;
use serde_json::Value;
use store::{Entry, Revision};

/// What all stored objects start with.
const START: &[u8] = br#"{"metadata":{"#;

/// Whether an object stands alone or in a list, whose items carry no `apiVersion` and `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With `kind` and `apiVersion`.
    Object,
    /// Without.
    Item,
}

/// The key of everything of a kind, or of what is in one namespace.
pub fn prefix(kind: &dyn Kind, namespace: Option<&str>) -> String {
    let names = kind.names();
    let group = match names.storage_group {
        "" => "core",
        group => group,
    };
    match namespace {
        Some(namespace) if names.namespaced => format!("/{group}/{}/{namespace}/", names.plural),
        _ => format!("/{group}/{}/", names.plural),
    }
}

/// The key of one object; `namespace` is ignored for kinds without one.
pub fn key(kind: &dyn Kind, namespace: Option<&str>, name: &str) -> String {
    prefix(kind, namespace) + name
}

/// The key of a Namespace.
pub fn namespace_key(name: &str) -> String {
    format!("/core/namespaces/{name}")
}

/// The bytes of an object.
pub fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(START);
    let mut first = true;
    let metadata = object["metadata"].as_object().into_iter().flatten();
    for (name, value) in metadata.filter(|(name, _)| *name != "resourceVersion") {
        write_member(&mut out, &mut first, name, value);
    }
    out.push(b'}');
    let rest = object.as_object().into_iter().flatten();
    for (name, value) in rest.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "kind" | "apiVersion"))
    {
        write_member(&mut out, &mut false, name, value);
    }
    out.push(b'}');
    out.into()
}

fn write_member(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, name).expect("a string is written to memory");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("a value is written to memory");
}

/// The object that an entry holds.
pub fn decode(kind: &dyn Kind, entry: &Entry) -> Value {
    decode_at(kind, &entry.value, entry.modified)
}

/// The object in `bytes` as it was at `revision`.
pub fn decode_at(kind: &dyn Kind, bytes: &[u8], revision: Revision) -> Value {
    // Only `encode` writes values, and the store checks that they come back as they were.
    let mut object: Value = serde_json::from_slice(bytes).expect("a stored object is JSON");
    let names = kind.names();
    object["apiVersion"] = api_version(kind).into();
    object["kind"] = names.kind.into();
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    if converts(kind) {
        kind.from_storage(&mut object);
    }
    object
}

/// Append the object in `bytes` to `out` as JSON, decoding it only if the kind is stored as another.
pub fn write(kind: &dyn Kind, bytes: &[u8], revision: Revision, form: Form, out: &mut Vec<u8>) {
    let Some(rest) = bytes.strip_prefix(START).filter(|_| !converts(kind)) else {
        let mut object = decode_at(kind, bytes, revision);
        if form == Form::Item
            && let Some(object) = object.as_object_mut()
        {
            object.remove("kind");
            object.remove("apiVersion");
        }
        return serde_json::to_writer(out, &object).expect("a value is written to memory");
    };
    out.push(b'{');
    if form == Form::Object {
        let names = kind.names();
        let head = format!(r#""kind":"{}","apiVersion":"{}","#, names.kind, api_version(kind));
        out.extend_from_slice(head.as_bytes());
    }
    let metadata = format!(r#""metadata":{{"resourceVersion":"{revision}""#);
    out.extend_from_slice(metadata.as_bytes());
    if !rest.starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(rest);
}

/// `GROUP/VERSION`, or the version alone in the core group.
pub fn api_version(kind: &dyn Kind) -> String {
    let names = kind.names();
    match names.group {
        "" => names.version.to_string(),
        group => format!("{group}/{}", names.version),
    }
}

fn converts(kind: &dyn Kind) -> bool {
    kind.names().group != kind.names().storage_group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::testing::CONFIG_MAP;
    use serde_json::json;

    #[test]
    fn what_is_written_is_what_is_read() {
        let object = json!({
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": "a", "resourceVersion": "5"},
            "data": {"k": "\"v\"\n"},
        });
        let bytes = encode(&object);
        assert!(bytes.starts_with(START));
        assert_eq!(decode_at(&CONFIG_MAP, &bytes, 5), object);
        let mut written = Vec::new();
        write(&CONFIG_MAP, &bytes, 5, Form::Object, &mut written);
        assert_eq!(serde_json::from_slice::<Value>(&written).ok(), Some(object));
    }
}
