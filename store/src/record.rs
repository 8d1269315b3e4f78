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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::{Expect, Write};

    type Records = BTreeMap<Vec<u8>, Vec<u8>>;

    /// The records of a store that has seen these writes and then forgot the changes up to `compacted`.
    fn records(writes: &[(&str, Option<usize>)], compacted: Revision) -> (Records, State) {
        let (mut state, mut records) = (State::default(), Records::new());
        records.insert(FORMAT_KEY.to_vec(), number(FORMAT));
        for (key, size) in writes {
            let expect = state
                .get(key)
                .map_or(Expect::Absent, |(_, version)| Expect::At(version.modified));
            let value = size.map(|size| vec![b'x'; size].into());
            let mut batch = state.batch(Instant::now());
            batch.add(Write::new(key, value, expect).unwrap()).unwrap();
            records.extend(
                batch
                    .changes()
                    .flat_map(|(revision, change)| encode(revision, change)),
            );
            let changes = batch.into_changes();
            state.apply(changes);
        }
        for key in state.garbage(compacted).flat_map(encode_removal) {
            assert!(records.remove(&key).is_some(), "only what is there is removed");
        }
        records.insert(COMPACTED_KEY.to_vec(), number(compacted));
        state.forget(compacted);
        (records, state)
    }

    fn recover(records: &Records) -> Result<State, Invalid> {
        let mut recovery = Recovery::default();
        for (key, value) in records {
            recovery.add(key, value)?;
        }
        recovery.finish(Instant::now())
    }

    fn told(state: &State) -> (Revision, Revision, String, String) {
        let log: Vec<_> = state
            .changes_after(state.compacted())
            .map(|(at, change)| change.change(at))
            .collect();
        let objects = state.list("", None, 0, None).unwrap().page();
        (
            state.compacted(),
            state.current(),
            format!("{log:?}"),
            format!("{objects:?}"),
        )
    }

    const WRITES: &[(&str, Option<usize>)] = &[
        ("/a", Some(0)),
        ("/b", Some(3 * CHUNK)),
        ("/a", Some(CHUNK)),
        ("/b", None),
        ("/a\0", Some(CHUNK - HEADER)),
        ("/a", None),
        ("/b", Some(7)),
    ];

    #[test]
    fn a_state_comes_back_from_its_records_wherever_it_is_compacted() {
        for compacted in 0..=WRITES.len() as Revision {
            let (records, state) = records(WRITES, compacted);
            assert_eq!(
                told(&recover(&records).unwrap()),
                told(&state),
                "compacted at {compacted}"
            );
        }
    }

    #[test]
    fn no_record_is_longer_than_a_chunk() {
        let (records, _) = records(WRITES, 0);
        assert!(records.values().all(|record| record.len() <= CHUNK));
        assert_eq!(
            records.values().filter(|record| record.len() == CHUNK).count(),
            3 + 1 + 1
        );
    }

    #[test]
    fn a_lost_record_is_noticed_while_its_change_is_in_the_log() {
        let (whole, _) = records(WRITES, 0);
        for lost in whole.keys() {
            let mut records = whole.clone();
            records.remove(lost);
            // The newest change has nothing after it to miss it; a sync precedes its acknowledgement.
            let unnoticed = lost == COMPACTED_KEY || lost == &record_key("/b", WRITES.len() as u64, 0);
            assert_eq!(
                recover(&records).is_ok(),
                unnoticed,
                "{}",
                String::from_utf8_lossy(lost)
            );
        }
    }

    #[test]
    fn a_newer_format_is_refused_as_such() {
        let (mut records, _) = records(WRITES, 0);
        records.insert(FORMAT_KEY.to_vec(), number(FORMAT + 1));
        assert_eq!(recover(&records).unwrap_err(), Invalid::Newer(FORMAT + 1));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(record in 0usize..64, byte in any::<prop::sample::Index>(), flip in 1u8..) {
            let (mut records, _) = records(WRITES, 3);
            let record = record % records.len();
            let value = records.values_mut().nth(record).unwrap();
            let at = byte.index(value.len());
            value[at] ^= flip;
            prop_assert!(recover(&records).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(key: Vec<u8>, value: Vec<u8>) {
            let (mut records, _) = records(WRITES, 3);
            if records.insert(key, value).is_none() {
                prop_assert!(recover(&records).is_err());
            }
        }
    }
}
