//! From a protobuf message to the document that the same object's JSON would be. Texts are borrowed from the
//! message. Messages nest as types do, and no type in the table contains itself, so recursion has an end.

use super::wire::{Reader, Wire, varint};
use super::{Layout, Slot};
use crate::schema::document::Document;
use crate::schema::time::{self, Precision};
use crate::schema::types::{Node, Struct};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// What has been read of one field.
enum Seen<'a> {
    Value(Document<'a>),
    /// A message; one that comes again is read on where it was, as if its parts were one.
    Parts(Vec<&'a [u8]>),
    List(Vec<Document<'a>>),
    Map(Vec<(Cow<'a, str>, Document<'a>)>),
}

/// The message of a struct, in one or more parts.
pub(super) fn message<'a>(kind: &'static Struct, parts: &[&'a [u8]]) -> Result<Document<'a>, String> {
    let mut seen: Vec<(usize, Seen<'a>)> = Vec::new();
    for part in parts {
        fields(kind, kind.layout(), part, &mut seen)?;
    }
    let mut object = Vec::with_capacity(seen.len());
    for (index, seen) in seen {
        let field = &kind.fields()[index];
        let document = match seen {
            Seen::Value(document) => document,
            Seen::Parts(parts) => nested(&field.node, &parts)?,
            Seen::List(items) => Document::Array(items),
            Seen::Map(entries) => Document::Object(entries),
        };
        object.push((field.name.as_ref().into(), document));
    }
    Ok(Document::Object(object))
}

/// The fields of one part; those of inlined messages are the struct's own.
fn fields<'a>(
    kind: &'static Struct,
    layout: &Layout,
    part: &'a [u8],
    seen: &mut Vec<(usize, Seen<'a>)>,
) -> Result<(), String> {
    let mut reader = Reader::new(part, kind.go_name());
    while let Some((number, wire)) = reader.next()? {
        match layout.slot(number) {
            None => {}
            Some(Slot::Inline(inner)) => fields(kind, inner, wire.bytes(kind.go_name())?, seen)?,
            Some(Slot::Field(index)) => {
                let field = &kind.fields()[*index];
                let place = match seen.iter().rposition(|(known, _)| known == index) {
                    Some(place) => place,
                    None => {
                        seen.push((*index, start(&field.node)));
                        seen.len() - 1
                    }
                };
                add(&mut seen[place].1, &field.node, &field.name, wire)?;
            }
        }
    }
    Ok(())
}

fn start<'a>(node: &Node) -> Seen<'a> {
    match node {
        Node::List(_) => Seen::List(Vec::new()),
        Node::Map(_) => Seen::Map(Vec::new()),
        node if is_message(node) => Seen::Parts(Vec::new()),
        _ => Seen::Value(Document::Null),
    }
}

fn add<'a>(seen: &mut Seen<'a>, node: &Node, name: &str, wire: Wire<'a>) -> Result<(), String> {
    match (seen, node) {
        (Seen::Parts(parts), _) => parts.push(wire.bytes(name)?),
        (Seen::Map(entries), Node::Map(element)) => {
            let (key, value) = entry(element, name, wire.bytes(name)?)?;
            entries.push((key, value));
        }
        (Seen::List(items), Node::List(element)) => match (element.as_ref(), wire) {
            // Numbers may come packed.
            (Node::Int32 | Node::Int64, Wire::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let (value, rest) = varint(packed)?;
                    items.push(scalar(element, name, Wire::Varint(value))?);
                    packed = rest;
                }
            }
            (element, wire) => items.push(value(element, name, wire)?),
        },
        (Seen::Value(document), node) => *document = scalar(node, name, wire)?,
        _ => {}
    }
    Ok(())
}

/// A value that comes once: an element of a list or the value of a map.
fn value<'a>(node: &Node, name: &str, wire: Wire<'a>) -> Result<Document<'a>, String> {
    match is_message(node) {
        true => nested(node, &[wire.bytes(name)?]),
        false => scalar(node, name, wire),
    }
}

fn is_message(node: &Node) -> bool {
    !matches!(
        node,
        Node::String | Node::Bytes | Node::Bool | Node::Int32 | Node::Int64 | Node::Float
    )
}

fn scalar<'a>(node: &Node, name: &str, wire: Wire<'a>) -> Result<Document<'a>, String> {
    Ok(match (node, wire) {
        (Node::String, Wire::Bytes(text)) => Document::String(String::from_utf8_lossy(text)),
        (Node::Bytes, Wire::Bytes(bytes)) => Document::String(STANDARD.encode(bytes).into()),
        (Node::Bool, Wire::Varint(value)) => Document::Bool(value != 0),
        // Negative numbers come as 64 bits, of which Go takes the lower ones.
        (Node::Int32, Wire::Varint(value)) => Document::Number((value as i32).to_string().into()),
        (Node::Int64, Wire::Varint(value)) => Document::Number((value as i64).to_string().into()),
        (Node::Float, Wire::Fixed64(bits)) => match f64::from_bits(bits) {
            number if number.is_finite() => Document::Number(number.to_string().into()),
            _ => Document::Null,
        },
        (_, wire) => return Err(wire.wrong(name)),
    })
}

/// An entry of a map; what is missing in it is zero.
fn entry<'a>(element: &Node, name: &str, bytes: &'a [u8]) -> Result<(Cow<'a, str>, Document<'a>), String> {
    let (mut key, mut found) = (Cow::default(), None);
    let mut reader = Reader::new(bytes, name);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => key = String::from_utf8_lossy(wire.bytes(name)?),
            2 => found = Some(value(element, name, wire)?),
            _ => {}
        }
    }
    let value = match found {
        Some(value) => value,
        None if is_message(element) => nested(element, &[])?,
        None => match element {
            Node::String | Node::Bytes => Document::String(Cow::default()),
            Node::Bool => Document::Bool(false),
            _ => Document::Number("0".into()),
        },
    };
    Ok((key, value))
}

/// A message that is no scalar: a struct, or one of the types that write themselves in their own way.
fn nested<'a>(node: &Node, parts: &[&'a [u8]]) -> Result<Document<'a>, String> {
    let timestamp = |precision: Precision| match parts.iter().all(|part| part.is_empty()) {
        true => Ok(Document::Null),
        false => point_in_time(parts, precision),
    };
    match node {
        Node::Struct(kind) => message(kind, parts),
        Node::Time => timestamp(Precision::Seconds),
        Node::MicroTime => timestamp(Precision::Micros),
        Node::Quantity => {
            let text = last(parts, "Quantity", 1)?.map_or(Ok(&b"0"[..]), |wire| wire.bytes("string"))?;
            Ok(Document::String(String::from_utf8_lossy(text)))
        }
        Node::IntOrString => int_or_string(parts),
        Node::Raw => {
            let raw = last(parts, "RawExtension", 1)?.map_or(Ok(&b""[..]), |wire| wire.bytes("raw"))?;
            match raw {
                [] => Ok(Document::Null),
                raw => Document::parse(raw),
            }
        }
        // Protobuf has no lists in maps: a message with a list stands for them.
        Node::List(element) => {
            let mut items = Vec::new();
            for part in parts {
                let mut reader = Reader::new(part, "Items");
                while let Some((number, wire)) = reader.next()? {
                    if number == 1 {
                        items.push(value(element, "items", wire)?);
                    }
                }
            }
            Ok(Document::Array(items))
        }
        _ => Ok(Document::Null),
    }
}

/// The last value of one field.
fn last<'a>(parts: &[&'a [u8]], name: &str, wanted: u32) -> Result<Option<Wire<'a>>, String> {
    let mut found = None;
    for part in parts {
        let mut reader = Reader::new(part, name);
        while let Some((number, wire)) = reader.next()? {
            if number == wanted {
                found = Some(wire);
            }
        }
    }
    Ok(found)
}

fn point_in_time<'a>(parts: &[&'a [u8]], precision: Precision) -> Result<Document<'a>, String> {
    /// Go's zero time, the first second of the year 1, which it writes as null.
    const ZERO: i64 = -62_135_596_800;
    let number = |number, name: &str| match last(parts, "Timestamp", number)? {
        Some(Wire::Varint(value)) => Ok(value as i64),
        Some(other) => Err(other.wrong(name)),
        None => Ok(0),
    };
    let seconds = number(1, "seconds")?;
    let nanos = match precision {
        Precision::Seconds => 0,
        Precision::Micros => number(2, "nanos")? as i32,
    };
    if (seconds, nanos) == (ZERO, 0) {
        return Ok(Document::Null);
    }
    let time = jiff::Timestamp::from_second(seconds)
        .and_then(|time| time.checked_add(jiff::SignedDuration::from_nanos(nanos.into())))
        .ok()
        .filter(|time| (0..=9999).contains(&jiff::tz::Offset::UTC.to_datetime(*time).year()));
    let time = time.ok_or("Time.MarshalJSON: year outside of range [0,9999]")?;
    Ok(Document::String(time::write(time, precision).into()))
}

fn int_or_string<'a>(parts: &[&'a [u8]]) -> Result<Document<'a>, String> {
    let number = |number, name: &str| match last(parts, "IntOrString", number)? {
        Some(Wire::Varint(value)) => Ok(value as i64),
        Some(other) => Err(other.wrong(name)),
        None => Ok(0),
    };
    match number(1, "type")? {
        0 => Ok(Document::Number((number(2, "intVal")? as i32).to_string().into())),
        1 => {
            let text = last(parts, "IntOrString", 3)?.map_or(Ok(&b""[..]), |wire| wire.bytes("strVal"))?;
            Ok(Document::String(String::from_utf8_lossy(text)))
        }
        _ => Err("impossible IntOrString.Type".to_owned()),
    }
}
