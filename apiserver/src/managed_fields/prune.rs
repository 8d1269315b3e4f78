//! Taking out of an object what its applier gave before and nobody gives now.

use super::FieldSet;
use super::owned::owned;
use super::remove::remove;
use super::shape::Type;
use serde_json::Value;

/// `merged` without what was in `last`, the fields that the manager owned by its last apply, and is in nothing
/// that is `managed` now by anybody, this manager's new configuration included. A field or item stays, though
/// it was in `last`, as long as anything is in it that stays.
pub(super) fn prune(of: Type<'_>, merged: &Value, last: &FieldSet, managed: &FieldSet) -> Value {
    let all = |value: &Value| owned(of, value).with_named_fields(Some(of));
    let last = last.with_named_fields(Some(of));
    let everything = all(merged);
    let without_last = all(&remove(of, merged, &last));
    let stays = without_last.union(&managed.with_named_fields(Some(of)));
    let unowned = everything.difference(&stays);
    // What is below a place that goes may still be somebody's who never owned that place: only what was in
    // `last` goes in the end.
    let left = all(&remove(of, merged, &unowned));
    let gone = everything.difference(&left);
    remove(of, merged, &gone.intersection(&last))
}
