//! Names that are not the cluster's: asked of other servers, for whoever is allowed to.
//!
//! What a server says is passed on as it is, whatever the name and the type: only header, question, OPT record and TTLs
//! are ours. That is why hickory's resolver is not used here. It answers some names itself (`localhost`, `.onion`) and
//! makes answers anew from the records that it has looked for.

mod cache;
mod exchange;
mod host;
mod reply;
mod servers;
#[cfg(test)]
mod tests;
mod wire;

pub use servers::Servers;

use cache::{Cache, Key};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use host::Nameservers;
use reply::Reply;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wire::Outline;

/// How many may wait for an answer at once. Whoever comes then is told at once that there is none.
const WAITING: usize = 512;

/// Types that are no data but ask for something else: transfers, mailboxes of old, any, and what belongs to a single
/// message or connection (RFC 6895, 3.1).
const NOT_DATA: [std::ops::RangeInclusive<u16>; 3] = [0..=0, 41..=41, 128..=255];

/// Servers to which questions are passed on, and what they have said.
pub struct Upstream {
    from: From,
    /// Our own addresses, which would ask us again.
    ours: Vec<SocketAddr>,
    cache: Cache,
    /// Questions that are being asked, so that each is asked once, however many wait for the answer.
    asked: Mutex<HashMap<Key, Asked>>,
    waiting: Semaphore,
    /// The server that has replied last: a dead one is not waited for again and again.
    last: Mutex<Option<SocketAddr>>,
}

type Asked = WeakShared<BoxFuture<'static, Arc<Reply>>>;

enum From {
    Host(Nameservers),
    Addresses(Vec<SocketAddr>),
}

/// What is at the end of an alias that leads out of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Chased {
    /// The code of the last name (RFC 6604).
    pub code: ResponseCode,
    /// Aliases, then the set.
    pub records: Vec<Record>,
    /// The SOA of a negative answer.
    pub authorities: Vec<Record>,
}

impl Upstream {
    /// Pass questions on to `servers`, but never to `ours`, the addresses that we answer at ourselves.
    pub fn new(servers: Servers, ours: &[SocketAddr]) -> Result<Arc<Self>, String> {
        let from = match servers {
            Servers::Host => From::Host(Nameservers::new("/etc/resolv.conf")),
            Servers::Addresses(addresses) => {
                if let Some(own) = addresses.iter().find(|address| is_ours(**address, ours)) {
                    return Err(format!(
                        "{own} cannot be asked for names outside the cluster: that is this DNS server itself"
                    ));
                }
                From::Addresses(addresses)
            }
        };
        Ok(Self::from(from, ours))
    }

    fn from(from: From, ours: &[SocketAddr]) -> Arc<Self> {
        Arc::new(Self {
            from,
            ours: ours.to_vec(),
            cache: Cache::default(),
            asked: Mutex::default(),
            waiting: Semaphore::new(WAITING),
            last: Mutex::default(),
        })
    }

    /// The whole answer to a well-formed query with one question of class IN, in at most `limit` bytes.
    pub async fn answer(self: &Arc<Self>, query: &[u8], limit: usize) -> Vec<u8> {
        let Some(outline) = Outline::of(query) else {
            // The caller has promised that this cannot be.
            return Vec::new();
        };
        let is_data = !NOT_DATA.iter().any(|types| types.contains(&outline.type_));
        let may_ask = outline.flags & wire::RECURSION_DESIRED != 0;
        let (reply, age) = if is_data && may_ask {
            self.look_up(query, &outline).await
        } else {
            (Arc::new(Reply::refused()), Duration::ZERO)
        };
        reply.answer(query, &outline, age, limit)
    }

    /// What there is at the name that an alias of ours leads to.
    pub async fn chase(self: &Arc<Self>, target: &Name, type_: RecordType) -> Chased {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(target.clone(), type_));
        let answer = match query.to_bytes() {
            Ok(query) => self.answer(&query, usize::from(u16::MAX)).await,
            Err(_) => Vec::new(),
        };
        match Message::from_vec(&answer) {
            Ok(message) => Chased {
                code: message.metadata.response_code,
                records: message.answers,
                authorities: message.authorities,
            },
            Err(_) => Chased {
                code: ResponseCode::ServFail,
                records: Vec::new(),
                authorities: Vec::new(),
            },
        }
    }

    /// What is known, or what the servers say now.
    async fn look_up(self: &Arc<Self>, query: &[u8], outline: &Outline) -> (Arc<Reply>, Duration) {
        let question = query[outline.name.start..outline.question_end()].to_ascii_lowercase();
        let key = (question, outline.opt.is_some_and(wire::Opt::dnssec_ok));
        if let Some(known) = self.cache.get(&key, Instant::now()) {
            return known;
        }
        let reply = match self.waiting.try_acquire() {
            Ok(_waits) => self.asking(key, query, outline).await,
            Err(_) => Arc::new(Reply::failure()),
        };
        (reply, Duration::ZERO)
    }

    /// The question being asked, by us or already by somebody else.
    fn asking(
        self: &Arc<Self>,
        key: Key,
        query: &[u8],
        outline: &Outline,
    ) -> Shared<BoxFuture<'static, Arc<Reply>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asking) = asked.get(&key).and_then(WeakShared::upgrade) {
            return asking;
        }
        if asked.len() >= WAITING {
            asked.retain(|_, asking| asking.upgrade().is_some());
        }
        let (this, query, outline, its_key) = (self.clone(), query.to_vec(), outline.clone(), key.clone());
        let asking = async move {
            let reply = Arc::new(this.ask(&query, &outline).await);
            this.cache.put(its_key.clone(), reply.clone(), Instant::now());
            this.asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&its_key);
            reply
        };
        let asking = asking.boxed().shared();
        asked.extend(asking.downgrade().map(|weak| (key, weak)));
        asking
    }

    async fn ask(&self, query: &[u8], outline: &Outline) -> Reply {
        let servers = self.servers();
        let Some((reply, server)) = exchange::ask(&servers, query, outline).await else {
            return Reply::failure();
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        reply
    }

    /// Whom to ask, in order.
    fn servers(&self) -> Vec<SocketAddr> {
        let mut servers = match &self.from {
            From::Addresses(addresses) => addresses.clone(),
            From::Host(nameservers) => {
                let (mut servers, is_new) = nameservers.current(Instant::now());
                servers.retain(|server| !is_ours(*server, &self.ours));
                if servers.is_empty() && is_new {
                    tracing::warn!(
                        "/etc/resolv.conf names no DNS server but this one: names outside the cluster are not answered"
                    );
                }
                servers
            }
        };
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = servers.iter().position(|server| Some(*server) == last) {
            servers.rotate_left(first);
        }
        servers
    }
}

/// Whether a question that is sent there comes to us. On all addresses means on those of this machine.
fn is_ours(server: SocketAddr, ours: &[SocketAddr]) -> bool {
    let server_ip = server.ip().to_canonical();
    ours.iter().any(|own| {
        let everywhere = own.ip().is_unspecified() && server_ip.is_loopback();
        own.port() == server.port() && (own.ip().to_canonical() == server_ip || everywhere)
    })
}
