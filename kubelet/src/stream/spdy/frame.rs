//! Frames of SPDY/3.1: pure, from and to bytes.

use super::Broken;
use bytes::{BufMut, BytesMut};

/// The bytes before every frame's own.
pub const HEAD: usize = 8;
/// The longest control frame that is taken. What data frames carry is read in parts, however long they are.
pub const CONTROL: usize = 64 << 10;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It is not wanted.
    Refused = 3,
    /// It is given up.
    Cancel = 5,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// This many bytes for a stream.
    Data {
        /// Its number.
        stream: u32,
        /// Nothing comes after it.
        fin: bool,
        /// How many.
        length: usize,
    },
    /// Something about the connection or a stream.
    Control {
        /// What.
        kind: u16,
        /// Flags.
        flags: u8,
        /// The length of what follows.
        length: usize,
    },
}

/// Read it.
pub fn head(bytes: [u8; HEAD]) -> Result<Head, Broken> {
    let [a, b, c, d, flags, lengths @ ..] = bytes;
    let length = lengths
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if a & 0x80 == 0 {
        return Ok(Head::Data {
            stream: u32::from_be_bytes([a, b, c, d]),
            fin: flags & FIN != 0,
            length,
        });
    }
    if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
        return Err(Broken("it speaks another version of SPDY"));
    }
    if length > CONTROL {
        return Err(Broken("its frame is too long"));
    }
    let kind = u16::from_be_bytes([c, d]);
    Ok(Head::Control { kind, flags, length })
}

/// What a client says besides data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// A new stream, its headers still packed.
    Open {
        /// Its number.
        stream: u32,
        /// The client is not going to say anything on it.
        fin: bool,
        /// Packed headers.
        block: &'a [u8],
    },
    /// More headers of a stream, still packed: what they say does not matter here, but the next ones build on them.
    Headers {
        /// Its number.
        stream: u32,
        /// Nothing comes after it.
        fin: bool,
        /// Packed headers.
        block: &'a [u8],
    },
    /// A stream is given up.
    Reset(u32),
    /// To be sent back as it is.
    Ping(u32),
    /// Settings, window updates, the announcement that it leaves: nothing has to be done about it.
    Other,
}

/// Read a control frame.
pub fn control(kind: u16, flags: u8, payload: &[u8]) -> Result<Control<'_>, Broken> {
    const SHORT: Broken = Broken("its frame is too short");
    let number = |at: usize| -> Result<u32, Broken> {
        let bytes = payload.get(at..).and_then(<[u8]>::first_chunk).ok_or(SHORT)?;
        Ok(u32::from_be_bytes(*bytes))
    };
    let stream = || number(0).map(|number| number & 0x7fff_ffff);
    let rest = |at: usize| payload.get(at..).ok_or(SHORT);
    let fin = flags & FIN != 0;
    Ok(match kind {
        SYN_STREAM => Control::Open {
            stream: stream()?,
            fin,
            block: rest(10)?,
        },
        SYN_REPLY | HEADERS => Control::Headers {
            stream: stream()?,
            fin,
            block: rest(4)?,
        },
        RST_STREAM => Control::Reset(stream()?),
        PING => Control::Ping(number(0)?),
        _ => Control::Other,
    })
}

fn put_control(out: &mut BytesMut, kind: u16, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::try_from(length).expect("control frames are short"));
    payload.iter().for_each(|part| out.put_slice(part));
}

/// SYN_REPLY
pub fn put_reply(out: &mut BytesMut, stream: u32, block: &[u8]) {
    put_control(out, SYN_REPLY, &[&stream.to_be_bytes(), block]);
}

/// RST_STREAM
pub fn put_reset(out: &mut BytesMut, stream: u32, why: Reset) {
    put_control(
        out,
        RST_STREAM,
        &[&stream.to_be_bytes(), &(why as u32).to_be_bytes()],
    );
}

/// PING
pub fn put_ping(out: &mut BytesMut, id: u32) {
    put_control(out, PING, &[&id.to_be_bytes()]);
}

/// GOAWAY, in order
pub fn put_go_away(out: &mut BytesMut, last_stream: u32) {
    put_control(out, GOAWAY, &[&last_stream.to_be_bytes(), &0_u32.to_be_bytes()]);
}

/// WINDOW_UPDATE; stream 0 is the whole connection.
pub fn put_window(out: &mut BytesMut, stream: u32, more: u32) {
    put_control(out, WINDOW_UPDATE, &[&stream.to_be_bytes(), &more.to_be_bytes()]);
}

/// The head of a DATA frame; the bytes follow.
pub fn put_data(out: &mut BytesMut, stream: u32, fin: bool, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("chunks are short");
    out.put_u32(stream);
    out.put_u32(u32::from(fin) << 24 | length);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_as_the_specification_draws_them() {
        let mut out = BytesMut::new();
        put_data(&mut out, 5, true, b"abc");
        assert_eq!(out[..], [0, 0, 0, 5, 1, 0, 0, 3, b'a', b'b', b'c']);
        out.clear();
        put_reset(&mut out, 7, Reset::Refused);
        assert_eq!(out[..], [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 3]);
        let head = head(out[..HEAD].try_into().expect("a head")).expect("a frame");
        assert_eq!(
            head,
            Head::Control {
                kind: 3,
                flags: 0,
                length: 8
            }
        );
        assert_eq!(control(3, 0, &out[HEAD..]), Ok(Control::Reset(7)));
    }

    #[test]
    fn another_version_and_a_long_frame_are_refused() {
        assert!(head([0x80, 2, 0, 1, 0, 0, 0, 0]).is_err());
        assert!(head([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).is_err());
        assert!(head([0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).is_ok());
        assert!(control(SYN_STREAM, 0, &[0; 9]).is_err());
    }

    proptest! {
        #[test]
        fn no_frame_is_too_strange(start in any::<[u8; HEAD]>(), kind in 0_u16..12, flags: u8, payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = head(start);
            let _ = control(kind, flags, &payload);
        }
    }
}
