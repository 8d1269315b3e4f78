//! Objects of any type, made along its tree, for tests that hold for every kind. No scalar in them is zero or equal to
//! another of its type, so that none of them vanishes and no two items of a list are the same.

use super::types::{Node, Struct};
use serde_json::{Map, Value, json};

/// Nothing is made deeper than this.
const DEPTH: usize = 7;

/// An object of the type `kind`; another one for every seed.
pub(crate) fn object(kind: &'static Struct, seed: u64) -> Value {
    let mut maker = Maker { state: seed, made: 0 };
    Value::Object(maker.fields(kind, 0))
}

struct Maker {
    state: u64,
    made: i64,
}

impl Maker {
    /// One of `0..below`, by Knuth's generator.
    fn one_of(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn next(&mut self) -> i64 {
        self.made += 1;
        self.made
    }

    fn fields(&mut self, kind: &'static Struct, depth: usize) -> Map<String, Value> {
        let mut object = Map::new();
        for field in kind.fields() {
            // The way to the specification is always gone; of the rest enough for some of everything.
            let is_trunk = matches!(
                field.name.as_ref(),
                "metadata" | "spec" | "template" | "containers" | "ports"
            );
            if depth < DEPTH && (is_trunk || self.one_of(3) == 0) {
                object.insert(field.name.to_string(), self.value(&field.node, depth + 1));
            }
        }
        object
    }

    fn value(&mut self, node: &Node, depth: usize) -> Value {
        let number = self.next();
        match node {
            Node::Struct(kind) => Value::Object(self.fields(kind, depth)),
            Node::Map(values) => json!({format!("k{number}"): self.value(values, depth)}),
            Node::List(items) => {
                let count = 1 + self.one_of(2);
                (0..count).map(|_| self.item(items, depth)).collect()
            }
            Node::String => format!("s{number}").into(),
            Node::Bytes => "YQ==".into(),
            Node::Bool => true.into(),
            Node::Int32 | Node::Int64 | Node::IntOrString => number.into(),
            Node::Float => (number as f64 + 0.5).into(),
            Node::Time => "2024-01-02T03:04:05Z".into(),
            Node::MicroTime => "2024-01-02T03:04:05.000006Z".into(),
            Node::Quantity => number.to_string().into(),
            Node::Raw => json!({"raw": number}),
        }
    }

    /// An item of a list; one that is a struct has all that may tell it apart.
    fn item(&mut self, node: &Node, depth: usize) -> Value {
        let mut item = self.value(node, depth);
        if let (Node::Struct(kind), Some(fields)) = (node, item.as_object_mut()) {
            for field in kind.fields() {
                if matches!(field.node, Node::String | Node::Int32 | Node::Int64) {
                    let value = self.value(&field.node, depth);
                    fields.entry(field.name.to_string()).or_insert(value);
                }
            }
        }
        item
    }
}
