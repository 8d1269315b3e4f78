//! The holder (`petset holder DATA_DIR ISOLATION`): the process that pods are held by, whatever becomes of petset.
//!
//! There is one for a data directory. It answers at [`SOCKET`], forks the pods' [shims](crate::shim) (a fork without an
//! exec is quick, and shares its memory), opens sockets in the cluster's network and hands them over, and, as an ordinary
//! user, *is* what the cluster's user and network namespaces belong to. It makes little and keeps nothing: what it has in
//! memory, every shim has.
//!
//! It is the subreaper of the shims. Should one be killed, what it held becomes the holder's, and is killed: no process
//! of a pod goes on without a shim. Should the data directory be removed, all goes with it.
//!
//! Should the holder itself be killed, shims and pods live on. The next holder of the data directory goes back (`rejoin`)
//! into their network, and they count as its own but for being its children.
//!
//! One thread, no runtime: a process that makes a user namespace must have one thread only.

pub mod client;
mod rejoin;

use crate::leftover::{self, Orphan};
use crate::network;
use crate::shim;
use crate::shim::network::cluster::{self, ClusterNetwork};
use crate::shim::protocol::holder::{Report, Request, SOCKET};
use crate::shim::protocol::{Isolation, Sandbox, pod};
use crate::shim::wire::Connection;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, getgid, getuid};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How often it is looked again whether processes without a shim have gone.
const AGAIN: u16 = 10;

/// What `petset holder DATA_DIR ISOLATION [NETWORK]` does: it says `ready` on standard output once it listens, and serves
/// then until it is told to leave. `NETWORK` is where the cluster's network namespace is open, if
/// petset has it.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let started = match arguments {
        [data_dir, isolation, network @ ..] if network.len() < 2 => Holder::start(
            Path::new(data_dir),
            &isolation.to_string_lossy(),
            network.first().map(Path::new),
        ),
        _ => Err("expected a data directory and an isolation".to_owned()),
    };
    match started {
        Ok(mut holder) => holder.serve(),
        Err(message) => {
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

struct Holder {
    data_dir: PathBuf,
    isolation: Isolation,
    listener: UnixListener,
    connections: Vec<Connection>,
    children: SignalFd,
    data_dir_watch: Inotify,
    shims: BTreeSet<Pid>,
    /// Shims of the holder before, should that have been killed.
    inherited: Vec<Orphan>,
    network: Option<ClusterNetwork>,
    /// Whether there may be children that are no shims.
    orphans: bool,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Serve,
    Leave,
}

impl Holder {
    fn start(data_dir: &Path, isolation: &str, network: Option<&Path>) -> Result<Self, String> {
        let isolation: Isolation =
            serde_json::from_value(isolation.into()).map_err(|_| format!("{isolation:?} is no isolation"))?;
        // A signal for the terminal that petset was started in is none for pods.
        let _ = nix::unistd::setsid();
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("cannot become subreaper: {e}"))?;
        let _ = nix::sys::prctl::set_name(c"petset-holder");
        let watch = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            inotify.add_watch(data_dir, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM)?;
            Ok(inotify)
        };
        let data_dir_watch =
            watch().map_err(|e: Errno| format!("cannot watch {}: {e}", data_dir.display()))?;
        let listener = listen(data_dir, SOCKET)?;
        let inherited = leftover::orphans(data_dir);
        if isolation == Isolation::Namespaces && !getuid().is_root() {
            let shims = inherited.iter().map(|shim| shim.pid);
            if !rejoin::rejoin(network, shims)? {
                own_namespaces()?;
            }
        }
        let children = block_signals().map_err(|e| format!("signals: {e}"))?;
        let _ = writeln!(io::stdout(), "ready");
        let log = data_dir.join("holder.log");
        shim::detach_standard_streams(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            isolation,
            listener,
            connections: Vec::new(),
            children,
            data_dir_watch,
            shims: BTreeSet::new(),
            inherited,
            network: None,
            orphans: false,
        })
    }

    fn serve(&mut self) -> ExitCode {
        loop {
            self.reap();
            let timeout = if self.orphans {
                PollTimeout::from(AGAIN)
            } else {
                PollTimeout::NONE
            };
            let mut ready = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.data_dir_watch.as_fd(), PollFlags::POLLIN),
            ];
            let own = ready.len();
            ready.extend(
                self.connections
                    .iter()
                    .map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut ready, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return ExitCode::FAILURE,
            }
            let ready: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            while let Ok(Some(_)) = self.children.read_signal() {}
            if ready[2] && self.is_deserted() {
                // Nobody can ask for pods any more.
                self.end();
                return ExitCode::SUCCESS;
            }
            for number in (0..self.connections.len()).rev() {
                if ready[own + number] && self.answer(number) == Next::Leave {
                    let _ = fs::remove_file(self.data_dir.join(SOCKET));
                    return ExitCode::SUCCESS;
                }
            }
            if ready[0]
                && let Ok((socket, _)) = self.listener.accept()
            {
                self.connections.push(Connection::new(socket.into()));
            }
        }
    }

    /// Whether somebody has removed the data directory, which begins or ends with the socket in it. (That a directory itself
    /// has gone is not told while files that were in it are open.)
    fn is_deserted(&self) -> bool {
        while self.data_dir_watch.read_events().is_ok() {}
        !self.data_dir.join(SOCKET).exists()
    }

    /// What one connection asks for.
    fn answer(&mut self, number: usize) -> Next {
        if !self.connections[number].receive() {
            self.connections.remove(number);
            return Next::Serve;
        }
        while let Some(line) = self.connections[number].next_line() {
            let (report, descriptor, next) = match serde_json::from_slice(&line) {
                Ok(request) => self.obey(request),
                Err(error) => (
                    failed(format!("cannot read a request: {error}")),
                    None,
                    Next::Serve,
                ),
            };
            let along: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            self.connections[number].send(&report, &along);
            if next == Next::Leave {
                return next;
            }
        }
        Next::Serve
    }

    fn obey(&mut self, request: Request) -> (Report, Option<OwnedFd>, Next) {
        let mut next = Next::Serve;
        let mut descriptor = None;
        let report = match request {
            Request::Hello => Report::Hello {
                pid: std::process::id() as i32,
                isolation: self.isolation,
                version: env!("CARGO_PKG_VERSION").into(),
            },
            Request::Network(network) => match cluster::set_up(&network) {
                Ok(()) => {
                    self.network = Some(network);
                    Report::Done
                }
                Err(error) => failed(error.to_string()),
            },
            Request::Sandbox(sandbox) => match self.fork_shim(*sandbox) {
                Ok(pid) => Report::Forked { pid: pid.as_raw() },
                Err(message) => failed(message),
            },
            Request::Socket {
                domain,
                kind,
                protocol,
            } => match network::open(domain, kind, protocol) {
                Ok(socket) => {
                    descriptor = Some(socket);
                    Report::Done
                }
                Err(error) => failed(format!("socket({domain}, {kind}, {protocol}): {error}")),
            },
            Request::Leave => match self.held() {
                0 => {
                    self.tear_down();
                    next = Next::Leave;
                    Report::Done
                }
                left => failed(format!("{left} pods are left")),
            },
            Request::End => {
                self.end();
                next = Next::Leave;
                Report::Done
            }
        };
        (report, descriptor, next)
    }

    /// The shim listens before it is there, so that one may connect at once; the rest takes it a while.
    fn fork_shim(&mut self, sandbox: Sandbox) -> Result<Pid, String> {
        let listener = listen(&sandbox.directory, pod::SOCKET)?;
        // SAFETY: the holder has one thread, so the child may do whatever a process may do.
        match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
            ForkResult::Child => {
                self.connections.clear();
                shim::serve(sandbox, listener)
            }
            ForkResult::Parent { child } => {
                self.shims.insert(child);
                Ok(child)
            }
        }
    }

    /// Take note of shims that have ended. What they left behind is killed.
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    // One that ends by itself leaves nothing behind; it costs a look to be sure of it.
                    self.orphans |= self.shims.remove(&pid);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(_) => {}
            }
        }
        if self.orphans {
            self.orphans = shim::kill_descendants(&self.shims);
        }
    }

    /// How many shims there are.
    fn held(&mut self) -> usize {
        self.reap();
        self.inherited.retain(|shim| shim.is_alive());
        self.shims.len() + self.inherited.len()
    }

    /// Kill everything, and wait until it is gone.
    fn end(&mut self) {
        for shim in std::mem::take(&mut self.inherited) {
            while shim.kill() {
                std::thread::sleep(Duration::from_millis(AGAIN.into()));
            }
        }
        for shim in std::mem::take(&mut self.shims) {
            let _ = kill(shim, Signal::SIGKILL);
        }
        loop {
            shim::kill_descendants(&self.shims);
            match waitpid(None, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.tear_down();
    }

    /// A network namespace of the cluster's own goes with its last process; a bridge of the host's stays.
    fn tear_down(&mut self) {
        if let Some(network) = self.network.take().filter(|network| !network.own)
            && let Err(error) = cluster::tear_down(&network.bridge)
        {
            shim::complain(&error.to_string());
        }
    }
}

fn failed(message: String) -> Report {
    Report::Failed { message }
}

/// SIGCHLD as something to read. No other signal ends a holder but one that cannot be refused: what it holds would be
/// unattended.
pub(crate) fn block_signals() -> nix::Result<SignalFd> {
    let mut refused = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
    ] {
        refused.add(signal);
    }
    refused.thread_block()?;
    let mut only_children = SigSet::empty();
    only_children.add(Signal::SIGCHLD);
    SignalFd::with_flags(&only_children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// A Unix socket that only its owner can open. Its path may be longer than the 108 bytes that an address has room for, so
/// it is bound from within its directory. One that is left there is replaced: the data directory is locked by who asks.
fn listen(directory: &Path, name: &str) -> Result<UnixListener, String> {
    let bind = || {
        std::env::set_current_dir(directory)?;
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(name);
        nix::sys::stat::umask(before);
        fs::set_permissions(name, fs::Permissions::from_mode(0o600))?;
        listener
    };
    let listener = bind();
    // Not to hold a file system that somebody wants to unmount.
    let _ = std::env::set_current_dir("/");
    let listener =
        listener.map_err(|e| format!("cannot listen on {}: {e}", directory.join(name).display()))?;
    fcntl(&listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| format!("{name}: {e}"))?;
    Ok(listener)
}

/// The user and network namespaces that an ordinary user's cluster lives in. The user is root there.
fn own_namespaces() -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|e| format!("cannot make namespaces: {e}"))?;
    shim::map_ids(Uid::from_raw(0), uid, nix::unistd::Gid::from_raw(0), gid)
        .map_err(|e| format!("cannot map user {uid} into a user namespace: {e}"))
}
