//! The schema of every kind, taken from `k8s-openapi`: field names and types, Go's error texts for wrong
//! ones, list and map merge semantics.
//!
//! `types.rs` has the trees, made at first use from `roots.rs` (the types that can be asked for) and
//! `facts.rs` (what Go's types say beyond the schemas); `decode.rs` reads objects by them.

mod base64;
mod decode;
mod document;
mod encode;
pub(crate) mod facts;
mod metrics;
pub(crate) mod protobuf;
mod quantity;
pub(crate) mod roots;
mod time;
pub(crate) mod types;

pub(crate) use self::decode::Words;
pub(crate) use self::document::Document;
pub(crate) use self::encode::{go_json, go_print};
pub(crate) use self::facts::{Facts, ListKind};
pub(crate) use self::time::{Precision, write as write_time};
pub(crate) use self::types::{Field, Node, Struct, find};

use serde_json::Value;

/// `?fieldValidation=`: what to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in a `Warning` header: the default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// A decoded object: known fields only, empty optional fields pruned as Go's `omitempty` would, and those
/// that Go always writes filled with zeros (or null, for lists and maps). Times and quantities are in
/// canonical form.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object.
    pub value: Value,
    /// Unknown and duplicate fields, in upstream's words (`unknown field "spec.nope"`), in document order.
    pub strict: Vec<String>,
}

/// Decode JSON text against the schema of type `schema` (for example `io.k8s.api.core.v1.Pod`).
/// The error is Go's text without prefix, for example
/// `json: cannot unmarshal number into Go struct field ConfigMap.data of type string`.
pub fn decode(schema: &str, json: &[u8]) -> Result<Decoded, String> {
    decode_document(schema, &Document::parse(json)?, Words::Json)
}

/// [`decode`] for a document that is parsed already.
pub(crate) fn decode_document(
    schema: &str,
    document: &Document<'_>,
    words: Words,
) -> Result<Decoded, String> {
    let root = find(schema).ok_or_else(|| format!("no kind with the schema {schema:?} is known"))?;
    let (value, strict) = decode::decode(root, document, words)?;
    Ok(Decoded { value, strict })
}

/// The schema of the kind that an object says it is, if it is another one than `schema` and known.
pub(crate) fn schema_of_other_kind(schema: &str, object: &Value) -> Option<&'static str> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let found = roots::of_kind(version, kind)?;
    (found != schema).then_some(found)
}

/// Parse JSON text without a schema; the error is Go's, for example `unexpected end of JSON input` or
/// `invalid character '}' looking for beginning of object key string`.
pub fn parse(json: &[u8]) -> Result<Value, String> {
    Document::parse(json).map(|document| document.to_value())
}

/// The canonical form of a quantity as the API writes it (`0.5` is `500m`), or upstream's error.
pub fn canonical_quantity(text: &str) -> Result<String, String> {
    quantity::canonical(text)
}

/// A field's description in upstream's words, for example `("io.k8s.api.core.v1.Pod", "metadata.name")`;
/// the type's own for an empty path; empty if there is none. A path goes through lists and maps to their
/// elements. Descriptions are not kept in memory but generated for each call (some hundred microseconds).
pub fn description(schema: &str, path: &str) -> String {
    let mut generator = schemars::SchemaGenerator::default();
    let Some(generate) = roots::find(schema) else {
        return String::new();
    };
    let root = generate(&mut generator).to_value();
    let definitions = generator.definitions();
    let mut described = &root;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let mut owner = described;
        loop {
            let reference = owner["$ref"]
                .as_str()
                .or_else(|| owner["allOf"][0]["$ref"].as_str());
            owner = match reference.and_then(|name| definitions.get(name.trim_start_matches("#/$defs/"))) {
                Some(definition) => definition,
                None if owner["items"].is_object() => &owner["items"],
                None if owner["additionalProperties"].is_object() => &owner["additionalProperties"],
                None => break,
            };
        }
        described = &owner["properties"][name];
    }
    described["description"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
