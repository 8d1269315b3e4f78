//! The shim: the process between the kubelet and one container (`petset shim`).
//!
//! It makes the container's namespaces, starts its program, and is the *subreaper* of everything that comes from
//! it, so that a process tree of whatever shape can be killed to the last process, and the kernel itself says when
//! none is left (`ECHILD`). It speaks [`protocol`] with the kubelet over its standard input. When the kubelet
//! goes away, even by `kill -9`, the socket ends and the shim takes the whole tree down with it: no process of a
//! pod outlives its kubelet.
//!
//! One thread, no runtime: a process that makes a user namespace must have one thread only.

pub mod cgroup;
pub mod confine;
mod container;
mod launch;
pub(crate) mod log;
pub mod network;
mod output;
mod pod;
pub mod protocol;
mod spawn;
mod tree;
pub mod user;
pub mod view;
pub(crate) mod wire;

pub(crate) use pod::serve;
pub use tree::descendants;
pub(crate) use tree::kill_descendants;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getgid, getuid};
use protocol::{Exit, MainStdio, Report, Request, Spec};
use spawn::Stdio;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;

/// What `petset shim [--probe]` does. Without argument: read a [`Spec`] from the socket that is standard input and
/// serve it to its end. With `--probe`: find out whether this process may make the namespaces that pods want.
pub fn main(arguments: &[OsString]) -> ExitCode {
    if arguments.iter().any(|a| a == "--probe") {
        return probe();
    }
    match Shim::start() {
        Ok(Some(mut shim)) => shim.serve(),
        Ok(None) => ExitCode::FAILURE,
        Err(message) => {
            // No kubelet to tell: somebody started the shim by hand.
            let _ = writeln!(io::stderr(), "petset shim: {message}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> ExitCode {
    match isolate(&Spec {
        namespaces: true,
        ..Spec::default()
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

struct Shim {
    kubelet: Connection,
    children: SignalFd,
    /// The container's main process; `None` once it has ended.
    main: Option<Pid>,
    execs: HashMap<Pid, u64>,
    spec: Spec,
}

impl Shim {
    /// `None`: the container could not be started, and the kubelet has been told.
    fn start() -> Result<Option<Self>, String> {
        let mut kubelet = Connection::from_stdin().map_err(|e| format!("standard input: {e}"))?;
        let line = loop {
            match kubelet.next_line() {
                Some(line) => break line,
                None if kubelet
                    .receive()
                    .map_err(|e| format!("cannot read the spec: {e}"))? => {}
                None => return Err("the kubelet went away".into()),
            }
        };
        let spec: Spec = serde_json::from_slice(&line).map_err(|e| format!("cannot read the spec: {e}"))?;
        let descriptor = kubelet.descriptors.pop_front();
        match Self::run(spec, descriptor) {
            Ok((main, children, spec)) => {
                kubelet.send(&Report::Started { pid: main.as_raw() });
                Ok(Some(Self {
                    kubelet,
                    children,
                    main: Some(main),
                    execs: HashMap::new(),
                    spec,
                }))
            }
            Err(message) => {
                kubelet.send(&Report::Failed { message });
                Ok(None)
            }
        }
    }

    /// `descriptor` came along with the spec.
    fn run(spec: Spec, descriptor: Option<OwnedFd>) -> Result<(Pid, SignalFd, Spec), String> {
        nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("cannot become subreaper: {e}"))?;
        // Signals to a terminal's process group or to the shim by mistake must not leave a tree unattended.
        let mut ignored = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            ignored.add(signal);
        }
        ignored.thread_block().map_err(|e| format!("sigprocmask: {e}"))?;
        let mut only_children = SigSet::empty();
        only_children.add(Signal::SIGCHLD);
        let children = SignalFd::with_flags(&only_children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|e| format!("signalfd: {e}"))?;
        if spec.namespaces {
            isolate(&spec)?;
        }
        let stdio = match (spec.stdio, descriptor) {
            (MainStdio::NoInput, _) => Stdio::Own(None),
            (MainStdio::Input, Some(input)) => Stdio::Own(Some(input)),
            (MainStdio::Terminal, Some(terminal)) => Stdio::Terminal(terminal),
            (_, None) => return Err("the descriptor for standard input is missing".into()),
        };
        let main = spawn::spawn(&spec, &spec.argv, &stdio)?;
        drop(stdio);
        // From here on the container's output belongs to its own processes: a pipe held open here as well
        // would never end.
        spawn::null_to(&[1, 2]).map_err(|e| format!("/dev/null: {e}"))?;
        Ok((main, children, spec))
    }

    fn serve(&mut self) -> ExitCode {
        loop {
            if self.reap() {
                self.kubelet.send(&Report::Gone);
                return ExitCode::SUCCESS;
            }
            let (kubelet, children) = (self.kubelet.socket.as_fd(), self.children.as_fd());
            let mut ready = [
                PollFd::new(kubelet, PollFlags::POLLIN),
                PollFd::new(children, PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return self.abandon(),
            }
            let spoke = ready[0].any().unwrap_or(true);
            while let Ok(Some(_)) = self.children.read_signal() {}
            if spoke {
                if !self.kubelet.receive().unwrap_or(false) {
                    return self.abandon();
                }
                while let Some(line) = self.kubelet.next_line() {
                    if let Ok(request) = serde_json::from_slice(&line) {
                        self.obey(request);
                    }
                }
            }
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Signal(number) => {
                if let (Some(main), Ok(signal)) = (self.main, Signal::try_from(number)) {
                    let _ = kill(main, signal);
                }
            }
            Request::Kill => {
                kill_descendants(&BTreeSet::new());
            }
            Request::Exec { id, argv, tty } => {
                let report = match self.kubelet.take_stdio(tty) {
                    None => Err("the descriptors for standard input, output and error are missing".into()),
                    Some(stdio) => self.exec(&argv, &stdio),
                };
                match report {
                    Ok(pid) => {
                        self.execs.insert(pid, id);
                    }
                    Err(message) => self.kubelet.send(&Report::ExecFailed { id, message }),
                }
            }
            Request::KillExec { id } => {
                for pid in self
                    .execs
                    .iter()
                    .filter(|(_, held)| **held == id)
                    .map(|(pid, _)| *pid)
                {
                    // Each exec leads a process group of its own.
                    let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
                }
            }
        }
    }

    fn exec(&self, argv: &[String], stdio: &Stdio) -> Result<Pid, String> {
        if !matches!(stdio, Stdio::Terminal(_)) {
            return spawn::spawn(&self.spec, argv, stdio);
        }
        // As container runtimes do, whatever the container's own is.
        let mut spec = self.spec.clone();
        spec.env.retain(|(name, _)| name != "TERM");
        spec.env.push(("TERM".into(), "xterm".into()));
        spawn::spawn(&spec, argv, stdio)
    }

    /// Take note of every process that has ended. True once the main process and all others are gone.
    fn reap(&mut self) -> bool {
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit { code, signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (
                    pid,
                    Exit {
                        code: 128 + signal as i32,
                        signal: Some(signal as i32),
                    },
                ),
                Ok(WaitStatus::StillAlive) => {
                    if self.main.is_none() {
                        kill_descendants(&BTreeSet::new());
                    }
                    return false;
                }
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return self.main.is_none(),
            };
            if self.main == Some(pid) {
                self.main = None;
                self.kubelet.send(&Report::Exited(exit));
            } else if let Some(id) = self.execs.remove(&pid) {
                self.kubelet.send(&Report::ExecExited { id, exit });
            }
        }
    }

    /// The kubelet is gone: leave nothing behind.
    fn abandon(&mut self) -> ExitCode {
        loop {
            kill_descendants(&BTreeSet::new());
            match waitpid(None, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return ExitCode::FAILURE,
            }
        }
    }
}

/// New user (unless root), mount and UTS namespaces with the pod's mounts and host name in them.
fn isolate(spec: &Spec) -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|e| format!("cannot make namespaces: {e}"))?;
    if !uid.is_root() {
        map_ids(uid, uid, gid, gid)
            .map_err(|e| format!("cannot map user {uid} into a user namespace: {e}"))?;
    }
    if let Some(hostname) = &spec.hostname {
        nix::unistd::sethostname(hostname)
            .map_err(|e| format!("cannot set the host name {hostname:?}: {e}"))?;
    }
    view::mirror::build(&spec.mounts, &spec.scratch).map_err(|e| e.to_string())
}

/// In a new user namespace: the user is `uid` inside who is `outer_uid` outside, and likewise the group.
pub(crate) fn map_ids(uid: Uid, outer_uid: Uid, gid: Gid, outer_gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1"))
}

/// Nothing to read, nothing to write but complaints, which go to this file.
pub(crate) fn detach_standard_streams(log: &Path) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    spawn::null_to(&[0, 1])?;
    spawn::replace(log.as_raw_fd(), 2)?;
    Ok(())
}

/// What there is no kubelet to tell.
pub(crate) fn complain(message: &str) {
    let (now, pid) = (jiff::Timestamp::now(), std::process::id());
    let _ = writeln!(io::stderr(), "{now} {pid} {message}");
}

/// The socket to the kubelet: lines, and descriptors that came along with them.
struct Connection {
    socket: OwnedFd,
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    /// Take standard input away from everything that is started later.
    fn from_stdin() -> io::Result<Self> {
        let stdin = io::stdin();
        let socket = stdin.as_fd().try_clone_to_owned()?;
        spawn::null_to(&[0])?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// Wait for more to arrive; false at the end.
    fn receive(&mut self) -> io::Result<bool> {
        let mut chunk = [0u8; 16 * 1024];
        let mut space = cmsg_space!([RawFd; 12]);
        let mut slices = [IoSliceMut::new(&mut chunk)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Ok(message) => message,
            Err(Errno::EINTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        let received = message.bytes;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                for raw in descriptors {
                    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
                    self.descriptors.push_back(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        self.buffer.extend_from_slice(&chunk[..received]);
        Ok(received > 0)
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|b| *b == b'\n')?;
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.pop();
        Some(line)
    }

    /// What came along with an exec: its terminal, or three descriptors.
    fn take_stdio(&mut self, tty: bool) -> Option<Stdio> {
        let mut next = || self.descriptors.pop_front();
        Some(if tty {
            Stdio::Terminal(next()?)
        } else {
            Stdio::Given([next()?, next()?, next()?])
        })
    }

    /// A kubelet that does not listen any more is noticed when reading.
    fn send(&mut self, report: &Report) {
        let mut line = serde_json::to_vec(report).expect("a report is plain data");
        line.push(b'\n');
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            match nix::unistd::write(&self.socket, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
