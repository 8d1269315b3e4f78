//! HTTP and HTTPS requests of probes and hooks. A certificate is not verified: what is asked is whether the server is
//! there, and nobody could have signed for a pod's address.

use crate::network::Network;
use bytes::Bytes;
use http::header::LOCATION;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::{Arc, LazyLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The code.
    pub status: StatusCode,
    /// Where it leads (`Location`).
    pub location: Option<String>,
    /// The beginning of the text that came with a redirect.
    pub text: String,
}

/// Ask once, over a connection of its own: what is asked is whether new ones are taken. The error is what went wrong,
/// without the URL.
pub async fn ask(
    network: &Network,
    host: &str,
    port: u16,
    tls: bool,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, String> {
    let dial = |error: std::io::Error| format!("dial tcp {host}:{port}: {}", super::plain(&error));
    let stream = network.dial(host, port).await.map_err(dial)?;
    if !tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(CLIENT.clone()).connect(name, stream).await;
    exchange(stream.map_err(|error| error.to_string())?, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (status, location) = (answer.status(), location(&answer));
        let text = if status.is_redirection() {
            beginning(answer.into_body()).await
        } else {
            String::new()
        };
        Ok(Answer {
            status,
            location,
            text,
        })
    };
    tokio::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // It may have ended with the answer.
        _ = connection => asked.await,
    }
}

/// As much of a body as is kept for messages.
async fn beginning(mut body: Incoming) -> String {
    let mut text = Vec::new();
    while text.len() < super::KEPT
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend(frame.into_data().unwrap_or_default());
    }
    text.truncate(super::KEPT);
    String::from_utf8_lossy(&text).into_owned()
}

fn location<B>(answer: &Response<B>) -> Option<String> {
    let location = answer.headers().get(LOCATION)?;
    location.to_str().ok().map(str::to_owned)
}

static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has what the default versions need")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

/// Takes every certificate, if only the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    fn request() -> Request<Empty<Bytes>> {
        Request::get("/healthz")
            .header("Host", "pod")
            .body(Empty::new())
            .expect("a request")
    }

    /// Take a request's first bytes and answer.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("a request");
        assert_eq!(&start, b"GET /healthz");
        let answer = b"HTTP/1.1 418 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("answered");
        let _ = stream.shutdown().await;
    }

    #[tokio::test]
    async fn a_server_is_asked_with_and_without_a_certificate_that_nobody_signed() {
        let made = rcgen::generate_simple_self_signed(["elsewhere".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a server");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        for tls in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let serve = async {
                let (stream, _) = listener.accept().await.expect("a client");
                if tls {
                    answer(acceptor.accept(stream).await.expect("a handshake")).await;
                } else {
                    answer(stream).await;
                }
            };
            let network = Network::own();
            let (asked, ()) = tokio::join!(ask(&network, "127.0.0.1", port, tls, request()), serve);
            let expected = Answer {
                status: StatusCode::IM_A_TEAPOT,
                location: None,
                text: String::new(),
            };
            assert_eq!(asked, Ok(expected), "tls: {tls}");
        }
    }

    #[tokio::test]
    async fn of_a_redirect_the_text_is_kept_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.expect("a request");
            let text = "x".repeat(super::super::KEPT + 1);
            let head = format!("Location: /elsewhere\r\nContent-Length: {}", text.len());
            let answer = format!("HTTP/1.1 302 Found\r\n{head}\r\n\r\n{text}");
            let _ = stream.write_all(answer.as_bytes()).await;
        };
        let network = Network::own();
        let (asked, ()) = tokio::join!(ask(&network, "127.0.0.1", port, false, request()), serve);
        let asked = asked.expect("an answer");
        assert_eq!(asked.location.as_deref(), Some("/elsewhere"));
        assert_eq!(asked.text, "x".repeat(super::super::KEPT));
    }

    #[tokio::test]
    async fn what_does_not_listen_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        assert_eq!(
            ask(&Network::own(), "127.0.0.1", port, true, request()).await,
            Err(format!("dial tcp 127.0.0.1:{port}: connect: connection refused"))
        );
    }
}
