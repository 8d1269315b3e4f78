//! What a container's main process says: to its log first, and to all who are attached.
//!
//! The process never waits for a client: one that falls behind by more than [`BEHIND`] is let go, and can tell by the
//! missing [`said::END`].

use super::log::Writer;
use super::protocol::Log;
use super::protocol::pod::said;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::read;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// So many bytes are kept for a client that is slower than the container.
const BEHIND: usize = 4 << 20;

/// How long (in milliseconds) a client gets to take more of the rest, once there is nothing more to come.
const LINGER: u8 = 100;

/// So many bytes are read at a time.
const CHUNK: usize = 16 << 10;

/// The reading ends of a container's output, its log and its listeners.
pub struct Outputs {
    streams: Vec<Stream>,
    log: Option<Writer>,
    ears: Vec<Ear>,
}

struct Stream {
    /// Never blocks.
    from: OwnedFd,
    tag: u8,
}

/// Somebody who is attached.
struct Ear {
    to: OwnedFd,
    /// What it has not taken yet.
    pending: Vec<u8>,
}

impl Outputs {
    /// With a terminal there is only one stream; none as long as it is not there.
    pub fn new(stdout: Option<OwnedFd>, stderr: Option<OwnedFd>, log: Option<&Log>) -> io::Result<Self> {
        let tagged = |tag| move |from| Stream { from, tag };
        let stdout = stdout.map(tagged(said::STDOUT));
        Ok(Self {
            streams: stdout
                .into_iter()
                .chain(stderr.map(tagged(said::STDERR)))
                .collect(),
            log: log.map(Writer::open).transpose()?,
            ears: Vec::new(),
        })
    }

    /// Hear this terminal, too, which does not block.
    pub fn listen(&mut self, from: OwnedFd) {
        let tag = said::STDOUT;
        self.streams.push(Stream { from, tag });
    }

    /// Copy everything from now on; if nothing more is to come, say so.
    pub fn attach(&mut self, to: OwnedFd) -> io::Result<()> {
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut ear = Ear {
            to,
            pending: Vec::new(),
        };
        if self.streams.is_empty() {
            ear.hear(said::END, &[]);
        } else {
            self.ears.push(ear);
        }
        Ok(())
    }

    /// What to wait for.
    pub fn poll<'a>(&'a self, ready: &mut Vec<PollFd<'a>>) {
        ready.extend(
            self.streams
                .iter()
                .map(|s| PollFd::new(s.from.as_fd(), PollFlags::POLLIN)),
        );
        ready.extend(self.ears.iter().map(|ear| {
            let events = if ear.pending.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::POLLOUT
            };
            PollFd::new(ear.to.as_fd(), events)
        }));
    }

    /// `ready`: what has come of that, in the same order.
    pub fn serve(&mut self, ready: &mut impl Iterator<Item = bool>) {
        let streams: Vec<bool> = ready.by_ref().take(self.streams.len()).collect();
        // Somebody who is attached may only have gone, which writing shows.
        let ears: Vec<bool> = ready.by_ref().take(self.ears.len()).collect();
        let mut numbers = ears.into_iter();
        self.ears
            .retain_mut(|ear| numbers.next() != Some(true) || ear.flush());
        for number in (0..streams.len()).rev().filter(|n| streams[*n]) {
            if !self.copy(number) {
                self.streams.remove(number);
            }
        }
        if self.streams.is_empty() {
            self.end_ears();
        }
    }

    /// One chunk of a stream; false at its end.
    fn copy(&mut self, number: usize) -> bool {
        let mut chunk = [0; CHUNK];
        let Stream { from, tag } = &self.streams[number];
        let length = match read(from, &mut chunk) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            // A terminal that nobody has open any more.
            Err(_) => return false,
        };
        if let Some(log) = &mut self.log {
            log.write(*tag, &chunk[..length]);
        }
        let tag = *tag;
        self.ears.retain_mut(|ear| ear.hear(tag, &chunk[..length]));
        true
    }

    /// No process is left that could say more than what is already there.
    pub fn finish(&mut self) {
        for number in (0..self.streams.len()).rev() {
            while self.has_more(number) && self.copy(number) {}
        }
        self.streams.clear();
        self.end_ears();
        self.log = None;
    }

    fn has_more(&self, number: usize) -> bool {
        let mut ready = [PollFd::new(self.streams[number].from.as_fd(), PollFlags::POLLIN)];
        let polled = poll(&mut ready, PollTimeout::ZERO);
        let events = ready[0].revents().unwrap_or(PollFlags::empty());
        polled.is_ok_and(|n| n > 0) && events.contains(PollFlags::POLLIN)
    }

    fn end_ears(&mut self) {
        for mut ear in self.ears.drain(..) {
            ear.hear(said::END, &[]);
            ear.linger();
        }
    }
}

impl Ear {
    /// False: it is gone, or too slow.
    fn hear(&mut self, tag: u8, bytes: &[u8]) -> bool {
        self.pending.extend_from_slice(&said::head(tag, bytes.len()));
        self.pending.extend_from_slice(bytes);
        self.flush() && self.pending.len() <= BEHIND
    }

    /// Let it have the rest, as long as it reads on.
    fn linger(&mut self) {
        while self.flush() && !self.pending.is_empty() {
            let mut ready = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
            if !poll(&mut ready, PollTimeout::from(LINGER)).is_ok_and(|n| n > 0) {
                return;
            }
        }
    }

    /// False: it is gone.
    fn flush(&mut self) -> bool {
        let mut sent = 0;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let alive = loop {
            match send(self.to.as_raw_fd(), &self.pending[sent..], flags) {
                Ok(length) => sent += length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break true,
                Err(_) => break false,
            }
            if sent == self.pending.len() {
                break true;
            }
        };
        self.pending.drain(..sent);
        if self.pending.is_empty() {
            self.pending.shrink_to(CHUNK);
        }
        alive
    }
}
