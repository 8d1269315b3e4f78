//! The outside of DNS messages: where the question and the records are. What records say is left as it is, so that every
//! type passes through, known or not.

use crate::message::{HEADER, OPT, UDP_SIZE, name_end, plain_name_end, u16_at, u32_at};

/// Bits of the header's second pair of bytes.
pub const RESPONSE: u16 = 0x8000;
/// The answer is cut short.
pub const TRUNCATED: u16 = 0x0200;
/// Recursion is wished for.
pub const RECURSION_DESIRED: u16 = 0x0100;
/// Recursion is to be had.
pub const RECURSION_AVAILABLE: u16 = 0x0080;
/// The bit of an OPT record's TTL that asks for DNSSEC's records.
const DNSSEC_OK: u32 = 0x8000;

/// A record's place in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 1 answers, 2 authorities, 3 additionals.
    pub section: u8,
    /// The type.
    pub type_: u16,
    /// Where its four bytes of TTL are.
    pub ttl_at: usize,
    /// Where its data is.
    pub data_at: usize,
    /// Where it ends.
    pub end: usize,
}

/// An OPT record: extended code, version and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    ttl: u32,
}

impl Opt {
    /// Whether DNSSEC's records are wished for.
    pub fn dnssec_ok(self) -> bool {
        self.ttl & DNSSEC_OK != 0
    }

    /// The upper eight bits of the response code.
    fn code(self) -> u16 {
        (self.ttl >> 24) as u16
    }
}

/// What there is in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The header's first two bytes.
    pub id: u16,
    /// The header's second two bytes.
    pub flags: u16,
    /// The one question, as it is written, without type and class.
    pub name: std::ops::Range<usize>,
    /// Its type.
    pub type_: u16,
    /// Its class.
    pub class: u16,
    /// Records up to the OPT record, which is not among them; what comes after that one is left out, because names in
    /// it may be written as a reference to something behind the gap.
    pub records: Vec<Place>,
    /// The OPT record.
    pub opt: Option<Opt>,
}

impl Outline {
    /// The response code, extended by the OPT record.
    pub fn code(&self) -> u16 {
        (self.flags & 0xf) | self.opt.map_or(0, Opt::code) << 4
    }

    /// Where the question ends.
    pub fn question_end(&self) -> usize {
        self.name.end + 4
    }

    /// `None`: it is no message with one question whose records can be told apart.
    pub fn of(message: &[u8]) -> Option<Self> {
        let word = |at: usize| u16_at(message, at);
        let [questions, answers, authorities, additionals] = [word(4)?, word(6)?, word(8)?, word(10)?];
        if questions != 1 {
            return None;
        }
        let question = plain_name_end(message, HEADER)?;
        let mut outline = Self {
            id: word(0)?,
            flags: word(2)?,
            name: HEADER..question,
            type_: word(question)?,
            class: word(question + 2)?,
            records: Vec::new(),
            opt: None,
        };
        let mut at = outline.question_end();
        for (section, count) in [(1, answers), (2, authorities), (3, additionals)] {
            for _ in 0..count {
                let fixed = name_end(message, at)?.at;
                let type_ = word(fixed)?;
                let (ttl_at, data_at) = (fixed + 4, fixed + 10);
                let end = data_at + usize::from(word(fixed + 8)?);
                if end > message.len() {
                    return None;
                }
                if type_ == OPT {
                    outline.opt = Some(Opt {
                        ttl: u32_at(message, ttl_at)?,
                    });
                } else if outline.opt.is_none() {
                    outline.records.push(Place {
                        section,
                        type_,
                        ttl_at,
                        data_at,
                        end,
                    });
                }
                at = end;
            }
        }
        Some(outline)
    }
}

/// Append an OPT record of ours.
pub fn push_opt(message: &mut Vec<u8>, dnssec_ok: bool) {
    message.push(0);
    message.extend(OPT.to_be_bytes());
    message.extend(UDP_SIZE.to_be_bytes());
    message.extend(if dnssec_ok { DNSSEC_OK } else { 0 }.to_be_bytes());
    message.extend([0, 0]);
}

/// Write a number over two bytes of the header, or of a record.
pub fn put(message: &mut [u8], at: usize, value: u16) {
    message[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
