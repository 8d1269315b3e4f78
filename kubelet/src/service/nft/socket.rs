//! The socket through which the kernel is told: NETLINK_NETFILTER, of the network in which it was made, whoever uses it.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto, setsockopt, sockopt};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// More than any batch that fits: what a socket may hold is limited for ordinary users, and then that is the limit.
const BUFFER: usize = 16 << 20;

/// `NLMSG_ERROR`: the answer to one message, also if all is well.
const NLMSG_ERROR: u16 = 2;

/// Why the rules could not be changed. Then nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules did not get to the kernel.
    #[error("cannot send rules for Services to the kernel: {0}")]
    Send(#[source] io::Error),
    /// It does not want them.
    #[error("the kernel refuses the rules for Services (message {message}): {source}")]
    Refused {
        /// Which message of the batch.
        message: u32,
        /// Why.
        source: io::Error,
    },
    /// It did not say what it did.
    #[error("the kernel did not answer to rules for Services: {0}")]
    Silent(#[source] io::Error),
}

/// See the first lines of its file.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// With a NETLINK_NETFILTER socket, which need not be bound. It belongs to the network that it was made in.
    pub fn new(socket: OwnedFd) -> Self {
        // Only root may have more than the limit; the answers of a large batch need room too.
        if setsockopt(&socket, sockopt::SndBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::SndBuf, &BUFFER);
        }
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
        }
        Self(socket)
    }

    /// Have a batch carried out, all of it or nothing. It does not wait: the kernel has done it when it has taken it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn carry_out(&self, batch: &[u8]) -> Result<(), Error> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), batch, &kernel, MsgFlags::empty()).map_err(|e| Error::Send(e.into()))?;
        let mut buffer = vec![0; 64 << 10];
        let mut answered = false;
        let mut refused = None;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    for (message, code) in answers(&buffer[..length]) {
                        answered = true;
                        if code != 0 && refused.is_none() {
                            let source = io::Error::from_raw_os_error(-code);
                            refused = Some(Error::Refused { message, source });
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                // There were more answers than there was room for: one was missed, perhaps a bad one.
                Err(errno) => return Err(refused.unwrap_or(Error::Silent(errno.into()))),
            }
        }
        match refused {
            Some(error) => Err(error),
            None if answered => Ok(()),
            None => Err(Error::Silent(Errno::ENODATA.into())),
        }
    }
}

/// Sequence number and code (0, or an errno below 0) of each answer.
fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut answers = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<16>() {
        let four = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let length = u32::from_ne_bytes(four(0)) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind == NLMSG_ERROR
            && let Some(code) = rest.first_chunk()
        {
            answers.push((u32::from_ne_bytes(four(8)), i32::from_ne_bytes(*code)));
        }
        // A length that leads nowhere ends it.
        bytes = bytes
            .get(length.next_multiple_of(4).max(16)..)
            .unwrap_or_default();
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_from_whatever_bytes_there_are() {
        let answer = |length: u32, sequence: u32, code: i32| {
            let kind = [&NLMSG_ERROR.to_ne_bytes()[..], &[0, 0]].concat();
            [
                &length.to_ne_bytes()[..],
                &kind,
                &sequence.to_ne_bytes(),
                &[0; 4],
                &code.to_ne_bytes(),
            ]
            .concat()
        };
        let two = [answer(20, 1, 0), answer(20, 2, -17)].concat();
        assert_eq!(answers(&two), [(1, 0), (2, -17)]);
        assert_eq!(answers(&answer(0, 3, -1)), [(3, -1)]);
        assert_eq!(answers(&answer(u32::MAX, 4, -1)), [(4, -1)]);
        assert_eq!(answers(&two[..18]), []);
    }
}
