//! What the server says about itself over HTTP: `/metrics`, and to its owner `/zone`, every record as it is served.

use crate::metrics::Metrics;
use crate::zone::Live;
use crate::zonefile;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

/// Bound sockets; none where nobody is to look.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Serves everything to whoever can open it.
    pub owner: Option<UnixListener>,
    /// Serves metrics only: they name nobody.
    pub metrics: Option<TcpListener>,
}

/// Answer until this is dropped, or a socket cannot be served any more. Without sockets it waits forever.
pub async fn serve(listeners: Listeners, live: Arc<Live>, metrics: Arc<Metrics>) -> io::Result<()> {
    let scraped = of_metrics(metrics.clone());
    let owned = of_metrics(metrics).merge(of_zone(live));
    let owner = async {
        match listeners.owner {
            Some(listener) => axum::serve(listener, owned).await,
            None => std::future::pending().await,
        }
    };
    let scraper = async {
        match listeners.metrics {
            Some(listener) => axum::serve(listener, scraped).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = owner => ended,
        ended = scraper => ended,
    }
}

/// `/metrics`, in Prometheus' text format.
fn of_metrics(metrics: Arc<Metrics>) -> Router {
    let answer = async move || {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(http::header::CONTENT_TYPE, kind)], metrics.print())
    };
    Router::new().route("/metrics", get(answer))
}

/// `/zone`, as [`zonefile::json`] has it.
fn of_zone(live: Arc<Live>) -> Router {
    let answer = async move || {
        let zone = live.zone();
        // A large cluster's records are a second's work, which would hold up others here.
        let written = tokio::task::spawn_blocking(move || {
            let lines = zonefile::lines(&zone.apexes(), &zone.records());
            serde_json::to_vec(&zonefile::json(&lines))
        });
        match written.await {
            Ok(Ok(json)) => ([(http::header::CONTENT_TYPE, "application/json")], json).into_response(),
            _ => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    Router::new().route("/zone", get(answer))
}
