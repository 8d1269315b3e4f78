//! The protocol on real sockets, with packets made by hand: V48 to V62 of the reference's acceptance table, and what
//! the RFCs say of flags, sizes and bad packets.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/running.rs"]
mod running;

use fixture::key;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use rand::{Rng, SeedableRng};
use running::{A, DEADLINE, RD, Running, WEB_0, framed, header, parse, query, question, receive};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const SOA: u16 = 6;
const SRV: u16 = 33;
const BIG: &str = "big.default.svc.cluster.local";

/// An OPT record: size, version, flags, options.
fn opt(size: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 41];
    bytes.extend(size.to_be_bytes());
    bytes.extend([0, version]);
    bytes.extend(flags.to_be_bytes());
    bytes.extend(u16::try_from(options.len()).expect("short").to_be_bytes());
    bytes.extend(options);
    bytes
}

fn query_with(name: &str, type_: u16, opt: &[u8]) -> Vec<u8> {
    [
        header(7, RD, [1, 0, 0, 1]),
        question(name, type_, 1),
        opt.to_vec(),
    ]
    .concat()
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[tokio::test]
async fn the_header_is_an_authoritys_and_copies_only_what_it_must() {
    let server = Running::start().await;
    for flags in [0, RD, RD | 0x0030, 0x0040] {
        let packet = [header(0xABCD, flags, [1, 0, 0, 0]), question(WEB_0, A, 1)].concat();
        for answer in [server.ask(&packet).await, server.ask_tcp(&packet).await] {
            let metadata = answer.metadata;
            assert_eq!((metadata.id, code(&answer)), (0xABCD, ResponseCode::NoError));
            assert_eq!(metadata.recursion_desired, flags & RD != 0);
            assert!(metadata.authoritative && !metadata.truncation && !metadata.recursion_available);
            assert!(!metadata.authentic_data && !metadata.checking_disabled);
            assert_eq!(answer.answers.len(), 1);
            assert!(answer.edns.is_none());
        }
    }
}

#[tokio::test]
async fn classes_operations_and_counts_that_are_not_a_question_are_told_so() {
    let server = Running::start().await;
    let one = [1, 0, 0, 0];
    let cases = [
        (
            [header(7, RD, one), question("version.bind", 16, 3)].concat(),
            ResponseCode::Refused,
        ),
        (
            [header(7, RD, one), question(WEB_0, A, 3)].concat(),
            ResponseCode::Refused,
        ),
        (
            [header(7, RD, one), question(WEB_0, A, 255)].concat(),
            ResponseCode::Refused,
        ),
        (
            [header(7, RD, one), question("cluster.local", 252, 1)].concat(),
            ResponseCode::Refused,
        ),
        (
            [header(7, RD, one), question("cluster.local", 251, 1)].concat(),
            ResponseCode::Refused,
        ),
        (
            [header(7, RD, one), question("www.example.com", A, 1)].concat(),
            ResponseCode::Refused,
        ),
        (header(7, 15 << 11, [0; 4]), ResponseCode::NotImp),
        (
            [header(7, 4 << 11, one), question("cluster.local", SOA, 1)].concat(),
            ResponseCode::NotImp,
        ),
        (
            [header(7, 5 << 11, one), question("cluster.local", SOA, 1)].concat(),
            ResponseCode::NotImp,
        ),
        (header(7, RD, [0; 4]), ResponseCode::FormErr),
        (
            [
                header(7, RD, [2, 0, 0, 0]),
                question(WEB_0, A, 1),
                question(WEB_0, A, 1),
            ]
            .concat(),
            ResponseCode::FormErr,
        ),
        (
            [header(7, RD, one), vec![64, 1, 2]].concat(),
            ResponseCode::FormErr,
        ),
        (
            [header(7, RD, one), vec![0xC0, 12, 0, 1, 0, 1]].concat(),
            ResponseCode::FormErr,
        ),
        (header(7, RD, one), ResponseCode::FormErr),
    ];
    for (packet, expected) in cases {
        for answer in [server.ask(&packet).await, server.ask_tcp(&packet).await] {
            assert_eq!(code(&answer), expected, "{packet:?}");
            assert_eq!(answer.metadata.id, 7);
            assert!(!answer.metadata.authoritative && answer.answers.is_empty());
            assert!(answer.authorities.is_empty(), "{answer}");
        }
    }
}

#[tokio::test]
async fn edns_is_answered_with_version_zero_and_nothing_that_was_not_understood() {
    let server = Running::start().await;
    let answer = server
        .ask(&query_with("cluster.local", SOA, &opt(4096, 1, 0, &[])))
        .await;
    // 16 has two names.
    assert_eq!(u16::from(code(&answer)), u16::from(ResponseCode::BADVERS));
    assert!(answer.answers.is_empty() && !answer.metadata.authoritative);
    assert_eq!(answer.edns.expect("an OPT record").version(), 0);

    let unknown_option = [0, 100, 0, 2, 1, 2];
    for (name, size, flags) in [
        (WEB_0, 4096, 0x8000),
        (WEB_0, 0, 0x4000),
        ("nosuch.cluster.local", 1000, 0),
        ("www.example.com", 1232, 0),
    ] {
        let answer = server
            .ask(&query_with(name, A, &opt(size, 0, flags, &unknown_option)))
            .await;
        let edns = answer.edns.expect("an OPT record");
        assert_eq!((edns.version(), edns.max_payload()), (0, 1232), "{name}");
        assert_eq!(edns.flags().dnssec_ok, flags == 0x8000);
        assert_eq!(edns.flags().z, 0);
        assert!(edns.options().as_ref().is_empty(), "{edns:?}");
    }

    let two = [
        header(7, RD, [1, 0, 0, 2]),
        question(WEB_0, A, 1),
        opt(1232, 0, 0, &[]),
        opt(1232, 0, 0, &[]),
    ];
    assert_eq!(code(&server.ask(&two.concat()).await), ResponseCode::FormErr);
}

#[tokio::test]
async fn what_does_not_fit_is_cut_between_records_and_comes_whole_over_tcp() {
    let server = Running::start().await;
    for (packet, limit, least) in [
        (query(BIG, A), 512, 20),
        (query_with(BIG, A, &opt(100, 0, 0, &[])), 512, 20),
        (query_with(BIG, A, &opt(1232, 0, 0, &[])), 1232, 60),
        (query_with(BIG, A, &opt(65_535, 0, 0, &[])), 1232, 60),
        (query(BIG, SRV), 512, 3),
    ] {
        server.udp.send(&packet).await.expect("loopback");
        let mut bytes = vec![0; 65_535];
        let length = timeout(DEADLINE, server.udp.recv(&mut bytes)).await;
        let length = length.expect("an answer").expect("loopback");
        assert!(length <= limit, "{length} bytes");
        let answer = parse(&bytes[..length]);
        assert!(answer.metadata.truncation && code(&answer) == ResponseCode::NoError);
        assert!(
            (least..100).contains(&answer.answers.len()),
            "{} answers",
            answer.answers.len()
        );
        assert!(answer.authorities.is_empty() && answer.additionals.is_empty());
        assert_eq!(answer.edns.is_some(), packet[11] == 1);

        let whole = server.ask_tcp(&packet).await;
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (100, false));
    }
}

#[tokio::test]
async fn addresses_of_targets_come_whole_or_not_at_all() {
    let server = Running::start().await;
    let answer = server
        .ask(&query("_peer._udp.raft.default.svc.cluster.local", SRV))
        .await;
    assert_eq!((answer.answers.len(), answer.additionals.len()), (3, 3));

    // Seven targets fit into 512 bytes, their addresses do not.
    let mut table = fixture::table();
    let endpoints: Vec<_> = (1..=7)
        .map(
            |n| serde_json::json!({"addresses": [format!("127.244.9.{n}")], "hostname": format!("node-{n}")}),
        )
        .collect();
    let ports = serde_json::json!([{"name": "peer", "port": 7000, "protocol": "UDP"}]);
    for (name, slice) in [
        ("raft-2", None),
        (
            "six",
            Some(fixture::slice("six", "raft", ports, endpoints.into())),
        ),
    ] {
        table.slice(&key(name), slice.as_ref());
    }
    let server = Running::with(table).await;
    let packet = query("_peer._udp.raft.default.svc.cluster.local", SRV);
    let answer = server.ask(&packet).await;
    assert_eq!((answer.answers.len(), answer.additionals.len()), (7, 0));
    assert!(!answer.metadata.truncation);
    assert_eq!(server.ask_tcp(&packet).await.additionals.len(), 7);
}

#[tokio::test]
async fn the_question_comes_back_as_it_was_written() {
    let server = Running::start().await;
    let name = "wEb-0.NgInX.default.SVC.cluster.LOCAL";
    let answer = server.ask(&query(name, A)).await;
    assert_eq!(answer.queries[0].name().to_string(), format!("{name}."));
    assert_eq!(answer.answers[0].name.to_string(), format!("{name}."));
}

#[tokio::test]
async fn each_address_is_first_about_as_often() {
    let server = Running::start().await;
    let mut first = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..600 {
        let answer = server.ask(&query("nginx-all.default.svc.cluster.local", A)).await;
        assert_eq!(answer.answers.len(), 3);
        *first.entry(answer.answers[0].data.to_string()).or_default() += 1;
    }
    // 200 each, give or take six standard deviations: it fails once in a hundred million runs.
    assert!(
        first.len() == 3 && first.values().all(|n| (130..270).contains(n)),
        "{first:?}"
    );
    let alias = server.ask(&query("ext-in.default.svc.cluster.local", A)).await;
    assert_eq!(alias.answers[0].record_type(), RecordType::CNAME);
}

#[tokio::test]
async fn a_connection_takes_many_questions_in_pieces_of_any_size() {
    let server = Running::start().await;
    let mut stream = server.connect().await;
    let many: Vec<u8> = (0..200)
        .flat_map(|id| framed(&[header(id, RD, [1, 0, 0, 0]), question(WEB_0, A, 1)].concat()))
        .collect();
    stream.write_all(&many).await.expect("loopback");
    // The client says that it has no more to ask; it is answered all the same.
    stream.shutdown().await.expect("loopback");
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let answer = parse(&receive(&mut stream).await);
        assert_eq!(answer.answers.len(), 1);
        ids.insert(answer.metadata.id);
    }
    assert_eq!(ids.len(), 200);

    let mut stream = server.connect().await;
    stream.set_nodelay(true).expect("loopback");
    for byte in framed(&query(WEB_0, A)) {
        stream.write_all(&[byte]).await.expect("loopback");
        tokio::task::yield_now().await;
    }
    assert_eq!(parse(&receive(&mut stream).await).answers.len(), 1);
}

#[tokio::test]
async fn random_bytes_get_an_error_or_nothing_and_the_server_stays() {
    let server = Running::start().await;
    let mut random = rand::rngs::StdRng::seed_from_u64(20_261_121);
    let whole = query_with(WEB_0, A, &opt(1232, 0, 0, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]));
    let last = 0xFFFF;
    for round in 0..3_000_u32 {
        let mut packet = if round % 3 == 0 {
            let mut bytes = vec![0; random.random_range(0..100)];
            random.fill(&mut bytes[..]);
            bytes
        } else {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..5) {
                let place = random.random_range(0..bytes.len());
                bytes[place] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            bytes
        };
        if packet.starts_with(&[0xFF, 0xFF]) {
            packet[0] = 0;
        }
        server.udp.send(&packet).await.expect("loopback");
        if round % 100 == 99 {
            // A good question in between, so that the answers before it have been read.
            let good = [header(last, RD, [1, 0, 0, 0]), question(WEB_0, A, 1)].concat();
            server.udp.send(&good).await.expect("loopback");
            loop {
                let mut bytes = vec![0; 65_535];
                let length = timeout(DEADLINE, server.udp.recv(&mut bytes)).await;
                let answer = parse(&bytes[..length.expect("an answer").expect("loopback")]);
                if answer.metadata.id == last {
                    assert_eq!(answer.answers.len(), 1);
                    break;
                }
            }
        }
    }
    for packet in [vec![], vec![1], vec![0; 11]] {
        server.udp.send(&packet).await.expect("loopback");
        let mut stream = server.connect().await;
        stream.write_all(&framed(&packet)).await.expect("loopback");
    }
    assert_eq!(server.ask_tcp(&query(WEB_0, A)).await.answers.len(), 1);
    assert_eq!(server.ask(&query(WEB_0, A)).await.answers.len(), 1);
}
