//! The entries of an object in the terms of its Scale: who owns the replicas, and nothing else.

use super::FieldSet;
use super::entry::{self, Entry};
use serde_json::{Value, json};

const API_VERSION: &str = "autoscaling/v1";

/// `spec.replicas`, in the object as in its Scale.
fn replicas() -> FieldSet {
    let fields = json!({"f:spec": {"f:replicas": {}}});
    FieldSet::decode(&fields).expect("it is written as field sets are")
}

fn has_replicas(entry: &Entry) -> bool {
    !entry.fields.intersection(&replicas()).is_empty()
}

/// The `managedFields` of a Scale, from those of its object.
pub fn to_scale(object: &Value) -> Value {
    let entries = entry::decode(object).unwrap_or_default();
    let owners = entries.into_iter().filter(has_replicas).map(|entry| Entry {
        api_version: API_VERSION.to_owned(),
        fields: replicas(),
        ..entry
    });
    entry::encode(owners.collect())
}

/// The `managedFields` of an object in `api_version`, from those that it had and those that its Scale has now: who
/// is in both keeps the replicas, who is only in the object's loses them, and who is only in the Scale's gets
/// them, without a time as upstream has it.
pub fn to_object(object: &Value, scale: &Value, api_version: &str) -> Value {
    let mut owners = entry::decode(scale).unwrap_or_default();
    owners.retain(has_replicas);
    let mut entries = Vec::new();
    for mut entry in entry::decode(object).unwrap_or_default() {
        if has_replicas(&entry) {
            let same = |owner: &Entry| {
                (&owner.manager, &owner.operation, &owner.subresource)
                    == (&entry.manager, &entry.operation, &entry.subresource)
            };
            match owners.iter().position(same) {
                Some(owner) => drop(owners.remove(owner)),
                None => entry.fields = entry.fields.difference(&replicas()),
            }
        }
        if !entry.fields.is_empty() {
            entries.push(entry);
        }
    }
    entries.extend(owners.into_iter().map(|owner| Entry {
        api_version: api_version.to_owned(),
        time: None,
        fields: replicas(),
        ..owner
    }));
    entry::encode(entries)
}
