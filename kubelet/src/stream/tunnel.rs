//! A WebSocket as a stream of bytes: what its binary messages carry, one after the other. kubectl's port-forward speaks
//! SPDY through one.

use super::websocket::goodbye;
use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// The longest message that is sent.
const CHUNK: usize = 64 << 10;

/// The bytes of a WebSocket's messages.
pub struct Tunnel<IO> {
    socket: WebSocketStream<IO>,
    /// What has been received and not been read.
    rest: Bytes,
    /// The client has been told that this is the end.
    closing: bool,
}

impl<IO> Tunnel<IO> {
    /// Through a WebSocket after its handshake.
    pub fn new(socket: WebSocketStream<IO>) -> Self {
        Self {
            socket,
            rest: Bytes::new(),
            closing: false,
        }
    }
}

fn failed(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(context)) {
                Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => {
                    this.rest = message.into_data()
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
        let length = buffer.remaining().min(this.rest.len());
        buffer.put_slice(&this.rest[..length]);
        this.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = &mut self.get_mut().socket;
        ready!(Pin::new(&mut *socket).poll_ready(context)).map_err(failed)?;
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(socket).start_send(message).map_err(failed)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket)
            .poll_flush(context)
            .map_err(failed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(Pin::new(&mut this.socket).poll_ready(context)).map_err(failed)?;
            Pin::new(&mut this.socket).start_send(goodbye()).map_err(failed)?;
            this.closing = true;
        }
        Pin::new(&mut this.socket).poll_close(context).map_err(failed)
    }
}
