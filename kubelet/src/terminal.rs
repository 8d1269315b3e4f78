//! Pseudoterminals: the kubelet keeps the master, a program of a container gets the slave as its controlling terminal. A
//! container with a `/dev/pts` of its own has its terminals from there, so that their names mean something inside.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The size of a client's terminal, in characters. JSON: `{"Width":80,"Height":24}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// The two ends of a new one of the host's: the master, which does not block, and the slave.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair_at("/dev/ptmx")
}

/// The same of the calling process's own `/dev/pts`, where there is one.
pub fn own_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair_at("/dev/pts/ptmx").or_else(|_| pair())
}

/// A file that is no terminal is refused by the first call on it, whatever a container has put there.
fn pair_at(path: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    // Neither end may get into a process that another thread starts meanwhile: its output would not end.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open(path, flags | OFlag::O_NONBLOCK, Mode::empty())?;
    let unlock: libc::c_int = 0;
    // SAFETY: `master` is open, and the call reads one int.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `master` is open, and the call takes numbers only.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    Ok((master, slave))
}

/// The number of a terminal: its slave is `/dev/pts/NUMBER`.
pub fn number(master: BorrowedFd) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the master is open, and the call writes one unsigned int.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) } {
        0 => Ok(number),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tell the programs at a terminal (SIGWINCH) that it has another size now.
pub fn resize(master: BorrowedFd, size: TerminalSize) {
    let size = libc::winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the master is open, and the call reads one winsize. It fails only for what is no terminal.
    unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
}

/// The master of a pseudoterminal. One task reads, one writes.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// A new one, and its slave.
    pub fn open() -> io::Result<(Self, OwnedFd)> {
        let (master, slave) = pair()?;
        Ok((Self::of(master)?, slave))
    }

    /// That of a master, which must not block.
    pub fn of(master: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open and stays the same for as long as it lives.
        let master = unsafe { AsyncFd::register(master) }.map_err(|error| error.into_parts().1)?;
        Ok(Self(Arc::new(master)))
    }

    /// Tell the programs at the terminal (SIGWINCH) that it has another size now.
    pub fn resize(&self, size: TerminalSize) {
        resize(self.0.get_ref().as_fd(), size);
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), unfilled)?)) {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the slave open any more: the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_typed_is_echoed_and_without_a_slave_there_is_an_end() {
        let (mut terminal, slave) = Terminal::open().expect("a terminal");
        terminal.write_all(b"hello\n").await.expect("typed");
        let mut echo = [0; 7];
        terminal.read_exact(&mut echo).await.expect("echoed");
        assert_eq!(&echo, b"hello\r\n");
        drop(slave);
        assert_eq!(terminal.read(&mut echo).await.expect("an end"), 0);
    }

    #[test]
    fn a_file_that_is_no_terminal_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(pair_at(file.path().to_str().expect("UTF-8")).is_err());
    }
}
