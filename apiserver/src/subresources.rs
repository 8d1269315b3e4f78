//! What hangs below an object: status, scale, logs and the rest; and the reviews, which are no objects.

mod binding;
pub mod connect;
mod eviction;
mod log;
mod proxy;
pub mod reviews;
mod scale;
mod streaming;
mod token;

use crate::call::Call;
use crate::error::Error;
use crate::resource::Subresource;
use crate::verbs::update::Part;
use crate::verbs::{get, patch, update};
use axum::body::Body;
use axum::response::Response;
use http::Method;
use std::sync::Arc;

/// Answer a request to a subresource that the kind has.
pub async fn dispatch(
    call: Arc<Call>,
    subresource: Subresource,
    method: &Method,
    body: Body,
) -> Result<Response, Error> {
    let part = match subresource {
        Subresource::Status => Part::Status,
        Subresource::EphemeralContainers => Part::EphemeralContainers,
        Subresource::Resize => Part::Resize,
        Subresource::Finalize if *method == Method::PUT => Part::Finalize,
        Subresource::Finalize => return Err(Error::MethodNotAllowed),
        Subresource::Scale => return scale::answer(&call, method, body).await,
        Subresource::Log if *method == Method::GET => return log::get(&call).await,
        Subresource::Binding if *method == Method::POST => return binding::bind(&call, body).await,
        Subresource::Eviction if *method == Method::POST => return eviction::evict(&call, body).await,
        Subresource::Token if *method == Method::POST => return token::issue(&call, body).await,
        _ => return Err(Error::MethodNotAllowed),
    };
    match *method {
        Method::GET => get::get(&call).await,
        Method::PUT => update::update(&call, body, part).await,
        Method::PATCH => patch::patch(&call, body, part).await,
        _ => Err(Error::MethodNotAllowed),
    }
}
