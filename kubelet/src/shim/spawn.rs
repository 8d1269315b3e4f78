//! What happens in a container's child between fork and exec.

use super::protocol::Spec;
use super::wire::Connection;
use crate::terminal::{self, TerminalSize};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, dup2_raw, fchown, setsid};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Standard input, output and error of a program.
pub enum Stdio {
    /// These.
    Given([OwnedFd; 3]),
    /// A terminal, which becomes its controlling one.
    Terminal(OwnedFd),
    /// A new one of the container's own, of this size.
    OwnTerminal(TerminalSize),
}

/// In the child: make these its own.
pub fn standard_streams(stdio: &Stdio) -> nix::Result<()> {
    let standard = match stdio {
        Stdio::Given(all) => all.each_ref(),
        Stdio::Terminal(terminal) => [terminal; 3],
        Stdio::OwnTerminal(_) => return Ok(()),
    };
    for (number, descriptor) in standard.into_iter().enumerate() {
        replace(descriptor.as_raw_fd(), number as RawFd)?;
    }
    Ok(())
}

/// In the child, in the container's namespaces: give it a new terminal and the shim the other end. It becomes
/// `/dev/console` of a container whose main process this is.
pub(super) fn own_terminal(
    spec: &Spec,
    size: TerminalSize,
    shim: &mut Connection,
    is_main: bool,
) -> io::Result<()> {
    let (master, slave) = terminal::own_pair()?;
    terminal::resize(master.as_fd(), size);
    shim.send(&"terminal", &[master.as_fd()]);
    // The host's console is not the container's.
    if is_main && !spec.security.privileged {
        let name = format!("/dev/pts/{}", terminal::number(master.as_fd())?);
        File::create("/dev/console")?;
        let none: Option<&str> = None;
        mount(Some(name.as_str()), "/dev/console", none, MsFlags::MS_BIND, none)?;
    }
    control(spec, &slave)?;
    standard_streams(&Stdio::Terminal(slave))?;
    Ok(())
}

/// Make `terminal` the controlling one of a session of the program's own, and its user's.
pub(super) fn control(spec: &Spec, terminal: &OwnedFd) -> nix::Result<()> {
    setsid()?;
    // SAFETY: the descriptor is open, and the call takes numbers only.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    match spec.user {
        // Where there is only one user it is theirs already.
        Some(user) if Uid::effective().is_root() && !super::user::is_single() => {
            fchown(terminal, Some(Uid::from_raw(user)), None)
        }
        _ => Ok(()),
    }
}

/// Where the program is: as `execvp` would look for it in the container's own `PATH`; refused in runc's words.
pub(super) fn find(program: &str, spec: &Spec) -> Result<String, String> {
    let base = spec.working_dir.as_deref().unwrap_or(Path::new("/"));
    if program.contains('/') {
        let path = base.join(program).to_string_lossy().into_owned();
        let refused = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("stat {path}: no such file or directory")
            }
            Ok(found) if found.is_dir() => "is a directory".into(),
            Ok(found) if !is_program(&found) => "permission denied".into(),
            // Whatever else there may be, the kernel says.
            _ => return Ok(path),
        };
        return Err(format!("exec: {program:?}: {refused}"));
    }
    let path = spec
        .env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value);
    path.split(':')
        .filter(|d| !d.is_empty())
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| fs::metadata(candidate).is_ok_and(|m| is_program(&m)))
        .map(|found| found.to_string_lossy().into_owned())
        .ok_or_else(|| format!("exec: {program:?}: executable file not found in $PATH"))
}

fn is_program(metadata: &fs::Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// Point descriptors at `/dev/null`.
pub fn null_to(numbers: &[RawFd]) -> io::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    for number in numbers {
        replace(null.as_raw_fd(), *number)?;
    }
    Ok(())
}

pub(super) fn replace(from: RawFd, number: RawFd) -> nix::Result<()> {
    // SAFETY: `number` is one of 0, 1, 2, which belong to the process as a whole and to no Rust value that
    // would close them.
    let standard = unsafe { dup2_raw(BorrowedFd::borrow_raw(from), number) }?;
    std::mem::forget(standard);
    Ok(())
}

pub(super) fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a NUL byte"))
}
