//! PATCH: JSON, merge and strategic merge patches of an object; applies go on to `apply.rs`.

use super::apply;
use super::update::{MODIFIED, Outcome, Part, Write};
use crate::body;
use crate::call::Call;
use crate::error::Error;
use crate::options::WriteOptions;
use crate::patch::{self, PatchError, PatchType};
use crate::schema::{Decoded, FieldValidation};
use crate::{metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

/// How often a patch is applied anew because others were quicker.
pub const ATTEMPTS: usize = 100;

/// Apply the patch in the body.
pub async fn patch(call: &Call, body: Body, part: Part) -> Result<Response, Error> {
    if apply::is_apply(call) {
        return apply::apply(call, body, part).await;
    }
    let patch_type = patch_type(call)?;
    let patch = body::read(body).await?;
    let options = WriteOptions::parse("PatchOptions", &call.query)?;
    let key = call.key();
    for _ in 0..ATTEMPTS {
        let entry = call.server.store.get(&key).await?;
        let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
        let old = stored::decode(call.kind, &entry);
        let schema = call.kind.names().schema;
        let mut new = patched(call, schema, &old, patch_type, &patch, options.validation)?;
        call.kind.set_defaults(&mut new);
        metadata::check_name(&new, call.name())?;
        metadata::place(&mut new, call.namespace())?;
        super::update::check_preconditions(call, &new, &old)?;
        let write = Write {
            part,
            options: &options,
            entry: &entry,
            old: &old,
        };
        if let Outcome::Done(patched) = write.commit(call, new).await? {
            return Ok(respond::object(call, &patched, StatusCode::OK));
        }
    }
    Err(Error::Conflict(call.target(call.name()), MODIFIED.into()))
}

/// The kind of patch that the Content-Type names.
pub fn patch_type(call: &Call) -> Result<PatchType, Error> {
    match body::media_type(&call.headers) {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::StrategicMerge),
        _ => Err(Error::UnsupportedPatchType),
    }
}

/// `object` with the patch applied, as the client's `fieldValidation` wants it.
pub fn patched(
    call: &Call,
    schema: &str,
    object: &Value,
    patch_type: PatchType,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Value, Error> {
    let applied = patch::apply(schema, object, patch_type, patch, validation);
    let Decoded { mut value, strict } = applied.map_err(|error| match error {
        PatchError::BadRequest(message) => Error::BadRequest(message),
        PatchError::Unprocessable(status) => Error::Unprocessable(
            status["message"].as_str().unwrap_or_default().into(),
            status["details"].as_object().cloned().unwrap_or_default(),
        ),
        PatchError::TooLarge(message) => Error::TooLarge(message),
        PatchError::Internal(message) => Error::Plain(message),
    })?;
    call.warn_strict(strict, validation);
    value["apiVersion"] = object["apiVersion"].clone();
    value["kind"] = object["kind"].clone();
    Ok(value)
}
