//! The way from the API server to a node's kubelet, which answers for logs and for what streams.

use axum::body::Body;
use axum::response::Response;

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
