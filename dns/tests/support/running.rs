//! A server on sockets of its own, and packets made by hand to ask it with.

use crate::fixture;
use dns::metrics::Metrics;
use dns::server::Shared;
use dns::table::Table;
use dns::upstream::Servers;
use dns::zone::{Live, Zone};
use dns::{Listener, Server};
use hickory_proto::op::Message;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

pub const DEADLINE: Duration = Duration::from_secs(10);
pub const A: u16 = 1;
pub const WEB_0: &str = "web-0.nginx.default.svc.cluster.local";

/// A running server and a socket to ask it from.
pub struct Running {
    _server: Server,
    pub udp: UdpSocket,
    pub tcp: SocketAddr,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(fixture::table()).await
    }

    pub async fn with(table: Table) -> Self {
        Self::forwarding(table, None).await
    }

    /// With somebody to ask for other names.
    pub async fn forwarding(mut table: Table, upstream: Option<Servers>) -> Self {
        let config = fixture::config();
        let live = Live::new(&config);
        live.replace(Zone::new(&config, table.commit(), true));
        let shared = Shared {
            live: Arc::new(live),
            metrics: Metrics::new(),
            log: false,
            transfers: Default::default(),
        };
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), upstream).expect("a port");
        let tcp = listener.address().expect("an address");
        let server = Server::start(&Arc::new(shared), vec![listener]).expect("it starts");
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        udp.connect(tcp).await.expect("loopback");
        Self {
            _server: server,
            udp,
            tcp,
        }
    }

    /// The answer to a packet; every answer parses to its last byte.
    pub async fn ask(&self, packet: &[u8]) -> Message {
        self.udp.send(packet).await.expect("loopback");
        let mut bytes = vec![0; 65_535];
        let length = timeout(DEADLINE, self.udp.recv(&mut bytes)).await;
        bytes.truncate(length.expect("an answer").expect("loopback"));
        parse(&bytes)
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.tcp).await.expect("loopback")
    }

    pub async fn ask_tcp(&self, packet: &[u8]) -> Message {
        let mut stream = self.connect().await;
        stream.write_all(&framed(packet)).await.expect("loopback");
        parse(&receive(&mut stream).await)
    }
}

pub fn parse(bytes: &[u8]) -> Message {
    let mut decoder = BinDecoder::new(bytes);
    let message = Message::read(&mut decoder).expect("a message");
    assert!(decoder.is_empty(), "bytes after the last record: {bytes:?}");
    message
}

pub async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await.expect("an answer");
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.expect("all of it");
        bytes
    };
    timeout(DEADLINE, read).await.expect("an answer in time")
}

pub fn framed(packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).expect("short").to_be_bytes();
    [&length, packet].concat()
}

/// Header with recursion desired, as clients send it.
pub fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags]
        .into_iter()
        .chain(counts)
        .flat_map(u16::to_be_bytes)
        .collect()
}

pub fn question(name: &str, type_: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([type_, class].into_iter().flat_map(u16::to_be_bytes));
    bytes
}

pub const RD: u16 = 0x0100;

pub fn query(name: &str, type_: u16) -> Vec<u8> {
    [header(7, RD, [1, 0, 0, 0]), question(name, type_, 1)].concat()
}
