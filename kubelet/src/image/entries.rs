//! The entries of a tar stream, one after another, with a bound on everything that has to be kept in memory.
//!
//! The `tar` crate reads headers; the loop around them is here because that crate keeps extended headers of any length.

use std::io::{self, Read};
use tar::{EntryType, Header};

/// Longest extended header: names, link targets and attributes. Linux knows no path longer than 4 KiB.
const LONGEST_EXTENSION: u64 = 1 << 20;

const BLOCK: u64 = 512;

/// What is said of one entry; its content is read from the [`Entries`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// As it stands there; anything may stand there.
    pub path: Vec<u8>,
    /// Target of a link, likewise.
    pub link: Vec<u8>,
    /// The type byte.
    pub kind: u8,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// Bytes of content.
    pub size: u64,
    /// Extended attributes.
    pub attributes: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// What it is.
    pub fn kind(&self) -> EntryType {
        EntryType::new(self.kind)
    }
}

/// Reads a tar stream. `Read` is the content of the entry that [`Entries::next_entry`] gave last.
pub struct Entries<R> {
    from: R,
    /// Bytes of the present entry's content.
    left: u64,
    padding: u64,
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<i64>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl<R: Read> Entries<R> {
    /// From the start of the stream.
    pub fn new(from: R) -> Self {
        Self {
            from,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; `None` at the end. What was not read of the one before is skipped.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            let size = match extended.size {
                Some(size) if !is_extension(kind) => size,
                _ => header.entry_size()?,
            };
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK).saturating_sub(size);
            match kind {
                EntryType::GNULongName => extended.path = Some(until_nul(self.extension()?)),
                EntryType::GNULongLink => extended.link = Some(until_nul(self.extension()?)),
                EntryType::XHeader => extended.read(&self.extension()?)?,
                // What holds for all entries (comments, mostly) is not about files.
                EntryType::XGlobalHeader => {}
                EntryType::GNUSparse => return Err(invalid("sparse files are not supported")),
                _ => return extended.entry(&header, size).map(Some),
            }
        }
    }

    /// The stream, of which the present entry's content comes next.
    pub fn inner(&self) -> &R {
        &self.from
    }

    /// The stream, from behind what has been read.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next header; `None` at the end of the stream or of the archive.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut read = 0;
        while read < bytes.len() {
            match self.from.read(&mut bytes[read..])? {
                0 if read == 0 => return Ok(None),
                0 => return Err(invalid("it ends in the middle of a header")),
                n => read += n,
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes[..148]
            .iter()
            .chain(&bytes[156..])
            .map(|byte| u32::from(*byte))
            .sum::<u32>()
            + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(invalid(
                "a header's checksum is wrong: this is no tar archive, or it is damaged",
            ));
        }
        Ok(Some(header))
    }

    fn extension(&mut self) -> io::Result<Vec<u8>> {
        if self.left > LONGEST_EXTENSION {
            return Err(invalid("an extended header is longer than 1 MiB"));
        }
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.from.by_ref().take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(invalid("it ends in the middle of a file"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(invalid("it ends in the middle of a file"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Extended {
    /// Records are `LENGTH KEY=VALUE\n`; the length counts all of it.
    fn read(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let wrong = || invalid("an extended header is malformed");
        while !rest.is_empty() {
            let space = rest.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
            let length: usize = text(&rest[..space])
                .and_then(|t| t.parse().ok())
                .ok_or_else(wrong)?;
            let record = rest.get(space + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            rest = &rest[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            let (key, value) = (text(&record[..equals]).ok_or_else(wrong)?, &record[equals + 1..]);
            let number = || text(value).and_then(|t| t.parse().ok()).ok_or_else(wrong);
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "size" => self.size = Some(number()?),
                "uid" => self.uid = Some(number()?),
                "gid" => self.gid = Some(number()?),
                "mtime" => {
                    let whole = text(value).and_then(|t| t.split('.').next());
                    self.modified = Some(whole.and_then(|t| t.parse().ok()).ok_or_else(wrong)?);
                }
                key if key.starts_with("GNU.sparse.") => {
                    return Err(invalid("sparse files are not supported"));
                }
                key => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.attributes.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(self, header: &Header, size: u64) -> io::Result<Entry> {
        let fields = header.as_old();
        let link = || header.link_name_bytes().unwrap_or_default().into_owned();
        let modified = match self.modified {
            Some(modified) => modified,
            None => i64::try_from(or_zero(&fields.mtime, header.mtime())?).unwrap_or(0),
        };
        Ok(Entry {
            path: self.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: self.link.unwrap_or_else(link),
            kind: header.entry_type().as_byte(),
            mode: header.mode()? & 0o7777,
            uid: self.uid.map_or_else(|| or_zero(&fields.uid, header.uid()), Ok)?,
            gid: self.gid.map_or_else(|| or_zero(&fields.gid, header.gid()), Ok)?,
            modified,
            size,
            attributes: self.attributes,
        })
    }
}

/// A number; a field that was left empty is 0.
fn or_zero(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(0),
        false => number,
    }
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
    )
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        add(&mut builder);
        builder.into_inner().expect("archive")
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(7);
        builder.append_data(&mut header, path, content).expect("added");
    }

    #[test]
    fn names_of_any_length_and_contents_come_as_they_were_put_in() {
        let long = format!("{}/file", "d".repeat(200));
        let bytes = archive(|builder| {
            file(builder, "short", b"one");
            file(builder, &long, &[7; 1000]);
            builder
                .append_pax_extensions([("SCHILY.xattr.user.x", &b"a\nb=c"[..]), ("mtime", &b"-3.5"[..])])
                .expect("added");
            file(builder, "third", b"");
        });
        let mut entries = Entries::new(&bytes[..]);
        let first = entries.next_entry().expect("read").expect("first");
        assert_eq!(
            (&*first.path, first.size, first.mode, first.modified),
            (&b"short"[..], 3, 0o644, 7)
        );
        let second = entries.next_entry().expect("read").expect("second");
        assert_eq!(second.path, long.as_bytes());
        let mut content = Vec::new();
        entries.read_to_end(&mut content).expect("read");
        assert_eq!(content, [7; 1000]);
        let third = entries.next_entry().expect("read").expect("third");
        assert_eq!(third.attributes, [("user.x".to_owned(), b"a\nb=c".to_vec())]);
        assert_eq!(third.modified, -3);
        assert_eq!(entries.next_entry().expect("read"), None);
    }

    #[test]
    fn an_archive_that_is_cut_or_damaged_is_refused() {
        let whole = archive(|builder| file(builder, "a", &[1; 600]));
        for cut in [100, 600, 1000] {
            let mut entries = Entries::new(&whole[..cut]);
            let result = entries.next_entry().and_then(|_| entries.next_entry());
            assert!(result.is_err(), "{cut}");
        }
        let mut damaged = whole;
        damaged[0] ^= 1;
        let refused = Entries::new(&damaged[..]).next_entry().expect_err("damaged");
        assert!(refused.to_string().contains("checksum"), "{refused}");
    }

    #[test]
    fn an_endless_extended_header_is_refused_before_it_is_read() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let endless = Read::chain(&header.as_bytes()[..], io::repeat(b'x'));
        let refused = Entries::new(endless).next_entry().expect_err("too long");
        assert!(refused.to_string().contains("1 MiB"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096), fix in any::<bool>()) {
            if fix && bytes.len() >= 512 {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[..512]);
                header.set_cksum();
                bytes[..512].copy_from_slice(header.as_bytes());
            }
            let mut entries = Entries::new(&bytes[..]);
            while let Ok(Some(_)) = entries.next_entry() {}
        }
    }
}
