//! Zone transfer (RFC 5936): a whole zone, in as many messages as it takes, for those who may have it. A client that asks
//! for the changes since its version (RFC 1995) gets the whole zone too, unless it has the newest already.

use crate::message::UDP_SIZE;
use crate::metrics::Protocol;
use crate::zone::Zone;
use crate::zonefile::zone_of;
use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How large a message becomes: every name in it is within the reach of a compression pointer.
const ENOUGH: usize = 16 * 1024;

/// A range of clients' addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(IpNet);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let range = text.parse().ok().or_else(one);
        range.map(Self).ok_or_else(|| {
            format!("{text:?} is neither a range of addresses (as 127.0.0.0/8 or fd00::/8) nor an address")
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may have whole zones; nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<Range>);

impl Allowed {
    /// Whether a client at this address may, also where it comes as an IPv4 address within an IPv6 one.
    pub fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|range| range.0.contains(&client))
    }
}

impl FromIterator<Range> for Allowed {
    fn from_iter<T: IntoIterator<Item = Range>>(ranges: T) -> Self {
        Self(ranges.into_iter().collect())
    }
}

/// The messages that answer a question for AXFR or IXFR, which the client is allowed to ask. At least one; more than
/// one only over TCP, where each follows the one before without another question.
pub fn messages(zone: &Zone, query: &[u8], protocol: Protocol) -> Messages {
    match Question::read(query) {
        Err(refusal) => Messages::only(*refusal),
        Ok(question) => {
            let soa = |apex: &LowerName| zone.soa_record(&(&Name::from(apex.clone())).into());
            question.answer(&zone.apexes(), protocol, soa, || zone.records())
        }
    }
}

/// A question for a transfer.
struct Question {
    /// What every message begins with, the question included.
    head: Message,
    apex: LowerName,
    type_: RecordType,
    /// The version that the client has.
    serial: Option<u32>,
}

impl Question {
    fn read(query: &[u8]) -> Result<Self, Box<Message>> {
        let Ok(asked) = Message::from_vec(query) else {
            let id = query.first_chunk().copied().map_or(0, u16::from_be_bytes);
            return Err(Box::new(Message::error_msg(
                id,
                OpCode::Query,
                ResponseCode::FormErr,
            )));
        };
        let mut head = Message::response(asked.metadata.id, asked.metadata.op_code);
        head.metadata.recursion_desired = asked.metadata.recursion_desired;
        if let Some(theirs) = &asked.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(UDP_SIZE).set_version(0);
            ours.set_dnssec_ok(theirs.flags().dnssec_ok);
            head.set_edns(ours);
        }
        let serial = asked.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
        let [question] = &asked.queries[..] else {
            return Err(Box::new(coded(head, ResponseCode::FormErr)));
        };
        let (apex, type_) = (LowerName::new(question.name()), question.query_type());
        // A client that does not say which changes it misses cannot be told.
        let is_incomplete = type_ == RecordType::IXFR && serial.is_none();
        head.add_query(question.clone());
        if is_incomplete {
            return Err(Box::new(coded(head, ResponseCode::FormErr)));
        }
        Ok(Self {
            head,
            apex,
            type_,
            serial,
        })
    }

    fn answer(
        self,
        apexes: &[LowerName],
        protocol: Protocol,
        soa: impl FnOnce(&LowerName) -> Record,
        records: impl FnOnce() -> Vec<Record>,
    ) -> Messages {
        let code = match (self.type_, protocol) {
            (RecordType::AXFR, Protocol::Tcp) | (RecordType::IXFR, _) => ResponseCode::NoError,
            // A zone does not fit into a datagram.
            _ => ResponseCode::Refused,
        };
        if code != ResponseCode::NoError {
            return Messages::only(coded(self.head, code));
        }
        if !apexes.contains(&self.apex) {
            return Messages::only(coded(self.head, ResponseCode::NotAuth));
        }
        let soa = soa(&self.apex);
        let mut head = self.head;
        head.metadata.authoritative = true;
        if self.type_ == RecordType::IXFR && (protocol == Protocol::Udp || is_current(self.serial, &soa)) {
            // Over UDP it says that there is a newer version, to be had over TCP (RFC 1995, 2).
            head.add_answer(soa);
            return Messages::only(head);
        }
        let is_inner = |record: &Record| {
            let zone = zone_of(apexes, &LowerName::new(&record.name));
            record.record_type() != RecordType::SOA && zone.is_some_and(|zone| *zone == self.apex)
        };
        let mut records = records();
        records.retain(is_inner);
        records.insert(0, soa.clone());
        records.push(soa);
        Messages {
            head,
            records: records.into_iter(),
            next: None,
            is_over: false,
        }
    }
}

fn coded(mut message: Message, code: ResponseCode) -> Message {
    message.metadata.response_code = code;
    message
}

/// Whether a client's version is not older than ours, in the arithmetic of serial numbers (RFC 1982).
fn is_current(theirs: Option<u32>, soa: &Record) -> bool {
    match (&soa.data, theirs) {
        (RData::SOA(ours), Some(theirs)) => theirs.wrapping_sub(ours.serial) < 1 << 31,
        _ => false,
    }
}

/// The messages of a transfer, encoded one by one as they are taken: a zone in messages is never in memory as a whole.
#[derive(Debug)]
pub struct Messages {
    head: Message,
    records: std::vec::IntoIter<Record>,
    /// The record that did not go into the message before.
    next: Option<Record>,
    is_over: bool,
}

impl Messages {
    fn only(message: Message) -> Self {
        Self {
            head: message,
            records: Vec::new().into_iter(),
            next: None,
            is_over: false,
        }
    }
}

impl Iterator for Messages {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let mut message = self.head.clone();
        // Only the first message repeats the question (RFC 5936, 2.2.1).
        self.head.queries.clear();
        let mut size = 0;
        while let Some(record) = self.next.take().or_else(|| self.records.next()) {
            // Names are compressed in the message, so it becomes no larger than this.
            let Ok(bytes) = record.to_bytes() else {
                return Some(self.fail());
            };
            if size > 0 && size + bytes.len() > ENOUGH {
                self.next = Some(record);
                break;
            }
            size += bytes.len();
            message.add_answer(record);
        }
        self.is_over = self.next.is_none();
        Some(message.to_vec().unwrap_or_else(|_| self.fail()))
    }
}

impl Messages {
    /// A record that cannot be written must not look like one that does not exist.
    fn fail(&mut self) -> Vec<u8> {
        self.is_over = true;
        let metadata = &self.head.metadata;
        let failure = Message::error_msg(metadata.id, metadata.op_code, ResponseCode::ServFail);
        failure.to_vec().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, Query};
    use hickory_proto::rr::rdata::{A, NS, SOA};

    const SERIAL: u32 = 7;

    fn named(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn soa(apex: &str, serial: u32) -> Record {
        let soa = SOA::new(
            named("ns.z."),
            named("hostmaster.z."),
            serial,
            7200,
            1800,
            86400,
            5,
        );
        Record::from_rdata(named(apex), 5, RData::SOA(soa))
    }

    fn apexes() -> Vec<LowerName> {
        ["z.", "127.in-addr.arpa."]
            .map(|apex| LowerName::new(&named(apex)))
            .into()
    }

    /// Two zones; that of `z.` has so many hosts.
    fn records(hosts: u16) -> Vec<Record> {
        let host = |n: u16| {
            let [high, low] = n.to_be_bytes();
            let name = named(&format!("web-{n}.nginx.default.svc.z."));
            Record::from_rdata(name, 5, RData::A(A([127, 244, high, low].into())))
        };
        let mut records = vec![
            Record::from_rdata(named("z."), 5, RData::NS(NS(named("ns.z.")))),
            soa("z.", SERIAL),
            soa("127.in-addr.arpa.", SERIAL),
        ];
        records.extend((0..hosts).map(host));
        records
    }

    fn query(name: &str, type_: RecordType, serial: Option<u32>, edns: bool) -> Vec<u8> {
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(named(name), type_));
        if let Some(serial) = serial {
            message.add_authority(soa(name, serial));
        }
        if edns {
            let mut edns = Edns::new();
            edns.set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message.to_vec().expect("it can be written")
    }

    fn answered(query: &[u8], protocol: Protocol, hosts: u16) -> Vec<Message> {
        let messages = match Question::read(query) {
            Err(refusal) => Messages::only(*refusal),
            Ok(question) => {
                let soa = |apex: &LowerName| soa(&apex.to_string(), SERIAL);
                question.answer(&apexes(), protocol, soa, || records(hosts))
            }
        };
        let read = |bytes: Vec<u8>| {
            assert!(bytes.len() <= ENOUGH + 512, "{} bytes", bytes.len());
            Message::from_vec(&bytes).expect("a message")
        };
        messages.map(read).collect()
    }

    fn code(query: &[u8], protocol: Protocol) -> ResponseCode {
        let messages = answered(query, protocol, 10);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].answers.is_empty());
        assert_eq!(messages[0].metadata.id, 4711);
        messages[0].metadata.response_code
    }

    #[test]
    fn a_zone_comes_between_two_soas_and_nothing_of_another_zone_does() {
        let messages = answered(&query("Z.", RecordType::AXFR, None, false), Protocol::Tcp, 3000);
        assert!(messages.len() > 5, "{} messages", messages.len());
        assert!(messages.len() < 15, "{} messages", messages.len());
        assert_eq!(
            messages[0].queries[0].name().to_ascii(),
            "Z.",
            "the question as it was asked"
        );
        assert!(messages[1..].iter().all(|message| message.queries.is_empty()));
        for message in &messages {
            assert_eq!(message.metadata.id, 4711);
            assert_eq!(message.metadata.response_code, ResponseCode::NoError);
            assert!(message.metadata.authoritative && !message.metadata.truncation);
            assert!(message.edns.is_none());
        }
        let all: Vec<Record> = messages.into_iter().flat_map(|message| message.answers).collect();
        assert_eq!(all.first(), Some(&soa("z.", SERIAL)));
        assert_eq!(all.last(), Some(&soa("z.", SERIAL)));
        let mut inner = all[1..all.len() - 1].to_vec();
        let mut expected = records(3000);
        expected.retain(|record| record.record_type() != RecordType::SOA);
        inner.sort();
        expected.sort();
        assert_eq!(inner, expected);
    }

    #[test]
    fn every_message_has_an_opt_record_if_the_question_has() {
        let messages = answered(&query("z.", RecordType::AXFR, None, true), Protocol::Tcp, 3000);
        for message in messages {
            let edns = message.edns.expect("an OPT record");
            assert!(edns.flags().dnssec_ok);
            assert_eq!((edns.version(), edns.max_payload()), (0, UDP_SIZE));
        }
    }

    #[test]
    fn changes_are_the_whole_zone_unless_there_are_none() {
        let ask =
            |serial, protocol| answered(&query("z.", RecordType::IXFR, Some(serial), false), protocol, 10);
        let count = |messages: Vec<Message>| messages.iter().map(|m| m.answers.len()).sum::<usize>();
        assert_eq!(count(ask(SERIAL - 1, Protocol::Tcp)), 13);
        // Half of all serial numbers are older, half are newer.
        assert_eq!(count(ask(SERIAL.wrapping_sub(1 << 31), Protocol::Tcp)), 13);
        assert_eq!(count(ask(SERIAL.wrapping_sub((1 << 31) + 1), Protocol::Tcp)), 1);
        for (serial, protocol) in [
            (SERIAL, Protocol::Tcp),
            (SERIAL + 1, Protocol::Tcp),
            (SERIAL, Protocol::Udp),
            (SERIAL - 1, Protocol::Udp),
        ] {
            let messages = ask(serial, protocol);
            assert_eq!(messages.len(), 1);
            assert_eq!(messages[0].answers, [soa("z.", SERIAL)], "{serial} {protocol:?}");
        }
    }

    #[test]
    fn what_is_no_whole_zone_is_not_transferred() {
        let axfr = |name| query(name, RecordType::AXFR, None, true);
        assert_eq!(code(&axfr("z."), Protocol::Udp), ResponseCode::Refused);
        assert_eq!(code(&axfr("svc.z."), Protocol::Tcp), ResponseCode::NotAuth);
        assert_eq!(code(&axfr("example.com."), Protocol::Tcp), ResponseCode::NotAuth);
        let without_version = query("z.", RecordType::IXFR, None, false);
        assert_eq!(code(&without_version, Protocol::Tcp), ResponseCode::FormErr);
        assert_eq!(
            code(&4711_u16.to_be_bytes(), Protocol::Tcp),
            ResponseCode::FormErr
        );
        assert_eq!(
            code(&query("z.", RecordType::A, None, false), Protocol::Tcp),
            ResponseCode::Refused
        );
    }

    #[test]
    fn a_client_is_allowed_by_its_range() {
        let ranges = ["127.0.0.0/8", "fd00::/8", "192.0.2.7"].map(|range| range.parse().expect(range));
        let allowed = Allowed::from_iter(ranges);
        let may = |client: &str| allowed.contains(client.parse().expect("an address"));
        for client in ["127.3.2.1", "::ffff:127.0.0.1", "fd12::1", "192.0.2.7"] {
            assert!(may(client), "{client}");
        }
        for client in ["126.255.255.255", "::1", "192.0.2.8", "::127.0.0.1"] {
            assert!(!may(client), "{client}");
        }
        assert!(!Allowed::default().contains([127, 0, 0, 1].into()));
        for wrong in ["", "127.0.0.0/33", "localhost", "127.0.0.0/", "fd00::/129"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong:?}");
        }
    }
}
