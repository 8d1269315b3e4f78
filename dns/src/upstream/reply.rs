//! What an upstream said about a question, and the answers that are made of it: the same records with the time that is
//! left to them, under the asker's own header and question.

use super::wire::{self, Outline, Place};
use crate::message::{HEADER, OPT_LENGTH, code, u32_at};
use crate::records::types;
use std::time::Duration;

/// Nothing is believed for longer, however long it says it is true: hosts change their minds.
const LONGEST: u32 = 3600;
/// RFC 9520, 3.2: that nobody answers is remembered, too, or every asker would have to wait for it.
const FAILURE: Duration = Duration::from_secs(1);

/// A reply to one question, whoever asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    /// A whole message; its header and question are not used, but records refer to the question's name.
    message: Vec<u8>,
    places: Vec<Place>,
    truncated: bool,
    /// How long it may be kept.
    pub ttl: Duration,
}

impl Reply {
    /// Nobody could say.
    pub fn failure() -> Self {
        Self {
            ttl: FAILURE,
            ..Self::bare(code::SERV_FAIL)
        }
    }

    /// Nobody is asked.
    pub fn refused() -> Self {
        Self::bare(code::REFUSED)
    }

    fn bare(code: u16) -> Self {
        Self {
            code,
            message: Vec::new(),
            places: Vec::new(),
            truncated: false,
            ttl: Duration::ZERO,
        }
    }

    /// What a server's message says; `None` if it does not answer the question but tells of a failure.
    pub fn new(message: Vec<u8>, outline: Outline) -> Option<Self> {
        let code = outline.code();
        if code != code::NO_ERROR && code != code::NX_DOMAIN {
            return None;
        }
        let truncated = outline.flags & wire::TRUNCATED != 0;
        let ttl = if truncated {
            0
        } else {
            ttl(&message, &outline.records)
        };
        Some(Self {
            code,
            truncated,
            ttl: Duration::from_secs(ttl.into()),
            message,
            places: outline.records,
        })
    }

    /// Whether the server could not say everything.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// How much room it takes, about.
    pub fn size(&self) -> usize {
        self.message.len() + self.places.len() * size_of::<Place>() + 100
    }

    /// The answer to `query` (whose question this is the reply to), `age` after the reply came, in `limit` bytes: what
    /// does not fit is left out, additional records silently, the others with the truncation bit.
    pub fn answer(&self, query: &[u8], outline: &Outline, age: Duration, limit: usize) -> Vec<u8> {
        let opt = if outline.opt.is_some() { OPT_LENGTH } else { 0 };
        let question_end = outline.question_end();
        let end_of = |section: u8| {
            let last = self.places.iter().rfind(|place| place.section <= section);
            last.map_or(question_end, |place| place.end)
        };
        let fits = |end: usize| end + opt <= limit;
        let (end, cut) = if fits(end_of(3)) {
            (end_of(3), false)
        } else if fits(end_of(2)) {
            (end_of(2), false)
        } else {
            let answers = self.places.iter().filter(|place| place.section == 1);
            let last = answers.map(|place| place.end).rfind(|end| fits(*end));
            (last.unwrap_or(question_end), true)
        };

        let mut answer = Vec::with_capacity(end + opt);
        answer.extend_from_slice(&query[..question_end]);
        answer.extend_from_slice(self.message.get(question_end..end).unwrap_or_default());
        let mut counts = [0u16; 4];
        for place in self.places.iter().filter(|place| place.end <= end) {
            counts[usize::from(place.section)] += 1;
            decrease(&mut answer, place.ttl_at, age);
        }
        if let Some(theirs) = outline.opt {
            counts[3] += 1;
            wire::push_opt(&mut answer, theirs.dnssec_ok());
        }
        let mut flags = wire::RESPONSE | wire::RECURSION_AVAILABLE | self.code;
        flags |= outline.flags & wire::RECURSION_DESIRED;
        if cut || self.truncated {
            flags |= wire::TRUNCATED;
        }
        counts[0] = 1;
        wire::put(&mut answer, 2, flags);
        for (n, count) in counts.into_iter().enumerate() {
            wire::put(&mut answer, 4 + 2 * n, count);
        }
        answer
    }
}

/// How long a message may be kept, in seconds: positive answers as long as their shortest TTL, negative ones as their SOA says
/// (RFC 2308, 5), without one not at all.
fn ttl(message: &[u8], places: &[Place]) -> u32 {
    let own = |place: &Place| number(message, place.ttl_at);
    let answers = places.iter().filter(|place| place.section == 1);
    let positive = answers.clone().map(own).min();
    // A chain of aliases that ends in nothing has an SOA, too.
    let authority = places
        .iter()
        .find(|place| place.section == 2 && place.type_ == types::SOA);
    let negative = authority.map(|soa| {
        let minimum = number(message, soa.end.saturating_sub(4).max(soa.data_at));
        own(soa).min(minimum)
    });
    positive
        .into_iter()
        .chain(negative)
        .min()
        .unwrap_or(0)
        .min(LONGEST)
}

/// A TTL; one that has the highest bit set counts as 0 (RFC 2181, 8).
fn number(message: &[u8], at: usize) -> u32 {
    let value = u32_at(message, at).unwrap_or_default();
    if value > i32::MAX as u32 { 0 } else { value }
}

fn decrease(message: &mut [u8], at: usize, age: Duration) {
    let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    let left = number(message, at).saturating_sub(age);
    message[at..at + 4].copy_from_slice(&left.to_be_bytes());
}

/// A query to a server for what `query` asks, recursion desired, with an OPT record if `edns`.
pub fn question(query: &[u8], outline: &Outline, id: u16, edns: bool) -> Vec<u8> {
    let mut ours = query[..outline.question_end()].to_vec();
    ours[outline.name.clone()].make_ascii_lowercase();
    wire::put(&mut ours, 0, id);
    wire::put(&mut ours, 2, wire::RECURSION_DESIRED);
    for (n, count) in [1, 0, 0, u16::from(edns)].into_iter().enumerate() {
        wire::put(&mut ours, 4 + 2 * n, count);
    }
    debug_assert!(ours.len() > HEADER);
    if edns {
        wire::push_opt(&mut ours, outline.opt.is_some_and(|opt| opt.dnssec_ok()));
    }
    ours
}
