//! EndpointSlices and Endpoints follow Services and pods. A pod that turns Ready must be in DNS within
//! milliseconds and this is on the way, so nothing here waits to do more at once, as upstream does.

pub mod endpoint;
pub mod plan;
mod spread;
#[cfg(test)]
pub(crate) mod testing;

use crate::endpoints;
use crate::runtime::{Cache, Context, Key, Moved, Queue, not_found, watch, work};
use endpoint::{selector, selects};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use plan::{Action, SERVICE_NAME};
use std::time::Duration;

/// Keep the slices and Endpoints of every Service right, for ever.
pub async fn run(context: Context) {
    let client = &context.client;
    let queue = Queue::default();
    let (services, pods) = (Cache::default(), Cache::default());
    let (slices, legacy) = (Cache::default(), Cache::default());
    tokio::join!(
        watch(
            Api::<Service>::all(client.clone()),
            Config::default(),
            &services,
            |moved| {
                queue.add(moved.key());
            }
        ),
        watch(
            Api::<Pod>::all(client.clone()),
            Config::default(),
            &pods,
            |moved| {
                affected(&moved, &services).for_each(|key| queue.add(key));
            }
        ),
        // What somebody else has changed or removed is put right.
        watch(
            Api::<EndpointSlice>::all(client.clone()),
            Config::default(),
            &slices,
            |moved| {
                let service = moved
                    .latest()
                    .and_then(|slice| slice.labels().get(SERVICE_NAME).cloned());
                service
                    .into_iter()
                    .for_each(|name| queue.add(Key::new(moved.key().namespace, name)));
            }
        ),
        watch(
            Api::<Endpoints>::all(client.clone()),
            Config::default(),
            &legacy,
            |moved| {
                // Endpoints without a Service are their maker's own, for example a lock, unless this made them.
                let ours = moved.latest().is_some_and(|e| endpoints::is_managed(e));
                let key = moved.key();
                if ours || services.get(&key).is_some() {
                    queue.add(key);
                }
            }
        ),
        work(&queue, context.options.concurrent_syncs, |key| reconcile(
            &context, key
        )),
    );
}

/// The Services whose endpoints a change of a pod may change.
fn affected(moved: &Moved<Pod>, services: &Cache<Service>) -> impl Iterator<Item = Key> {
    let selected = |service: &Service| {
        let seen = [&moved.before, &moved.after];
        seen.into_iter().flatten().any(|pod| selects(service, pod))
    };
    let services = services.in_namespace(&moved.key().namespace);
    let keys: Vec<_> = services
        .iter()
        .filter(|s| selected(s))
        .map(|s| Key::of(s.as_ref()))
        .collect();
    keys.into_iter()
}

/// A lost race is an error like others: the queue brings the key back after a moment.
async fn reconcile(context: &Context, key: Key) -> Result<Option<Duration>, kube::Error> {
    let client = &context.client;
    let legacy: Api<Endpoints> = Api::namespaced(client.clone(), &key.namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let Some(service) = services.get_opt(&key.name).await? else {
        return remove(&legacy, &key.name).await.map(|()| None);
    };
    let Some(selector) = selector(&service) else {
        return Ok(None);
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let pairs: Vec<_> = selector
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let pods = pods
        .list(&ListParams::default().labels(&pairs.join(",")))
        .await?
        .items;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.namespace);
    let named = ListParams::default().labels(&format!("{SERVICE_NAME}={}", key.name));
    let current = slices.list(&named).await?.items;
    let now = (context.clock)().to_string();
    for action in plan::plan(&service, &pods, &current, &now) {
        match action {
            Action::Create(slice) => drop(slices.create(&PostParams::default(), &slice).await?),
            Action::Update(slice) => {
                slices
                    .replace(&slice.name_any(), &PostParams::default(), &slice)
                    .await?;
            }
            Action::Delete(slice) => {
                slices.delete(&slice.name_any(), &exactly(slice.uid())).await?;
            }
        }
    }
    match endpoints::plan(&service, &pods, legacy.get_opt(&key.name).await?.as_ref(), &now) {
        Some(endpoints::Action::Create(wanted)) => {
            legacy.create(&PostParams::default(), &wanted).await?;
        }
        Some(endpoints::Action::Update(wanted)) => {
            legacy.replace(&key.name, &PostParams::default(), &wanted).await?;
        }
        None => {}
    }
    Ok(None)
}

/// Slices go with their owner, the Service; Endpoints have none and go by name, as upstream.
async fn remove(legacy: &Api<Endpoints>, name: &str) -> Result<(), kube::Error> {
    let Some(endpoints) = legacy.get_opt(name).await? else {
        return Ok(());
    };
    match legacy.delete(name, &exactly(endpoints.uid())).await {
        Err(error) if !not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

fn exactly(uid: Option<String>) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid,
        resource_version: None,
    })
}
