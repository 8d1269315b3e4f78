//! Starting one program in its container's namespaces: fork, the last preparations, exec.

use super::cgroup::{self, Cgroup};
use super::protocol::{Isolation, Root, Spec};
use super::spawn::{self, Stdio, c_string};
use super::wire::Connection;
use super::{confine, user, view};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, execve, pipe2, read, setpgid, write};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Where a program is to run.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In a PID and a mount namespace of its own.
    Own,
    /// In a mount namespace of its own if it has a view, in the PID namespace of this process, or the shim's.
    Shared(Option<Pid>),
    /// In those of a running container.
    Inside {
        /// Its main process.
        main: Pid,
        /// Whether that has a mount namespace of its own.
        mounts: bool,
        /// Whether it has a PID namespace that is not the shim's.
        processes: bool,
    },
}

/// A program that runs.
pub struct Launched {
    /// Its process.
    pub pid: Pid,
    /// Its mount namespace.
    pub mounts: Option<File>,
    /// The shim's end of its terminal, if that is the container's own.
    pub terminal: Option<OwnedFd>,
    /// What this machine cannot enforce, in sentences.
    pub warnings: Vec<String>,
}

/// Run `argv` of `spec`. Success means that the exec has succeeded.
/// `view`: of which isolation the view of the file system is that is to be made for it.
pub fn start(
    spec: &Spec,
    stdio: &Stdio,
    place: Place,
    view: Isolation,
    cgroup: Option<&Cgroup>,
) -> Result<Launched, String> {
    if spec.argv.is_empty() {
        return Err("the command is empty".into());
    }
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("pipe: {e}"));
    let ((told, tell), (seen, see)) = (pipe()?, pipe()?);
    let (mut own, to_shim) = match stdio {
        Stdio::OwnTerminal(_) => {
            let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
            let pair = socketpair(AddressFamily::Unix, kind, None, flags);
            let (own, theirs) = pair.map_err(|e| format!("socketpair: {e}"))?;
            (Some(Connection::new(own)), Some(theirs))
        }
        _ => (None, None),
    };
    match fork_into(place, view)? {
        ForkResult::Child => {
            drop((told, see, own));
            let mut shim = Shim {
                tell,
                seen,
                terminal: to_shim.map(Connection::new),
            };
            let Err(message) = run(spec, stdio, place, view, cgroup, &mut shim);
            say(&shim.tell, 'E', &message);
            // SAFETY: ends the child at once, without the shim's exit handlers.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => {
            drop((tell, to_shim));
            // Before its exec, after which it may end at any time, and nobody could tell any more.
            let mounts = File::open(format!("/proc/{child}/ns/mnt")).ok();
            drop(see);
            let (mut warnings, mut failure) = (Vec::new(), None);
            for line in read_to_end(&told).lines() {
                match line.split_at_checked(1) {
                    Some(("W", warning)) => warnings.push(warning.to_owned()),
                    Some((_, message)) => failure = Some(message.to_owned()),
                    None => {}
                }
            }
            match failure {
                None => Ok(Launched {
                    pid: child,
                    mounts,
                    terminal: own.as_mut().and_then(|own| own.receive().then(|| own.take())?),
                    warnings,
                }),
                Some(message) => {
                    let _ = waitpid(child, None);
                    Err(message)
                }
            }
        }
    }
}

/// The first process of a PID namespace that several containers share: it waits for orphans and does nothing else.
pub fn pause() -> Result<Pid, String> {
    match clone(CloneFlags::CLONE_NEWPID).map_err(|e| format!("cannot make a PID namespace: {e}"))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let _ = nix::sys::prctl::set_name(c"pause");
            let mut ended = SigSet::empty();
            ended.add(Signal::SIGCHLD);
            loop {
                let _ = ended.wait();
                while let Ok(status) = waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                    if status == nix::sys::wait::WaitStatus::StillAlive {
                        break;
                    }
                }
            }
        }
    }
}

/// As `fork`, with new namespaces for the child.
fn clone(flags: CloneFlags) -> nix::Result<ForkResult> {
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    // SAFETY: without a stack of its own the child goes on as after a fork; the shim has one thread, so the child may do
    // whatever a process may do. With zeros the order of the other arguments, which differs between machines, does not matter.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(match pid {
        0 => ForkResult::Child,
        pid => ForkResult::Parent {
            child: Pid::from_raw(pid as i32),
        },
    })
}

fn fork_into(place: Place, view: Isolation) -> Result<ForkResult, String> {
    let failed = |e: Errno| format!("fork: {}", e.desc());
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNS, view > Isolation::None);
    match place {
        Place::Own => clone(flags | CloneFlags::CLONE_NEWPID).map_err(failed),
        Place::Shared(None) => clone(flags).map_err(failed),
        Place::Shared(Some(pause)) => fork_beside(&[(pause, "pid", CloneFlags::CLONE_NEWPID)], flags),
        Place::Inside {
            main,
            mounts,
            processes,
        } => {
            let processes = processes.then_some((main, "pid", CloneFlags::CLONE_NEWPID));
            let mounts = mounts.then_some((main, "mnt", CloneFlags::CLONE_NEWNS));
            // With the user namespace goes the right to enter the others.
            let user = user::is_anothers(main).then_some((main, "user", CloneFlags::CLONE_NEWUSER));
            let entered: Vec<_> = processes.into_iter().chain(mounts).chain(user).collect();
            if entered.is_empty() {
                return clone(flags).map_err(failed);
            }
            fork_beside(&entered, flags)
        }
    }
}

/// A child in namespaces of other processes. A process cannot leave a PID namespace again, and its children only are in
/// one that it enters: so one between enters, and gives its parent the child.
fn fork_beside(entered: &[(Pid, &str, CloneFlags)], flags: CloneFlags) -> Result<ForkResult, String> {
    let failed = |e: Errno| format!("fork: {}", e.desc());
    let (born, tell) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let between = match clone(CloneFlags::empty()).map_err(failed)? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let forked = enter(entered).and_then(|()| {
                clone(flags | CloneFlags::CLONE_PARENT).map_err(|e| format!("fork: {}", e.desc()))
            });
            let line = match forked {
                Ok(ForkResult::Child) => return Ok(ForkResult::Child),
                Ok(ForkResult::Parent { child }) => child.to_string(),
                Err(message) => message,
            };
            let _ = write(&tell, line.as_bytes());
            // SAFETY: ends the process between at once, without the shim's exit handlers.
            unsafe { libc::_exit(0) }
        }
    };
    drop(tell);
    // The child has the pipe's other end until its exec, but it is the process between that writes, all at once.
    let mut line = [0; 256];
    let length = loop {
        match read(&born, &mut line) {
            Err(Errno::EINTR) => {}
            other => break other.map_err(failed)?,
        }
    };
    let _ = waitpid(between, None);
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    match line.parse() {
        Ok(pid) => Ok(ForkResult::Parent {
            child: Pid::from_raw(pid),
        }),
        Err(_) if line.is_empty() => Err("the process between was killed".into()),
        Err(_) => Err(line),
    }
}

fn enter(namespaces: &[(Pid, &str, CloneFlags)]) -> Result<(), String> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    // All are opened before the first is entered: then /proc may be another one.
    let opened = namespaces.iter().map(|(pid, name, kind)| {
        let path = format!("/proc/{pid}/ns/{name}");
        let opened = open(path.as_str(), flags, Mode::empty());
        opened
            .map(|namespace| (namespace, *kind))
            .map_err(|e| format!("{path}: {}", e.desc()))
    });
    for (namespace, kind) in opened.collect::<Result<Vec<_>, _>>()? {
        setns(namespace, kind).map_err(|e| format!("cannot enter the container: {}", e.desc()))?;
    }
    Ok(())
}

/// The shim, as the child has it.
struct Shim {
    /// What goes wrong and what should be known.
    tell: OwnedFd,
    /// Ends when it has had a look at the child.
    seen: OwnedFd,
    /// Where it waits for the other end of the terminal.
    terminal: Option<Connection>,
}

/// In the child, until the program is in its place.
fn run(
    spec: &Spec,
    stdio: &Stdio,
    place: Place,
    view: Isolation,
    cgroup: Option<&Cgroup>,
    shim: &mut Shim,
) -> Result<std::convert::Infallible, String> {
    let failed = |what: &'static str| move |errno: Errno| format!("{what}: {}", errno.desc());
    // A session's leader leads a process group, too.
    match stdio {
        Stdio::Terminal(terminal) => spawn::control(spec, terminal).map_err(failed("terminal"))?,
        Stdio::OwnTerminal(_) => {}
        Stdio::Given(_) => setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(failed("setpgid"))?,
    }
    spawn::standard_streams(stdio).map_err(failed("standard streams"))?;
    if let Some(cgroup) = cgroup {
        cgroup::enter(cgroup)?;
    }
    let said = match view {
        Isolation::None => Vec::new(),
        Isolation::Mounts if spec.root == Root::Host => view::mirror::build(&spec.mounts, &spec.scratch)
            .map(|()| Vec::new())
            .map_err(|e| e.to_string())?,
        Isolation::Mounts | Isolation::Namespaces => view::build(spec).map_err(|e| e.to_string())?,
    };
    let is_inside = matches!(place, Place::Inside { .. });
    if let (Stdio::OwnTerminal(size), Some(waits)) = (stdio, &mut shim.terminal) {
        spawn::own_terminal(spec, *size, waits, !is_inside).map_err(|e| format!("terminal: {e}"))?;
    }
    SigSet::all().thread_unblock().map_err(failed("sigprocmask"))?;
    // What is ignored stays so over an exec: Rust programs ignore SIGPIPE, and who starts petset with nohup, or beside a script,
    // made it ignore more. A shell could not even trap that.
    for each in Signal::iterator().filter(|each| !matches!(each, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: sets a default, no handler.
        unsafe { signal(each, SigHandler::SigDfl) }.map_err(failed(each.as_str()))?;
    }
    let directory = spec.working_dir.as_deref().unwrap_or(Path::new("/"));
    std::env::set_current_dir(directory)
        .map_err(|e| format!("cannot enter the working directory {}: {e}", directory.display()))?;
    let path = spawn::find(&spec.argv[0], spec)?;
    let left = cgroup.map_or(&spec.limits, Cgroup::left);
    for warning in said.into_iter().chain(confine::apply(spec, left, is_inside)?) {
        say(&shim.tell, 'W', &warning);
    }
    if !is_inside {
        // What nobody minds any more must not go on. A change of user would have taken this back.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("PDEATHSIG"))?;
    }
    let c_path = c_string(&path)?;
    let c_argv = spec
        .argv
        .iter()
        .map(|a| c_string(a))
        .collect::<Result<Vec<_>, _>>()?;
    let variable = |(name, value): &(String, String)| c_string(&format!("{name}={value}"));
    let c_env: Vec<CString> = spec.env.iter().map(variable).collect::<Result<_, _>>()?;
    // The shim has a look at us first; it has long had, normally.
    read_to_end(&shim.seen);
    let Err(errno) = execve(&c_path, &c_argv, &c_env);
    Err(format!("exec {path}: {}", errno.desc().to_lowercase()))
}

/// A line to the shim.
fn say(tell: &OwnedFd, mark: char, text: &str) {
    let line = format!("{mark}{}\n", text.replace('\n', " "));
    let _ = write(tell, line.as_bytes());
}

fn read_to_end(from: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut chunk = [0u8; 1024];
    loop {
        match read(from, &mut chunk) {
            Ok(0) => return String::from_utf8_lossy(&text).into_owned(),
            Ok(length) => text.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR) => {}
            Err(_) => return String::from_utf8_lossy(&text).into_owned(),
        }
    }
}
