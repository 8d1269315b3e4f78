//! Header blocks of SPDY/3.1: names and values, compressed in one zlib stream for each direction of a connection, which
//! begins with a dictionary that both sides know.

use super::Broken;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::LazyLock;

/// Names and values.
pub type Headers = Vec<(String, String)>;

/// The most that a block may hold.
const LIMIT: usize = 64 << 10;

/// The words that the dictionary begins with, each after its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// And what follows them.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// SPDY/3's dictionary (section 2.6.10.1 of its specification).
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split_whitespace() {
        put(&mut dictionary, &word.replace('_', " "));
    }
    dictionary.extend_from_slice(REST.as_bytes());
    dictionary
});

fn put(block: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or_default();
    block.extend_from_slice(&length.to_be_bytes());
    block.extend_from_slice(text.as_bytes());
}

/// Makes blocks.
pub struct Packer(Compress);

impl Packer {
    /// At a connection's beginning.
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&DICTIONARY)
            .expect("nothing is compressed yet");
        Self(compress)
    }

    /// The next block.
    pub fn pack(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut plain = Vec::new();
        let count = u32::try_from(headers.len()).unwrap_or_default();
        plain.extend_from_slice(&count.to_be_bytes());
        for (name, value) in headers {
            put(&mut plain, name);
            put(&mut plain, value);
        }
        let mut packed = Vec::new();
        let mut at = 0;
        loop {
            packed.reserve(plain.len() + 64);
            let before = self.0.total_in();
            let status = self
                .0
                .compress_vec(&plain[at..], &mut packed, FlushCompress::Sync);
            status.expect("a compressor that is in order takes everything");
            at += usize::try_from(self.0.total_in() - before).unwrap_or_default();
            // Room that is left says that all has been flushed.
            if at == plain.len() && packed.len() < packed.capacity() {
                return packed;
            }
        }
    }
}

/// Reads blocks.
pub struct Unpacker(Decompress);

impl Unpacker {
    /// At a connection's beginning.
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of the next block. After an error the connection is of no use.
    pub fn unpack(&mut self, mut block: &[u8]) -> Result<Headers, Broken> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let before = self.0.total_in();
            let outcome = self.0.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - before).unwrap_or_default();
            block = block.get(read..).unwrap_or_default();
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&DICTIONARY);
                    set.map_err(|_| Broken("its headers are compressed with another dictionary"))?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => {
                    return Err(Broken("its headers are not compressed as they should be"));
                }
                Ok(_) => {}
            }
            let full = plain.len() == plain.capacity();
            if plain.len() > LIMIT {
                return Err(Broken("its headers are too long"));
            }
            if full {
                plain.reserve(plain.len());
            } else if block.is_empty() || read == 0 {
                break;
            }
        }
        parse(&plain)
    }
}

fn parse(mut plain: &[u8]) -> Result<Headers, Broken> {
    const CUT: Broken = Broken("its headers are cut off");
    let number = |plain: &mut &[u8]| -> Result<usize, Broken> {
        let (number, rest) = plain.split_first_chunk().ok_or(CUT)?;
        *plain = rest;
        usize::try_from(u32::from_be_bytes(*number)).map_err(|_| CUT)
    };
    let text = |plain: &mut &[u8]| -> Result<String, Broken> {
        let length = number(plain)?;
        let (text, rest) = plain.split_at_checked(length).ok_or(CUT)?;
        *plain = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    let count = number(&mut plain)?;
    // Each needs two lengths at least.
    if count > plain.len() / 8 {
        return Err(CUT);
    }
    (0..count)
        .map(|_| Ok((text(&mut plain)?, text(&mut plain)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dictionary_is_the_specifications() {
        // Its Adler-32 is in every stream that uses it: RFC 1950's DICTID.
        let adler = DICTIONARY.iter().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!((DICTIONARY.len(), adler.1 << 16 | adler.0), (1423, 0xe3c6_a7c2));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(blocks in prop::collection::vec(prop::collection::vec(("[a-z]{0,9}", ".{0,300}"), 0..9), 0..9)) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for block in blocks {
                let packed = packer.pack(&block);
                prop_assert_eq!(unpacker.unpack(&packed).expect("a block"), block);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..9)) {
            let mut unpacker = Unpacker::new();
            for block in blocks {
                if unpacker.unpack(&block).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn no_plain_bytes_are_too_strange(plain in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&plain);
        }
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let mut packer = Packer::new();
        let packed = packer.pack(&[("a".into(), "x".repeat(50 << 20))]);
        assert_eq!(
            Unpacker::new().unpack(&packed),
            Err(Broken("its headers are too long"))
        );
    }
}
