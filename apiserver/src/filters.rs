//! What every request passes before and after its handler: a place among those in flight, a deadline, and the
//! headers that every answer has. Long-running requests (watches, logs, streams) need no place and have no deadline.

use crate::auth::User;
use crate::error::Error;
use crate::path;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, TryAcquireError};

/// How many requests are served at a time (those beyond get 429), and how long one may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Requests that only read; 0 is no limit.
    pub reading: usize,
    /// Requests that write; 0 is no limit.
    pub mutating: usize,
    /// How long a request may take, also one that asks for longer; `None`: until it is done, which is for
    /// tests whose clock stands still.
    pub timeout: Option<Duration>,
}

impl Default for InFlight {
    /// Upstream's limits, and no timeout.
    fn default() -> Self {
        Self {
            reading: 400,
            mutating: 200,
            timeout: None,
        }
    }
}

/// The places of requests in flight.
#[derive(Clone)]
pub struct Filters {
    reading: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
    timeout: Option<Duration>,
}

impl Filters {
    /// With these limits.
    pub fn new(limits: InFlight) -> Self {
        let places = |count: usize| {
            let count = count.min(Semaphore::MAX_PERMITS);
            (count > 0).then(|| Arc::new(Semaphore::new(count)))
        };
        Self {
            reading: places(limits.reading),
            mutating: places(limits.mutating),
            timeout: limits.timeout,
        }
    }

    /// Middleware for `axum::middleware::from_fn_with_state`.
    pub async fn pass(State(filters): State<Filters>, request: Request, next: Next) -> Response {
        let id = audit_id(&request);
        let mut response = filters.answer(request, next).await;
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, id);
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache, private"));
        response
    }

    async fn answer(&self, request: Request, next: Next) -> Response {
        if is_long_running(request.method(), request.uri()) {
            return next.run(request).await;
        }
        let timeout = match timeout(request.uri(), self.timeout) {
            Ok(timeout) => timeout,
            Err(error) => return error.into_response(),
        };
        let places = match *request.method() {
            Method::GET | Method::HEAD | Method::OPTIONS => &self.reading,
            _ => &self.mutating,
        };
        let place = match places {
            Some(places) if !is_exempt(request.extensions().get()) => {
                match places.clone().try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => return too_many(),
                }
            }
            _ => None,
        };
        let answer = next.run(request);
        let answer = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .unwrap_or_else(|_| timed_out()),
            None => answer.await,
        };
        drop(place);
        answer
    }
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The request's own, or a new one.
fn audit_id(request: &Request) -> HeaderValue {
    const LONGEST: usize = 64;
    let given = request.headers().get(AUDIT_ID);
    match given.filter(|id| !id.is_empty() && id.len() <= LONGEST) {
        Some(given) => given.clone(),
        None => HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a UUID is plain text"),
    }
}

/// Administrators always get an answer, as upstream has it; so do the cluster's own components, which upstream
/// gives places of their own.
fn is_exempt(user: Option<&User>) -> bool {
    let Some(user) = user else { return false };
    let groups = ["system:masters", "system:nodes"];
    user.name.starts_with("system:kube-") || user.groups.iter().any(|group| groups.contains(&group.as_str()))
}

/// Watches, logs and streams.
fn is_long_running(method: &Method, uri: &Uri) -> bool {
    let Some(path) = path::parse(uri.path()) else {
        return false;
    };
    let streams = ["attach", "exec", "log", "portforward", "proxy"];
    let watches = || query(uri, "watch").is_some_and(|value| !matches!(value, "" | "0" | "false"));
    path.subresource
        .as_deref()
        .is_some_and(|name| streams.contains(&name))
        || *method == Method::GET && (path.watch || watches())
}

fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=').or(Some((pair, ""))));
    value
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// By `?timeout=`, which can only be shorter than what all requests have.
fn timeout(uri: &Uri, longest: Option<Duration>) -> Result<Option<Duration>, Error> {
    let Some(text) = query(uri, "timeout").filter(|text| !text.is_empty()) else {
        return Ok(longest);
    };
    match go_duration(text) {
        Some(asked) if !asked.is_zero() => Ok(Some(longest.map_or(asked, |longest| asked.min(longest)))),
        Some(_) => Ok(longest),
        None => Err(Error::BadRequest(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))),
    }
}

/// `1m30s` and its like, as Go reads durations; a negative one is none.
fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("µs", 1e-6),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        seconds += number * factor;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn failure(code: StatusCode, reason: &str, message: &str, details: &Value) -> Response {
    Error::Status(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "details": details, "code": code.as_u16(),
    }))
    .into_response()
}

fn too_many() -> Response {
    let message = "Too many requests, please try again later.";
    let details = json!({"retryAfterSeconds": 1});
    failure(
        StatusCode::TOO_MANY_REQUESTS,
        "TooManyRequests",
        message,
        &details,
    )
}

fn timed_out() -> Response {
    let message = "Timeout: request did not complete within the allotted timeout";
    failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message, &json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    fn user(name: &str, group: &str) -> User {
        User {
            name: name.into(),
            groups: vec![group.into()],
            ..User::anonymous()
        }
    }

    /// Answers a path that starts with `/wait` only when told to.
    fn router(limits: InFlight, go: Arc<Notify>) -> Router {
        let handler = async move |request: Request| {
            if request.uri().query() == Some("wait") {
                go.notified().await;
            }
            "done"
        };
        Router::new()
            .fallback(handler)
            .layer(axum::middleware::from_fn_with_state(
                Filters::new(limits),
                Filters::pass,
            ))
    }

    fn request(method: &str, uri: &str, user: User) -> Request {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Body::empty())
            .expect("a request");
        request.extensions_mut().insert(user);
        request
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_when_to_try_again() {
        let go = Arc::new(Notify::new());
        let limits = InFlight {
            reading: 1,
            mutating: 1,
            timeout: None,
        };
        let router = router(limits, go.clone());
        let somebody = || user("somebody", "people");
        let ask = |method: &str, uri: &str, user: User| router.clone().oneshot(request(method, uri, user));
        let waiting = tokio::spawn(ask("GET", "/api/v1/pods?wait", somebody()));
        // Until the first one has its place, the second is answered at once.
        let refused = loop {
            let response = ask("GET", "/api/v1/pods", somebody()).await.expect("an answer");
            if response.status() != StatusCode::OK {
                break response;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        let of = async |method: &str, uri: &str, user: User| {
            ask(method, uri, user).await.expect("an answer").status()
        };
        assert_eq!(of("POST", "/api/v1/pods", somebody()).await, StatusCode::OK);
        assert_eq!(
            of("GET", "/api/v1/pods?watch=1", somebody()).await,
            StatusCode::OK
        );
        let admin = user("admin", "system:masters");
        assert_eq!(of("GET", "/api/v1/pods", admin).await, StatusCode::OK);
        go.notify_one();
        let first = waiting.await.expect("no panic").expect("an answer");
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(of("GET", "/api/v1/pods", somebody()).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_request_has_a_deadline_and_may_ask_for_a_shorter_one() {
        const LONGEST: Duration = Duration::from_millis(20);
        let limits = InFlight {
            timeout: Some(LONGEST),
            ..InFlight::default()
        };
        let router = router(limits, Arc::new(Notify::new()));
        let slow = request("GET", "/api/v1/pods?wait", user("a", "b"));
        let response = router.clone().oneshot(slow).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let uri = |text: &str| text.parse::<Uri>().expect("a uri");
        let of = |text: &str| timeout(&uri(text), Some(LONGEST));
        assert_eq!(of("/?timeout=1m30s"), Ok(Some(LONGEST)));
        assert_eq!(of("/?timeout=1.5ms"), Ok(Some(Duration::from_micros(1500))));
        for bad in ["x", "5", "-1s", "1s5"] {
            let refused = of(&format!("/?timeout={bad}")).expect_err(bad);
            assert_eq!(refused.code(), StatusCode::BAD_REQUEST);
        }
    }

    #[tokio::test]
    async fn every_answer_can_be_found_again_and_is_not_kept() {
        let router = router(InFlight::default(), Arc::new(Notify::new()));
        let mut given = request("GET", "/api", user("a", "b"));
        given
            .headers_mut()
            .insert(AUDIT_ID, HeaderValue::from_static("mine"));
        let response = router.clone().oneshot(given).await.expect("an answer");
        assert_eq!(response.headers()[AUDIT_ID], "mine");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache, private");
        let response = router
            .oneshot(request("GET", "/api", user("a", "b")))
            .await
            .expect("an answer");
        assert_eq!(response.headers()[AUDIT_ID].len(), 36);
    }

    #[test]
    fn long_running_requests_are_told_by_their_path_and_query() {
        let is = |uri: &str| is_long_running(&Method::GET, &uri.parse().expect("a uri"));
        assert!(is("/api/v1/pods?watch=true"));
        assert!(is("/api/v1/watch/pods"));
        assert!(is("/api/v1/namespaces/a/pods/b/log?follow=true"));
        assert!(!is("/api/v1/pods?watch=false"));
        assert!(!is("/api/v1/pods?fieldSelector=watch"));
        assert!(!is("/version?watch=1"));
    }
}
