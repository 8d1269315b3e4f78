//! A container as the kubelet handles it.

use super::{Pod, lost};
use crate::shim::protocol::pod::{self, Ending, Request};
use crate::shim::protocol::{Exit, Isolation};
use crate::terminal::{Terminal, TerminalSize};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

/// A running or ended instance of a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// What was known of it at first.
    pub known: pod::Container,
    /// Process id of the main process, on the host.
    pub pid: i32,
    /// Where its processes are found.
    pub root: Root,
    pod: Pod,
    state: watch::Receiver<State>,
}

/// The process that a container's processes are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// They are all that is below this shim.
    Shim(i32),
    /// They are the main process, first of a PID namespace, and all that is below it.
    Main(i32),
}

/// Where a container is between its start and the end of its last process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How the main process ended, once it has.
    pub ending: Option<Ending>,
    /// Whether no process of it is left.
    pub gone: bool,
}

impl State {
    pub(super) fn of(container: &pod::Container) -> Self {
        Self {
            ending: container.ending,
            gone: container.gone,
        }
    }
}

/// What connects a client with a main process.
pub struct Attachment {
    /// Where what is said arrives, in frames of [`pod::said`].
    pub said: UnixStream,
    /// The standard input; the terminal of a container that has one.
    pub input: Option<OwnedFd>,
}

impl Container {
    pub(super) fn new(pod: Pod, known: pod::Container, state: watch::Receiver<State>) -> Self {
        let root = match pod.sandbox().isolation {
            Isolation::Namespaces => Root::Main(known.pid),
            Isolation::Mounts | Isolation::None => Root::Shim(pod.shim()),
        };
        Self {
            pid: known.pid,
            root,
            known,
            pod,
            state,
        }
    }

    /// What is known now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Wait until the main process has ended; how.
    pub async fn ended(&self) -> Ending {
        let mut state = self.state.clone();
        let ended = state.wait_for(|s| s.ending.is_some()).await;
        ended.ok().and_then(|state| state.ending).unwrap_or_else(lost)
    }

    /// The same, without when.
    pub async fn exited(&self) -> Exit {
        self.ended().await.exit
    }

    /// Wait until no process of the container is left.
    pub async fn gone(&self) {
        let mut state = self.state.clone();
        // An error says that there is another instance, which comes only when this one is gone.
        let _ = state.wait_for(|s| s.gone).await;
    }

    fn name(&self) -> String {
        self.known.name.clone()
    }

    /// Send a signal to the main process. One that has ended already is no error.
    pub async fn signal(&self, number: i32) {
        if self.state().ending.is_none() {
            let container = self.name();
            self.pod
                .request(&Request::Signal { container, number }, &[])
                .await;
        }
    }

    /// Kill every process of it.
    pub async fn kill(&self) {
        if !self.state().gone {
            let container = self.name();
            self.pod.request(&Request::Kill { container }, &[]).await;
        }
    }

    /// Run another program in the container with these as standard input, output and error, and wait for its
    /// end. Dropping the future kills the program.
    pub async fn exec(&self, argv: &[String], stdio: [OwnedFd; 3]) -> Result<Exit, String> {
        self.run(argv, false, None, stdio).await?.0.ended().await
    }

    /// Run another program with a terminal of this size: of the container's own, where it has such. Dropping the program
    /// kills it.
    pub async fn exec_in_terminal(
        &self,
        argv: &[String],
        size: TerminalSize,
    ) -> Result<(Terminal, Program), String> {
        let failed = |e: io::Error| format!("no terminal: {e}");
        if self.pod.sandbox().isolation < Isolation::Namespaces {
            let (terminal, slave) = Terminal::open().map_err(failed)?;
            terminal.resize(size);
            return Ok((terminal, self.run(argv, true, None, [slave]).await?.0));
        }
        let (mut program, terminal) = self.run(argv, true, Some(size), []).await?;
        let master = tokio::select! {
            biased;
            Ok(master) = terminal => master,
            // Without a terminal it has not started.
            ended = program.ended() => return Err(ended.err().unwrap_or_else(|| "it has no terminal".into())),
        };
        Ok((Terminal::of(master).map_err(failed)?, program))
    }

    /// The program, and its terminal if that is the container's own.
    async fn run<const N: usize>(
        &self,
        argv: &[String],
        tty: bool,
        own_terminal: Option<TerminalSize>,
        descriptors: [OwnedFd; N],
    ) -> Result<(Program, oneshot::Receiver<OwnedFd>), String> {
        if self.state().ending.is_some() {
            return Err("the container has ended".into());
        }
        let id = self.pod.next();
        let (tell, told) = oneshot::channel();
        let (give, terminal) = oneshot::channel();
        {
            let mut inner = self.pod.inner();
            inner.execs.insert(id, tell);
            if own_terminal.is_some() {
                inner.terminals.insert(id, give);
            }
        }
        let program = Program {
            pod: self.pod.clone(),
            id,
            told,
            runs: true,
        };
        let request = Request::Exec {
            id,
            container: self.name(),
            argv: argv.to_vec(),
            tty,
            own_terminal,
        };
        let raw = descriptors.each_ref().map(AsRawFd::as_raw_fd);
        self.pod.request(&request, &raw).await;
        drop(descriptors);
        self.pod.forget_if_lost();
        Ok((program, terminal))
    }

    /// Hear everything that the main process says from now on.
    pub async fn attach(&self) -> Result<Attachment, String> {
        let failed = |e: io::Error| format!("socketpair: {e}");
        let (said, to) = UnixStream::pair().map_err(failed)?;
        let id = self.pod.next();
        let (tell, told) = oneshot::channel();
        self.pod.inner().attaches.insert(id, tell);
        let request = Request::Attach {
            id,
            container: self.name(),
        };
        self.pod.request(&request, &[to.as_raw_fd()]).await;
        drop(to);
        self.pod.forget_if_lost();
        let input = told.await.map_err(|_| "the container has ended".to_owned())??;
        Ok(Attachment { said, input })
    }

    /// The end of the main process's input, once nobody who is attached has it any more.
    pub async fn close_input(&self) {
        let container = self.name();
        self.pod.request(&Request::CloseInput { container }, &[]).await;
    }
}

/// A program that runs beside a main process; dropping it kills it.
#[derive(Debug)]
pub struct Program {
    pod: Pod,
    id: u64,
    told: oneshot::Receiver<Result<Exit, String>>,
    runs: bool,
}

impl Program {
    /// Wait for its end. The error says why it could not be started.
    pub async fn ended(&mut self) -> Result<Exit, String> {
        let ended = (&mut self.told).await;
        self.runs = false;
        ended.unwrap_or_else(|_| Err("the container has ended".into()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.runs {
            {
                let mut inner = self.pod.inner();
                inner.execs.remove(&self.id);
                inner.terminals.remove(&self.id);
            }
            let (pod, id) = (self.pod.clone(), self.id);
            tokio::spawn(async move { pod.request(&Request::KillExec { id }, &[]).await });
        }
    }
}
