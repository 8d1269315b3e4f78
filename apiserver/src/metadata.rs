//! The metadata that the server itself writes and checks, the same for every kind.

use crate::error::{Error, Target};
use crate::resource::Kind;
use crate::validation::metadata::{annotations, labels};
use crate::validation::{Invalid, Path, go, names};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Map, Value};

/// What generated name suffixes are made of: no vowels, so that no words come out.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many characters of `generateName` are kept.
const GENERATED_BASE: usize = 58;

/// Finalizers without a domain that are allowed.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// The object's metadata, to change it.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    object["metadata"]
        .as_object_mut()
        .expect("it was just made an object")
}

/// A text of the metadata; empty if it is not there.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// A random suffix of five characters.
pub fn suffix() -> String {
    let mut random = rand::rng();
    (0..5)
        .map(|_| char::from(SUFFIX_ALPHABET[random.random_range(0..SUFFIX_ALPHABET.len())]))
        .collect()
}

/// A name made from `generateName`.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], suffix())
}

/// Check and fill in the namespace of an object that is sent to `namespace`.
pub fn place(object: &mut Value, namespace: Option<&str>) -> Result<(), Error> {
    let Some(namespace) = namespace else {
        of(object).remove("namespace");
        return Ok(());
    };
    match text(object, "namespace") {
        "" => object["metadata"]["namespace"] = namespace.into(),
        same if same == namespace => {}
        _ => {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Error::BadRequest(why.into()));
        }
    }
    Ok(())
}

/// Check that an object in a PUT or after a PATCH has the name of the path.
pub fn check_name(object: &Value, name: &str) -> Result<(), Error> {
    match text(object, "name") {
        "" => Err(Error::BadRequest(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        same if same == name => Ok(()),
        other => Err(Error::BadRequest(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
    }
}

/// What every new object gets, and what it may not bring along.
pub fn prepare_create(kind: &dyn Kind, object: &mut Value, now: Timestamp) {
    let metadata = of(object);
    for field in [
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now.to_string().into());
    if kind.has_generation() {
        metadata.insert("generation".into(), 1.into());
    }
}

/// What an update cannot change is taken from the old object; spec changes raise the generation.
pub fn prepare_update(kind: &dyn Kind, new: &mut Value, old: &Value) {
    let before = &old["metadata"];
    let metadata = of(new);
    metadata.remove("selfLink");
    let mut restore = |field: &str| match &before[field] {
        Value::Null => {
            metadata.remove(field);
        }
        value => {
            metadata.insert(field.into(), value.clone());
        }
    };
    restore("creationTimestamp");
    restore("generation");
    restore("resourceVersion");
    for field in ["uid", "deletionGracePeriodSeconds", "generateName", "namespace"] {
        if new["metadata"][field].is_null() && !before[field].is_null() {
            new["metadata"][field] = before[field].clone();
        }
    }
    if !before["deletionTimestamp"].is_null() {
        new["metadata"]["deletionTimestamp"] = before["deletionTimestamp"].clone();
    }
    if kind.has_generation() && kind.raises_generation(new, old) {
        let generation = before["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Owner references that say the same twice are said once; the UIDs that were repeated come back.
pub fn deduplicate_owners(object: &mut Value) -> Vec<String> {
    let owners = object.pointer_mut("/metadata/ownerReferences");
    let Some(owners) = owners.and_then(Value::as_array_mut) else {
        return Vec::new();
    };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated: Vec<String> = Vec::new();
    for owner in std::mem::take(owners) {
        if kept.contains(&owner) {
            let uid = owner["uid"].as_str().unwrap_or_default().to_string();
            if !repeated.contains(&uid) {
                repeated.push(uid);
            }
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    repeated
}

/// Validation of a new object's metadata.
pub fn validate(kind: &dyn Kind, object: &Value) -> Vec<Invalid> {
    let metadata = &object["metadata"];
    let path = Path::new("metadata");
    let mut problems = Vec::new();
    let base = text(object, "generateName");
    if !base.is_empty() {
        // A prefix may end as no name may.
        let masked = format!("{}a", base.trim_end_matches('-'));
        let messages = kind.validate_name(&masked);
        problems.extend(Invalid::each(path.child("generateName"), base, messages));
    }
    match text(object, "name") {
        "" => problems.push(Invalid::required(
            path.child("name"),
            "name or generateName is required",
        )),
        name => problems.extend(Invalid::each(path.child("name"), name, kind.validate_name(name))),
    }
    problems.extend(labels(&metadata["labels"], &path.child("labels")));
    problems.extend(annotations(&metadata["annotations"], &path.child("annotations")));
    problems.extend(owners(
        &metadata["ownerReferences"],
        &path.child("ownerReferences"),
    ));
    problems.extend(finalizer_names(object));
    problems
}

/// Validation of a changed object's metadata.
pub fn validate_update(new: &Value, old: &Value) -> Vec<Invalid> {
    let (metadata, before) = (&new["metadata"], &old["metadata"]);
    let path = Path::new("metadata");
    let mut problems = Vec::new();
    if is_deleting(old) {
        let had = finalizers(old);
        let added: Vec<String> = finalizers(new)
            .into_iter()
            .filter(|name| !had.contains(name))
            .map(go::quote)
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            problems.push(Invalid::forbidden(path.child("finalizers"), detail));
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if metadata[field] != before[field] {
            let value = metadata[field].clone();
            problems.push(Invalid::malformed(path.child(field), value, "field is immutable"));
        }
    }
    problems.extend(labels(&metadata["labels"], &path.child("labels")));
    problems.extend(annotations(&metadata["annotations"], &path.child("annotations")));
    problems.extend(owners(
        &metadata["ownerReferences"],
        &path.child("ownerReferences"),
    ));
    problems.extend(finalizer_names(new));
    problems
}

fn owners(owners: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let list = || owners.as_array().into_iter().flatten();
    for (i, owner) in list().enumerate() {
        let path = path.index(i);
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        let api_version = text("apiVersion");
        if api_version.is_empty() || api_version.matches('/').count() > 1 {
            let detail = "version must not be empty";
            problems.push(Invalid::malformed(path.child("apiVersion"), api_version, detail));
        }
        if text("kind").is_empty() {
            problems.push(Invalid::malformed(path.child("kind"), "", "must not be empty"));
        }
        if text("name").is_empty() {
            problems.push(Invalid::malformed(path.child("name"), "", "must not be empty"));
        }
        if text("uid").is_empty() {
            problems.push(Invalid::malformed(path.child("uid"), "", "must not be empty"));
        }
    }
    let controllers: Vec<String> = list()
        .filter(|owner| owner["controller"] == true)
        .map(|owner| {
            let text = |field: &str| owner[field].as_str().unwrap_or_default();
            format!("{}/{}", text("kind"), text("name"))
        })
        .collect();
    if let [first, second, ..] = controllers.as_slice() {
        let fields = [
            "apiVersion",
            "kind",
            "name",
            "uid",
            "controller",
            "blockOwnerDeletion",
        ];
        problems.push(Invalid::malformed_text(
            path.to_string(),
            go::ordered(owners, &fields),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
            ),
        ));
    }
    problems
}

fn finalizer_names(object: &Value) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let list = finalizers(object);
    for (i, name) in list.iter().enumerate() {
        let path = Path::new("metadata").child("finalizers").index(i);
        let messages = names::qualified_name(name);
        if !messages.is_empty() {
            problems.extend(Invalid::each(path, name, messages));
        } else if !name.contains('/') && !STANDARD_FINALIZERS.contains(name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            problems.push(Invalid::malformed(path, *name, detail));
        }
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        let path = Path::new("metadata").child("finalizers");
        let printed = list
            .iter()
            .map(|name| go::quote(name))
            .collect::<Vec<_>>()
            .join(",");
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        problems.push(Invalid::malformed_text(path, format!("[{printed}]"), detail));
    }
    problems
}

/// The error for a list of problems, or none.
pub fn refuse(target: Target, problems: Vec<Invalid>) -> Result<(), Error> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid(target, problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_generated_name_is_cut_so_that_it_stays_a_label() {
        let name = generate_name(&"x".repeat(100));
        assert_eq!(name.len(), 63);
        let tail = &name[58..];
        assert!(tail.bytes().all(|byte| SUFFIX_ALPHABET.contains(&byte)), "{tail}");
    }

    #[test]
    fn an_owner_named_twice_is_kept_once() {
        let owner = json!({"uid": "u", "name": "a"});
        let mut object = json!({"metadata": {"ownerReferences": [owner, owner]}});
        assert_eq!(deduplicate_owners(&mut object), ["u"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([owner]));
    }

    #[test]
    fn an_object_being_deleted_takes_no_new_finalizers() {
        let old =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x.io/a"]}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["x.io/a", "x.io/b"]);
        let problems = validate_update(&new, &old);
        assert_eq!(
            problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/b\"}"
            ]
        );
        new["metadata"]["finalizers"] = Value::Null;
        assert_eq!(validate_update(&new, &old), []);
    }
}
