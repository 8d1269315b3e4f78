//! Which pods the EndpointSlices of a Service show: one watch for each Service whose pods wait for that, for as long as one
//! does. Many that start together share it.

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The Services that are followed, by namespace and name.
#[derive(Default)]
pub(crate) struct Followed(Mutex<HashMap<(String, String), Weak<Slices>>>);

impl Followed {
    /// The slices of a Service, followed from now on if they are not yet.
    pub fn of(&self, client: &Client, namespace: &str, service: &str) -> Arc<Slices> {
        let key = (namespace.to_owned(), service.to_owned());
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slices) = followed.get(&key).and_then(Weak::upgrade) {
            return slices;
        }
        followed.retain(|_, slices| slices.strong_count() > 0);
        let slices = Arc::new(Slices::follow(client.clone(), namespace, service));
        followed.insert(key, Arc::downgrade(&slices));
        slices
    }
}

/// UIDs of pods that are published, by slice.
type Shown = HashMap<String, HashSet<String>>;

/// The slices of one Service, followed until this is dropped.
pub(crate) struct Slices {
    shown: watch::Receiver<Shown>,
    following: JoinHandle<()>,
}

impl Drop for Slices {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Slices {
    fn follow(client: Client, namespace: &str, service: &str) -> Self {
        let (sender, shown) = watch::channel(Shown::new());
        let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
        let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
        let following = tokio::spawn(async move {
            let mut events = watcher(api, config).default_backoff().boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        sender.send_if_modified(|shown| note(shown, event));
                    }
                    Err(error) => tracing::debug!(%error, "a watch on EndpointSlices failed; trying again"),
                }
            }
        });
        Self { shown, following }
    }

    /// Wait until the pod of this UID is published.
    pub async fn until_listed(&self, uid: &str) {
        let mut shown = self.shown.clone();
        let is_listed = |shown: &Shown| shown.values().any(|uids| uids.contains(uid));
        if shown.wait_for(is_listed).await.is_err() {
            // The watch has ended, which only a client that is gone makes it do: nobody will ever say it.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether there is something that was not shown before.
fn note(shown: &mut Shown, event: watcher::Event<EndpointSlice>) -> bool {
    match event {
        watcher::Event::Apply(slice) | watcher::Event::InitApply(slice) => {
            shown.insert(slice.name_any(), published(&slice));
            true
        }
        watcher::Event::Delete(slice) => {
            shown.remove(&slice.name_any());
            false
        }
        watcher::Event::Init => {
            shown.clear();
            false
        }
        watcher::Event::InitDone => false,
    }
}

fn published(slice: &EndpointSlice) -> HashSet<String> {
    let endpoints = slice.endpoints.iter().flatten();
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    ready
        .filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone())
        .collect()
}
