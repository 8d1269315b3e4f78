//! A revisioned store of bytes: the contract that the API server stands on.
//!
//! Every write gets the next number of one total order, its *revision* (1, 2, 3 … without gaps, never
//! repeated, over every restart). A write is answered only when it is durable, and only then can it be
//! read or watched. The contract is small enough that etcd could stand behind it; [`SledStore`] is the
//! embedded default.

mod ephemeral;
mod memory;
mod record;
mod sled;
mod watch;

use bytes::Bytes;

pub use crate::{
    ephemeral::MemoryStore,
    memory::{KEY_LIMIT, VALUE_LIMIT, Window},
    sled::{OpenError, Options, SledStore},
};

/// A point in the one total order of writes; 0 is the empty store before the first write.
pub type Revision = u64;

/// One key as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, for example `/apps/statefulsets/default/web`.
    pub key: String,
    /// What the last write put there.
    pub value: Bytes,
    /// The revision of the write that created the key (a deleted and re-created key starts anew).
    pub created: Revision,
    /// The revision of the last write: what compare-and-swap compares.
    pub modified: Revision,
}

/// One write: what stood at the key before and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The write's own revision.
    pub revision: Revision,
    /// The key that was written.
    pub key: String,
    /// What was there before; `None` when the write created the key.
    pub before: Option<Entry>,
    /// What is there now; `None` when the write deleted the key.
    pub after: Option<Entry>,
}

/// A part of a list, all of it as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in the order of their keys.
    pub entries: Vec<Entry>,
    /// The revision at which the list is true.
    pub revision: Revision,
    /// How many more entries follow those given here.
    pub remaining: usize,
}

/// Why a read or a write was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Create found the key taken.
    #[error("key {0} exists")]
    Exists(String),
    /// Update or delete expected another revision than the one there (`None`: the key is not there).
    #[error("key {key} was modified: it is at {current:?}")]
    Conflict {
        /// The key that was to be written.
        key: String,
        /// What stands there now.
        current: Option<Entry>,
    },
    /// A list or watch asked for a revision that is compacted away; the oldest one still held is given.
    #[error("revision {requested} has been compacted; the oldest is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can still be listed or watched from.
        oldest: Revision,
    },
    /// A read asked for a revision that has not been written yet.
    #[error("revision {requested} is in the future; the newest is {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest durable revision.
        current: Revision,
    },
    /// The value (over [`VALUE_LIMIT`]) or the key (over [`KEY_LIMIT`]) is larger than the store takes.
    #[error("value or key of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The store cannot write: after an I/O error until a restart, on a full disk until there is room
    /// again, for ever once closed. Whether a write that was under way happened is unknown. Reads go on.
    #[error("the store cannot write: {0}")]
    Broken(String),
}

/// The contract. All methods may be called at once from any task; a call that is dropped before it
/// answers may or may not have written, never half.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest durable revision.
    fn current(&self) -> Revision;

    /// What stands at `key` now.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// The entries whose keys start with `prefix` and sort after `after`, at most `limit` of them
    /// (0: all), as of revision `at` (`None`: now).
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error>;

    /// Write a key that is not there; its entry is returned once it is durable.
    async fn create(&self, key: &str, value: Bytes) -> Result<Entry, Error>;

    /// Write a key whose last write was at `expected`.
    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Entry, Error>;

    /// Delete a key whose last write was at `expected`; the deletion's own revision is returned.
    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, Error>;

    /// Every change with a key under `prefix` and a revision after `since`: the past, then the future.
    fn watch(&self, prefix: &str, since: Revision) -> Result<Box<dyn Watch>, Error>;

    /// Forget changes up to and including `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
}

/// A reader of the change log. It holds no buffer of its own: one that falls behind the kept window gets
/// [`Error::Compacted`].
#[async_trait::async_trait]
pub trait Watch: Send {
    /// The next changes, at least one, in the order of their revisions; waits until there are some.
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Vec<Change>, Error>;

    /// Every change up to this revision has been returned or did not concern the prefix: what a bookmark
    /// may promise.
    fn progress(&mut self) -> Revision;
}
