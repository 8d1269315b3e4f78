//! The StatefulSet controller: pods with sticky names and storage, created, scaled and updated in order.
//!
//! [`plan`](plan::plan) decides, purely, as Kubernetes 1.36 does; the rest asks the API and does what was decided.

mod act;
pub mod action;
mod cached;
mod claims;
mod condition;
pub mod event;
mod growth;
mod identity;
mod members;
mod observed;
pub mod plan;
mod replica;
mod revision;
mod rollout;
mod service;
mod status;
pub mod wait;

pub use observed::{Observed, Surroundings, observe};

use crate::runtime::{Cache, Context, Key, Moved, Queue, Teller, tell, watch, work};
use act::{Actor, Written};
use cached::Caches;
use events::Recorder;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::runtime::watcher::Config;
use kube::{Api, Resource, ResourceExt};
use plan::plan;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a sync waits at most until the watches have shown what it wrote.
const WATCH_LAG: Duration = Duration::from_secs(2);

/// Run the controller, for ever.
pub async fn run(context: Context) {
    let client = context.client.clone();
    let concurrent = context.options.concurrent_syncs;
    let (teller, telling) = Teller::new();
    let recorder = Recorder::new(
        client.clone(),
        "statefulset-controller",
        None,
        context.clock.clone(),
    );
    let queue = Queue::default();
    let caches = Caches::default();
    let controller = Controller {
        context,
        teller,
        caches: &caches,
        compared: Mutex::default(),
    };
    let all = Config::default;
    let add = |keys: Vec<Key>| keys.into_iter().for_each(|key| queue.add(key));
    tokio::join!(
        watch(Api::all(client.clone()), all(), &caches.sets, |moved| queue
            .add(moved.key())),
        watch(Api::all(client.clone()), all(), &caches.pods, |moved| add(
            concerned_by_pod(&caches.sets, &moved)
        )),
        watch(Api::all(client.clone()), all(), &caches.claims, |moved| add(
            concerned_by_claim(&caches.sets, &moved)
        )),
        watch(Api::all(client.clone()), all(), &caches.services, |moved| add(
            concerned_by_service(&caches.sets, &moved)
        )),
        watch(Api::all(client.clone()), all(), &caches.revisions, |_| {}),
        watch(Api::all(client.clone()), all(), &caches.classes, |_| {}),
        work(&queue, concurrent, |key| controller.sync(key)),
        tell(telling, recorder),
    );
}

/// Why a sync is to be tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Observe(#[from] observed::Error),
    #[error(transparent)]
    Act(#[from] act::Error),
}

/// What a set's newest revision was compared with: the set's UID and generation, and the revision's resourceVersion.
type Comparison = (Option<String>, Option<i64>, Option<String>);

/// What a sync works with.
struct Controller<'a> {
    context: Context,
    teller: Teller,
    caches: &'a Caches,
    /// The last comparison of each set's newest revision with its template, and whether they were the same (R16).
    compared: Mutex<HashMap<Key, (Comparison, Option<String>)>>,
}

impl Controller<'_> {
    async fn sync(&self, key: Key) -> Result<Option<Duration>, Error> {
        self.caches.listed().await;
        let observed = match self.observe(&key).await {
            Ok(Some(observed)) => observed,
            Ok(None) => {
                self.compared().remove(&key);
                return Ok(None);
            }
            // Only a change of the set helps, and that is seen (R4).
            Err(error @ (observed::Error::Selector(_) | observed::Error::Unreadable(_))) => {
                tracing::error!(set = %key, %error, "a StatefulSet is not looked after");
                return Ok(None);
            }
            Err(error) => return Err(Error::Observe(error)),
        };
        let plan = plan(&observed, (self.context.clock)());
        let wake_at = plan.wake_at;
        let written = Written::default();
        let acted = Actor::new(&self.context.client, &self.teller, &observed, &written)
            .act(plan)
            .await;
        self.see(&written).await;
        acted?;
        let now = (self.context.clock)();
        Ok(wake_at.map(|at| at.duration_since(now).try_into().unwrap_or(Duration::ZERO)))
    }

    /// The set is asked for afresh; around it, what the watches have seen is as good: it holds every own write.
    async fn observe(&self, key: &Key) -> Result<Option<Observed>, observed::Error> {
        let client = &self.context.client;
        let Some(stored) = observed::stored(client, key).await? else {
            return Ok(None);
        };
        let alone = Observed::new(&stored)?;
        let around = self.caches.around(&alone.set);
        let mut observed = alone.among(around);
        if let Some(newest) = revision::newest_of_another_template(&observed) {
            let comparison = (
                observed.set.uid(),
                observed.set.metadata.generation,
                newest.resource_version(),
            );
            let known = self.compared().get(key).cloned();
            observed.same_template = match known {
                Some((earlier, outcome)) if earlier == comparison => outcome,
                _ => {
                    let outcome = observed::same_template(client, &observed).await?;
                    self.compared().insert(key.clone(), (comparison, outcome.clone()));
                    outcome
                }
            };
        }
        Ok(Some(observed))
    }

    /// Wait until the watches have shown what was written, so that the next sync of this set does not do it again.
    async fn see(&self, written: &Written) {
        let all = async {
            tokio::join!(
                self.caches.pods.reached(written.pods.load(Ordering::Relaxed)),
                self.caches.claims.reached(written.claims.load(Ordering::Relaxed)),
                self.caches
                    .revisions
                    .reached(written.revisions.load(Ordering::Relaxed)),
            );
        };
        if tokio::time::timeout(WATCH_LAG, all).await.is_err() {
            tracing::debug!("the watches lag behind; what is done a second time will be refused");
        }
    }

    fn compared(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (Comparison, Option<String>)>> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sets that a pod's change may concern (R1): its owner, and the set that its name fits, which may adopt it or
/// wait for the name to become free (R9).
fn concerned_by_pod(sets: &Cache<StatefulSet>, moved: &Moved<Pod>) -> Vec<Key> {
    let mut keys = vec![];
    for pod in [&moved.before, &moved.after].into_iter().flatten() {
        let namespace = pod.namespace().unwrap_or_default();
        let owner = identity::controller_of(&**pod).filter(|owner| owner.kind == "StatefulSet");
        keys.extend(owner.map(|owner| Key::new(&namespace, &owner.name)));
        let name = pod.name_any();
        let by_name = identity::parent_and_ordinal(&name).map(|(parent, _)| Key::new(&namespace, parent));
        keys.extend(by_name.filter(|key| sets.get(key).is_some()));
    }
    keys
}

/// The sets that wait for a claim to go, miss it, or have it grow.
fn concerned_by_claim(sets: &Cache<StatefulSet>, moved: &Moved<PersistentVolumeClaim>) -> Vec<Key> {
    let Some(claim) = moved.latest() else {
        return vec![];
    };
    let is_going = moved
        .after
        .as_ref()
        .is_none_or(|claim| claim.meta().deletion_timestamp.is_some());
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    claims::possible_sets(&name)
        .map(|set| Key::new(&namespace, set))
        .filter(|key| {
            let set = sets.get(key);
            set.is_some_and(|set| claims::is_of(&set, &name) && (is_going || claims::may_grow(&set)))
        })
        .collect()
}

/// The sets whose pods get their names from a Service.
fn concerned_by_service(sets: &Cache<StatefulSet>, moved: &Moved<Service>) -> Vec<Key> {
    let key = moved.key();
    let governed = cached::governed_by(&key.namespace, &key.name);
    sets.named(&governed).iter().map(|set| Key::of(&**set)).collect()
}
