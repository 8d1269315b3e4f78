//! `pods/[SCHEME:]NAME[:PORT]/proxy/PATH`, `services/…` and `nodes/NAME/proxy/PATH`: any request, passed on to a server in a
//! pod, behind a Service, or to a kubelet.
//!
//! Who asks has shown to this server who he is, and to nobody else: credentials are not passed on.

mod backend;
mod headers;
mod target;

use super::connect::{Connect, asks_for_upgrade};
use crate::error::Error;
use crate::nodes::join;
use crate::server::Server;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use target::Target;

/// Pass the request on and its answer back.
pub async fn answer(connect: Connect) -> Result<Response, Error> {
    let Connect {
        server,
        kind,
        path,
        request,
    } = connect;
    let (mut parts, body) = request.into_parts();
    let (prefix, rest) = split(parts.uri.path(), path.namespace.is_some());
    let (prefix, rest) = (prefix.to_owned(), rest.to_owned());
    let target = target::find(&server, kind, &path).await?;
    let upgrades = asks_for_upgrade(&parts.headers);
    let query = parts
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    if rest.is_empty() && !upgrades && matches!(parts.method, Method::GET | Method::HEAD) {
        // Relative links of what is there would miss it otherwise.
        let to = format!("{prefix}/{query}");
        return Ok((StatusCode::MOVED_PERMANENTLY, [(LOCATION, to)]).into_response());
    }
    let client = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrades);
    let rest = if rest.is_empty() { "/" } else { &rest };
    let host = prepare(&mut parts, &format!("{rest}{query}"), &prefix)?;
    let request = Request::from_parts(parts, body);
    let unreachable = |why: String| Error::Unavailable(format!("error trying to reach service: {why}"));
    match target {
        Target::Kubelet(node) => {
            // The kubelet talks with the client itself.
            let mut request = request;
            if let Some(client) = client {
                request.extensions_mut().insert(client);
            }
            server
                .options
                .nodes
                .call(&node, request)
                .await
                .map_err(unreachable)
        }
        Target::Address { tls, address } => {
            let answer = backend::send(&server, tls, address, request)
                .await
                .map_err(unreachable)?;
            let authority = address.to_string();
            Ok(pass_back(&server, answer, client, &prefix, [&authority, &host]))
        }
    }
}

/// A path up to `proxy`, and what follows it, still encoded.
fn split(path: &str, namespaced: bool) -> (&str, &str) {
    // /api/v1/namespaces/NS/pods/NAME/proxy, /api/v1/nodes/NAME/proxy
    let segments = if namespaced { 7 } else { 5 };
    let end = path
        .match_indices('/')
        .nth(segments)
        .map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// Make the request one for the server behind; the host that the client named.
fn prepare(parts: &mut Parts, path: &str, prefix: &str) -> Result<String, Error> {
    let bad = |error: &dyn std::fmt::Display| Error::BadRequest(error.to_string());
    let host = parts.uri.authority().map(ToString::to_string);
    headers::of_request(&mut parts.headers);
    if let (Some(host), false) = (&host, parts.headers.contains_key(HOST)) {
        parts
            .headers
            .insert(HOST, HeaderValue::try_from(host).map_err(|e| bad(&e))?);
    }
    let own = path.split('?').next().unwrap_or_default();
    let forwarded = HeaderValue::try_from(format!("{prefix}{own}")).map_err(|e| bad(&e))?;
    parts.headers.insert("x-forwarded-uri", forwarded);
    parts.uri = path.parse::<Uri>().map_err(|e| bad(&e))?;
    parts.version = Version::HTTP_11;
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    Ok(host.unwrap_or_default().to_owned())
}

/// Make the answer one of this server; if both have changed the protocol, join them.
fn pass_back(
    server: &Server,
    mut answer: http::Response<hyper::body::Incoming>,
    client: Option<OnUpgrade>,
    prefix: &str,
    hosts: [&str; 2],
) -> Response {
    let switching = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let (true, Some(client)) = (switching, client) {
        let behind = hyper::upgrade::on(&mut answer);
        let stop = server.options.stop.clone();
        server.joined.spawn(async move {
            stop.run_until_cancelled(join(client, behind)).await;
        });
    }
    headers::of_answer(answer.headers_mut(), switching);
    let location = answer
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    let rewritten = location.map(|location| headers::rewrite(location, prefix, hosts));
    if let Some(Ok(location)) = rewritten.map(HeaderValue::try_from) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer.map(Body::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_proxy_is_not_touched() {
        let table = [
            ("/api/v1/namespaces/x/pods/p/proxy", true, ""),
            ("/api/v1/namespaces/x/pods/p/proxy/", true, "/"),
            (
                "/api/v1/namespaces/x/services/https:p:443/proxy/a%2Fb//c/",
                true,
                "/a%2Fb//c/",
            ),
            ("/api/v1/nodes/n/proxy/healthz", false, "/healthz"),
        ];
        for (path, namespaced, rest) in table {
            let (prefix, found) = split(path, namespaced);
            assert_eq!(found, rest, "{path}");
            assert!(prefix.ends_with("/proxy"), "{prefix}");
        }
    }
}
