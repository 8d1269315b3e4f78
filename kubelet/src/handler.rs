//! The ways in which probes and lifecycle hooks reach a container: a command in it, an HTTP request, a TCP
//! connection, a pause.

mod grpc;
mod http;
mod redirect;

use crate::network::Network;
use crate::process::Container as Process;
use bytes::Bytes;
use http_body_util::Empty;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, HTTPHeader, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nix::fcntl::OFlag;
use redirect::Place;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How much of an answer is kept for messages.
const KEPT: usize = 10 << 10;

/// What to reach.
#[derive(Clone, Debug)]
pub struct Target {
    /// The running container.
    pub process: Process,
    /// Its pod's address.
    pub address: Option<IpAddr>,
    /// The way to it.
    pub network: Network,
}

/// One way.
#[derive(Clone, Debug)]
pub enum Handler {
    /// Success is exit code 0.
    Exec(ExecAction),
    /// Success is a status from 200 to 399.
    HttpGet(HTTPGetAction),
    /// Success is a connection.
    TcpSocket(TCPSocketAction),
    /// Success is the passing of time.
    Sleep(Duration),
    /// Success is the answer SERVING.
    Grpc(GRPCAction),
}

/// What a probe finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All is well.
    Success,
    /// All is well, but somebody should know this.
    Warning(String),
    /// Something is wrong with the container; what.
    Failure(String),
    /// It could not be asked, which says nothing of the container; why.
    Error(String),
}

impl Handler {
    /// A probe's handler.
    pub fn of_probe(probe: &Probe) -> Option<Self> {
        let exec = probe.exec.clone().map(Handler::Exec);
        let http = || probe.http_get.clone().map(Handler::HttpGet);
        let tcp = || probe.tcp_socket.clone().map(Handler::TcpSocket);
        exec.or_else(http)
            .or_else(tcp)
            .or_else(|| probe.grpc.clone().map(Handler::Grpc))
    }

    /// A hook's handler.
    pub fn of_hook(hook: &LifecycleHandler) -> Option<Self> {
        let exec = hook.exec.clone().map(Handler::Exec);
        let http = || hook.http_get.clone().map(Handler::HttpGet);
        let tcp = || hook.tcp_socket.clone().map(Handler::TcpSocket);
        let sleep = || {
            let seconds = hook.sleep.as_ref()?.seconds;
            Some(Handler::Sleep(Duration::from_secs(
                u64::try_from(seconds).unwrap_or(0),
            )))
        };
        exec.or_else(http).or_else(tcp).or_else(sleep)
    }

    /// Be a hook, once. As upstream's, an HTTP hook has succeeded whatever the server answers. The error says why not.
    pub async fn run(&self, container: &Container, target: &Target) -> Result<(), String> {
        match self {
            Handler::HttpGet(action) => http_get(action, container, target).await.map(drop),
            _ => match self.probe(container, target).await {
                Answer::Success | Answer::Warning(_) => Ok(()),
                Answer::Failure(message) | Answer::Error(message) => Err(message),
            },
        }
    }

    /// Be a probe, once.
    pub async fn probe(&self, container: &Container, target: &Target) -> Answer {
        self.ask(container, target).await.unwrap_or_else(Answer::Error)
    }

    async fn ask(&self, container: &Container, target: &Target) -> Result<Answer, String> {
        let judged = |done: Result<(), String>| done.map_or_else(Answer::Failure, |()| Answer::Success);
        Ok(match self {
            Handler::Exec(action) => {
                let (said, exit) = output(&action.command.clone().unwrap_or_default(), target).await?;
                match exit {
                    0 => Answer::Success,
                    _ => Answer::Failure(String::from_utf8_lossy(&said).into_owned()),
                }
            }
            Handler::HttpGet(action) => {
                // Whether there is something to ask at all.
                host(action.host.as_deref(), target)?;
                port(&action.port, container)?;
                let answer = http_get(action, container, target).await;
                answer.map_or_else(Answer::Failure, judge)
            }
            Handler::TcpSocket(action) => {
                let host = host(action.host.as_deref(), target)?;
                let port = port(&action.port, container)?;
                let connected = target.network.dial(&host, port).await.map(drop);
                judged(connected.map_err(|e| format!("dial tcp {host}:{port}: {}", plain(&e))))
            }
            Handler::Sleep(duration) => {
                tokio::time::sleep(*duration).await;
                Answer::Success
            }
            Handler::Grpc(action) => {
                let host = host(None, target)?;
                let port = port(&IntOrString::Int(action.port), container)?;
                let service = action.service.as_deref().unwrap_or_default();
                judged(grpc::check(&target.network, &host, port, service).await)
            }
        })
    }

    /// What a time-out is called in events.
    pub fn timeout_message(&self, timeout: Duration) -> String {
        match self {
            Handler::Exec(_) => {
                format!(
                    "command timed out: {:?} timed out after {}s",
                    self.command(),
                    timeout.as_secs()
                )
            }
            Handler::Grpc(_) => format!(
                "timeout: health rpc did not complete within {}s",
                timeout.as_secs()
            ),
            _ => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into(),
        }
    }

    fn command(&self) -> String {
        match self {
            Handler::Exec(action) => action.command.clone().unwrap_or_default().join(" "),
            _ => String::new(),
        }
    }
}

/// `connection refused` without Rust's `(os error 111)`.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("connect: {}", text.to_lowercase())
}

fn host(named: Option<&str>, target: &Target) -> Result<String, String> {
    match named.filter(|h| !h.is_empty()) {
        Some(host) => Ok(host.to_owned()),
        None => target
            .address
            .map(|a| a.to_string())
            .ok_or_else(|| "the pod has no address".into()),
    }
}

/// A port by number or by the name that the container declares.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let declared = container.ports.iter().flatten();
            let by_name = declared
                .filter(|p| p.name.as_ref() == Some(name))
                .map(|p| p.container_port)
                .next();
            by_name.or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| format!("couldn't find port: {port:?}"))?;
    u16::try_from(number)
        .ok()
        .filter(|p| *p > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// Run a command in the container; what it said on both streams, and its exit code.
async fn output(command: &[String], target: &Target) -> Result<(Vec<u8>, i32), String> {
    let failed = |e: std::io::Error| format!("cannot make a pipe: {e}");
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    let null = || -> Result<OwnedFd, String> { Ok(std::fs::File::open("/dev/null").map_err(failed)?.into()) };
    let both = write.try_clone().map_err(failed)?;
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(read).map_err(failed)?;
    let read_all = async move {
        let (mut reader, mut said, mut chunk) = (reader, Vec::new(), [0u8; 4096]);
        // Read to the end even when enough is kept, or the command would block.
        while let Ok(length @ 1..) = reader.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..length.min(KEPT.saturating_sub(said.len()))]);
        }
        said
    };
    let (exit, said) = tokio::join!(target.process.exec(command, [null()?, write, both]), read_all);
    Ok((said, exit?.code))
}

/// What an HTTP answer says of a container: a redirect that is not followed is well, and worth a word.
fn judge(answer: http::Answer) -> Answer {
    match answer.status.as_u16() {
        200..=299 => Answer::Success,
        300..=399 => {
            let text = answer.text;
            Answer::Warning(format!("Probe terminated redirects, Response body: {text}"))
        }
        status => Answer::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// The answer at the end of the redirects that are followed.
async fn http_get(
    action: &HTTPGetAction,
    container: &Container,
    target: &Target,
) -> Result<http::Answer, String> {
    let mut place = Place {
        scheme: action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
        host: host(action.host.as_deref(), target)?,
        port: port(&action.port, container)?,
        path: format!(
            "/{}",
            action.path.as_deref().unwrap_or("/").trim_start_matches('/')
        ),
    };
    let headers = action.http_headers.as_deref().unwrap_or_default();
    for _ in 0..=redirect::MOST {
        let url = place.url();
        let failed = |error: &dyn std::fmt::Display| format!("Get {url:?}: {error}");
        let request = get(&place, headers).map_err(|e| failed(&e))?;
        let tls = place.scheme == "https";
        let answer = http::ask(&target.network, &place.host, place.port, tls, request).await;
        let answer = answer.map_err(|e| failed(&e))?;
        match place.follow(answer.status.as_u16(), answer.location.as_deref()) {
            Some(next) => place = next,
            None => return Ok(answer),
        }
    }
    Err(format!(
        "Get {:?}: stopped after {} redirects",
        place.url(),
        redirect::MOST
    ))
}

fn get(place: &Place, headers: &[HTTPHeader]) -> Result<::http::Request<Empty<Bytes>>, ::http::Error> {
    let mut request = ::http::Request::get(&place.path)
        .header("User-Agent", "kube-probe/1.36")
        .header("Accept", "*/*");
    if !headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request = request.header("Host", format!("{}:{}", place.host, place.port));
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    request.body(Empty::<Bytes>::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::StatusCode;

    #[test]
    fn a_redirect_to_elsewhere_is_a_success_with_a_warning() {
        let judged = |status, text: &str| {
            judge(http::Answer {
                status: StatusCode::from_u16(status).expect("a status"),
                location: None,
                text: text.to_owned(),
            })
        };
        assert_eq!(judged(200, ""), Answer::Success);
        let warning = "Probe terminated redirects, Response body: <a>there</a>";
        assert_eq!(judged(302, "<a>there</a>"), Answer::Warning(warning.into()));
        let failure = "HTTP probe failed with statuscode: 400";
        assert_eq!(judged(400, ""), Answer::Failure(failure.into()));
    }
}
