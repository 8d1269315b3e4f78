//! GET of one object.

use crate::call::Call;
use crate::error::Error;
use crate::respond;
use axum::response::Response;

/// Answer the object. `?resourceVersion=` only asks that it be no older, which it never is.
pub async fn get(call: &Call) -> Result<Response, Error> {
    let requested = call
        .query
        .get("resourceVersion")
        .and_then(|text| text.parse().ok());
    let current = call.server.store.current();
    if let Some(requested) = requested.filter(|requested| *requested > current) {
        return Err(Error::FutureVersion { requested, current });
    }
    let entry = call.server.store.get(&call.key()).await?;
    let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
    Ok(respond::entry(call, &entry))
}
