//! Which protocol a client and this kubelet speak after an upgrade: pure, from the request's headers.

use axum::http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{HeaderMap, HeaderName};

/// The header in which SPDY clients say what their streams mean, and are answered.
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The header that tells a client what it could have said.
pub const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// The subprotocol of a WebSocket that carries a whole SPDY connection.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What a connection is upgraded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// RFC 6455
    WebSocket,
    /// SPDY/3.1
    Spdy,
}

impl Wire {
    /// What the request asks for, if it asks for an upgrade that is known here.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let says = |name: HeaderName, word: &str| {
            let values = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok());
            values
                .map(str::to_ascii_lowercase)
                .any(|value| value.contains(word))
        };
        if !says(CONNECTION, "upgrade") {
            return None;
        }
        match () {
            () if says(UPGRADE, "websocket") => Some(Self::WebSocket),
            () if says(UPGRADE, "spdy/3.1") => Some(Self::Spdy),
            () => None,
        }
    }
}

/// How messages of a WebSocket are put into channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// As the client names it; empty if it named none.
    pub name: &'static str,
    /// From 4 on the error channel has a Status, from 5 on a channel can be closed.
    pub version: u8,
    /// Text messages, a digit for the channel and the rest in base64.
    pub base64: bool,
}

const fn channels(name: &'static str, version: u8, base64: bool) -> Channels {
    Channels {
        name,
        version,
        base64,
    }
}

/// Of exec and attach, the best first.
pub const REMOTE: &[Channels] = &[
    channels("v5.channel.k8s.io", 5, false),
    channels("v4.channel.k8s.io", 4, false),
    channels("v4.base64.channel.k8s.io", 4, true),
    channels("v3.channel.k8s.io", 3, false),
    channels("v2.channel.k8s.io", 2, false),
    channels("channel.k8s.io", 1, false),
    channels("base64.channel.k8s.io", 1, true),
];

/// Of port-forward with a pair of channels for each port.
pub const FORWARD: &[Channels] = &[
    channels("v4.channel.k8s.io", 4, false),
    channels("v4.base64.channel.k8s.io", 4, true),
    channels("portforward.k8s.io", 4, false),
    channels("channel.k8s.io", 4, false),
    channels("base64.channel.k8s.io", 4, true),
];

/// The protocol of a WebSocket: the best that both know, or the first one unnamed if the client names none. The error is
/// the text of a 403.
pub fn websocket(headers: &HeaderMap, known: &[Channels]) -> Result<Channels, String> {
    let asked = list(headers, SEC_WEBSOCKET_PROTOCOL);
    if asked.is_empty() {
        return Ok(channels("", 1, false));
    }
    let found = known.iter().find(|protocol| asked.contains(&protocol.name));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|protocol| protocol.name).collect();
        format!(
            "requested protocol(s) are not supported: [{}]; supports [{}]",
            asked.join(" "),
            names.join(" ")
        )
    })
}

/// Whether a SPDY connection is to be carried by the WebSocket.
pub fn is_tunnel(headers: &HeaderMap) -> bool {
    list(headers, SEC_WEBSOCKET_PROTOCOL).contains(&TUNNEL)
}

/// Why a SPDY client is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misunderstood {
    /// It says nothing: a 400 with this text.
    Unsaid(String),
    /// It says nothing that is known: a 403 with this text, and what is known.
    Unknown(String),
}

/// The version of SPDY streams: the first that the client names and `known` has.
pub fn spdy(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Misunderstood> {
    let asked = list(headers, STREAM_PROTOCOL);
    if asked.is_empty() {
        return Err(Misunderstood::Unsaid(
            "unable to upgrade: X-Stream-Protocol-Version is required".into(),
        ));
    }
    let found = asked.iter().find_map(|name| known.iter().find(|k| k == &name));
    found.copied().ok_or_else(|| {
        Misunderstood::Unknown(format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            asked.join(" "),
            known.join(" ")
        ))
    })
}

/// A header that may be repeated and may hold several values.
fn list(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                value.parse().expect("a header value"),
            )
        });
        pairs.collect()
    }

    #[test]
    fn an_upgrade_needs_both_headers_in_any_case() {
        let of =
            |connection, upgrade| Wire::of(&headers(&[("connection", connection), ("upgrade", upgrade)]));
        assert_eq!(of("Upgrade", "SPDY/3.1"), Some(Wire::Spdy));
        assert_eq!(of("keep-alive, upgrade", "WebSocket"), Some(Wire::WebSocket));
        assert_eq!(of("keep-alive", "websocket"), None);
        assert_eq!(of("upgrade", "h2c"), None);
        assert_eq!(Wire::of(&HeaderMap::new()), None);
    }

    #[test]
    fn the_best_protocol_that_both_know_is_spoken() {
        let best = |asked| websocket(&headers(&[("sec-websocket-protocol", asked)]), REMOTE).map(|p| p.name);
        assert_eq!(
            best("v4.channel.k8s.io, v5.channel.k8s.io"),
            Ok("v5.channel.k8s.io")
        );
        assert_eq!(best("base64.channel.k8s.io"), Ok("base64.channel.k8s.io"));
        assert_eq!(websocket(&HeaderMap::new(), REMOTE).map(|p| p.version), Ok(1));
        let refused = best("v9.channel.k8s.io").expect_err("not known");
        assert!(
            refused
                .starts_with("requested protocol(s) are not supported: [v9.channel.k8s.io]; supports [v5.")
        );
    }

    #[test]
    fn a_spdy_clients_first_choice_counts_and_a_stranger_hears_what_is_known() {
        let choose = |pairs: &[(&'static str, &'static str)]| spdy(&headers(pairs), &["v4.x", "v3.x"]);
        assert_eq!(choose(&[("x-stream-protocol-version", "v5.x, v3.x")]), Ok("v3.x"));
        assert_eq!(
            choose(&[("x-stream-protocol-version", "v9.x")]),
            Err(Misunderstood::Unknown(
                "unable to upgrade: unable to negotiate protocol: client supports [v9.x], server accepts [v4.x v3.x]".into()
            ))
        );
        assert!(matches!(choose(&[]), Err(Misunderstood::Unsaid(_))));
    }
}
