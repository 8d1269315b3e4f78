//! What is answered to which question: the rows of the reference's acceptance table that are about data (V01 to V49).

#[path = "support/fixture.rs"]
mod fixture;

use dns::answer::{Asker, TCP_LIMIT, Verdict, answer};
use dns::zone::{Live, Zone};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use rand::SeedableRng;
use std::str::FromStr;

/// The whole cluster, as it is answered from.
fn zone() -> Zone {
    Zone::new(&fixture::config(), fixture::table().commit(), true)
}

const S: &str = "default.svc.cluster.local.";

fn ask(zone: &Zone, name: &str, type_: RecordType) -> Message {
    let name = name.replace('~', S).replace("%", "cluster.local.");
    ask_name(zone, Name::from_str(&name).expect("a name"), type_)
}

/// The answer as it would go over TCP, decoded by somebody else.
fn ask_name(zone: &Zone, name: Name, type_: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name, type_));
    let query = query.to_vec().expect("it can be written");
    let asker = Asker {
        tcp: true,
        forwards: false,
        may_transfer: false,
    };
    let mut bytes = vec![0; TCP_LIMIT];
    let mut random = rand::rngs::SmallRng::seed_from_u64(7);
    let Verdict::Answer(written) = answer(zone, &query, asker, &mut random, &mut bytes) else {
        panic!("no answer")
    };
    Message::from_vec(&bytes[..written.length]).expect("a message")
}

fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}

/// A section in a fixed order: owner, type and data of each record; `~` and `%` for the usual ends of names.
fn section(records: &[Record]) -> Vec<String> {
    let write = |r: &Record| format!("{} {} {}", r.name, r.record_type(), r.data);
    let short = |text: String| text.replace(S, "~").replace("cluster.local.", "%");
    let mut lines: Vec<String> = records.iter().map(write).map(short).collect();
    lines.sort();
    lines
}

/// `expected` is the data of the answers, in alphabetical order.
#[track_caller]
fn positive(name: &str, type_: RecordType, expected: &[&str]) {
    let answer = ask(&zone(), name, type_);
    let data = |line: &String| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    let mut found: Vec<String> = section(&answer.answers).iter().map(data).collect();
    found.sort();
    assert_eq!(found, expected, "{name} {type_}");
    assert_eq!(code(&answer), ResponseCode::NoError);
    assert!(answer.metadata.authoritative && answer.authorities.is_empty());
    assert!(answer.answers.iter().all(|r| r.ttl == 5));
}

#[track_caller]
fn negative(name: &str, types: &[RecordType], code: ResponseCode) {
    for type_ in types {
        let answer = ask(&zone(), name, *type_);
        assert_eq!(answer.metadata.response_code, code, "{name} {type_}");
        assert!(
            answer.metadata.authoritative && answer.answers.is_empty(),
            "{name} {type_}: {answer:?}"
        );
        let [soa] = &answer.authorities[..] else {
            panic!("{name} {type_}: {answer:?}")
        };
        assert_eq!((soa.record_type(), soa.ttl), (SOA, 5));
        let apex = if name.ends_with("arpa.") {
            "arpa."
        } else {
            "cluster.local."
        };
        assert!(soa.name.to_string().ends_with(apex), "{name}: {soa}");
    }
}

fn nothing(name: &str, types: &[RecordType]) {
    negative(name, types, ResponseCode::NoError);
}

fn nobody(name: &str, types: &[RecordType]) {
    negative(name, types, ResponseCode::NXDomain);
}

use RecordType::{A, AAAA, ANY, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, TXT};

#[test]
fn headless_services_give_the_addresses_of_what_is_ready() {
    positive("nginx.~", A, &["127.244.0.10", "127.244.0.11"]); // V01
    nothing("nginx.~", &[AAAA]); // V02
    positive("web-0.nginx.~", A, &["127.244.0.10"]); // V03
    nobody("web-2.nginx.~", &[A, AAAA]); // V04, V05
    positive(
        "nginx-all.~",
        A,
        &["127.244.0.10", "127.244.0.11", "127.244.0.12"],
    ); // V06
    positive("raft-1.raft.~", A, &["127.244.0.21"]); // V07
    positive("raft.~", A, &["127.244.0.20", "127.244.0.21", "127.244.0.22"]); // V08
    positive("portless.~", A, &["127.244.0.10", "127.244.0.11"]); // V15
    nothing("portless.~", &[SRV]);
    nobody("ghost.~", &[A, AAAA]); // V16
    positive("WEB-0.NgInX.~", A, &["127.244.0.10"]); // V48
    positive("web-0.nginx.~", ANY, &["127.244.0.10"]); // V64
}

#[test]
fn an_endpoint_answers_to_its_hostname_or_else_to_its_address() {
    positive("manual.~", A, &["192.0.2.10", "192.0.2.11", "192.0.2.12"]); // V17
    positive("manual.~", AAAA, &["fd00::10"]); // V18
    positive("db.manual.~", A, &["192.0.2.10", "192.0.2.11"]); // V19
    positive("db.manual.~", AAAA, &["fd00::10"]); // V20
    positive("192-0-2-12.manual.~", A, &["192.0.2.12"]); // V21
    nobody("dead.manual.~", &[A]); // V22
    nobody("192-0-2-10.manual.~", &[A]);
    positive("127-244-0-12.nginx-all.~", A, &["127.244.0.12"]);
    nobody("web-0.nginx-all.~", &[A]);
}

#[test]
fn ports_are_those_of_the_endpoints_and_each_target_comes_with_its_addresses() {
    let http = ["0 50 8080 web-0.nginx.~", "0 50 8080 web-1.nginx.~"];
    positive("_http._tcp.nginx.~", SRV, &http); // V09
    let answer = ask(&zone(), "_http._tcp.nginx.~", SRV);
    assert_eq!(
        section(&answer.additionals),
        ["web-0.nginx.~ A 127.244.0.10", "web-1.nginx.~ A 127.244.0.11"]
    );
    let metrics = ["0 50 9090 web-0.nginx.~", "0 50 9090 web-1.nginx.~"];
    positive("_metrics._tcp.nginx.~", SRV, &metrics); // V10
    let peers = [
        "0 33 7000 raft-0.raft.~",
        "0 33 7000 raft-1.raft.~",
        "0 33 7000 raft-2.raft.~",
    ];
    positive("_peer._udp.raft.~", SRV, &peers); // V11
    nobody("_peer._tcp.raft.~", &[SRV]); // V12
    nobody("_nope._tcp.nginx.~", &[SRV]); // V13
    positive("nginx.~", SRV, &[http, metrics].concat()); // V14
    positive(
        "plain.~",
        SRV,
        &["0 50 5432 127-244-0-10.plain.~", "0 50 5432 127-244-0-11.plain.~"],
    );
    // One record for a target, however many addresses and slices it has.
    positive(
        "_pg._tcp.manual.~",
        SRV,
        &["0 25 5432 192-0-2-12.manual.~", "0 25 5432 db.manual.~"],
    );
    nothing("_tcp.nginx.~", &[A, SRV]);
    nothing("_http._tcp.nginx.~", &[A]);
}

#[test]
fn unknown_names_and_unknown_types_are_told_apart() {
    nobody("nosuch.~", &[A]); // V23
    nobody("nginx.nosuchns.svc.%", &[A]); // V24
    nobody("nginx.shop.svc.%", &[A]); // V25
    nothing("nginx.~", &[TXT, MX, HTTPS, RecordType::Unknown(1000)]); // V26, V27
    nothing("%", &[A, MX, SRV]); // V31
    nothing("svc.%", &[A, NS]); // V33, V35
    nothing("~", &[A, AAAA]);
    nothing("void.svc.%", &[A]);
    nothing("void.pod.%", &[A]);
    nothing("dns.%", &[A]);
    nobody("foo.%", &[A, NS]); // V34
    nothing("nginx.~", &[SOA]); // V35
    nobody("*.nginx.~", &[A]); // V49
    nobody("*.~", &[SRV]);
    nobody("x.web-0.nginx.~", &[A]);
    let dotted = Name::from_labels([&b"web-0.nginx"[..], b"default", b"svc", b"cluster", b"local"]);
    let answer = ask_name(&zone(), dotted.expect("a name"), A);
    assert_eq!(
        code(&answer),
        ResponseCode::NXDomain,
        "a dot within a label divides nothing"
    );
}

#[test]
fn the_zone_speaks_of_itself() {
    let answer = ask(&zone(), "%", SOA); // V28
    assert_eq!(section(&answer.answers).len(), 1);
    assert!(answer.metadata.authoritative && answer.authorities.is_empty());
    positive("%", NS, &["ns.dns.%"]); // V29
    let answer = ask(&zone(), "%", NS);
    assert_eq!(section(&answer.additionals), ["ns.dns.% A 127.0.0.1"]);
    positive("ns.dns.%", A, &["127.0.0.1"]); // V30
    positive("dns-version.%", TXT, &["1.1.0"]); // V32
}

#[test]
fn addresses_lead_back_to_names() {
    let all = [
        "127-244-0-10.nginx-all.~",
        "127-244-0-10.plain.~",
        "127-244-0-10.portless.~",
        "web-0.nginx.~",
    ];
    positive("10.0.244.127.in-addr.arpa.", PTR, &all); // V36
    positive("12.2.0.192.in-addr.arpa.", PTR, &["192-0-2-12.manual.~"]); // V37
    nobody("99.0.244.127.in-addr.arpa.", &[PTR]); // V38
    nobody("13.2.0.192.in-addr.arpa.", &[PTR]);
    nothing("0.244.127.in-addr.arpa.", &[PTR]);
    nobody("010.0.244.127.in-addr.arpa.", &[PTR]);
    nobody("256.0.244.127.in-addr.arpa.", &[PTR]);
    positive("7.0.96.10.in-addr.arpa.", PTR, &["api.~"]);
}

#[test]
fn aliases_are_followed_inside_the_zone() {
    positive("ext.~", CNAME, &["www.example.com."]); // V39
    positive("ext.~", A, &["www.example.com."]); // V40
    positive("ext-in.~", A, &["127.244.0.10", "127.244.0.11", "nginx.~"]); // V41
    let answer = ask(&zone(), "ext-in.~", A);
    assert_eq!(answer.answers[0].record_type(), CNAME);
    nobody("_http._tcp.ext.~", &[SRV]); // V42
    let answer = ask(&zone(), "ext-gone.~", A);
    assert_eq!(code(&answer), ResponseCode::NXDomain);
    assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 1));
    let answer = ask(&zone(), "ext-in.~", MX);
    assert_eq!(code(&answer), ResponseCode::NoError);
    assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 1));
    positive("loop-a.~", A, &["loop-a.~", "loop-b.~"]);
}

#[test]
fn services_with_an_address_of_their_own_give_that_and_their_own_ports() {
    positive("api.~", A, &["10.96.0.7"]); // V43
    positive("_http._tcp.api.~", SRV, &["0 100 80 api.~"]); // V44
}

#[test]
fn pods_have_names_by_their_addresses_ready_or_not() {
    positive("127-244-0-12.default.pod.%", A, &["127.244.0.12"]); // V45
    nobody("127-244-0-10.shop.pod.%", &[A]); // V46
}

#[test]
fn other_zones_and_transfers_are_refused() {
    for (name, type_) in [
        ("www.example.com.", A), // V47
        ("local.", A),
        (".", NS),
        ("1.0.0.127.in-addr.arpa.", PTR),
        ("%", RecordType::AXFR), // V50
        ("%", RecordType::IXFR),
    ] {
        let answer = ask(&zone(), name, type_);
        assert_eq!(code(&answer), ResponseCode::Refused, "{name} {type_}");
        assert!(!answer.metadata.authoritative && answer.answers.is_empty());
        assert!(answer.authorities.is_empty() && answer.additionals.is_empty());
    }
}

#[test]
fn before_everything_is_known_an_unknown_name_is_a_failure_and_not_absent() {
    let config = fixture::config();
    let live = Live::new(&config);
    let code = |name: &str| code(&ask(&live.zone(), name, A));
    assert_eq!(code("nginx.~"), ResponseCode::ServFail);
    assert_eq!(code("ns.dns.%"), ResponseCode::NoError);
    assert_eq!(code("www.example.com."), ResponseCode::Refused);
    live.replace(Zone::new(&config, fixture::table().commit(), false));
    assert_eq!(code("nginx.~"), ResponseCode::NoError);
    assert_eq!(code("ghost.~"), ResponseCode::ServFail);
}
