//! Bytes that arrive in messages, read as a stream; and a stream that leaves in messages. Both are bounded: who is too
//! fast waits.

use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

/// How many messages wait for their reader or writer.
pub const DEPTH: usize = 4;
/// The most bytes that leave in one message: what Go copies at once.
pub const CHUNK: usize = 32 << 10;

/// A reader of what is sent; it ends when the sender is gone.
pub fn reader() -> (mpsc::Sender<Bytes>, impl AsyncRead + Send + Unpin + 'static) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    (sender, read(receiver))
}

/// The bytes of all messages, one after the other.
pub fn read(mut messages: mpsc::Receiver<Bytes>) -> impl AsyncRead + Send + Unpin + 'static {
    let messages =
        futures::stream::poll_fn(move |context| messages.poll_recv(context).map(|m| m.map(io::Result::Ok)));
    StreamReader::new(messages)
}

/// A writer that makes a message of what it is given.
pub struct Writer<M, F> {
    sender: PollSender<M>,
    message: F,
}

impl<M: Send + 'static, F: Fn(&[u8]) -> M + Unpin> Writer<M, F> {
    /// Messages go to `sender`.
    pub fn new(sender: mpsc::Sender<M>, message: F) -> Self {
        Self {
            sender: PollSender::new(sender),
            message,
        }
    }
}

fn gone<E>(_: E) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl<M: Send + Unpin + 'static, F: Fn(&[u8]) -> M + Unpin> AsyncWrite for Writer<M, F> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.sender.poll_reserve(context)).map_err(gone)?;
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        this.sender.send_item((this.message)(bytes)).map_err(gone)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().sender.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_sent_is_read_to_the_end() {
        let (sender, mut read) = reader();
        let send = async {
            for part in ["a", "bc", "", "def"] {
                sender
                    .send(Bytes::from_static(part.as_bytes()))
                    .await
                    .expect("it is read");
            }
            drop(sender);
        };
        let mut all = String::new();
        let (_, read) = tokio::join!(send, read.read_to_string(&mut all));
        read.expect("a text");
        assert_eq!(all, "abcdef");
    }

    #[tokio::test]
    async fn a_writer_waits_for_room_and_says_when_it_is_done() {
        let (sender, mut messages) = mpsc::channel(1);
        let mut writer = Writer::new(sender, <[u8]>::to_vec);
        let big = vec![7; CHUNK + 1];
        let write = async {
            writer.write_all(&big).await.expect("somebody reads");
            writer.shutdown().await.expect("somebody reads");
        };
        let read = async {
            let mut lengths = Vec::new();
            while let Some(message) = messages.recv().await {
                lengths.push(message.len());
            }
            lengths
        };
        let ((), lengths) = tokio::join!(write, read);
        assert_eq!(lengths, [CHUNK, 1]);
        assert!(writer.write(b"x").await.is_err());
    }
}
