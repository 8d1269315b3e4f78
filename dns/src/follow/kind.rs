//! The objects of one kind, as they are watched.

use super::trouble::Trouble;
use crate::table::{Key, Table};
use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

/// The pauses before a watch that broke is tried again, doubling from the first to the last: an API server that comes back
/// is followed within seconds.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// The objects of one kind.
pub(super) struct Kind<K> {
    pub events: BoxStream<'static, watcher::Result<watcher::Event<K>>>,
    put: fn(&mut Table, &Key, Option<&K>),
    /// Each with the time of the change that made it so, as far as it tells.
    known: HashMap<Key, Option<Timestamp>>,
    /// The times of changes that have been taken, for whoever measures how late they are. What a list tells is older than
    /// the watch, which says nothing about how fast that is.
    pub changed: Vec<Timestamp>,
    /// Objects of a list that is still coming in. They are put when it is whole: what was known before and what has come of
    /// the list so far would together be a state that never was.
    listing: Vec<K>,
    /// Whether there has been a whole list.
    listed: bool,
    /// Why the kind cannot be followed, if it cannot.
    trouble: Option<Trouble>,
}

impl<K> Kind<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    pub fn new(client: &kube::Client, put: fn(&mut Table, &Key, Option<&K>)) -> Self {
        let backoff = ResetTimerBackoff::new(Retry::default(), LAST_RETRY);
        let events = watcher(Api::all(client.clone()), watcher::Config::default())
            .backoff(backoff)
            .boxed();
        Self::of(events, put)
    }

    fn of(
        events: BoxStream<'static, watcher::Result<watcher::Event<K>>>,
        put: fn(&mut Table, &Key, Option<&K>),
    ) -> Self {
        Self {
            events,
            put,
            known: HashMap::new(),
            changed: Vec::new(),
            listing: Vec::new(),
            listed: false,
            trouble: None,
        }
    }

    /// Whether there has been a whole list.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether there has been a whole list, or there cannot be one.
    pub fn is_settled(&self) -> bool {
        self.listed || self.trouble.as_ref().is_some_and(Trouble::is_forbidden)
    }

    /// Why the kind cannot be followed, if it cannot.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Take an event if one is there already; whether it was.
    pub fn take_waiting(&mut self, table: &mut Table) -> bool {
        let Some(Some(event)) = self.events.next().now_or_never() else {
            return false;
        };
        self.take(event, table);
        true
    }

    /// Take one event.
    pub fn take(&mut self, event: watcher::Result<watcher::Event<K>>, table: &mut Table) {
        match event {
            Err(error) => {
                let resource = K::plural(&());
                let group = K::group(&());
                tracing::debug!(%resource, %error, "a watch of the DNS server ended; trying again");
                self.trouble = Trouble::of(&resource, &group, &error).or(self.trouble.take());
                return;
            }
            Ok(watcher::Event::Apply(object)) => {
                let key = key(&object);
                (self.put)(table, &key, Some(&object));
                let changed = changed_at(&object);
                let before = self.known.insert(key, changed);
                // Told again because of something else, it is an old change.
                self.changed.extend(changed.filter(|_| before != Some(changed)));
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key(&object);
                (self.put)(table, &key, None);
                self.known.remove(&key);
            }
            Ok(watcher::Event::Init) => {
                self.listing.clear();
                return;
            }
            Ok(watcher::Event::InitApply(object)) => self.listing.push(object),
            Ok(watcher::Event::InitDone) => {
                let mut gone = std::mem::take(&mut self.known);
                for object in std::mem::take(&mut self.listing) {
                    let key = key(&object);
                    gone.remove(&key);
                    (self.put)(table, &key, Some(&object));
                    self.known.insert(key, changed_at(&object));
                }
                for key in gone.into_keys() {
                    (self.put)(table, &key, None);
                }
                self.listed = true;
            }
        }
        self.trouble = None;
    }
}

/// The time of the change that an EndpointSlice comes from; what else there is tells none.
fn changed_at(object: &impl ResourceExt) -> Option<Timestamp> {
    let text = object
        .annotations()
        .get("endpoints.kubernetes.io/last-change-trigger-time")?;
    text.parse().ok()
}

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
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
