//! The annotation in which `kubectl apply` keeps what it applied last, when the same kubectl goes over to
//! server-side apply: fields that it says are no conflicts, and it is kept up to date.

use super::compare::compare;
use super::owned::owned;
use super::shape::Type;
use super::{FieldSet, validate};
use crate::schema::{Node, Struct};
use serde_json::Value;

/// The one field manager whose applies look at the annotation.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What all annotations of an object may hold, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The fields in which `live` is as the annotation says: those that a client-side apply owned.
pub(super) fn owned_by_annotation(root: &'static Struct, live: &Value) -> FieldSet {
    let node = Node::Struct(root);
    let of = Type::of(&node);
    let last: Option<Value> = text(live).and_then(|text| serde_json::from_str(text).ok());
    let last = last.filter(|last| last["apiVersion"] == live["apiVersion"]);
    let Some(last) = last.filter(|last| last.is_object() && validate::validate(of, last).is_ok()) else {
        return FieldSet::default();
    };
    let difference = compare(root, &last, live);
    owned(of, &last)
        .difference(&difference.changed)
        .difference(&difference.removed)
}

/// Write `config` into the annotation of `object`, if that has one. An annotation that would be too large goes.
pub(super) fn keep(object: &mut Value, config: &Value) {
    if text(object).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    let annotations = config.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), format!("{config}\n").into());
    let size = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}

fn text(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str()
}
