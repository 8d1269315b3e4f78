//! port-forward: connections to a pod's ports, any number of them over one SPDY connection, or one for each port over a
//! WebSocket.

use super::idle::Idle;
use super::negotiate::Channels;
use super::pipe;
use super::spdy::{self, Accepted, Stream};
use super::websocket::{self, Outgoing};
use crate::network::Network;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The version of SPDY streams.
pub const SPDY: &[&str] = &["portforward.k8s.io"];

/// How long a client may take to open the second stream of a pair.
const PAIRING: Duration = Duration::from_secs(30);
/// How much is copied at once.
const BUFFER: usize = 64 << 10;

/// The pod whose ports are forwarded.
#[derive(Clone, Debug)]
pub struct Pod {
    /// As texts name it.
    pub name: String,
    /// Where its ports are.
    pub address: IpAddr,
    /// The way there.
    pub network: Network,
}

impl Pod {
    /// Connect with a port; the error is for the client, in upstream's words.
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let address = SocketAddr::new(self.address, port);
        let why = match self.network.connect(address).await {
            Ok(stream) => {
                // Interactive protocols wait for small packets.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => reason(&error),
        };
        let Self { name, address, .. } = self;
        let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
        let target = SocketAddr::new(*address, port);
        Err(format!(
            "error forwarding port {port} to pod {name}, uid : failed to connect to {address}:{port}: \
             dial {family} {target}: {why}"
        ))
    }
}

/// As Go words it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => format!("connect: {error}"),
    }
}

/// Forward over an upgraded connection that speaks SPDY, until the client goes.
pub async fn over_spdy<IO: AsyncRead + AsyncWrite>(io: IO, pod: Pod) {
    let (mut opened, connection) = spdy::connection(io, Idle::new());
    let (paired, mut starting) = mpsc::channel(1);
    // A reply to a new stream waits for a client that does not listen; connections that go on do not wait for it.
    let pair_up = async {
        let mut pairs = Pairs::default();
        loop {
            let next = pairs.deadline();
            tokio::select! {
                stream = opened.recv() => {
                    let Some(stream) = stream else { break };
                    if let Some(pair) = pairs.add(stream, Instant::now()).await {
                        // The receiver lives as long as this does.
                        let _ = paired.send(pair).await;
                    }
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    pairs.give_up(Instant::now()).await;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let serve = async {
        let mut going_on = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(pair) = starting.recv() => going_on.push(forward(&pod, pair)),
                Some(()) = going_on.next() => {}
            }
        }
    };
    tokio::select! {
        () = connection => {}
        () = pair_up => {}
        () = serve => {}
    }
}

/// The two streams of one forwarded connection.
struct Pair {
    port: u16,
    data: Accepted,
    error: Accepted,
}

/// One of two, and until when the other is waited for.
struct Half {
    port: u16,
    is_error: bool,
    stream: Accepted,
    until: Instant,
}

/// Streams whose other half has not come yet, by the id of their request.
#[derive(Default)]
struct Pairs(HashMap<String, Half>);

impl Pairs {
    /// A stream that the client has opened; a pair if it is the second one.
    async fn add(&mut self, stream: Stream, now: Instant) -> Option<Pair> {
        let port = stream
            .header("port")
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0);
        let is_error = match stream.header("streamType") {
            Some("error") => Some(true),
            Some("data") => Some(false),
            _ => None,
        };
        let (Some(port), Some(is_error)) = (port, is_error) else {
            tracing::debug!(headers = ?stream.headers, "a stream without a port or a type is refused");
            stream.refuse().await;
            return None;
        };
        // Old clients leave the id out: they open the error stream, and then the data stream.
        let id = match (stream.header("requestID"), is_error) {
            (Some(id), _) => id.to_owned(),
            (None, true) => stream.id.to_string(),
            (None, false) => stream.id.saturating_sub(2).to_string(),
        };
        let other = self.0.remove(&id).filter(|other| other.is_error != is_error);
        let stream = stream.accept().await;
        let Some(other) = other else {
            let until = now + PAIRING;
            self.0.insert(
                id,
                Half {
                    port,
                    is_error,
                    stream,
                    until,
                },
            );
            return None;
        };
        let (error, data) = if is_error {
            (stream, other.stream)
        } else {
            (other.stream, stream)
        };
        // The data stream's port counts, as upstream's.
        let port = if is_error { other.port } else { port };
        Some(Pair { port, data, error })
    }

    /// When the first of them is given up.
    fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|half| half.until).min()
    }

    /// Give up those whose other half is late.
    async fn give_up(&mut self, now: Instant) {
        let late: Vec<Half> = self
            .0
            .extract_if(|_, half| half.until <= now)
            .map(|(_, half)| half)
            .collect();
        for half in late {
            half.stream.cancel().await;
        }
    }
}

/// One connection, from its beginning to its end.
async fn forward(pod: &Pod, mut pair: Pair) {
    let mut read = pair.data.reader();
    let mut write = pair.data.writer();
    let given_up = pair.data.reset.clone();
    let work = async {
        match pod.connect(pair.port).await {
            Ok(stream) => {
                let finish = pair.data.finish();
                join(&mut read, &mut write, finish, stream).await;
            }
            Err(why) => {
                tracing::debug!("{why}");
                // A client that is gone does not hear it.
                let _ = pair.error.writer().write_all(why.as_bytes()).await;
                pair.data.finish().await;
            }
        }
        pair.error.finish().await;
    };
    if given_up.run_until_cancelled(work).await.is_none() {
        pair.error.finish().await;
    }
    // A client that still sends is told to stop; of a stream that has ended on both sides nothing is said.
    pair.data.cancel().await;
    pair.error.cancel().await;
}

/// Copy both ways until the server has said all; `finish` tells the client so. When the client has said all, the server is
/// told and may go on.
async fn join<R, W>(from: &mut R, to: &mut W, finish: impl Future<Output = ()>, stream: TcpStream)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut server_read, mut server_write) = stream.into_split();
    let send = async {
        // An end that was not in order shows as the other direction's end.
        let _ = copy(from, &mut server_write).await;
        let _ = server_write.shutdown().await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let _ = copy(&mut server_read, to).await;
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
    finish.await;
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut from = tokio::io::BufReader::with_capacity(BUFFER, from);
    tokio::io::copy_buf(&mut from, to).await.map(drop)
}

/// Forward these ports over a WebSocket: each has a channel for data and one for an error, and one connection.
pub async fn over_websocket<IO>(io: IO, protocol: Channels, ports: Vec<u16>, pod: Pod)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut incoming = Vec::new();
    let mut readers = Vec::new();
    for port in &ports {
        let (sender, reader) = pipe::reader();
        incoming.extend([Some(sender), None]);
        readers.push((*port, reader));
    }
    let socket = websocket::accept(io).await;
    let (outgoing, connection) = websocket::channels(socket, protocol, incoming, Idle::new());
    let serve = async move {
        // The first message of every channel is its port.
        for (channel, port) in (0_u8..).step_by(2).zip(&ports) {
            for channel in [channel, channel + 1] {
                outgoing.send(channel, &port.to_le_bytes()).await;
            }
        }
        let ports = (0_u8..).step_by(2).zip(readers);
        let all =
            ports.map(|(channel, (port, reader))| forward_channel(&pod, channel, port, reader, &outgoing));
        futures::future::join_all(all).await;
    };
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        () = &mut connection => return,
        () = serve => {}
    }
    connection.await;
}

async fn forward_channel(
    pod: &Pod,
    channel: u8,
    port: u16,
    mut from: impl AsyncRead + Unpin,
    outgoing: &Outgoing,
) {
    match pod.connect(port).await {
        Ok(stream) => join(&mut from, &mut outgoing.writer(channel), async {}, stream).await,
        Err(why) => {
            outgoing.send(channel + 1, why.as_bytes()).await;
        }
    }
}
