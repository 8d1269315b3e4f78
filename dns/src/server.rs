//! What all sockets have in common: the newest names, counters, settings; and the answers that take a while, because
//! somebody else is asked.

use crate::answer::{Asker, Verdict, Written, answer, code, limit};
use crate::log;
use crate::metrics::{Metrics, Protocol, Worker};
use crate::name::Name;
use crate::transfer::Allowed;
use crate::upstream::Upstream;
use crate::zone::{Live, Zone};
use futures::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Send the bytes that somebody else is being asked for.
    Later(BoxFuture<'static, Vec<u8>>),
    /// Send the messages of [`crate::transfer::messages`]. Making them may be a second's work in a large cluster.
    Transfer,
}

/// Answers the questions of one thread or connection.
pub struct Answerer {
    /// What it answers from.
    pub shared: Arc<Shared>,
    /// Where it counts.
    pub worker: Arc<Worker>,
    protocol: Protocol,
    forwarder: Option<Forwarder>,
    random: SmallRng,
}

impl Answerer {
    /// For questions that come by this protocol; with a forwarder names outside the zones are asked for elsewhere.
    pub fn new(
        shared: Arc<Shared>,
        worker: Arc<Worker>,
        protocol: Protocol,
        forwarder: Option<Forwarder>,
    ) -> Self {
        Self {
            shared,
            worker,
            protocol,
            forwarder,
            random: SmallRng::from_os_rng(),
        }
    }

    /// Answer a client's query from what is known, into `out`. `zone` is the newest version.
    pub fn reply(&mut self, zone: &Zone, query: &[u8], client: SocketAddr, out: &mut [u8]) -> Reply {
        let asker = Asker {
            tcp: self.protocol == Protocol::Tcp,
            forwards: self.forwarder.is_some(),
            may_transfer: self.shared.transfers.contains(client.ip()),
        };
        match answer(zone, query, asker, &mut self.random, out) {
            Verdict::Silence => {
                self.worker.dropped();
                Reply::None
            }
            Verdict::Answer(Written { length, type_, code }) => {
                self.worker.answered(self.protocol, type_, code);
                Reply::Now(length)
            }
            Verdict::Forward => self.later(query, client, None),
            Verdict::Chase {
                written,
                target,
                type_,
            } => {
                let answer = out[..written.length].to_vec();
                let alias = Alias {
                    answer,
                    target,
                    type_,
                };
                self.later(query, client, Some(alias))
            }
            Verdict::Transfer { type_ } => {
                self.worker.answered(self.protocol, type_, code::NO_ERROR);
                Reply::Transfer
            }
        }
    }

    /// Ask somebody else, for the name itself or for what an alias of ours stands for.
    fn later(&self, query: &[u8], client: SocketAddr, alias: Option<Alias>) -> Reply {
        let Some(forwarder) = self.forwarder.clone() else {
            return Reply::None;
        };
        self.worker.forwarded();
        let (shared, worker, protocol) = (self.shared.clone(), self.worker.clone(), self.protocol);
        let (query, limit) = (query.to_vec(), limit(query, protocol == Protocol::Tcp));
        Reply::Later(Box::pin(async move {
            let began = Instant::now();
            let answer = match &alias {
                Some(alias) => forwarder.chase(alias, limit).await,
                None => forwarder.0.answer(&query, limit).await,
            };
            worker.answered_with(protocol, &query, &answer);
            shared.tell(protocol, client, &query, &answer, began.elapsed());
            answer
        }))
    }

    /// Write a line about a query, if that is wanted.
    pub fn tell(&self, client: SocketAddr, query: &[u8], answer: &[u8], took: Duration) {
        self.shared.tell(self.protocol, client, query, answer, took);
    }
}

impl Shared {
    fn tell(&self, protocol: Protocol, client: SocketAddr, query: &[u8], answer: &[u8], took: Duration) {
        if self.log {
            log::query(client, protocol, query, answer, took);
        }
    }
}

/// An alias of ours for a name elsewhere.
struct Alias {
    /// The answer so far.
    answer: Vec<u8>,
    target: Name,
    type_: u16,
}

/// Asks somebody else for what is not in our zones.
#[derive(Clone)]
pub struct Forwarder(pub Arc<Upstream>);

impl Forwarder {
    /// The whole answer about an alias, in at most `limit` bytes.
    async fn chase(&self, alias: &Alias, limit: usize) -> Vec<u8> {
        let target = hickory_proto::rr::Name::from(&alias.target);
        let chased = self.0.chase(&target, RecordType::from(alias.type_)).await;
        // What we wrote ourselves can be read.
        let Ok(mut message) = Message::from_vec(&alias.answer) else {
            return alias.answer.clone();
        };
        message.metadata.response_code = chased.code;
        message.answers.extend(chased.records);
        message.authorities = chased.authorities;
        within(message, limit).unwrap_or_else(|| alias.answer.clone())
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
