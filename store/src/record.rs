//! The bytes on disk: how writes become records in one ordered key space, and records a state again.
//!
//! A write leaves one record, kept under its key *and* revision, as etcd does; the record serves as the
//! object (if no later one has the same key), as the change, and as what stood before the next change.
//! So a value is written once, not three times, and object and change cannot contradict each other.
//!
//! ```text
//! v KEY REVISION:8 CHUNK:2   KIND:1 CREATED:8 LENGTH:4 CRC:4 and the value's first bytes (chunk 0), or more
//! m/format                   NUMBER:8 CRC:4
//! m/compacted                REVISION:8 CRC:4
//! ```
//!
//! Numbers are big-endian. Records of a compacted change remain for as long as their value is current.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    Revision,
    memory::{Garbage, Logged, State, Version},
};

/// The number of this layout, raised when an older petset could not read it.
pub const FORMAT: u64 = 1;

/// The most bytes of one record. sled writes whole leaves of up to 17 records, and one over a quarter of
/// a segment would go to a file that it never syncs.
pub const CHUNK: usize = 16 * 1024;

const HEADER: usize = 1 + 8 + 4 + 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const VERSION: u8 = b'v';
pub const FORMAT_KEY: &[u8] = b"m/format";
pub const COMPACTED_KEY: &[u8] = b"m/compacted";

/// Why records are not a state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A newer petset wrote them.
    #[error("it was written in format {0}, this version reads format {FORMAT}")]
    Newer(u64),
    /// They are damaged or incomplete.
    #[error("{0}")]
    Corrupt(String),
}

fn corrupt(what: impl Into<String>) -> Invalid {
    Invalid::Corrupt(what.into())
}

fn record_key(key: &str, revision: Revision, chunk: usize) -> Vec<u8> {
    let chunk = u16::try_from(chunk).expect("VALUE_LIMIT is far less than 65,536 chunks");
    let mut bytes = Vec::with_capacity(1 + key.len() + 10);
    bytes.push(VERSION);
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes.extend_from_slice(&chunk.to_be_bytes());
    bytes
}

/// A number as it is kept under [`FORMAT_KEY`] and [`COMPACTED_KEY`].
pub fn number(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    [bytes.as_slice(), &crc32fast::hash(&bytes).to_be_bytes()].concat()
}

fn parse_number(bytes: &[u8]) -> Option<u64> {
    let (number, crc) = bytes.split_first_chunk()?;
    (crc == crc32fast::hash(number).to_be_bytes()).then_some(u64::from_be_bytes(*number))
}

/// Covers everything that a record says, its key and revision included.
fn checksum(key: &str, revision: Revision, kind: u8, created: Revision, value: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&revision.to_be_bytes());
    crc.update(&created.to_be_bytes());
    crc.update(&(value.len() as u64).to_be_bytes());
    crc.update(value);
    crc.update(key.as_bytes());
    crc.finalize()
}

/// The records, key and value, of the change that was written at `revision`.
pub fn encode(revision: Revision, change: &Logged) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let (kind, created, value) = match &change.after {
        Some(version) => (PUT, version.created, version.value.clone()),
        None => (DELETE, 0, bytes::Bytes::new()),
    };
    let key = change.key.clone();
    let mut header = Vec::with_capacity(HEADER + value.len().min(CHUNK - HEADER));
    header.push(kind);
    header.extend_from_slice(&created.to_be_bytes());
    header.extend_from_slice(
        &u32::try_from(value.len())
            .expect("VALUE_LIMIT is far less than 4 GiB")
            .to_be_bytes(),
    );
    header.extend_from_slice(&checksum(&key, revision, kind, created, &value).to_be_bytes());
    (0..chunks(value.len())).map(move |chunk| {
        // Chunk n ends where n + 1 whole records would, had the value a header's length more in front.
        let start = (chunk * CHUNK).saturating_sub(HEADER);
        let end = ((chunk + 1) * CHUNK - HEADER).min(value.len());
        let part = &value[start..end];
        let record = if chunk == 0 {
            [&header, part].concat()
        } else {
            part.to_vec()
        };
        (record_key(&key, revision, chunk), record)
    })
}

/// The keys of the records that `garbage` names.
pub fn encode_removal(garbage: Garbage) -> impl Iterator<Item = Vec<u8>> {
    (0..chunks(garbage.size)).map(move |chunk| record_key(&garbage.key, garbage.revision, chunk))
}

/// How many records a value of `size` bytes takes.
fn chunks(size: usize) -> usize {
    (HEADER + size).div_ceil(CHUNK)
}

/// A record whose later chunks are still to come.
struct Partial {
    key: Arc<str>,
    kind: u8,
    created: Revision,
    length: usize,
    crc: u32,
    value: Vec<u8>,
    chunks: usize,
}

/// Builds a state from all records. Feed it every record in the order of their keys, then finish.
#[derive(Default)]
pub struct Recovery {
    format: Option<u64>,
    compacted: Revision,
    records: BTreeMap<Revision, Partial>,
}

impl Recovery {
    /// Take one record.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Invalid> {
        if key == FORMAT_KEY {
            self.format = Some(parse_number(value).ok_or_else(|| corrupt("its format is unreadable"))?);
            return Ok(());
        }
        if key == COMPACTED_KEY {
            self.compacted =
                parse_number(value).ok_or_else(|| corrupt("its compacted revision is unreadable"))?;
            return Ok(());
        }
        let unknown = || {
            corrupt(format!(
                "it has an unknown record {:?}",
                String::from_utf8_lossy(key)
            ))
        };
        let (rest, chunk) = key.split_last_chunk().ok_or_else(unknown)?;
        let (rest, revision) = rest.split_last_chunk().ok_or_else(unknown)?;
        let (chunk, revision) = (u16::from_be_bytes(*chunk), u64::from_be_bytes(*revision));
        let Some((&VERSION, key)) = rest.split_first() else {
            return Err(unknown());
        };
        let key = std::str::from_utf8(key).map_err(|_| unknown())?;
        let damaged = || corrupt(format!("the record of {key} at revision {revision} is damaged"));
        if chunk == 0 {
            let partial = Partial::parse(key, value).ok_or_else(damaged)?;
            return match self.records.insert(revision, partial) {
                None => Ok(()),
                Some(other) => Err(corrupt(format!(
                    "{key} and {} have both revision {revision}",
                    other.key
                ))),
            };
        }
        let partial = self.records.get_mut(&revision).ok_or_else(damaged)?;
        if &*partial.key != key || partial.chunks != usize::from(chunk) {
            return Err(damaged());
        }
        partial.value.extend_from_slice(value);
        partial.chunks += 1;
        Ok(())
    }

    /// Put the records together: those at or before the compacted revision are objects, those after it
    /// are the log, in which no revision may be missing.
    pub fn finish(self, now: Instant) -> Result<State, Invalid> {
        match self.format {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => return Err(Invalid::Newer(newer)),
            None if self.records.is_empty() && self.compacted == 0 => {}
            _ => return Err(corrupt("its format is not recorded")),
        }
        let mut objects = BTreeMap::new();
        let mut records = self.records.into_iter().peekable();
        while let Some((revision, partial)) = records.next_if(|(revision, _)| *revision <= self.compacted) {
            let (key, version) = partial.complete(revision)?;
            match version {
                Some(version) => objects.insert(key, version),
                None => objects.remove(&key),
            };
        }
        let mut state = State::at(self.compacted, objects);
        for (revision, partial) in records {
            let (key, after) = partial.complete(revision)?;
            if revision != state.current() + 1 {
                return Err(corrupt(format!("revision {} is missing", state.current() + 1)));
            }
            let found = state
                .get(&key)
                .map(|(key, version)| (key.clone(), version.clone()));
            let (key, before) = found.map_or((key, None), |(key, version)| (key, Some(version)));
            let created_before = before.as_ref().map(|version| version.created);
            let follows = match &after {
                Some(version) => version.created == created_before.unwrap_or(revision),
                None => created_before.is_some(),
            };
            if !follows {
                return Err(corrupt(format!(
                    "what stood at {key} before revision {revision} is missing"
                )));
            }
            state.apply([Logged {
                key,
                before,
                after,
                at: now,
            }]);
        }
        Ok(state)
    }
}

impl Partial {
    fn parse(key: &str, record: &[u8]) -> Option<Partial> {
        let (kind, rest) = record.split_first()?;
        let (created, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (crc, value) = rest.split_first_chunk()?;
        Some(Partial {
            key: key.into(),
            kind: *kind,
            created: u64::from_be_bytes(*created),
            length: usize::try_from(u32::from_be_bytes(*length)).ok()?,
            crc: u32::from_be_bytes(*crc),
            value: value.to_vec(),
            chunks: 1,
        })
    }

    fn complete(self, revision: Revision) -> Result<(Arc<str>, Option<Arc<Version>>), Invalid> {
        let Partial {
            key,
            kind,
            created,
            length,
            crc,
            value,
            ..
        } = self;
        let whole = value.len() == length && crc == checksum(&key, revision, kind, created, &value);
        match kind {
            PUT if whole => Ok((
                key,
                Some(Arc::new(Version {
                    created,
                    modified: revision,
                    value: value.into(),
                })),
            )),
            DELETE if whole => Ok((key, None)),
            _ => Err(corrupt(format!(
                "the record of {key} at revision {revision} is damaged"
            ))),
        }
    }
}
