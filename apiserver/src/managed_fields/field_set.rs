//! A set of fields of an object, as `fieldsV1` writes it.

use super::element;
use super::shape::{Shape, Type};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A tree whose nodes may be members of the set. An edge is a path element as it is written: `f:NAME` a field,
/// `k:{"name":"c"}` the item of a list with these keys, `v:"x"` the item of a set, `i:0` the one at an index.
/// Two texts of the same element must be equal: keys in `k:` are sorted and there are no spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Read `fieldsV1`; `None` if it is none.
    pub fn decode(fields: &Value) -> Option<Self> {
        let fields = fields.as_object()?;
        let mut set = Self::default();
        for (element, below) in fields {
            if element == "." {
                set.member = true;
                continue;
            }
            let child = match below.as_object()?.is_empty() {
                true => Self::leaf(),
                false => Self::decode(below)?,
            };
            set.children.insert(canonical(element)?, child);
        }
        Some(set)
    }

    /// Write `fieldsV1`.
    pub fn encode(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        fields.extend(
            self.children
                .iter()
                .map(|(element, child)| (element.clone(), child.encode())),
        );
        Value::Object(fields)
    }

    /// The set that has only the place itself.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// What is in this set or in `other`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.member |= other.member;
        for (element, child) in &other.children {
            let below = union.children.entry(element.clone()).or_default();
            *below = below.union(child);
        }
        union
    }

    /// What is in this set and not in `other`. A field of `other` takes away that field, not those below it.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            let left = match other.children.get(element) {
                Some(taken) => child.difference(taken),
                None => child.clone(),
            };
            (!left.is_empty()).then(|| (element.clone(), left))
        });
        Self {
            member: self.member && !other.member,
            children: children.collect(),
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&self.difference(other))
    }

    /// Whether the place itself is in the set.
    pub(super) fn is_member(&self) -> bool {
        self.member
    }

    /// What is in the set at and below `element`.
    pub(super) fn child(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    /// The set without the place at `path` and all below it.
    pub(super) fn exclude(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => self.remove(last),
            [first, rest @ ..] => self.change(first, |below| below.exclude(rest)),
        }
    }

    /// Only what is at `path` and below it; `*` stands for any element.
    #[must_use]
    pub(super) fn only(&self, path: &[&str]) -> Self {
        let Some((first, rest)) = path.split_first() else {
            return self.clone();
        };
        let children = self.children.iter().filter_map(|(element, child)| {
            let below = (*first == "*" || element == first).then(|| child.only(rest))?;
            (!below.is_empty()).then(|| (element.clone(), below))
        });
        Self {
            member: false,
            children: children.collect(),
        }
    }

    /// The set with every field of a struct in it that has something below it in the set: such fields are
    /// not owned themselves, but they go when all goes that is owned in them.
    #[must_use]
    pub(super) fn with_named_fields(&self, of: Option<Type<'_>>) -> Self {
        let shape = of.map(Type::shape);
        let children = self.children.iter().map(|(element, child)| {
            let field = element.strip_prefix("f:");
            let (below, named) = match (shape, field) {
                (Some(Shape::Struct(kind)), Some(name)) => (Type::field(kind, name), true),
                (Some(Shape::Map(values)), Some(_)) => (Some(values), false),
                (Some(Shape::List(_, items)), None) => (Some(items), false),
                _ => (None, false),
            };
            let mut with = child.with_named_fields(below);
            with.member |= named && below.is_some();
            (element.clone(), with)
        });
        Self {
            member: self.member,
            children: children.collect(),
        }
    }

    /// Every place in the set, as messages show it: `.spec.ports[port=80,protocol="TCP"].name`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.add_paths("", &mut paths);
        paths
    }

    fn add_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        let path = |element: &str| format!("{prefix}{}", element::print(element));
        let members = self.children.iter().filter(|(_, child)| child.member);
        paths.extend(members.map(|(element, _)| path(element)));
        let parents = self
            .children
            .iter()
            .filter(|(_, child)| !child.children.is_empty());
        for (element, child) in parents {
            child.add_paths(&path(element), paths);
        }
    }

    /// Put the place itself into the set.
    pub(super) fn own(&mut self) {
        self.member = true;
    }

    /// Take the place itself out of the set.
    pub(super) fn disown(&mut self) {
        self.member = false;
    }

    /// Put `below` under `element`, if there is anything in it.
    pub(super) fn insert(&mut self, element: &str, below: Self) {
        if !below.is_empty() {
            self.children.insert(element.to_owned(), below);
        }
    }

    /// Take out `element` and all below it.
    pub(super) fn remove(&mut self, element: &str) {
        self.children.remove(element);
    }

    /// Change what is under `element`, if anything is.
    pub(super) fn change(&mut self, element: &str, change: impl FnOnce(&mut Self)) {
        if let Some(below) = self.children.get_mut(element) {
            change(below);
            if below.is_empty() {
                self.children.remove(element);
            }
        }
    }
}

/// A path element with its JSON rewritten: keys sorted, no spaces.
fn canonical(element: &str) -> Option<String> {
    let (kind, text) = element.split_once(':')?;
    match kind {
        "f" => Some(element.to_owned()),
        "i" => text.parse::<i64>().ok().map(|index| format!("i:{index}")),
        "v" => serde_json::from_str::<Value>(text)
            .ok()
            .map(|value| format!("v:{value}")),
        "k" => serde_json::from_str::<Map<String, Value>>(text)
            .ok()
            .map(|keys| format!("k:{}", Value::Object(keys))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(fields: &Value) -> FieldSet {
        FieldSet::decode(fields).expect("a field set")
    }

    #[test]
    fn what_is_decoded_is_encoded_again() {
        let fields = json!({"f:data": {".": {}, "f:k": {}}, "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"a\"": {}}}});
        assert_eq!(set(&fields).encode(), fields);
        assert_eq!(
            set(&json!({"f:p": {"k:{\"b\": 2, \"a\": 1}": {}}})),
            set(&json!({"f:p": {"k:{\"a\":1,\"b\":2}": {}}}))
        );
    }

    #[test]
    fn what_is_no_field_set_is_refused() {
        for fields in [
            json!(null),
            json!([]),
            json!({"x": {}}),
            json!({"q:x": {}}),
            json!({"f:a": 1}),
            json!({"k:x": {}}),
            json!({"i:x": {}}),
        ] {
            assert_eq!(FieldSet::decode(&fields), None, "{fields}");
        }
    }

    #[test]
    fn a_difference_takes_fields_not_what_is_below_them() {
        let all = set(&json!({"f:a": {".": {}, "f:b": {}}}));
        assert_eq!(
            all.difference(&set(&json!({"f:a": {}}))),
            set(&json!({"f:a": {"f:b": {}}}))
        );
        assert_eq!(
            all.difference(&set(&json!({"f:a": {"f:b": {}}}))),
            set(&json!({"f:a": {}}))
        );
        assert!(all.difference(&all).is_empty());
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        let leaf = Just(FieldSet::leaf());
        let inner = leaf.prop_recursive(3, 12, 3, |inner| {
            (
                any::<bool>(),
                proptest::collection::btree_map("f:[abc]", inner, 1..3),
            )
                .prop_map(|(member, children)| FieldSet { member, children })
        });
        proptest::collection::btree_map("f:[abc]", inner, 0..3).prop_map(|children| FieldSet {
            member: false,
            children,
        })
    }

    proptest! {
        #[test]
        fn sets_are_read_as_they_were_written(set in any_set()) {
            prop_assert_eq!(FieldSet::decode(&set.encode()), Some(set));
        }

        #[test]
        fn the_laws_of_sets_hold(a in any_set(), b in any_set()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.union(&b).difference(&b), a.difference(&b));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
        }
    }
}
