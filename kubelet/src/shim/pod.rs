//! The shim of a pod: its sandbox, its containers, and the loop that serves them.

use super::container::{Container, Reach};
use super::launch::{self, Place};
use super::network::{self, Attached};
use super::protocol::pod::{Pod, Report, Request};
use super::protocol::{Exit, Isolation, ROOT_VARIABLE, Sandbox, Spec};
use super::spawn::Stdio;
use super::wire::Connection;
use super::{kill_descendants, map_ids, view};
use crate::holder::block_signals;
use crate::leftover::Held;
use crate::terminal::TerminalSize;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getgid, getuid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// How often it is looked again whether the last process of a container has gone, where the kernel does not say so.
const AGAIN: u16 = 10;

/// Be the shim of a sandbox, in a process that the holder has just forked.
pub fn serve(sandbox: Sandbox, listener: UnixListener) -> ! {
    let code = match Shim::start(sandbox, listener) {
        Ok(mut shim) => shim.serve(),
        Err(message) => {
            super::complain(&message);
            1
        }
    };
    // SAFETY: ends the process at once, without what the holder would do at its end.
    unsafe { libc::_exit(code) }
}

struct Shim {
    /// Without its containers.
    pod: Pod,
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    children: SignalFd,
    containers: BTreeMap<String, Container>,
    execs: HashMap<Pid, Exec>,
    held: Held,
    /// The first process of a PID namespace that the containers share.
    pause: Option<Pid>,
    /// The pod's cable.
    network: Option<Attached>,
    /// The cluster's network lives as long as any pod does.
    _cluster: Option<File>,
}

/// A program that runs beside a main process, and who asked for it.
struct Exec {
    connection: u64,
    id: u64,
}

impl Shim {
    fn start(sandbox: Sandbox, listener: UnixListener) -> Result<Self, String> {
        close_all_but(&[listener.as_raw_fd()]);
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {}", errno.desc());
        nix::unistd::setsid().map_err(failed("setsid"))?;
        nix::sys::prctl::set_child_subreaper(true).map_err(failed("cannot become subreaper"))?;
        let _ = nix::sys::prctl::set_name(c"petset-shim");
        let children = block_signals().map_err(failed("signals"))?;
        let mut shim = Self {
            pod: Pod {
                pid: std::process::id() as i32,
                sandbox,
                failure: None,
                warnings: Vec::new(),
                containers: Vec::new(),
            },
            listener,
            connections: BTreeMap::new(),
            next_connection: 0,
            children,
            containers: BTreeMap::new(),
            execs: HashMap::new(),
            held: Held::new(),
            pause: None,
            network: None,
            _cluster: File::open("/proc/self/ns/net").ok(),
        };
        shim.held.add(shim.pod.pid);
        write_down(&shim.held, &shim.pod.sandbox)?;
        shim.pod.failure = shim.isolate().err();
        Ok(shim)
    }

    /// Make the namespaces that the pod's containers share.
    fn isolate(&mut self) -> Result<(), String> {
        let sandbox = &self.pod.sandbox;
        let mut flags = CloneFlags::empty();
        if sandbox.isolation == Isolation::None {
            return Ok(());
        }
        flags.set(CloneFlags::CLONE_NEWUTS, sandbox.hostname.is_some());
        let (uid, gid) = (getuid(), getgid());
        let own_user = sandbox.isolation == Isolation::Mounts && !uid.is_root();
        flags.set(CloneFlags::CLONE_NEWUSER, own_user);
        let own_ipc = sandbox.isolation == Isolation::Namespaces && !sandbox.host_ipc;
        flags.set(CloneFlags::CLONE_NEWIPC, own_ipc);
        flags.set(CloneFlags::CLONE_NEWNS, !sandbox.memory.is_empty());
        unshare(flags).map_err(|e| format!("cannot make namespaces: {e}"))?;
        if own_user {
            // The user stays who they are; only so are their files theirs inside, too.
            map_ids(uid, uid, gid, gid)
                .map_err(|e| format!("cannot map user {uid} into a user namespace: {e}"))?;
        }
        if !sandbox.memory.is_empty() {
            view::memory::mount_all(&sandbox.memory).map_err(|e| e.to_string())?;
        }
        if let Some(hostname) = &sandbox.hostname {
            nix::unistd::sethostname(hostname)
                .map_err(|e| format!("cannot set the host name {hostname:?}: {e}"))?;
        }
        if sandbox.isolation == Isolation::Namespaces {
            if let Some(wanted) = &sandbox.network {
                self.network = Some(network::pod::attach(wanted).map_err(|e| e.to_string())?);
            }
            for (name, value) in &sandbox.sysctls {
                network::sysctl(name, value).map_err(|e| e.to_string())?;
            }
            if sandbox.share_processes && !sandbox.host_pid {
                self.pause = Some(launch::pause()?);
            }
        }
        Ok(())
    }

    /// Until it is told to end; its exit code.
    fn serve(&mut self) -> i32 {
        loop {
            let leaving = self.reap();
            let connections: Vec<u64> = self.connections.keys().copied().collect();
            let mut ready = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            let fixed = ready.len();
            let connected = self.connections.values();
            ready.extend(connected.map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)));
            let heard = ready.len();
            for container in self.containers.values() {
                container.poll(&mut ready);
            }
            let timeout = if leaving {
                PollTimeout::from(AGAIN)
            } else {
                PollTimeout::NONE
            };
            match poll(&mut ready, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return self.end(),
            }
            let ready: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            while let Ok(Some(_)) = self.children.read_signal() {}
            let mut outputs = ready[heard..].iter().copied();
            for container in self.containers.values_mut() {
                container.serve(&mut outputs);
            }
            for (number, id) in connections.into_iter().enumerate() {
                if ready[fixed + number] && !self.hear(id) {
                    return self.end();
                }
            }
            if ready[0] {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        let mut connection = Connection::new(socket.into());
        let mut hello = self.pod.clone();
        hello.containers = self.containers.values().map(|c| c.known.clone()).collect();
        connection.send(&Report::Hello(Box::new(hello)), &[]);
        self.connections.insert(self.next_connection, connection);
        self.next_connection += 1;
    }

    /// What one connection has to say; false: it is over with this shim.
    fn hear(&mut self, from: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&from) else {
            return true;
        };
        if !connection.receive() {
            self.connections.remove(&from);
            self.kill_execs(|exec| exec.connection == from);
            // There is nothing that a sandbox which could not be made is good for.
            return self.pod.failure.is_none();
        }
        while let Some(line) = self.connections.get_mut(&from).and_then(Connection::next_line) {
            match serde_json::from_slice(&line) {
                Ok(Request::End) => return false,
                Ok(request) => self.obey(from, request),
                Err(error) => super::complain(&format!("cannot read a request: {error}")),
            }
        }
        true
    }

    fn obey(&mut self, from: u64, request: Request) {
        match request {
            Request::Start {
                container,
                instance,
                spec,
            } => {
                let report = match self.start_container(&container, instance, *spec) {
                    Ok(started) => Report::Started(started),
                    Err(message) => Report::Failed {
                        container,
                        instance,
                        message,
                    },
                };
                self.tell_all(&report);
            }
            Request::Signal { container, number } => {
                if let Some(container) = self.containers.get(&container)
                    && let Ok(signal) = Signal::try_from(number)
                {
                    container.signal(signal);
                }
            }
            Request::Kill { container } => {
                if let Some(container) = self.containers.get(&container) {
                    container.kill();
                }
            }
            Request::Exec {
                id,
                container,
                argv,
                tty,
                own_terminal,
            } => match self.exec(from, &container, &argv, tty, own_terminal) {
                Ok((pid, terminal)) => {
                    self.execs.insert(pid, Exec { connection: from, id });
                    if terminal.is_some() {
                        self.tell(from, &Report::ExecStarted { id }, terminal);
                    }
                }
                Err(message) => self.tell(from, &Report::ExecFailed { id, message }, None),
            },
            Request::KillExec { id } => self.kill_execs(|exec| exec.connection == from && exec.id == id),
            Request::Attach { id, container } => {
                let socket = self.connections.get_mut(&from).and_then(Connection::take);
                let attached = match (self.containers.get_mut(&container), socket) {
                    (Some(container), Some(socket)) => container.attach(socket),
                    _ => Err(format!("container {container} is not there")),
                };
                match attached {
                    Ok(input) => {
                        let report = Report::Attached {
                            id,
                            input: input.is_some(),
                        };
                        self.tell(from, &report, input);
                    }
                    Err(message) => self.tell(from, &Report::NotAttached { id, message }, None),
                }
            }
            Request::CloseInput { container } => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.close_input();
                }
            }
            Request::End => {}
        }
    }

    fn start_container(
        &mut self,
        name: &str,
        instance: i32,
        spec: Spec,
    ) -> Result<super::protocol::pod::Container, String> {
        if let Some(failure) = &self.pod.failure {
            return Err(failure.clone());
        }
        if self.containers.get(name).is_some_and(|c| !c.known.gone) {
            return Err(format!("container {name}: the instance before it is not gone"));
        }
        let sandbox = &self.pod.sandbox;
        let isolated = sandbox.isolation == Isolation::Namespaces;
        let (place, reach) = match (isolated, self.pause) {
            (true, None) if !sandbox.host_pid => (Place::Own, Reach::Namespace),
            (true, pause) => (Place::Shared(pause), Reach::Mounts),
            (false, _) => (Place::Shared(None), Reach::Tree),
        };
        if sandbox.isolation == Isolation::None
            && let Some((name, value)) = spec.env.iter().find(|(name, _)| name == ROOT_VARIABLE)
            && self.held.add_environment(name, value)
        {
            // Before there is anything to find by it.
            write_down(&self.held, sandbox)?;
        }
        let container = Container::start(name, instance, spec, sandbox, place, reach)?;
        let known = container.known.clone();
        self.held.add_cgroups(container.cgroups());
        self.held.add(known.pid);
        self.containers.insert(name.to_owned(), container);
        if let Err(message) = write_down(&self.held, sandbox) {
            super::complain(&message);
        }
        Ok(known)
    }

    fn exec(
        &mut self,
        from: u64,
        container: &str,
        argv: &[String],
        tty: bool,
        own_terminal: Option<TerminalSize>,
    ) -> Result<(Pid, Option<OwnedFd>), String> {
        let connection = self.connections.get_mut(&from).ok_or("the kubelet is gone")?;
        let mut next = || {
            let taken: Option<OwnedFd> = connection.take();
            taken.ok_or("the descriptors for standard input, output and error are missing")
        };
        let stdio = match (tty, own_terminal) {
            (true, Some(size)) => Stdio::OwnTerminal(size),
            (true, None) => Stdio::Terminal(next()?),
            (false, _) => Stdio::Given([next()?, next()?, next()?]),
        };
        let container = self
            .containers
            .get(container)
            .ok_or("the container is not there")?;
        container.exec(argv, &stdio, &self.pod.sandbox)
    }

    fn kill_execs(&self, which: impl Fn(&Exec) -> bool) {
        for (pid, _) in self.execs.iter().filter(|(_, exec)| which(exec)) {
            // Each exec leads a process group of its own.
            let _ = killpg(*pid, Signal::SIGKILL);
        }
    }

    fn tell_all(&mut self, report: &Report) {
        for connection in self.connections.values_mut() {
            connection.send(report, &[]);
        }
    }

    fn tell(&mut self, to: u64, report: &Report, along: Option<OwnedFd>) {
        if let Some(connection) = self.connections.get_mut(&to) {
            let along: Vec<_> = along.iter().map(AsFd::as_fd).collect();
            connection.send(report, &along);
        }
    }

    /// Take note of every process that has ended. True: look again soon.
    fn reap(&mut self) -> bool {
        let last = loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.note_end(pid, Exit { code, signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    let signal = signal as i32;
                    let exit = Exit {
                        code: 128 + signal,
                        signal: Some(signal),
                    };
                    self.note_end(pid, exit);
                }
                Ok(WaitStatus::StillAlive) => break false,
                Err(Errno::ECHILD) => break true,
                Ok(_) | Err(_) => {}
            }
        };
        let (mut again, mut gone) = (false, Vec::new());
        for container in self.containers.values_mut() {
            if container.known.ending.is_none() || container.known.gone {
                continue;
            }
            if container.is_gone(last) {
                container.finish();
                gone.push(container.known.name.clone());
            } else {
                again = true;
            }
        }
        for container in gone {
            self.tell_all(&Report::Gone { container });
        }
        again
    }

    fn note_end(&mut self, pid: Pid, exit: Exit) {
        if let Some(exec) = self.execs.remove(&pid) {
            self.tell(exec.connection, &Report::ExecExited { id: exec.id, exit }, None);
            return;
        }
        let of = |c: &&mut Container| c.known.ending.is_none() && c.known.pid == pid.as_raw();
        let ended = self.containers.values_mut().find(of).map(|container| {
            let ending = container.ended(exit, Timestamp::now());
            (container.known.name.clone(), ending)
        });
        if let Some((container, ending)) = ended {
            self.tell_all(&Report::Exited { container, ending });
        }
    }

    /// Leave nothing behind.
    fn end(&mut self) -> i32 {
        if let Some(pause) = self.pause.take() {
            let _ = kill(pause, Signal::SIGKILL);
        }
        loop {
            kill_descendants(&BTreeSet::new());
            match waitpid(None, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        for container in self.containers.values_mut().filter(|c| !c.known.gone) {
            while container.known.ending.is_some() && !container.is_gone(true) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            container.finish();
        }
        if let Some(Err(error)) = self.network.take().map(Attached::detach) {
            super::complain(&error.to_string());
        }
        super::cgroup::sweep(&self.pod.sandbox);
        let directory = &self.pod.sandbox.directory;
        crate::leftover::forget(directory);
        let _ = fs::remove_file(directory.join(super::protocol::pod::SOCKET));
        0
    }
}

/// What must be gone before anybody else may hold this pod.
fn write_down(held: &Held, sandbox: &Sandbox) -> Result<(), String> {
    let directory = &sandbox.directory;
    let written = held.write(directory);
    written.map_err(|e| format!("cannot write to {}: {e}", directory.display()))
}

/// A fork has all descriptors of the holder.
fn close_all_but(kept: &[RawFd]) {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> = open
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        if number > 2 && !kept.contains(&number) {
            // SAFETY: what owned it was the holder's, and is never used or dropped in this process, which ends by `_exit`.
            unsafe { libc::close(number) };
        }
    }
}
