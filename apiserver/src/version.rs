//! `/version`: the Kubernetes version whose behaviour this is, with petset's own as build metadata.

use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use serde_json::json;

/// The version that discovery, kubelet and Node status tell: upstream's, marked as petset's.
pub const GIT_VERSION: &str = concat!("v1.36.2+petset", ".", env!("CARGO_PKG_VERSION"));

/// `/version`, indented as upstream does whoever asks.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    });
    let body = format!("{version:#}");
    let answer = get(async move || ([(CONTENT_TYPE, "application/json")], body));
    Router::new()
        .route("/version", answer.clone())
        .route("/version/", answer)
}
