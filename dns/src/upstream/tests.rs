//! Against servers played here, on loopback over UDP and TCP, that count what they are asked.

use super::*;
use hickory_proto::op::{Edns, MessageType, OpCode};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// Ends with the test.
struct Server {
    address: SocketAddr,
    udp: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// `replies` makes of a query, and whether it came over TCP, what is sent back.
    async fn new(replies: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Clone + Send + Sync + 'static) -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("udp");
            let address = socket.local_addr().expect("bound");
            if let Ok(listener) = TcpListener::bind(address).await {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().expect("bound");
        let (udp, tcp) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let (count, make) = (udp.clone(), replies.clone());
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&buffer[..length]).expect("a query");
                for reply in make(&query, false) {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        let count = tcp.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let length = stream.read_u16().await.expect("a length");
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.expect("a query");
                let query = Message::from_vec(&query).expect("a query");
                for reply in replies(&query, true) {
                    let _ = stream.write_u16(reply.len() as u16).await;
                    let _ = stream.write_all(&reply).await;
                }
            }
        });
        Self {
            address,
            udp,
            tcp,
            _tasks: tasks,
        }
    }

    /// Questions over UDP and over TCP.
    fn asked(&self) -> (usize, usize) {
        (self.udp.load(Ordering::SeqCst), self.tcp.load(Ordering::SeqCst))
    }
}

/// An answer to `query`, still without records.
fn answer_to(query: &Message) -> Message {
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        answer.edns = Some(Edns::new());
    }
    answer
}

fn bytes(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().expect("encoded")]
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect(text)
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(
        name("ns.example."),
        name("hostmaster.example."),
        1,
        2,
        3,
        4,
        minimum,
    );
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}

/// One address for every question.
fn one_address(query: &Message, _: bool) -> Vec<Vec<u8>> {
    let mut answer = answer_to(query);
    let asked = query.queries[0].name().to_ascii();
    answer.answers.push(a(&asked, 60, 1));
    bytes(&answer)
}

fn to(servers: &[&Server]) -> Arc<Upstream> {
    let addresses = servers.iter().map(|server| server.address).collect();
    Upstream::new(Servers::Addresses(addresses), &[]).expect("servers")
}

/// A query as a pod sends it.
fn query(text: &str, type_: RecordType) -> Message {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name(text), type_));
    query
}

async fn ask(upstream: &Arc<Upstream>, query: &Message, limit: usize) -> Message {
    let answer = upstream.answer(&query.to_vec().expect("encoded"), limit).await;
    assert!(answer.len() <= limit, "{} bytes", answer.len());
    let message = Message::from_vec(&answer).expect("an answer");
    assert_eq!(message.metadata.id, query.metadata.id);
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert!(message.metadata.recursion_available);
    assert!(!message.metadata.authoritative && !message.metadata.authentic_data);
    assert!(!message.metadata.checking_disabled);
    message
}

async fn ask_a(upstream: &Arc<Upstream>, text: &str) -> Message {
    ask(upstream, &query(text, RecordType::A), 512).await
}

#[tokio::test]
async fn an_answer_is_asked_for_once_and_counts_its_time_down() {
    let server = Server::new(one_address).await;
    let upstream = to(&[&server]);
    let first = ask_a(&upstream, "www.example.").await;
    assert_eq!(first.answers, [a("www.example.", 60, 1)]);
    assert_eq!(first.metadata.response_code, ResponseCode::NoError);

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(20)).await;
    let second = ask_a(&upstream, "www.example.").await;
    assert_eq!(second.answers, [a("www.example.", 40, 1)]);
    assert_eq!(server.asked(), (1, 0));

    tokio::time::advance(Duration::from_secs(40)).await;
    tokio::time::resume();
    let third = ask_a(&upstream, "www.example.").await;
    assert_eq!(third.answers[0].ttl, 60);
    assert_eq!(server.asked(), (2, 0));
}

#[tokio::test]
async fn the_question_comes_back_as_it_was_written() {
    let server = Server::new(one_address).await;
    let upstream = to(&[&server]);
    for text in ["wWw.ExAmPlE.", "WWW.example."] {
        let asked = query(text, RecordType::A).to_vec().expect("encoded");
        let answer = upstream.answer(&asked, 512).await;
        assert_eq!(answer[12..asked.len()], asked[12..], "{text}");
    }
    assert_eq!(server.asked(), (1, 0), "both are one name");
}

#[tokio::test]
async fn an_opt_record_comes_back_if_there_was_one_and_nothing_in_it_is_repeated() {
    let server = Server::new(one_address).await;
    let upstream = to(&[&server]);
    assert_eq!(ask_a(&upstream, "www.example.").await.edns, None);
    for dnssec_ok in [false, true] {
        let mut asked = query("www.example.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(4096).set_dnssec_ok(dnssec_ok);
        edns.options_mut()
            .insert(hickory_proto::rr::rdata::opt::EdnsOption::Unknown(
                100,
                vec![1, 2],
            ));
        asked.edns = Some(edns);
        let ours = ask(&upstream, &asked, 1232).await.edns.expect("an OPT record");
        assert_eq!((ours.version(), ours.max_payload()), (0, 1232));
        assert_eq!(ours.flags().dnssec_ok, dnssec_ok);
        assert!(ours.options().as_ref().is_empty());
    }
}

#[tokio::test]
async fn what_does_not_exist_and_what_has_no_such_record_are_told_apart_and_remembered() {
    let server = Server::new(|query: &Message, _| {
        let mut answer = answer_to(query);
        if query.queries[0].name() == &name("gone.example.") {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.authorities.push(soa(300, 30));
        bytes(&answer)
    })
    .await;
    let upstream = to(&[&server]);
    for (text, code) in [
        ("gone.example.", ResponseCode::NXDomain),
        ("there.example.", ResponseCode::NoError),
    ] {
        for _ in 0..2 {
            let answer = ask_a(&upstream, text).await;
            assert_eq!(answer.metadata.response_code, code);
            assert!(answer.answers.is_empty());
            assert_eq!(answer.authorities, [soa(300, 30)]);
        }
    }
    assert_eq!(server.asked(), (2, 0));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    ask_a(&upstream, "gone.example.").await;
    assert_eq!(server.asked(), (3, 0), "the SOA's minimum is its time");
}

#[tokio::test]
async fn aliases_come_through_in_order() {
    let alias = |from: &str, to: &str| Record::from_rdata(name(from), 60, RData::CNAME(CNAME(name(to))));
    let chain = vec![
        alias("www.example.", "web.example."),
        alias("web.example.", "host.example."),
        a("host.example.", 60, 1),
    ];
    let records = chain.clone();
    let server = Server::new(move |query: &Message, _| {
        let mut answer = answer_to(query);
        answer.answers.clone_from(&records);
        bytes(&answer)
    })
    .await;
    let upstream = to(&[&server]);
    assert_eq!(ask_a(&upstream, "www.example.").await.answers, chain);
    let chased = upstream.chase(&name("www.example."), RecordType::A).await;
    assert_eq!((chased.code, chased.records), (ResponseCode::NoError, chain));
    assert_eq!(server.asked(), (1, 0));
}

/// What says at the name where an alias leads that there is nothing.
#[tokio::test]
async fn an_alias_that_leads_nowhere_says_so() {
    let server = Server::new(|query: &Message, _| {
        let mut answer = answer_to(query);
        answer.metadata.response_code = ResponseCode::NXDomain;
        answer.authorities.push(soa(300, 30));
        bytes(&answer)
    })
    .await;
    let chased = to(&[&server]).chase(&name("gone.example."), RecordType::A).await;
    assert_eq!(chased.code, ResponseCode::NXDomain);
    assert!(chased.records.is_empty());
    assert_eq!(chased.authorities, [soa(300, 30)]);
}

fn hundred(query: &Message, tcp: bool) -> Vec<Vec<u8>> {
    let mut answer = answer_to(query);
    let owner = query.queries[0].name().to_ascii();
    let count = if tcp { 100 } else { 10 };
    answer.answers.extend((0..count).map(|n| a(&owner, 60, n)));
    answer.metadata.truncation = !tcp;
    bytes(&answer)
}

#[tokio::test]
async fn what_udp_does_not_hold_is_asked_over_tcp_and_cut_for_whoever_asks_over_udp() {
    let server = Server::new(hundred).await;
    let upstream = to(&[&server]);
    let asked = query("big.example.", RecordType::A);
    let whole = ask(&upstream, &asked, 65535).await;
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (100, false));
    let cut = ask(&upstream, &asked, 512).await;
    assert!(cut.metadata.truncation);
    assert_eq!(cut.answers.len(), (512 - 12 - 17) / 16, "as many as fit");
    assert_eq!(cut.answers, whole.answers[..cut.answers.len()]);
    assert_eq!(server.asked(), (1, 1));
}

#[tokio::test]
async fn a_truncated_answer_is_better_than_none_where_tcp_is_closed() {
    let server = Server::new(|query: &Message, tcp| if tcp { Vec::new() } else { hundred(query, tcp) }).await;
    let answer = ask_a(&to(&[&server]), "big.example.").await;
    assert!(answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 10);
}

#[tokio::test]
async fn a_silent_server_does_not_keep_the_next_one_from_being_asked_and_is_not_asked_first_again() {
    let silent = Server::new(|_: &Message, _| Vec::new()).await;
    let good = Server::new(one_address).await;
    let upstream = to(&[&silent, &good]);
    assert_eq!(ask_a(&upstream, "www.example.").await.answers.len(), 1);
    assert_eq!((silent.asked(), good.asked()), ((1, 0), (1, 0)));
    assert_eq!(ask_a(&upstream, "two.example.").await.answers.len(), 1);
    assert_eq!((silent.asked(), good.asked()), ((1, 0), (2, 0)));
}

#[tokio::test]
async fn a_server_that_fails_or_refuses_is_followed_by_the_next_at_once() {
    for code in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::NotImp,
    ] {
        let bad = Server::new(move |query: &Message, _| {
            let mut answer = answer_to(query);
            answer.metadata.response_code = code;
            bytes(&answer)
        })
        .await;
        let good = Server::new(one_address).await;
        let answer = ask_a(&to(&[&bad, &good]), "www.example.").await;
        assert_eq!(answer.answers.len(), 1, "{code}");
        let only = ask_a(&to(&[&bad]), "www.example.").await;
        assert_eq!(only.metadata.response_code, ResponseCode::ServFail, "{code}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_failure_that_is_not_asked_for_by_everyone() {
    let closed = Server::new(one_address).await.address;
    let upstream = Upstream::new(Servers::Addresses(vec![closed]), &[]).expect("servers");
    let failed = ask_a(&upstream, "www.example.").await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    let chased = upstream.chase(&name("www.example."), RecordType::A).await;
    assert_eq!(chased.code, ResponseCode::ServFail);
    let none = Upstream::new(Servers::Addresses(Vec::new()), &[]).expect("servers");
    let failed = ask_a(&none, "www.example.").await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
}

/// Everything that is no answer to what was asked: too short, a query, another id, another question, without end.
fn garbage(query: &Message, _: bool) -> Vec<Vec<u8>> {
    let good = one_address(query, false).remove(0);
    let changed = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    let asked = tests::query("other.example.", RecordType::A);
    let mut other = answer_to(&asked);
    other.metadata.id = query.metadata.id;
    other.answers.push(a("other.example.", 60, 66));
    let mut replies = vec![
        Vec::new(),
        good[..11].to_vec(),
        good[..good.len() - 20].to_vec(),
        changed(0, !good[0]),
        changed(2, good[2] & 0x7f),
        changed(5, 2),
        changed(7, 200),
        changed(12, 0xc0),
        vec![0xff; 700],
    ];
    replies.extend(bytes(&other));
    replies
}

#[tokio::test]
async fn a_server_that_answers_garbage_is_as_good_as_a_silent_one() {
    let bad = Server::new(garbage).await;
    let good = Server::new(one_address).await;
    let answer = ask_a(&to(&[&bad, &good]), "www.example.").await;
    assert_eq!(answer.answers, [a("www.example.", 60, 1)]);
    // The right one among them is found.
    let both = Server::new(|query: &Message, tcp| {
        let mut all = garbage(query, tcp);
        all.extend(one_address(query, tcp));
        all
    })
    .await;
    let answer = ask_a(&to(&[&both]), "www.example.").await;
    assert_eq!(answer.answers, [a("www.example.", 60, 1)]);
    assert_eq!(both.asked(), (1, 0));
}

#[tokio::test]
async fn a_server_from_before_edns_is_asked_without() {
    let old = Server::new(|query: &Message, _| {
        if query.edns.is_none() {
            return one_address(query, false);
        }
        let mut header = vec![0; 12];
        header[..2].copy_from_slice(&query.metadata.id.to_be_bytes());
        header[2..4].copy_from_slice(&0x8001u16.to_be_bytes());
        vec![header]
    })
    .await;
    let answer = ask_a(&to(&[&old]), "www.example.").await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(old.asked(), (2, 0));
}

#[tokio::test]
async fn only_data_is_asked_for_and_only_for_those_who_wish_it() {
    let server = Server::new(one_address).await;
    let upstream = to(&[&server]);
    for type_ in [
        RecordType::ANY,
        RecordType::AXFR,
        RecordType::IXFR,
        RecordType::Unknown(249),
    ] {
        let answer = ask(&upstream, &query("www.example.", type_), 512).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{type_}");
    }
    let mut asked = query("www.example.", RecordType::A);
    asked.metadata.recursion_desired = false;
    let answer = ask(&upstream, &asked, 512).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.recursion_desired);
    assert_eq!(server.asked(), (0, 0));
}

#[tokio::test]
async fn no_name_and_no_type_is_special() {
    let server = Server::new(|query: &Message, _| {
        let mut answer = answer_to(query);
        let data = RData::Unknown {
            code: query.queries[0].query_type(),
            rdata: hickory_proto::rr::rdata::NULL::with(vec![0xc0, 0x0c, 1, 2, 3]),
        };
        answer
            .answers
            .push(Record::from_rdata(query.queries[0].name().clone(), 60, data));
        bytes(&answer)
    })
    .await;
    let upstream = to(&[&server]);
    let names = [
        "localhost.",
        "x.onion.",
        "printer.local.",
        "x.invalid.",
        "1.0.0.127.in-addr.arpa.",
        "a\\.b.example.",
        ".",
    ];
    for (n, text) in names.iter().enumerate() {
        let answer = ask(&upstream, &query(text, RecordType::Unknown(65000)), 512).await;
        assert_eq!(answer.answers.len(), 1, "{text}");
        assert_eq!(server.asked(), (n + 1, 0), "{text}");
    }
}

#[tokio::test]
async fn many_who_ask_the_same_ask_once_and_beyond_the_limit_there_is_an_answer_at_once() {
    let silent = Server::new(|_: &Message, _| Vec::new()).await;
    let upstream = to(&[&silent]);
    let mut waiting = JoinSet::new();
    for n in 0..WAITING {
        let upstream = upstream.clone();
        let text = if n % 2 == 0 {
            "same.example."
        } else {
            "SAME.example."
        };
        waiting.spawn(async move { ask_a(&upstream, text).await });
    }
    while upstream.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = ask_a(&upstream, "other.example.").await;
    assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
    while let Some(answer) = waiting.join_next().await {
        let code = answer.expect("answered").metadata.response_code;
        assert_eq!(code, ResponseCode::ServFail);
    }
    assert_eq!(silent.asked(), (2, 0), "each server twice, once for all");
    assert!(upstream.asked.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn who_goes_away_does_not_leave_the_question_stuck() {
    let silent = Server::new(|_: &Message, _| Vec::new()).await;
    let upstream = to(&[&silent]);
    let short = Duration::from_millis(20);
    let gone = tokio::time::timeout(short, ask_a(&upstream, "www.example.")).await;
    assert!(gone.is_err(), "it is silent");
    let answer = ask_a(&upstream, "www.example.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(silent.asked().0 >= 2, "it has been asked anew");
}

#[tokio::test]
async fn we_never_ask_ourselves() {
    let at = |text: &str| text.parse::<SocketAddr>().expect(text);
    let cases = [
        ("127.244.0.1:53", "127.244.0.1:53", true),
        ("127.244.0.1:53", "127.244.0.1:54", false),
        ("127.244.0.1:53", "127.0.0.1:53", false),
        ("127.0.0.53:53", "0.0.0.0:53", true),
        ("[::1]:53", "[::]:53", true),
        ("192.0.2.1:53", "0.0.0.0:53", false),
        ("[::ffff:127.0.0.1]:53", "127.0.0.1:53", true),
    ];
    for (server, own, expected) in cases {
        assert_eq!(is_ours(at(server), &[at(own)]), expected, "{server} {own}");
    }
    let own = Servers::Addresses(vec![at("127.0.0.1:1053")]);
    let refused = Upstream::new(own, &[at("127.0.0.1:1053")])
        .err()
        .expect("refused");
    assert!(refused.contains("this DNS server itself"), "{refused}");

    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.244.0.1\n").expect("written");
    let host = Upstream::from(From::Host(Nameservers::new(&path)), &[at("127.244.0.1:53")]);
    let answer = ask_a(&host, "www.example.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

mod any_bytes {
    use super::super::reply::{Reply, question};
    use super::super::wire::Outline;
    use super::*;
    use proptest::prelude::*;

    /// A server's answer with some bytes changed, and cut.
    fn mangled() -> impl Strategy<Value = Vec<u8>> {
        let whole = hundred(&query("big.example.", RecordType::A), true).remove(0);
        let length = whole.len();
        let changes = proptest::collection::vec((0..length, any::<u8>()), 0..6);
        (changes, 0..=length).prop_map(move |(changes, length)| {
            let mut bytes = whole.clone();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.truncate(length);
            bytes
        })
    }

    proptest! {
        #[test]
        fn an_answer_made_of_whatever_a_server_says_has_whole_records_and_its_size(
            said in mangled(), limit in 512usize..2000, age in 0u64..100_000,
        ) {
            let asked = query("big.example.", RecordType::A).to_vec().expect("encoded");
            let ours = Outline::of(&asked).expect("a query");
            let Some(outline) = Outline::of(&said) else { return Ok(()) };
            if outline.question_end() != ours.question_end() { return Ok(()) }
            let Some(reply) = Reply::new(said, outline) else { return Ok(()) };
            let answer = reply.answer(&asked, &ours, Duration::from_secs(age), limit);
            prop_assert!(answer.len() <= limit);
            let again = Outline::of(&answer).expect("a message");
            let end = again.records.last().map_or(again.question_end(), |place| place.end);
            prop_assert_eq!(end, answer.len(), "nothing is behind the last record");
        }

        #[test]
        fn whatever_is_no_message_is_found_out(said in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(outline) = Outline::of(&said) {
                let asked = question(&said, &outline, 1, true);
                prop_assert!(Outline::of(&asked).is_some());
            }
        }
    }
}
