//! Reading a query from the bytes of a message (RFC 1035, 4; RFC 6891, 6), without allocation. Whatever the bytes are,
//! reading them ends and touches none beyond them.

use crate::message::{HEADER, OPT, name_end, plain_name_end, u16_at};
use crate::name::LONGEST;

const RESPONSE: u8 = 0x80;

/// What a message turned out to be.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is on the stack for a moment; a box would be an allocation for each query"
)]
pub enum Read<'a> {
    /// Not to be answered: too short for a header, or itself a response.
    Nothing,
    /// A header, and behind it what cannot be read.
    Garbage(Header),
    /// A whole message.
    Message(Message<'a>),
}

/// What an answer copies from the header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The identifier.
    pub id: [u8; 2],
    /// The kind of request; 0 is a query.
    pub opcode: u8,
    /// Whether recursion is desired.
    pub recursion_desired: bool,
}

/// A whole message.
#[derive(Debug)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The question, if there is exactly one.
    pub question: Option<Question<'a>>,
    /// What the client says about itself (EDNS).
    pub edns: Option<Edns>,
}

/// A question.
#[derive(Debug)]
pub struct Question<'a> {
    /// The name as it was written.
    pub written: &'a [u8],
    lower: [u8; LONGEST],
    /// The type's number.
    pub type_: u16,
    /// The class's number; 1 is IN.
    pub class: u16,
}

impl Question<'_> {
    /// The name in lower case.
    pub fn name(&self) -> &[u8] {
        &self.lower[..self.written.len()]
    }
}

/// What an OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest datagram that the client takes.
    pub size: u16,
    /// The version; 0 is the only one.
    pub version: u8,
    /// Whether DNSSEC records are wanted (RFC 3225).
    pub dnssec_ok: bool,
}

/// Read a message.
pub fn read(bytes: &[u8]) -> Read<'_> {
    let Some(header) = bytes.get(..HEADER).filter(|header| header[2] & RESPONSE == 0) else {
        return Read::Nothing;
    };
    let count = |n: usize| u16::from_be_bytes([header[4 + 2 * n], header[5 + 2 * n]]);
    let header = Header {
        id: [header[0], header[1]],
        opcode: header[2] >> 3 & 15,
        recursion_desired: header[2] & 1 != 0,
    };
    let counts = [0, 1, 2, 3].map(count);
    let mut reader = Reader { bytes, at: HEADER };
    match reader.body(counts) {
        Some((question, edns)) => Read::Message(Message {
            header,
            question,
            edns,
        }),
        None => Read::Garbage(header),
    }
}

/// What is behind the place up to which a message is read. Every step is `None` where the bytes are none of what they
/// should be.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn body(&mut self, counts: [u16; 4]) -> Option<(Option<Question<'a>>, Option<Edns>)> {
        let [questions, answers, authorities, additionals] = counts;
        let mut question = None;
        for n in 0..questions {
            let asked = self.question()?;
            question = (n == 0 && questions == 1).then_some(asked);
        }
        let mut edns = None;
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            if self.record()?.is_some() {
                return None;
            }
        }
        for _ in 0..additionals {
            let found = self.record()?;
            if found.is_some() && edns.is_some() {
                return None;
            }
            edns = edns.or(found);
        }
        (self.at == self.bytes.len()).then_some((question, edns))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at + length)?;
        self.at += length;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let number = u16_at(self.bytes, self.at)?;
        self.at += 2;
        Some(number)
    }

    /// There is nothing before the first question that a pointer could point to, and later ones are not answered.
    fn question(&mut self) -> Option<Question<'a>> {
        let end = plain_name_end(self.bytes, self.at)?;
        let written = self.take(end - self.at)?;
        let mut lower = [0; LONGEST];
        lower[..written.len()].copy_from_slice(written);
        // The length of a label is below 64, where there are no letters.
        lower[..written.len()].make_ascii_lowercase();
        Some(Question {
            written,
            lower,
            type_: self.number()?,
            class: self.number()?,
        })
    }

    /// Step over a record; what it says if it is an OPT record.
    fn record(&mut self) -> Option<Option<Edns>> {
        let start = self.at;
        self.at = name_end(self.bytes, start)?.at;
        let is_root = self.at == start + 1;
        let (type_, class) = (self.number()?, self.number()?);
        let ttl = self.take(4)?;
        let length = self.number()?;
        let data = self.take(length.into())?;
        if type_ != OPT {
            return Some(None);
        }
        let is_right = is_root && options_are_whole(data);
        is_right.then_some(Some(Edns {
            size: class,
            version: ttl[1],
            dnssec_ok: ttl[2] & 0x80 != 0,
        }))
    }
}

/// Options are numbers, lengths and so many bytes; which ones there are does not matter.
fn options_are_whole(mut data: &[u8]) -> bool {
    while let [_, _, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match rest.get(length..) {
            Some(rest) => data = rest,
            None => return false,
        }
    }
    data.is_empty()
}
