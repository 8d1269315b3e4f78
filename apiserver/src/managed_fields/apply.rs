//! Server-side apply: an object and a configuration, merged by who owns what.

use super::compare::compare;
use super::entry::{self, Entry};
use super::merge::merge;
use super::owned::owned;
use super::prune::prune;
use super::shape::Type;
use super::{FieldSet, Writer, last_applied, strip, take_over, validate};
use crate::schema::{self, Document, Node, Precision, Struct, Words};
use serde_json::{Value, json};

/// Who owns the fields of an object without entries when it is first applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// An apply of `config` to `live`.
#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    /// The name of the objects' type.
    pub schema: &'a str,
    /// The object as it is, with its entries and its type; without a UID if there is none yet.
    pub live: &'a Value,
    /// The configuration as it was sent.
    pub config: &'a Value,
    /// Who applies it.
    pub writer: Writer<'a>,
    /// Take fields from others instead of failing.
    pub force: bool,
    /// What may not be written here, and is not owned then either.
    pub reset: Reset,
}

/// The fields that a write through a subresource (or the main resource) leaves as they are.
#[derive(Clone, Copy, Debug)]
pub enum Reset {
    /// All at and below these paths.
    These(&'static [&'static [&'static str]]),
    /// All but what is at and below these paths; `*` stands for any element.
    AllBut(&'static [&'static [&'static str]]),
}

impl Reset {
    fn filter(self, mut fields: FieldSet) -> FieldSet {
        match self {
            Reset::These(paths) => {
                paths.iter().for_each(|path| fields.exclude(path));
                fields
            }
            Reset::AllBut(paths) => paths
                .iter()
                .fold(FieldSet::default(), |all, path| all.union(&fields.only(path))),
        }
    }
}

/// The fields that one other manager owns and an apply would change.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Who, as messages name it: `"editor" using v1`.
    pub manager: String,
    /// What.
    pub fields: FieldSet,
}

/// Why an apply was not done.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// 400: the configuration may not be applied at all.
    BadRequest(String),
    /// 500 with this message, which is upstream's answer to a configuration that is not of its type.
    Untyped(String),
    /// 409: others own what it changes.
    Conflicts(Vec<Conflict>),
}

impl Apply<'_> {
    /// The object that comes out, with its entries. An apply that changes nothing leaves all times as they are.
    pub fn run(&self) -> Result<Value, ApplyError> {
        if !self.config["metadata"]["managedFields"].is_null() {
            let why = "metadata.managedFields must be nil";
            return Err(ApplyError::BadRequest(why.to_owned()));
        }
        let Some(root) = schema::find(self.schema) else {
            let why = format!("no kind with the schema {:?} is known", self.schema);
            return Err(ApplyError::Untyped(why));
        };
        let node = Node::Struct(root);
        validate::validate(Type::of(&node), self.config).map_err(|why| {
            let object = described(self.config);
            ApplyError::Untyped(format!("failed to create typed patch object ({object}): {why}"))
        })?;
        let mut live = self.live.clone();
        if let Some(metadata) = live["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let entries = self.entries(root, &live);
        let is_kubectl = self.writer.manager == last_applied::MANAGER;
        let merged = match self.merge(root, &live, &entries, self.force) {
            Err(conflicts) if is_kubectl => {
                let allowed = last_applied::owned_by_annotation(root, &live);
                let left = conflicts.into_iter().map(|conflict| Conflict {
                    fields: conflict.fields.difference(&allowed),
                    ..conflict
                });
                let left: Vec<Conflict> = left.filter(|conflict| !conflict.fields.is_empty()).collect();
                if left.is_empty() {
                    self.merge(root, &live, &entries, true)
                } else {
                    Err(left)
                }
            }
            merged => merged,
        };
        let (merged, entries) = merged.map_err(ApplyError::Conflicts)?;
        let mut applied = if merged == live {
            live
        } else {
            self.typed(&merged)?
        };
        if is_kubectl {
            last_applied::keep(&mut applied, self.config);
        }
        if !entries.is_empty() {
            applied["metadata"]["managedFields"] = entry::encode(entries);
        }
        Ok(applied)
    }

    /// The entries of the object; one that has none was written by somebody before.
    fn entries(&self, root: &'static Struct, live: &Value) -> Vec<Entry> {
        let entries = entry::decode(&self.live["metadata"]["managedFields"]).unwrap_or_default();
        let exists = live["metadata"]["uid"].is_string();
        if !entries.is_empty() || !exists {
            return entries;
        }
        let Ok(empty) = schema::decode(self.schema, b"{}") else {
            return entries;
        };
        let mut difference = compare(root, &empty.value, live);
        difference.changed = self.reset.filter(difference.changed);
        let writer = Writer {
            manager: BEFORE_FIRST_APPLY,
            ..self.writer
        };
        take_over(entries, difference, writer, &live["apiVersion"])
    }

    /// The merged object and its entries, or who else owns what would change.
    fn merge(
        &self,
        root: &'static Struct,
        live: &Value,
        entries: &[Entry],
        force: bool,
    ) -> Result<(Value, Vec<Entry>), Vec<Conflict>> {
        let node = Node::Struct(root);
        let of = Type::of(&node);
        let mut own = Entry {
            manager: self.writer.manager.to_owned(),
            operation: "Apply".to_owned(),
            api_version: live["apiVersion"].as_str().unwrap_or_default().to_owned(),
            subresource: self.writer.subresource.to_owned(),
            time: None,
            fields: self.reset.filter(owned(of, self.config)),
        };
        let (last, others): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| entry.is_same_writer(&own));
        let mut merged = merge(of, live, self.config);
        if let Some(last) = last.first().filter(|last| !last.fields.is_empty()) {
            let managed = others
                .iter()
                .fold(own.fields.clone(), |all, other| all.union(&other.fields));
            merged = prune(of, &merged, &last.fields, &managed);
        }
        let difference = compare(root, live, &merged);
        let changed = self.reset.filter(difference.changed);
        let removed = self.reset.filter(difference.removed);
        let mut conflicts = conflicts(&others, &changed);
        if !force && !conflicts.is_empty() {
            conflicts.sort_by(|a, b| a.0.cmp(&b.0));
            return Err(conflicts.into_iter().map(|(_, conflict)| conflict).collect());
        }
        let gone = changed.union(&removed);
        let kept = others.into_iter().map(|other| Entry {
            fields: other.fields.difference(&gone),
            ..other.clone()
        });
        let mut entries: Vec<Entry> = kept.filter(|entry| !entry.fields.is_empty()).collect();
        strip(&mut own.fields);
        if !own.fields.is_empty() {
            own.time = if merged == *live {
                last.first().and_then(|last| last.time.clone())
            } else {
                Some(schema::write_time(self.writer.time, Precision::Seconds))
            };
            entries.push(own);
        }
        Ok((merged, entries))
    }

    /// A merged object as Go would hold it.
    fn typed(&self, merged: &Value) -> Result<Value, ApplyError> {
        let document = Document::from_value(merged);
        let decoded = schema::decode_document(self.schema, &document, Words::Converter);
        let mut typed = decoded.map_err(|why| {
            let kind = group_version_kind(self.config);
            ApplyError::Untyped(format!(
                "failed to convert new object ({}) to proper version: unable to convert unstructured object to {kind}: {why}",
                described(self.config)
            ))
        })?;
        for field in ["apiVersion", "kind"] {
            typed.value[field] = self.live[field].clone();
        }
        Ok(typed.value)
    }
}

/// Of each other entry what is in `changed`, with what messages are sorted by.
fn conflicts(others: &[&Entry], changed: &FieldSet) -> Vec<((String, String), Conflict)> {
    let conflicts = others.iter().map(|other| {
        let conflict = Conflict {
            manager: other.describe(),
            fields: other.fields.intersection(changed),
        };
        let order = (
            other.manager.clone(),
            other.operation.clone() + &other.api_version + &other.subresource,
        );
        (order, conflict)
    });
    conflicts
        .filter(|(_, conflict)| !conflict.fields.is_empty())
        .collect()
}

/// The group, version and kind that an object says it is of, as messages name them: `apps/v1, Kind=StatefulSet`.
pub(super) fn group_version_kind(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        (version, _) if version.matches('/').count() > 1 => "/, Kind=".to_owned(),
        (version, kind) if version.contains('/') => format!("{version}, Kind={kind}"),
        (version, kind) => format!("/{version}, Kind={kind}"),
    }
}

/// An object's namespace, name and kind: `ns/web; apps/v1, Kind=StatefulSet`.
fn described(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!(
        "{}/{}; {}",
        text("namespace"),
        text("name"),
        group_version_kind(object)
    )
}

impl ApplyError {
    /// The error if the configuration does not say that it is of `kind` in `api_version`.
    pub fn check_type(config: &Value, api_version: &str, kind: &str) -> Result<(), Self> {
        if config["apiVersion"] == api_version && config["kind"] == kind {
            return Ok(());
        }
        let given = group_version_kind(config);
        Err(Self::BadRequest(format!("invalid object type: {given}")))
    }
}

/// The Status of conflicts: who owns which fields.
pub fn conflict_status(conflicts: &[Conflict]) -> Value {
    let all: Vec<(&str, String)> = conflicts
        .iter()
        .flat_map(|conflict| {
            let paths = conflict.fields.paths().into_iter();
            paths.map(|path| (conflict.manager.as_str(), path))
        })
        .collect();
    let message = match all.as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        _ => {
            let mut lines = Vec::new();
            for conflict in conflicts {
                lines.push(format!("conflicts with {}:", conflict.manager));
                lines.extend(conflict.fields.paths().iter().map(|path| format!("- {path}")));
            }
            format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
        }
    };
    let causes: Vec<Value> = all
        .into_iter()
        .map(|(manager, field)| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
        })
        .collect();
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "Conflict",
        "details": {"causes": causes},
        "code": 409,
    })
}

#[cfg(test)]
mod tests;
