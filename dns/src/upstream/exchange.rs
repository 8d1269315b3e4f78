//! Asking servers: the next one as soon as one fails, and beside one that is slow; over TCP what UDP does not hold.

use super::reply::{Reply, question};
use super::wire::Outline;
use crate::message::{HEADER, code};
use futures::stream::{FuturesUnordered, StreamExt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server is waited for before the next is asked, too.
const STAGGER: Duration = Duration::from_millis(600);
/// How long all of it may take: under the five seconds after which resolvers ask again.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often each server is asked: a datagram may get lost.
const ROUNDS: usize = 2;

/// More than what we say that we take, for servers that do not listen.
const LONGEST_DATAGRAM: usize = 4096;

/// What servers say that do not know OPT records (RFC 6891, 7).
fn does_not_understand(code: u16) -> bool {
    matches!(code, code::FORM_ERR | code::NOT_IMP)
}

/// Ask the servers in order what `query` asks; the first reply, and which of them it is from. `None`: none has replied.
pub async fn ask(servers: &[SocketAddr], query: &[u8], outline: &Outline) -> Option<(Reply, SocketAddr)> {
    let mut waiting = servers.iter().cycle().take(servers.len() * ROUNDS);
    let mut asked = FuturesUnordered::new();
    let all = async {
        loop {
            let is_last = match waiting.next() {
                Some(server) => {
                    asked.push(async move { (attempt(*server, query, outline).await, *server) });
                    false
                }
                None => true,
            };
            // Until this one fails, or another one is due.
            let stagger = tokio::time::sleep(STAGGER);
            tokio::pin!(stagger);
            loop {
                tokio::select! {
                    answered = asked.next() => match answered {
                        Some((Ok(reply), server)) => return Some((reply, server)),
                        Some((Err(error), server)) => {
                            tracing::debug!(%server, %error, "a DNS server did not answer");
                            if !is_last { break }
                        }
                        None if is_last => return None,
                        None => break,
                    },
                    () = &mut stagger, if !is_last => break,
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.ok().flatten()
}

/// One server, once; without an OPT record if it does not know that.
async fn attempt(server: SocketAddr, query: &[u8], outline: &Outline) -> io::Result<Reply> {
    for edns in [true, false] {
        let asked = question(query, outline, rand::random(), edns);
        let (message, received) = udp(server, &asked).await?;
        if edns && does_not_understand(received.code()) {
            continue;
        }
        let failed = || io::Error::other(format!("it answered with response code {}", received.code()));
        let reply = Reply::new(message, received.clone()).ok_or_else(failed)?;
        if !reply.is_truncated() {
            return Ok(reply);
        }
        // What there is of it is better than nothing where TCP does not get through.
        let whole = tcp(server, &asked).await;
        let whole = whole.map(|(message, received)| Reply::new(message, received));
        return Ok(whole.ok().flatten().unwrap_or(reply));
    }
    Err(io::Error::other("it understands no query"))
}

/// From a port of its own, which together with the id is what keeps others from answering in the server's place.
async fn udp(server: SocketAddr, query: &[u8]) -> io::Result<(Vec<u8>, Outline)> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let message = &buffer[..length];
        if let Some(outline) = answered(query, message) {
            return Ok((message.to_vec(), outline));
        }
    }
}

async fn tcp(server: SocketAddr, query: &[u8]) -> io::Result<(Vec<u8>, Outline)> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    match answered(query, &message) {
        Some(outline) => Ok((message, outline)),
        None => Err(io::Error::other("it answered with something else")),
    }
}

/// What the message has, if it is an answer to the query. One that says nothing but that it has not understood has no question.
fn answered(query: &[u8], message: &[u8]) -> Option<Outline> {
    let same_id = message.get(..2) == query.get(..2);
    let is_response = message.get(2)? & 0xf8 == 0x80;
    if !same_id || !is_response {
        return None;
    }
    let asked = Outline::of(query)?;
    if message.len() == HEADER {
        let flags = u16::from_be_bytes([message[2], message[3]]);
        let records = Vec::new();
        return does_not_understand(flags & 0xf).then_some(Outline {
            flags,
            records,
            opt: None,
            ..asked
        });
    }
    let outline = Outline::of(message)?;
    let question = |message: &[u8], outline: &Outline| message[outline.name.clone()].to_ascii_lowercase();
    let same = question(message, &outline) == question(query, &asked)
        && (outline.type_, outline.class) == (asked.type_, asked.class);
    same.then_some(outline)
}
