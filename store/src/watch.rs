//! Reading: the newest durable state, shared by every reader, and watches as readers of its change log.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use crate::{
    Change, Entry, Error, Page, Revision, Watch,
    memory::{Logged, State},
};

/// One answer of a watch holds at most so many changes, and ends early after so many bytes: a reader far
/// behind neither builds one huge answer nor holds up writers.
const MOST_CHANGES: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// What is durable, for everybody to read. Nothing waits while it holds the lock.
#[derive(Debug)]
pub(crate) struct Published {
    state: RwLock<State>,
    /// The newest revision; `None` once nothing can follow any more. Watches sleep on it.
    newest: watch::Sender<Option<Revision>>,
}

impl Published {
    pub fn new(state: State) -> Published {
        let newest = watch::Sender::new(Some(state.current()));
        Published {
            state: RwLock::new(state),
            newest,
        }
    }

    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Show `changes`, which are durable now, and forget the changes up to `compact`.
    pub fn publish(&self, changes: Vec<Logged>, compact: Revision) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.apply(changes);
        state.forget(compact);
        let current = state.current();
        drop(state);
        self.announce(current);
    }

    /// Decide and show in one step, for a store that has no disk to wait for.
    pub fn update<T>(&self, decide: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let decided = decide(&mut state);
        let current = state.current();
        drop(state);
        self.announce(current);
        decided
    }

    /// Wake the watches if there is anything new for them. Two updates may announce in the wrong order.
    fn announce(&self, current: Revision) {
        self.newest.send_if_modified(|newest| {
            let grown = newest.is_some_and(|newest| newest < current);
            if grown {
                *newest = Some(current);
            }
            grown
        });
    }

    /// Nothing follows: watches end after what there is.
    pub fn end(&self) {
        self.newest.send_replace(None);
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        let found = self.read().get(key).map(|(_, version)| version.clone());
        found.map(|version| version.entry(key))
    }

    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        let found = self.read().list(prefix, after, limit, at)?;
        Ok(found.page())
    }

    pub fn watch(self: &Arc<Self>, prefix: &str, since: Revision) -> Result<Box<dyn Watch>, Error> {
        self.read().check_readable(since)?;
        Ok(Box::new(LogReader {
            newest: self.newest.subscribe(),
            published: self.clone(),
            prefix: prefix.to_owned(),
            cursor: since,
        }))
    }
}

/// A place in the change log.
struct LogReader {
    published: Arc<Published>,
    newest: watch::Receiver<Option<Revision>>,
    prefix: String,
    /// The last change that was returned or passed over.
    cursor: Revision,
}

impl LogReader {
    /// Read on from the cursor: changes under the prefix, none if there are none yet.
    fn read(&mut self) -> Result<Vec<Change>, Error> {
        let state = self.published.read();
        state.check_readable(self.cursor)?;
        let (mut found, mut bytes, mut cursor) = (Vec::new(), 0, self.cursor);
        for (revision, change) in state.changes_after(self.cursor) {
            if found.len() == MOST_CHANGES || bytes > MOST_BYTES {
                break;
            }
            cursor = revision;
            if change.key.starts_with(&self.prefix) {
                bytes += change.after.as_ref().map_or(0, |version| version.value.len());
                found.push((revision, change.clone()));
            }
        }
        drop(state);
        self.cursor = cursor;
        Ok(found
            .into_iter()
            .map(|(revision, change)| change.change(revision))
            .collect())
    }
}

#[async_trait::async_trait]
impl Watch for LogReader {
    async fn next(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            // Marked as seen before the log is read: a change in between wakes the wait below.
            let ended = self.newest.borrow_and_update().is_none();
            let changes = self.read()?;
            if !changes.is_empty() {
                return Ok(changes);
            }
            if ended || self.newest.changed().await.is_err() {
                return Err(Error::Broken("it is closed".to_owned()));
            }
        }
    }

    fn progress(&mut self) -> Revision {
        let state = self.published.read();
        if self.cursor >= state.compacted() {
            let passed = state
                .changes_after(self.cursor)
                .take_while(|(_, change)| !change.key.starts_with(&self.prefix))
                .last();
            self.cursor = passed.map_or(self.cursor, |(revision, _)| revision);
        }
        self.cursor
    }
}
