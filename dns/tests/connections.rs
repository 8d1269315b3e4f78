//! Connections: how many there are, how long they are kept, and in which order questions are answered (RFC 7766).

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/running.rs"]
mod running;

use dns::tcp::{CONNECTIONS, IDLE};
use dns::upstream::Servers;
use futures::FutureExt;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, Record, rdata};
use running::{A, DEADLINE, RD, Running, WEB_0, framed, header, parse, query, question, receive};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// Whether the server has closed the connection, which it does with nothing left to read.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(DEADLINE * 2, stream.read(&mut [0; 100])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

async fn ask(stream: &mut TcpStream) {
    stream
        .write_all(&framed(&query(WEB_0, A)))
        .await
        .expect("loopback");
    assert_eq!(parse(&receive(stream).await).answers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nobody_asks_is_closed_in_time_and_not_sooner() {
    let server = Running::start().await;
    let mut stream = server.connect().await;
    ask(&mut stream).await;
    let answered = Instant::now();
    assert!(is_closed(&mut stream).await);
    assert!(
        answered.elapsed() >= IDLE.mul_f32(0.9),
        "{:?}",
        answered.elapsed()
    );

    // Half a question is none.
    let mut stream = server.connect().await;
    stream
        .write_all(&framed(&query(WEB_0, A))[..10])
        .await
        .expect("loopback");
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn there_are_no_more_connections_than_the_limit_and_a_place_is_free_again() {
    let server = Running::start().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = server.connect().await;
        // An answer says that it has been accepted.
        ask(&mut stream).await;
        streams.push(stream);
    }
    let mut stream = server.connect().await;
    assert!(is_closed(&mut stream).await);
    ask(&mut streams[0]).await;
    assert_eq!(server.ask(&query(WEB_0, A)).await.answers.len(), 1);

    streams.pop();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut stream = server.connect().await;
        let asked = stream.write_all(&framed(&query(WEB_0, A))).await;
        if asked.is_ok() && stream.read_u16().await.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "no place becomes free");
    }
}

#[tokio::test]
async fn what_somebody_else_has_to_say_does_not_hold_up_what_is_known() {
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let servers = Servers::Addresses(vec![elsewhere.local_addr().expect("an address")]);
    let server = Running::forwarding(fixture::table(), Some(servers)).await;
    let mut stream = server.connect().await;
    let asks = |id, name| framed(&[header(id, RD, [1, 0, 0, 0]), question(name, A, 1)].concat());
    let both = [asks(1, "www.example.com"), asks(2, WEB_0)].concat();
    stream.write_all(&both).await.expect("loopback");
    let first = parse(&receive(&mut stream).await);
    assert_eq!((first.metadata.id, first.answers.len()), (2, 1));
    assert!(first.metadata.recursion_available);

    let mut bytes = vec![0; 4096];
    let (length, from) = timeout(DEADLINE, elsewhere.recv_from(&mut bytes))
        .await
        .expect("in time")
        .expect("a query");
    let mut reply = Message::from_vec(&bytes[..length]).expect("a query");
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = ResponseCode::NXDomain;
    elsewhere
        .send_to(&reply.to_vec().expect("a message"), from)
        .await
        .expect("loopback");
    let second = parse(&receive(&mut stream).await);
    assert_eq!(
        (second.metadata.id, second.metadata.response_code),
        (1, ResponseCode::NXDomain)
    );

    // Who does not want others to be asked is refused.
    let alone = [header(3, 0, [1, 0, 0, 0]), question("www.example.com", A, 1)].concat();
    assert_eq!(
        server.ask(&alone).await.metadata.response_code,
        ResponseCode::Refused
    );
}

#[tokio::test]
async fn an_alias_for_a_name_elsewhere_is_followed_there() {
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let servers = Servers::Addresses(vec![elsewhere.local_addr().expect("an address")]);
    let server = Running::forwarding(fixture::table(), Some(servers)).await;
    let replying = async {
        let mut bytes = vec![0; 4096];
        let (length, from) = elsewhere.recv_from(&mut bytes).await.expect("loopback");
        let mut reply = Message::from_vec(&bytes[..length]).expect("a query");
        let name = reply.queries[0].name().clone();
        assert_eq!(name.to_string().to_lowercase(), "www.example.com.");
        reply.metadata.message_type = MessageType::Response;
        reply.add_answer(Record::from_rdata(
            name,
            60,
            RData::A(rdata::A([192, 0, 2, 80].into())),
        ));
        let reply = reply.to_vec().expect("a message");
        elsewhere.send_to(&reply, from).await.expect("loopback");
    };
    let packet = query("ext.default.svc.cluster.local", A);
    let ((), answer) = tokio::join!(
        timeout(DEADLINE, replying).map(|ended| ended.expect("in time")),
        server.ask(&packet)
    );
    let lines: Vec<String> = answer
        .answers
        .iter()
        .map(|r| r.to_string().to_lowercase())
        .collect();
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.recursion_available);
    assert_eq!(
        lines,
        [
            "ext.default.svc.cluster.local. 5 in cname www.example.com.",
            "www.example.com. 60 in a 192.0.2.80"
        ]
    );
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody_else() {
    let server = Running::start().await;
    let mut lazy = server.connect().await;
    let big = framed(&query("big.default.svc.cluster.local", A)).repeat(1000);
    // The answers are fifty times as long and stay where they are, until the server takes no more questions.
    let mut rounds = 0;
    while timeout(Duration::from_secs(1), lazy.write_all(&big))
        .await
        .is_ok()
    {
        rounds += 1;
        assert!(rounds < 2000, "the server takes questions without end");
    }
    assert_eq!(server.ask_tcp(&query(WEB_0, A)).await.answers.len(), 1);
    assert_eq!(server.ask(&query(WEB_0, A)).await.answers.len(), 1);
}

#[tokio::test]
async fn a_message_too_short_for_a_header_ends_the_connection_behind_the_answers() {
    let server = Running::start().await;
    let mut stream = server.connect().await;
    let both = [framed(&query(WEB_0, A)), framed(&[0; 11])].concat();
    stream.write_all(&both).await.expect("loopback");
    assert_eq!(parse(&receive(&mut stream).await).answers.len(), 1);
    assert!(is_closed(&mut stream).await);
}
