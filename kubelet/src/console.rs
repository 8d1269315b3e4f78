//! The standard streams of a container's main process, to which clients attach while the log is written.
//!
//! What the process says goes to its log first and then to all who are attached. The process never waits for a client: one
//! that falls behind by more than `BEHIND` chunks loses what it missed and is told so. (A runtime that writes to clients
//! in turn lets the slowest one hold up the container.)

use crate::terminal::{Terminal, TerminalSize};
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Mutex, broadcast};

/// So many chunks, of up to 16 KiB each, are kept for clients that are slower than the container.
const BEHIND: usize = 256;

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

/// What was said, and where.
pub type Said = (Stream, Bytes);

/// The main process's side of `attach`.
pub struct Console {
    stdin: Mutex<Option<Input>>,
    has_stdin: bool,
    closes_stdin: bool,
    terminal: Option<Terminal>,
    said: broadcast::WeakSender<Said>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Console")
    }
}

impl Console {
    /// A console and the channel that its [`Tee`]s speak on; it is over when the last of them is.
    pub fn new(
        stdin: Option<Input>,
        stdin_once: bool,
        terminal: Option<Terminal>,
    ) -> (Arc<Self>, broadcast::Sender<Said>) {
        let (sender, _) = broadcast::channel(BEHIND);
        let console = Self {
            has_stdin: stdin.is_some(),
            // With a terminal one may attach again.
            closes_stdin: stdin_once && terminal.is_none(),
            stdin: Mutex::new(stdin),
            terminal,
            said: sender.downgrade(),
        };
        (Arc::new(console), sender)
    }

    /// Everything from now on; `None`: there is nothing more to come.
    pub fn listen(&self) -> Option<broadcast::Receiver<Said>> {
        Some(self.said.upgrade()?.subscribe())
    }

    /// Whether the process has a terminal.
    pub fn tty(&self) -> bool {
        self.terminal.is_some()
    }

    /// Whether the process reads from clients at all.
    pub fn has_stdin(&self) -> bool {
        self.has_stdin
    }

    /// Whether the first client's end of input is the process's (`stdinOnce`).
    pub fn closes_stdin(&self) -> bool {
        self.closes_stdin
    }

    /// The client's terminal has another size.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            terminal.resize(size);
        }
    }

    /// Pass on what a client types, until either side has enough. Several clients type in turn.
    pub async fn feed(&self, mut from: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let mut stdin = self.stdin.lock().await;
            let Some(to) = stdin.as_mut() else { return };
            if to.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    }

    /// The end of the process's input.
    pub async fn close_stdin(&self) {
        *self.stdin.lock().await = None;
    }
}

/// Reads on as `from` does and tells those who are attached.
pub struct Tee<R> {
    /// What the process says.
    pub from: R,
    /// Where.
    pub stream: Stream,
    /// Whom to tell.
    pub to: broadcast::Sender<Said>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Tee<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(context, buffer))?;
        let new = &buffer.filled()[before..];
        if !new.is_empty() && self.to.receiver_count() > 0 {
            // Whoever listened may have gone just now.
            let _ = self.to.send((self.stream, Bytes::copy_from_slice(new)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_client_hears_what_is_said_from_then_on_and_its_end() {
        let (console, to) = Console::new(None, false, None);
        let mut first = console.listen().expect("it speaks");
        let mut tee = Tee {
            from: &b"one"[..],
            stream: Stream::Stderr,
            to,
        };
        let mut log = String::new();
        tee.read_to_string(&mut log).await.expect("read");
        let mut late = console.listen().expect("it may speak");
        drop(tee);
        assert_eq!(log, "one");
        assert_eq!(
            first.recv().await,
            Ok((Stream::Stderr, Bytes::from_static(b"one")))
        );
        for client in [&mut first, &mut late] {
            assert_eq!(client.recv().await, Err(broadcast::error::RecvError::Closed));
        }
        assert!(console.listen().is_none());
    }

    #[tokio::test]
    async fn a_slow_client_loses_and_the_process_does_not_wait() {
        let (console, to) = Console::new(None, false, None);
        let mut slow = console.listen().expect("it speaks");
        let text = vec![b'x'; 1 << 20];
        let mut tee = Tee {
            from: &text[..],
            stream: Stream::Stdout,
            to,
        };
        let mut chunk = [0; 1024];
        while tee.read(&mut chunk).await.expect("read") > 0 {}
        assert!(matches!(
            slow.recv().await,
            Err(broadcast::error::RecvError::Lagged(_))
        ));
    }

    #[tokio::test]
    async fn clients_type_in_turn_until_the_input_is_closed() {
        let (near, mut far) = tokio::io::duplex(64);
        let (console, _to) = Console::new(Some(Box::new(near)), true, None);
        console.feed(&b"one "[..]).await;
        console.feed(&b"two"[..]).await;
        console.close_stdin().await;
        console.feed(&b"three"[..]).await;
        let mut typed = String::new();
        far.read_to_string(&mut typed).await.expect("closed");
        assert_eq!(typed, "one two");
    }
}
