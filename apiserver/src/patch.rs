//! JSON patch, merge patch and strategic merge patch, as upstream applies them and words their errors.

mod json;
mod merge;
mod strategic;

use crate::schema::{self, Decoded, Document, FieldValidation, Words, go_json, go_print};
use serde_json::{Value, json};

/// The three patches of RFC 6902, RFC 7386 and Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    StrategicMerge,
}

/// Why a patch was refused, with upstream's whole message.
#[derive(Clone, Debug, PartialEq)]
pub enum PatchError {
    /// 400 BadRequest.
    BadRequest(String),
    /// 422 Invalid without a kind: the whole Status.
    Unprocessable(Value),
    /// 413, a JSON patch with too many operations or too large a result.
    TooLarge(String),
    /// 500 with this message.
    Internal(String),
}

impl PatchError {
    /// What upstream answers to a well-formed patch that cannot be applied; it keeps the reason to itself.
    fn rejected() -> Self {
        Self::unprocessable(
            "the server rejected our request due to an error in our request",
            &json!({}),
        )
    }

    /// A result that is no object of its kind; `shown` is what upstream shows as the patch.
    fn invalid(shown: &str, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", Value::from(shown));
        let cause = json!({"reason": "FieldValueInvalid", "message": message, "field": "patch"});
        Self::unprocessable(
            &format!(" \"\" is invalid: patch: {message}"),
            &json!({"causes": [cause]}),
        )
    }

    fn unprocessable(message: &str, details: &Value) -> Self {
        Self::Unprocessable(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "Invalid",
            "details": details,
            "code": 422,
        }))
    }
}

/// Apply `patch` to `object` and decode the result against `schema`; strict messages (unknown fields of the
/// result, fields given twice in the patch) come back for the caller to warn about, or, with
/// [`FieldValidation::Strict`], are the error.
pub fn apply(
    schema: &str,
    object: &Value,
    patch_type: PatchType,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, PatchError> {
    match patch_type {
        PatchType::Json => {
            let patch = json::parse(patch)?;
            let patched = json::apply(object, &patch.operations)?;
            let metadata_sorted = patch.touches("metadata");
            finish(
                schema,
                &patched,
                &go_json(&patched, metadata_sorted),
                Words::Json,
                patch.strict,
                validation,
            )
        }
        PatchType::Merge => {
            let (patch, strict) = merge::parse(patch)?;
            let mut patched = object.clone();
            merge::apply(&mut patched, &patch);
            let metadata_sorted = patch["metadata"].is_object();
            finish(
                schema,
                &patched,
                &go_json(&patched, metadata_sorted),
                Words::Json,
                strict,
                validation,
            )
        }
        PatchType::StrategicMerge => {
            let (patch, strict) = strategic::parse(patch)?;
            let patched = strategic::apply(schema, object, &patch)?;
            finish(
                schema,
                &patched,
                &go_print(&patch),
                Words::Converter,
                strict,
                validation,
            )
        }
    }
}

/// Decode `patched`; `strict` is what the patch itself did wrong.
fn finish(
    schema: &str,
    patched: &Value,
    shown: &str,
    words: Words,
    mut strict: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, PatchError> {
    let document = Document::from_value(patched);
    // A text with another kind is read as that kind, and is not what was asked for even if it can be.
    if words == Words::Json
        && let Some(other) = schema::schema_of_other_kind(schema, patched)
    {
        let refused = match schema::decode_document(other, &document, words) {
            Err(error) => error,
            Ok(_) => format!(
                "unable to decode {}, Kind={} into *{}",
                patched["apiVersion"].as_str().unwrap_or_default(),
                patched["kind"].as_str().unwrap_or_default(),
                schema
                    .rsplitn(3, '.')
                    .collect::<Vec<_>>()
                    .iter()
                    .take(2)
                    .rev()
                    .copied()
                    .collect::<Vec<_>>()
                    .join(".")
            ),
        };
        return Err(PatchError::invalid(shown, &refused));
    }
    let decoded = schema::decode_document(schema, &document, words)
        .map_err(|error| PatchError::invalid(shown, &error))?;
    strict.extend(decoded.strict);
    if validation == FieldValidation::Strict && !strict.is_empty() {
        return Err(PatchError::invalid(
            shown,
            &format!("strict decoding error: {}", strict.join(", ")),
        ));
    }
    Ok(Decoded {
        value: decoded.value,
        strict,
    })
}

/// A patch that must be a map, and the fields it gives twice.
fn parse_map(patch: &[u8]) -> Result<(Value, Vec<String>), String> {
    let document = Document::parse(patch)?;
    match document {
        Document::Object(_) => Ok((document.to_value(), document.duplicates())),
        other => Err(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.kind()
        )),
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
