//! Subresources that join the client with somebody else: a container, a port, a server in a pod. They take any request
//! as it is, its connection included.

use super::{proxy, streaming};
use crate::error::Error;
use crate::path::ResourcePath;
use crate::resource::{Kind, Subresource};
use crate::server::Server;
use crate::{call, stored};
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Method, Version};
use serde_json::Value;
use std::sync::Arc;

/// One such request.
pub struct Connect {
    /// What all requests share.
    pub server: Arc<Server>,
    /// The kind that the path names.
    pub kind: &'static dyn Kind,
    /// What the path names.
    pub path: ResourcePath,
    /// All of it.
    pub request: Request,
}

/// Whether this is such a subresource.
pub fn joins(subresource: Subresource) -> bool {
    use Subresource::{Attach, Exec, PortForward, Proxy};
    matches!(subresource, Exec | Attach | PortForward | Proxy)
}

impl Connect {
    /// Answer it.
    pub async fn answer(self, subresource: Subresource) -> Result<Response, Error> {
        let stream = match subresource {
            Subresource::Proxy => return proxy::answer(self).await,
            Subresource::Exec => streaming::Stream::Exec,
            Subresource::Attach => streaming::Stream::Attach,
            _ => streaming::Stream::PortForward,
        };
        match *self.request.method() {
            Method::GET | Method::POST => streaming::answer(self, stream).await,
            _ => Err(Error::MethodNotAllowed),
        }
    }
}

/// An object of a kind, by its name and the namespace in the path.
pub async fn get(server: &Server, kind: &dyn Kind, path: &ResourcePath, name: &str) -> Result<Value, Error> {
    let key = stored::key(kind, path.namespace.as_deref(), name);
    let entry = server.store.get(&key).await?;
    let entry = entry.ok_or_else(|| Error::NotFound(call::target(kind, name)))?;
    Ok(stored::decode(kind, &entry))
}

/// Whether a request asks for another protocol on its connection.
pub fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut connection = connection.map(str::to_ascii_lowercase);
    headers.contains_key(UPGRADE) && connection.any(|value| value.contains("upgrade"))
}

/// The refusal of a request that does not ask for another protocol, as upstream words it.
pub fn upgrade_required(version: Version) -> Error {
    let why = "Upgrade request required";
    Error::BadRequest(match version {
        Version::HTTP_2 => format!("{why}: HTTP/2 has no upgrades, connect with HTTP/1.1 (ALPN http/1.1)"),
        _ => why.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_asked_for_in_two_headers() {
        let asks = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            });
            asks_for_upgrade(&pairs.collect())
        };
        assert!(asks(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1")
        ]));
        assert!(asks(&[
            ("connection", "keep-alive"),
            ("connection", "upgrade"),
            ("upgrade", "websocket")
        ]));
        assert!(!asks(&[("connection", "upgrade")]));
        assert!(!asks(&[("upgrade", "websocket")]));
    }

    #[test]
    fn who_speaks_http_2_is_told_what_to_speak() {
        let text = |version| upgrade_required(version).status()["message"].to_string();
        assert_eq!(text(Version::HTTP_11), "\"Upgrade request required\"");
        assert!(text(Version::HTTP_2).contains("HTTP/1.1"));
    }
}
