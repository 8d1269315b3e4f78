//! The store without a disk: the same rules, gone with the process. For tests and throw-away clusters.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Entry, Error, Page, Revision, Store, Watch,
    memory::{Done, Expect, State, Window, Write},
    watch::Published,
};

/// A [`Store`] that lives in memory only. Every call answers at once.
#[derive(Debug)]
pub struct MemoryStore {
    published: Arc<Published>,
    window: Window,
}

impl MemoryStore {
    /// An empty store that keeps the default [`Window`] of changes.
    pub fn new() -> MemoryStore {
        MemoryStore::with_window(Window::default())
    }

    /// An empty store that keeps the given window of changes.
    pub fn with_window(window: Window) -> MemoryStore {
        MemoryStore {
            published: Arc::new(Published::new(State::default())),
            window,
        }
    }

    fn write(&self, key: &str, value: Option<Bytes>, expect: Expect) -> Result<Done, Error> {
        let write = Write::new(key, value, expect)?;
        self.published.update(|state| {
            let now = Instant::now();
            let mut batch = state.batch(now);
            let done = batch.add(write).map_err(|refused| refused.error)?;
            let changes = batch.into_changes();
            state.apply(changes);
            state.forget(state.outside(&self.window, now, usize::MAX));
            Ok(done)
        })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.published.end();
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    fn current(&self) -> Revision {
        self.published.read().current()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.published.get(key))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        self.published.list(prefix, after, limit, at)
    }

    async fn create(&self, key: &str, value: Bytes) -> Result<Entry, Error> {
        self.write(key, Some(value), Expect::Absent)
            .map(|done| done.entry(key))
    }

    async fn update(&self, key: &str, value: Bytes, expected: Revision) -> Result<Entry, Error> {
        self.write(key, Some(value), Expect::At(expected))
            .map(|done| done.entry(key))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, Error> {
        self.write(key, None, Expect::At(expected))
            .map(|done| done.revision)
    }

    fn watch(&self, prefix: &str, since: Revision) -> Result<Box<dyn Watch>, Error> {
        self.published.watch(prefix, since)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.published.update(|state| {
            state.check_compactable(revision)?;
            state.forget(revision);
            Ok(())
        })
    }
}
