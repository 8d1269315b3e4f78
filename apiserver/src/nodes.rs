//! The way from the API server to a node's kubelet, which answers for logs and for what streams.

use axum::body::Body;
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Carries a request to the kubelet of a node.
#[async_trait::async_trait]
pub trait Nodes: Send + Sync {
    /// Send `request` (its URI is a path such as `/containerLogs/NAMESPACE/POD/CONTAINER?follow=true`) to
    /// the kubelet of `node`. If the answer is 101 and the request has a `hyper::upgrade::OnUpgrade` among its
    /// extensions, the kubelet talks over that connection from then on. The error says why it cannot be reached.
    async fn call(&self, node: &str, request: http::Request<Body>) -> Result<Response, String>;
}

/// No kubelet can be reached: an API server that runs alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNodes;

#[async_trait::async_trait]
impl Nodes for NoNodes {
    async fn call(&self, node: &str, _request: http::Request<Body>) -> Result<Response, String> {
        Err(format!("no kubelet of node {node:?} is known to this API server"))
    }
}

/// Join a client with whom it is to speak, once both have changed the protocol: pass on what either says until both have
/// said all.
pub async fn join(client: OnUpgrade, behind: OnUpgrade) {
    let joined = async {
        let (client, behind) = tokio::try_join!(client, behind).map_err(std::io::Error::other)?;
        let (mut client, mut behind) = (TokioIo::new(client), TokioIo::new(behind));
        tokio::io::copy_bidirectional(&mut client, &mut behind).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "a joined connection ended");
    }
}
