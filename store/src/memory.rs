//! The whole store as values in memory: every object, the window of recent changes, and the rules of a
//! write. No I/O, no locks, no clock: what a write may do is decided here, whoever makes it durable.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{Change, Entry, Error, Page, Revision};

/// The largest value: what upstream's etcd takes as one request by default.
pub const VALUE_LIMIT: usize = 1536 * 1024;

/// The longest key. Kubernetes' own are below 600 bytes.
pub const KEY_LIMIT: usize = 4096;

/// How much of the past is kept for watches and for lists at an older revision. Older changes are
/// forgotten with later writes, an eighth of the window at a time so that few writes pay for it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Changes younger than this are kept, as far as the other two limits allow.
    pub age: Duration,
    /// At most this many changes are kept, and when there are more at least seven eighths of them.
    pub changes: usize,
    /// At most this many bytes of keys and values are kept for changes; likewise.
    pub bytes: usize,
}

impl Default for Window {
    /// Five minutes, as upstream's API server compacts etcd; 100,000 changes; 64 MiB.
    fn default() -> Self {
        Window {
            age: Duration::from_secs(300),
            changes: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// What one write put at a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub created: Revision,
    pub modified: Revision,
    pub value: Bytes,
}

impl Version {
    pub fn entry(&self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value.clone(),
            created: self.created,
            modified: self.modified,
        }
    }
}

/// One line of the change log. Its revision is its place in the log.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub key: Arc<str>,
    pub before: Option<Arc<Version>>,
    pub after: Option<Arc<Version>>,
    pub at: Instant,
}

impl Logged {
    fn weight(&self) -> usize {
        self.key.len() + self.after.as_ref().map_or(0, |version| version.value.len())
    }

    pub fn change(&self, revision: Revision) -> Change {
        Change {
            revision,
            key: self.key.as_ref().to_owned(),
            before: self.before.as_ref().map(|version| version.entry(&self.key)),
            after: self.after.as_ref().map(|version| version.entry(&self.key)),
        }
    }
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Absent,
    At(Revision),
}

/// A write that asks to be done; without a value it deletes.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub key: Arc<str>,
    pub value: Option<Bytes>,
    pub expect: Expect,
}

impl Write {
    /// Refuse what could never be written, before anything else looks at it.
    pub fn new(key: &str, value: Option<Bytes>, expect: Expect) -> Result<Write, Error> {
        let size = value.as_ref().map_or(0, Bytes::len);
        for (size, limit) in [(key.len(), KEY_LIMIT), (size, VALUE_LIMIT)] {
            if size > limit {
                return Err(Error::TooLarge { size, limit });
            }
        }
        Ok(Write {
            key: key.into(),
            value,
            expect,
        })
    }
}

/// A write that was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub revision: Revision,
    pub after: Option<Arc<Version>>,
}

impl Done {
    /// The entry that a create or update left at `key`.
    pub fn entry(&self, key: &str) -> Entry {
        self.after
            .as_ref()
            .expect("a write of a value leaves a version")
            .entry(key)
    }
}

/// Why a write was not done.
#[derive(Debug)]
pub(crate) struct Refused {
    pub error: Error,
    /// The refusal rests on another write of the same batch: it may be told only once that is durable.
    pub on_pending: bool,
}

/// Writes that become durable and visible together, checked in order, each against the ones before it.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    state: &'a State,
    now: Instant,
    changes: Vec<Logged>,
    /// Where in `changes` the newest write of a key is.
    newest: HashMap<Arc<str>, usize>,
}

impl Batch<'_> {
    /// Give `write` the next revision, if what it expects is there.
    pub fn add(&mut self, write: Write) -> Result<Done, Refused> {
        let pending = self.newest.get(&write.key).copied();
        let (key, before) = match (pending, self.state.objects.get_key_value(&write.key)) {
            (Some(index), _) => (self.changes[index].key.clone(), self.changes[index].after.clone()),
            (None, Some((key, version))) => (key.clone(), Some(version.clone())),
            (None, None) => (write.key, None),
        };
        let refusal = match (write.expect, &before) {
            (Expect::Absent, Some(_)) => Some(Error::Exists(key.as_ref().to_owned())),
            (Expect::At(expected), Some(version)) if version.modified == expected => None,
            (Expect::At(_), current) => Some(Error::Conflict {
                key: key.as_ref().to_owned(),
                current: current.as_ref().map(|version| version.entry(&key)),
            }),
            (Expect::Absent, None) => None,
        };
        if let Some(error) = refusal {
            return Err(Refused {
                error,
                on_pending: pending.is_some(),
            });
        }
        let revision = self.state.current() + self.changes.len() as Revision + 1;
        let after = write.value.map(|value| {
            let created = before.as_ref().map_or(revision, |version| version.created);
            Arc::new(Version {
                created,
                modified: revision,
                value,
            })
        });
        self.newest.insert(key.clone(), self.changes.len());
        self.changes.push(Logged {
            key,
            before,
            after: after.clone(),
            at: self.now,
        });
        Ok(Done { revision, after })
    }

    /// The changes with their revisions, in order.
    pub fn changes(&self) -> impl Iterator<Item = (Revision, &Logged)> {
        (self.state.current() + 1..).zip(&self.changes)
    }

    /// The changes to hand to [`State::apply`] once they are durable.
    pub fn into_changes(self) -> Vec<Logged> {
        self.changes
    }
}

/// Every object and the recent changes, as of one revision.
#[derive(Debug, Default)]
pub(crate) struct State {
    objects: BTreeMap<Arc<str>, Arc<Version>>,
    /// Changes up to and including this revision are forgotten.
    compacted: Revision,
    /// The change of revision `compacted + 1`, of `compacted + 2`, and so on without a gap.
    log: VecDeque<Logged>,
    /// The weight of `log`.
    bytes: usize,
}

impl State {
    /// A state that held `objects` at revision `compacted`, before anything in a log.
    pub fn at(compacted: Revision, objects: BTreeMap<Arc<str>, Arc<Version>>) -> State {
        State {
            objects,
            compacted,
            log: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The revision of the newest change.
    pub fn current(&self) -> Revision {
        self.compacted + self.log.len() as Revision
    }

    /// The oldest revision from which a watch can start and at which a list can be given.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn get(&self, key: &str) -> Option<(&Arc<str>, &Arc<Version>)> {
        self.objects.get_key_value(key)
    }

    /// Start a batch of writes on top of this state.
    pub fn batch(&self, now: Instant) -> Batch<'_> {
        Batch {
            state: self,
            now,
            changes: Vec::new(),
            newest: HashMap::new(),
        }
    }

    /// Make a batch's changes visible.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Logged>) {
        for change in changes {
            match &change.after {
                Some(version) => {
                    self.objects.insert(change.key.clone(), version.clone());
                }
                None => {
                    self.objects.remove(&change.key);
                }
            }
            self.bytes += change.weight();
            self.log.push_back(change);
        }
    }

    /// Whether a read may start at `revision`.
    pub fn check_readable(&self, revision: Revision) -> Result<(), Error> {
        if revision < self.compacted {
            return Err(Error::Compacted {
                requested: revision,
                oldest: self.compacted,
            });
        }
        if revision > self.current() {
            return Err(Error::Future {
                requested: revision,
                current: self.current(),
            });
        }
        Ok(())
    }

    /// Whether the changes up to `revision` can be forgotten: those not written yet can not.
    pub fn check_compactable(&self, revision: Revision) -> Result<(), Error> {
        if revision > self.current() {
            return Err(Error::Future {
                requested: revision,
                current: self.current(),
            });
        }
        Ok(())
    }

    /// The changes after `since` (which is not compacted), each with its revision.
    pub fn changes_after(&self, since: Revision) -> impl DoubleEndedIterator<Item = (Revision, &Logged)> {
        let skip = usize::try_from(since.saturating_sub(self.compacted)).unwrap_or(usize::MAX);
        let tail = self.log.range(skip.min(self.log.len())..);
        tail.enumerate()
            .map(move |(index, change)| (since + 1 + index as Revision, change))
    }

    /// The entries under `prefix` and after `after`, at most `limit` (0: all), as of revision `at`, and
    /// how many follow them. Turning them into a [`Page`] costs more than finding them and is left to
    /// [`Found::page`], which needs no access to the state.
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Found, Error> {
        let revision = at.unwrap_or(self.current());
        self.check_readable(revision)?;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let selected = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        // What stood at each key that has changed since: the `before` of its first later change.
        let mut undone: BTreeMap<&Arc<str>, Option<&Arc<Version>>> = BTreeMap::new();
        for (_, change) in self.changes_after(revision).rev() {
            if selected(&change.key) {
                undone.insert(&change.key, change.before.as_ref());
            }
        }
        let now = self
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, version)| (key, Some(version)));
        let mut found = Found {
            entries: Vec::new(),
            revision,
            remaining: 0,
        };
        for (key, version) in overlaid(now, undone.into_iter()) {
            let Some(version) = version else { continue };
            if limit == 0 || found.entries.len() < limit {
                found.entries.push((key.clone(), version.clone()));
            } else {
                found.remaining += 1;
            }
        }
        Ok(found)
    }

    /// Up to which revision to compact now: what the window no longer covers, but at most `most` changes,
    /// so that no single batch pays for a long past.
    pub fn outside(&self, window: &Window, now: Instant, most: usize) -> Revision {
        let age = |change: &Logged| now.saturating_duration_since(change.at);
        let due = self.log.len() > window.changes
            || self.bytes > window.bytes
            || self
                .log
                .front()
                .is_some_and(|oldest| age(oldest) > window.age + window.age / 8);
        if !due {
            return self.compacted;
        }
        let (most_changes, most_bytes) = (
            window.changes - window.changes / 8,
            window.bytes - window.bytes / 8,
        );
        let (mut changes, mut bytes) = (self.log.len(), self.bytes);
        for change in self.log.iter().take(most) {
            if changes <= most_changes && bytes <= most_bytes && age(change) <= window.age {
                break;
            }
            changes -= 1;
            bytes -= change.weight();
        }
        self.compacted + (self.log.len() - changes) as Revision
    }

    /// The revisions whose records are needed no more once the changes up to `revision` are forgotten: of
    /// each value that one of them replaced, and of each deletion itself.
    pub fn garbage(&self, revision: Revision) -> impl Iterator<Item = Revision> {
        let forgotten = self
            .changes_after(self.compacted)
            .take_while(move |(at, _)| *at <= revision);
        forgotten.flat_map(|(at, change)| {
            let replaced = change.before.as_ref().map(|version| version.modified);
            replaced.into_iter().chain(change.after.is_none().then_some(at))
        })
    }

    /// Forget the changes up to and including `revision`, as far as there are any.
    pub fn forget(&mut self, revision: Revision) {
        while self.compacted < revision {
            let Some(change) = self.log.pop_front() else { break };
            self.bytes -= change.weight();
            self.compacted += 1;
        }
    }
}

/// What a list found; cheap references into the state.
#[derive(Debug)]
pub(crate) struct Found {
    entries: Vec<(Arc<str>, Arc<Version>)>,
    revision: Revision,
    remaining: usize,
}

impl Found {
    pub fn page(self) -> Page {
        let entries = self
            .entries
            .iter()
            .map(|(key, version)| version.entry(key))
            .collect();
        Page {
            entries,
            revision: self.revision,
            remaining: self.remaining,
        }
    }
}

/// Merge two sequences in the order of their keys; where both have a key, `over` wins.
fn overlaid<K: Ord, V>(
    under: impl Iterator<Item = (K, V)>,
    over: impl Iterator<Item = (K, V)>,
) -> impl Iterator<Item = (K, V)> {
    let (mut under, mut over) = (under.peekable(), over.peekable());
    std::iter::from_fn(move || {
        let order = match (under.peek(), over.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (_, None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => under.next(),
            std::cmp::Ordering::Greater => over.next(),
            std::cmp::Ordering::Equal => {
                under.next();
                over.next()
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Option<&str>, expect: Expect) -> Write {
        Write::new(
            key,
            value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            expect,
        )
        .unwrap()
    }

    /// A state after `count` writes of ten bytes (key and value) each, one a second.
    fn written(count: u64, start: Instant) -> State {
        let mut state = State::default();
        for revision in 1..=count {
            let mut batch = state.batch(start + Duration::from_secs(revision));
            let expect = if revision == 1 {
                Expect::Absent
            } else {
                Expect::At(revision - 1)
            };
            batch.add(write("/key", Some("value!"), expect)).unwrap();
            let changes = batch.into_changes();
            state.apply(changes);
        }
        state
    }

    #[test]
    fn a_batch_checks_each_write_against_the_ones_before_it() {
        let state = written(1, Instant::now());
        let mut batch = state.batch(Instant::now());
        let refused = batch.add(write("/key", Some("2"), Expect::Absent)).unwrap_err();
        assert!(matches!(
            refused,
            Refused {
                error: Error::Exists(_),
                on_pending: false
            }
        ));
        assert_eq!(
            batch
                .add(write("/key", Some("2"), Expect::At(1)))
                .unwrap()
                .revision,
            2
        );
        let refused = batch.add(write("/key", Some("3"), Expect::At(1))).unwrap_err();
        assert!(
            matches!(refused, Refused { error: Error::Conflict { current: Some(entry), .. }, on_pending: true }
                if entry.modified == 2 && entry.created == 1)
        );
        assert_eq!(batch.add(write("/key", None, Expect::At(2))).unwrap().revision, 3);
        let again = batch.add(write("/key", Some("4"), Expect::Absent)).unwrap();
        assert_eq!(again.entry("/key").created, 4);
        assert_eq!(
            batch.changes().map(|(revision, _)| revision).collect::<Vec<_>>(),
            [2, 3, 4]
        );
    }

    #[test]
    fn the_window_ends_at_the_first_limit_that_is_exceeded() {
        let start = Instant::now();
        let state = written(100, start);
        let wide = Window {
            age: Duration::from_secs(1000),
            changes: 1000,
            bytes: 100_000,
        };
        let at = |second| start + Duration::from_secs(second);
        let cases = [
            ("nothing", wide, at(100), 0),
            (
                "changes, not exceeded",
                Window { changes: 100, ..wide },
                at(100),
                0,
            ),
            (
                "changes, down to seven eighths",
                Window { changes: 80, ..wide },
                at(100),
                30,
            ),
            ("bytes", Window { bytes: 800, ..wide }, at(100), 30),
            (
                "age, not yet an eighth over",
                Window {
                    age: Duration::from_secs(80),
                    ..wide
                },
                at(91),
                0,
            ),
            (
                "age",
                Window {
                    age: Duration::from_secs(80),
                    ..wide
                },
                at(100),
                19,
            ),
            (
                "no more than is asked for at once",
                Window { changes: 0, ..wide },
                at(100),
                50,
            ),
        ];
        for (name, window, now, expected) in cases {
            assert_eq!(state.outside(&window, now, 50), expected, "{name}");
        }
    }

    #[test]
    fn garbage_is_what_forgotten_changes_replaced_and_deletions() {
        let mut state = written(3, Instant::now());
        let mut batch = state.batch(Instant::now());
        batch.add(write("/key", None, Expect::At(3))).unwrap();
        batch.add(write("/key", Some("new"), Expect::Absent)).unwrap();
        let changes = batch.into_changes();
        state.apply(changes);
        let garbage = |upto| state.garbage(upto).collect::<Vec<_>>();
        assert_eq!(garbage(0), []);
        assert_eq!(garbage(1), []);
        assert_eq!(garbage(3), [1, 2]);
        assert_eq!(garbage(5), [1, 2, 3, 4]);
    }
}
