//! A registry on a loopback address, with whatever a test puts into it.

use super::build::Built;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use kubelet::image::digest::Digest;
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

type Content = Arc<Mutex<HashMap<String, (String, Vec<u8>)>>>;

/// Serves until it is dropped.
pub struct Registry {
    address: String,
    content: Content,
    _runtime: tokio::runtime::Runtime,
}

impl Registry {
    /// An empty one.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let content = Content::default();
        let router = Router::new()
            .route("/v2/", get(async || StatusCode::OK))
            .route("/v2/{*path}", get(answer))
            .with_state(content.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            content,
            _runtime: runtime,
        }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Put an image in, its layers with gzip. The digests of its manifest and of its packed layers.
    pub fn push(&self, repository: &str, tag: &str, image: &Built) -> (Digest, Vec<Digest>) {
        let packed = image.layers.iter().map(|layer| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(layer).expect("compressed");
            encoder.finish().expect("compressed")
        });
        let blob = |bytes: Vec<u8>, media_type: &str| {
            let (digest, size) = (Digest::of(&bytes), bytes.len());
            self.put(
                &format!("{repository}/blobs/{digest}"),
                "application/octet-stream",
                bytes,
            );
            json!({"mediaType": media_type, "digest": digest, "size": size})
        };
        let layers: Vec<_> = packed
            .map(|bytes| blob(bytes, "application/vnd.oci.image.layer.v1.tar+gzip"))
            .collect();
        let config = blob(image.config.clone(), "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        self.put(
            &format!("{repository}/manifests/{digest}"),
            media_type,
            bytes.clone(),
        );
        self.put(&format!("{repository}/manifests/{tag}"), media_type, bytes);
        let of =
            |layer: &serde_json::Value| layer["digest"].as_str().expect("digest").parse().expect("digest");
        (digest, layers.iter().map(of).collect())
    }

    /// Change what is answered for a path.
    pub fn put(&self, path: &str, media_type: &str, bytes: Vec<u8>) {
        let mut content = self.content.lock().expect("not poisoned");
        content.insert(path.to_owned(), (media_type.to_owned(), bytes));
    }
}

async fn answer(Path(path): Path<String>, State(content): State<Content>) -> impl IntoResponse {
    match content.lock().expect("not poisoned").get(&path) {
        Some((media_type, bytes)) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, media_type.clone())],
            bytes.clone(),
        )
            .into_response(),
        None => {
            let error = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
            (StatusCode::NOT_FOUND, error.to_string()).into_response()
        }
    }
}
