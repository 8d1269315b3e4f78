//! Pseudoterminals: the kubelet keeps the master, a program of a container gets the slave as its controlling terminal.

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use serde::Deserialize;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The size of a client's terminal, in characters. JSON: `{"Width":80,"Height":24}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// The two ends of a new one: the master, which does not block, and the slave.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    // Neither end may get into a process that another thread starts meanwhile: its output would not end.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/ptmx", flags, Mode::empty())?;
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
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok((master, slave))
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
        let size = libc::winsize {
            ws_row: size.height,
            ws_col: size.width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the master is open, and the call reads one winsize. It fails only for what is no terminal.
        unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
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
}
