//! Asking the DNS server for a name's address, as the pod will.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// How long one answer may take before the question is asked again.
const ANSWER: Duration = Duration::from_millis(50);

/// The pause before the next question when the answer is not the one yet. The server is told of slices by the same API that
/// we are told by, and is at most this much later.
const PAUSE: Duration = Duration::from_micros(500);

/// Ask until the answer has the address.
pub(super) async fn until_answered(server: SocketAddr, name: &str, address: IpAddr) {
    loop {
        if let Some(true) = ask(server, name, address).await {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Whether the answer has the address; `None` if there was none.
async fn ask(server: SocketAddr, name: &str, address: IpAddr) -> Option<bool> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let type_ = if address.is_ipv4() {
        RecordType::A
    } else {
        RecordType::AAAA
    };
    let mut question = Message::new(1, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_str(name).ok()?, type_));
    // A socket of its own for each question: an answer that came too late for another is not taken for this one's.
    let socket = UdpSocket::bind((local, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(&question.to_vec().ok()?).await.ok()?;
    let mut answer = [0; 4096];
    let length = timeout(ANSWER, socket.recv(&mut answer)).await.ok()?.ok()?;
    let answer = Message::from_vec(&answer[..length]).ok()?;
    let has = |answer: &Message| {
        let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr());
        addresses.into_iter().any(|found| found == address)
    };
    Some(answer.metadata.response_code == ResponseCode::NoError && has(&answer))
}
