//! The protocol around the answers: which questions are refused, EDNS, sizes, the order of records. Section 6 of the
//! reference on DNS is the table that this follows.

use crate::zone::{Answer, Live};
use async_trait::async_trait;
use hickory_proto::op::{Edns, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Record};
use hickory_proto::serialize::binary::BinEncodable;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rand::seq::SliceRandom;
use std::sync::Arc;

/// The largest UDP answer, whatever the client would take: it passes every network unfragmented.
const UDP_LIMIT: u16 = 1232;
/// The largest UDP answer for a client that does not say.
const UDP_PLAIN: u16 = 512;
/// A header, and an OPT record without options.
const HEADER: usize = 12;
const OPT: usize = 11;

/// Answers every request.
pub struct Handler {
    live: Arc<Live>,
}

impl Handler {
    /// From the newest names that there are.
    pub fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

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
        answer
    }
}

/// Records of one set in any order, so that clients that take the first spread over all; aliases stay in front.
fn shuffle(answers: &mut [Record]) {
    let aliases = answers
        .iter()
        .take_while(|r| r.record_type() == hickory_proto::rr::RecordType::CNAME)
        .count();
    answers[aliases..].shuffle(&mut rand::rng());
}

/// Leave out what does not fit into `limit` bytes: additional records silently, answers with the truncation bit. Sizes
/// are counted without compression, so the message is never larger.
fn fit(answer: &mut Answer, limit: usize, base: usize) -> bool {
    let size = |records: &[Record]| -> usize { records.iter().map(size_of).sum() };
    let mut left = limit.saturating_sub(base);
    if size(&answer.answers) + size(&answer.authorities) > left {
        answer.authorities.clear();
        answer.additionals.clear();
        let fitting = answer.answers.iter().take_while(|record| {
            let fits = size_of(record) <= left;
            left = left.saturating_sub(size_of(record));
            fits
        });
        let count = fitting.count();
        answer.answers.truncate(count);
        return true;
    }
    left -= size(&answer.answers) + size(&answer.authorities);
    if size(&answer.additionals) > left {
        answer.additionals.clear();
    }
    false
}

fn size_of(record: &Record) -> usize {
    record.to_bytes().map_or(usize::MAX / 1024, |bytes| bytes.len())
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
        let question: usize = request
            .queries
            .queries()
            .iter()
            .map(|q| q.original().to_bytes().map_or(0, |b| b.len()))
            .sum();
        metadata.truncation = fit(&mut answer, usize::from(limit), HEADER + OPT + question);

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
