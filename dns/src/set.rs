//! The records of one name and type, as bytes that an answer is put together from. A copy shares what it does not
//! change: one record more or less costs the same in a set of ten and in one of a hundred thousand.

use smallvec::SmallVec;
use std::sync::Arc;

/// How many records are kept together: more than fit into a UDP answer, few enough to copy for a change.
const CHUNK: usize = 64;

/// The name that a record belongs to, as a pointer to the question of the message (RFC 1035, 4.1.4).
pub const QUESTION: u16 = 0xC00C;

/// The bytes of a record before its data: owner, type, class, TTL, length of the data.
pub const HEAD: usize = 12;

/// No data of ours is longer; so much of each record of a chunk can be counted in 16 bits.
const LONGEST_DATA: usize = 900;

const IN: u16 = 1;

/// What a record says: type and data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Data {
    /// The type's number.
    pub type_: u16,
    /// The data, names in it neither compressed nor in upper case.
    pub bytes: Box<[u8]>,
}

/// A set of records.
#[derive(Clone, Debug)]
pub struct Set {
    type_: u16,
    ttl: u32,
    len: usize,
    /// All full but the last.
    chunks: SmallVec<[Arc<Chunk>; 1]>,
}

/// Some records one behind the other, each with [`QUESTION`] as its owner.
#[derive(Clone, Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: SmallVec<[u16; 2]>,
}

impl Chunk {
    fn start(&self, record: usize) -> usize {
        if record == 0 {
            0
        } else {
            usize::from(self.ends[record - 1])
        }
    }

    fn record(&self, record: usize) -> &[u8] {
        &self.bytes[self.start(record)..usize::from(self.ends[record])]
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        let end = u16::try_from(self.bytes.len()).expect("64 records of at most 912 bytes");
        self.ends.push(end);
    }

    /// The records with one of them left out or another in its place.
    fn with(&self, place: usize, instead: Option<&[u8]>) -> Self {
        let mut new = Self::default();
        for n in 0..self.ends.len() {
            match instead {
                Some(record) if n == place => new.push(record),
                None if n == place => {}
                _ => new.push(self.record(n)),
            }
        }
        new
    }
}

impl Set {
    /// An empty set.
    pub fn new(type_: u16, ttl: u32) -> Self {
        Self {
            type_,
            ttl,
            len: 0,
            chunks: SmallVec::new(),
        }
    }

    /// The type's number.
    pub fn type_(&self) -> u16 {
        self.type_
    }

    /// How long the records may be kept, in seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The data of a record by its place.
    pub fn data(&self, place: usize) -> &[u8] {
        &self.chunks[place / CHUNK].record(place % CHUNK)[HEAD..]
    }

    /// The data of all records.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len).map(|place| self.data(place))
    }

    /// Add a record behind the others. Data of more than 900 bytes, which no record here has, are not added; whether
    /// it was added.
    pub fn push(&mut self, data: &[u8]) -> bool {
        if data.len() > LONGEST_DATA {
            return false;
        }
        let length = u16::try_from(data.len()).expect("at most 900");
        let mut record = Vec::with_capacity(HEAD + data.len());
        record.extend(QUESTION.to_be_bytes());
        record.extend(self.type_.to_be_bytes());
        record.extend(IN.to_be_bytes());
        record.extend(self.ttl.to_be_bytes());
        record.extend(length.to_be_bytes());
        record.extend(data);
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::default());
        }
        let last = self.chunks.last_mut().expect("there is one");
        Arc::make_mut(last).push(&record);
        self.len += 1;
        true
    }

    /// Take a record away; the last one takes its place.
    pub fn swap_remove(&mut self, place: usize) {
        let last = self.len - 1;
        let moved = (place != last).then(|| self.chunks[last / CHUNK].record(last % CHUNK).to_vec());
        let end = &mut self.chunks[last / CHUNK];
        *end = Arc::new(end.with(last % CHUNK, None));
        if let Some(record) = moved {
            let chunk = &mut self.chunks[place / CHUNK];
            *chunk = Arc::new(chunk.with(place % CHUNK, Some(&record)));
        }
        if last.is_multiple_of(CHUNK) {
            self.chunks.pop();
        }
        self.len = last;
    }

    /// Runs of whole records, which are all records once, beginning with the one at `first`: the bytes of each run and
    /// where its records end.
    pub fn runs(&self, first: usize) -> impl Iterator<Item = Run<'_>> {
        let (chunk, record) = (first / CHUNK, first % CHUNK);
        let begin = self.chunks.get(chunk);
        let front = begin.map(|begin| run(begin, record..begin.ends.len()));
        let rest = self
            .chunks
            .iter()
            .skip(chunk + 1)
            .chain(self.chunks.iter().take(chunk));
        let back = begin.map(|begin| run(begin, 0..record));
        let all = front
            .into_iter()
            .chain(rest.map(|c| run(c, 0..c.ends.len())))
            .chain(back);
        all.filter(|run| !run.ends.is_empty())
    }
}

/// Whole records one behind the other.
pub struct Run<'a> {
    /// The records.
    pub bytes: &'a [u8],
    /// Where each ends, counted from `base`.
    ends: &'a [u16],
    base: usize,
}

impl Run<'_> {
    /// How many records there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = usize::from(*end) - self.base;
            &self.bytes[std::mem::replace(&mut start, end)..end]
        })
    }

    /// How many records, and how many bytes of them, fit into so many bytes.
    pub fn fitting(&self, room: usize) -> (usize, usize) {
        if self.bytes.len() <= room {
            return (self.ends.len(), self.bytes.len());
        }
        let count = self
            .ends
            .partition_point(|end| usize::from(*end) - self.base <= room);
        let bytes = count
            .checked_sub(1)
            .map(|last| usize::from(self.ends[last]) - self.base);
        (count, bytes.unwrap_or(0))
    }
}

fn run(chunk: &Chunk, records: std::ops::Range<usize>) -> Run<'_> {
    let base = chunk.start(records.start);
    let end = chunk.start(records.end);
    Run {
        bytes: &chunk.bytes[base..end],
        ends: &chunk.ends[records],
        base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(set: &Set) -> Vec<Vec<u8>> {
        set.iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_copy_stays_as_it_is_and_shares_what_did_not_change() {
        let mut set = Set::new(1, 5);
        for n in 0..1000_u16 {
            assert!(set.push(&n.to_be_bytes()));
        }
        let copy = set.clone();
        set.swap_remove(300);
        assert_eq!((copy.len(), set.len()), (1000, 999));
        assert_eq!(set.data(300), 999_u16.to_be_bytes());
        let pairs = copy.chunks.iter().zip(&set.chunks);
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 2);
    }

    #[test]
    fn data_that_are_too_long_are_not_added() {
        let mut set = Set::new(16, 5);
        assert!(!set.push(&[0; 901]));
        assert!(set.is_empty() && set.runs(0).count() == 0);
    }

    proptest! {
        #[test]
        fn a_set_is_what_a_list_would_be(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 0..20_usize), 0..400)) {
            let (mut set, mut list) = (Set::new(33, 5), Vec::new());
            for (n, (adds, place, length)) in steps.into_iter().enumerate() {
                if adds || list.is_empty() {
                    let data = vec![u8::try_from(n % 251).expect("a byte"); length];
                    prop_assert!(set.push(&data));
                    list.push(data);
                } else {
                    let place = place.index(list.len());
                    set.swap_remove(place);
                    list.swap_remove(place);
                }
                prop_assert_eq!(set.len(), list.len());
            }
            prop_assert_eq!(all(&set), list.clone());
            for first in 0..list.len() {
                let expected: Vec<u8> = (0..list.len())
                    .flat_map(|n| {
                        let data = &list[(first + n) % list.len()];
                        let length = u16::try_from(data.len()).expect("short").to_be_bytes();
                        [&[0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 5], &length[..], data].concat()
                    })
                    .collect();
                // The records from `first` on to the end of their chunk come first, then the other chunks.
                let bytes: Vec<u8> = set.runs(first).flat_map(|run| run.bytes.to_vec()).collect();
                prop_assert_eq!(bytes.len(), expected.len());
                let whole = set.runs(first).map(|run| run.count()).sum::<usize>();
                prop_assert_eq!(whole, list.len());
                prop_assert_eq!(&bytes[..], &expected[..]);
                for run in set.runs(first) {
                    for room in [0, 1, run.bytes.len() / 2, run.bytes.len()] {
                        let (count, used) = run.fitting(room);
                        prop_assert!(used <= room && (count == 0) == (used == 0));
                    }
                }
            }
        }
    }
}
