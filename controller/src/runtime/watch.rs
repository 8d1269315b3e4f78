//! A watch that never ends and never misses: it says what moved, with the object before and after, and
//! keeps what it has seen. After a gap it lists again and compares, so a deletion in the gap is told, too.

use super::Key;
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The pauses before a watch that broke is tried again. An API in the same process is back at once.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What a watch has seen last: good for finding out whom a change concerns, too old for deciding. Clones share the
/// same content.
pub struct Cache<T>(Arc<RwLock<BTreeMap<Key, Arc<T>>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Cache<T> {
    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Every object in `namespace` (empty: those that have none), by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let objects = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace);
        of_namespace.map(|(_, object)| object.clone()).collect()
    }

    /// Every object, by namespace and name.
    pub fn all(&self) -> Vec<Arc<T>> {
        let objects = self.0.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().cloned().collect()
    }

    fn replace(&self, key: Key, object: Option<Arc<T>>) -> Option<Arc<T>> {
        let mut objects = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match object {
            Some(object) => objects.insert(key, object),
            None => objects.remove(&key),
        }
    }

    fn keys(&self) -> BTreeSet<Key> {
        let objects = self.0.read().unwrap_or_else(PoisonError::into_inner);
        objects.keys().cloned().collect()
    }
}

/// One change: at least one of the two is there.
pub struct Moved<T> {
    key: Key,
    /// What was seen there before.
    pub before: Option<Arc<T>>,
    /// What is there now; nothing when it was deleted.
    pub after: Option<Arc<T>>,
}

impl<T> Moved<T> {
    /// Where it moved.
    pub fn key(&self) -> Key {
        self.key.clone()
    }

    /// The object as last seen.
    pub fn latest(&self) -> Option<&Arc<T>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// Watch `api` for ever, keeping `cache` up to date and calling `on_move` after each change (also for what is
/// there at the start). Errors are logged and the watch begins anew. `managedFields` are left out.
pub async fn watch<T>(
    api: Api<T>,
    config: watcher::Config,
    cache: &Cache<T>,
    mut on_move: impl FnMut(Moved<T>),
) where
    T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let backoff = ResetTimerBackoff::new(Retry::default(), LAST_RETRY);
    let mut events = pin!(watcher(api, config).backoff(backoff));
    // What an ongoing list has not shown yet.
    let mut unseen = BTreeSet::new();
    while let Some(event) = events.next().await {
        let mut moved = |key: Key, after: Option<Arc<T>>| {
            let before = cache.replace(key.clone(), after.clone());
            if before.is_some() || after.is_some() {
                on_move(Moved { key, before, after });
            }
        };
        match event {
            Ok(Event::Init) => unseen = cache.keys(),
            Ok(Event::InitApply(mut object) | Event::Apply(mut object)) => {
                object.managed_fields_mut().clear();
                let key = Key::of(&object);
                unseen.remove(&key);
                moved(key, Some(Arc::new(object)));
            }
            Ok(Event::Delete(object)) => moved(Key::of(&object), None),
            Ok(Event::InitDone) => std::mem::take(&mut unseen)
                .into_iter()
                .for_each(|key| moved(key, None)),
            Err(error) => tracing::warn!(%error, "watch failed, watching again"),
        }
    }
}

/// Pauses that double.
struct Retry(Duration);

impl Default for Retry {
    fn default() -> Self {
        Self(FIRST_RETRY)
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_RETRY);
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        *self = Self::default();
    }
}
