//! One end of a socket that carries a JSON object a line, and descriptors along with lines; without a runtime.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most that a buffer keeps when it is empty.
const KEPT: usize = 64 << 10;

/// What has arrived over a socket: bytes that become lines, and descriptors.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Take in what has arrived; how many bytes.
    pub fn receive(&mut self, socket: BorrowedFd, flags: MsgFlags) -> io::Result<usize> {
        let mut chunk = [0u8; 16 << 10];
        let mut space = cmsg_space!([RawFd; 12]);
        let mut slices = [IoSliceMut::new(&mut chunk)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
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

    /// The next whole line, without its end.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|b| *b == b'\n')?;
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.pop();
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT);
        }
        Some(line)
    }

    /// The first of the descriptors that have come along and were not taken yet.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }
}

/// The line that says something.
pub(crate) fn line(message: &impl serde::Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Send as much of this as there is room for, without waiting, and the descriptors along with it; how many bytes.
pub(crate) fn send_some(socket: BorrowedFd, bytes: &[u8], descriptors: &[RawFd]) -> nix::Result<usize> {
    let along = [ControlMessage::ScmRights(descriptors)];
    let control: &[ControlMessage] = if descriptors.is_empty() { &[] } else { &along };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)
}

/// A connection to a kubelet.
pub struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
    lost: bool,
}

impl Connection {
    /// Over a connected stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            lost: false,
        }
    }

    /// Take in what has arrived, or wait for something; false: the other side is gone.
    pub fn receive(&mut self) -> bool {
        let received = self.inbox.receive(self.socket.as_fd(), MsgFlags::empty());
        let is_there = match received {
            Ok(received) => received > 0,
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        };
        is_there && !self.lost
    }

    /// The next whole line.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        self.inbox.next_line()
    }

    /// The first of the descriptors that have come along and were not taken yet.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.inbox.take()
    }

    /// Say something. Who does not listen is not waited for: the connection counts as lost, and who comes back is told all
    /// there is to know.
    pub fn send(&mut self, message: &impl serde::Serialize, descriptors: &[BorrowedFd<'_>]) {
        let line = line(message).expect("a report is plain data");
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < line.len() && !self.lost {
            // They travel with the first byte.
            let along = if sent == 0 { raw.as_slice() } else { &[] };
            match send_some(self.socket.as_fd(), &line[sent..], along) {
                Ok(length) => sent += length,
                Err(Errno::EINTR) => {}
                Err(_) => self.lost = true,
            }
        }
        if self.lost {
            // Whoever polls it sees its end.
            let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_arrive_whole_and_descriptors_with_them() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (mut ours, mut theirs) = (Connection::new(ours.into()), Connection::new(theirs.into()));
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        let long = "x".repeat(40_000);
        ours.send(&"one", &[]);
        ours.send(&long, &[null.as_fd()]);
        let mut lines = Vec::new();
        while lines.len() < 2 {
            assert!(theirs.receive());
            lines.extend(std::iter::from_fn(|| theirs.next_line()));
        }
        assert_eq!(lines[0], b"\"one\"");
        assert_eq!(lines[1].len(), long.len() + 2);
        assert!(theirs.take().is_some());
        assert!(theirs.take().is_none());
    }

    #[test]
    fn who_does_not_listen_is_given_up() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut ours = Connection::new(ours.into());
        let chunk = "x".repeat(1 << 20);
        ours.send(&chunk, &[]);
        ours.send(&chunk, &[]);
        assert!(!ours.receive());
        drop(theirs);
    }
}
