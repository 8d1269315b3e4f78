//! Keeping the names up to date: watches on what they are made of, and new names after each change, at once.

use crate::Config;
use crate::table::{Key, Table};
use crate::zone::{Live, Zone};
use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

/// How many waiting events are taken before the names are renewed: a burst costs one renewal, and a stream of events
/// without end cannot hold it up.
const BURST: usize = 1000;

/// Watch until the watches end, which they do only when the client is gone.
pub async fn follow(client: kube::Client, config: Arc<Config>, live: Arc<Live>) {
    let mut table = Table::new(config.clone());
    let mut services = Kind::new(&client, Table::service);
    let mut slices = Kind::new(&client, Table::slice);
    let mut pods = Kind::new(&client, Table::pod);
    let mut namespaces = Kind::new(&client, Table::namespace);
    loop {
        tokio::select! {
            Some(event) = services.events.next() => services.take(event, &mut table),
            Some(event) = slices.events.next() => slices.take(event, &mut table),
            Some(event) = pods.events.next() => pods.take(event, &mut table),
            Some(event) = namespaces.events.next() => namespaces.take(event, &mut table),
            else => return,
        }
        for _ in 0..BURST {
            let more = services.take_waiting(&mut table)
                | slices.take_waiting(&mut table)
                | pods.take_waiting(&mut table)
                | namespaces.take_waiting(&mut table);
            if !more {
                break;
            }
        }
        let complete = services.listed && slices.listed && pods.listed && namespaces.listed;
        live.replace(Zone::new(&config, table.commit(), complete));
    }
}

/// The objects of one kind, as they are watched.
struct Kind<K> {
    events: BoxStream<'static, watcher::Result<watcher::Event<K>>>,
    put: fn(&mut Table, &Key, Option<&K>),
    known: HashSet<Key>,
    /// Objects of a list that is still coming in; what is not among them when it is whole is gone.
    listing: HashSet<Key>,
    /// Whether there has been a whole list.
    listed: bool,
}

impl<K> Kind<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn new(client: &kube::Client, put: fn(&mut Table, &Key, Option<&K>)) -> Self {
        let events = watcher(Api::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .boxed();
        Self {
            events,
            put,
            known: HashSet::new(),
            listing: HashSet::new(),
            listed: false,
        }
    }

    /// Take an event if one is there already; whether it was.
    fn take_waiting(&mut self, table: &mut Table) -> bool {
        let Some(Some(event)) = self.events.next().now_or_never() else {
            return false;
        };
        self.take(event, table);
        true
    }

    fn take(&mut self, event: watcher::Result<watcher::Event<K>>, table: &mut Table) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Ok(watcher::Event::Apply(object)) => {
                let key = key(&object);
                (self.put)(table, &key, Some(&object));
                self.known.insert(key);
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key(&object);
                (self.put)(table, &key, None);
                self.known.remove(&key);
            }
            Ok(watcher::Event::Init) => self.listing.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                let key = key(&object);
                (self.put)(table, &key, Some(&object));
                self.known.insert(key.clone());
                self.listing.insert(key);
            }
            Ok(watcher::Event::InitDone) => {
                for gone in self.known.difference(&self.listing) {
                    (self.put)(table, gone, None);
                }
                self.known = std::mem::take(&mut self.listing);
                self.listed = true;
            }
            Err(error) => tracing::warn!(%error, "a watch of the DNS server failed; trying again"),
        }
    }
}
