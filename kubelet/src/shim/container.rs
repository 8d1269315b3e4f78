//! One container as its shim has it: the main process, what it reads and says, and everything that comes from it.

use super::cgroup::{self, Cgroup};
use super::confine;
use super::launch::{self, Place};
use super::output::Outputs;
use super::protocol::pod::{self, Ending};
use super::protocol::{Exit, Isolation, MainStdio, Sandbox, Spec};
use super::spawn::Stdio;
use super::tree;
use crate::terminal::{self, TerminalSize};
use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::PollFd;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// How all processes of a container are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// They are in a PID namespace of their own: with its first process the kernel ends them all.
    Namespace,
    /// They are in a mount namespace of their own.
    Mounts,
    /// They are all there is below this shim.
    Tree,
}

/// A container.
pub struct Container {
    /// What can be told of it.
    pub known: pod::Container,
    spec: Spec,
    reach: Reach,
    /// Its mount namespace, if its processes are found by that.
    mounts: Option<File>,
    cgroup: Option<Cgroup>,
    /// The writing end of its standard input, so that it does not end while nobody is attached.
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    outputs: Outputs,
}

/// What a main process's standard streams are made of.
struct Standard {
    stdio: Stdio,
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Standard {
    /// `has_own`: the container has terminals of its own.
    fn of(kind: MainStdio, has_own: bool) -> io::Result<Self> {
        if kind == MainStdio::Terminal && has_own {
            return Ok(Self {
                stdio: Stdio::OwnTerminal(TerminalSize::default()),
                input: None,
                terminal: None,
                stdout: None,
                stderr: None,
            });
        }
        if kind == MainStdio::Terminal {
            let (master, slave) = terminal::pair()?;
            return Ok(Self {
                stdio: Stdio::Terminal(slave),
                input: None,
                stdout: Some(master.try_clone()?),
                stderr: None,
                terminal: Some(master),
            });
        }
        let (stdin, input) = match kind {
            MainStdio::Input => {
                let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
                (read, Some(write))
            }
            _ => {
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
                (open("/dev/null", flags, Mode::empty())?, None)
            }
        };
        let (stdout, to_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, to_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        for output in [&stdout, &stderr] {
            fcntl(output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            stdio: Stdio::Given([stdin, to_stdout, to_stderr]),
            input,
            terminal: None,
            stdout: Some(stdout),
            stderr: Some(stderr),
        })
    }
}

impl Container {
    /// Start its main process.
    pub fn start(
        name: &str,
        instance: i32,
        spec: Spec,
        sandbox: &Sandbox,
        place: Place,
        reach: Reach,
    ) -> Result<Self, String> {
        let has_own = sandbox.isolation == Isolation::Namespaces;
        let standard = Standard::of(spec.stdio, has_own).map_err(|e| format!("standard streams: {e}"))?;
        let mut outputs = Outputs::new(standard.stdout, standard.stderr, spec.log.as_ref())
            .map_err(|e| format!("cannot write the log: {e}"))?;
        let (cgroup, mut warnings) = cgroup::create(sandbox, name, &spec.limits);
        let user = confine::identity(&spec);
        let started = Timestamp::now();
        let view = sandbox.isolation;
        let launched = launch::start(&spec, &standard.stdio, place, view, cgroup.as_ref());
        let launched = match launched {
            Ok(launched) => launched,
            Err(message) => {
                cgroup.into_iter().for_each(cgroup::remove);
                return Err(message);
            }
        };
        warnings.extend(launched.warnings);
        let mut terminal = standard.terminal;
        if let Some(own) = launched.terminal {
            // One descriptor more is what there is room for: others have just been closed.
            match own.try_clone() {
                Ok(heard) => outputs.listen(heard),
                Err(error) => warnings.push(format!("Nobody hears what it says: {error}")),
            }
            terminal = Some(own);
        }
        Ok(Self {
            known: pod::Container {
                name: name.to_owned(),
                instance,
                pid: launched.pid.as_raw(),
                started,
                ending: None,
                gone: false,
                tty: spec.stdio == MainStdio::Terminal,
                user: Some(user),
                warnings,
            },
            spec,
            reach,
            mounts: launched.mounts.filter(|_| reach == Reach::Mounts),
            cgroup,
            input: standard.input,
            terminal,
            outputs,
        })
    }

    /// Its control groups.
    pub fn cgroups(&self) -> impl Iterator<Item = PathBuf> {
        self.cgroup.iter().flat_map(Cgroup::directories)
    }

    /// A signal to the main process.
    pub fn signal(&self, signal: Signal) {
        if self.known.ending.is_none() {
            let _ = kill(Pid::from_raw(self.known.pid), signal);
        }
    }

    /// SIGKILL to all its processes.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.kill_rest();
    }

    /// True: there were some.
    fn kill_rest(&self) -> bool {
        match (self.reach, &self.mounts) {
            (Reach::Mounts, Some(mounts)) => tree::kill_in_mount_namespace(mounts),
            (Reach::Tree, _) => tree::kill_descendants(&BTreeSet::new()),
            _ => false,
        }
    }

    /// Run another program in it; the other end of its terminal, if that is the container's own.
    pub fn exec(
        &self,
        argv: &[String],
        stdio: &Stdio,
        sandbox: &Sandbox,
    ) -> Result<(Pid, Option<OwnedFd>), String> {
        if self.known.ending.is_some() {
            return Err("the container has ended".into());
        }
        let mut spec = self.spec.clone();
        spec.argv = argv.to_vec();
        if !matches!(stdio, Stdio::Given(_)) {
            // As container runtimes do, whatever the container's own is.
            spec.env.retain(|(name, _)| name != "TERM");
            spec.env.push(("TERM".into(), "xterm".into()));
        }
        let place = Place::Inside {
            main: Pid::from_raw(self.known.pid),
            mounts: sandbox.isolation > Isolation::None,
            processes: sandbox.isolation == Isolation::Namespaces && !sandbox.host_pid,
        };
        let launched = launch::start(&spec, stdio, place, Isolation::None, self.cgroup.as_ref())?;
        Ok((launched.pid, launched.terminal))
    }

    /// Copy what is said to a client from now on; what it can type into.
    pub fn attach(&mut self, socket: OwnedFd) -> Result<Option<OwnedFd>, String> {
        if self.known.gone {
            return Err("the container has ended".into());
        }
        let input = self.terminal.as_ref().or(self.input.as_ref());
        let input = input
            .map(OwnedFd::try_clone)
            .transpose()
            .map_err(|e| e.to_string())?;
        self.outputs.attach(socket).map_err(|e| e.to_string())?;
        Ok(input)
    }

    /// The end of its standard input, once nobody who is attached has it any more.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, ready: &mut Vec<PollFd<'a>>) {
        self.outputs.poll(ready);
    }

    /// `ready`: what has come of that, in the same order.
    pub fn serve(&mut self, ready: &mut impl Iterator<Item = bool>) {
        self.outputs.serve(ready);
    }

    /// The main process has ended.
    pub fn ended(&mut self, exit: Exit, at: Timestamp) -> Ending {
        let oom_killed = self.cgroup.as_ref().is_some_and(cgroup::was_oom_killed);
        let ending = Ending { exit, at, oom_killed };
        self.known.ending = Some(ending);
        self.input = None;
        ending
    }

    /// After the end of the main process: whether no other is left; those that are, are killed. `last`: the shim has no
    /// children any more.
    pub fn is_gone(&self, last: bool) -> bool {
        match self.reach {
            Reach::Namespace => true,
            // One that forked while we looked may have been missed.
            Reach::Mounts => !self.kill_rest() && !self.kill_rest(),
            // The kernel knows for certain.
            Reach::Tree => {
                if !last {
                    self.kill_rest();
                }
                last
            }
        }
    }

    /// Nothing of it is left: neither may anything be of what was made for it.
    pub fn finish(&mut self) {
        self.outputs.finish();
        self.terminal = None;
        self.mounts = None;
        self.cgroup.take().into_iter().for_each(cgroup::remove);
        // Not even its owner could remove what an overlay leaves, by ordinary means.
        if let Err(error) = crate::volume::remove::tree(&self.spec.scratch) {
            super::complain(&format!("cannot remove {}: {error}", self.spec.scratch.display()));
        }
        self.known.gone = true;
    }
}
