//! A type as managedFields see it: what is one value, and what has fields or items that are owned one by one.

use crate::schema::{Facts, ListKind, Node, Struct};

/// The type of a value, and what the field that holds it adds to that.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub node: &'a Node,
    facts: Option<&'a Facts>,
}

/// What of a value is owned apart from the rest.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    /// Nothing: it is one value (a scalar, raw JSON, or an atomic struct, map or list).
    Leaf,
    /// Its fields.
    Struct(&'static Struct),
    /// Its values, which are of this type.
    Map(Type<'a>),
    /// Its items, told apart in this way.
    List(ListKind, Type<'a>),
}

impl<'a> Type<'a> {
    /// A type without a field around it: a whole object, or the elements of a list or map.
    pub(super) fn of(node: &'a Node) -> Self {
        Self { node, facts: None }
    }

    pub(super) fn shape(self) -> Shape<'a> {
        let is = |fact: fn(&Facts) -> bool| self.facts.is_some_and(fact);
        match self.node {
            Node::Struct(kind) if !kind.atomic || is(|facts| facts.granular) => Shape::Struct(kind),
            Node::Map(values) if !is(|facts| facts.atomic) => Shape::Map(Type::of(values)),
            Node::List(items) => match self.list() {
                ListKind::Atomic => Shape::Leaf,
                list => Shape::List(list, Type::of(items)),
            },
            _ => Shape::Leaf,
        }
    }

    /// How the items are told apart, if this is a list.
    pub(super) fn list(self) -> ListKind {
        self.facts.map(|facts| facts.list).unwrap_or_default()
    }

    /// The type of the field `name` of a struct.
    pub(super) fn field(kind: &'static Struct, name: &str) -> Option<Type<'static>> {
        let (_, field) = kind.field(name)?;
        Some(Type {
            node: &field.node,
            facts: Some(&field.facts),
        })
    }

    /// The types of all fields of a struct.
    pub(super) fn fields(kind: &'static Struct) -> impl Iterator<Item = (&'static str, Type<'static>)> {
        kind.fields().iter().map(|field| {
            let facts = Some(&field.facts);
            (
                field.name.as_ref(),
                Type {
                    node: &field.node,
                    facts,
                },
            )
        })
    }
}
