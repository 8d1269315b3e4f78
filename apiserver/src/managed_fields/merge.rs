//! An applied configuration laid over an object.

use super::compare::is_empty;
use super::element;
use super::shape::{Shape, Type};
use crate::schema::ListKind;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// `live` with `config` merged into it: fields of structs and keys of maps one by one, items of lists by what
/// tells them apart, everything else as a whole, where the configuration's word counts. Null says no more of
/// a map or list than its absence does.
pub(super) fn merge(of: Type<'_>, live: &Value, config: &Value) -> Value {
    both(of, Some(live), Some(config)).unwrap_or_default()
}

fn both(of: Type<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let (Some(live), Some(config)) = (live, config) else {
        return live.or(config).cloned();
    };
    if is_empty(Some(live)) && is_empty(Some(config)) {
        return Some(config.clone());
    }
    match of.shape() {
        Shape::Leaf => Some(config.clone()),
        Shape::Struct(kind) => fields(live, config, |name, live, config| {
            // The configuration's fields are known ones, or it would have been refused.
            let of = Type::field(kind, name);
            of.map_or_else(|| live.cloned(), |of| both(of, live, config))
        }),
        Shape::Map(values) => fields(live, config, |_, live, config| both(values, live, config)),
        Shape::List(list, items) => Some(list_items(list, items, live, config)),
    }
}

fn fields(
    live: &Value,
    config: &Value,
    both: impl Fn(&str, Option<&Value>, Option<&Value>) -> Option<Value>,
) -> Option<Value> {
    let none = Map::new();
    let live = live.as_object().unwrap_or(&none);
    let config = config.as_object().unwrap_or(&none);
    let only_config = config.keys().filter(|name| !live.contains_key(*name));
    let merged = live.keys().chain(only_config).filter_map(|name| {
        let value = both(name, live.get(name), config.get(name))?;
        Some((name.clone(), value))
    });
    Some(Value::Object(merged.collect()))
}

/// The items of both. Those that the configuration gives come in its order, and those that it does not give
/// stay before the item that they are before now.
fn list_items(list: ListKind, items: Type<'_>, live: &Value, config: &Value) -> Value {
    let elements = |value: &'_ Value| -> Vec<String> {
        let values = value.as_array().into_iter().flatten();
        values.map(|value| element::item(list, value)).collect()
    };
    let (live_elements, config_elements) = (elements(live), elements(config));
    let (live_values, config_values) = (
        live.as_array().map(Vec::as_slice).unwrap_or_default(),
        config.as_array().map(Vec::as_slice).unwrap_or_default(),
    );
    let given: HashSet<&str> = config_elements.iter().map(String::as_str).collect();
    // Where each item is; nowhere if there are several of it.
    let mut places: HashMap<&str, Option<usize>> = HashMap::new();
    for (place, element) in live_elements.iter().enumerate() {
        let known = places.entry(element).or_insert(Some(place));
        known.take_if(|first| *first != place);
    }
    let mut shared = config_elements
        .iter()
        .map(String::as_str)
        .filter(|element| places.contains_key(element))
        .peekable();
    let mut merged = Vec::with_capacity(live_values.len().max(config_values.len()));
    let mut done: HashSet<&str> = HashSet::new();
    let (mut l, mut r) = (0, 0);
    while l < live_elements.len() || r < config_elements.len() {
        let (left, right) = (live_elements.get(l), config_elements.get(r));
        if let Some(left) = left.map(String::as_str) {
            if !given.contains(left) {
                merged.push(live_values[l].clone());
                l += 1;
                continue;
            }
            let is_next = shared.peek().is_none_or(|next| *next == left);
            if done.contains(left) || !is_next {
                // It has been merged, or will be when its turn comes in the configuration.
                l += 1;
                continue;
            }
        }
        let Some(right) = right.map(String::as_str) else {
            // What is left of the live items is given, and all that is given has been merged.
            l += 1;
            continue;
        };
        let place = places.get(right).copied().flatten();
        let live_item = place.map(|place| &live_values[place]);
        merged.extend(both(items, live_item, Some(&config_values[r])));
        done.insert(right);
        shared.next_if_eq(&right);
        r += 1;
        if left.is_some_and(|left| left == right) {
            l += 1;
        }
    }
    merged.into()
}
