//! What all sockets have in common: the newest names, counters, settings; and the answers that take a while, because
//! somebody else is asked.

use crate::answer::{Asker, Verdict, Written, answer, code, limit};
use crate::log;
use crate::metrics::{Metrics, Protocol, Worker};
use crate::name::Name;
use crate::transfer::Allowed;
use crate::upstream::Upstream;
use crate::zone::{Live, Zone};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use rand::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What all sockets have in common.
pub struct Shared {
    /// The names.
    pub live: Arc<Live>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Whether every question is written to the log.
    pub log: bool,
    /// Who may have whole zones.
    pub transfers: Allowed,
}

/// What is to be done for a query.
pub enum Reply {
    /// Nothing.
    None,
    /// Send so many bytes, which are written.
    Now(usize),
    /// Ask somebody else.
    Later(Later),
    /// Send the messages of [`crate::transfer::messages`]. Making them may be a second's work in a large cluster.
    Transfer,
}

/// An answer that takes a while.
#[derive(Debug)]
pub struct Later {
    query: Vec<u8>,
    /// The most bytes of the answer.
    limit: usize,
    alias: Option<Alias>,
}

/// An alias of ours for a name elsewhere.
#[derive(Debug)]
struct Alias {
    /// The answer so far.
    answer: Vec<u8>,
    target: Name,
    type_: u16,
}

impl Shared {
    /// Answer a query from what is known, into `out`. `zone` is the newest version, `way` how it came and from whom.
    #[expect(clippy::too_many_arguments, reason = "all of them come with each query")]
    pub fn reply(
        &self,
        zone: &Zone,
        query: &[u8],
        way: (Protocol, SocketAddr),
        forwards: bool,
        worker: &Worker,
        random: &mut impl Rng,
        out: &mut [u8],
    ) -> Reply {
        let (protocol, client) = way;
        let asker = Asker {
            tcp: protocol == Protocol::Tcp,
            forwards,
            may_transfer: self.transfers.contains(client.ip()),
        };
        let later = |alias| {
            worker.forwarded();
            let limit = limit(query, asker.tcp);
            let query = query.to_vec();
            Reply::Later(Later { query, limit, alias })
        };
        match answer(zone, query, asker, random, out) {
            Verdict::Silence => {
                worker.dropped();
                Reply::None
            }
            Verdict::Answer(Written { length, type_, code }) => {
                worker.answered(protocol, type_, code);
                Reply::Now(length)
            }
            Verdict::Forward => later(None),
            Verdict::Chase {
                written,
                target,
                type_,
            } => later(Some(Alias {
                answer: out[..written.length].to_vec(),
                target,
                type_,
            })),
            Verdict::Transfer { type_ } => {
                worker.answered(protocol, type_, code::NO_ERROR);
                Reply::Transfer
            }
        }
    }

    /// Write a line about a query, if that is wanted.
    pub fn tell(&self, way: (Protocol, SocketAddr), query: &[u8], answer: &[u8], took: Duration) {
        if self.log {
            let (protocol, client) = way;
            log::query(client, protocol, query, answer, took);
        }
    }
}

/// Asks somebody else for what is not in our zones.
#[derive(Clone)]
pub struct Forwarder(pub Arc<Upstream>);

impl Forwarder {
    /// The whole answer.
    pub async fn complete(&self, later: &Later) -> Vec<u8> {
        let Some(alias) = &later.alias else {
            return self.0.answer(&later.query, later.limit).await;
        };
        let target = hickory_proto::rr::Name::from(&alias.target);
        let chased = self.0.chase(&target, RecordType::from(alias.type_)).await;
        // What we wrote ourselves can be read.
        let Ok(mut message) = Message::from_vec(&alias.answer) else {
            return alias.answer.clone();
        };
        message.metadata.response_code = chased.code;
        message.answers.extend(chased.records);
        message.authorities = chased.authorities;
        within(message, later.limit).unwrap_or_else(|| alias.answer.clone())
    }
}

impl Later {
    /// The bytes of the query.
    pub fn query(&self) -> &[u8] {
        &self.query
    }
}

/// The bytes of a message that has at most so many: records that do not fit are left out, which the message says.
fn within(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
        message.metadata.truncation = true;
        message.authorities.clear();
        message.answers.pop()?;
    }
}
