//! Request bodies: their size, their media type, and whether they are what the path asks for.

use crate::error::Error;
use crate::negotiation::PROTOBUF;
use crate::schema;
use crate::schema::protobuf::Envelope;
use crate::yaml;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use std::borrow::Cow;

/// The largest body that is read, in bytes.
const LIMIT: usize = 3 * 1024 * 1024;

/// How much of a body beyond the limit is read and thrown away, so that a client that is still sending gets
/// the answer instead of a reset connection.
const DRAINED: usize = 32 * 1024 * 1024;

/// The forms of objects that have no protobuf form.
pub const TEXT: &str = "application/json, application/yaml";

const SERVED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type of a body without parameters; JSON if none is named.
pub fn media_type(headers: &HeaderMap) -> &str {
    let named = headers.get(header::CONTENT_TYPE);
    let named = named.and_then(|value| value.to_str().ok()).unwrap_or_default();
    match named.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// The whole body.
pub async fn read(mut body: Body) -> Result<Bytes, Error> {
    let mut read = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Error::BadRequest(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > LIMIT + DRAINED {
            break;
        }
        if size <= LIMIT {
            read.extend_from_slice(&data);
        }
    }
    if size > LIMIT {
        return Err(Error::TooLarge(format!(
            "Request entity too large: limit is {LIMIT}"
        )));
    }
    Ok(read.freeze())
}

/// A body in one of the forms that objects come in.
#[derive(Debug)]
pub enum Content {
    /// JSON text.
    Json(Bytes),
    /// Kubernetes' protobuf.
    Protobuf(Bytes),
}

/// The whole body; YAML is converted to JSON.
pub async fn read_content(headers: &HeaderMap, body: Body) -> Result<Content, Error> {
    match media_type(headers) {
        "application/json" => Ok(Content::Json(read(body).await?)),
        "application/yaml" => Ok(Content::Json(yaml_to_json(&read(body).await?)?)),
        PROTOBUF => Ok(Content::Protobuf(read(body).await?)),
        _ => Err(Error::UnsupportedMediaType(SERVED)),
    }
}

fn yaml_to_json(bytes: &[u8]) -> Result<Bytes, Error> {
    let value = yaml::parse(bytes);
    let value =
        value.map_err(|why| Error::BadRequest(format!("error converting YAML to JSON: yaml: {why}")))?;
    Ok(value.to_string().into())
}

/// The type that a path asks for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its group.
    pub group: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its kind.
    pub kind: &'a str,
}

/// What an object says that it is.
#[derive(Deserialize)]
struct TypeMeta<'a> {
    #[serde(rename = "apiVersion", default, borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    kind: Option<Cow<'a, str>>,
}

/// Check that `json` is an object of the expected type or does not say what it is. `known` tells whether a
/// kind is served in an API version.
pub fn identify(
    json: &[u8],
    expected: Expected<'_>,
    known: impl Fn(&str, &str) -> bool,
) -> Result<(), Error> {
    let parse_error = |why: &str| {
        let why = format!("couldn't get version/kind; json parse error: {why}");
        unrecognized(json, expected, &why)
    };
    let value: Option<TypeMeta<'_>> = match serde_json::from_slice(json) {
        // serde would take a list for the fields in their order.
        Ok(value) if json.trim_ascii_start().first() != Some(&b'[') => value,
        Err(error) if !error.is_data() => return Err(parse_error(&syntax_error(json))),
        _ => {
            const TARGET: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
            let what = match json.trim_ascii_start().first() {
                Some(b'[') => "array",
                Some(b'"') => "string",
                Some(b't' | b'f') => "bool",
                Some(b'{') => {
                    return Err(parse_error(
                        "json: cannot unmarshal non-string into Go struct field .kind of type string",
                    ));
                }
                _ => "number",
            };
            return Err(parse_error(&format!(
                "json: cannot unmarshal {what} into Go value of type {TARGET}"
            )));
        }
    };
    let Some(value) = value else { return Ok(()) };
    let api_version = value.api_version.as_deref().unwrap_or_default();
    let kind = value.kind.as_deref().unwrap_or_default();
    check_type(json, api_version, kind, expected, known)
}

/// Open a protobuf body and check that it is an object of the expected type or does not say what it is.
pub fn open<'a>(
    body: &'a [u8],
    expected: Expected<'_>,
    known: impl Fn(&str, &str) -> bool,
) -> Result<Envelope<'a>, Error> {
    let envelope = Envelope::open(body).map_err(|why| unrecognized(body, expected, &why))?;
    check_type(body, &envelope.api_version, &envelope.kind, expected, known)?;
    Ok(envelope)
}

fn unrecognized(body: &[u8], expected: Expected<'_>, why: &str) -> Error {
    let summary = summarize(body);
    let must_be = expected.kind;
    Error::BadRequest(format!(
        "the object provided is unrecognized (must be of type {must_be}): {why} ({summary})"
    ))
}

/// Whether an object that says it is `kind` in `api_version` is what is expected.
fn check_type(
    body: &[u8],
    api_version: &str,
    kind: &str,
    expected: Expected<'_>,
    known: impl Fn(&str, &str) -> bool,
) -> Result<(), Error> {
    if api_version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {api_version}");
        return Err(unrecognized(body, expected, &why));
    }
    let own = match expected.group {
        "" => expected.version.to_string(),
        group => format!("{group}/{}", expected.version),
    };
    let api_version = if api_version.is_empty() {
        own.as_str()
    } else {
        api_version
    };
    let kind = if kind.is_empty() { expected.kind } else { kind };
    if api_version == own && kind == expected.kind {
        return Ok(());
    }
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let why = if known(api_version, kind) {
        let internal = expected.group.split('.').next().filter(|group| !group.is_empty());
        format!(
            "converting ({version}.{kind}) to ({}.{}): unknown conversion",
            internal.unwrap_or("core"),
            expected.kind
        )
    } else {
        format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Err(Error::BadRequest(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {why}",
        expected.kind
    )))
}

/// Go's words for what is wrong with text that is no JSON.
pub fn syntax_error(json: &[u8]) -> String {
    schema::parse(json)
        .err()
        .unwrap_or_else(|| "malformed JSON".into())
}

/// The start of a body for a message: as text if it looks like an object, else in hexadecimal.
fn summarize(data: &[u8]) -> String {
    const MOST: usize = 30;
    let (start, more) = match data.len() {
        0 => return "<empty>".into(),
        size if size > MOST => (&data[..MOST], " ..."),
        _ => (data, ""),
    };
    if data[0] == b'{' {
        return String::from_utf8_lossy(start).into_owned() + more;
    }
    start.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG_MAP: Expected<'_> = Expected {
        group: "",
        version: "v1",
        kind: "ConfigMap",
    };

    fn message(json: &str) -> String {
        let known = |api_version: &str, kind: &str| (api_version, kind) == ("v1", "Secret");
        match identify(json.as_bytes(), CONFIG_MAP, known) {
            Ok(()) => String::new(),
            Err(error) => error.status()["message"].as_str().unwrap_or_default().to_string(),
        }
    }

    #[test]
    fn yaml_is_read_as_json() {
        let read = |yaml: &str| {
            yaml_to_json(yaml.as_bytes()).map(|json| String::from_utf8_lossy(&json).into_owned())
        };
        assert_eq!(
            read("data:\n  80: web\n  k: [1, '2', null]\n"),
            Ok(r#"{"data":{"80":"web","k":[1,"2",null]}}"#.into())
        );
        assert!(read("a: [").is_err());
    }

    #[test]
    fn yaml_that_would_keep_the_server_busy_is_refused() {
        let refused = |yaml: String| match yaml_to_json(yaml.as_bytes()) {
            Err(Error::BadRequest(message)) => message,
            other => panic!("{other:?}"),
        };
        let brackets = |count: usize| format!("a: {}{}", "[".repeat(count), "]".repeat(count));
        for count in [100_000, 900] {
            let message = refused(brackets(count));
            assert!(
                message.starts_with("error converting YAML to JSON: yaml: "),
                "{message}"
            );
        }
        assert!(yaml_to_json(brackets(50).as_bytes()).is_ok());
        // Each line stands for nine of the line before it.
        let aliases = |level: usize| {
            format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{}", level - 1); 9].join(", ")
            )
        };
        let bomb = "a0: &a0 [x]\n".to_owned() + &(1..20).map(aliases).collect::<String>();
        refused(bomb);
    }

    #[test]
    fn bodies_are_refused_in_upstreams_words() {
        let cases = [
            ("{}", ""),
            ("null", ""),
            (r#"{"kind":"ConfigMap","apiVersion":"v1"}"#, ""),
            (
                "{",
                "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({)",
            ),
            (
                "",
                "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
            ),
            (
                "[]",
                r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" } (5b5d)"#,
            ),
            (
                "x",
                "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value (78)",
            ),
            (
                r#"{"apiVersion": "a/b/c", "kind": "ConfigMap"}"#,
                r#"the object provided is unrecognized (must be of type ConfigMap): unexpected GroupVersion string: a/b/c ({"apiVersion": "a/b/c", "kind" ...)"#,
            ),
            (
                r#"{"kind":"Secret"}"#,
                r#"Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"#,
            ),
            (
                r#"{"kind":"Gadget"}"#,
                r#"Gadget in version "v1" cannot be handled as a ConfigMap: no kind "Gadget" is registered for version "v1" in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30""#,
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(message(json), expected, "{json}");
        }
    }
}
