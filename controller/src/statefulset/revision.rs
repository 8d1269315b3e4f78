//! A set's history: every template a set has had is kept in a ControllerRevision, named by a hash of its bytes.
//!
//! Names and bytes are upstream's own, so that sets, pods and revisions can move between petset and Kubernetes.

use super::action::Action;
use super::identity::{controller_of, owner_reference};
use super::observed::Observed;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::core::SelectorExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The longest part of the set's name that a revision's name takes over, in bytes.
const NAME_PREFIX: usize = 223;

/// A template that pods are made from, under the name of its revision.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The ControllerRevision's name: what pods carry in `controller-revision-hash`.
    pub name: String,
    /// What its pods look like.
    pub template: PodTemplateSpec,
}

/// Which revisions a set is at, and what has to be written for it to be so.
#[derive(Clone, Debug)]
pub struct History {
    /// What the set was rolled out to last.
    pub current: Revision,
    /// What its template says now.
    pub update: Revision,
    /// How many names were found taken by other templates.
    pub collision_count: i32,
    /// Revisions without an owner that become ours.
    pub adopt: Vec<Action>,
    /// The revision to create or to renumber.
    pub write: Option<Action>,
    /// Every listed revision, the oldest first.
    listed: Vec<Arc<ControllerRevision>>,
}

/// What a revision with this template holds: a strategic merge patch that puts the template back (R13).
pub fn data(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision's data puts back (R20).
fn template(data: &Value) -> Result<PodTemplateSpec, serde_json::Error> {
    let mut template = data["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    serde_json::from_value(template)
}

/// Find the revision of the set's present template, or what is to be written for there to be one, and the
/// revision that the set is coming from (R12, R15–R18).
pub fn history(observed: &Observed) -> History {
    let set = &observed.set;
    let listed = listed(observed);
    let adopt = listed
        .iter()
        .filter(|r| controller_of(&***r).is_none() && set.metadata.deletion_timestamp.is_none());
    let adopt = adopt.map(|r| Action::AdoptRevision(r.clone())).collect();

    let wanted = go_json(&observed.data);
    let next = listed.last().map_or(1, |newest| newest.revision + 1);
    let mut collision_count = set
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let is_same = |r: &Arc<ControllerRevision>| {
        observed.same_template.as_ref() == r.metadata.name.as_ref() && r.metadata.name.is_some()
    };
    let equal = match listed.last() {
        Some(newest) if is_same(newest) => Some(listed.len() - 1),
        _ => listed.iter().rposition(|r| bytes(r) == wanted),
    };
    let (name, write) = match equal {
        Some(newest) if newest + 1 == listed.len() => (listed[newest].name_any(), None),
        // A rollback: the old object gets the highest number (R16).
        Some(older) => {
            let older = &listed[older];
            let renumber = Action::RenumberRevision {
                name: older.name_any(),
                resource_version: older.resource_version(),
                revision: next,
            };
            (older.name_any(), Some(renumber))
        }
        None => new_revision(observed, &wanted, next, &mut collision_count),
    };
    let update = Revision {
        name,
        template: observed.template.clone(),
    };
    let current = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    let current = listed.iter().find(|r| Some(r.name_any().as_str()) == current);
    // A revision that holds no template cannot be what pods were made from.
    let current = current.and_then(|revision| {
        Some(Revision {
            name: revision.name_any(),
            template: template(&revision.data.as_ref()?.0).ok()?,
        })
    });
    History {
        current: current.unwrap_or_else(|| update.clone()),
        update,
        collision_count,
        adopt,
        write,
        listed,
    }
}

/// The revisions that are the set's or nobody's, the oldest first (R12, R15).
fn listed(observed: &Observed) -> Vec<Arc<ControllerRevision>> {
    let candidates = observed.revisions.iter().filter(|r| is_candidate(observed, r));
    let mut listed: Vec<_> = candidates.cloned().collect();
    listed.sort_by_cached_key(|r| {
        (
            r.revision,
            r.creation_timestamp().map(|time| time.0),
            r.name_any(),
        )
    });
    listed
}

/// The set's newest revision, if it holds another template than the present one.
pub fn newest_of_another_template(observed: &Observed) -> Option<Arc<ControllerRevision>> {
    let newest = listed(observed).pop()?;
    let is_same = newest.data.as_ref().is_some_and(|data| data.0 == observed.data);
    (!is_same).then_some(newest)
}

/// A new revision under a name that is free, or the revision with these bytes that has the name already (R17).
fn new_revision(
    observed: &Observed,
    wanted: &str,
    number: i64,
    collision_count: &mut i32,
) -> (String, Option<Action>) {
    let set = &observed.set;
    loop {
        let hash = hash(wanted, *collision_count);
        let name = name(&set.name_any(), &hash);
        match observed.revisions.iter().find(|r| r.name_any() == name) {
            Some(taken) if bytes(taken) == wanted => return (name, None),
            Some(_) => *collision_count = collision_count.saturating_add(1),
            None => {
                let mut labels = observed
                    .template
                    .metadata
                    .clone()
                    .unwrap_or_default()
                    .labels
                    .unwrap_or_default();
                labels.insert(HASH_LABEL.into(), hash);
                let revision = ControllerRevision {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        namespace: set.namespace(),
                        labels: Some(labels),
                        annotations: set.metadata.annotations.clone(),
                        owner_references: Some(vec![owner_reference(set)]),
                        ..ObjectMeta::default()
                    },
                    data: Some(RawExtension(observed.data.clone())),
                    revision: number,
                };
                return (name, Some(Action::CreateRevision(Box::new(revision))));
            }
        }
    }
}

impl History {
    /// The oldest revisions that nothing uses, as far as they exceed the limit (R19).
    pub fn excess(&self, limit: i32, used_by_pods: &BTreeSet<String>) -> Vec<Action> {
        let Ok(limit) = usize::try_from(limit) else {
            return vec![];
        };
        let is_live = |name: &String| {
            *name == self.current.name || *name == self.update.name || used_by_pods.contains(name)
        };
        let idle: Vec<_> = self.listed.iter().filter(|r| !is_live(&r.name_any())).collect();
        let excess = idle.len().saturating_sub(limit);
        let excess = idle.into_iter().take(excess);
        excess
            .map(|r| Action::DeleteRevision {
                name: r.name_any(),
                uid: r.uid().unwrap_or_default(),
            })
            .collect()
    }
}

/// Whether a revision is the set's, or nobody's and fits the selector.
fn is_candidate(observed: &Observed, revision: &ControllerRevision) -> bool {
    observed.selector.matches(revision.labels())
        && controller_of(revision).is_none_or(|owner| Some(&owner.uid) == observed.set.metadata.uid.as_ref())
}

fn bytes(revision: &ControllerRevision) -> String {
    revision
        .data
        .as_ref()
        .map(|data| go_json(&data.0))
        .unwrap_or_default()
}

fn name(set: &str, hash: &str) -> String {
    let mut end = set.len().min(NAME_PREFIX);
    while !set.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &set[..end])
}

/// FNV-1 (not 1a) over the bytes and the collision count in decimal, its decimal digits written in letters that
/// spell no words (R14).
fn hash(data: &str, collision_count: i32) -> String {
    let count = collision_count.to_string();
    let hash = data
        .bytes()
        .chain(count.bytes())
        .fold(2_166_136_261_u32, |hash, byte| {
            hash.wrapping_mul(16_777_619) ^ u32::from(byte)
        });
    let safe = |digit: char| match digit {
        '0'..='5' => char::from(digit as u8 + 4),
        '6' => 'b',
        '7' => 'c',
        '8' => 'd',
        _ => 'f',
    };
    hash.to_string().chars().map(safe).collect()
}

/// JSON as Go's encoder writes a `map[string]any`: keys sorted, no spaces, `<`, `>` and `&` escaped, every number
/// a float64.
fn go_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(float) => write_float(out, float),
            None => out.push_str(&number.to_string()),
        },
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            // Not left to the map: whether it keeps insertion order is decided by features far from here.
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, key);
                out.push(':');
                write_value(out, field);
            }
            out.push('}');
        }
    }
}

/// Go writes floats in full between 1e-6 and 1e21 and with an exponent elsewhere.
fn write_float(out: &mut String, float: f64) {
    let size = float.abs();
    let text = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{float:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        }
    } else {
        float.to_string()
    };
    out.push_str(&text);
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template of upstream's compatibility fixtures, as the API has stored it.
    fn fixture(with_creation_timestamp: bool) -> Value {
        let mut template = json!({
            "metadata": {"annotations": {"test": "value"}, "labels": {"app": "foo"}},
            "spec": {
                "terminationGracePeriodSeconds": 30, "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "schedulerName": "default-scheduler", "securityContext": {},
                "containers": [{"name": "test", "image": "test", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            },
        });
        if with_creation_timestamp {
            template["metadata"]["creationTimestamp"] = Value::Null;
        }
        template
    }

    #[test]
    fn revisions_are_named_as_upstream_names_them() {
        for (with_creation_timestamp, expected) in [(true, "c77f6d978"), (false, "776999688b")] {
            let bytes = go_json(&data(&fixture(with_creation_timestamp)));
            assert_eq!(hash(&bytes, 0), expected);
        }
    }

    #[test]
    fn a_collision_changes_the_name() {
        let bytes = go_json(&data(&fixture(false)));
        assert_ne!(hash(&bytes, 0), hash(&bytes, 1));
    }

    #[test]
    fn a_long_set_name_is_cut_between_characters() {
        assert_eq!(name("web", "h"), "web-h");
        assert_eq!(name(&"a".repeat(300), "h").len(), NAME_PREFIX + 2);
        assert_eq!(name(&"é".repeat(300), "h").len(), NAME_PREFIX - 1 + 2);
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let cases = [
            (
                json!({"b": 1, "a": [true, null, "x"]}),
                r#"{"a":[true,null,"x"],"b":1}"#,
            ),
            (
                json!("1 < 2 & \"x\" é\\\u{2028}\t\n\u{1}\u{7f}"),
                "\"1 \\u003c 2 \\u0026 \\\"x\\\" é\\\\\\u2028\\t\\n\\u0001\u{7f}\"",
            ),
            (json!(9_007_199_254_740_993_i64), "9007199254740992"),
            (
                json!([0, -5, 1.5, 1e21, 2e-7, 123_456_789_012_i64]),
                "[0,-5,1.5,1e+21,2e-7,123456789012]",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(go_json(&value), expected);
        }
    }
}
