//! Keeping the names up to date: watches on what they are made of, and a new zone after each change, at once.

use crate::Config;
use crate::records::{Objects, names};
use crate::zone::{Live, Zone};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Watch until the watches end, which they do only when the client is gone.
pub async fn follow(client: kube::Client, config: Arc<Config>, live: Arc<Live>) {
    let mut services = Kept::<Service>::new(&client);
    let mut slices = Kept::<EndpointSlice>::new(&client);
    let mut pods = Kept::<Pod>::new(&client);
    let mut namespaces = Kept::<Namespace>::new(&client);
    let mut serial = 1;
    loop {
        let changed = tokio::select! {
            Some(event) = services.events.next() => services.take(event),
            Some(event) = slices.events.next() => slices.take(event),
            Some(event) = pods.events.next() => pods.take(event),
            Some(event) = namespaces.events.next() => namespaces.take(event),
            else => return,
        };
        if !changed {
            continue;
        }
        serial += 1;
        let objects = Objects {
            services: services.objects.values().collect(),
            slices: slices.objects.values().collect(),
            pods: pods.objects.values().collect(),
            namespaces: namespaces.objects.values().collect(),
        };
        let complete = services.listed && slices.listed && pods.listed && namespaces.listed;
        live.replace(Zone::new(&config, names(&config, &objects, serial), complete));
    }
}

/// All objects of one kind.
struct Kept<K: Resource> {
    objects: HashMap<(Option<String>, String), K>,
    /// A list that is still coming in; it replaces the objects when it is whole.
    listing: HashMap<(Option<String>, String), K>,
    events: BoxStream<'static, watcher::Result<watcher::Event<K>>>,
    /// Whether there has been a whole list.
    listed: bool,
}

impl<K> Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn new(client: &kube::Client) -> Self {
        let events = watcher(Api::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .boxed();
        Self {
            objects: HashMap::new(),
            listing: HashMap::new(),
            events,
            listed: false,
        }
    }

    /// Whether the names may be others now.
    fn take(&mut self, event: watcher::Result<watcher::Event<K>>) -> bool {
        let key = |object: &K| (object.namespace(), object.name_any());
        match event {
            Ok(watcher::Event::Apply(object)) => drop(self.objects.insert(key(&object), object)),
            Ok(watcher::Event::Delete(object)) => drop(self.objects.remove(&key(&object))),
            Ok(watcher::Event::Init) => {
                self.listing.clear();
                return false;
            }
            Ok(watcher::Event::InitApply(object)) => {
                self.listing.insert(key(&object), object);
                return false;
            }
            Ok(watcher::Event::InitDone) => {
                self.objects = std::mem::take(&mut self.listing);
                self.listed = true;
            }
            Err(error) => {
                tracing::warn!(%error, "a watch of the DNS server failed; trying again");
                return false;
            }
        }
        true
    }
}
