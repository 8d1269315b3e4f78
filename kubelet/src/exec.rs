//! Programs in running containers, and their main processes, as a client sees them: `exec` and `attach` between plain
//! streams and a container. Which protocol the streams travel in is no concern of this file.

use crate::Kubelet;
use crate::process::Container as Process;
pub use crate::shim::protocol::Exit;
use axum::http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// The size of a client's terminal, in characters. JSON: `{"Width":80,"Height":24}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// What a client has connected. `None`: not asked for.
#[derive(Default)]
pub struct Streams {
    /// Its end closes the program's standard input.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// With a terminal everything comes here.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Never with a terminal.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// The client's terminal has changed its size.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

/// A container that runs.
#[derive(Clone, Debug)]
pub struct Running {
    pub(crate) process: Process,
    pub(crate) address: Option<IpAddr>,
}

/// The containers that run now: by their pod's UID and their name.
#[derive(Debug, Default)]
pub(crate) struct Containers(Mutex<HashMap<String, HashMap<String, Running>>>);

impl Containers {
    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<String, Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, uid: &str, name: &str, running: Running) {
        let mut pods = self.pods();
        pods.entry(uid.to_owned())
            .or_default()
            .insert(name.to_owned(), running);
    }

    pub(crate) fn remove(&self, uid: &str, name: &str) {
        let mut pods = self.pods();
        if let Some(containers) = pods.get_mut(uid) {
            containers.remove(name);
            if containers.is_empty() {
                pods.remove(uid);
            }
        }
    }

    pub(crate) fn remove_pod(&self, uid: &str) {
        self.pods().remove(uid);
    }

    fn get(&self, uid: &str, name: &str) -> Option<Running> {
        self.pods().get(uid)?.get(name).cloned()
    }

    fn address(&self, uid: &str) -> Option<IpAddr> {
        self.pods().get(uid)?.values().find_map(|running| running.address)
    }
}

impl Kubelet {
    async fn uid(&self, namespace: &str, pod: &str) -> Result<String, (StatusCode, String)> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(pod).await;
        let found = found.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        let uid = found.and_then(|pod| pod.metadata.uid);
        uid.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
    }

    /// The running container, looked up before the connection is upgraded; a refusal is an HTTP status and a text in
    /// upstream's words.
    pub async fn running(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<Running, (StatusCode, String)> {
        let uid = self.uid(namespace, pod).await?;
        self.containers.get(&uid, container).ok_or_else(|| {
            let message = format!("container not found ({container:?})");
            (StatusCode::INTERNAL_SERVER_ERROR, message)
        })
    }

    /// Where a pod's ports are; refused unless it runs.
    pub async fn pod_address(&self, namespace: &str, pod: &str) -> Result<IpAddr, (StatusCode, String)> {
        let uid = self.uid(namespace, pod).await?;
        self.containers.address(&uid).ok_or_else(|| {
            let message = format!("pod not found (\"{pod}_{namespace}\")");
            (StatusCode::INTERNAL_SERVER_ERROR, message)
        })
    }
}

/// After a program has ended, what still holds its output is not waited for when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(500);

impl Running {
    /// Run a program in the container until it and its output end; dropping the future kills it. Output is read as fast
    /// as it is written out. `Err`: it could not be started, in a container runtime's words (upstream's kubelet puts
    /// `error executing command in container: ` before them and makes a Status of reason InternalError of it).
    pub async fn exec(&self, argv: &[String], tty: bool, streams: Streams) -> Result<Exit, String> {
        if tty {
            return Err("petset cannot exec with a terminal yet".into());
        }
        let (stdin, stdin_write) = input(streams.stdin.is_some())?;
        let (stdout_read, stdout) = output(streams.stdout.is_some())?;
        let (stderr_read, stderr) = output(streams.stderr.is_some())?;
        let process = self.process.exec(argv, [stdin, stdout, stderr]);
        let (ended, end) = tokio::sync::watch::channel(false);
        let process = async move {
            let exit = process.await;
            ended.send_replace(true);
            exit
        };
        let feed = async {
            if let (Some(from), Some(to)) = (streams.stdin, stdin_write) {
                feed(from, to).await;
            }
            std::future::pending::<()>().await;
        };
        let out = drain(stdout_read, streams.stdout, end.clone());
        let err = drain(stderr_read, streams.stderr, end);
        tokio::select! {
            (exit, (), ()) = async { tokio::join!(process, out, err) } => exit.map_err(|why| {
                format!("failed to exec in container: failed to start exec: {why}")
            }),
            () = feed => unreachable!("feeding waits for ever at its end"),
        }
    }

    /// Connect to the main process until it ends (its exit) or the client goes; the container lives on. (Upstream tells
    /// clients of `attach` Success, however the process ended.)
    pub async fn attach(&self, _streams: Streams) -> Result<Exit, String> {
        Err("petset cannot attach yet".into())
    }

    /// Whether the main process has a terminal.
    pub fn tty(&self) -> bool {
        false
    }
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("no pipe: {error}")
}

/// A program's standard input, and where to write it.
fn input(wanted: bool) -> Result<(OwnedFd, Option<pipe::Sender>), String> {
    if !wanted {
        return Ok((null()?, None));
    }
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    Ok((read, Some(pipe::Sender::from_owned_fd(write).map_err(failed)?)))
}

/// Where a program writes to, and where to read it.
fn output(wanted: bool) -> Result<(Option<pipe::Receiver>, OwnedFd), String> {
    if !wanted {
        return Ok((None, null()?));
    }
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    Ok((Some(pipe::Receiver::from_owned_fd(read).map_err(failed)?), write))
}

fn null() -> Result<OwnedFd, String> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)
}

/// Pass on what the client types until either side has enough.
async fn feed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // A program that reads no more is no error.
    let _: io::Result<u64> = tokio::io::copy(&mut from, &mut to).await;
}

/// Pass on what the program says until its end; after the program's own end only while something comes.
async fn drain(
    from: Option<impl AsyncRead + Unpin>,
    to: Option<impl AsyncWrite + Unpin>,
    mut end: tokio::sync::watch::Receiver<bool>,
) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    let mut chunk = vec![0; 16 << 10];
    loop {
        let quiet = async {
            // An error says that the program's end is known, too.
            let _ = end.wait_for(|ended| *ended).await;
            tokio::time::sleep(QUIET).await;
        };
        let length = tokio::select! {
            read = from.read(&mut chunk) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
            () = quiet => return,
        };
        if to.write_all(&chunk[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
