//! Strategic merge patch: a merge patch that knows the types. Lists of structs are merged by a key and sets
//! by their values, where `schema/go.txt` says so; directives in the patch say otherwise, item by item.

mod list;

use super::{PatchError, parse_map};
use crate::schema::{self, Field, ListKind, Node, go_print};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

/// The patch, and what it gives twice.
pub(super) fn parse(patch: &[u8]) -> Result<(Value, Vec<String>), PatchError> {
    parse_map(patch).map_err(PatchError::BadRequest)
}

/// `object` of the type `schema` with `patch` merged into it.
pub(super) fn apply(schema: &str, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let root = schema::find(schema)
        .ok_or_else(|| PatchError::Internal(format!("no kind with the schema {schema:?} is known")))?;
    let original = object.as_object().cloned().unwrap_or_default();
    let patch = patch.as_object().cloned().unwrap_or_default();
    merge_map(original, patch, Kind::Type(&Node::Struct(root))).map(Value::Object)
}

/// What is known of the type of a value.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Type(&'a Node),
    /// Raw JSON and what is in it.
    Unknown,
}

impl<'a> Kind<'a> {
    /// The type of the field `name`, and what the field adds to that.
    fn field(self, name: &str) -> Result<(Kind<'a>, Option<&'a Field>), PatchError> {
        match self {
            Kind::Type(Node::Struct(kind)) => match kind.field(name) {
                Some((_, field)) => Ok((Kind::Type(&field.node), Some(field))),
                None => Err(PatchError::Internal(format!(
                    "unable to find api field in struct {} for the json field {name:?}",
                    kind.go_name()
                ))),
            },
            Kind::Type(Node::Map(element)) => Ok((Kind::Type(element), None)),
            _ => Ok((Kind::Unknown, None)),
        }
    }

    fn element(self) -> Kind<'a> {
        match self {
            Kind::Type(Node::List(element)) => Kind::Type(element),
            _ => Kind::Unknown,
        }
    }
}

/// How a list is merged: `None` replaces it; `Some` merges it, by a key if it is one of structs.
fn merge_key(field: Option<&Field>) -> Option<Option<&'static str>> {
    match field.map(|field| field.facts.patch) {
        Some(ListKind::Map(keys)) => Some(keys.first().copied()),
        Some(ListKind::Set) => Some(None),
        Some(ListKind::Atomic) | None => None,
    }
}

type Fields = Map<String, Value>;

fn merge_map(mut original: Fields, mut patch: Fields, kind: Kind<'_>) -> Result<Fields, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Fields::new()),
            _ => Err(bad_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    list::set_element_orders(&mut original, &mut patch, kind)?;
    for (name, value) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let Some(current) = original.get_mut(&name) else {
            if !deletes {
                original.insert(name, without_directives(value));
            }
            continue;
        };
        match (current.take(), value) {
            (Value::Object(fields), Value::Object(patch)) => {
                let (kind, field) = kind.field(&name)?;
                let replaces = field.is_some_and(|field| field.facts.patch_replaces);
                let merged = if replaces {
                    patch
                } else {
                    merge_map(fields, patch, kind)?
                };
                *current = Value::Object(merged);
            }
            (Value::Array(items), Value::Array(patch)) => {
                let (kind, field) = kind.field(&name)?;
                let merged = match merge_key(field) {
                    Some(key) => list::merge(items, patch, kind.element(), key, deletes)?,
                    None => patch,
                };
                *current = Value::Array(merged);
            }
            (_, value) => *current = value,
        }
    }
    Ok(original)
}

/// Drop from `original` what the patch's `$retainKeys` does not name.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || PatchError::BadRequest("invalid patch format of retainKeys".to_owned());
    let keys = keys.as_array().ok_or_else(malformed)?;
    let retained = |name: &str| keys.iter().any(|key| key == name);
    let all_named = patch.iter().all(|(name, value)| {
        let is_directive =
            name.starts_with(DELETE_FROM_PRIMITIVE_LIST) || name.starts_with(SET_ELEMENT_ORDER);
        value.is_null() || is_directive || retained(name)
    });
    if !all_named {
        return Err(malformed());
    }
    original.retain(|name, _| retained(name));
    Ok(())
}

/// What a patch adds where there was nothing: itself, without directives and nulls.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if fields
                .get(DIRECTIVE)
                .is_some_and(|directive| directive == "delete")
            {
                return Value::Object(Fields::new());
            }
            let kept = fields
                .into_iter()
                .filter(|(name, value)| !value.is_null() && !is_directive(name));
            Value::Object(
                kept.map(|(name, value)| (name, without_directives(value)))
                    .collect(),
            )
        }
        Value::Array(items) => {
            let kept = items.into_iter().filter(|item| item[DIRECTIVE] != "delete");
            kept.map(without_directives).collect()
        }
        scalar => scalar,
    }
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE
        || name == RETAIN_KEYS
        || name.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        || name.starts_with(SET_ELEMENT_ORDER)
}

fn bad_directive(directive: &Value, patch: &Fields) -> PatchError {
    let patch = go_print(&Value::Object(patch.clone()));
    PatchError::Internal(format!(
        "unknown patch type: {} in map: {patch}",
        go_print(directive)
    ))
}
