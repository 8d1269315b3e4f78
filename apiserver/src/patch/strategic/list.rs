//! Lists in a strategic merge patch: merged by key or value, and put in order.
//!
//! The order of the result: what `$setElementOrder` names, in that order, else what the patch names, in its
//! order; between them, as far as that goes, what only the server has, in the order it had.

use super::{
    DIRECTIVE, Fields, Kind, SET_ELEMENT_ORDER, bad_directive, merge_key, merge_map, without_directives,
};
use crate::patch::PatchError;
use crate::schema::go_print;
use serde_json::Value;

/// Merge the list `patch` into `original`; by `key` if the items are structs. `deletes`: the patch is a
/// `$deleteFromPrimitiveList`.
pub(super) fn merge(
    original: Vec<Value>,
    patch: Vec<Value>,
    element: Kind<'_>,
    key: Option<&str>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    let Some(first) = original.first().or(patch.first()) else {
        return Ok(original);
    };
    check_elements(&original, &patch)?;
    if !first.is_object() {
        if deletes {
            return Ok(original
                .into_iter()
                .filter(|item| !patch.contains(item))
                .collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return put_in_order(merged, &patch, &original, None);
    }
    let key = key.ok_or_else(|| {
        PatchError::Internal("cannot merge lists without merge key for type struct".to_owned())
    })?;
    let (original, patch) = apply_directives(original, patch, key)?;
    let mut merged = original.clone();
    for item in &patch {
        let wanted = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
        match merged
            .iter_mut()
            .find(|candidate| candidate.get(key) == Some(wanted))
        {
            Some(found) => {
                let (Value::Object(fields), Value::Object(item)) = (found.take(), item.clone()) else {
                    return Err(mixed_elements(&original, &patch));
                };
                *found = Value::Object(merge_map(fields, item, element)?);
            }
            None => merged.push(without_directives(item.clone())),
        }
    }
    put_in_order(merged, &patch, &original, Some(key))
}

/// Lists whose items are of different types are not merged, nor lists of lists.
fn check_elements(original: &[Value], patch: &[Value]) -> Result<(), PatchError> {
    let mut all = original.iter().chain(patch);
    let Some(first) = all.next() else { return Ok(()) };
    if first.is_array() {
        return Err(PatchError::rejected());
    }
    match all.all(|item| std::mem::discriminant(item) == std::mem::discriminant(first)) {
        true => Ok(()),
        false => Err(mixed_elements(original, patch)),
    }
}

fn mixed_elements(original: &[Value], patch: &[Value]) -> PatchError {
    let shown = go_print(&Value::from(vec![Value::from(original), Value::from(patch)]));
    PatchError::Internal(format!("list element types are not identical: {shown}"))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Internal(format!(
        "map: {} does not contain declared merge key: {key}",
        go_print(item)
    ))
}

/// Carry out the items with a `$patch`: the original without what is deleted (or replaced), and the patch
/// without such items.
fn apply_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replaces = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let deleted = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                original.retain(|candidate| candidate.get(key) != Some(deleted));
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                let message = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Internal(message.to_owned()));
            }
            _ => {
                return Err(bad_directive(
                    directive,
                    item.as_object().unwrap_or(&Fields::new()),
                ));
            }
        }
    }
    Ok(if replaces {
        (plain, Vec::new())
    } else {
        (original, plain)
    })
}

/// Carry out all `$setElementOrder` of a patch together with the lists that they order, and take both out of
/// the patch.
pub(super) fn set_element_orders(
    original: &mut Fields,
    patch: &mut Fields,
    kind: Kind<'_>,
) -> Result<(), PatchError> {
    let orders: Vec<String> = patch
        .keys()
        .filter(|name| name.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in orders {
        let order = patch.remove(&directive).unwrap_or_default();
        let name = &directive[SET_ELEMENT_ORDER.len()..];
        let order = as_list(order)?;
        let present = original.remove(name).map(as_list).transpose()?;
        let patched = patch
            .remove(name)
            .filter(|list| !list.is_null())
            .map(as_list)
            .transpose()?;
        let (list_kind, field) = kind.field(name)?;
        let strategy = merge_key(field);
        let key = strategy.flatten();
        check_order(patched.as_deref().unwrap_or_default(), &order, key)?;
        let server_order = present.clone().unwrap_or_default();
        let merged = match (present, patched) {
            (Some(present), Some(patched)) => match strategy {
                Some(key) => merge(present, patched, list_kind.element(), key, false)?,
                None => patched,
            },
            (Some(present), None) => present,
            (None, Some(patched)) => {
                let Value::Array(patched) = without_directives(Value::Array(patched)) else {
                    continue;
                };
                patched
            }
            (None, None) => continue,
        };
        let ordered = put_in_order(merged, &order, &server_order, key)?;
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

fn as_list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        other => {
            let given = match other {
                Value::Null => "<nil>",
                Value::Bool(_) => "bool",
                Value::Number(_) => "int64",
                Value::String(_) => "string",
                Value::Array(_) | Value::Object(_) => "map[string]interface {}",
            };
            Err(PatchError::Internal(format!(
                "expected a []interface {{}}, but received a {given}"
            )))
        }
    }
}

/// All items of the patch must be in the order given, in that order; deletions are not asked.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut remaining = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let found = match key {
            None => remaining.any(|candidate| candidate == item),
            Some(key) => {
                let wanted = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
                let mut found = false;
                for candidate in remaining.by_ref() {
                    if candidate.get(key).ok_or_else(|| no_merge_key(candidate, key))? == wanted {
                        found = true;
                        break;
                    }
                }
                found
            }
        };
        if !found {
            return Err(PatchError::Internal(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_print(&Value::from(patch)),
                go_print(&Value::from(order))
            )));
        }
    }
    Ok(())
}

/// `merged` with the items that `order` names in that order, and the others, in the order of `server`, put
/// between them: each before the first that came after it on the server.
fn put_in_order(
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key
        && let Some(item) = merged.iter().chain(order).find(|item| item.get(key).is_none())
    {
        return Err(no_merge_key(item, key));
    }
    let position = |list: &[Value], item: &Value| {
        list.iter().position(|other| match key {
            Some(key) => other.get(key) == item.get(key),
            None => other == item,
        })
    };
    let (mut named, mut others): (Vec<_>, Vec<_>) = merged
        .into_iter()
        .partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    others.sort_by_key(|item| position(server, item));
    let mut ordered = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        while let Some(other) = others.peek() {
            match (position(server, other), position(server, &item)) {
                (Some(before), Some(after)) if before < after => ordered.extend(others.next()),
                _ => break,
            }
        }
        ordered.push(item);
    }
    ordered.extend(others);
    Ok(ordered)
}
