//! From a JSON document to the object that Go would hold and write again.
//!
//! Two kinds of errors, as in Go: a value of a wrong type is remembered (the first one counts) and decoding
//! goes on; a type that reads its own text (times, quantities) ends decoding with its error.

use super::document::Document;
use super::time::{self, Precision};
use super::types::{Field, Node, Presence, Struct};
use super::{base64, quantity};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt::Write as _;

/// More strict errors than these are not told.
const MAX_STRICT: usize = 100;

/// Whose words an error about a wrong type is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// `encoding/json`'s, for the texts of clients.
    Json,
    /// Those of upstream's converter from maps to structs, which it uses after a strategic merge patch.
    Converter,
}

/// Decode `document` into the struct `root`: the object, and the strict errors in the order of the document.
pub(super) fn decode(
    root: &'static Struct,
    document: &Document<'_>,
    words: Words,
) -> Result<(Value, Vec<String>), String> {
    let root_node = Node::Struct(root);
    let mut decoder = Decoder {
        words,
        strict: Vec::new(),
        told: HashSet::new(),
        path: String::new(),
        wrong: None,
        within: None,
        fields: Vec::new(),
    };
    let decoded = decoder.node(&root_node, None, document);
    match (decoded, decoder.wrong) {
        // The converter stops at its first error, whatever it is.
        (Err(_), Some(wrong)) if words == Words::Converter => Err(wrong),
        (Err(error), _) => Err(error),
        (Ok(_), Some(wrong)) => Err(wrong),
        (Ok(decoded), None) => Ok((decoded.unwrap_or_else(|| zero_struct(root)), decoder.strict)),
    }
}

struct Decoder<'d> {
    words: Words,
    strict: Vec<String>,
    told: HashSet<String>,
    /// Where we are, as strict errors name it: `spec.containers[0].env`.
    path: String,
    /// The first value of a wrong type.
    wrong: Option<String>,
    /// The innermost struct, and the fields that led here, as errors about types name it.
    within: Option<&'static Struct>,
    fields: Vec<&'d str>,
}

impl<'d> Decoder<'d> {
    /// The value of `document` as a `node`, whose Go type may have a name of its own; `None` if it is null or
    /// of a wrong type.
    fn node(
        &mut self,
        node: &'d Node,
        go_type: Option<&str>,
        document: &Document<'_>,
    ) -> Result<Option<Value>, String> {
        if *document == Document::Null {
            return Ok(None);
        }
        Ok(match (node, document) {
            (Node::Struct(kind), Document::Object(fields)) => Some(self.object(kind, fields)?),
            (Node::Map(element), Document::Object(fields)) => Some(self.map(element, go_type, fields)?),
            (Node::List(element), Document::Array(items)) => Some(self.list(element, go_type, items)?),
            (Node::String, Document::String(text)) => Some(Value::String(text.clone().into_owned())),
            (Node::Bool, Document::Bool(bool)) => Some(Value::Bool(*bool)),
            (Node::Int32 | Node::Int64, Document::Number(text)) => {
                self.integer(document, node, go_type, text)
            }
            (Node::Float, Document::Number(_)) => Some(document.to_value()),
            (Node::Bytes, Document::String(text)) => match base64::canonical(text) {
                Ok(text) => Some(Value::String(text)),
                Err(error) => {
                    self.wrong.get_or_insert(error);
                    None
                }
            },
            (Node::Raw, _) => Some(document.to_value()),
            (Node::Time, _) => Some(own_time(document, Precision::Seconds)?),
            (Node::MicroTime, _) => Some(own_time(document, Precision::Micros)?),
            (Node::Quantity, _) => Some(own_quantity(document)?),
            (Node::IntOrString, _) => Some(own_int_or_string(document)?),
            _ => {
                self.wrong_type(document, node, go_type);
                None
            }
        })
    }

    fn object(
        &mut self,
        kind: &'static Struct,
        given: &[(std::borrow::Cow<'_, str>, Document<'_>)],
    ) -> Result<Value, String> {
        let mut object = Map::new();
        let mut seen = vec![false; kind.fields().len()];
        let outer = self.within;
        for (name, document) in given {
            let end = self.enter(name);
            match kind.field(name) {
                None => self.strict_error("unknown"),
                Some((index, field)) => {
                    if std::mem::replace(&mut seen[index], true) {
                        self.strict_error("duplicate");
                    }
                    self.within = Some(kind);
                    self.fields.push(&field.name);
                    let value = self.node(&field.node, field.facts.go_type, document)?;
                    self.fields.pop();
                    self.within = outer;
                    match value {
                        Some(value) if field.presence != Presence::OmitEmpty || !is_empty(&value) => {
                            object.insert(field.name.to_string(), value);
                        }
                        Some(_) => {
                            object.remove(field.name.as_ref());
                        }
                        None => {}
                    }
                }
            }
            self.path.truncate(end);
        }
        fill(kind, &mut object);
        Ok(Value::Object(object))
    }

    fn map(
        &mut self,
        element: &'d Node,
        go_type: Option<&str>,
        given: &[(std::borrow::Cow<'_, str>, Document<'_>)],
    ) -> Result<Value, String> {
        let mut map = Map::new();
        for (key, document) in given {
            let end = self.enter(key);
            if map.contains_key(key.as_ref()) {
                self.strict_error("duplicate");
            }
            let value = self.node(
                element,
                go_type.filter(|_| !matches!(element, Node::Quantity)),
                document,
            )?;
            map.insert(key.clone().into_owned(), value.unwrap_or_else(|| zero(element)));
            self.path.truncate(end);
        }
        Ok(Value::Object(map))
    }

    fn list(
        &mut self,
        element: &'d Node,
        go_type: Option<&str>,
        given: &[Document<'_>],
    ) -> Result<Value, String> {
        let mut list = Vec::with_capacity(given.len());
        for (index, document) in given.iter().enumerate() {
            let end = self.path.len();
            write!(self.path, "[{index}]").expect("a string takes all that is written");
            let value = self.node(element, go_type, document)?;
            list.push(value.unwrap_or_else(|| zero(element)));
            self.path.truncate(end);
        }
        Ok(Value::Array(list))
    }

    fn integer(
        &mut self,
        document: &Document<'_>,
        node: &Node,
        go_type: Option<&str>,
        text: &str,
    ) -> Option<Value> {
        let fits = |integer: &i64| !matches!(node, Node::Int32) || i32::try_from(*integer).is_ok();
        let integer = text.parse::<i64>().ok().filter(fits);
        if integer.is_none() {
            self.wrong_type(document, node, go_type);
        }
        integer.map(Value::from)
    }

    /// Add a field's name to the path; the result is the length to go back to.
    fn enter(&mut self, name: &str) -> usize {
        let end = self.path.len();
        if end > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        end
    }

    fn strict_error(&mut self, what: &str) {
        let error = format!("{what} field {:?}", self.path);
        if self.strict.len() < MAX_STRICT && self.told.insert(error.clone()) {
            self.strict.push(error);
        }
    }

    fn wrong_type(&mut self, given: &Document<'_>, node: &Node, go_type: Option<&str>) {
        if self.wrong.is_some() {
            return;
        }
        if self.words == Words::Converter {
            self.wrong = Some(cannot_convert(given, node, go_type, self.within));
            return;
        }
        let given = match (given, node) {
            (Document::Number(text), Node::Int32 | Node::Int64) => format!("number {text}"),
            _ => given.kind().to_owned(),
        };
        let wanted = type_name(node, go_type, self.within);
        self.wrong = Some(match self.within {
            Some(within) => format!(
                "json: cannot unmarshal {given} into Go struct field {}.{} of type {wanted}",
                within.go_name(),
                self.fields.join(".")
            ),
            None => format!("json: cannot unmarshal {given} into Go value of type {wanted}"),
        });
    }
}

/// A wrong type in the words of the converter from maps to structs.
fn cannot_convert(
    given: &Document<'_>,
    node: &Node,
    go_type: Option<&str>,
    within: Option<&Struct>,
) -> String {
    let from = match given {
        Document::Number(text) if text.parse::<i64>().is_ok() => "int64",
        Document::Number(_) => "float64",
        Document::Array(_) => "slice",
        Document::Object(_) => "map",
        other => other.kind(),
    };
    match (node, given) {
        (Node::Map(_), _) => format!("cannot restore map from {from}"),
        (Node::List(_) | Node::Bytes, _) => format!("cannot restore slice from {from}"),
        (Node::Struct(_), _) => format!("cannot restore struct from: {from}"),
        (Node::String, Document::Number(_)) if from == "float64" => "unrecognized type: string".to_owned(),
        // Go can turn numbers into each other and an integer into a string, but the converter will not.
        (Node::String | Node::Int32 | Node::Int64, Document::Number(_)) => {
            format!("cannot convert {from} to {}", type_name(node, go_type, within))
        }
        _ => format!("unrecognized type: {}", type_name(node, None, None)),
    }
}

/// The Go type as errors name it; `within` is the struct whose package a type's own name stands in.
fn type_name(node: &Node, go_type: Option<&str>, within: Option<&Struct>) -> String {
    let named = |name: &str| match (name.contains('.'), within) {
        (false, Some(within)) => format!("{}.{name}", package(within)),
        _ => name.to_owned(),
    };
    match (node, go_type) {
        (Node::List(element), _) => format!("[]{}", type_name(element, go_type, within)),
        (Node::Struct(kind), _) => format!("{}.{}", package(kind), kind.go_name()),
        (_, Some(name)) => named(name),
        (Node::Map(element), None) => format!("map[string]{}", type_name(element, None, within)),
        (Node::String, None) => "string".to_owned(),
        (Node::Bytes, None) => "[]uint8".to_owned(),
        (Node::Bool, None) => "bool".to_owned(),
        (Node::Int32, None) => "int32".to_owned(),
        (Node::Int64, None) => "int64".to_owned(),
        (Node::Float, None) => "float64".to_owned(),
        (Node::Time, None) => "v1.Time".to_owned(),
        (Node::MicroTime, None) => "v1.MicroTime".to_owned(),
        (Node::Quantity, None) => "resource.Quantity".to_owned(),
        (Node::IntOrString, None) => "intstr.IntOrString".to_owned(),
        (Node::Raw, None) => "runtime.RawExtension".to_owned(),
    }
}

fn package(kind: &Struct) -> &str {
    kind.name.rsplit('.').nth(1).unwrap_or_default()
}

/// What Go's `omitempty` leaves out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(bool) => !bool,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Add what Go writes even when it was not given.
fn fill(kind: &Struct, object: &mut Map<String, Value>) {
    let missing = kind
        .fields()
        .iter()
        .filter(|field| field.presence == Presence::Always);
    for field in missing {
        if !object.contains_key(field.name.as_ref()) {
            object.insert(field.name.to_string(), absent(field));
        }
    }
}

fn absent(field: &Field) -> Value {
    match &field.node {
        _ if field.facts.pointer => Value::Null,
        Node::List(_) | Node::Map(_) | Node::Bytes => Value::Null,
        node => zero(node),
    }
}

/// Go's zero value of a type as an element of a list or map.
fn zero(node: &Node) -> Value {
    match node {
        Node::Struct(kind) => zero_struct(kind),
        Node::String => "".into(),
        Node::Bool => false.into(),
        Node::Int32 | Node::Int64 | Node::Float | Node::IntOrString => 0.into(),
        Node::Quantity => "0".into(),
        Node::Map(_) | Node::List(_) | Node::Bytes | Node::Time | Node::MicroTime | Node::Raw => Value::Null,
    }
}

fn zero_struct(kind: &Struct) -> Value {
    let mut object = Map::new();
    fill(kind, &mut object);
    Value::Object(object)
}

/// A text that a type reads for itself, through a decoder of its own that knows of no struct.
fn own_text<'a>(document: &'a Document<'_>) -> Result<&'a str, String> {
    match document {
        Document::String(text) => Ok(text),
        other => Err(format!(
            "json: cannot unmarshal {} into Go value of type string",
            other.kind()
        )),
    }
}

fn own_time(document: &Document<'_>, precision: Precision) -> Result<Value, String> {
    time::canonical(own_text(document)?, precision).map(Value::String)
}

fn own_quantity(document: &Document<'_>) -> Result<Value, String> {
    let text = match document {
        Document::String(text) => text.trim(),
        Document::Number(text) => text.as_ref(),
        // Any other text is no quantity either.
        _ => "?",
    };
    quantity::canonical(text).map(Value::String)
}

fn own_int_or_string(document: &Document<'_>) -> Result<Value, String> {
    let given = match document {
        Document::String(text) => return Ok(Value::String(text.clone().into_owned())),
        Document::Number(text) => match text.parse::<i32>() {
            Ok(integer) => return Ok(integer.into()),
            Err(_) => format!("number {text}"),
        },
        other => other.kind().to_owned(),
    };
    Err(format!(
        "json: cannot unmarshal {given} into Go value of type int32"
    ))
}
