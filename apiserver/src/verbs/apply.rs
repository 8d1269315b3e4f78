//! PATCH with `application/apply-patch+yaml`: server-side apply. It creates what is not there.

use super::create::{create_applied, has_status};
use super::patch::ATTEMPTS;
use super::update::{MODIFIED, Outcome, Part, Write, check_preconditions};
use crate::authorization::Attributes;
use crate::body;
use crate::call::Call;
use crate::error::Error;
use crate::managed_fields::{Apply, ApplyError, Reset, Writer, conflict_status};
use crate::options::WriteOptions;
use crate::schema::{self, Document, FieldValidation};
use crate::{metadata, respond, stored, yaml};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

/// Whether the body is a configuration to apply.
pub fn is_apply(call: &Call) -> bool {
    body::media_type(&call.headers) == "application/apply-patch+yaml"
}

/// Apply the configuration in the body.
pub async fn apply(call: &Call, body: Body, part: Part) -> Result<Response, Error> {
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse_apply(&call.query)?;
    let config = Configuration::parse(&bytes)?;
    for _ in 0..ATTEMPTS {
        let Some(entry) = call.server.store.get(&call.key()).await? else {
            // Subresources create nothing.
            if part != Part::Main {
                return Err(Error::NotFound(call.target(call.name())));
            }
            match create(call, &config, &options).await {
                Err(Error::AlreadyExists(_)) => continue,
                created => return Ok(respond::object(call, &created?, StatusCode::CREATED)),
            }
        };
        let old = stored::decode(call.kind, &entry);
        let write = Write {
            part,
            options: &options,
            entry: &entry,
            old: &old,
        };
        let manager = call.manager(&options);
        let new = merge(call, &old, &config, &options, write.writer(&manager, call))?;
        check_preconditions(call, &new, &old)?;
        if let Outcome::Done(applied) = write.commit_applied(call, new).await? {
            return Ok(respond::object(call, &applied, StatusCode::OK));
        }
    }
    Err(Error::Conflict(call.target(call.name()), MODIFIED.into()))
}

async fn create(call: &Call, config: &Configuration, options: &WriteOptions) -> Result<Value, Error> {
    let names = call.kind.names();
    let mut empty = schema::decode(names.schema, b"{}").map_err(Error::Plain)?.value;
    empty["apiVersion"] = stored::api_version(call.kind).into();
    empty["kind"] = names.kind.into();
    metadata::of(&mut empty);
    let manager = call.manager(options);
    let writer = Writer {
        manager: &manager,
        subresource: Part::Main.name(),
        time: (call.server.options.clock)(),
    };
    let new = merge(call, &empty, config, options, writer)?;
    let uid = metadata::text(&new, "uid");
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Error::Conflict(call.target(call.name()), why));
    }
    may_create(call).await?;
    create_applied(call, new, options).await
}

/// To create by applying, the right to create is needed besides the one to patch.
async fn may_create(call: &Call) -> Result<(), Error> {
    let asked = Attributes {
        verb: "create".into(),
        group: call.path.group.clone(),
        namespace: call.namespace().unwrap_or_default().into(),
        resource: call.path.plural.clone(),
        name: call.name().into(),
        ..Attributes::default()
    };
    let decision = call.server.authorize(&call.user, &asked).await?;
    match decision.allowed {
        true => Ok(()),
        false => Err(asked.forbidden(&call.user, &decision.reason)),
    }
}

/// `live` with the configuration merged into it, with defaults, in its place and under its name.
fn merge(
    call: &Call,
    live: &Value,
    config: &Configuration,
    options: &WriteOptions,
    writer: Writer<'_>,
) -> Result<Value, Error> {
    let names = call.kind.names();
    let api_version = stored::api_version(call.kind);
    ApplyError::check_type(&config.object, &api_version, names.kind)?;
    let apply = Apply {
        schema: names.schema,
        live,
        config: &config.object,
        writer,
        force: options.force,
        reset: reset(call, writer.subresource),
    };
    let mut new = apply.run()?;
    config.check_strict(call, options.validation)?;
    call.kind.set_defaults(&mut new);
    metadata::place(&mut new, call.namespace())?;
    metadata::check_name(&new, call.name())?;
    Ok(new)
}

/// What a write of this part leaves as it is, as the parts of `Write` do.
fn reset(call: &Call, subresource: &str) -> Reset {
    match subresource {
        "" if has_status(call) => Reset::These(&[&["f:status"]]),
        "status" => Reset::These(&[
            &["f:spec"],
            &["f:metadata", "f:deletionTimestamp"],
            &["f:metadata", "f:ownerReferences"],
        ]),
        "ephemeralcontainers" => Reset::AllBut(&[&["f:spec", "f:ephemeralContainers"]]),
        "resize" => Reset::AllBut(&[
            &["f:spec", "f:containers", "*", "f:resources"],
            &["f:spec", "f:containers", "*", "f:resizePolicy"],
        ]),
        _ => Reset::These(&[]),
    }
}

/// A configuration to apply, and what its text gives twice.
pub struct Configuration {
    /// It, an object.
    pub object: Value,
    strict: Option<String>,
}

impl Configuration {
    /// Read YAML, which JSON is, too.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |why: &str| Error::BadRequest(format!("error decoding YAML: {why}"));
        let document = Document::parse(bytes)
            .ok()
            .filter(|document| document.duplicates().is_empty());
        let (object, strict) = match document {
            Some(document) => (document.to_value(), None),
            None => yaml::parse_lenient(bytes)
                .map_err(|why| refuse(&format!("error converting YAML to JSON: yaml: {why}")))?,
        };
        let what = match &object {
            Value::Object(_) => return Ok(Self { object, strict }),
            Value::Null => {
                return Ok(Self {
                    object: Value::Object(serde_json::Map::new()),
                    strict,
                });
            }
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
        };
        Err(refuse(&format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        )))
    }

    /// Refuse what is given twice, or warn about it, as the client wants it.
    pub fn check_strict(&self, call: &Call, validation: FieldValidation) -> Result<(), Error> {
        match (&self.strict, validation) {
            (Some(why), FieldValidation::Strict) => Err(Error::BadRequest(format!(
                "error strict decoding YAML: error converting YAML to JSON: yaml: {why}"
            ))),
            (Some(why), FieldValidation::Warn) => {
                call.warn(format!("error converting YAML to JSON: yaml: {why}").replace('\n', " "));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::BadRequest(message) => Error::BadRequest(message),
            ApplyError::Untyped(message) => Error::Plain(message),
            ApplyError::Conflicts(conflicts) => Error::Status(conflict_status(&conflicts)),
        }
    }
}
