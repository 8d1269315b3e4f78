//! What everybody here who reads or writes the bytes of a message has in common (RFC 1035, 4; RFC 6891).

use crate::name::LONGEST;

/// The bytes of a message's header.
pub const HEADER: usize = 12;
/// The type of OPT records.
pub const OPT: u16 = 41;
/// The bytes of an OPT record without options.
pub const OPT_LENGTH: usize = 11;
/// The largest datagram that we send, whatever the client would take, and that we say we take: it passes every network
/// unfragmented.
pub const UDP_SIZE: u16 = 1232;

/// The two highest bits of a label's length: a pointer to an earlier name, or nothing that is defined.
const POINTER: u8 = 0xC0;

/// Response codes (RFC 1035, 4.1.1; RFC 6891, 9).
pub mod code {
    /// There is an answer, or the name exists.
    pub const NO_ERROR: u16 = 0;
    /// The message cannot be read.
    pub const FORM_ERR: u16 = 1;
    /// The server cannot say.
    pub const SERV_FAIL: u16 = 2;
    /// The name does not exist.
    pub const NX_DOMAIN: u16 = 3;
    /// The operation is not served.
    pub const NOT_IMP: u16 = 4;
    /// The question is not answered here.
    pub const REFUSED: u16 = 5;
    /// The version of EDNS is not served.
    pub const BAD_VERS: u16 = 16;
}

/// Where a name ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEnd {
    /// The place behind its last byte.
    pub at: usize,
    /// Whether it is written out, without a pointer.
    pub is_plain: bool,
}

/// Where the name ends that begins at `start`; `None` if there is no name. A pointer has to lead to what is before the
/// name, or it would not end.
pub fn name_end(message: &[u8], start: usize) -> Option<NameEnd> {
    let mut at = start;
    loop {
        let length = *message.get(at)?;
        if length & POINTER == POINTER {
            let low = *message.get(at + 1)?;
            let target = usize::from(u16::from_be_bytes([length & !POINTER, low]));
            let (at, is_plain) = (at + 2, false);
            return (HEADER..start)
                .contains(&target)
                .then_some(NameEnd { at, is_plain });
        }
        at += 1 + usize::from(length);
        if length & POINTER != 0 || at > message.len() || at - start > LONGEST {
            return None;
        }
        if length == 0 {
            return Some(NameEnd { at, is_plain: true });
        }
    }
}

/// Where the name ends that begins at `start`, if it is written out, as the one of a question is.
pub fn plain_name_end(message: &[u8], start: usize) -> Option<usize> {
    name_end(message, start)
        .filter(|end| end.is_plain)
        .map(|end| end.at)
}

/// The number in the two bytes at a place.
pub fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// The number in the four bytes at a place.
pub fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_with_the_root_or_with_a_pointer_to_what_is_before_it() {
        let header = [0; HEADER];
        let end = |name: &[u8]| name_end(&[&header[..], b"\x01a\0", name].concat(), HEADER + 3);
        let found = |at, is_plain| {
            Some(NameEnd {
                at: HEADER + 3 + at,
                is_plain,
            })
        };
        assert_eq!(end(b"\x01b\x02cd\0more"), found(6, true));
        assert_eq!(end(b"\0"), found(1, true));
        assert_eq!(end(b"\x01b\xC0\x0C"), found(4, false));
        // Into the header, to itself, onwards, cut off, and with lengths that mean nothing.
        for wrong in [
            &b"\xC0\x0B"[..],
            b"\xC0\x0F",
            b"\xC0\x20",
            b"\xC0",
            b"\x05abc",
            b"\x40",
            b"",
        ] {
            assert_eq!(end(wrong), None, "{wrong:?}");
        }
        let labels = |last: u8| {
            [
                [&[63][..], &[b'x'; 63]].concat().repeat(3),
                vec![last],
                vec![b'x'; last.into()],
                vec![0],
            ]
            .concat()
        };
        assert_eq!(end(&labels(61)), found(LONGEST, true));
        assert_eq!(end(&labels(62)), None);
    }
}
