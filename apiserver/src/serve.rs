//! Listeners: HTTPS with client certificates and tokens, plain HTTP on loopback, and a Unix socket.
//!
//! The caller binds, and says when to stop: then nothing new is accepted, answers under way are given their
//! time, and whoever still holds a connection after [`GRACE`] loses it. Every connection has a task of its
//! own, so one that is slow to shake hands keeps nobody waiting.

use crate::auth::pki::{Pki, PkiError};
use crate::auth::{Authenticator, Unauthorized, User, is_public};
use crate::authorization::forbidden;
use crate::error::Error;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::serve::Listener;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Where the page is that has a browser send a request: `same-origin`, `same-site`, `cross-site`, `none`.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How long open answers may take once the server stops.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's header.
const HEADER: Duration = Duration::from_secs(60);
/// How often an HTTP/2 client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What the HTTPS listener needs to know.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    authenticator: Authenticator,
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// See there.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// rustls does not like them.
    #[error("cannot use the server's certificate: {0}")]
    Rustls(String),
}

impl Tls {
    /// Serve with `pki`'s certificate; accept its client certificates, and what `authenticator` knows.
    pub fn new(pki: &Pki, authenticator: Authenticator) -> Result<Tls, TlsError> {
        let bad = |error: &dyn std::fmt::Display| TlsError::Rustls(error.to_string());
        let certificate =
            CertificateDer::from_pem_slice(pki.server.certificate.as_bytes()).map_err(|e| bad(&e))?;
        let key = PrivateKeyDer::from_pem_slice(pki.server.key.as_bytes()).map_err(|e| bad(&e))?;
        let authority = CertificateDer::from_pem_slice(pki.authority.as_bytes()).map_err(|e| bad(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|e| bad(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| bad(&e))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .map_err(|e| bad(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            authenticator,
        })
    }
}

/// Who may be at the other end of a connection.
#[derive(Clone)]
enum Peer {
    /// Each request shows credentials, unless the connection has a client certificate.
    Remote(Authenticator, Option<User>),
    /// A process on this machine over plain TCP: the administrator, unless a web browser sends the request
    /// on behalf of somebody else's page.
    Loopback,
    /// The owner of the socket.
    Owner,
}

/// HTTPS, HTTP/1.1 and HTTP/2, until `shutdown`.
pub async fn serve_tls(listener: TcpListener, router: Router, tls: Tls, shutdown: CancellationToken) {
    let admit = move |stream: TcpStream| {
        let Tls {
            acceptor,
            authenticator,
        } = tls.clone();
        async move {
            quick(&stream);
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            let stream = match handshake {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return None;
                }
                Err(_) => {
                    tracing::debug!("TLS handshake took too long");
                    return None;
                }
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let user = certificates.and_then(|chain| User::from_certificate(chain.first()?));
            Some((stream, Peer::Remote(authenticator, user)))
        }
    };
    run(listener, router, admit, shutdown).await;
}

/// Plain HTTP for the administrator: bind it to loopback only. Until `shutdown`.
pub async fn serve_http(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let admit = |stream: TcpStream| async move {
        quick(&stream);
        Some((stream, Peer::Loopback))
    };
    run(listener, router, admit, shutdown).await;
}

/// Plain HTTP on a Unix socket, for this process's own user and root only. Until `shutdown`.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    let admit = |stream: UnixStream| async move {
        match (own_uid(), stream.peer_cred()) {
            (Ok(own), Ok(peer)) if peer.uid() == own || peer.uid() == 0 => Some((stream, Peer::Owner)),
            (_, Ok(peer)) => {
                tracing::warn!(uid = peer.uid(), "refused another user on the Unix socket");
                None
            }
            (_, Err(error)) => {
                tracing::debug!(%error, "cannot tell who is on the Unix socket");
                None
            }
        }
    };
    run(listener, router, admit, shutdown).await;
}

/// The user that this process runs as: whoever is at the other end of a socket it made for itself.
fn own_uid() -> io::Result<u32> {
    let (socket, _other) = UnixStream::pair()?;
    Ok(socket.peer_cred()?.uid())
}

/// Small answers are not held back.
fn quick(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}

async fn run<L, F, A, S>(mut listener: L, router: Router, admit: A, shutdown: CancellationToken)
where
    L: Listener,
    A: Fn(L::Io) -> F,
    F: Future<Output = Option<(S, Peer)>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _) = listener.accept() => {
                connections.spawn(connection(admit(stream), router.clone(), shutdown.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "closing connections that are still open"
        );
        connections.shutdown().await;
    }
}

async fn connection<S>(
    admitted: impl Future<Output = Option<(S, Peer)>>,
    router: Router,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(Some((stream, peer))) = shutdown.run_until_cancelled(admitted).await else {
        return;
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        answer(request.map(Body::new), router.clone(), peer.clone())
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(250);
    let mut connection =
        std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(request: Request<Body>, router: Router, peer: Peer) -> Result<Response<Body>, Infallible> {
    // The body is not looked at, and could not be shared with another thread.
    let (parts, body) = request.into_parts();
    let admitted = admit_request(&peer, &parts).await;
    let mut request = Request::from_parts(parts, body);
    match admitted {
        Ok(user) => {
            request.headers_mut().remove(AUTHORIZATION);
            request.extensions_mut().insert(user);
            router.oneshot(request).await
        }
        Err(error) => Ok(error.into_response()),
    }
}

async fn admit_request(peer: &Peer, request: &Parts) -> Result<User, Error> {
    match peer {
        Peer::Owner => Ok(User::admin()),
        Peer::Loopback if is_local(request) => Ok(User::admin()),
        Peer::Loopback => Err(forbidden(
            "the plain HTTP listener answers only requests to this machine's own name \
             (Host and Origin must be localhost, 127.0.0.1 or [::1])",
        )),
        Peer::Remote(authenticator, certificate) => {
            let user = authenticator
                .authenticate(certificate.as_ref(), &request.headers)
                .await;
            let user = user.map_err(|Unauthorized| Error::Unauthorized)?;
            match user == User::anonymous() && !is_public(request.uri.path()) {
                true => Err(Error::Unauthorized),
                false => Ok(user),
            }
        }
    }
}

/// Whether the request names this machine as its host and, if it comes from a page, as that page's: a page
/// elsewhere could otherwise have a browser start pods here, or read from here after rebinding its own name.
fn is_local(request: &Parts) -> bool {
    let headers: &HeaderMap = &request.headers;
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = request.uri.host().or_else(|| text(HOST)).unwrap_or_default();
    let origin = text(ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    // Browsers say of every request where the page is from which it comes; a page on another port is one of
    // another site's if it is a form that is sent, whose origin may be left out.
    let from_elsewhere = text(FETCH_SITE).is_some_and(|site| site == "cross-site");
    is_loopback_name(host) && origin.is_none_or(is_loopback_name) && !from_elsewhere
}

fn is_loopback_name(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token::{Account, Grant, Tokens};
    use axum::Extension;
    use jiff::Timestamp;
    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use std::net::SocketAddr;
    use store::{MemoryStore, Store};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Answers with the user's name.
    fn router() -> Router {
        Router::new().fallback(|Extension(user): Extension<User>| async move { user.name })
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
        // A server that closes without close_notify has still answered.
        let _ = read.expect("an answer in time");
        answer
    }

    struct Secure {
        pki: Pki,
        tokens: Arc<Tokens>,
        address: SocketAddr,
        _directory: tempfile::TempDir,
        _stop: tokio_util::sync::DropGuard,
    }

    impl Secure {
        async fn start() -> Secure {
            let directory = tempfile::tempdir().unwrap();
            let pki = Pki::open(&directory.path().join("pki"), &[], Timestamp::now()).unwrap();
            let tokens = Arc::new(Tokens::new(&pki.service_account_key).unwrap());
            let store = MemoryStore::new();
            let account = br#"{"metadata":{"name":"web","namespace":"shop","uid":"u1"}}"#;
            let written = store.create("/core/serviceaccounts/shop/web", account.as_slice().into());
            written.await.unwrap();
            let authenticator = Authenticator {
                tokens: Some(tokens.clone()),
                admin_token: Some(crate::auth::digest(&pki.admin_token)),
                clock: Arc::new(Timestamp::now),
                store: Arc::new(store),
            };
            let tls = Tls::new(&pki, authenticator).unwrap();
            let (listener, address) = listener().await;
            let stop = CancellationToken::new();
            tokio::spawn(serve_tls(listener, router(), tls, stop.clone()));
            Secure {
                pki,
                tokens,
                address,
                _directory: directory,
                _stop: stop.drop_guard(),
            }
        }

        async fn ask(&self, as_admin: bool, path: &str, headers: &str) -> String {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(self.pki.authority.as_bytes()).unwrap())
                .unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let config = if as_admin {
                let certificate = CertificateDer::from_pem_slice(self.pki.admin.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(self.pki.admin.key.as_bytes()).unwrap();
                config
                    .with_client_auth_cert(vec![certificate.unwrap()], key)
                    .unwrap()
            } else {
                config.with_no_client_auth()
            };
            let stream = TcpStream::connect(self.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await
                .unwrap();
            ask(stream, path, &format!("Host: localhost\r\n{headers}")).await
        }
    }

    #[tokio::test]
    async fn a_request_over_tls_is_who_its_certificate_or_token_says() {
        let server = Secure::start().await;
        assert!(server.ask(true, "/api", "").await.ends_with("system:admin"));
        let admin = format!("Authorization: Bearer {}\r\n", server.pki.admin_token);
        assert!(server.ask(false, "/api", &admin).await.ends_with("system:admin"));
        let token = server.tokens.issue(&Grant {
            namespace: "shop",
            account: Account {
                name: "web",
                uid: "u1",
            },
            expires: Timestamp::now() + jiff::SignedDuration::from_hours(1),
            now: Timestamp::now(),
            ..Grant::default()
        });
        let answer = server
            .ask(false, "/api", &format!("Authorization: Bearer {token}\r\n"))
            .await;
        assert!(answer.ends_with("system:serviceaccount:shop:web"), "{answer}");
    }

    #[tokio::test]
    async fn without_credentials_only_health_is_told() {
        let server = Secure::start().await;
        assert!(
            server
                .ask(false, "/healthz", "")
                .await
                .ends_with("system:anonymous")
        );
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/apis/apps",
            "/apis/apps/v1/",
            "/metrics",
            "/openapi/v3/api/v1",
            "/api/v1/namespaces/default/pods",
        ] {
            let answer = server.ask(false, path, "").await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        }
        let answer = server.ask(false, "/api", "Authorization: Bearer wrong\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains(r#""reason":"Unauthorized""#), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_shake_hands_keeps_nobody_waiting() {
        let server = Secure::start().await;
        let mut idle = Vec::new();
        for _ in 0..8 {
            idle.push(TcpStream::connect(server.address).await.unwrap());
        }
        let mut broken = TcpStream::connect(server.address).await.unwrap();
        broken.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(server.ask(true, "/api", "").await.ends_with("system:admin"));
    }

    #[tokio::test]
    async fn plain_http_answers_the_machine_and_no_foreign_page() {
        let (listener, address) = listener().await;
        let stop = CancellationToken::new();
        tokio::spawn(serve_http(listener, router(), stop.clone()));
        let ask_with =
            async |headers: &str| ask(TcpStream::connect(address).await.unwrap(), "/", headers).await;
        for good in [
            format!("Host: {address}\r\n"),
            "Host: localhost:1\r\n".to_owned(),
            "Host: [::1]:8080\r\n".to_owned(),
            "Host: localhost\r\nOrigin: http://localhost:3000\r\n".to_owned(),
            "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        ] {
            let answer = ask_with(&good).await;
            assert!(answer.ends_with("system:admin"), "{good} {answer}");
        }
        for bad in [
            "Host: evil.example\r\n",
            "Host: localhost.evil.example\r\n",
            "Host: localhost\r\nOrigin: https://evil.example\r\n",
            "Host: localhost\r\nOrigin: null\r\n",
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        ] {
            let answer = ask_with(bad).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{bad} {answer}");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn the_unix_socket_answers_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let stop = CancellationToken::new();
        tokio::spawn(serve_unix(
            UnixListener::bind(&path).unwrap(),
            router(),
            stop.clone(),
        ));
        let answer = ask(UnixStream::connect(&path).await.unwrap(), "/", "Host: x\r\n").await;
        assert!(answer.ends_with("system:admin"), "{answer}");
        stop.cancel();
    }

    #[tokio::test]
    async fn stopping_finishes_answers_and_closes_idle_connections() {
        let (listener, address) = listener().await;
        let stop = CancellationToken::new();
        let started = Arc::new(tokio::sync::Notify::new());
        let slow = {
            let (started, stop) = (started.clone(), stop.clone());
            async move || {
                started.notify_one();
                stop.cancelled().await;
                "to the end"
            }
        };
        let router = router().route("/slow", axum::routing::get(slow));
        let server = tokio::spawn(serve_http(listener, router, stop.clone()));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        idle.read_exact(&mut [0; 12]).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        tokio::time::timeout(DEADLINE, started.notified())
            .await
            .expect("the slow request arrives");
        stop.cancel();
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, slow.read_to_string(&mut answer)).await;
        read.expect("an answer in time").unwrap();
        assert!(answer.ends_with("to the end"), "{answer}");
        tokio::time::timeout(GRACE / 2, server)
            .await
            .expect("idle connections are closed at once")
            .unwrap();
    }
}
