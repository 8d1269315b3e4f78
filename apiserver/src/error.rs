//! What goes wrong, one variant per Kubernetes *reason*, and the one place where that becomes a
//! `metav1.Status`. Every answer of this server that is not a success is made here.

use crate::negotiation::NotAcceptable;
use crate::validation::Invalid;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// The object or resource that an error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// API group; empty for the core group.
    pub group: String,
    /// The resource in the plural (or the kind, for [`Error::Invalid`]).
    pub resource: String,
    /// The object's name; empty for a collection.
    pub name: String,
}

impl Target {
    /// `resource` or `resource.group`, as messages name it.
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (key, value) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.resource),
        ] {
            if !value.is_empty() {
                details.insert(key.into(), value.as_str().into());
            }
        }
        details
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// 400: the request itself is wrong.
    BadRequest(String),
    /// 401: nobody is known to be asking.
    Unauthorized,
    /// 403: `TARGET is forbidden: MESSAGE`.
    Forbidden(Target, String),
    /// 403: the namespace named here is being deleted, nothing new may be put into it.
    NamespaceTerminating(Target, String),
    /// 404: there is no such object.
    NotFound(Target),
    /// 404: there is no such path.
    NoSuchResource,
    /// 404 as plain text: the path belongs to no API at all.
    NoSuchPath,
    /// 405: the path is there, the method is not.
    MethodNotAllowed,
    /// 406: nothing that the client accepts is served; true for a collection.
    NotAcceptable(NotAcceptable, bool),
    /// 409: create found the name taken.
    AlreadyExists(Target),
    /// 409: the object is not what the writer thought; the text says how.
    Conflict(Target, String),
    /// 410: the past that was asked for is compacted away. A continue token may be offered.
    Expired(String, Option<String>),
    /// 413: the body or the object is too large.
    TooLarge(String),
    /// 415: the body is in a form that this resource does not read; what it reads is given.
    UnsupportedMediaType(&'static str),
    /// 415 for a patch type that is not served.
    UnsupportedPatchType,
    /// 422: fields are wrong; `Target::resource` is the kind.
    Invalid(Target, Vec<Invalid>),
    /// 422 without an object: the message, and details that tell its causes.
    Unprocessable(String, Map<String, Value>),
    /// A whole Status that was made elsewhere, with its `code`.
    Status(Value),
    /// 429: try later.
    TooManyRequests(String),
    /// 500: something is broken here.
    Internal(String),
    /// 500 without a reason, as upstream answers a plain Go error.
    Plain(String),
    /// 503: a component that has to answer this cannot be reached.
    Unavailable(String),
    /// 504: a resourceVersion from the future was asked for.
    FutureVersion {
        /// What was asked for.
        requested: u64,
        /// The newest one.
        current: u64,
    },
}

impl Error {
    /// An invalid `*Options` object, for example `ListOptions`.
    pub fn invalid_options(kind: &str, problems: Vec<Invalid>) -> Self {
        let target = Target {
            group: "meta.k8s.io".into(),
            resource: kind.into(),
            name: String::new(),
        };
        Error::Invalid(target, problems)
    }

    /// Code, reason, message, details.
    fn parts(&self) -> (u16, &'static str, String, Option<Map<String, Value>>) {
        let empty = Some(Map::new());
        match self {
            Error::BadRequest(message) => (400, "BadRequest", message.clone(), None),
            Error::Unauthorized => (401, "Unauthorized", "Unauthorized".into(), None),
            Error::Forbidden(target, why) => {
                let subject = match target.name.as_str() {
                    "" => target.qualified(),
                    name => format!("{} {name:?}", target.qualified()),
                };
                let message = format!("{subject} is forbidden: {why}");
                (403, "Forbidden", message, Some(target.details()))
            }
            Error::NamespaceTerminating(target, namespace) => {
                let message = format!(
                    "{} {:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                    target.qualified(),
                    target.name
                );
                let mut details = target.details();
                details.insert(
                    "causes".into(),
                    json!([{
                        "reason": "NamespaceTerminating",
                        "message": format!("namespace {namespace} is being terminated"),
                        "field": "metadata.namespace",
                    }]),
                );
                (403, "Forbidden", message, Some(details))
            }
            Error::NotFound(target) => {
                let message = format!("{} {:?} not found", target.qualified(), target.name);
                (404, "NotFound", message, Some(target.details()))
            }
            Error::NoSuchResource | Error::NoSuchPath => {
                let message = "the server could not find the requested resource";
                (404, "NotFound", message.into(), empty)
            }
            Error::MethodNotAllowed => {
                let message = "the server does not allow this method on the requested resource";
                (405, "MethodNotAllowed", message.into(), empty)
            }
            Error::NotAcceptable(why, collection) => {
                let details = why.has_details().then(Map::new);
                (406, "NotAcceptable", why.message(*collection), details)
            }
            Error::AlreadyExists(target) => {
                let message = format!("{} {:?} already exists", target.qualified(), target.name);
                (409, "AlreadyExists", message, Some(target.details()))
            }
            Error::Conflict(target, why) => {
                let message = format!(
                    "Operation cannot be fulfilled on {} {:?}: {why}",
                    target.qualified(),
                    target.name
                );
                (409, "Conflict", message, Some(target.details()))
            }
            Error::Expired(message, _) => (410, "Expired", message.clone(), None),
            Error::TooLarge(message) => (413, "RequestEntityTooLarge", message.clone(), None),
            Error::UnsupportedMediaType(served) => {
                let message = format!(
                    "the body of the request was in an unknown format - accepted media types include: {served}"
                );
                (415, "UnsupportedMediaType", message, None)
            }
            Error::UnsupportedPatchType => (
                415,
                "UnsupportedMediaType",
                "415: Unsupported Media Type".into(),
                empty,
            ),
            Error::Invalid(target, problems) => {
                let message = format!(
                    "{} {:?} is invalid: {}",
                    target.qualified(),
                    target.name,
                    aggregate(problems)
                );
                let mut details = target.details();
                details.insert("causes".into(), problems.iter().map(cause).collect());
                (422, "Invalid", message, Some(details))
            }
            Error::Unprocessable(message, details) => {
                (422, "Invalid", message.clone(), Some(details.clone()))
            }
            Error::Status(status) => {
                let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                (code.unwrap_or(500), "", String::new(), None)
            }
            Error::TooManyRequests(message) => (429, "TooManyRequests", message.clone(), None),
            Error::Internal(message) => {
                let details = json!({"causes": [{"message": message}]});
                let message = format!("Internal error occurred: {message}");
                (500, "InternalError", message, details.as_object().cloned())
            }
            Error::Plain(message) => (500, "", message.clone(), None),
            Error::Unavailable(message) => (503, "ServiceUnavailable", message.clone(), None),
            Error::FutureVersion { requested, current } => {
                let details = json!({
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1,
                });
                let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
                (504, "Timeout", message, details.as_object().cloned())
            }
        }
    }

    /// The HTTP status code.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.parts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The `metav1.Status`.
    pub fn status(&self) -> Value {
        if let Error::Status(status) = self {
            return status.clone();
        }
        let (code, reason, message, details) = self.parts();
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "code": code,
        });
        if let Error::Expired(_, Some(token)) = self {
            status["metadata"]["continue"] = token.as_str().into();
        }
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        if let Some(details) = details {
            status["details"] = Value::Object(details);
        }
        status
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self == Error::NoSuchPath {
            let headers = [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            return (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response();
        }
        let headers = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.code(), headers, self.status().to_string()).into_response();
        if let Some(seconds) = self.status()["details"]["retryAfterSeconds"].as_u64() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An error of the store that no verb expected.
impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Future { requested, current } => Error::FutureVersion { requested, current },
            store::Error::TooLarge { .. } => Error::TooLarge("etcdserver: request is too large".into()),
            store::Error::Compacted { .. } => Error::Expired(
                "The resourceVersion for the provided list is too old.".into(),
                None,
            ),
            store::Error::Broken(_) => Error::Unavailable(error.to_string()),
            store::Error::Exists(_) | store::Error::Conflict { .. } => Error::Internal(error.to_string()),
        }
    }
}

/// One message for all problems: each said once, in brackets if there are several.
fn aggregate(problems: &[Invalid]) -> String {
    let mut messages: Vec<String> = Vec::with_capacity(problems.len());
    for problem in problems {
        let message = match problem.field.as_str() {
            "" => problem.message(),
            _ => problem.to_string(),
        };
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    match messages.as_slice() {
        [only] => only.clone(),
        _ => format!("[{}]", messages.join(", ")),
    }
}

fn cause(problem: &Invalid) -> Value {
    let mut cause = json!({"reason": problem.reason(), "message": problem.message()});
    if !problem.field.is_empty() {
        cause["field"] = problem.field.as_str().into();
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_problem_twice_is_said_once_but_has_two_causes() {
        let problem = Invalid::required("spec.x", "");
        let target = Target {
            group: "apps".into(),
            resource: "StatefulSet".into(),
            name: "web".into(),
        };
        let status = Error::Invalid(target, vec![problem.clone(), problem]).status();
        assert_eq!(
            status["message"],
            "StatefulSet.apps \"web\" is invalid: spec.x: Required value"
        );
        assert_eq!(status["details"]["causes"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn several_problems_are_listed_in_brackets() {
        let problems = vec![
            Invalid::malformed("a", -1, "must be positive"),
            Invalid::not_supported("b", "x", &["y", "z"]),
        ];
        assert_eq!(
            aggregate(&problems),
            "[a: Invalid value: -1: must be positive, b: Unsupported value: \"x\": supported values: \"y\", \"z\"]"
        );
    }

    #[test]
    fn a_version_from_the_future_says_when_to_try_again() {
        let error = Error::FutureVersion {
            requested: 9,
            current: 1,
        };
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
