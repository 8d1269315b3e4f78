//! UDP: a thread for each socket, which takes the datagrams that are there, answers them and sends the answers.

use crate::answer::UDP_LIMIT;
use crate::batch::{self, Batch, Client};
use crate::metrics::Protocol;
use crate::server::{Answerer, Forwarder, Reply, Shared};
use crate::transfer;
use futures::future::BoxFuture;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How often a thread that nobody asks anything looks whether it is to end. It is woken up for that; this is for
/// systems that do not.
const LOOK: Duration = Duration::from_secs(1);

/// Threads that answer; dropping them ends them.
pub struct Threads {
    ending: Arc<AtomicBool>,
    threads: Vec<Thread>,
}

struct Thread {
    socket: Arc<UdpSocket>,
    /// Says why it ended.
    ended: Option<oneshot::Receiver<io::Error>>,
    handle: Option<std::thread::JoinHandle<()>>,
}

impl Threads {
    /// Start a thread for each socket.
    ///
    /// # Errors
    /// The system gives no thread, or a socket is none of ours.
    pub fn start(
        shared: &Arc<Shared>,
        sockets: Vec<(UdpSocket, Option<Forwarder>)>,
        runtime: &Handle,
    ) -> io::Result<Self> {
        let mut all = Self {
            ending: Arc::default(),
            threads: Vec::new(),
        };
        for (socket, forwarder) in sockets {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(LOOK))?;
            if socket.local_addr()?.ip().is_unspecified() {
                batch::tell_way(&socket)?;
            }
            let socket = Arc::new(socket);
            let answering = Answering {
                answerer: Answerer::new(shared.clone(), shared.metrics.worker(), Protocol::Udp, forwarder),
                socket: socket.clone(),
                runtime: runtime.clone(),
                ending: all.ending.clone(),
            };
            let (sender, ended) = oneshot::channel();
            let name = format!("dns-{}", all.threads.len());
            let handle = std::thread::Builder::new().name(name).spawn(move || {
                if let Err(error) = answering.run() {
                    // Nobody listens any more if everything is coming down.
                    let _ = sender.send(error);
                }
            })?;
            all.threads.push(Thread {
                socket,
                ended: Some(ended),
                handle: Some(handle),
            });
        }
        Ok(all)
    }

    /// Wait until one of them ends, which it does only when its socket fails.
    pub async fn failed(&mut self) -> io::Error {
        let waiting = self.threads.iter_mut().filter_map(|thread| thread.ended.as_mut());
        let waiting: Vec<_> = waiting.collect();
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        let (ended, _, _) = futures::future::select_all(waiting).await;
        ended.unwrap_or_else(|_| io::Error::other("a thread that answers ended"))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        for thread in &self.threads {
            batch::close(&thread.socket);
        }
        for thread in &mut self.threads {
            if let Some(handle) = thread.handle.take()
                && handle.join().is_err()
            {
                tracing::error!("a thread of the DNS server panicked");
            }
        }
    }
}

/// What a thread needs.
struct Answering {
    answerer: Answerer,
    socket: Arc<UdpSocket>,
    runtime: Handle,
    ending: Arc<AtomicBool>,
}

impl Answering {
    fn run(mut self) -> io::Result<()> {
        let shared = self.answerer.shared.clone();
        let mut batch = Batch::new(UDP_LIMIT);
        while !self.ending.load(Relaxed) {
            let count = match batch.receive(&self.socket) {
                Ok(count) => count,
                // A client that is gone may be told about here; it says nothing about the socket.
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            let began = Instant::now();
            let zone = shared.live.load();
            for datagram in batch.datagrams() {
                let Some(client) = datagram.client.address() else {
                    self.answerer.worker.dropped();
                    continue;
                };
                let reply = self
                    .answerer
                    .reply(&zone, datagram.query, client, datagram.answer);
                match reply {
                    Reply::None => {}
                    Reply::Now(length) => {
                        *datagram.written = length;
                        let answer = &datagram.answer[..length];
                        self.answerer
                            .tell(client, datagram.query, answer, began.elapsed());
                    }
                    Reply::Later(later) => self.later(later, *datagram.client),
                    Reply::Transfer => {
                        // Over UDP there is one message, the SOA: it says whether there is something newer.
                        let mut messages = transfer::messages(&zone, datagram.query, Protocol::Udp);
                        if let Some(message) = messages.next().filter(|m| m.len() <= datagram.answer.len()) {
                            datagram.answer[..message.len()].copy_from_slice(&message);
                            *datagram.written = message.len();
                            self.answerer
                                .tell(client, datagram.query, &message, began.elapsed());
                        }
                    }
                }
            }
            drop(zone);
            batch.send(&self.socket);
            let each = began.elapsed() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
            self.answerer.worker.took(each, count as u64);
        }
        Ok(())
    }

    /// Send an answer when it is there.
    fn later(&self, answer: BoxFuture<'static, Vec<u8>>, to: Client) {
        let (socket, ending) = (self.socket.clone(), self.ending.clone());
        self.runtime.spawn(async move {
            let answer = answer.await;
            if ending.load(Relaxed) {
                return;
            }
            if let Err(error) = batch::send(&socket, &to, &answer) {
                tracing::debug!(%error, "a DNS answer was not sent");
            }
        });
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    let unreachable = matches!(
        error.raw_os_error(),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENOMEM | libc::ENOBUFS)
    );
    let kind = error.kind();
    unreachable
        || matches!(
            kind,
            ConnectionRefused | ConnectionReset | Interrupted | TimedOut | WouldBlock
        )
}
