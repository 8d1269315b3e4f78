//! gRPC health checking (`grpc.health.v1.Health/Check`), by hand: one message each way, of one field each.

use crate::network::Network;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// More than any answer has.
const LIMIT: usize = 64 << 10;

/// gRPC's codes by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Ask once. The error is what upstream's events say.
pub async fn check(network: &Network, host: &str, port: u16, service: &str) -> Result<(), String> {
    let address = format!("{host}:{port}");
    let stream = network.dial(host, port).await.map_err(|error| {
        let why = super::plain(&error);
        format!("error: failed to connect service at {address:?}: {why}")
    })?;
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc probe failed: {error}");
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("Content-Type", "application/grpc")
        .header("TE", "trailers")
        .header("User-Agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(question(service))))
        .map_err(|error| failed(&error))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, LIMIT)
            .collect()
            .await
            .map_err(|e| e.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok::<_, String>((parts.headers, trailers, body.to_bytes()))
    };
    tokio::pin!(asked);
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer,
        _ = connection => asked.await,
    };
    let (headers, trailers, message) = answer.map_err(|error| failed(&error))?;
    // An answer that is nothing but an error has its status in front.
    let status = |headers: &HeaderMap| {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Some((text("grpc-status")?, text("grpc-message").unwrap_or_default()))
    };
    judge(status(&trailers).or_else(|| status(&headers)), &message)
}

/// A `HealthCheckRequest`, whose first field is the service, behind gRPC's prefix: not compressed, and its length.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        push_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

fn push_varint(to: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// What status and message of an answer mean.
fn judge(status: Option<(String, String)>, message: &[u8]) -> Result<(), String> {
    let (code, words) = status.unwrap_or_else(|| ("13".into(), "the server gave no grpc-status".into()));
    match code.as_str() {
        "0" => {}
        "12" => {
            let what = "this server does not implement the grpc health protocol (grpc.health.v1.Health)";
            return Err(format!("error: {what}: {words}"));
        }
        code => {
            let name = code
                .parse::<usize>()
                .ok()
                .and_then(|code| CODES.get(code).copied());
            let name = name.unwrap_or("Unknown");
            return Err(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {words}"
            ));
        }
    }
    // Behind the prefix stands the one field, a small number that is left out when it is 0.
    let health = match message.get(5..) {
        Some([0x08, 1, ..]) => return Ok(()),
        Some([0x08, 2, ..]) => "NOT_SERVING",
        Some([0x08, 3, ..]) => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Err(format!("service unhealthy (responded with {health:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use std::convert::Infallible;
    use tokio::net::TcpListener;

    /// Serves only the service `db`.
    async fn health(
        request: Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.expect("a body").to_bytes();
        let known = asked.ends_with(b"db");
        let mut trailers = HeaderMap::new();
        trailers.insert(
            "grpc-status",
            HeaderValue::from_static(if known { "0" } else { "5" }),
        );
        trailers.insert(
            "grpc-message",
            HeaderValue::from_static(if known { "" } else { "unknown service" }),
        );
        let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
        let message = Some(message).filter(|_| known);
        let frames = message.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
        let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        Ok(response)
    }

    #[tokio::test]
    async fn a_server_is_asked_for_a_service() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let serve = async {
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.expect("a client");
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // The client goes when it knows.
                let _ = server
                    .serve_connection(TokioIo::new(stream), service_fn(health))
                    .await;
            }
        };
        let ask = async {
            let one = check(&Network::own(), "127.0.0.1", port, "db").await;
            (one, check(&Network::own(), "127.0.0.1", port, "web").await)
        };
        let ((db, web), ()) = tokio::join!(ask, serve);
        assert_eq!(db, Ok(()));
        let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
        assert_eq!(web, Err(unknown.into()));
    }

    #[test]
    fn a_question_is_a_message_with_a_prefix() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("db"), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert_eq!(question(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
    }

    #[test]
    fn answers_are_judged_in_upstreams_words() {
        let status = |code: &str, words: &str| Some((code.to_owned(), words.to_owned()));
        let table: [(_, &[u8], Result<(), &str>); 6] = [
            (status("0", ""), &[0, 0, 0, 0, 2, 8, 1], Ok(())),
            (
                status("0", ""),
                &[0, 0, 0, 0, 2, 8, 2],
                Err("service unhealthy (responded with \"NOT_SERVING\")"),
            ),
            (
                status("0", ""),
                &[0, 0, 0, 0, 0],
                Err("service unhealthy (responded with \"UNKNOWN\")"),
            ),
            (
                status("5", "unknown service"),
                &[],
                Err("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
            ),
            (
                status("12", "unknown method"),
                &[],
                Err(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown method",
                ),
            ),
            (
                None,
                &[],
                Err(
                    "error: health rpc probe failed: rpc error: code = Internal desc = the server gave no grpc-status",
                ),
            ),
        ];
        for (status, message, expected) in table {
            assert_eq!(judge(status, message), expected.map_err(str::to_owned));
        }
    }
}
