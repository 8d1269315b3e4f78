//! TCP (RFC 7766): many questions on one connection, answered as soon as each answer is there.

use crate::answer::TCP_LIMIT;
use crate::message::HEADER;
use crate::metrics::Protocol;
use crate::server::{Answerer, Forwarder, Reply, Shared};
use crate::transfer;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long a connection on which nobody asks anything is kept (6.2.3), and how long a client may take to read.
pub const IDLE: Duration = Duration::from_secs(10);
/// How many connections there are at most; further ones are closed at once.
pub const CONNECTIONS: usize = 256;
/// How many questions of one connection are asked of somebody else at once; further ones wait in the connection.
const LATER: usize = 64;
/// So many bytes of answers are sent before the next question is read.
const ENOUGH: usize = 65_536;
/// The pause when no connection can be accepted, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Answer connections until `ending`.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    forwarder: Option<Forwarder>,
    ending: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let worker = shared.metrics.worker();
    loop {
        tokio::select! {
            () = ending.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= CONNECTIONS => worker.dropped(),
                Ok((stream, client)) => {
                    let connection = Connection {
                        client: SocketAddr::new(client.ip().to_canonical(), client.port()),
                        answerer: Answerer::new(
                            shared.clone(),
                            worker.clone(),
                            Protocol::Tcp,
                            forwarder.clone(),
                        ),
                        scratch: vec![0; TCP_LIMIT],
                        input: Vec::new(),
                        taken: 0,
                        output: Vec::new(),
                        later: FuturesUnordered::new(),
                    };
                    connections.spawn(async move {
                        if let Err(error) = connection.run(stream).await {
                            tracing::debug!(%error, %client, "a DNS connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "DNS cannot accept a connection; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// One client's connection.
struct Connection {
    client: SocketAddr,
    answerer: Answerer,
    /// Where answers are written first.
    scratch: Vec<u8>,
    /// What came, of which so much is done with.
    input: Vec<u8>,
    taken: usize,
    /// What is to be sent.
    output: Vec<u8>,
    later: FuturesUnordered<BoxFuture<'static, Vec<u8>>>,
}

/// The client sends what is no message.
struct Nonsense;

impl Connection {
    async fn run(mut self, mut stream: TcpStream) -> io::Result<()> {
        // An answer is worth a packet of its own.
        stream.set_nodelay(true)?;
        let mut idle = tokio::time::Instant::now() + IDLE;
        let mut ended = false;
        loop {
            let (asked, nonsense) = match self.take(&mut stream).await? {
                Ok(asked) => (asked, false),
                Err(Nonsense) => (true, true),
            };
            if asked {
                idle = tokio::time::Instant::now() + IDLE;
            }
            if !self.output.is_empty() {
                self.send(&mut stream).await?;
                continue;
            }
            ended |= nonsense;
            if ended && self.later.is_empty() {
                return Ok(());
            }
            let reads = !ended && self.later.len() < LATER;
            tokio::select! {
                read = stream.read_buf(&mut self.input), if reads => ended = read? == 0,
                Some(answer) = self.later.next() => {
                    push(&mut self.output, &answer);
                    idle = tokio::time::Instant::now() + IDLE;
                }
                () = sleep_until(idle), if self.later.is_empty() => return Ok(()),
            }
        }
    }

    /// Answer the whole messages that have come, until there is enough to send; whether there was one.
    async fn take(&mut self, stream: &mut TcpStream) -> io::Result<Result<bool, Nonsense>> {
        let mut asked = false;
        while self.output.len() < ENOUGH && self.later.len() < LATER {
            let Some((length, rest)) = self.input[self.taken..].split_first_chunk() else {
                break;
            };
            let length = usize::from(u16::from_be_bytes(*length));
            if length < HEADER {
                self.answerer.worker.dropped();
                return Ok(Err(Nonsense));
            }
            if rest.len() < length {
                break;
            }
            let query = self.taken + 2..self.taken + 2 + length;
            self.taken = query.end;
            asked = true;
            if self.answer(query.clone()) {
                self.transfer(query, stream).await?;
            }
        }
        self.input.drain(..self.taken);
        self.taken = 0;
        Ok(Ok(asked))
    }

    /// Answer a query, now or later; whether it is for a transfer, which is the caller's to do.
    fn answer(&mut self, query: Range<usize>) -> bool {
        let began = Instant::now();
        let query = &self.input[query];
        let zone = self.answerer.shared.live.zone();
        let reply = self.answerer.reply(&zone, query, self.client, &mut self.scratch);
        match reply {
            Reply::None => {}
            Reply::Now(length) => {
                let answer = &self.scratch[..length];
                push(&mut self.output, answer);
                let took = began.elapsed();
                self.answerer.worker.took(took, 1);
                self.answerer.tell(self.client, query, answer, took);
            }
            Reply::Later(later) => self.later.push(later),
            Reply::Transfer => return true,
        }
        false
    }

    /// Send a whole zone.
    async fn transfer(&mut self, query: Range<usize>, stream: &mut TcpStream) -> io::Result<()> {
        let began = Instant::now();
        let (zone, query) = (self.answerer.shared.live.zone(), self.input[query].to_vec());
        // Putting a large cluster's records in order would hold up others here.
        let making = move || (transfer::messages(&zone, &query, Protocol::Tcp), query);
        let (messages, query) = tokio::task::spawn_blocking(making).await?;
        for (n, message) in messages.enumerate() {
            if n == 0 {
                self.answerer.tell(self.client, &query, &message, began.elapsed());
            }
            push(&mut self.output, &message);
            if self.output.len() >= ENOUGH {
                self.send(stream).await?;
            }
        }
        Ok(())
    }

    /// Send what is to be sent. A client that does not read it is left.
    async fn send(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        timeout(IDLE, stream.write_all(&self.output)).await??;
        self.output.clear();
        Ok(())
    }
}

/// A message behind its length (RFC 1035, 4.2.2).
fn push(output: &mut Vec<u8>, message: &[u8]) {
    if let Ok(length) = u16::try_from(message.len()) {
        output.extend(length.to_be_bytes());
        output.extend(message);
    }
}
