//! PUT of an object, and the road that every change of an existing object takes.

use super::create::{create_object, has_status, warn_duplicate_owners};
use super::delete::is_finished;
use crate::call::Call;
use crate::error::Error;
use crate::managed_fields::{self, Writer};
use crate::options::WriteOptions;
use crate::resource::Allocation;
use crate::{admission, allocation, metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use store::Entry;

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but status.
    Main,
    /// Status, and metadata.
    Status,
    /// The finalizers in a namespace's spec.
    Finalize,
    /// The ephemeral containers of a pod.
    EphemeralContainers,
    /// The resources of a pod's containers.
    Resize,
    /// What the `scale` subresource shows.
    Scale,
    /// What the `binding` subresource sets.
    Binding,
}

impl Part {
    /// The subresource's name, empty for the main resource.
    pub fn name(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Scale => "scale",
            Part::Binding => "binding",
        }
    }
}

/// The text of a conflict of resourceVersions.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Replace the object by the one in the body.
pub async fn update(call: &Call, body: Body, part: Part) -> Result<Response, Error> {
    let options = WriteOptions::parse("UpdateOptions", &call.query)?;
    let mut object = call.read_object(body, options.validation).await?;
    metadata::check_name(&object, call.name())?;
    metadata::place(&mut object, call.namespace())?;
    let key = call.key();
    loop {
        let Some(entry) = call.server.store.get(&key).await? else {
            if part == Part::Main && call.kind.allows_create_on_update() {
                let created = create_object(call, object, &options).await?;
                return Ok(respond::object(call, &created, StatusCode::CREATED));
            }
            return Err(Error::NotFound(call.target(call.name())));
        };
        let old = stored::decode(call.kind, &entry);
        check_preconditions(call, &object, &old)?;
        let write = Write {
            part,
            options: &options,
            entry: &entry,
            old: &old,
        };
        match write.commit(call, object.clone()).await? {
            Outcome::Done(updated) => return Ok(respond::object(call, &updated, StatusCode::OK)),
            Outcome::Lost if metadata::text(&object, "resourceVersion").is_empty() => {}
            Outcome::Lost => return Err(Error::Conflict(call.target(call.name()), MODIFIED.into())),
        }
    }
}

/// The UID and resourceVersion that a written object brings along must be those of the stored one.
pub fn check_preconditions(call: &Call, new: &Value, old: &Value) -> Result<(), Error> {
    let (uid, stored_uid) = (metadata::text(new, "uid"), metadata::text(old, "uid"));
    let (version, stored_version) = (
        metadata::text(new, "resourceVersion"),
        metadata::text(old, "resourceVersion"),
    );
    let target = call.target(call.name());
    if !uid.is_empty() && uid != stored_uid {
        let namespace = call
            .namespace()
            .map(|namespace| format!("{namespace}/"))
            .unwrap_or_default();
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{namespace}{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}",
            call.kind.names().plural,
            call.name()
        );
        return Err(Error::Conflict(target, why));
    }
    if version.is_empty() || version == "0" {
        if call.kind.allows_unconditional_update() {
            return Ok(());
        }
        let detail = "must be specified for an update";
        let problem = crate::validation::Invalid::malformed("metadata.resourceVersion", 0, detail);
        return Err(Error::Invalid(target, vec![problem]));
    }
    if version != stored_version {
        return Err(Error::Conflict(target, MODIFIED.into()));
    }
    Ok(())
}

/// How a write of one object ended.
pub enum Outcome {
    /// It is stored (or was nothing new, or was a dry run): the object with its resourceVersion.
    Done(Value),
    /// Somebody else was quicker: look again.
    Lost,
}

/// A change of an object that was read before.
pub struct Write<'a> {
    /// What may change.
    pub part: Part,
    /// The request's options.
    pub options: &'a WriteOptions,
    /// The object as it is stored.
    pub entry: &'a Entry,
    /// The same, decoded.
    pub old: &'a Value,
}

impl Write<'_> {
    /// Make `new`, which has its defaults, the object: restore what may not change, admit, validate,
    /// and write it if nobody else has written since. An object that is being deleted and has lost its
    /// last finalizer is deleted instead.
    pub async fn commit(&self, call: &Call, mut new: Value) -> Result<Outcome, Error> {
        self.restore(call, &mut new);
        // Upstream's binding goes past what notes managers.
        if !matches!(self.part, Part::Binding) {
            managed_fields::update(
                call.kind.names().schema,
                Some(self.old),
                &mut new,
                self.writer(&call.manager(self.options), call),
            );
        }
        self.finish(call, new).await
    }

    /// The same for what an apply made, which says already who owns what.
    pub async fn commit_applied(&self, call: &Call, mut new: Value) -> Result<Outcome, Error> {
        let managed_fields = new["metadata"]["managedFields"].take();
        self.restore(call, &mut new);
        let none = managed_fields.as_array().is_none_or(Vec::is_empty);
        put(
            &mut new["metadata"],
            "managedFields",
            if none { &Value::Null } else { &managed_fields },
        );
        self.finish(call, new).await
    }

    /// Who writes this, named `manager`.
    pub fn writer<'a>(&self, manager: &'a str, call: &Call) -> Writer<'a> {
        Writer {
            manager,
            subresource: self.part.name(),
            time: (call.server.options.clock)(),
        }
    }

    async fn finish(&self, call: &Call, mut new: Value) -> Result<Outcome, Error> {
        let old = self.old;
        warn_duplicate_owners(call, &mut new);
        let is_main = self.part == Part::Main || self.part == Part::Scale;
        if is_main {
            call.kind.prepare_update(&mut new, old);
        } else if self.part == Part::Status {
            call.kind.prepare_status(&mut new, old, call.server.now());
        }
        metadata::prepare_update(call.kind, &mut new, old);
        self.validate(call, &new)?;
        // The only rule of admission for updates validates, and upstream asks it after the registry.
        if is_main {
            admission::update(call, &mut new, old).await?;
        }
        let _allocating = match call.kind.allocation() {
            Allocation::Service if self.part == Part::Main => {
                Some(allocation::allocate(call, &mut new, Some(old)).await?)
            }
            _ => None,
        };
        if is_finished(&new) && metadata::is_deleting(old) {
            return self.delete(call, new).await;
        }
        if same(&new, old) {
            return Ok(Outcome::Done(old.clone()));
        }
        if self.options.dry_run {
            return Ok(Outcome::Done(new));
        }
        let mut stored_form = new.clone();
        call.kind.to_storage(&mut stored_form);
        let bytes = stored::encode(&stored_form);
        match call
            .server
            .store
            .update(&self.entry.key, bytes, self.entry.modified)
            .await
        {
            Ok(entry) => {
                new["metadata"]["resourceVersion"] = entry.modified.to_string().into();
                Ok(Outcome::Done(new))
            }
            Err(store::Error::Conflict { .. }) => Ok(Outcome::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Take from the old object what this part may not change.
    fn restore(&self, call: &Call, new: &mut Value) {
        let old = self.old;
        match self.part {
            Part::Main if has_status(call) => put(new, "status", &old["status"]),
            Part::Main => {}
            Part::Status => {
                let status = new["status"].take();
                let metadata = new["metadata"].take();
                *new = old.clone();
                put(new, "status", &status);
                put(new, "metadata", &metadata);
                put(
                    &mut new["metadata"],
                    "ownerReferences",
                    &old["metadata"]["ownerReferences"],
                );
            }
            Part::Finalize => {
                let finalizers = new["spec"]["finalizers"].take();
                *new = old.clone();
                put(&mut new["spec"], "finalizers", &finalizers);
            }
            Part::EphemeralContainers => {
                let containers = new["spec"]["ephemeralContainers"].take();
                *new = old.clone();
                put(&mut new["spec"], "ephemeralContainers", &containers);
            }
            Part::Resize => {
                let containers = new["spec"]["containers"].take();
                *new = old.clone();
                put(&mut new["spec"], "containers", &containers);
            }
            Part::Scale | Part::Binding => {}
        }
    }

    fn validate(&self, call: &Call, new: &Value) -> Result<(), Error> {
        let old = self.old;
        // Upstream's registry and its kinds both check the metadata, so each problem has two causes.
        let mut problems = metadata::validate_update(new, old);
        problems.extend(problems.clone());
        problems.extend(match self.part {
            Part::Main | Part::Scale => call.kind.validate_update(new, old),
            Part::Status => call.kind.validate_status(new, old),
            Part::Finalize => call.kind.validate_create(new),
            Part::EphemeralContainers => call.kind.validate_ephemeral_containers(new, old),
            Part::Resize | Part::Binding => Vec::new(),
        });
        metadata::refuse(call.kind_target(call.name()), problems)?;
        if self.part == Part::Main {
            call.kind
                .warnings(new)
                .into_iter()
                .for_each(|text| call.warn(text));
        }
        Ok(())
    }

    /// The last finalizer is gone.
    async fn delete(&self, call: &Call, mut new: Value) -> Result<Outcome, Error> {
        if self.options.dry_run {
            return Ok(Outcome::Done(new));
        }
        match call
            .server
            .store
            .delete(&self.entry.key, self.entry.modified)
            .await
        {
            Ok(revision) => {
                new["metadata"]["resourceVersion"] = revision.to_string().into();
                Ok(Outcome::Done(new))
            }
            Err(store::Error::Conflict { .. }) => Ok(Outcome::Lost),
            Err(error) => Err(error.into()),
        }
    }
}

/// Set a field, or remove it if the value is null.
pub fn put(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        if let Some(object) = object.as_object_mut() {
            object.remove(field);
        }
    } else {
        object[field] = value.clone();
    }
}

/// Whether a write would change nothing but the times in managedFields.
fn same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return false;
    };
    let others = |(name, value): (&String, &Value)| name == "metadata" || old.get(name) == Some(value);
    if new.len() != old.len() || !new.iter().all(others) {
        return false;
    }
    let timeless = |object: &serde_json::Map<String, Value>| {
        let mut metadata = object.get("metadata").cloned().unwrap_or_default();
        let fields = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
        for entry in fields.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        metadata
    };
    timeless(new) == timeless(old)
}
