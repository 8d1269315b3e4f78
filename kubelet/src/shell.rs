//! A program of the user's in the cluster's network, with the cluster's resolver (`petset shell`).

use crate::hosts;
use crate::shim::protocol::holder::{Report, Request, SOCKET};
use crate::shim::wire::Connection;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Shell {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Whether the cluster is in a network of the holder's.
    pub apart: bool,
    /// What is to be in `/etc/resolv.conf`; `None`: what is there already.
    pub resolv_conf: Option<String>,
    /// A directory of its own, for files that are mounted.
    pub directory: PathBuf,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Environment variables besides those that there are.
    pub env: Vec<(String, OsString)>,
}

/// Become that program. To be called by a process that has one thread. The error is for the user.
pub fn become_program(shell: &Shell) -> Result<Infallible, String> {
    if shell.apart {
        enter(&shell.data_dir)?;
    }
    let viewed = match &shell.resolv_conf {
        Some(text) => view(shell, text),
        None => Ok(()),
    };
    if let Err(why) = viewed {
        // Addresses work without it, and there is a server that one can ask by its address.
        eprint(&format!(
            "petset shell: names are looked up as this machine does: {why}"
        ));
    }
    let [program, arguments @ ..] = shell.command.as_slice() else {
        return Err("there is no command to run".into());
    };
    let error = Command::new(program)
        .args(arguments)
        .envs(shell.env.iter().map(|(name, value)| (name, value)))
        .exec();
    Err(format!("cannot run {}: {error}", program.display()))
}

fn eprint(line: &str) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("{line}\n").as_bytes());
}

/// The holder's user and network namespaces.
fn enter(data_dir: &Path) -> Result<(), String> {
    let holder = holder(data_dir).map_err(|error| {
        format!(
            "the cluster's holder does not answer at {}: {error}",
            data_dir.join(SOCKET).display()
        )
    })?;
    let open = |kind: &str| {
        let path = format!("/proc/{holder}/ns/{kind}");
        File::open(&path).map_err(|error| format!("cannot open {path}: {error}"))
    };
    // Both before the first is entered: after that, what the host lets its user see is nobody's.
    let (user, network) = (open("user")?, open("net")?);
    setns(user, CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| format!("cannot enter the cluster's user namespace: {errno}"))?;
    setns(network, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("cannot enter the cluster's network: {errno}"))
}

/// The process id of the holder.
fn holder(data_dir: &Path) -> io::Result<i32> {
    let directory = File::open(data_dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let mut holder = Connection::new(UnixStream::connect(path)?.into());
    holder.send(&Request::Hello, &[]);
    let line = loop {
        match holder.next_line() {
            Some(line) => break line,
            None if holder.receive() => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    match serde_json::from_slice(&line)? {
        Report::Hello { pid, .. } => Ok(pid),
        other => Err(io::Error::other(format!("it says {other:?}"))),
    }
}

/// Mounts of its own, in which names are looked up as pods do.
fn view(shell: &Shell, resolv_conf: &str) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        let path = shell.directory.join(name);
        fs::create_dir_all(&shell.directory)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok::<_, String>(path)
    };
    let mut files = vec![("/etc/resolv.conf", write("resolv.conf", resolv_conf)?)];
    let of_host = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if let Some(text) = hosts::nsswitch(&of_host) {
        files.push(("/etc/nsswitch.conf", write("nsswitch.conf", &text)?));
    }
    own_mounts()?;
    for (target, source) in files {
        bind(&source, target).map_err(|error| format!("cannot mount {}: {error}", source.display()))?;
    }
    Ok(())
}

fn own_mounts() -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    // In the cluster's own user namespace the user is root, too.
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("no mount namespace: {errno}"))?;
    } else {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)
            .map_err(|errno| format!("no mount namespace: {errno}"))?;
        let map = || {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
        };
        map().map_err(|error: io::Error| format!("cannot map user {uid}: {error}"))?;
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| format!("mounts cannot be made private: {errno}"))
}

fn bind(source: &Path, target: &str) -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(mount(Some(source), target, none, MsFlags::MS_BIND, none)?)
}
