//! Kubernetes' protobuf form of objects: `k8s\0`, then a `runtime.Unknown` with the type and the object's own
//! message. The numbers of fields are in `proto.txt`, everything else is in the schemas.
//!
//! A message is read into the same document that JSON text is read into, so all that comes after (defaults,
//! validation, managed fields) knows nothing of it.

mod decode;
mod encode;
mod wire;

pub(crate) use self::encode::{encode, watch_event};

use super::types::{Struct, table_name};
use super::{Words, roots, types};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;
use wire::Reader;

/// What every object starts with.
const PREFIX: &[u8] = b"k8s\0";

const TABLE: &str = include_str!("proto.txt");

/// Which field of a struct a number means, by numbers.
#[derive(Debug)]
pub(super) struct Layout(Box<[(u32, Slot)]>);

/// What is behind a number.
#[derive(Debug)]
enum Slot {
    /// The field of the struct with this index.
    Field(usize),
    /// A message whose fields are the struct's own.
    Inline(Layout),
}

impl Layout {
    /// That of a struct; empty where the table does not know it.
    pub(super) fn of(kind: &Struct) -> Self {
        Self::parse(table_name(kind.name), kind)
    }

    fn parse(name: &str, kind: &Struct) -> Self {
        static LINES: OnceLock<HashMap<&str, &str>> = OnceLock::new();
        let lines = LINES.get_or_init(|| TABLE.lines().filter_map(|line| line.split_once(' ')).collect());
        let mut slots = Vec::new();
        let mut number = 0;
        for word in lines.get(name).copied().unwrap_or_default().split_whitespace() {
            let (explicit, word) = match word.split_once(':') {
                Some((explicit, word)) => (explicit.parse().ok(), word),
                None => (None, word),
            };
            number = explicit.unwrap_or(number + 1);
            let slot = match word.strip_prefix('^') {
                Some(inner) => Some(Slot::Inline(Self::parse(inner, kind))),
                None => kind.field(word).map(|(index, _)| Slot::Field(index)),
            };
            slots.extend(slot.map(|slot| (number, slot)));
        }
        Self(slots.into())
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        // Numbers count from 1 with few gaps, so the place is at or just before the number.
        let found = self.0.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        Some(&self.0[found].1)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether objects with this schema have a protobuf form.
pub(crate) fn is_known(schema: &str) -> bool {
    types::find(schema).is_some_and(|kind| !kind.layout().is_empty())
}

/// An object as it comes: what it says that it is, and its message.
#[derive(Debug, PartialEq)]
pub(crate) struct Envelope<'a> {
    pub api_version: Cow<'a, str>,
    pub kind: Cow<'a, str>,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Open a body; the error is upstream's.
    pub(crate) fn open(body: &'a [u8]) -> Result<Self, String> {
        let message = match body.strip_prefix(PREFIX) {
            _ if body.is_empty() => return Err("empty data".to_owned()),
            None => {
                return Err(format!(
                    "provided data does not appear to be a protobuf message, expected prefix [{}]",
                    PREFIX.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
                ));
            }
            Some([]) => return Err("empty body".to_owned()),
            Some(message) => message,
        };
        let mut envelope = Self {
            api_version: Cow::default(),
            kind: Cow::default(),
            raw: &[],
        };
        let mut reader = Reader::new(message, "Unknown");
        while let Some((number, value)) = reader.next()? {
            match number {
                1 => {
                    let mut names = Reader::new(value.bytes("TypeMeta")?, "TypeMeta");
                    while let Some((number, value)) = names.next()? {
                        match number {
                            1 => envelope.api_version = String::from_utf8_lossy(value.bytes("APIVersion")?),
                            2 => envelope.kind = String::from_utf8_lossy(value.bytes("Kind")?),
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes("Raw")?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object by the schema of a type, as [`super::decode`] gives it; the error is Go's.
    pub(crate) fn decode(&self, schema: &str) -> Result<Value, String> {
        let root =
            types::find(schema).ok_or_else(|| format!("no kind with the schema {schema:?} is known"))?;
        let document = decode::message(root, &[self.raw])?;
        // Fields that are unknown here were told of nowhere: upstream's strict decoding is for text only.
        Ok(super::decode_document(schema, &document, Words::Json)?.value)
    }
}

/// The struct of an object's type, by what the object says it is.
fn root_of(api_version: &str, kind: &str) -> Option<&'static Struct> {
    let name = match (api_version, kind) {
        ("v1", "Status") => STATUS,
        _ => roots::of_kind(api_version, kind)?,
    };
    types::find(name).filter(|root| !root.layout().is_empty())
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

#[cfg(test)]
mod tests;
