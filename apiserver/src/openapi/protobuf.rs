//! The OpenAPI v2 document in protobuf (`openapi.v2.Document` of gnostic), the only form that kubectl before 1.27 asks
//! for. It has the definitions, which such clients validate by; paths they do not read.

use serde_json::{Map, Value};

/// The media type that clients ask for.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// What they are answered: an `@` is not allowed in a media type, so upstream spells it otherwise.
pub const CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Encode a document as [`super::v2`] makes it.
pub fn document(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, &document["swagger"]);
    message.nested(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    message.nested(8, |_| {});
    message.nested(9, |definitions| {
        named_schemas(definitions, document["definitions"].as_object())
    });
    message.0
}

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A field of wire type 2: text or a message.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Nothing where there is no text.
    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn nested(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// `repeated NamedSchema = 1`, the content of Definitions and Properties alike.
fn named_schemas(message: &mut Message, schemas: Option<&Map<String, Value>>) {
    for (name, value) in schemas.into_iter().flatten() {
        message.nested(1, |named| {
            named.bytes(1, name.as_bytes());
            named.nested(2, |inner| schema(inner, value));
        });
    }
}

/// `Schema`, as far as Kubernetes' schemas go.
fn schema(message: &mut Message, value: &Value) {
    message.text(1, &value["$ref"]);
    message.text(2, &value["format"]);
    message.text(4, &value["description"]);
    for required in value["required"].as_array().into_iter().flatten() {
        message.text(19, required);
    }
    if value["additionalProperties"].is_object() {
        message.nested(21, |item| {
            item.nested(1, |inner| schema(inner, &value["additionalProperties"]))
        });
    }
    if value["type"].is_string() {
        message.nested(22, |item| item.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        message.nested(23, |item| item.nested(1, |inner| schema(inner, &value["items"])));
    }
    if value["properties"].is_object() {
        message.nested(25, |properties| {
            named_schemas(properties, value["properties"].as_object())
        });
    }
    // `repeated NamedAny`, whose values are YAML, and so may be JSON.
    for (name, extension) in value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("x-"))
    {
        message.nested(31, |named| {
            named.bytes(1, name.as_bytes());
            named.nested(2, |any| any.bytes(2, extension.to_string().as_bytes()));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_is_a_named_schema_with_its_reference_type_and_extensions() {
        let given = json!({
            "swagger": "2.0",
            "info": {"title": "K", "version": "v"},
            "definitions": {"a": {"type": "object", "x-e": 1, "properties": {"b": {"$ref": "#/c"}}}},
        });
        let property = [b"\x0a\x01b\x12\x05\x0a\x03#/c".as_slice()].concat();
        let properties = [b"\x0a".as_slice(), &[property.len() as u8], &property].concat();
        let body = [
            b"\xb2\x01\x08\x0a\x06object\xca\x01".as_slice(),
            &[properties.len() as u8],
            &properties,
            b"\xfa\x01\x0a\x0a\x03x-e\x12\x03\x12\x011",
        ]
        .concat();
        let named = [b"\x0a\x01a\x12".as_slice(), &[body.len() as u8], &body].concat();
        let definitions = [b"\x0a".as_slice(), &[named.len() as u8], &named].concat();
        let expected = [
            b"\x0a\x032.0\x12\x06\x0a\x01K\x12\x01v\x42\x00\x4a".as_slice(),
            &[definitions.len() as u8],
            &definitions,
        ]
        .concat();
        assert_eq!(document(&given), expected);
    }
}
