//! One end of a socket to the holder or a shim: a JSON object a line, and descriptors along with lines. The other end is
//! [`crate::shim::wire`].

use crate::shim::wire::{Inbox, line, send_some};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// What sends.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
    /// Held while a line is sent, so that lines do not mix.
    sending: Mutex<()>,
}

/// What receives. [`Receiver::next`] may be dropped at any point: nothing is lost.
#[derive(Debug)]
pub(crate) struct Receiver {
    wire: Arc<Wire>,
    inbox: Inbox,
}

/// Connect to the socket `name` in a directory, whose path may be longer than the 108 bytes that an address has room for.
pub(crate) async fn connect(directory: &Path, name: &str) -> io::Result<(Arc<Wire>, Receiver)> {
    let directory = std::fs::File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let wire = Arc::new(Wire {
        stream: UnixStream::connect(path).await?,
        sending: Mutex::default(),
    });
    let receiver = Receiver {
        wire: wire.clone(),
        inbox: Inbox::default(),
    };
    Ok((wire, receiver))
}

impl Wire {
    /// One line; the descriptors travel with its first byte.
    pub async fn send(&self, message: &impl serde::Serialize, descriptors: &[RawFd]) -> io::Result<()> {
        let line = line(message)?;
        let _sending = self.sending.lock().await;
        let mut sent = 0;
        while sent < line.len() {
            let along = if sent == 0 { descriptors } else { &[] };
            let write = || send_some(self.stream.as_fd(), &line[sent..], along).map_err(io::Error::from);
            sent += self.stream.async_io(Interest::WRITABLE, write).await?;
        }
        Ok(())
    }

    /// Whether the other side is gone. Only for one that speaks when it is asked.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0u8; 1];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        matches!(
            nix::sys::socket::recv(self.stream.as_raw_fd(), &mut byte, flags),
            Ok(0) | Err(Errno::ECONNRESET)
        )
    }
}

impl Receiver {
    /// The next line; `None`: the other side is gone.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.inbox.next_line() {
                return Some(line);
            }
            let stream = &self.wire.stream;
            let read = || self.inbox.receive(stream.as_fd(), MsgFlags::MSG_DONTWAIT);
            if stream.async_io(Interest::READABLE, read).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The first of the descriptors that have come along and were not taken yet.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.inbox.take()
    }
}
