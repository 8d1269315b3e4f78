//! What a client wants to get: media types of `Accept` with their parameters, and pretty printing.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};
use serde_json::Value;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The object or list as JSON.
    #[default]
    Json,
    /// The object or list as YAML.
    Yaml,
    /// The object or list in Kubernetes' protobuf.
    Protobuf,
    /// A `meta.k8s.io/v1` Table as JSON.
    Table,
    /// A `meta.k8s.io/v1` PartialObjectMetadata, or a list of them, as JSON.
    PartialObjectMetadata,
}

/// Why nothing that the client accepts can be served: 406.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAcceptable {
    /// No media type of the route was named; upstream's router refuses these, with empty `details`.
    MediaType,
    /// The media type is fine, what it should be converted to is not; there are no `details`.
    Conversion,
    /// Only protobuf was asked for, which this kind has no form in.
    Protobuf,
}

impl NotAcceptable {
    /// The Status' message. Upstream names two more media types for collections, which can be watched.
    pub fn message(self, collection: bool) -> String {
        const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        const STREAMS: &str =
            ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        match self {
            NotAcceptable::MediaType => format!(
                "406: Not Acceptable\n\nAvailable representations: {TYPES}{}",
                if collection { STREAMS } else { "" }
            ),
            NotAcceptable::Conversion => format!("only the following media types are accepted: {TYPES}"),
            NotAcceptable::Protobuf => {
                "only the following media types are accepted: application/json, application/yaml".to_owned()
            }
        }
    }

    /// Whether the Status has an (empty) `details`.
    pub fn has_details(self) -> bool {
        self == NotAcceptable::MediaType
    }
}

/// One media type of an Accept header.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause<'a> {
    /// `application/json`, `*/*` …
    pub media_type: &'a str,
    /// `as`, `g`, `v` …, without `q`.
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Clause<'a> {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Clause {
            media_type: parts.next().unwrap_or_default(),
            parameters: Vec::new(),
            quality: 1.0,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            match name {
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                _ => clause.parameters.push((name, value)),
            }
        }
        clause
    }

    /// The value of a parameter; empty if it is not there.
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(n, _)| *n == name)
            .map_or("", |(_, value)| value)
    }
}

/// The clauses of an Accept header, the most wanted first.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .map(Clause::parse)
        .filter(|clause| !clause.media_type.is_empty())
        .collect();
    let stars = |clause: &Clause<'_>| clause.media_type.matches('*').count();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(stars(a).cmp(&stars(b))));
    clauses
}

impl Output {
    /// Choose by the Accept header; without one it is JSON. `protobuf`: whether that can be had.
    pub fn from_accept(accept: Option<&str>, protobuf: bool) -> Result<Output, NotAcceptable> {
        let clauses = clauses(accept.unwrap_or_default());
        if clauses.is_empty() {
            return Ok(Output::Json);
        }
        let known = ["*/*", "application/json", "application/yaml", PROTOBUF];
        if !clauses.iter().any(|clause| known.contains(&clause.media_type)) {
            return Err(NotAcceptable::MediaType);
        }
        let refusal = match !protobuf && clauses.iter().all(|clause| clause.media_type == PROTOBUF) {
            true => NotAcceptable::Protobuf,
            false => NotAcceptable::Conversion,
        };
        let chosen = clauses.iter().find_map(|clause| Output::of(clause, protobuf));
        chosen.ok_or(refusal)
    }

    /// By the headers of a request.
    pub fn from_headers(headers: &HeaderMap, protobuf: bool) -> Result<Output, NotAcceptable> {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        Output::from_accept(accept, protobuf)
    }

    fn of(clause: &Clause<'_>, protobuf: bool) -> Option<Output> {
        let output = match clause.media_type {
            "*/*" | "application/*" | "application/json" => Output::Json,
            "application/yaml" => Output::Yaml,
            PROTOBUF if protobuf => Output::Protobuf,
            _ => return None,
        };
        let meta = (clause.parameter("g"), clause.parameter("v")) == ("meta.k8s.io", "v1");
        match (clause.parameter("as"), output) {
            ("", output) => Some(output),
            ("Table", Output::Json) if meta => Some(Output::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", Output::Json) if meta => {
                Some(Output::PartialObjectMetadata)
            }
            _ => None,
        }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Output::Yaml => "application/yaml",
            Output::Protobuf => PROTOBUF,
            _ => "application/json",
        }
    }

    /// A value in this form's encoding.
    pub fn encode(self, value: &Value, pretty: bool) -> Bytes {
        let text = match (self, pretty) {
            (Output::Yaml, _) => crate::yaml::write(value),
            (_, true) => format!("{value:#}"),
            (_, false) => format!("{value}\n"),
        };
        text.into()
    }
}

/// The media type of Kubernetes' protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Whether JSON is to be indented: `?pretty=`, or else a client that shows answers to people.
pub fn is_pretty(query: Option<&str>, headers: &HeaderMap) -> bool {
    let asked = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("pretty="));
    if let Some(asked) = asked.filter(|value| !value.is_empty()) {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|prefix| agent.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_clause_that_can_be_served_is() {
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let table = [
            (None, Ok(Output::Json)),
            (Some(""), Ok(Output::Json)),
            (Some("*/*"), Ok(Output::Json)),
            (Some("application/json"), Ok(Output::Json)),
            (Some("application/json; charset=utf-8"), Ok(Output::Json)),
            (Some("application/yaml"), Ok(Output::Yaml)),
            (Some("application/json;q=0.5, application/yaml"), Ok(Output::Yaml)),
            (Some("text/html, */*;q=0.1"), Ok(Output::Json)),
            (
                Some("application/vnd.kubernetes.protobuf,application/json"),
                Ok(Output::Protobuf),
            ),
            (
                Some("application/json, application/vnd.kubernetes.protobuf"),
                Ok(Output::Json),
            ),
            (
                Some("application/vnd.kubernetes.protobuf;stream=watch"),
                Ok(Output::Protobuf),
            ),
            (Some("application/json;stream=watch"), Ok(Output::Json)),
            (Some(TABLE), Ok(Output::Table)),
            (
                Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
                Ok(Output::Json),
            ),
            (
                Some(
                    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
                ),
                Ok(Output::PartialObjectMetadata),
            ),
            (
                Some("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
                Ok(Output::PartialObjectMetadata),
            ),
            (
                Some("application/json;as=Chair;v=v1;g=meta.k8s.io"),
                Err(NotAcceptable::Conversion),
            ),
            (Some("text/csv"), Err(NotAcceptable::MediaType)),
            (Some("application/*"), Err(NotAcceptable::MediaType)),
            (
                Some("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"),
                Err(NotAcceptable::Conversion),
            ),
        ];
        for (accept, expected) in table {
            assert_eq!(Output::from_accept(accept, true), expected, "{accept:?}");
        }
        let without = |accept| Output::from_accept(Some(accept), false);
        assert_eq!(
            without("application/vnd.kubernetes.protobuf, */*"),
            Ok(Output::Json)
        );
        assert_eq!(
            without("application/vnd.kubernetes.protobuf"),
            Err(NotAcceptable::Protobuf)
        );
    }

    #[test]
    fn refusals_are_worded_as_upstreams() {
        assert_eq!(
            NotAcceptable::MediaType.message(true),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        assert_eq!(
            NotAcceptable::MediaType.message(false),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert_eq!(
            NotAcceptable::Conversion.message(true),
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert!(NotAcceptable::MediaType.has_details());
        assert!(!NotAcceptable::Conversion.has_details());
    }

    #[test]
    fn people_get_indented_json_and_programs_do_not() {
        let agent = |name: &'static str| HeaderMap::from_iter([(USER_AGENT, name.parse().unwrap())]);
        assert!(is_pretty(None, &agent("curl/8.5.0")));
        assert!(!is_pretty(None, &agent("kubectl/v1.32")));
        assert!(!is_pretty(Some("pretty=false"), &agent("curl/8.5.0")));
        assert!(is_pretty(Some("limit=1&pretty=true"), &agent("kubectl/v1.32")));
        let value = serde_json::json!({"a": 1});
        assert_eq!(Output::Json.encode(&value, false), "{\"a\":1}\n");
        assert_eq!(Output::Json.encode(&value, true), "{\n  \"a\": 1\n}");
        assert_eq!(Output::Yaml.encode(&value, true), "a: 1\n");
    }
}
