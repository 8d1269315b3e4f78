//! Listening on the host for pods: every connection, and every client's datagrams, are passed on to an endpoint.

use super::listener::{Opening, Relayed};
use super::port::Protocol;
use super::rules::steady;
use crate::Kubelet;
use crate::network::Network;
use events::EventType;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// When a port that somebody else has is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long an endpoint may take to accept a connection before another is tried.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a client's datagrams belong together (Linux' conntrack keeps a stream of them for two minutes).
const SILENCE: Duration = Duration::from_secs(120);

/// Clients of one UDP port at once; more are not answered.
const CLIENTS: usize = 1024;

/// Datagrams of one client that wait to be passed on; more are lost, as datagrams are.
const WAITING: usize = 64;

/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// What is listened on. Dropping it ends everything.
pub(super) struct Relays {
    kubelet: Arc<Kubelet>,
    open: HashMap<Opening, watch::Sender<Relayed>>,
    tasks: JoinSet<()>,
}

impl Relays {
    pub fn new(kubelet: Arc<Kubelet>) -> Self {
        Self {
            kubelet,
            open: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Listen on these and nothing else. Connections that are there stay.
    pub fn set(&mut self, wanted: BTreeMap<Opening, Relayed>) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|opening, _| wanted.contains_key(opening));
        for (opening, relayed) in wanted {
            if let Some(open) = self.open.get(&opening) {
                open.send_if_modified(|current| {
                    let changes = *current != relayed;
                    *current = relayed;
                    changes
                });
                continue;
            }
            let (sender, relayed) = watch::channel(relayed);
            self.open.insert(opening, sender);
            let relay = Relay {
                kubelet: self.kubelet.clone(),
                relayed,
            };
            self.tasks.spawn(relay.run(opening));
        }
    }
}

/// One opening.
#[derive(Clone)]
struct Relay {
    kubelet: Arc<Kubelet>,
    relayed: watch::Receiver<Relayed>,
}

impl Relay {
    async fn run(self, opening: Opening) {
        let mut told = false;
        loop {
            let ended = match opening.protocol {
                Protocol::Tcp => self.relay_connections(opening.at).await,
                Protocol::Udp => self.relay_datagrams(opening.at).await,
            };
            let Err(error) = ended else { return };
            if !std::mem::replace(&mut told, true) {
                self.tell(opening, &error);
            }
            let mut relayed = self.relayed.clone();
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = closed(&mut relayed) => return,
            }
        }
    }

    fn tell(&self, opening: Opening, error: &io::Error) {
        let relayed = self.relayed.borrow();
        let message = format!(
            "cannot open {} {}/{}: {error}",
            relayed.what, opening.at, opening.protocol
        );
        let events = &self.kubelet.events;
        events.tell_of(
            relayed.whose.clone(),
            EventType::Warning,
            "FailedToOpenPort",
            message,
        );
    }

    /// Until this is not to be listened on any more, and all connections have ended.
    async fn relay_connections(&self, at: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(at).await?;
        let mut relayed = self.relayed.clone();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = closed(&mut relayed) => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((client, from)) => drop(connections.spawn(self.clone().pass_on(client, from))),
                // The client has gone, or there are no descriptors left, which takes a moment to get better.
                Err(error) => {
                    tracing::debug!(%at, %error, "a connection was not accepted");
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    async fn pass_on(self, mut client: TcpStream, from: SocketAddr) {
        let network = &self.kubelet.options.network;
        let order = order(&self.relayed.borrow(), from.ip());
        for endpoint in order {
            match timeout(CONNECT, network.connect(endpoint.into())).await {
                Ok(Ok(mut server)) => {
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    // How it ends is between the two of them.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                Ok(Err(error)) => {
                    tracing::debug!(%endpoint, %error, "an endpoint does not accept a connection")
                }
                Err(_) => tracing::debug!(%endpoint, "an endpoint does not answer"),
            }
        }
        // Refused, as far as that can still be said.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }

    /// Until this is not to be listened on any more.
    async fn relay_datagrams(&self, at: SocketAddr) -> io::Result<()> {
        let socket = Arc::new(UdpSocket::bind(at).await?);
        let mut relayed = self.relayed.clone();
        let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut talks = JoinSet::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                () = closed(&mut relayed) => return Ok(()),
                Some(ended) = talks.join_next() => {
                    if let Ok(client) = ended {
                        clients.remove(&client);
                    }
                    continue;
                }
            };
            // An error is about an earlier answer, whose client has gone.
            let Ok((length, from)) = received else { continue };
            let known = clients.get(&from).filter(|talk| !talk.is_closed());
            let talk = match known {
                Some(talk) => talk,
                None if clients.len() >= CLIENTS => continue,
                None => {
                    let (sender, datagrams) = mpsc::channel(WAITING);
                    talks.spawn(self.clone().talk(socket.clone(), from, datagrams));
                    clients.entry(from).insert_entry(sender).into_mut()
                }
            };
            // Too many at once are lost.
            let _ = talk.try_send(buffer[..length].to_vec());
        }
    }

    /// Pass on what one client sends, and what it is answered, until both are silent for a while or the endpoint is none any
    /// more.
    async fn talk(
        mut self,
        socket: Arc<UdpSocket>,
        client: SocketAddr,
        mut datagrams: mpsc::Receiver<Vec<u8>>,
    ) -> SocketAddr {
        let endpoint = order(&self.relayed.borrow_and_update(), client.ip())[0];
        let Ok(server) = connected(&self.kubelet.options.network, endpoint).await else {
            return client;
        };
        let mut buffer = vec![0; DATAGRAM];
        loop {
            tokio::select! {
                Some(datagram) = datagrams.recv() => drop(server.send(&datagram).await),
                received = server.recv(&mut buffer) => match received {
                    Ok(length) => drop(socket.send_to(&buffer[..length], client).await),
                    Err(_) => return client,
                },
                changed = self.relayed.changed() => {
                    if changed.is_err() || !self.relayed.borrow_and_update().to.contains(&endpoint) {
                        return client;
                    }
                }
                () = sleep(SILENCE) => return client,
            }
        }
    }
}

async fn connected(network: &Network, endpoint: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = network.udp((Ipv4Addr::UNSPECIFIED, 0).into()).await?;
    socket.connect(endpoint).await?;
    Ok(socket)
}

/// Wait until this is not to be listened on any more.
async fn closed(relayed: &mut watch::Receiver<Relayed>) {
    while relayed.changed().await.is_ok() {}
}

/// The endpoints in the order in which they are tried for a client. Never empty.
fn order(relayed: &Relayed, client: IpAddr) -> Vec<SocketAddrV4> {
    // A new one is different each time, and so is what comes out: chance enough.
    let chance = RandomState::new().hash_one(client);
    let mut order = relayed.to.clone();
    if relayed.affinity {
        let number = match client {
            IpAddr::V4(ip) => ip.to_bits(),
            // The parts that tell clients apart.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u32 ^ ip.to_bits() as u32,
        };
        let first = steady(&order, number);
        order.sort_by_key(|endpoint| *endpoint != first);
    } else {
        let first = usize::try_from(chance % order.len() as u64).unwrap_or_default();
        order.rotate_left(first);
    }
    order
}
