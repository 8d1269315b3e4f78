//! `pods/eviction`: a deletion that a disruption budget could refuse; there are none.

use crate::body::Expected;
use crate::call::Call;
use crate::error::Error;
use crate::options::{DeleteOptions, WriteOptions};
use crate::verbs::delete::delete_object;
use crate::{metadata, respond};
use axum::body::Body;
use axum::response::Response;
use serde_json::Value;

/// Delete the pod as the Eviction's `deleteOptions` say.
pub async fn evict(call: &Call, body: Body) -> Result<Response, Error> {
    let options = WriteOptions::parse("CreateOptions", &call.query)?;
    let expected = Expected {
        group: "policy",
        version: "v1",
        kind: "Eviction",
    };
    let schema = "io.k8s.api.policy.v1.Eviction";
    let eviction = call.read_as(body, expected, schema, options.validation).await?;
    if metadata::text(&eviction, "name") != call.name() {
        let why = "name in URL does not match name in Eviction object";
        return Err(Error::BadRequest(why.into()));
    }
    let asked = Some(&eviction["deleteOptions"]).filter(|asked| asked.is_object());
    let asked = asked.cloned().unwrap_or(Value::Null);
    let mut delete = DeleteOptions::parse(&call.query, Some(&asked))?;
    delete.dry_run |= options.dry_run;
    delete_object(call, call.name(), &delete).await?;
    Ok(respond::created(call))
}
