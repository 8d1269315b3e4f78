//! One end of a socket to the holder or a shim: a JSON object a line, and descriptors along with lines. The other end is
//! [`crate::shim::wire`].

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
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
        buffer: Vec::new(),
        descriptors: VecDeque::new(),
    };
    Ok((wire, receiver))
}

impl Wire {
    /// One line; the descriptors travel with its first byte.
    pub async fn send(&self, message: &impl serde::Serialize, descriptors: &[RawFd]) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let _sending = self.sending.lock().await;
        let mut sent = 0;
        while sent < line.len() {
            let mut control = vec![ControlMessage::ScmRights(descriptors)];
            if sent > 0 || descriptors.is_empty() {
                control.clear();
            }
            let write = || {
                let slices = [IoSlice::new(&line[sent..])];
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                let socket = self.stream.as_raw_fd();
                sendmsg::<()>(socket, &slices, &control, flags, None).map_err(io::Error::from)
            };
            sent += self.stream.async_io(Interest::WRITABLE, write).await?;
        }
        Ok(())
    }
}

impl Wire {
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
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            let wire = self.wire.clone();
            let read = || self.receive();
            if wire.stream.async_io(Interest::READABLE, read).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The first of the descriptors that have come along and were not taken yet.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut chunk = [0u8; 16 << 10];
        let mut space = cmsg_space!([RawFd; 4]);
        let mut slices = [IoSliceMut::new(&mut chunk)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let socket = self.wire.stream.as_raw_fd();
        let message = recvmsg::<()>(socket, &mut slices, Some(&mut space), flags)?;
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
        Ok(received)
    }
}
