//! The protocol around the answers: which questions are refused, EDNS, sizes, the order of records. Section 6 of the
//! reference on DNS is the table that this follows.

use crate::zone::{Answer, Live};
use async_trait::async_trait;
use hickory_proto::op::{Edns, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};
use rand::seq::SliceRandom;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};

/// The largest UDP answer, whatever the client would take: it passes every network unfragmented.
const UDP_LIMIT: u16 = 1232;
/// The largest UDP answer for a client that does not say.
const UDP_PLAIN: u16 = 512;
/// A header, and an OPT record without options.
const HEADER: usize = 12;
const OPT: usize = 11;

/// How long an idle TCP connection is kept (RFC 7766, 6.2.3).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// How many answers may wait for a slow reader of a TCP connection.
const TCP_WAITING: usize = 64;

/// Answer on all sockets from the newest names.
pub fn listen(live: Arc<Live>, udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> Server<Handler> {
    let mut server = Server::new(Handler { live });
    for socket in udp {
        server.register_socket(socket);
    }
    for listener in tcp {
        server.register_listener(listener, TCP_IDLE, TCP_WAITING);
    }
    server
}

/// Answers every request.
pub struct Handler {
    live: Arc<Live>,
}

impl Handler {
    fn answer(&self, request: &Request) -> Answer {
        if request.metadata.op_code != OpCode::Query {
            return Answer::bare(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Answer::bare(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else {
            return Answer::bare(ResponseCode::FormErr);
        };
        if info.query.query_class() != DNSClass::IN {
            return Answer::bare(ResponseCode::Refused);
        }
        let mut answer = self
            .live
            .zone()
            .answer(info.query.name(), info.query.query_type());
        shuffle(&mut answer.answers);
        write_as_asked(&mut answer.answers, info.query.original().name());
        answer
    }
}

/// Records of one set in any order, so that clients that take the first spread over all; aliases stay in front.
fn shuffle(answers: &mut [Record]) {
    let aliases = answers
        .iter()
        .take_while(|r| r.record_type() == RecordType::CNAME)
        .count();
    answers[aliases..].shuffle(&mut rand::rng());
}

/// What is around the answers in a message.
struct Frame<'a> {
    queries: &'a Queries,
    edns: Option<&'a Edns>,
    metadata: Metadata,
    /// The most bytes the message may have.
    limit: u16,
}

impl Frame<'_> {
    /// Whether a message with these records has room for them all. It is encoded to see: how names are compressed is the
    /// encoder's business, and what it has to cut off itself leaves bytes behind the last record.
    fn holds(&self, answers: &[Record], authorities: &[Record], additionals: &[Record]) -> bool {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.limit);
        let message = MessageResponseBuilder::new(self.queries, self.edns).build(
            self.metadata,
            answers,
            authorities,
            [],
            additionals,
        );
        message
            .destructive_emit(&mut encoder)
            .is_ok_and(|info| !info.truncation)
    }

    /// Leave out what does not fit: additional records silently and all of them, answers with the truncation bit and as
    /// few as possible (RFC 2181, 9). Whether answers are missing.
    fn fit(&self, answer: &mut Answer) -> bool {
        let records = answer
            .answers
            .iter()
            .chain(&answer.authorities)
            .chain(&answer.additionals);
        let most = HEADER + OPT + self.queries.as_bytes().len() + records.map(at_most).sum::<usize>();
        let is_small = most <= usize::from(self.limit);
        if is_small || self.holds(&answer.answers, &answer.authorities, &answer.additionals) {
            return false;
        }
        answer.additionals.clear();
        if self.holds(&answer.answers, &answer.authorities, &[]) {
            return false;
        }
        answer.authorities.clear();
        let lengths: Vec<usize> = (1..=answer.answers.len()).collect();
        let fitting = lengths.partition_point(|length| self.holds(&answer.answers[..*length], &[], &[]));
        answer.answers.truncate(fitting);
        true
    }
}

/// No encoding of the record is longer.
fn at_most(record: &Record) -> usize {
    let name = |name: &Name| name.len() + 2;
    let data = match &record.data {
        RData::A(_) => 4,
        RData::AAAA(_) => 16,
        RData::CNAME(target) => name(target),
        RData::NS(target) => name(target),
        RData::PTR(target) => name(target),
        RData::SOA(soa) => name(&soa.mname) + name(&soa.rname) + 20,
        RData::SRV(srv) => 6 + name(&srv.target),
        RData::TXT(txt) => txt.txt_data.iter().map(|text| text.len() + 1).sum(),
        _ => usize::from(u16::MAX),
    };
    name(&record.name) + 10 + data
}

/// The owners of the answers are written as the question wrote them (draft-vixie-dnsext-dns0x20).
fn write_as_asked(answers: &mut [Record], asked: &Name) {
    let ours = answers.iter_mut().filter(|record| record.name == *asked);
    ours.for_each(|record| record.name = asked.clone());
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut answer = self.answer(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = answer.authoritative;
        metadata.response_code = answer.code;
        metadata.recursion_available = false;
        metadata.authentic_data = false;
        metadata.checking_disabled = false;

        let edns = request.edns.as_ref().map(|theirs| {
            let mut ours = Edns::new();
            ours.set_max_payload(theirs.max_payload().clamp(UDP_PLAIN, UDP_LIMIT))
                .set_version(0);
            ours.set_dnssec_ok(theirs.flags().dnssec_ok);
            ours.set_rcode_high(answer.code.high());
            ours
        });
        let limit = match (request.protocol(), &edns) {
            (Protocol::Udp, Some(edns)) => edns.max_payload(),
            (Protocol::Udp, None) => UDP_PLAIN,
            _ => u16::MAX,
        };
        let frame = Frame {
            queries: &request.queries,
            edns: edns.as_ref(),
            metadata,
            limit,
        };
        metadata.truncation = frame.fit(&mut answer);

        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let message = builder.build(
            metadata,
            &answer.answers,
            &answer.authorities,
            [],
            &answer.additionals,
        );
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer was not sent");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata,
                    counts: Default::default(),
                })
            }
        }
    }
}
