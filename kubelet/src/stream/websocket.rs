//! Channels over a WebSocket: every message begins with the number of its channel.

use super::idle::Idle;
use super::negotiate::Channels;
use super::pipe::{self, DEPTH};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// The channel on which version 5 says that another one is closed: its number is the message.
const CLOSE: u8 = 255;
/// The longest message that is taken, as upstream's.
const MESSAGE: usize = 32 << 20;
/// How often a client is asked whether it is there: one that has gone without a word is noticed by the failing write.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a client may take to show that it listens.
const LISTENING: Duration = Duration::from_secs(1);
/// How long a client may take to answer the closing of a connection.
const CLOSING: Duration = Duration::from_secs(5);

/// A WebSocket after its handshake, on the server's side.
pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> WebSocketStream<IO> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The word that ends a connection in order: without a code Go's clients take it for a failure.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    }))
}

/// Where messages to the client are put.
#[derive(Clone)]
pub struct Outgoing {
    messages: mpsc::Sender<Message>,
    protocol: Channels,
}

impl Outgoing {
    /// Send these bytes on a channel; false if the client is gone.
    pub async fn send(&self, channel: u8, bytes: &[u8]) -> bool {
        self.messages
            .send(message(self.protocol, channel, bytes))
            .await
            .is_ok()
    }

    /// A channel as a writer.
    pub fn writer(&self, channel: u8) -> impl AsyncWrite + Send + Unpin + 'static {
        let protocol = self.protocol;
        pipe::Writer::new(self.messages.clone(), move |bytes: &[u8]| {
            message(protocol, channel, bytes)
        })
    }
}

/// Where what a client sends on each channel goes, by the channel's number. `None`: it is ignored.
pub type Incoming = Vec<Option<mpsc::Sender<Bytes>>>;

/// A connection of channels: where to send, and the work, which ends when the client is gone, or when every sender is
/// and the connection has been closed in order.
pub fn channels<IO>(
    socket: WebSocketStream<IO>,
    protocol: Channels,
    incoming: Incoming,
    idle: Idle,
) -> (Outgoing, impl Future<Output = ()>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (messages, outgoing) = mpsc::channel(DEPTH);
    (
        Outgoing { messages, protocol },
        carry(socket, protocol, incoming, outgoing, idle),
    )
}

async fn carry<IO: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<IO>,
    protocol: Channels,
    mut incoming: Incoming,
    mut outgoing: mpsc::Receiver<Message>,
    idle: Idle,
) {
    let (mut sink, mut stream) = socket.split();
    let listens = Notify::new();
    let read = async {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(_) | Message::Text(_) => {
                    idle.touch();
                    if let Some((channel, bytes)) = parse(protocol, message) {
                        deliver(protocol, &mut incoming, channel, bytes).await;
                    }
                }
                Message::Pong(_) => listens.notify_one(),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Frame(_) => {}
            }
        }
    };
    let write = async {
        // kubectl up to 1.33 drops what comes while it still makes its channels, and then says nothing and succeeds: a short
        // program is quicker than that. Who answers is past it. RFC 6455, section 5.5.2: everybody answers.
        sink.send(Message::Ping(Bytes::new())).await?;
        let _ = tokio::time::timeout(LISTENING, listens.notified()).await;
        let mut tick = tokio::time::interval(KEEP_ALIVE);
        tick.reset();
        loop {
            let message = tokio::select! {
                message = outgoing.recv() => message,
                _ = tick.tick() => {
                    sink.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
            };
            let Some(message) = message else { break };
            idle.touch();
            // Each by itself, even if the next one waits already: two in one record of TLS, and the Python client, which
            // asks the socket whether there is more, does not see the second.
            sink.send(message).await?;
        }
        sink.send(goodbye()).await?;
        sink.close().await
    };
    let all_said = async {
        let mut read = std::pin::pin!(read);
        let written: Result<(), Error> = tokio::select! {
            () = &mut read => return,
            written = write => written,
        };
        if written.is_ok() {
            // The client's own word that it closes ends the connection in order.
            let _ = tokio::time::timeout(CLOSING, read).await;
        }
    };
    tokio::select! {
        () = all_said => {}
        () = idle.expired() => tracing::debug!("a streaming connection was idle for too long"),
    }
}

async fn deliver(protocol: Channels, incoming: &mut Incoming, channel: u8, bytes: Bytes) {
    if protocol.version >= 5 && channel == CLOSE {
        if let Some(closed) = bytes
            .first()
            .and_then(|closed| incoming.get_mut(usize::from(*closed)))
        {
            *closed = None;
        }
        return;
    }
    if let Some(Some(receiver)) = incoming.get(usize::from(channel))
        && !bytes.is_empty()
        && receiver.send(bytes).await.is_err()
    {
        // Nobody wants to hear more on it.
        incoming[usize::from(channel)] = None;
    }
}

/// The channel and the bytes of a message; `None` if it is not one of this protocol.
fn parse(protocol: Channels, message: Message) -> Option<(u8, Bytes)> {
    let mut bytes = message.into_data();
    if bytes.is_empty() {
        return None;
    }
    let channel = bytes.split_to(1)[0];
    if !protocol.base64 {
        return Some((channel, bytes));
    }
    let channel = channel.checked_sub(b'0')?;
    Some((channel, STANDARD.decode(&bytes).ok()?.into()))
}

fn message(protocol: Channels, channel: u8, bytes: &[u8]) -> Message {
    if protocol.base64 {
        let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
        STANDARD.encode_string(bytes, &mut text);
        return Message::text(text);
    }
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

#[cfg(test)]
mod tests {
    use super::super::negotiate::REMOTE;
    use super::*;
    use std::io;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
    use tokio::time::Instant;

    /// When a client that answers after so long, or never, is told something, and what it is.
    async fn told(answers_after: Option<Duration>) -> (Duration, [u8; 4]) {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let socket = accept(server).await;
        let (outgoing, connection) = channels(socket, REMOTE[0], Vec::new(), Idle::new());
        let talk = async {
            assert!(outgoing.send(1, b"a").await);
            let begin = Instant::now();
            let mut ping = [0; 2];
            client.read_exact(&mut ping).await.expect("something comes");
            assert_eq!(ping, [0x89, 0], "RFC 6455, section 5.2: a whole message, a ping");
            if let Some(after) = answers_after {
                tokio::time::sleep(after).await;
                let pong = [0x8a, 0x80, 0, 0, 0, 0];
                client.write_all(&pong).await.expect("it is taken");
            }
            let mut first = [0; 4];
            client.read_exact(&mut first).await.expect("something comes");
            (begin.elapsed(), first)
        };
        tokio::select! {
            told = talk => told,
            () = connection => panic!("the connection ended"),
        }
    }

    /// A connection that notes how it is written to.
    struct Noted {
        io: DuplexStream,
        writes: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl AsyncRead for Noted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.lock().expect("nobody panics").push(bytes.to_vec());
            Pin::new(&mut self.io).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(context)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_wait_are_written_one_by_one() {
        let (_client, io) = tokio::io::duplex(1 << 10);
        let writes = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let noted = writes.clone();
        let socket = accept(Noted { io, writes }).await;
        let (outgoing, connection) = channels(socket, REMOTE[0], Vec::new(), Idle::new());
        for text in [b"", &b"a"[..], b"b"] {
            assert!(outgoing.send(1, text).await);
        }
        drop(outgoing);
        connection.await;
        let ping = vec![0x89, 0];
        let goodbye = vec![0x88, 2, 3, 0xe8];
        let said = [vec![0x82, 1, 1], vec![0x82, 2, 1, b'a'], vec![0x82, 2, 1, b'b']];
        let all = [vec![ping], said.to_vec(), vec![goodbye]].concat();
        assert_eq!(*noted.lock().expect("nobody panics"), all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_nothing_before_it_listens_or_for_a_second() {
        let said = [0x82, 2, 1, b'a'];
        let soon = LISTENING / 5;
        assert_eq!(told(Some(soon)).await, (soon, said));
        assert_eq!(told(None).await, (LISTENING, said));
    }
}
