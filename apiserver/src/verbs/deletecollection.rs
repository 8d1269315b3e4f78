//! DELETE of a collection: everything that the selectors select, one by one.

use super::delete::{delete_object, read_options};
use super::list;
use crate::call::Call;
use crate::error::Error;
use crate::options::ListOptions;
use crate::{metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;

/// Delete what a list with the same query would show; the answer is that list.
pub async fn delete_collection(call: &Call, body: Body) -> Result<Response, Error> {
    let list_options = ListOptions::parse(&call.query, false)?;
    let options = read_options(call, body).await?;
    let (entries, metadata) = list::select(call, list_options).await?;
    for entry in &entries {
        let object = stored::decode(call.kind, entry);
        match delete_object(call, metadata::text(&object, "name"), &options).await {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(respond::list(call, &entries, &metadata))
}
