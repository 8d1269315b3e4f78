//! The wire side of exec, attach and port-forward: upgraded connections, in the protocols that clients of Kubernetes
//! speak, joined with containers and ports.
//!
//! A request is checked before it is upgraded, so that every refusal is an answer in HTTP. After that a conversation
//! has a task of its own, which the kubelet holds and ends.

mod forward;
mod idle;
mod negotiate;
mod options;
mod pipe;
mod remote;
mod resize;
mod spdy;
mod status;
mod tunnel;
mod websocket;

use crate::Kubelet;
use crate::exec::Exit;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use negotiate::{Channels, FORWARD, Misunderstood, REMOTE, Wire};
use options::Wanted;
use remote::Program;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::Tunnel;

/// The conversations that go on. They end with the kubelet.
#[derive(Debug, Default)]
pub struct Conversations {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Conversations {
    /// Hold one, from the connection's upgrade to its end.
    fn hold<T: Future<Output = ()> + Send>(
        &self,
        upgrade: OnUpgrade,
        talk: impl FnOnce(TokioIo<Upgraded>) -> T + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let work = async {
                match upgrade.await {
                    Ok(upgraded) => talk(TokioIo::new(upgraded)).await,
                    Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// End all and wait for that.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

type Refusal = (StatusCode, String);

fn bad(why: impl Into<String>) -> Refusal {
    (StatusCode::BAD_REQUEST, why.into())
}

/// What the routes' handlers are given of a request.
struct Asked {
    headers: HeaderMap,
    upgrade: OnUpgrade,
    wire: Wire,
}

impl Asked {
    fn of(mut request: Request) -> Result<Self, Refusal> {
        let wire = Wire::of(request.headers()).ok_or_else(|| bad("Upgrade request required"))?;
        let why = "unable to upgrade: this connection cannot be upgraded; HTTP/1.1 can";
        let upgrade = request
            .extensions_mut()
            .remove::<OnUpgrade>()
            .ok_or_else(|| bad(why))?;
        Ok(Self {
            headers: std::mem::take(request.headers_mut()),
            upgrade,
            wire,
        })
    }

    /// The answer that begins a WebSocket in `protocol`.
    fn websocket(&self, protocol: &'static str) -> Result<Response<Body>, Refusal> {
        let key = self.headers.get(SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| bad("unable to upgrade: Sec-WebSocket-Key is required"))?;
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64");
        let mut response = switching("websocket");
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        if !protocol.is_empty() {
            let protocol = HeaderValue::from_static(protocol);
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        Ok(response)
    }

    /// The answer that begins SPDY and the version of its streams, or the answer that refuses it.
    fn spdy(&self, known: &[&'static str]) -> Result<(Response<Body>, &'static str), Box<Response<Body>>> {
        let chosen = negotiate::spdy(&self.headers, known);
        let version = chosen.map_err(|refused| match refused {
            Misunderstood::Unsaid(why) => Box::new(bad(why).into_response()),
            Misunderstood::Unknown(why) => {
                let mut response = (StatusCode::FORBIDDEN, why).into_response();
                for version in known {
                    let version = HeaderValue::from_static(version);
                    response
                        .headers_mut()
                        .append(negotiate::ACCEPTED_PROTOCOLS, version);
                }
                Box::new(response)
            }
        })?;
        let mut response = switching("SPDY/3.1");
        let headers = response.headers_mut();
        headers.insert(negotiate::STREAM_PROTOCOL, HeaderValue::from_static(version));
        Ok((response, version))
    }

    /// The protocol of channels, or a 403.
    fn channels(&self, known: &[Channels]) -> Result<Channels, Refusal> {
        negotiate::websocket(&self.headers, known).map_err(|why| (StatusCode::FORBIDDEN, why))
    }
}

fn switching(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

type Container = Path<(String, String, String)>;
type Pairs = Query<Vec<(String, String)>>;

/// `/exec/NAMESPACE/POD/CONTAINER?command=…&input=1&output=1&error=1&tty=1`
pub async fn exec(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Container,
    Query(query): Pairs,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let wanted = Wanted::parse(&query).map_err(bad)?;
    if wanted.command.is_empty() {
        return Err(bad("you must specify at least 1 command for the container"));
    }
    let asked = Asked::of(request)?;
    let running = kubelet.running(&namespace, &pod, &container).await?;
    let (command, tty) = (wanted.command.clone(), wanted.tty);
    let program: Program = Box::new(move |streams| {
        Box::pin(async move {
            let outcome = running.exec(&command, tty, streams).await;
            outcome.map_err(|why| format!("error executing command in container: {why}"))
        })
    });
    begin(&kubelet, asked, wanted, program)
}

/// `/attach/NAMESPACE/POD/CONTAINER?input=1&output=1&error=1&tty=1`
pub async fn attach(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Container,
    Query(query): Pairs,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let mut wanted = Wanted::parse(&query).map_err(bad)?;
    wanted.command.clear();
    let asked = Asked::of(request)?;
    let running = kubelet.running(&namespace, &pod, &container).await?;
    // Whether there is a terminal was settled when the container started.
    wanted.tty = running.tty();
    wanted.stderr &= !wanted.tty;
    let program: Program = Box::new(move |streams| {
        Box::pin(async move {
            let outcome = running.attach(streams).await;
            // However the process ended: that is the pod's to tell.
            let outcome = outcome.map(|_| Exit {
                code: 0,
                signal: None,
            });
            outcome.map_err(|why| format!("error attaching to container: {why}"))
        })
    });
    begin(&kubelet, asked, wanted, program)
}

/// `/portForward/NAMESPACE/POD`, with `?port=80&port=81` if its channels are to be fixed.
pub async fn port_forward(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(query): Pairs,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let asked = Asked::of(request)?;
    let is_tunnel = negotiate::is_tunnel(&asked.headers);
    let ports = match asked.wire {
        Wire::WebSocket if !is_tunnel => options::ports(&query).map_err(bad)?,
        _ => Vec::new(),
    };
    let address = kubelet.pod_address(&namespace, &pod).await?;
    let pod = forward::Pod {
        name: pod,
        address,
        network: kubelet.options.network.clone(),
    };
    let conversations = &kubelet.conversations;
    match asked.wire {
        Wire::WebSocket if is_tunnel => {
            let response = asked.websocket(negotiate::TUNNEL)?;
            conversations.hold(asked.upgrade, move |io| async move {
                forward::over_spdy(Tunnel::new(websocket::accept(io).await), pod).await;
            });
            Ok(response)
        }
        Wire::WebSocket => {
            let protocol = asked.channels(FORWARD)?;
            let response = asked.websocket(protocol.name)?;
            conversations.hold(asked.upgrade, move |io| {
                forward::over_websocket(io, protocol, ports, pod)
            });
            Ok(response)
        }
        Wire::Spdy => {
            let response = match asked.spdy(forward::SPDY) {
                Ok((response, _)) => response,
                Err(refusal) => return Ok(*refusal),
            };
            conversations.hold(asked.upgrade, move |io| forward::over_spdy(io, pod));
            Ok(response)
        }
    }
}

/// Upgrade, and let the client talk with the program.
fn begin(
    kubelet: &Kubelet,
    asked: Asked,
    wanted: Wanted,
    program: Program,
) -> Result<Response<Body>, Refusal> {
    match asked.wire {
        Wire::WebSocket => {
            let protocol = asked.channels(REMOTE)?;
            let response = asked.websocket(protocol.name)?;
            kubelet.conversations.hold(asked.upgrade, move |io| {
                remote::over_websocket(io, protocol, wanted, program)
            });
            Ok(response)
        }
        Wire::Spdy => {
            let (response, protocol) = match asked.spdy(remote::SPDY) {
                Ok(begun) => begun,
                Err(refusal) => return Ok(*refusal),
            };
            kubelet.conversations.hold(asked.upgrade, move |io| {
                remote::over_spdy(io, protocol, wanted, program)
            });
            Ok(response)
        }
    }
}
