//! An answer, put together from the bytes that are kept: a pure function of one version of the names and the bytes of a
//! query, without allocation. Sections 3 to 6 of the reference on DNS are the table that this follows.

pub use crate::message::code;
use crate::message::{HEADER, OPT, OPT_LENGTH, UDP_SIZE};
use crate::name::Name;
use crate::names::Node;
use crate::query::{self, Edns, Header, Message, Question, Read};
use crate::records::{TTL, types};
use crate::set::{HEAD, QUESTION, Set};
use crate::zone::Zone;
use rand::Rng;
use smallvec::SmallVec;
use std::sync::Arc;

/// The largest UDP answer.
pub const UDP_LIMIT: usize = UDP_SIZE as usize;
/// The largest UDP answer for a client that does not say.
pub const UDP_PLAIN: usize = 512;
/// The largest message over TCP.
pub const TCP_LIMIT: usize = 65_535;
/// Up to here a pointer can point.
const LAST_POINTED: usize = 0x3FFF;
/// A chain of aliases is followed so far.
const LONGEST_CHAIN: usize = 8;

/// Types and classes of questions that no record has.
const IXFR: u16 = 251;
const AXFR: u16 = 252;
const ANY: u16 = 255;
const IN: u16 = 1;

/// Who asks, and what is granted.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Over TCP, where answers may be long.
    pub tcp: bool,
    /// Names outside the zones are asked for elsewhere.
    pub forwards: bool,
    /// The whole zone may be had.
    pub may_transfer: bool,
}

/// What to do with a query.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Nothing; the sender is no client.
    Silence,
    /// Send so many bytes.
    Answer(Written),
    /// Ask for the name elsewhere.
    Forward,
    /// The alias is written, what it stands for is elsewhere.
    Chase {
        /// The answer so far, a whole one.
        written: Written,
        /// What the alias stands for.
        target: Name,
        /// The type that was asked for.
        type_: u16,
    },
    /// Send the whole zone (AXFR), or say whether it is newer than the client's (IXFR).
    Transfer {
        /// The type's number.
        type_: u16,
    },
}

/// An answer that has been written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// How many bytes it has.
    pub length: usize,
    /// The question's type.
    pub type_: u16,
    /// The response code.
    pub code: u16,
}

/// Answer the bytes of a query into `out`, which has room for a message of [`UDP_LIMIT`] or [`TCP_LIMIT`] bytes.
pub fn answer(zone: &Zone, query: &[u8], asker: Asker, random: &mut impl Rng, out: &mut [u8]) -> Verdict {
    let message = match query::read(query) {
        Read::Nothing => return Verdict::Silence,
        Read::Garbage(header) => {
            let code = match header.opcode {
                0 => code::FORM_ERR,
                _ => code::NOT_IMP,
            };
            return Response::new(out, &header, None, None, asker).end(code);
        }
        Read::Message(message) => message,
    };
    let Message { header, edns, .. } = message;
    let mut response = Response::new(out, &header, message.question.as_ref(), edns, asker);
    if header.opcode != 0 {
        return response.end(code::NOT_IMP);
    }
    let Some(question) = &message.question else {
        return response.end(code::FORM_ERR);
    };
    if edns.is_some_and(|edns| edns.version > 0) {
        return response.end(code::BAD_VERS);
    }
    if question.class != IN {
        return response.end(code::REFUSED);
    }
    if matches!(question.type_, AXFR | IXFR) {
        let is_apex = zone.is_apex(question.name());
        let is_possible = asker.tcp || question.type_ == IXFR;
        if is_apex && is_possible && asker.may_transfer && zone.is_complete() {
            return Verdict::Transfer {
                type_: question.type_,
            };
        }
        return response.end(code::REFUSED);
    }
    // Others are asked only for who wants that.
    let forwards = asker.forwards && header.recursion_desired;
    match look_up(zone, question, &mut response, random) {
        End::Here(code) => response.end(code),
        End::Outside(None) if forwards => Verdict::Forward,
        End::Outside(None) => response.end(code::REFUSED),
        End::Outside(Some(target)) => {
            let verdict = response.end(code::NO_ERROR);
            match verdict {
                Verdict::Answer(written) if forwards => Verdict::Chase {
                    written,
                    target,
                    type_: question.type_,
                },
                verdict => verdict,
            }
        }
    }
}

/// The most bytes of the answer to a query.
pub fn limit(query: &[u8], tcp: bool) -> usize {
    match query::read(query) {
        Read::Message(message) => most(message.edns, tcp),
        _ => most(None, tcp),
    }
}

fn most(edns: Option<Edns>, tcp: bool) -> usize {
    match edns {
        _ if tcp => TCP_LIMIT,
        Some(edns) => usize::from(edns.size).clamp(UDP_PLAIN, UDP_LIMIT),
        None => UDP_PLAIN,
    }
}

/// Where looking a name up ended.
enum End {
    /// In a zone of ours, with this code.
    Here(u16),
    /// Outside of them: the name itself, or what an alias stands for.
    Outside(Option<Name>),
}

/// Write what is known: aliases, then the set that was asked for, or the SOA if there is none.
fn look_up(zone: &Zone, question: &Question<'_>, response: &mut Response<'_>, random: &mut impl Rng) -> End {
    let mut name = question.name();
    let mut owner = Place {
        at: HEADER,
        length: name.len(),
    };
    let mut seen: SmallVec<[*const Node; LONGEST_CHAIN]> = SmallVec::new();
    loop {
        let Some(node) = zone.get(name) else {
            return missing(zone, name, owner, response, seen.is_empty());
        };
        if question.type_ == types::SOA && zone.is_apex(name) {
            response.answers(1, |out| out.soa(zone, owner));
            return End::Here(code::NO_ERROR);
        }
        if let Some(set) = pick(node, question.type_) {
            let first = match set.len() {
                1 => 0,
                many => random.random_range(0..many),
            };
            let start = response.out.len;
            let whole = response.set(set, owner, first);
            if whole && matches!(set.type_(), types::SRV | types::NS) {
                response.glue(zone, start, set.type_());
            }
            return End::Here(code::NO_ERROR);
        }
        let Some(alias) = node.set(types::CNAME) else {
            if let Some(apex) = zone.apex_of(name) {
                response.authority(zone, apex, owner);
            }
            return End::Here(code::NO_ERROR);
        };
        let is_loop = seen.contains(&Arc::as_ptr(node)) || seen.len() == LONGEST_CHAIN;
        if is_loop || !response.set(alias, owner, 0) {
            return End::Here(code::NO_ERROR);
        }
        seen.push(Arc::as_ptr(node));
        name = alias.data(0);
        owner = Place {
            at: response.out.len - name.len(),
            length: name.len(),
        };
    }
}

/// The name does not exist, as far as it is ours. The code belongs to the last name of a chain (RFC 6604).
fn missing(zone: &Zone, name: &[u8], owner: Place, response: &mut Response<'_>, is_asked: bool) -> End {
    let Some(apex) = zone.apex_of(name) else {
        return End::Outside((!is_asked).then(|| Name::from_wire(name)));
    };
    if !zone.is_complete() {
        response.clear();
        return End::Here(code::SERV_FAIL);
    }
    response.authority(zone, apex, owner);
    End::Here(code::NX_DOMAIN)
}

/// The set that answers a type; ANY gets one that exists (RFC 8482, 4.1).
fn pick(node: &Node, type_: u16) -> Option<&Set> {
    match type_ {
        ANY => {
            let addresses = [types::A, types::AAAA].iter().find_map(|type_| node.set(*type_));
            addresses.or_else(|| node.sets.first())
        }
        type_ => node.set(type_),
    }
}

/// A name somewhere in the message.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    length: usize,
}

/// Bytes that are being written, up to a limit.
struct Out<'a> {
    bytes: &'a mut [u8],
    len: usize,
    limit: usize,
}

impl Out<'_> {
    /// Write if there is room; whether there was.
    #[must_use]
    fn put(&mut self, bytes: &[u8]) -> bool {
        let end = self.len + bytes.len();
        if end > self.limit {
            return false;
        }
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
        true
    }

    /// A name that is in the message already.
    #[must_use]
    fn name(&mut self, place: Place) -> bool {
        if place.at <= LAST_POINTED {
            let pointer = QUESTION & 0xC000 | u16::try_from(place.at).expect("14 bits");
            return self.put(&pointer.to_be_bytes());
        }
        let end = self.len + place.length;
        if end > self.limit {
            return false;
        }
        self.bytes
            .copy_within(place.at..place.at + place.length, self.len);
        self.len = end;
        true
    }

    /// The SOA of the zone whose apex is at `owner`. The names in it end in the cluster's apex, which is pointed to if
    /// it is in the question.
    #[must_use]
    fn soa(&mut self, zone: &Zone, owner: Place) -> bool {
        let soa = zone.soa();
        let is_origin = self.bytes[owner.at..owner.at + owner.length].eq_ignore_ascii_case(soa.origin);
        let [type_, class] = [types::SOA, IN].map(u16::to_be_bytes);
        let head = self.name(owner) && self.put(&type_) && self.put(&class);
        let mut fits = head && self.put(&TTL.to_be_bytes());
        let length = self.len;
        fits = fits && self.put(&[0, 0]);
        for name in [soa.server, soa.contact] {
            fits = fits
                && if is_origin {
                    self.put(&name[..name.len() - soa.origin.len()]) && self.name(owner)
                } else {
                    self.put(name)
                };
        }
        for number in soa.numbers {
            fits = fits && self.put(&number.to_be_bytes());
        }
        if fits {
            let data = u16::try_from(self.len - length - 2).expect("two names and five numbers");
            self.bytes[length..length + 2].copy_from_slice(&data.to_be_bytes());
        }
        fits
    }
}

/// An answer that is being written.
struct Response<'a> {
    out: Out<'a>,
    /// Where the question ends.
    body: usize,
    header: Header,
    type_: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
    truncated: bool,
    edns: Option<Edns>,
    recursion_available: bool,
}

impl<'a> Response<'a> {
    fn new(
        out: &'a mut [u8],
        header: &Header,
        question: Option<&Question<'_>>,
        edns: Option<Edns>,
        asker: Asker,
    ) -> Self {
        // The place of the OPT record is kept free.
        let limit = most(edns, asker.tcp).min(out.len()) - edns.map_or(0, |_| OPT_LENGTH);
        let mut out = Out {
            bytes: out,
            len: HEADER,
            limit,
        };
        if let Some(question) = question {
            let numbers = [question.type_, question.class].map(u16::to_be_bytes);
            let fits = out.put(question.written) && out.put(&numbers[0]) && out.put(&numbers[1]);
            debug_assert!(fits, "a question is shorter than the smallest limit");
        }
        Self {
            body: out.len,
            out,
            header: *header,
            type_: question.map_or(0, |question| question.type_),
            questions: u16::from(question.is_some()),
            answers: 0,
            authorities: 0,
            additionals: 0,
            truncated: false,
            edns,
            recursion_available: asker.forwards,
        }
    }

    /// Leave out everything behind the question.
    fn clear(&mut self) {
        self.out.len = self.body;
        (self.answers, self.authorities, self.additionals) = (0, 0, 0);
    }

    /// Write a record of the answer section, or say that it is missing.
    fn answers(&mut self, count: u16, write: impl FnOnce(&mut Out<'_>) -> bool) {
        let start = self.out.len;
        if write(&mut self.out) {
            self.answers += count;
        } else {
            self.out.len = start;
            self.truncated = true;
        }
    }

    /// Write the records of a set that fit, beginning with the one at `first`; whether they all do.
    fn set(&mut self, set: &Set, owner: Place, first: usize) -> bool {
        let (written, whole) = self.records(set, owner, first);
        self.answers += written;
        self.truncated = !whole;
        whole
    }

    /// Write records until they are all written or the next one does not fit.
    fn records(&mut self, set: &Set, owner: Place, first: usize) -> (u16, bool) {
        let out = &mut self.out;
        let mut written = 0;
        for run in set.runs(first) {
            if owner.at == HEADER {
                let (count, bytes) = run.fitting(out.limit - out.len);
                let fits = out.put(&run.bytes[..bytes]);
                debug_assert!(fits, "as much as fits");
                written += u16::try_from(count).expect("64 at most");
                if count < run.count() {
                    return (written, false);
                }
                continue;
            }
            for record in run.records() {
                let start = out.len;
                if !(out.name(owner) && out.put(&record[2..])) {
                    out.len = start;
                    return (written, false);
                }
                written += 1;
            }
        }
        (written, true)
    }

    /// The SOA of a negative answer (RFC 2308) about the name at `place`, which ends in the apex.
    fn authority(&mut self, zone: &Zone, apex: &Name, place: Place) {
        let length = apex.as_wire().len();
        let at = place.at + place.length - length;
        let start = self.out.len;
        if self.out.soa(zone, Place { at, length }) {
            self.authorities = 1;
        } else {
            self.out.len = start;
            self.truncated = true;
        }
    }

    /// The addresses of everything that the records behind `start` point to: all of them or none (RFC 2181, 9).
    fn glue(&mut self, zone: &Zone, start: usize, type_: u16) {
        let end = self.out.len;
        let before_target = match type_ {
            types::SRV => HEAD + 6,
            _ => HEAD,
        };
        let mut seen = Seen::default();
        let mut record = start;
        while record < end {
            let length = [
                self.out.bytes[record + HEAD - 2],
                self.out.bytes[record + HEAD - 1],
            ];
            let next = record + HEAD + usize::from(u16::from_be_bytes(length));
            let target = record + before_target..next;
            record = next;
            let Some(node) = zone.get(&self.out.bytes[target.clone()]) else {
                continue;
            };
            if !seen.is_new(node) {
                continue;
            }
            let owner = Place {
                at: target.start,
                length: target.len(),
            };
            for set in [types::A, types::AAAA]
                .iter()
                .filter_map(|type_| node.set(*type_))
            {
                let (written, whole) = self.records(set, owner, 0);
                self.additionals += written;
                if !whole {
                    self.out.len = end;
                    self.additionals = 0;
                    return;
                }
            }
        }
    }

    /// Write what is left, header and OPT record.
    fn end(mut self, code: u16) -> Verdict {
        let Header {
            id,
            opcode,
            recursion_desired,
        } = self.header;
        // Not the authority for what is refused or not understood.
        let authoritative = matches!(code, code::NO_ERROR | code::NX_DOMAIN);
        let flag = |set: bool, bit: u8| u8::from(set) << bit;
        self.out.bytes[..2].copy_from_slice(&id);
        self.out.bytes[2] = 0x80
            | opcode << 3
            | flag(authoritative, 2)
            | flag(self.truncated, 1)
            | flag(recursion_desired, 0);
        let [high, low] = code.to_be_bytes();
        self.out.bytes[3] = flag(self.recursion_available, 7) | low & 15;
        if let Some(edns) = self.edns {
            let [type_, size] = [OPT, UDP_SIZE].map(u16::to_be_bytes);
            let extended = high << 4 | low >> 4;
            let dnssec_ok = flag(edns.dnssec_ok, 7);
            self.out.limit += OPT_LENGTH;
            let opt = [
                0, type_[0], type_[1], size[0], size[1], extended, 0, dnssec_ok, 0, 0, 0,
            ];
            let fits = self.out.put(&opt);
            debug_assert!(fits, "its place was kept free");
            self.additionals += 1;
        }
        let counts = [self.questions, self.answers, self.authorities, self.additionals];
        for (place, count) in self.out.bytes[4..HEADER].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        Verdict::Answer(Written {
            length: self.out.len,
            type_: self.type_,
            code,
        })
    }
}

/// Nodes that have been met.
#[derive(Default)]
struct Seen {
    few: SmallVec<[*const Node; 32]>,
    many: std::collections::HashSet<*const Node>,
}

impl Seen {
    fn is_new(&mut self, node: &Arc<Node>) -> bool {
        let node = Arc::as_ptr(node);
        if self.few.len() < self.few.inline_size() {
            let is_new = !self.few.contains(&node);
            if is_new {
                self.few.push(node);
            }
            return is_new;
        }
        !self.few.contains(&node) && self.many.insert(node)
    }
}
