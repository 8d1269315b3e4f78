//! The types of all objects as a compact tree, made from `k8s-openapi`'s JSON schemas and [`Facts`] the first
//! time that a type is asked for, and kept for the life of the process.

use super::facts::{Facts, TypeFacts};
use super::protobuf::Layout;
use super::roots;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A Go struct.
#[derive(Debug)]
pub(crate) struct Struct {
    /// The name of its definition, for example `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    /// Whether managedFields see it as one value.
    pub atomic: bool,
    // Set once, after the struct can be found by its name, so that types may refer to themselves.
    fields: OnceLock<Box<[Field]>>,
    layout: OnceLock<Layout>,
}

/// A field of a struct.
#[derive(Debug)]
pub(crate) struct Field {
    pub name: Box<str>,
    pub node: Node,
    pub facts: Facts,
    pub presence: Presence,
}

/// When Go writes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Unless it is zero or empty (`omitempty`).
    OmitEmpty,
    /// When it was given, even as zero or empty (a pointer with `omitempty`).
    Given,
    /// Always: zero, or null, when it was not given.
    Always,
}

/// A type.
#[derive(Debug)]
pub(crate) enum Node {
    Struct(&'static Struct),
    Map(Box<Node>),
    List(Box<Node>),
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Float,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Raw,
}

impl Struct {
    /// Its fields, sorted by name.
    pub(crate) fn fields(&self) -> &[Field] {
        self.fields.get().map(Box::as_ref).unwrap_or_default()
    }

    /// The field called `name`, and its index.
    pub(crate) fn field(&self, name: &str) -> Option<(usize, &Field)> {
        let fields = self.fields();
        let index = fields
            .binary_search_by(|field| field.name.as_ref().cmp(name))
            .ok()?;
        Some((index, &fields[index]))
    }

    /// The numbers of its fields in protobuf.
    pub(super) fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Layout::of(self))
    }

    /// Its Go name, for example `PodSpec`.
    pub(crate) fn go_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

/// The struct called `name`, made at its first use; `None` if there is none.
pub(crate) fn find(name: &str) -> Option<&'static Struct> {
    static KNOWN: Mutex<Option<HashMap<&'static str, &'static Struct>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(found) = known.get(name) {
        return Some(found);
    }
    let mut generator = schemars::SchemaGenerator::default();
    let root = roots::find(name)?(&mut generator).to_value();
    let mut builder = Builder {
        definitions: generator.definitions(),
        known,
    };
    Some(builder.add(name, &root))
}

struct Builder<'a> {
    definitions: &'a serde_json::Map<String, Value>,
    known: &'a mut HashMap<&'static str, &'static Struct>,
}

impl Builder<'_> {
    fn add(&mut self, name: &str, schema: &Value) -> &'static Struct {
        let name: &'static str = Box::leak(name.into());
        let type_facts = TypeFacts::of(table_name(name));
        let made: &'static Struct = Box::leak(Box::new(Struct {
            name,
            atomic: type_facts.atomic,
            fields: OnceLock::new(),
            layout: OnceLock::new(),
        }));
        self.known.insert(name, made);
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        // The generator's maps are sorted, and so are the fields.
        let properties = schema["properties"].as_object().into_iter().flatten();
        let fields = properties.map(|(field, schema)| {
            let facts = type_facts.field(field);
            let node = self.node(schema);
            let presence = presence(field, &node, &facts, required.contains(&field.as_str()));
            Field {
                name: field.as_str().into(),
                node,
                facts,
                presence,
            }
        });
        let fields = fields.collect();
        made.fields
            .set(fields)
            .expect("a struct's fields are set right after it is made");
        made
    }

    fn node(&mut self, schema: &Value) -> Node {
        // A reference with a default beside it comes wrapped.
        if let Some(only) = schema["allOf"].get(0) {
            return self.node(only);
        }
        if let Some(reference) = schema["$ref"].as_str() {
            return self.reference(reference.trim_start_matches("#/$defs/"));
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) => Node::Bytes,
            (Some("string"), Some("date-time")) => Node::Time,
            (Some("string"), _) => Node::String,
            (Some("boolean"), _) => Node::Bool,
            (Some("integer"), Some("int32")) => Node::Int32,
            (Some("integer"), _) => Node::Int64,
            (Some("number"), _) => Node::Float,
            (Some("array"), _) => Node::List(Box::new(self.node(&schema["items"]))),
            (Some("object"), _) if schema["additionalProperties"].is_object() => {
                Node::Map(Box::new(self.node(&schema["additionalProperties"])))
            }
            _ => Node::Raw,
        }
    }

    fn reference(&mut self, name: &str) -> Node {
        match name.rsplit('.').next() {
            Some("Quantity") => return Node::Quantity,
            Some("IntOrString") => return Node::IntOrString,
            Some("Time") => return Node::Time,
            Some("MicroTime") => return Node::MicroTime,
            _ => {}
        }
        if let Some(known) = self.known.get(name) {
            return Node::Struct(known);
        }
        let definitions = self.definitions;
        match definitions.get(name) {
            Some(schema) if schema["properties"].is_object() => Node::Struct(self.add(name, schema)),
            Some(schema) if schema["type"] != "object" => self.node(schema),
            _ => Node::Raw,
        }
    }
}

/// The last three parts of a definition's name, as `go.txt` has them.
pub(crate) fn table_name(name: &str) -> &str {
    let start = name.rmatch_indices('.').nth(2).map_or(0, |(dot, _)| dot + 1);
    &name[start..]
}

fn presence(name: &str, node: &Node, facts: &Facts, required: bool) -> Presence {
    if facts.always_written {
        return Presence::Always;
    }
    let pointer = facts.pointer
        || matches!(node, Node::Struct(_))
            && !(required || facts.by_value || matches!(name, "metadata" | "spec" | "status"));
    // Go's `omitempty` knows no empty struct.
    let go_struct = matches!(
        node,
        Node::Struct(_) | Node::Time | Node::MicroTime | Node::Quantity | Node::IntOrString | Node::Raw
    );
    match (required && !facts.omitted_when_empty, pointer) {
        (true, _) => Presence::Always,
        (false, true) => Presence::Given,
        (false, false) if go_struct && !facts.omitted_when_empty => Presence::Always,
        (false, false) => Presence::OmitEmpty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_has_a_tree() {
        for name in roots::names() {
            let found = find(name).expect(name);
            assert!(!found.fields().is_empty(), "{name}");
            assert!(
                std::ptr::eq(found, find(name).expect(name)),
                "{name} is made once"
            );
        }
        assert!(find("io.k8s.api.core.v1.Gadget").is_none());
    }

    /// A typing error in the table would otherwise be silence.
    #[test]
    fn every_line_of_the_table_names_a_type_and_its_fields() {
        let mut generator = schemars::SchemaGenerator::default();
        let mut properties: HashMap<String, Value> = HashMap::new();
        for name in roots::names() {
            let root = roots::find(name).expect(name)(&mut generator).to_value();
            properties.insert(table_name(name).to_owned(), root["properties"].clone());
        }
        for (name, definition) in generator.definitions() {
            properties.insert(table_name(name).to_owned(), definition["properties"].clone());
        }
        for (name, fields) in super::super::facts::table() {
            let known = properties.get(name).unwrap_or_else(|| panic!("no type {name}"));
            for field in fields {
                assert!(known.get(field).is_some(), "no field {field} in {name}");
            }
        }
    }
}
