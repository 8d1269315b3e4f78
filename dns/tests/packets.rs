//! Packets that nobody should send: bytes of good queries changed at random, answered without a panic, with nothing that
//! the RFCs forbid, and with no more bytes than a client may be sent. `PETSET_PACKETS` says how many, `PETSET_SEED`
//! repeats a run.

#[path = "support/fixture.rs"]
mod fixture;

use dns::answer::{Asker, TCP_LIMIT, UDP_LIMIT, UDP_PLAIN, Verdict, answer, code};
use dns::zone::Zone;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::str::FromStr;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    text.parse().unwrap_or(default)
}

/// Good queries for every sort of answer.
fn good() -> Vec<Vec<u8>> {
    let names = [
        "web-0.nginx.default.svc.cluster.local.",
        "_http._tcp.nginx.default.svc.cluster.local.",
        "big.default.svc.cluster.local.",
        "ext-in.default.svc.cluster.local.",
        "ext.default.svc.cluster.local.",
        "loop-a.default.svc.cluster.local.",
        "nosuch.default.svc.cluster.local.",
        "10.0.244.127.in-addr.arpa.",
        "cluster.local.",
        "www.example.com.",
        ".",
    ];
    let types = [
        RecordType::A,
        RecordType::SRV,
        RecordType::PTR,
        RecordType::ANY,
        RecordType::SOA,
        RecordType::NS,
        RecordType::AXFR,
    ];
    let mut all = Vec::new();
    for name in names {
        for type_ in types {
            for size in [None, Some(512), Some(1232), Some(65_535)] {
                let mut message = Message::new(7, MessageType::Query, OpCode::Query);
                message.add_query(Query::query(Name::from_str(name).expect("a name"), type_));
                if let Some(size) = size {
                    let mut edns = Edns::new();
                    edns.set_max_payload(size);
                    edns.options_mut().insert(EdnsOption::Unknown(100, vec![1, 2, 3]));
                    message.set_edns(edns);
                }
                all.push(message.to_vec().expect("it can be written"));
            }
        }
    }
    all
}

fn change(good: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let mut packet = good.choose(random).expect("some").clone();
    for _ in 0..random.random_range(1..4) {
        let place = random.random_range(0..=packet.len());
        match random.random_range(0..8) {
            0 => packet.truncate(place),
            1 => packet.insert(place, random.random()),
            2 => packet.extend_from_slice(good.choose(random).expect("some")),
            // Counts, flags and lengths are where it matters.
            3 if packet.len() > 12 => packet[random.random_range(2..12)] ^= 1 << random.random_range(0..8),
            4 if packet.len() > 12 => packet[random.random_range(4..12)] = random.random_range(0..3),
            5 if place + 1 < packet.len() => {
                packet[place] = 0xC0 | random.random_range(0..2);
                packet[place + 1] = random.random();
            }
            _ if place < packet.len() => packet[place] = random.random(),
            _ => {}
        }
    }
    packet
}

/// What a query is to somebody else.
fn decoded(packet: &[u8]) -> Option<Message> {
    Message::read(&mut BinDecoder::new(packet)).ok()
}

#[track_caller]
fn check(packet: &[u8], verdict: &Verdict, out: &[u8], tcp: bool) {
    let is_query = packet.len() >= 12 && packet[2] & 0x80 == 0;
    let Verdict::Answer(written) = verdict else {
        assert!(
            matches!(verdict, Verdict::Silence),
            "nothing is forwarded or transferred here"
        );
        assert!(!is_query, "a query without an answer");
        return;
    };
    assert!(is_query, "an answer to what is no query");
    let bytes = &out[..written.length];
    let mut decoder = BinDecoder::new(bytes);
    let answer = Message::read(&mut decoder).expect("the answer is a message");
    assert!(decoder.is_empty(), "bytes behind the last record");
    let asked = decoded(packet);
    let size = asked
        .as_ref()
        .and_then(|asked| asked.edns.as_ref())
        .map(Edns::max_payload);
    let limit = match size {
        _ if tcp => TCP_LIMIT,
        Some(size) => usize::from(size).clamp(UDP_PLAIN, UDP_LIMIT),
        // Where somebody else cannot read the query we may still have.
        None if asked.is_none() => UDP_LIMIT,
        None => UDP_PLAIN,
    };
    assert!(bytes.len() <= limit, "{} bytes", bytes.len());
    assert_eq!(bytes[..2], packet[..2], "the identifier");
    assert_eq!((bytes[2] >> 3) & 15, (packet[2] >> 3) & 15, "the operation");
    assert_eq!(bytes[2] & 1, packet[2] & 1, "recursion desired");
    assert_eq!(
        bytes[3] & 0xF0,
        0,
        "no recursion, nothing authenticated, nothing undefined"
    );
    let is_ours = matches!(written.code, code::NO_ERROR | code::NX_DOMAIN);
    assert_eq!(answer.metadata.authoritative, is_ours);
    if (packet[2] >> 3) & 15 != 0 {
        assert_eq!(written.code, code::NOT_IMP);
    }
    if is_ours {
        assert_eq!((answer.queries.len(), packet[4..6].to_vec()), (1, vec![0, 1]));
        let question = 12..12 + answer.queries[0].name().len() + 5;
        assert_eq!(
            bytes[question.clone()],
            packet[question],
            "the question as it was written"
        );
        // What is in records that a query has no use for is not looked at; others may refuse the query for it.
        if let Some(asked) = asked {
            assert_eq!(answer.edns.is_some(), asked.edns.is_some());
        }
    } else {
        assert!(answer.answers.is_empty() && answer.authorities.is_empty() && answer.additionals.is_empty());
    }
    let truncated = answer.metadata.truncation;
    assert!(!truncated || (answer.authorities.is_empty() && answer.additionals.is_empty()));
}

#[test]
fn changed_packets_get_what_the_rfcs_allow_or_nothing() {
    let zone = Zone::new(&fixture::config(), fixture::table().commit(), true);
    let seed = setting("PETSET_SEED", rand::random());
    let count = setting("PETSET_PACKETS", 200_000);
    println!("PETSET_SEED={seed} PETSET_PACKETS={count}");
    let mut random = SmallRng::seed_from_u64(seed);
    let good = good();
    let mut out = vec![0; TCP_LIMIT];
    let mut codes = std::collections::BTreeMap::<_, u64>::new();
    for _ in 0..count {
        let packet = change(&good, &mut random);
        let tcp = random.random_ratio(1, 4);
        let asker = Asker {
            tcp,
            forwards: false,
            may_transfer: false,
        };
        let room = if tcp { TCP_LIMIT } else { UDP_LIMIT };
        let verdict = answer(&zone, &packet, asker, &mut random, &mut out[..room]);
        check(&packet, &verdict, &out, tcp);
        let key = match verdict {
            Verdict::Answer(written) => Some(written.code),
            _ => None,
        };
        *codes.entry(key).or_default() += 1;
    }
    println!("{codes:?}");
    // The changes reach everything that can be said.
    for key in [
        None,
        Some(code::NO_ERROR),
        Some(code::FORM_ERR),
        Some(code::NX_DOMAIN),
    ] {
        assert!(codes.contains_key(&key), "{key:?} never happened: {codes:?}");
    }
    for key in [code::NOT_IMP, code::REFUSED, code::BAD_VERS] {
        assert!(codes.contains_key(&Some(key)), "{key} never happened: {codes:?}");
    }
}
