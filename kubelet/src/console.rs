//! The standard streams of a container's main process, to which clients attach while its shim writes the log.
//!
//! The process never waits for a client: one that falls far behind is let go by the shim, and told so. (A runtime that
//! writes to clients in turn lets the slowest one hold up the container.)

use crate::process::{Attachment, Container as Process};
use crate::shim::protocol::MainStdio;
use crate::shim::protocol::pod::said;
use crate::terminal::Terminal;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::unix::pipe;

/// A program's standard input, as the kubelet holds it.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// Where something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; with a terminal all output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The main process's side of `attach`.
#[derive(Debug)]
pub struct Console {
    process: Process,
    stdio: MainStdio,
    closes_stdin: bool,
}

/// What connects one client.
pub struct Connected {
    /// Everything from now on.
    pub said: Said<tokio::net::UnixStream>,
    /// What to type into, if the process reads from clients.
    pub input: Option<Input>,
    /// Its terminal, for changes of its size.
    pub terminal: Option<Terminal>,
}

impl Console {
    /// That of a main process with such streams.
    pub fn new(process: Process, stdio: MainStdio, stdin_once: bool) -> Arc<Self> {
        Arc::new(Self {
            process,
            stdio,
            // With a terminal one may attach again.
            closes_stdin: stdin_once && stdio == MainStdio::Input,
        })
    }

    /// One more client.
    pub async fn connect(&self) -> Result<Connected, String> {
        let Attachment { said, input } = self.process.attach().await?;
        let failed = |e: io::Error| format!("cannot use the container's input: {e}");
        let mut connected = Connected {
            said: Said { from: said },
            input: None,
            terminal: None,
        };
        match input {
            Some(master) if self.tty() => {
                let terminal = Terminal::of(master).map_err(failed)?;
                connected.input = Some(Box::new(terminal.clone()));
                connected.terminal = Some(terminal);
            }
            Some(pipe) => {
                let sender = pipe::Sender::from_owned_fd(pipe).map_err(failed)?;
                connected.input = Some(Box::new(sender));
            }
            None => {}
        }
        Ok(connected)
    }

    /// Whether the process has a terminal.
    pub fn tty(&self) -> bool {
        self.stdio == MainStdio::Terminal
    }

    /// Whether the first client's end of input is the process's (`stdinOnce`).
    pub fn closes_stdin(&self) -> bool {
        self.closes_stdin
    }

    /// The end of the process's input, when the client has let go of it, too.
    pub async fn close_stdin(&self) {
        self.process.close_input().await;
    }
}

/// What a main process says, frame by frame.
#[derive(Debug)]
pub struct Said<R> {
    from: R,
}

impl<R: AsyncRead + Unpin> Said<R> {
    /// The next thing; `None`: nothing more is to come. An error: the client was too slow, or the shim is gone.
    pub async fn next(&mut self) -> io::Result<Option<(Stream, Bytes)>> {
        let mut head = [0; said::HEAD];
        self.from.read_exact(&mut head).await?;
        let [tag, a, b, c, d] = head;
        let stream = match tag {
            said::END => return Ok(None),
            said::STDERR => Stream::Stderr,
            _ => Stream::Stdout,
        };
        let mut bytes = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        self.from.read_exact(&mut bytes).await?;
        Ok(Some((stream, bytes.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_to_their_end_and_a_missing_end_is_an_error() {
        let mut frames = Vec::new();
        for (tag, text) in [(said::STDOUT, "one"), (said::STDERR, "two")] {
            frames.extend(said::head(tag, text.len()));
            frames.extend(text.as_bytes());
        }
        let cut = Said { from: &frames[..] };
        let ended = [&frames[..], &said::head(said::END, 0)].concat();
        let whole = Said { from: &ended[..] };
        for (mut said, has_end) in [(cut, false), (whole, true)] {
            let next = said.next().await.expect("a frame");
            assert_eq!(next, Some((Stream::Stdout, "one".into())));
            let next = said.next().await.expect("a frame");
            assert_eq!(next, Some((Stream::Stderr, "two".into())));
            match said.next().await {
                Ok(end) => assert_eq!((end, has_end), (None, true)),
                Err(_) => assert!(!has_end),
            }
        }
    }
}
