//! `metadata.managedFields`: who set which field, kept on every write as upstream's field manager does.
//!
//! A write that is no apply owns what it changes: `compare.rs` finds the fields that differ, in the terms of
//! `field_set.rs`; they leave the entries of all others and join the writer's. What is gone leaves all
//! entries, and an entry without fields goes too. `entry.rs` reads and writes the entries.
//!
//! A server-side apply (`apply.rs`) owns what it gives: `validate.rs` checks the configuration, `merge.rs` lays it
//! over the object, `prune.rs` takes out what its manager gave before and nobody gives now. `scale.rs` tells the
//! entries of an object in the terms of its Scale and back. All of it walks along the types of `shape.rs`.

mod apply;
mod compare;
mod element;
mod entry;
mod field_set;
mod last_applied;
mod merge;
mod owned;
mod prune;
mod remove;
pub mod scale;
mod shape;
mod validate;

use self::entry::Entry;
use crate::schema::{self, Precision};
use serde_json::{Value, json};

pub use self::apply::{Apply, ApplyError, Conflict, Reset, conflict_status};
pub use self::field_set::FieldSet;

/// More entries of updates than these are merged, the oldest first, into one of [`ANCIENT`].
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// The fields of `metadata` that nobody owns.
const UNOWNED_METADATA: [&str; 8] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

/// What a client may not bring along into a new object, and so does not own either.
const WIPED_ON_CREATION: [&str; 2] = ["f:deletionTimestamp", "f:deletionGracePeriodSeconds"];

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `?fieldManager=`, or the User-Agent up to the first `/`.
    pub manager: &'a str,
    /// `status`, `scale` …; empty for the main resource.
    pub subresource: &'a str,
    /// Now.
    pub time: jiff::Timestamp,
}

/// Record in `after.metadata.managedFields` what an update (create, update or patch; not apply) changed.
/// `before` is the stored object, or `None` on create. `schema` names the type.
///
/// Entries that come with `after` count, so that a client may edit them; where they are missing or make no
/// sense, those of `before` do. A single empty entry asks for all to be dropped. An object that has no
/// entries (any more) gets none by an update.
pub fn update(schema: &str, before: Option<&Value>, after: &mut Value, writer: Writer<'_>) {
    let entries = starting_entries(before, after);
    if let Some(metadata) = after["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let Some(root) = schema::find(schema) else { return };
    if before.is_some() && entries.is_empty() {
        return;
    }
    // An object that is created is compared with an empty one of its Go type: what that has is not new.
    let empty = before
        .is_none()
        .then(|| schema::decode(schema, b"{}").map(|empty| empty.value));
    let before = match (before, &empty) {
        (Some(before), _) => before,
        (None, Some(Ok(empty))) => empty,
        _ => return,
    };
    let mut difference = compare::compare(root, before, after);
    if empty.is_some() {
        difference.changed.change("f:metadata", |metadata| {
            for name in WIPED_ON_CREATION {
                metadata.remove(name);
            }
        });
    }
    let entries = take_over(entries, difference, writer, &after["apiVersion"]);
    if !entries.is_empty() {
        after["metadata"]["managedFields"] = entry::encode(merge_ancient(entries));
    }
}

fn starting_entries(before: Option<&Value>, after: &Value) -> Vec<Entry> {
    let of = |object: &Value| entry::decode(&object["metadata"]["managedFields"]);
    let given = &after["metadata"]["managedFields"];
    if *given == json!([{}]) || is_reset(given) {
        return Vec::new();
    }
    match of(after) {
        Some(entries) if !entries.is_empty() => entries,
        _ => before.and_then(of).unwrap_or_default(),
    }
}

/// A single entry with nothing in it, as a client or as Go writes it.
fn is_reset(given: &Value) -> bool {
    let Some([entry]) = given.as_array().map(Vec::as_slice) else {
        return false;
    };
    entry
        .as_object()
        .is_some_and(|entry| entry.values().all(|value| value == "" || value.is_null()))
}

/// Move what was changed to the writer's entry, and what was removed away from all.
fn take_over(
    entries: Vec<Entry>,
    difference: compare::Difference,
    writer: Writer<'_>,
    api_version: &Value,
) -> Vec<Entry> {
    let compare::Difference { mut changed, removed } = difference;
    let gone = changed.union(&removed);
    let kept = entries.into_iter().map(|entry| Entry {
        fields: entry.fields.difference(&gone),
        ..entry
    });
    let mut entries: Vec<Entry> = kept.filter(|entry| !entry.fields.is_empty()).collect();
    strip(&mut changed);
    if changed.is_empty() {
        return entries;
    }
    let mut own = Entry {
        manager: if writer.manager.is_empty() {
            "unknown"
        } else {
            writer.manager
        }
        .to_owned(),
        operation: "Update".to_owned(),
        api_version: api_version.as_str().unwrap_or_default().to_owned(),
        subresource: writer.subresource.to_owned(),
        // Upstream loses the time on the way from the Scale to its object.
        time: (writer.subresource != "scale").then(|| schema::write_time(writer.time, Precision::Seconds)),
        fields: changed,
    };
    if let Some(index) = entries.iter().position(|entry| entry.is_same_writer(&own)) {
        own.fields = own.fields.union(&entries.remove(index).fields);
    }
    entries.push(own);
    entries
}

/// Take out what nobody owns.
fn strip(fields: &mut FieldSet) {
    fields.remove("f:apiVersion");
    fields.remove("f:kind");
    fields.change("f:metadata", |metadata| {
        metadata.disown();
        for name in UNOWNED_METADATA {
            metadata.remove(name);
        }
    });
}

/// Merge the oldest updates of one version until there are no more than allowed.
fn merge_ancient(mut entries: Vec<Entry>) -> Vec<Entry> {
    let (mut updates, mut entries): (Vec<_>, Vec<_>) =
        entries.drain(..).partition(|entry| entry.operation == "Update");
    updates.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut excess = updates.len().saturating_sub(MAX_UPDATERS);
    // Of each version, the first entry that was seen; later ones are merged into it.
    let mut buckets: Vec<Entry> = Vec::new();
    for update in updates {
        match buckets
            .iter_mut()
            .find(|bucket| bucket.api_version == update.api_version)
        {
            Some(bucket) if excess > 0 => {
                bucket.fields = bucket.fields.union(&update.fields);
                bucket.manager = ANCIENT.to_owned();
                bucket.subresource = String::new();
                bucket.time = update.time;
                excess -= 1;
            }
            None if excess > 0 => buckets.push(update),
            _ => entries.push(update),
        }
    }
    entries.extend(buckets);
    entries
}

#[cfg(test)]
mod tests;
