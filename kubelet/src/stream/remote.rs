//! exec and attach: a program's streams over a WebSocket or over SPDY.

use super::idle::Idle;
use super::negotiate::Channels;
use super::options::Wanted;
use super::pipe;
use super::resize::Sizes;
use super::spdy::{self, Accepted};
use super::status::{self, Outcome};
use super::websocket;
use crate::exec::{Streams, TerminalSize};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// How long a SPDY client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);

/// The program that a conversation is about, started with its streams.
pub type Program = Box<dyn FnOnce(Streams) -> BoxFuture<'static, Outcome> + Send>;

/// Talk about a program over an upgraded connection that speaks WebSocket, until the program ends and that has been told, or
/// the client goes: then `program` is dropped.
pub async fn over_websocket<IO>(io: IO, protocol: Channels, wanted: Wanted, program: Program)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut incoming = vec![None; usize::from(RESIZE) + 1];
    let mut streams = Streams::default();
    if wanted.stdin {
        let (sender, reader) = pipe::reader();
        incoming[usize::from(STDIN)] = Some(sender);
        streams.stdin = Some(Box::new(reader));
    }
    let (resizes, sizes) = mpsc::channel(pipe::DEPTH);
    if wanted.tty {
        incoming[usize::from(RESIZE)] = Some(resizes);
    }
    let socket = websocket::accept(io).await;
    let (outgoing, connection) = websocket::channels(socket, protocol, incoming, Idle::new());
    let writer = |channel| -> Box<dyn AsyncWrite + Send + Unpin> { Box::new(outgoing.writer(channel)) };
    streams.stdout = wanted.stdout.then(|| writer(STDOUT));
    streams.stderr = wanted.stderr.then(|| writer(STDERR));
    let (resize, parsed) = resizing(sizes);
    streams.resize = wanted.tty.then_some(parsed);

    let conversation = async move {
        // An empty message tells the client that the connection is there.
        let first = match (wanted.stdout, wanted.stderr) {
            (true, _) => STDOUT,
            (_, true) => STDERR,
            _ => ERROR,
        };
        outgoing.send(first, &[]).await;
        let outcome = program(streams).await;
        let told = status::encode(&outcome, &wanted.command, protocol.version);
        if !told.is_empty() {
            outgoing.send(ERROR, &told).await;
        }
    };
    until_gone(connection, resize, conversation).await;
}

/// The versions of SPDY streams, the best first.
pub const SPDY: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// The same over SPDY, with a stream for each of the program's and one for its end.
pub async fn over_spdy<IO>(io: IO, protocol: &str, wanted: Wanted, program: Program)
where
    IO: AsyncRead + AsyncWrite + Send,
{
    let version = SPDY
        .iter()
        .position(|name| *name == protocol)
        .map_or(1, |at| SPDY.len() - at);
    let (mut opened, connection) = spdy::connection(io, Idle::new());
    let (pieces, sizes) = mpsc::channel(pipe::DEPTH);
    let (resize, parsed) = resizing(sizes);
    let conversation = async move {
        let asked = Types {
            resize: wanted.tty && version >= 3,
            ..Types::of(&wanted)
        };
        let Ok(Some(mut client)) = tokio::time::timeout(OPENING, open(&mut opened, &asked)).await else {
            tracing::debug!("a client did not open the streams that it asked for");
            return;
        };
        let writer = |stream: &Option<Accepted>| -> Option<Box<dyn AsyncWrite + Send + Unpin>> {
            stream
                .as_ref()
                .map(|stream| -> Box<dyn AsyncWrite + Send + Unpin> { Box::new(stream.writer()) })
        };
        let streams = Streams {
            stdin: client
                .stdin
                .as_mut()
                .map(|stream| -> Box<dyn AsyncRead + Send + Unpin> { Box::new(stream.reader()) }),
            stdout: writer(&client.stdout),
            stderr: writer(&client.stderr),
            resize: client.resize.is_some().then_some(parsed),
        };
        let pass_on = pass_on(client.resize.as_mut().map(Accepted::messages), pieces);
        let outcome = tokio::select! {
            outcome = program(streams) => outcome,
            () = pass_on => unreachable!("it waits for ever at its end"),
        };
        for stream in [&client.stdout, &client.stderr].into_iter().flatten() {
            stream.finish().await;
        }
        if let Some(error) = &client.error {
            let told = status::encode(&outcome, &wanted.command, u8::try_from(version).unwrap_or(1));
            // A client that is gone does not hear it.
            let _ = error.writer().write_all(&told).await;
            error.finish().await;
        }
    };
    until_gone(connection, resize, conversation).await;
}

async fn pass_on(from: Option<mpsc::Receiver<Bytes>>, to: mpsc::Sender<Bytes>) {
    if let Some(mut from) = from {
        while let Some(piece) = from.recv().await {
            if to.send(piece).await.is_err() {
                break;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Something for each type of stream.
#[derive(Default)]
struct Types<T> {
    stdin: T,
    stdout: T,
    stderr: T,
    error: T,
    resize: T,
}

impl Types<bool> {
    fn of(wanted: &Wanted) -> Self {
        Self {
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            error: true,
            resize: false,
        }
    }
}

impl<T> Types<T> {
    fn named(&mut self, name: &str) -> Option<&mut T> {
        Some(match name {
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "error" => &mut self.error,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }
}

/// Take the streams that the client asked for; `None` if it goes before it has opened all of them.
async fn open(
    opened: &mut mpsc::Receiver<spdy::Stream>,
    asked: &Types<bool>,
) -> Option<Types<Option<Accepted>>> {
    let mut client = Types::<Option<Accepted>>::default();
    let is_complete = |client: &Types<Option<Accepted>>| {
        let has = [
            &client.stdin,
            &client.stdout,
            &client.stderr,
            &client.error,
            &client.resize,
        ];
        let wants = [asked.stdin, asked.stdout, asked.stderr, asked.error, asked.resize];
        wants
            .iter()
            .zip(has)
            .all(|(wanted, stream)| !wanted || stream.is_some())
    };
    while !is_complete(&client) {
        let stream = opened.recv().await?;
        let place = stream.header("streamType").and_then(|name| client.named(name));
        match place {
            Some(place) if place.is_none() => *place = Some(stream.accept().await),
            _ => stream.refuse().await,
        }
    }
    Some(client)
}

/// Do all three side by side until the connection ends.
async fn until_gone(
    connection: impl Future<Output = ()>,
    resize: impl Future<Output = ()>,
    conversation: impl Future<Output = ()>,
) {
    let work = async {
        // When the program has ended its terminal has no size.
        let mut conversation = pin!(conversation);
        tokio::select! {
            () = &mut conversation => return,
            () = resize => {}
        }
        conversation.await;
    };
    let mut connection = pin!(connection);
    tokio::select! {
        () = &mut connection => return,
        () = work => {}
    }
    connection.await;
}

/// Terminal sizes of what arrives as bytes, and the work that finds them.
fn resizing(mut bytes: mpsc::Receiver<Bytes>) -> (impl Future<Output = ()>, mpsc::Receiver<TerminalSize>) {
    let (sender, receiver) = mpsc::channel(pipe::DEPTH);
    let work = async move {
        let mut sizes = Sizes::default();
        while let Some(bytes) = bytes.recv().await {
            for size in sizes.push(&bytes) {
                if sender.send(size).await.is_err() {
                    return;
                }
            }
        }
    };
    (work, receiver)
}

#[cfg(test)]
mod tests {
    use super::super::negotiate::REMOTE;
    use super::*;
    use crate::exec::Exit;
    use futures::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// Says back what it reads, in capitals and at its end, the sizes of its terminal apart.
    fn capitals() -> Program {
        Box::new(|mut streams| {
            Box::pin(async move {
                let mut text = String::new();
                if let Some(stdin) = &mut streams.stdin {
                    stdin.read_to_string(&mut text).await.map_err(|e| e.to_string())?;
                }
                if let Some(stdout) = &mut streams.stdout {
                    let said = stdout.write_all(text.to_uppercase().as_bytes()).await;
                    said.map_err(|e| e.to_string())?;
                }
                if let (Some(stderr), Some(resize)) = (&mut streams.stderr, &mut streams.resize) {
                    let _ = stderr
                        .write_all(format!("{:?}", resize.recv().await).as_bytes())
                        .await;
                }
                Ok(Exit {
                    code: 3,
                    signal: None,
                })
            })
        })
    }

    fn wanted() -> Wanted {
        Wanted {
            stdin: true,
            stdout: true,
            ..Wanted::default()
        }
    }

    fn protocol(name: &str) -> Channels {
        *REMOTE
            .iter()
            .find(|protocol| protocol.name == name)
            .expect("it is known")
    }

    async fn client(io: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    /// The next message that says something.
    async fn next(socket: &mut WebSocketStream<DuplexStream>) -> Option<Message> {
        loop {
            match socket.next().await?.expect("a message") {
                Message::Ping(_) => {}
                message => return Some(message),
            }
        }
    }

    /// Everything that comes on each channel, up to the closing of the connection in order.
    async fn all(socket: &mut WebSocketStream<DuplexStream>) -> Vec<Vec<u8>> {
        let mut channels = vec![Vec::new(); 5];
        loop {
            match next(socket).await.expect("a message") {
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.expect("a code").code), 1000);
                    return channels;
                }
                Message::Binary(bytes) => channels[usize::from(bytes[0])].extend(&bytes[1..]),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn version_5_ends_the_input_and_tells_the_exit_code() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let talk = async {
            let mut socket = client(here).await;
            for message in [&[0, b'a'][..], &[9, b'x'], &[], &[0, b'b'], &[255, 0]] {
                let sent = socket.send(Message::binary(message.to_vec())).await;
                sent.expect("it is taken");
            }
            all(&mut socket).await
        };
        let serve = over_websocket(there, protocol("v5.channel.k8s.io"), wanted(), capitals());
        let ((), channels) = tokio::join!(serve, talk);
        assert_eq!(channels[1], b"AB");
        assert!(String::from_utf8_lossy(&channels[3]).contains(r#""reason":"NonZeroExitCode""#));
    }

    #[tokio::test]
    async fn a_client_that_goes_takes_the_program_along() {
        struct Noted(mpsc::Sender<()>);
        impl Drop for Noted {
            fn drop(&mut self) {
                let _ = self.0.try_send(());
            }
        }
        let (sender, mut dropped) = mpsc::channel(1);
        let noted = Noted(sender);
        let program: Program = Box::new(move |_| {
            Box::pin(async move {
                let _noted = noted;
                std::future::pending::<Outcome>().await
            })
        });
        let (here, there) = tokio::io::duplex(1 << 16);
        let talk = async {
            let mut socket = client(here).await;
            let first = next(&mut socket).await.expect("a message");
            assert_eq!(first.into_data()[..], [1]);
        };
        tokio::join!(
            over_websocket(there, protocol("v4.channel.k8s.io"), wanted(), program),
            talk
        );
        assert_eq!(dropped.recv().await, Some(()));
    }

    #[tokio::test]
    async fn base64_is_text_in_both_directions() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let program: Program = Box::new(|mut streams| {
            Box::pin(async move {
                let mut two = [0; 2];
                let stdin = streams.stdin.as_mut().expect("it was asked for");
                stdin.read_exact(&mut two).await.map_err(|e| e.to_string())?;
                let stdout = streams.stdout.as_mut().expect("it was asked for");
                stdout.write_all(&two).await.map_err(|e| e.to_string())?;
                Ok(Exit {
                    code: 0,
                    signal: None,
                })
            })
        });
        let talk = async {
            let mut socket = client(here).await;
            socket.send(Message::text("0aGk=")).await.expect("it is taken");
            let mut texts = Vec::new();
            while let Some(Message::Text(text)) = next(&mut socket).await {
                texts.push(text.to_string());
            }
            texts
        };
        let protocol = protocol("v4.base64.channel.k8s.io");
        let ((), texts) = tokio::join!(over_websocket(there, protocol, wanted(), program), talk);
        assert_eq!(texts[..2], ["1", "1aGk="]);
        assert!(texts[2].starts_with('3'));
    }

    #[test]
    fn every_version_of_spdy_streams_is_one_of_the_websockets() {
        for name in SPDY {
            assert!(REMOTE.iter().any(|protocol| protocol.name == *name), "{name}");
        }
    }
}
