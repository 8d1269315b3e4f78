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
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// The pauses before a watch that broke is tried again. An API in the same process is back at once.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What a watch has seen last, found by key or by what else an object is known by. Clones share the same content.
///
/// It is behind: who decides by it has to wait until it has seen the own writes ([`Cache::reached`]), and to say with
/// every write what it was decided by (a UID, a resourceVersion), so that a stale decision is refused.
pub struct Cache<T>(Arc<Shared<T>>);

struct Shared<T> {
    objects: RwLock<Objects<T>>,
    /// The names, besides its key, that an object is found by.
    known_as: fn(&T) -> Vec<String>,
    seen: tokio::sync::watch::Sender<Seen>,
}

struct Objects<T> {
    by_key: BTreeMap<Key, Arc<T>>,
    by_name: BTreeSet<(String, Key)>,
}

/// How far a watch has come.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// It has shown everything that there was at its start.
    is_listed: bool,
    /// The highest resourceVersion that it has shown.
    version: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self::known_as(|_| vec![])
    }
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Cache<T> {
    /// A cache whose objects are found by these names, too. They have to follow from the object alone.
    pub fn known_as(names: fn(&T) -> Vec<String>) -> Self {
        Self(Arc::new(Shared {
            objects: RwLock::new(Objects {
                by_key: BTreeMap::new(),
                by_name: BTreeSet::new(),
            }),
            known_as: names,
            seen: tokio::sync::watch::Sender::default(),
        }))
    }

    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.read().by_key.get(key).cloned()
    }

    /// Every object that is known as `name`, by namespace and name.
    pub fn named(&self, name: &str) -> Vec<Arc<T>> {
        let objects = self.read();
        let first = (name.to_owned(), Key::new("", ""));
        let named = objects
            .by_name
            .range(first..)
            .take_while(|(known_as, _)| known_as == name);
        named
            .filter_map(|(_, key)| objects.by_key.get(key))
            .cloned()
            .collect()
    }

    /// Every object in `namespace` (empty: those that have none), by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let objects = self.read();
        let of_namespace = objects
            .by_key
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace);
        of_namespace.map(|(_, object)| object.clone()).collect()
    }

    /// Every object, by namespace and name.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.read().by_key.values().cloned().collect()
    }

    /// Wait until the watch has shown everything that there was when it began.
    pub async fn listed(&self) {
        self.until(|seen| seen.is_listed).await;
    }

    /// Wait until the watch has shown a change of this resourceVersion or a later one.
    pub async fn reached(&self, version: u64) {
        self.until(|seen| seen.version >= version).await;
    }

    async fn until(&self, is_enough: impl FnMut(&Seen) -> bool) {
        // Cannot end early: the sender is ours.
        let _ = self.0.seen.subscribe().wait_for(is_enough).await;
    }

    fn has_listed(&self) {
        self.0.seen.send_modify(|seen| seen.is_listed = true);
    }

    fn has_seen(&self, version: Option<u64>) {
        self.0
            .seen
            .send_modify(|seen| seen.version = seen.version.max(version.unwrap_or(0)));
    }

    fn replace(&self, key: Key, object: Option<Arc<T>>) -> Option<Arc<T>> {
        let names = |object: &Option<Arc<T>>| {
            let names = object.as_ref().map(|object| (self.0.known_as)(object));
            let names = names.unwrap_or_default();
            names
                .into_iter()
                .map(|name| (name, key.clone()))
                .collect::<Vec<_>>()
        };
        let mut objects = self.0.objects.write().unwrap_or_else(PoisonError::into_inner);
        let before = match &object {
            Some(object) => objects.by_key.insert(key.clone(), object.clone()),
            None => objects.by_key.remove(&key),
        };
        for name in names(&before) {
            objects.by_name.remove(&name);
        }
        objects.by_name.extend(names(&object));
        before
    }

    fn keys(&self) -> BTreeSet<Key> {
        self.read().by_key.keys().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects<T>> {
        self.0.objects.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object's resourceVersion as a number, as Kubernetes has them since 1.35 (KEP-5504) and petset always had.
pub fn version_of(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
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
                let version = version_of(&object);
                unseen.remove(&key);
                moved(key, Some(Arc::new(object)));
                cache.has_seen(version);
            }
            Ok(Event::Delete(object)) => {
                moved(Key::of(&object), None);
                cache.has_seen(version_of(&object));
            }
            Ok(Event::InitDone) => {
                std::mem::take(&mut unseen)
                    .into_iter()
                    .for_each(|key| moved(key, None));
                cache.has_listed();
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, app: &str) -> Pod {
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": name, "namespace": "ns", "labels": {"app": app}}}),
        )
        .expect("a pod")
    }

    fn put(cache: &Cache<Pod>, pod: Option<Pod>, name: &str) {
        cache.replace(Key::new("ns", name), pod.map(Arc::new));
    }

    fn named(cache: &Cache<Pod>, name: &str) -> Vec<String> {
        cache.named(name).iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn an_object_is_found_by_what_it_is_known_as_now() {
        let cache = Cache::<Pod>::known_as(|pod| pod.labels().values().cloned().collect());
        put(&cache, Some(pod("a", "x")), "a");
        put(&cache, Some(pod("b", "x")), "b");
        put(&cache, Some(pod("c", "xy")), "c");
        assert_eq!(named(&cache, "x"), ["a", "b"]);
        put(&cache, Some(pod("a", "y")), "a");
        put(&cache, None, "b");
        assert!(named(&cache, "x").is_empty());
        assert_eq!(named(&cache, "y"), ["a"]);
        assert_eq!(cache.all().len(), 2);
    }

    #[test]
    fn who_waits_for_a_version_goes_on_when_it_or_a_later_one_was_seen() {
        let cache = Cache::<Pod>::default();
        assert!(cache.listed().now_or_never().is_none());
        cache.has_listed();
        assert!(cache.listed().now_or_never().is_some());
        cache.has_seen(Some(7));
        cache.has_seen(None);
        assert!(cache.reached(7).now_or_never().is_some());
        assert!(cache.reached(8).now_or_never().is_none());
    }
}
