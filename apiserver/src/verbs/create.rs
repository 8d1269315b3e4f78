//! POST to a collection.

use crate::call::Call;
use crate::error::Error;
use crate::managed_fields::{self, Writer};
use crate::options::WriteOptions;
use crate::resource::{Allocation, Subresource};
use crate::{admission, allocation, metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

/// How often a generated name is tried before the collision is the client's to see.
const NAME_ATTEMPTS: usize = 8;

/// Create the object in the body.
pub async fn create(call: &Call, body: Body) -> Result<Response, Error> {
    let options = WriteOptions::parse("CreateOptions", &call.query)?;
    let object = call.read_object(body, options.validation).await?;
    let created = create_object(call, object, &options).await?;
    Ok(respond::object(call, &created, StatusCode::CREATED))
}

/// Create `object`, which has its defaults; what was stored comes back.
pub async fn create_object(call: &Call, mut object: Value, options: &WriteOptions) -> Result<Value, Error> {
    if !metadata::text(&object, "resourceVersion").is_empty() {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(Error::Plain(why.into()));
    }
    metadata::place(&mut object, call.namespace())?;
    metadata::prepare_create(call.kind, &mut object, call.server.now());
    let names = call.kind.names();
    let now = (call.server.options.clock)();
    let status = has_status(call).then(|| take(&mut object, "status")).flatten();
    managed_fields::update(
        names.schema,
        None,
        &mut object,
        Writer {
            manager: &call.manager(options),
            subresource: "",
            time: now,
        },
    );
    if let Some(status) = status {
        object["status"] = status;
    }
    warn_duplicate_owners(call, &mut object);
    let generated = metadata::text(&object, "name").is_empty();
    let base = metadata::text(&object, "generateName").to_string();
    for attempt in 1.. {
        if generated && !base.is_empty() {
            object["metadata"]["name"] = metadata::generate_name(&base).into();
        }
        match finish(call, object.clone(), options).await {
            Err(Error::AlreadyExists(_)) if generated && attempt < NAME_ATTEMPTS => {}
            result => return result,
        }
    }
    unreachable!("the loop returns on its last attempt")
}

/// Create `object`, which an apply has made: it has a name and its defaults, and says who owns what.
pub async fn create_applied(call: &Call, mut object: Value, options: &WriteOptions) -> Result<Value, Error> {
    // Upstream takes no notice of a version if there is no object that could have another.
    metadata::of(&mut object).remove("resourceVersion");
    metadata::prepare_create(call.kind, &mut object, call.server.now());
    warn_duplicate_owners(call, &mut object);
    finish(call, object, options).await
}

/// Admission, validation and the write of an object that has a name.
async fn finish(call: &Call, mut object: Value, options: &WriteOptions) -> Result<Value, Error> {
    admission::create(call, &mut object).await?;
    call.kind.prepare_create(&mut object);
    let name = metadata::text(&object, "name").to_string();
    let mut problems = metadata::validate(call.kind, &object);
    problems.extend(call.kind.validate_create(&object));
    metadata::refuse(call.kind_target(&name), problems)?;
    call.kind
        .warnings(&object)
        .into_iter()
        .for_each(|text| call.warn(text));
    // Held until the Service is stored, so that no other one gets the same address.
    let _allocating = match call.kind.allocation() {
        Allocation::Service => Some(allocation::allocate(call, &mut object, None).await?),
        Allocation::None => None,
    };
    let mut stored_form = object.clone();
    call.kind.to_storage(&mut stored_form);
    let key = stored::key(call.kind, call.namespace(), &name);
    let exists = || Error::AlreadyExists(call.target(&name));
    if options.dry_run {
        return match call.server.store.get(&key).await? {
            Some(_) => Err(exists()),
            None => Ok(object),
        };
    }
    match call.server.store.create(&key, stored::encode(&stored_form)).await {
        Ok(entry) => {
            object["metadata"]["resourceVersion"] = entry.modified.to_string().into();
            Ok(object)
        }
        Err(store::Error::Exists(_)) => Err(exists()),
        Err(error) => Err(error.into()),
    }
}

/// Say which owner references were repeated, and drop the repetitions.
pub fn warn_duplicate_owners(call: &Call, object: &mut Value) {
    let repeated = metadata::deduplicate_owners(object);
    if !repeated.is_empty() {
        call.warn(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        ));
    }
}

/// Whether status is a matter of its own.
pub fn has_status(call: &Call) -> bool {
    call.kind.subresources().contains(&Subresource::Status)
}

fn take(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}
