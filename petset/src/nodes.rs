//! The API server's way to kubelets: to the one in this process, or to one alone through its Unix socket, whose path it
//! has put on its Node object.

use apiserver::nodes::{Nodes, join};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// The Node's annotation with the path of its kubelet's socket.
pub const SOCKET_ANNOTATION: &str = "petset.dev/kubelet-socket";

/// Kubelets of this process, by node.
#[derive(Default)]
pub struct InProcess {
    routers: RwLock<HashMap<String, Router>>,
}

impl InProcess {
    /// From now on `router` answers for `node`.
    pub fn serve(&self, node: &str, router: Router) {
        self.routers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.into(), router);
    }
}

#[async_trait]
impl Nodes for InProcess {
    async fn call(&self, node: &str, request: Request<Body>) -> Result<Response, String> {
        let router = self
            .routers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(node)
            .cloned();
        let router = router.ok_or_else(|| format!("no kubelet of node {node:?} runs here"))?;
        router.oneshot(request).await.map_err(|never| match never {})
    }
}

/// Kubelets that run alone on this machine.
#[derive(Default)]
pub struct Sockets {
    client: OnceLock<kube::Client>,
    /// Connections to kubelets, and clients joined with kubelets.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sockets {
    /// Look nodes up through `client`, which there is only once the API server is.
    pub fn look_up_with(&self, client: kube::Client) {
        // A second client would know no more than the first.
        let _ = self.client.set(client);
    }

    /// End all connections and wait for that.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn<T>(&self, work: impl Future<Output = T> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    async fn socket(&self, node: &str) -> Result<String, String> {
        let client = self.client.get().ok_or("the API server is not up yet")?;
        let nodes: kube::Api<Node> = kube::Api::all(client.clone());
        let found = nodes.get(node).await.map_err(|e| e.to_string())?;
        let path = found
            .metadata
            .annotations
            .and_then(|mut all| all.remove(SOCKET_ANNOTATION));
        path.ok_or_else(|| format!("node {node:?} has no annotation {SOCKET_ANNOTATION}"))
    }
}

#[async_trait]
impl Nodes for Sockets {
    async fn call(&self, node: &str, mut request: Request<Body>) -> Result<Response, String> {
        let path = self.socket(node).await?;
        let unreachable =
            |error: &dyn std::fmt::Display| format!("cannot reach the kubelet at {path}: {error}");
        let stream = UnixStream::connect(&path).await.map_err(|e| unreachable(&e))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| unreachable(&e))?;
        self.spawn(connection.with_upgrades());
        let client = request.extensions_mut().remove::<OnUpgrade>();
        request
            .headers_mut()
            .insert(http::header::HOST, http::HeaderValue::from_static("kubelet"));
        let mut response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), client) {
            self.spawn(join(client, hyper::upgrade::on(&mut response)));
        }
        Ok(response.map(Body::new))
    }
}
