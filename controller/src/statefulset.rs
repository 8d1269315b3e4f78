//! The StatefulSet controller: pods with sticky names and storage, created, scaled and updated in order.
//!
//! [`plan`](plan::plan) decides, purely, as Kubernetes 1.36 does; the rest asks the API and does what was decided.

mod act;
pub mod action;
mod claims;
pub mod event;
mod identity;
mod members;
mod observed;
pub mod plan;
mod revision;
mod status;

pub use observed::Observed;

use crate::runtime::{Cache, Context, Key, Moved, Queue, Teller, tell, watch, work};
use act::Actor;
use events::{Clock, Recorder};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::core::{Selector, SelectorExt};
use kube::runtime::watcher::Config;
use kube::{Api, Client, Resource, ResourceExt};
use observed::observe;
use plan::plan;
use std::time::Duration;

/// Run the controller, for ever.
pub async fn run(context: Context) {
    let Context {
        client,
        clock,
        options,
    } = context;
    let queue = Queue::default();
    let sets = Cache::<StatefulSet>::default();
    let (pods, claims) = (Cache::default(), Cache::default());
    let (teller, telling) = Teller::new();
    let recorder = Recorder::new(client.clone(), "statefulset-controller", None, clock.clone());
    let (queue, sets) = (&queue, &sets);
    tokio::join!(
        watch(Api::all(client.clone()), Config::default(), sets, |moved| queue
            .add(moved.key())),
        watch(Api::all(client.clone()), Config::default(), &pods, |moved| {
            concerned_by_pod(sets, &moved)
                .into_iter()
                .for_each(|key| queue.add(key));
        }),
        watch(Api::all(client.clone()), Config::default(), &claims, |moved| {
            concerned_by_claim(sets, &moved)
                .into_iter()
                .for_each(|key| queue.add(key));
        }),
        work(queue, options.concurrent_syncs, |key| sync(
            &client, &clock, &teller, key
        )),
        tell(telling, recorder),
    );
}

/// Why a sync is to be tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Observe(observed::Error),
    #[error(transparent)]
    Act(#[from] act::Error),
}

async fn sync(client: &Client, clock: &Clock, teller: &Teller, key: Key) -> Result<Option<Duration>, Error> {
    let observed = match observe(client, &key).await {
        Ok(Some(observed)) => observed,
        Ok(None) => return Ok(None),
        // Only a change of the set helps, and that is seen (R4).
        Err(error @ (observed::Error::Selector(_) | observed::Error::Unreadable(_))) => {
            tracing::error!(set = %key, %error, "a StatefulSet is not looked after");
            return Ok(None);
        }
        Err(error) => return Err(Error::Observe(error)),
    };
    let plan = plan(&observed, clock());
    let wake_at = plan.wake_at;
    Actor::new(client, teller, &observed).act(plan).await?;
    Ok(wake_at.map(|at| at.duration_since(clock()).try_into().unwrap_or(Duration::ZERO)))
}

/// The sets that a pod's change may concern (R1): its owner, the set that its name fits, and those that may adopt it.
fn concerned_by_pod(sets: &Cache<StatefulSet>, moved: &Moved<Pod>) -> Vec<Key> {
    let mut keys = vec![];
    for pod in [&moved.before, &moved.after].into_iter().flatten() {
        let namespace = pod.namespace().unwrap_or_default();
        let owner = identity::controller_of(&**pod);
        keys.extend(
            owner
                .filter(|owner| owner.kind == "StatefulSet")
                .map(|owner| Key::new(&namespace, &owner.name)),
        );
        // A pod of another owner blocks the name until it goes (R9).
        let name = pod.name_any();
        let by_name = identity::parent_and_ordinal(&name).map(|(parent, _)| Key::new(&namespace, parent));
        keys.extend(by_name.filter(|key| sets.get(key).is_some()));
        if owner.is_none() {
            let fitting = sets
                .in_namespace(&namespace)
                .into_iter()
                .filter(|set| selects(set, pod));
            keys.extend(fitting.map(|set| Key::of(&*set)));
        }
    }
    keys
}

fn selects(set: &StatefulSet, pod: &Pod) -> bool {
    let selector = set
        .spec
        .as_ref()
        .map(|spec| spec.selector.clone())
        .unwrap_or_default();
    Selector::try_from(selector).is_ok_and(|selector| selector.matches(pod.labels()))
}

/// The sets that wait for a claim to go, or miss it.
fn concerned_by_claim(sets: &Cache<StatefulSet>, moved: &Moved<PersistentVolumeClaim>) -> Vec<Key> {
    let is_going = moved
        .after
        .as_ref()
        .is_none_or(|claim| claim.meta().deletion_timestamp.is_some());
    let Some(claim) = moved.latest().filter(|_| is_going) else {
        return vec![];
    };
    let sets = sets.in_namespace(&claim.namespace().unwrap_or_default());
    let concerned = sets
        .into_iter()
        .filter(|set| claims::is_of(set, &claim.name_any()));
    concerned.map(|set| Key::of(&*set)).collect()
}
