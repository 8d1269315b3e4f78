//! Programs in running containers, and their main processes, as a client sees them: `exec` and `attach` between plain
//! streams and a container. Which protocol the streams travel in is no concern of this file.

use crate::Kubelet;
use crate::console::{Console, Said, Stream};
use crate::process::{Container as Process, Root};
pub use crate::shim::protocol::Exit;
use crate::terminal::Terminal;
pub use crate::terminal::TerminalSize;
use axum::http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

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
    process: Process,
    console: Arc<Console>,
    address: Option<IpAddr>,
}

/// The containers that run now, by their pods' UIDs.
#[derive(Debug, Default)]
pub(crate) struct Containers(Mutex<HashMap<String, PodContainers>>);

#[derive(Debug, Default)]
struct PodContainers {
    namespace: String,
    name: String,
    /// By name, with the time of their start.
    running: BTreeMap<String, (Running, Timestamp)>,
}

/// One container that runs.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    /// Where its processes are found.
    pub root: Root,
    pub started: Timestamp,
}

impl Containers {
    fn pods(&self) -> MutexGuard<'_, HashMap<String, PodContainers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, pod: &Pod, name: &str, running: Running, started: Timestamp) {
        let metadata = &pod.metadata;
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let mut pods = self.pods();
        let known = pods.entry(text(&metadata.uid)).or_default();
        (known.namespace, known.name) = (text(&metadata.namespace), text(&metadata.name));
        known.running.insert(name.to_owned(), (running, started));
    }

    pub(crate) fn remove(&self, uid: &str, name: &str) {
        let mut pods = self.pods();
        if let Some(pod) = pods.get_mut(uid) {
            pod.running.remove(name);
            if pod.running.is_empty() {
                pods.remove(uid);
            }
        }
    }

    pub(crate) fn remove_pod(&self, uid: &str) {
        self.pods().remove(uid);
    }

    pub(crate) fn list(&self) -> Vec<Listed> {
        let pods = self.pods();
        let of = |(uid, pod): (&String, &PodContainers)| {
            let listed = pod.running.iter().map(|(name, (running, started))| Listed {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                uid: uid.clone(),
                container: name.clone(),
                root: running.process.root,
                started: *started,
            });
            listed.collect::<Vec<_>>()
        };
        pods.iter().flat_map(of).collect()
    }

    fn get(&self, uid: &str, name: &str) -> Option<Running> {
        let pods = self.pods();
        pods.get(uid)?
            .running
            .get(name)
            .map(|(running, _)| running.clone())
    }

    fn address(&self, uid: &str) -> Option<IpAddr> {
        let pods = self.pods();
        pods.get(uid)?
            .running
            .values()
            .find_map(|(running, _)| running.address)
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

/// After a program has ended, what still holds its output is not waited for when nothing has come for so long, or when
/// so much has come: all that the program itself said is in it.
const QUIET: Duration = Duration::from_millis(500);
const LEFT_OVER: usize = 1 << 20;

/// How long a program with a terminal is held back until the client says how large it is.
const FIRST_SIZE: Duration = Duration::from_millis(100);

impl Running {
    /// A container whose main process has this console, in a pod with this address.
    pub fn new(process: Process, console: Arc<Console>, address: Option<IpAddr>) -> Self {
        Self {
            process,
            console,
            address,
        }
    }

    /// Run a program in the container until it and its output end; dropping the future kills it. Output is read as fast
    /// as it is written out. `Err`: it could not be started, in a container runtime's words (upstream's kubelet puts
    /// `error executing command in container: ` before them and makes a Status of reason InternalError of it).
    pub async fn exec(&self, argv: &[String], tty: bool, streams: Streams) -> Result<Exit, String> {
        let result = if tty {
            self.exec_in_terminal(argv, streams).await
        } else {
            self.exec_in_pipes(argv, streams).await
        };
        result.map_err(|why| {
            let state = self.process.state();
            if state.ending.is_some() || state.gone {
                return "failed to exec in container: container is in CONTAINER_EXITED state".into();
            }
            let runc = "OCI runtime exec failed: exec failed: unable to start container process";
            let id = self.process.pid;
            format!("failed to exec in container: failed to start exec \"{id}\": {runc}: {why}: unknown")
        })
    }

    async fn exec_in_pipes(&self, argv: &[String], streams: Streams) -> Result<Exit, String> {
        let (stdin, to_stdin) = input(streams.stdin.is_some())?;
        let (from_stdout, stdout) = output(streams.stdout.is_some())?;
        let (from_stderr, stderr) = output(streams.stderr.is_some())?;
        let (ended, end) = watch::channel(false);
        let program = self.process.exec(argv, [stdin, stdout, stderr]);
        let said = async {
            let stdout = drain(from_stdout, streams.stdout, end.clone());
            let stderr = drain(from_stderr, streams.stderr, end.clone());
            tokio::join!(stdout, stderr);
        };
        let typed = feed(streams.stdin, to_stdin);
        until_silent(program, ended, said, typed).await
    }

    async fn exec_in_terminal(&self, argv: &[String], mut streams: Streams) -> Result<Exit, String> {
        let mut size = TerminalSize::default();
        if let Some(resize) = &mut streams.resize
            && let Ok(Some(first)) = tokio::time::timeout(FIRST_SIZE, resize.recv()).await
        {
            size = first;
        }
        let (ended, end) = watch::channel(false);
        let (terminal, mut program) = self.process.exec_in_terminal(argv, size).await?;
        let program = program.ended();
        let said = drain(Some(terminal.clone()), streams.stdout, end);
        let typed = feed(streams.stdin, Some(terminal.clone()));
        let resized = size_of(streams.resize, Some(terminal));
        until_silent(program, ended, said, async {
            tokio::join!(biased; resized, typed)
        })
        .await
    }

    /// Connect to the main process until it ends (its exit) or the client goes; the container lives on. The end of the
    /// client's input is the process's with `stdinOnce` and no terminal; otherwise it is the end of the connection, as
    /// with container runtimes. (Upstream tells clients of `attach` Success, however the process ended.)
    pub async fn attach(&self, streams: Streams) -> Result<Exit, String> {
        // Listening begins before anything is typed: the answer may come at once.
        let Ok(connected) = self.console.connect().await else {
            // There is nothing more to hear.
            return Ok(self.process.exited().await);
        };
        let said = hear(connected.said, streams.stdout, streams.stderr);
        let typed = async {
            if let (Some(from), Some(input)) = (streams.stdin, connected.input) {
                let closing = self
                    .console
                    .closes_stdin()
                    .then(|| CloseOnDrop(self.console.clone()));
                feed(Some(from), Some(input)).await;
                match closing {
                    Some(closing) => drop(closing),
                    None => return,
                }
            }
            std::future::pending().await
        };
        let resized = async {
            size_of(streams.resize, connected.terminal).await;
            std::future::pending().await
        };
        // A client that says how large its terminal is and then types is understood in this order.
        tokio::select! {
            biased;
            () = resized => {}
            heard = said => heard?,
            () = typed => return Ok(Exit { code: 0, signal: None }),
        }
        Ok(self.process.exited().await)
    }

    /// Whether the main process has a terminal.
    pub fn tty(&self) -> bool {
        self.console.tty()
    }
}

/// The end of the input of a process whose one client for it goes.
struct CloseOnDrop(Arc<Console>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let console = self.0.clone();
        tokio::spawn(async move { console.close_stdin().await });
    }
}

/// Where a client takes what a program says.
type Ear = Option<Box<dyn AsyncWrite + Send + Unpin>>;

/// What a main process says, until it says no more.
async fn hear(mut said: Said<UnixStream>, mut stdout: Ear, mut stderr: Ear) -> Result<(), String> {
    let slow = |_| "the client reads more slowly than the container writes, and has lost output".to_owned();
    while let Some((stream, bytes)) = said.next().await.map_err(slow)? {
        let to = match stream {
            Stream::Stdout => &mut stdout,
            Stream::Stderr => &mut stderr,
        };
        if let Some(to) = to {
            let gone = |error: io::Error| format!("the client is gone: {error}");
            to.write_all(&bytes).await.map_err(gone)?;
            to.flush().await.map_err(gone)?;
        }
    }
    Ok(())
}

/// The program's exit, once it has ended and nothing more is `said`; `beside` goes on for as long.
async fn until_silent(
    program: impl Future<Output = Result<Exit, String>>,
    ended: watch::Sender<bool>,
    said: impl Future<Output = ()>,
    beside: impl Future,
) -> Result<Exit, String> {
    let program = async {
        let exit = program.await;
        ended.send_replace(true);
        exit
    };
    let both = async {
        tokio::pin!(said);
        tokio::pin!(program);
        tokio::select! {
            exit = &mut program => {
                // A program that has not started has said nothing.
                let exit = exit?;
                said.await;
                Ok(exit)
            }
            () = &mut said => program.await,
        }
    };
    tokio::pin!(both);
    tokio::select! {
        exit = &mut both => exit,
        _ = beside => both.await,
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

/// Pass on what the client types until either side has enough; then let go of both.
async fn feed(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // A program that reads no more is no error.
        let _: io::Result<u64> = tokio::io::copy(&mut from, &mut to).await;
    }
}

/// Let the terminal have the sizes that the client's has.
async fn size_of(resize: Option<mpsc::Receiver<TerminalSize>>, terminal: Option<Terminal>) {
    if let (Some(mut resize), Some(terminal)) = (resize, terminal) {
        while let Some(size) = resize.recv().await {
            terminal.resize(size);
        }
    }
}

/// Pass on what the program says until its end; after the program's own end only while something comes.
async fn drain(
    from: Option<impl AsyncRead + Unpin>,
    to: Option<impl AsyncWrite + Unpin>,
    mut end: watch::Receiver<bool>,
) {
    let Some(mut from) = from else { return };
    let mut to = to;
    let mut chunk = vec![0; 16 << 10];
    let mut left_over = 0;
    while left_over < LEFT_OVER {
        let quiet = async {
            // An error says that the program's end is known, too.
            let _ = end.wait_for(|ended| *ended).await;
            tokio::time::sleep(QUIET).await;
        };
        let length = tokio::select! {
            // On a busy machine the pause may be over before what was said in time has been read.
            biased;
            read = from.read(&mut chunk) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
            () = quiet => return,
        };
        if *end.borrow() {
            left_over += length;
        }
        if let Some(to) = &mut to
            && (to.write_all(&chunk[..length]).await.is_err() || to.flush().await.is_err())
        {
            return;
        }
    }
}
