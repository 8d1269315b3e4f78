//! A line for each question, on request: who asked what and how it was answered, in the manner of CoreDNS' log plugin.
//!
//! It reads messages by itself and takes whatever comes: what cannot be read is told as `-`.

use crate::message::{HEADER, OPT, name_end, plain_name_end, u16_at, u32_at};
use crate::metrics::Protocol;
use crate::presentation::{self, class_name, code_name, type_name};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::net::SocketAddr;
use std::time::Duration;

/// The target of the lines, for a filter.
pub const TARGET: &str = "dns::query";

/// What a client takes that does not say (RFC 1035, 4.2.1).
const PLAIN: u16 = 512;

/// Say that this was asked, and answered so, in one line at INFO.
pub fn query(client: SocketAddr, protocol: Protocol, query: &[u8], answer: &[u8], took: Duration) {
    let asked = Asked::read(query);
    tracing::info!(
        target: TARGET,
        client = %client,
        id = %asked.id,
        r#type = %asked.type_,
        class = %asked.class,
        name = %asked.name,
        proto = protocol.name(),
        size = query.len(),
        r#do = asked.dnssec_ok,
        bufsize = asked.payload,
        rcode = %code(answer),
        flags = %flags(answer),
        rsize = answer.len(),
        duration = %format_args!("{:.6}s", took.as_secs_f64()),
    );
}

/// What is told of a question.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    id: String,
    name: String,
    type_: String,
    class: String,
    dnssec_ok: bool,
    payload: u16,
}

impl Asked {
    fn read(query: &[u8]) -> Self {
        let unknown = || "-".to_owned();
        let question = question(query);
        let told = |number: fn(u16) -> String, at: usize| {
            let end = question.as_ref().map(|(_, end)| end + at);
            end.and_then(|at| u16_at(query, at)).map_or_else(unknown, number)
        };
        let opt = opt(query);
        Self {
            id: u16_at(query, 0).map_or_else(unknown, |id| id.to_string()),
            type_: told(type_name, 0),
            class: told(class_name, 2),
            dnssec_ok: opt.is_some_and(|opt| opt.ttl & 0x8000 != 0),
            payload: opt.map_or(PLAIN, |opt| opt.class),
            name: question.map_or_else(unknown, |(name, _)| name),
        }
    }
}

/// The name of the first question, and where its type begins.
fn question(message: &[u8]) -> Option<(String, usize)> {
    if u16_at(message, 4)? == 0 {
        return None;
    }
    let end = plain_name_end(message, HEADER)?;
    let name = Name::read(&mut BinDecoder::new(&message[HEADER..end])).ok()?;
    Some((presentation::name(&name), end))
}

/// The fixed fields of an OPT record, under the names that other records have for them.
#[derive(Clone, Copy)]
struct Opt {
    class: u16,
    ttl: u32,
}

/// The first OPT record of a message.
fn opt(message: &[u8]) -> Option<Opt> {
    let mut at = HEADER;
    for _ in 0..u16_at(message, 4)? {
        at = name_end(message, at)?.at + 4;
    }
    let records: u32 = [6, 8, 10]
        .iter()
        .map(|at| u16_at(message, *at).map(u32::from))
        .sum::<Option<u32>>()?;
    for _ in 0..records {
        let fixed = name_end(message, at)?.at;
        let class = u16_at(message, fixed + 2)?;
        let ttl = u32_at(message, fixed + 4)?;
        if u16_at(message, fixed)? == OPT {
            return Some(Opt { class, ttl });
        }
        at = fixed + 10 + usize::from(u16_at(message, fixed + 8)?);
    }
    None
}

/// The type that the first question asks for.
pub(crate) fn type_asked(query: &[u8]) -> Option<u16> {
    u16_at(query, plain_name_end(query, HEADER)?)
}

/// The response code, with the upper bits that an OPT record carries.
pub(crate) fn code_answered(answer: &[u8]) -> Option<u16> {
    let low = u16_at(answer, 2)? & 15;
    let high = opt(answer).map_or(0, |opt| opt.ttl >> 24 & 0xFF);
    Some(u16::try_from(high << 4).unwrap_or_default() | low)
}

fn code(answer: &[u8]) -> String {
    code_answered(answer).map_or_else(|| "-".into(), code_name)
}

/// `qr,aa,rd`
fn flags(answer: &[u8]) -> String {
    let set = u16_at(answer, 2).unwrap_or_default();
    let names = [
        (0x8000, "qr"),
        (0x0400, "aa"),
        (0x0200, "tc"),
        (0x0100, "rd"),
        (0x0080, "ra"),
        (0x0020, "ad"),
        (0x0010, "cd"),
    ];
    let names = names
        .iter()
        .filter(|(bit, _)| set & bit != 0)
        .map(|(_, name)| *name);
    match names.collect::<Vec<_>>().join(",") {
        none if none.is_empty() => "-".into(),
        some => some,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;
    use std::str::FromStr;
    use std::sync::{Arc, Mutex};

    fn asked(name: Name, edns: bool) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, RecordType::SRV));
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(1400).set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message.to_vec().expect("it can be written")
    }

    #[test]
    fn a_question_is_told_with_what_its_asker_can_take() {
        let name = Name::from_ascii("Web-0.nginx.").expect("a name");
        let expected = Asked {
            id: "7".into(),
            name: "Web-0.nginx.".into(),
            type_: "SRV".into(),
            class: "IN".into(),
            dnssec_ok: true,
            payload: 1400,
        };
        assert_eq!(Asked::read(&asked(name.clone(), true)), expected);
        let plain = Asked::read(&asked(name, false));
        assert_eq!((plain.dnssec_ok, plain.payload), (false, 512));
        assert_eq!(Asked::read(&asked(Name::root(), false)).name, ".");
    }

    #[test]
    fn no_byte_of_a_name_reaches_a_terminal_as_it_is() {
        let label: &[u8] = b"a.b\x1b[31m\n\"\xff ";
        let name = Name::from_labels([label]).expect("a name");
        let told = Asked::read(&asked(name, false)).name;
        assert_eq!(told, "a\\.b\\027[31m\\010\\\"\\255\\032.");
    }

    #[test]
    fn an_answer_is_told_by_its_code_and_flags() {
        let mut answer = Message::new(7, MessageType::Response, OpCode::Query);
        answer.metadata.authoritative = true;
        answer.metadata.recursion_desired = true;
        answer.metadata.response_code = ResponseCode::NXDomain;
        let bytes = answer.to_vec().expect("it can be written");
        assert_eq!(
            (code(&bytes).as_str(), flags(&bytes).as_str()),
            ("NXDOMAIN", "qr,aa,rd")
        );
        answer.metadata.response_code = ResponseCode::BADVERS;
        answer.set_edns(Edns::new());
        assert_eq!(code(&answer.to_vec().expect("it can be written")), "BADVERS");
        assert_eq!((code(&[]).as_str(), flags(&[]).as_str()), ("-", "-"));
    }

    /// What is written while this is the subscriber.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == TARGET
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Line(String);
            impl tracing::field::Visit for Line {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0 += &format!("{}={value:?} ", field.name());
                }
            }
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().expect("nobody panicked").push(line.0);
        }
    }

    #[test]
    fn a_question_and_its_answer_are_one_line() {
        let lines = Lines::default();
        let question = asked(Name::from_str("a.").expect("a name"), true);
        let mut answer = question.clone();
        answer[2] |= 0x84;
        tracing::subscriber::with_default(lines.clone(), || {
            let client = SocketAddr::from(([127, 0, 0, 1], 4711));
            query(
                client,
                Protocol::Udp,
                &question,
                &answer,
                Duration::from_micros(42),
            );
        });
        let expected = "client=127.0.0.1:4711 id=7 type=SRV class=IN name=a. proto=\"udp\" size=30 do=true \
                        bufsize=1400 rcode=NOERROR flags=qr,aa,rd rsize=30 duration=0.000042s ";
        assert_eq!(*lines.0.lock().expect("nobody panicked"), [expected]);
    }

    proptest! {
        #[test]
        fn whatever_comes_can_be_told(query in prop::collection::vec(any::<u8>(), 0..600)) {
            let told = Asked::read(&query);
            prop_assert!(told.name.bytes().all(|byte| (b'!'..=b'~').contains(&byte)));
            code(&query);
            flags(&query);
        }

        #[test]
        fn a_damaged_question_can_be_told(at in 0usize..60, byte: u8, cut in 0usize..60) {
            let mut query = asked(Name::from_str("web-0.nginx.default.svc.cluster.local.").expect("a name"), true);
            let at = at.min(query.len() - 1);
            query[at] = byte;
            query.truncate(query.len() - cut.min(query.len()));
            Asked::read(&query);
            code(&query);
        }
    }
}
