//! The bytes on disk: how writes become records, and records a state again.
//!
//! A write leaves one record, as in etcd: it serves as the object (if no later one has the same key), as
//! the change, and as what stood before the next change. So a value is written once, not three times, and
//! object and change cannot contradict each other. A record too long for one slot continues in others.
//!
//! ```text
//! s SLOT:8      CRC:4 REVISION:8 PART:2, then in part 0 KIND:1 CREATED:8 KEY-LENGTH:2 VALUE-LENGTH:4 KEY VALUE
//! m/format      NUMBER:8 CRC:4
//! m/compacted   REVISION:8 CRC:4
//! ```
//!
//! Numbers are big-endian. Slots are used again: a tree in which new keys come for ever and old ones go
//! keeps growing in sled, whatever is removed. A record goes when its change is compacted and its value
//! is no longer current.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    Revision,
    memory::{Logged, State, Version},
};

/// The number of this layout, raised when an older petset could not read it.
pub const FORMAT: u64 = 1;

/// The most bytes of one slot. sled writes whole leaves of up to 17 of them, and a leaf over a quarter of
/// a segment would go to a file that it never syncs.
pub const SLOT: usize = 16 * 1024;

/// In front of each part.
const PART_HEADER: usize = 4 + 8 + 2;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const IN_SLOT: u8 = b's';
pub const FORMAT_KEY: &[u8] = b"m/format";
pub const COMPACTED_KEY: &[u8] = b"m/compacted";

/// A key of the tree, and the bytes to write there or none to remove them.
pub type Put = (Vec<u8>, Option<Vec<u8>>);

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

/// A number as it is kept under [`FORMAT_KEY`] and [`COMPACTED_KEY`].
pub fn number(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    [bytes.as_slice(), &crc32fast::hash(&bytes).to_be_bytes()].concat()
}

fn parse_number(bytes: &[u8]) -> Option<u64> {
    let (number, crc) = bytes.split_first_chunk()?;
    (crc == crc32fast::hash(number).to_be_bytes()).then_some(u64::from_be_bytes(*number))
}

/// The record of the change that was written at `revision`, in as many parts as it needs.
fn encode(revision: Revision, change: &Logged) -> impl Iterator<Item = (u16, Vec<u8>)> {
    let (kind, created, value) = match &change.after {
        Some(version) => (PUT, version.created, version.value.as_ref()),
        None => (DELETE, 0, [].as_slice()),
    };
    let key_length = u16::try_from(change.key.len()).expect("KEY_LIMIT is below 64 KiB");
    let value_length = u32::try_from(value.len()).expect("VALUE_LIMIT is below 4 GiB");
    let mut record = Vec::with_capacity(15 + change.key.len() + value.len());
    record.push(kind);
    record.extend_from_slice(&created.to_be_bytes());
    record.extend_from_slice(&key_length.to_be_bytes());
    record.extend_from_slice(&value_length.to_be_bytes());
    record.extend_from_slice(change.key.as_bytes());
    record.extend_from_slice(value);
    let parts: Vec<_> = record
        .chunks(SLOT - PART_HEADER)
        .zip(0u16..)
        .map(|(bytes, part)| {
            let body = [&revision.to_be_bytes(), part.to_be_bytes().as_slice(), bytes].concat();
            (
                part,
                [crc32fast::hash(&body).to_be_bytes().as_slice(), &body].concat(),
            )
        })
        .collect();
    parts.into_iter()
}

/// Where each part of each record is, and which slots are free.
#[derive(Debug, Default)]
pub struct Slots {
    taken: BTreeMap<(Revision, u16), u64>,
    free: BTreeSet<u64>,
    /// All slots below are taken or free; none at or above has ever been used.
    end: u64,
}

impl Slots {
    /// Find room for a change's record: what to put where.
    pub fn put(&mut self, revision: Revision, change: &Logged) -> Vec<Put> {
        let place = |(part, bytes)| {
            let slot = self.free.pop_first().unwrap_or_else(|| {
                self.end += 1;
                self.end - 1
            });
            self.taken.insert((revision, part), slot);
            (slot_key(slot), Some(bytes))
        };
        encode(revision, change).map(place).collect()
    }

    /// Remove the records of these revisions. Their slots can be used again from the next batch on: call
    /// this after the batch's last [`Slots::put`].
    pub fn remove(&mut self, revisions: impl Iterator<Item = Revision>) -> Vec<Put> {
        let mut removed = Vec::new();
        for revision in revisions {
            let parts: Vec<_> = self
                .taken
                .range((revision, 0)..=(revision, u16::MAX))
                .map(|(at, _)| *at)
                .collect();
            for at in parts {
                if let Some(slot) = self.taken.remove(&at) {
                    self.free.insert(slot);
                    removed.push((slot_key(slot), None));
                }
            }
        }
        removed
    }
}

fn slot_key(slot: u64) -> Vec<u8> {
    [&[IN_SLOT], slot.to_be_bytes().as_slice()].concat()
}

/// Builds a state from all records. Feed it everything that is in the tree in any order, then finish.
#[derive(Default)]
pub struct Recovery {
    format: Option<u64>,
    compacted: Revision,
    parts: BTreeMap<(Revision, u16), (u64, Vec<u8>)>,
}

impl Recovery {
    /// Take one key of the tree and what is there.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let unreadable = || {
            corrupt(format!(
                "what is at {:?} is unreadable",
                String::from_utf8_lossy(key)
            ))
        };
        match key {
            FORMAT_KEY => self.format = Some(parse_number(value).ok_or_else(unreadable)?),
            COMPACTED_KEY => self.compacted = parse_number(value).ok_or_else(unreadable)?,
            [IN_SLOT, slot @ ..] => {
                let slot = u64::from_be_bytes(slot.try_into().map_err(|_| unreadable())?);
                let (at, bytes) = parse_part(value).ok_or_else(unreadable)?;
                if let Some((other, _)) = self.parts.insert(at, (slot, bytes.to_vec())) {
                    return Err(corrupt(format!("revision {} is at {other} and at {slot}", at.0)));
                }
            }
            _ => return Err(unreadable()),
        }
        Ok(())
    }

    /// Put the records together: those at or before the compacted revision are objects, those after it
    /// are the log, in which no revision may be missing.
    pub fn finish(mut self, now: Instant) -> Result<(State, Slots), Invalid> {
        match self.format {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => return Err(Invalid::Newer(newer)),
            None if self.parts.is_empty() && self.compacted == 0 => {}
            _ => return Err(corrupt("its format is not recorded")),
        }
        let slots = self.slots();
        let mut objects = BTreeMap::new();
        while self
            .parts
            .first_key_value()
            .is_some_and(|((revision, _), _)| *revision <= self.compacted)
        {
            match self.next()? {
                Some((_, key, Some(version))) => objects.insert(key, version),
                Some((_, key, None)) => objects.remove(&key),
                None => break,
            };
        }
        let mut state = State::at(self.compacted, objects);
        while let Some((revision, key, after)) = self.next()? {
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
        Ok((state, slots))
    }

    fn slots(&self) -> Slots {
        let taken: BTreeMap<_, _> = self.parts.iter().map(|(at, (slot, _))| (*at, *slot)).collect();
        let used: BTreeSet<_> = taken.values().copied().collect();
        let end = used.last().map_or(0, |last| last + 1);
        let free = (0..end).filter(|slot| !used.contains(slot)).collect();
        Slots { taken, free, end }
    }

    /// Take out the record of the lowest revision.
    fn next(&mut self) -> Result<Option<Record>, Invalid> {
        let Some(((revision, mut part), (_, mut record))) = self.parts.pop_first() else {
            return Ok(None);
        };
        let incomplete = || corrupt(format!("the record of revision {revision} is incomplete"));
        if part != 0 {
            return Err(incomplete());
        }
        while let Some(next) = self.parts.first_entry().filter(|next| next.key().0 == revision) {
            if next.key().1 != part + 1 {
                return Err(incomplete());
            }
            part += 1;
            record.extend_from_slice(&next.remove().1);
        }
        let (key, after) = parse_record(revision, &record).ok_or_else(incomplete)?;
        Ok(Some((revision, key, after)))
    }
}

type Record = (Revision, Arc<str>, Option<Arc<Version>>);

fn parse_part(bytes: &[u8]) -> Option<((Revision, u16), &[u8])> {
    let (crc, body) = bytes.split_first_chunk()?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(body) {
        return None;
    }
    let (revision, rest) = body.split_first_chunk()?;
    let (part, rest) = rest.split_first_chunk()?;
    Some(((u64::from_be_bytes(*revision), u16::from_be_bytes(*part)), rest))
}

fn parse_record(revision: Revision, bytes: &[u8]) -> Option<(Arc<str>, Option<Arc<Version>>)> {
    let (kind, rest) = bytes.split_first()?;
    let (created, rest) = rest.split_first_chunk()?;
    let (key_length, rest) = rest.split_first_chunk()?;
    let (value_length, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_length)))?;
    let key = Arc::from(std::str::from_utf8(key).ok()?);
    if value.len() as u64 != u64::from(u32::from_be_bytes(*value_length)) {
        return None;
    }
    let created = u64::from_be_bytes(*created);
    match *kind {
        PUT => Some((
            key,
            Some(Arc::new(Version {
                created,
                modified: revision,
                value: value.to_vec().into(),
            })),
        )),
        DELETE if value.is_empty() => Some((key, None)),
        _ => None,
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
        let (mut state, mut slots, mut records) = (State::default(), Slots::default(), Records::new());
        records.insert(FORMAT_KEY.to_vec(), number(FORMAT));
        for (key, size) in writes {
            let expect = state
                .get(key)
                .map_or(Expect::Absent, |(_, version)| Expect::At(version.modified));
            let value = size.map(|size| vec![b'x'; size].into());
            let mut batch = state.batch(Instant::now());
            batch.add(Write::new(key, value, expect).unwrap()).unwrap();
            let puts = batch
                .changes()
                .flat_map(|(revision, change)| slots.put(revision, change));
            records.extend(puts.map(|(key, value)| (key, value.unwrap())));
            let changes = batch.into_changes();
            state.apply(changes);
        }
        for (key, _) in slots.remove(state.garbage(compacted)) {
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
        recovery.finish(Instant::now()).map(|(state, _)| state)
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

    /// The longest value of the key `/a` or `/b` that fits one slot.
    const FITS: usize = SLOT - PART_HEADER - 15 - 2;

    const WRITES: &[(&str, Option<usize>)] = &[
        ("/a", Some(0)),
        ("/b", Some(3 * SLOT)),
        ("/a", Some(FITS)),
        ("/b", None),
        ("/a\0", Some(FITS)),
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
    fn a_record_takes_as_many_slots_as_it_needs_and_none_is_overfull() {
        let parts = |size| records(&[("/a", Some(size))], 0).0.len() - 2;
        assert_eq!([0, FITS, FITS + 1, 3 * SLOT].map(parts), [1, 1, 2, 4]);
        let (records, _) = records(&[("/a", Some(3 * SLOT))], 0);
        assert_eq!(records.values().map(Vec::len).max(), Some(SLOT));
    }

    #[test]
    fn free_slots_are_used_again_also_after_recovery() {
        let (records, state) = records(WRITES, 6);
        let mut recovery = Recovery::default();
        records
            .iter()
            .for_each(|(key, value)| recovery.add(key, value).unwrap());
        let (_, mut slots) = recovery.finish(Instant::now()).unwrap();
        let (end, free) = (slots.end, slots.free.len());
        assert!(free > 0 && slots.taken.len() + free == end as usize);
        let change = state.changes_after(6).next().unwrap().1.clone();
        for revision in 0..free as Revision {
            let puts = slots.put(100 + revision, &change);
            assert!(puts.iter().all(|(key, _)| !records.contains_key(key)));
        }
        assert_eq!((slots.end, slots.free.len()), (end, 0));
        slots.put(200, &change);
        assert_eq!(slots.end, end + 1);
    }

    #[test]
    fn a_lost_part_is_noticed_while_its_change_is_in_the_log() {
        let (whole, _) = records(WRITES, 0);
        // The newest change has nothing after it to miss it; a sync precedes its acknowledgement.
        let newest = slot_key(whole.len() as u64 - 3);
        for lost in whole.keys() {
            let mut records = whole.clone();
            records.remove(lost);
            let unnoticed = lost == COMPACTED_KEY || *lost == newest;
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
