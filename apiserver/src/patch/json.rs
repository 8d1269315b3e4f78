//! JSON patch (RFC 6902), with the liberties of the library that upstream uses: negative indices count from
//! the end of a list, and `test` takes what is absent for null.

use super::PatchError;
use crate::schema::Document;
use serde_json::Value;

/// Upstream's limit.
const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations together may add, in bytes of JSON: upstream's limit of a request body.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// One operation; absent texts are empty.
#[derive(Debug, Default)]
pub(super) struct Operation {
    op: String,
    path: String,
    from: String,
    value: Option<Value>,
}

/// A parsed patch.
#[derive(Debug)]
pub(super) struct Patch {
    pub operations: Vec<Operation>,
    /// What it gives twice or what is unknown in it, in upstream's words.
    pub strict: Vec<String>,
}

impl Patch {
    /// Whether any operation looks into the field `name` of the object.
    pub(super) fn touches(&self, name: &str) -> bool {
        let inside = |path: &str| {
            path.strip_prefix('/')
                .is_some_and(|path| path.split('/').next() == Some(name))
        };
        self.operations
            .iter()
            .any(|operation| inside(&operation.path) || inside(&operation.from))
    }
}

/// Parse a patch.
pub(super) fn parse(patch: &[u8]) -> Result<Patch, PatchError> {
    let refused = |error: String| PatchError::BadRequest(format!("error decoding patch: {error}"));
    let document = Document::parse(patch).map_err(refused)?;
    let mut strict = document.duplicates();
    let Document::Array(items) = document else {
        let kind = document.kind();
        return Err(refused(format!(
            "json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if items.len() > MAX_OPERATIONS {
        let given = items.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {given}"
        )));
    }
    let mut operations = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let fields = match item {
            Document::Object(fields) => fields,
            other => {
                let kind = other.kind();
                return Err(refused(format!(
                    "json: cannot unmarshal {kind} into Go value of type handlers.jsonPatchOp"
                )));
            }
        };
        let mut operation = Operation::default();
        for (name, value) in fields {
            let text = || match value {
                Document::String(text) => Ok(text.clone().into_owned()),
                Document::Null => Ok(String::new()),
                other => Err(refused(format!(
                    "json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
                    other.kind()
                ))),
            };
            match name.as_ref() {
                "op" => operation.op = text()?,
                "path" => operation.path = text()?,
                "from" => operation.from = text()?,
                "value" => operation.value = Some(value.to_value()),
                _ => strict.push(format!("unknown field {:?}", format!("[{index}].{name}"))),
            }
        }
        operations.push(operation);
    }
    let strict = strict
        .into_iter()
        .map(|error| format!("json patch {error}"))
        .collect();
    Ok(Patch { operations, strict })
}

/// Apply all operations, or none.
pub(super) fn apply(object: &Value, operations: &[Operation]) -> Result<Value, PatchError> {
    let mut patched = object.clone();
    let mut copied = 0;
    for operation in operations {
        apply_one(&mut patched, operation, &mut copied).ok_or_else(PatchError::rejected)?;
        if copied > MAX_COPIED {
            return Err(PatchError::TooLarge(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
            )));
        }
    }
    Ok(patched)
}

/// `None` if it cannot be applied.
fn apply_one(object: &mut Value, operation: &Operation, copied: &mut usize) -> Option<()> {
    let value = || operation.value.clone().unwrap_or(Value::Null);
    match operation.op.as_str() {
        "add" => add(object, &operation.path, value()),
        "remove" => remove(object, &operation.path).map(drop),
        "replace" => {
            *find_mut(object, &operation.path)? = value();
            Some(())
        }
        "move" => {
            let moved = remove(object, &operation.from)?;
            add(object, &operation.path, moved)
        }
        "copy" => {
            let copy = find(object, &operation.from)?.clone();
            *copied += copy.to_string().len();
            add(object, &operation.path, copy)
        }
        "test" => {
            let (parent, _) = split(&operation.path).unwrap_or_default();
            find(object, parent)?;
            let found = find(object, &operation.path).unwrap_or(&Value::Null);
            (*found == value()).then_some(())
        }
        _ => None,
    }
}

/// A pointer as the pointer to its parent and its last step; `None` for the whole object.
fn split(pointer: &str) -> Option<(&str, String)> {
    let (parent, last) = pointer.rsplit_once('/')?;
    Some((parent, unescape(last)))
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn steps(pointer: &str) -> Option<impl Iterator<Item = String>> {
    let rest = match pointer {
        "" => None,
        pointer => Some(pointer.strip_prefix('/')?),
    };
    Some(rest.into_iter().flat_map(|rest| rest.split('/').map(unescape)))
}

/// The index that a step names in a list of `length`.
fn index(step: &str, length: usize) -> Option<usize> {
    let index: i64 = step.parse().ok()?;
    let index = if index < 0 {
        index + i64::try_from(length).ok()?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn find<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    steps(pointer)?.try_fold(object, |value, step| match value {
        Value::Object(fields) => fields.get(&step),
        Value::Array(items) => items.get(index(&step, items.len())?),
        _ => None,
    })
}

fn find_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    steps(pointer)?.try_fold(object, |value, step| match value {
        Value::Object(fields) => fields.get_mut(&step),
        Value::Array(items) => {
            let index = index(&step, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    })
}

fn add(object: &mut Value, pointer: &str, value: Value) -> Option<()> {
    let (parent, last) = split(pointer)?;
    match find_mut(object, parent)? {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        // An index may also be the place after the last item.
        Value::Array(items) => items.insert(index(&last, items.len() + 1)?, value),
        _ => return None,
    }
    Some(())
}

fn remove(object: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, last) = split(pointer)?;
    match find_mut(object, parent)? {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => Some(items.remove(index(&last, items.len())?)),
        _ => None,
    }
}
