//! Containers as processes, seen from the kubelet: each one is started through a [shim](crate::shim) and spoken to
//! over a socket. A container counts as gone only when the shim has seen its last process end.

use crate::console::Input;
use crate::shim::protocol::{Exit, MainStdio, Report, Request, Spec};
use crate::terminal::Terminal;
use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{OnceCell, oneshot, watch};

/// Starts containers.
#[derive(Debug)]
pub struct Launcher {
    executable: PathBuf,
    isolation: OnceCell<Result<(), String>>,
}

/// A container that has been started, and its streams.
pub struct Started {
    /// What to do with it from now on.
    pub container: Container,
    /// Its standard input, if its spec asks for one.
    pub stdin: Option<Input>,
    /// Its standard output; with a terminal everything.
    pub stdout: Output,
    /// Its standard error; nothing with a terminal.
    pub stderr: Output,
    /// Its terminal, for changes of its size.
    pub terminal: Option<Terminal>,
}

/// What a program says.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A running or ended container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Process id of the main process, on the host.
    pub pid: i32,
    /// Process id of the shim.
    pub shim: i32,
    stream: Arc<UnixStream>,
    /// Held while a line is sent, so that lines do not mix.
    sending: Arc<tokio::sync::Mutex<()>>,
    state: watch::Receiver<State>,
    execs: Arc<Execs>,
}

/// Where a container is between its start and the end of its last process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How the main process ended, once it has.
    pub exit: Option<Exit>,
    /// Whether no process of it is left.
    pub gone: bool,
}

#[derive(Debug, Default)]
struct Execs {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Exit, String>>>>,
}

impl Execs {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Exit, String>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launcher {
    /// A launcher whose shims are `executable` called with the argument `shim`.
    pub fn new(executable: PathBuf) -> Self {
        Self {
            executable,
            isolation: OnceCell::new(),
        }
    }

    /// Whether pods can have mount and UTS namespaces here; if not, why. Tried once, in a process of its own.
    pub async fn isolation(&self) -> Result<(), String> {
        let probe = || async {
            let mut command = self.shim();
            let output = command.arg("--probe").stdin(Stdio::null()).output().await;
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => Err(format!("cannot run {}: {error}", self.executable.display())),
            }
        };
        self.isolation.get_or_init(probe).await.clone()
    }

    fn shim(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg("shim").env_clear().current_dir("/");
        command
    }

    /// Start a container. The error says what could not be done, in words for the user.
    pub async fn start(&self, spec: &Spec) -> Result<Started, String> {
        let Standard {
            stdin,
            terminal,
            descriptor,
        } = Standard::of(spec.stdio).map_err(|e| format!("no standard input: {e}"))?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| format!("socketpair: {e}"))?;
        let theirs = theirs.into_std().map_err(|e| format!("socketpair: {e}"))?;
        theirs
            .set_nonblocking(false)
            .map_err(|e| format!("socketpair: {e}"))?;
        let mut child = self
            .shim()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", self.executable.display()))?;
        let shim = child.id().map_or(0, |id| id as i32);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("the shim has no output".into());
        };
        let raw: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        send(&ours, spec, &raw)
            .await
            .map_err(|e| format!("cannot speak to the shim: {e}"))?;
        drop(descriptor);
        let stream = Arc::new(ours);
        let mut reports = Reports::new(stream.clone());
        let pid = match reports.next().await {
            Some(Report::Started { pid }) => pid,
            Some(Report::Failed { message }) => {
                let _ = child.wait().await;
                return Err(message);
            }
            other => return Err(format!("the shim ended before the container started ({other:?})")),
        };
        let (tell, state) = watch::channel(State::default());
        let execs = Arc::new(Execs::default());
        tokio::spawn(listen(reports, child, tell, execs.clone()));
        let (stdout, stderr): (Output, Output) = match &terminal {
            Some(terminal) => (Box::new(terminal.clone()), Box::new(tokio::io::empty())),
            None => (Box::new(stdout), Box::new(stderr)),
        };
        Ok(Started {
            container: Container {
                pid,
                shim,
                stream,
                sending: Arc::default(),
                state,
                execs,
            },
            stdin,
            stdout,
            stderr,
            terminal,
        })
    }
}

/// What a main process's standard input is made of.
#[derive(Default)]
struct Standard {
    stdin: Option<Input>,
    terminal: Option<Terminal>,
    /// The process's end of it.
    descriptor: Option<OwnedFd>,
}

impl Standard {
    fn of(kind: MainStdio) -> io::Result<Self> {
        Ok(match kind {
            MainStdio::NoInput => Self::default(),
            MainStdio::Input => {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                Self {
                    stdin: Some(Box::new(pipe::Sender::from_owned_fd(write)?)),
                    terminal: None,
                    descriptor: Some(read),
                }
            }
            MainStdio::Terminal => {
                let (terminal, slave) = Terminal::open()?;
                Self {
                    stdin: Some(Box::new(terminal.clone())),
                    terminal: Some(terminal),
                    descriptor: Some(slave),
                }
            }
        })
    }
}

impl Container {
    /// What is known now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Wait until the main process has ended; how.
    pub async fn exited(&self) -> Exit {
        let mut state = self.state.clone();
        match state.wait_for(|s| s.exit.is_some() || s.gone).await {
            Ok(state) => state.exit.unwrap_or(LOST),
            Err(_) => LOST,
        }
    }

    /// Wait until no process of the container is left.
    pub async fn gone(&self) {
        let mut state = self.state.clone();
        // An error says that the listener has ended, which it does only after the shim.
        let _ = state.wait_for(|s| s.gone).await;
    }

    /// Send a signal to the main process. One that has ended already is no error.
    pub async fn signal(&self, number: i32) {
        self.request(&Request::Signal(number), &[]).await;
    }

    /// Kill every process of it.
    pub async fn kill(&self) {
        self.request(&Request::Kill, &[]).await;
    }

    async fn request(&self, request: &Request, descriptors: &[RawFd]) {
        let _sending = self.sending.lock().await;
        if let Err(error) = send(&self.stream, request, descriptors).await {
            tracing::debug!(pid = self.pid, %error, "the shim is gone");
        }
    }

    /// Run another program in the container with these as standard input, output and error, and wait for its
    /// end. Dropping the future kills the program.
    pub async fn exec(&self, argv: &[String], stdio: [OwnedFd; 3]) -> Result<Exit, String> {
        self.run(argv, false, stdio).await
    }

    /// The same with a terminal, whose slave this is.
    pub async fn exec_in_terminal(&self, argv: &[String], slave: OwnedFd) -> Result<Exit, String> {
        self.run(argv, true, [slave]).await
    }

    async fn run<const N: usize>(
        &self,
        argv: &[String],
        tty: bool,
        descriptors: [OwnedFd; N],
    ) -> Result<Exit, String> {
        let id = self.execs.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.execs.waiting().insert(id, tell);
        let mut guard = KillOnDrop {
            container: self.clone(),
            id,
            armed: true,
        };
        let raw = descriptors.each_ref().map(AsRawFd::as_raw_fd);
        let argv = argv.to_vec();
        self.request(&Request::Exec { id, argv, tty }, &raw).await;
        drop(descriptors);
        if self.state().gone {
            self.execs.waiting().remove(&id);
        }
        let ended = told.await;
        guard.armed = false;
        ended.unwrap_or_else(|_| Err("the container has ended".into()))
    }
}

/// What is said of a main process whose shim ended without a word: as after SIGKILL.
const LOST: Exit = Exit {
    code: 137,
    signal: Some(9),
};

struct KillOnDrop {
    container: Container,
    id: u64,
    armed: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.container.execs.waiting().remove(&self.id);
            let (container, id) = (self.container.clone(), self.id);
            tokio::spawn(async move { container.request(&Request::KillExec { id }, &[]).await });
        }
    }
}

/// Pass on what the shim reports, until it is gone.
async fn listen(mut reports: Reports, mut child: Child, tell: watch::Sender<State>, execs: Arc<Execs>) {
    while let Some(report) = reports.next().await {
        match report {
            Report::Exited(exit) => tell.send_modify(|s| s.exit = Some(exit)),
            Report::ExecExited { id, exit } => answer(&execs, id, Ok(exit)),
            Report::ExecFailed { id, message } => answer(&execs, id, Err(message)),
            Report::Gone => break,
            Report::Started { .. } | Report::Failed { .. } => {}
        }
    }
    let _ = child.wait().await;
    tell.send_modify(|s| s.gone = true);
    execs.waiting().clear();
}

fn answer(execs: &Execs, id: u64, result: Result<Exit, String>) {
    if let Some(waiting) = execs.waiting().remove(&id) {
        let _ = waiting.send(result);
    }
}

/// The shim's reports, a line each.
struct Reports {
    lines: tokio::io::Lines<BufReader<ReadHalf>>,
}

impl Reports {
    fn new(stream: Arc<UnixStream>) -> Self {
        Self {
            lines: BufReader::new(ReadHalf(stream)).lines(),
        }
    }

    async fn next(&mut self) -> Option<Report> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}

/// Reading from a socket that others write to.
struct ReadHalf(Arc<UnixStream>);

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return std::task::Poll::Ready(Err(error)),
            }
        }
    }
}

/// One line; the descriptors travel with its first byte.
async fn send(stream: &UnixStream, message: &impl serde::Serialize, descriptors: &[RawFd]) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut sent = 0;
    while sent < line.len() {
        let with_first = if sent == 0 { descriptors } else { &[] };
        let control = [ControlMessage::ScmRights(with_first)];
        let control = if with_first.is_empty() {
            &control[..0]
        } else {
            &control[..]
        };
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let slices = [IoSlice::new(&line[sent..])];
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                sendmsg::<()>(stream.as_raw_fd(), &slices, control, flags, None).map_err(io::Error::from)
            })
            .await?;
    }
    Ok(())
}
