//! What becomes of headers on their way through: pure.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Credentials that a browser's WebSocket sends in the place of a header.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Of a request: nothing that is meant for this server or for this connection only.
pub fn of_request(headers: &mut HeaderMap) {
    let upgrade = headers
        .get(UPGRADE)
        .cloned()
        .filter(|_| super::asks_for_upgrade(headers));
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    headers.remove(AUTHORIZATION);
    let private = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let private: Vec<HeaderName> = headers.keys().filter(|name| private(name)).cloned().collect();
    for name in private {
        headers.remove(name);
    }
    let asked = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let asked = asked.flat_map(|value| value.split(',')).map(str::trim);
    let kept: Vec<&str> = asked.filter(|protocol| !protocol.starts_with(BEARER)).collect();
    let kept = HeaderValue::try_from(kept.join(", "));
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(kept) = kept
        && !kept.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

/// Of an answer: nothing that is meant for its own connection, and nothing that would open this server to other pages.
pub fn of_answer(headers: &mut HeaderMap, switching: bool) {
    let upgrade = headers.get(UPGRADE).cloned().filter(|_| switching);
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    for name in [
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = named
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let known = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in known.into_iter().chain(named) {
        headers.remove(name);
    }
}

/// Where a redirect leads when it goes through this server: paths of the server behind are below `prefix`. `hosts` are the
/// names that it has there, and that the client asked for here.
pub fn rewrite(location: &str, prefix: &str, [behind, here]: [&str; 2]) -> String {
    let below = |path: &str| match path.starts_with(prefix) {
        true => path.to_owned(),
        false => format!("{prefix}{path}"),
    };
    if location.starts_with('/') && !location.starts_with("//") {
        return below(location);
    }
    let Some((scheme, rest)) = location.split_once("://") else {
        return location.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    match host {
        host if host == here => format!("{scheme}://{host}{}", below(path)),
        host if host == behind => below(path),
        _ => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn credentials_and_what_is_for_one_connection_stay_here() {
        let mut asked = headers(&[
            ("authorization", "Bearer secret"),
            ("impersonate-user", "x"),
            ("x-remote-group", "x"),
            ("connection", "x-mine, keep-alive"),
            ("x-mine", "1"),
            ("keep-alive", "1"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("accept", "text/css"),
        ]);
        of_request(&mut asked);
        assert_eq!(asked, headers(&[("accept", "text/css")]));
    }

    #[test]
    fn an_upgrade_is_asked_for_again_without_its_bearer() {
        let mut asked = headers(&[
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "websocket"),
            (
                "sec-websocket-protocol",
                "base64url.bearer.authorization.k8s.io.c2VjcmV0, chat",
            ),
        ]);
        of_request(&mut asked);
        let kept = [
            ("sec-websocket-protocol", "chat"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert_eq!(asked, headers(&kept));
    }

    #[test]
    fn no_other_page_is_let_in() {
        let mut answer = headers(&[
            ("access-control-allow-origin", "*"),
            ("connection", "close"),
            ("etag", "1"),
        ]);
        of_answer(&mut answer, false);
        assert_eq!(answer, headers(&[("etag", "1")]));
    }

    #[test]
    fn redirects_stay_below_the_proxy() {
        let prefix = "/api/v1/namespaces/x/pods/p/proxy";
        let table = [
            ("/a/b?c", "/api/v1/namespaces/x/pods/p/proxy/a/b?c"),
            (
                "/api/v1/namespaces/x/pods/p/proxy/a",
                "/api/v1/namespaces/x/pods/p/proxy/a",
            ),
            ("b/c", "b/c"),
            ("http://127.0.0.9:80/a", "/api/v1/namespaces/x/pods/p/proxy/a"),
            (
                "https://api:6443",
                "https://api:6443/api/v1/namespaces/x/pods/p/proxy/",
            ),
            ("https://example.com/a", "https://example.com/a"),
            ("//example.com/a", "//example.com/a"),
        ];
        for (location, expected) in table {
            assert_eq!(
                rewrite(location, prefix, ["127.0.0.9:80", "api:6443"]),
                expected,
                "{location}"
            );
        }
    }
}
