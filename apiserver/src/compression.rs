//! Large answers are compressed for clients that accept it, as upstream's are: gzip at its fastest, from 128 KiB on.
//! Watches, logs and streams are not: their size is not known before, or they are not an answer's encoding.

use http::header::CONTENT_TYPE;
use http_body::Body;
use tower_http::CompressionLevel;
use tower_http::compression::{CompressionLayer, Predicate};

/// Upstream's `defaultGzipThresholdBytes`.
const THRESHOLD: u64 = 128 * 1024;

/// The layer that compresses.
pub fn layer() -> CompressionLayer<Large> {
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(Large)
}

/// Answers whose size is known and worth it.
#[derive(Clone, Copy, Debug)]
pub struct Large;

impl Predicate for Large {
    fn should_compress<B: Body>(&self, response: &http::Response<B>) -> bool {
        let content_type = response.headers().get(CONTENT_TYPE);
        let encoded = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/"));
        encoded && response.body().size_hint().exact().unwrap_or(0) >= THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as AxumBody;
    use bytes::Bytes;

    fn compresses(content_type: &str, body: AxumBody) -> bool {
        let response = http::Response::builder().header(CONTENT_TYPE, content_type);
        Large.should_compress(&response.body(body).unwrap())
    }

    #[test]
    fn only_what_is_large_and_known_and_an_object_is_compressed() {
        let bytes = |size: u64| AxumBody::from(vec![b'x'; usize::try_from(size).unwrap()]);
        assert!(compresses("application/json", bytes(THRESHOLD)));
        assert!(compresses(
            "application/vnd.kubernetes.protobuf",
            bytes(THRESHOLD)
        ));
        assert!(!compresses("application/json", bytes(THRESHOLD - 1)));
        assert!(!compresses("text/plain", bytes(THRESHOLD)));
        let stream = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 20]))]);
        assert!(!compresses("application/json", AxumBody::from_stream(stream)));
    }
}
