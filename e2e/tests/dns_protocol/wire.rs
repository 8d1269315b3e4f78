//! What no tool sends: V50 (over UDP), V54, V55, V56, V61, V62, and streams that end early.

use hickory_proto::op::{Message, ResponseCode};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const A: u16 = 1;
const SOA: u16 = 6;
const IXFR: u16 = 251;
const AXFR: u16 = 252;
const WEB_0: &str = "web-0.nginx.default.svc.cluster.local";
/// Recursion desired.
const RD: u16 = 0x0100;

fn header(id: u16, flags: u16, questions: u16) -> Vec<u8> {
    [id, flags, questions, 0, 0, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect()
}

fn query(id: u16, flags: u16, name: &str, type_: u16) -> Vec<u8> {
    let mut bytes = header(id, flags, 1);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([type_, 1].into_iter().flat_map(u16::to_be_bytes));
    bytes
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).expect("short").to_be_bytes();
    [&length, packet].concat()
}

fn connect(server: &str) -> TcpStream {
    let stream = TcpStream::connect(server).expect("the DNS server takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

fn receive(stream: &mut TcpStream) -> Message {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).expect("all of it");
    Message::from_vec(&bytes).expect("a message")
}

fn ask_udp(server: &str, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket.connect(server).expect("loopback");
    socket.send(packet).expect("loopback");
    let mut bytes = [0; 65_535];
    let length = socket.recv(&mut bytes).expect("an answer");
    Message::from_vec(&bytes[..length]).expect("a message")
}

fn ask_tcp(server: &str, packet: &[u8]) -> Message {
    let mut stream = connect(server);
    stream.write_all(&framed(packet)).expect("loopback");
    receive(&mut stream)
}

/// Refusals and errors are the same over UDP and TCP.
pub fn odd_packets(server: &str) {
    let zone = "cluster.local";
    let opcode = |number: u16| number << 11;
    let cases = [
        ("V50", query(7, RD, zone, AXFR), ResponseCode::Refused),
        ("V50", query(7, RD, zone, IXFR), ResponseCode::Refused),
        ("V54", header(7, opcode(15), 0), ResponseCode::NotImp),
        (
            "V55, NOTIFY",
            query(7, opcode(4), zone, SOA),
            ResponseCode::NotImp,
        ),
        (
            "V55, UPDATE",
            query(7, opcode(5), zone, SOA),
            ResponseCode::NotImp,
        ),
        ("V56", header(7, RD, 0), ResponseCode::FormErr),
    ];
    for (row, packet, code) in cases {
        for said in [ask_udp(server, &packet), ask_tcp(server, &packet)] {
            assert_eq!(
                (said.metadata.id, said.metadata.response_code),
                (7, code),
                "{row}: {said}"
            );
            assert!(!said.metadata.authoritative, "{row}: {said}");
            assert!(
                said.answers.is_empty() && said.authorities.is_empty(),
                "{row}: {said}"
            );
        }
    }
}

/// Many questions on a connection, in any pieces; a client that says that it has no more to ask; one that is gone.
pub fn streams(server: &str) {
    // V61
    let mut stream = connect(server);
    let many: Vec<u8> = (0..200).flat_map(|id| framed(&query(id, RD, WEB_0, A))).collect();
    stream.write_all(&many).expect("loopback");
    stream.shutdown(Shutdown::Write).expect("loopback");
    let mut ids = BTreeSet::new();
    for _ in 0..200 {
        let said = receive(&mut stream);
        assert_eq!(said.answers.len(), 1, "{said}");
        ids.insert(said.metadata.id);
    }
    assert_eq!(ids, (0..200).collect());
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0, "nothing more comes");

    // V62
    let mut stream = connect(server);
    for byte in framed(&query(7, RD, WEB_0, A)) {
        stream.write_all(&[byte]).expect("loopback");
    }
    assert_eq!(receive(&mut stream).answers.len(), 1);

    // Half a message, and messages that are none: the others do not notice.
    for bad in [&framed(&query(7, RD, WEB_0, A))[..20], &[0, 0], &[0, 3, 1, 2, 3]] {
        let mut half = connect(server);
        half.write_all(bad).expect("loopback");
        drop(half);
        stream
            .write_all(&framed(&query(8, RD, WEB_0, A)))
            .expect("loopback");
        assert_eq!(receive(&mut stream).metadata.id, 8);
    }
}
