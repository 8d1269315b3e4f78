//! From an object to its protobuf form. What the object does not have is not written: readers take it for zero.

use super::wire::Writer;
use super::{Layout, PREFIX, STATUS, Slot, root_of};
use crate::schema::types::{self, Node, Struct};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// An object or a list of objects by its `apiVersion` and `kind`, in its envelope; `None` if that type has no
/// protobuf form.
pub(crate) fn encode(object: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let mut message = Writer::default();
    match (root_of(api_version, kind), kind.strip_suffix("List")) {
        (Some(root), _) => write_struct(&mut message, root, root.layout(), object),
        (None, Some(item)) => {
            let item = root_of(api_version, item)?;
            let (_, metadata) = types::find(STATUS)?.field("metadata")?;
            write_value(&mut message, 1, &metadata.node, &object["metadata"]);
            for object in object["items"].as_array().into_iter().flatten() {
                write_value(&mut message, 2, &Node::Struct(item), object);
            }
        }
        (None, None) => return None,
    }
    let mut names = Writer::default();
    names.bytes(1, api_version.as_bytes());
    names.bytes(2, kind.as_bytes());
    let mut unknown = Writer(PREFIX.to_vec());
    unknown.bytes(1, &names.0);
    unknown.bytes(2, &message.0);
    // Content encoding and type: none, which Go writes out.
    unknown.bytes(3, b"");
    unknown.bytes(4, b"");
    Some(unknown.0)
}

/// A watch event with its length in front; `None` if its object has no protobuf form.
pub(crate) fn watch_event(event: &str, object: &Value) -> Option<Vec<u8>> {
    let mut raw = Writer::default();
    raw.bytes(1, &encode(object)?);
    let mut message = Writer::default();
    message.bytes(1, event.as_bytes());
    message.bytes(2, &raw.0);
    let length = u32::try_from(message.0.len()).ok()?;
    Some([&length.to_be_bytes()[..], &message.0].concat())
}

fn write_struct(writer: &mut Writer, kind: &Struct, layout: &Layout, object: &Value) {
    for (number, slot) in &layout.0 {
        match slot {
            Slot::Field(index) => {
                let field = &kind.fields()[*index];
                write_value(writer, *number, &field.node, &object[field.name.as_ref()]);
            }
            Slot::Inline(inner) => {
                let mut message = Writer::default();
                write_struct(&mut message, kind, inner, object);
                if !message.0.is_empty() {
                    writer.bytes(*number, &message.0);
                }
            }
        }
    }
}

fn write_value(writer: &mut Writer, number: u32, node: &Node, value: &Value) {
    match (node, value) {
        (_, Value::Null) => {}
        (Node::String, Value::String(text)) => writer.bytes(number, text.as_bytes()),
        (Node::Bytes, Value::String(text)) => {
            writer.bytes(number, &STANDARD.decode(text).unwrap_or_default());
        }
        (Node::Bool, Value::Bool(value)) => writer.varint(number, (*value).into()),
        (Node::Int32 | Node::Int64, Value::Number(value)) => {
            writer.varint(number, value.as_i64().unwrap_or_default() as u64);
        }
        (Node::Float, Value::Number(value)) => {
            writer.fixed64(number, value.as_f64().unwrap_or_default().to_bits());
        }
        (Node::List(element), Value::Array(items)) => {
            for item in items {
                match (element.as_ref(), item) {
                    // An element cannot be left out.
                    (element, Value::Null) if is_text(element) => writer.bytes(number, b""),
                    (element, item) => write_value(writer, number, element, item),
                }
            }
        }
        (Node::Map(element), Value::Object(entries)) => {
            for (key, value) in entries {
                let mut entry = Writer::default();
                entry.bytes(1, key.as_bytes());
                match (element.as_ref(), value) {
                    // Protobuf has no lists in maps: a message with a list stands for them.
                    (Node::List(_), items) => {
                        let mut list = Writer::default();
                        write_value(&mut list, 1, element, items);
                        entry.bytes(2, &list.0);
                    }
                    (element, Value::Null) if is_text(element) => entry.bytes(2, b""),
                    (element, value) => write_value(&mut entry, 2, element, value),
                }
                writer.bytes(number, &entry.0);
            }
        }
        (node, value) => {
            let mut message = Writer::default();
            write_message(&mut message, node, value);
            writer.bytes(number, &message.0);
        }
    }
}

/// What an empty text or message is in the place of: null in a list or a map.
fn is_text(node: &Node) -> bool {
    !matches!(node, Node::Bool | Node::Int32 | Node::Int64 | Node::Float)
}

fn write_message(message: &mut Writer, node: &Node, value: &Value) {
    match (node, value) {
        (Node::Struct(kind), value) => write_struct(message, kind, kind.layout(), value),
        (Node::Time | Node::MicroTime, Value::String(text)) => {
            if let Ok(time) = text.parse::<jiff::Timestamp>() {
                // Nanoseconds count forward also before 1970.
                let nanos = time.as_nanosecond();
                message.varint(1, nanos.div_euclid(1_000_000_000) as u64);
                message.varint(2, nanos.rem_euclid(1_000_000_000) as u64);
            }
        }
        (Node::Quantity, Value::String(text)) => message.bytes(1, text.as_bytes()),
        (Node::IntOrString, Value::String(text)) => {
            message.varint(1, 1);
            message.varint(2, 0);
            message.bytes(3, text.as_bytes());
        }
        (Node::IntOrString, value) => {
            message.varint(1, 0);
            message.varint(2, value.as_i64().unwrap_or_default() as u64);
            message.bytes(3, b"");
        }
        (Node::Raw, value) => message.bytes(1, value.to_string().as_bytes()),
        _ => {}
    }
}
