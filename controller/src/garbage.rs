//! Garbage collection: what nobody owns any more is deleted. Background, foreground and orphaning deletion
//! over every kind that the API knows. The graph is fed by watches and says whom to look at; what is done is
//! decided by what the API says then.

pub mod graph;
pub mod plan;

use crate::kinds::{Kind, Metadata, discover};
use crate::runtime::{Cache, Context, Moved, Queue, Teller, not_found, tell, watch, work};
use events::{EventType, Recorder};
use futures::future::join_all;
use graph::{Graph, Node, Place, Uid};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::discovery::verbs;
use kube::runtime::watcher::Config;
use plan::{Action, Owner, plan};
use serde_json::json;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How many objects are looked at at once (upstream's default).
const CONCURRENT: usize = 20;

/// How many UIDs of objects that are gone are remembered, to save asking for them again.
const REMEMBERED: usize = 100_000;

/// The pause before asking again which kinds there are.
const DISCOVERY_RETRY: Duration = Duration::from_millis(200);

/// The collector.
struct Garbage {
    context: Context,
    kinds: Vec<Kind>,
    queue: Queue<Uid>,
    seen: Mutex<Seen>,
    vanished: UnboundedSender<String>,
    teller: Teller,
}

/// What the watches have seen.
#[derive(Default)]
struct Seen {
    graph: Graph,
    /// Never to come back: a UID is used once.
    gone: HashSet<Uid>,
}

/// Collect, for ever. The namespace of every object that goes is told to `vanished`.
pub async fn run(context: Context, vanished: UnboundedSender<String>) {
    let kinds = loop {
        match discover(&context.client).await {
            Ok(kinds) => break kinds,
            Err(error) => tracing::warn!(%error, "cannot ask which kinds there are, asking again"),
        }
        tokio::time::sleep(DISCOVERY_RETRY).await;
    };
    // Events own nothing, are owned by nobody and are many.
    let collected = |kind: &Kind| kind.can(verbs::WATCH) && kind.resource.kind != "Event";
    let (client, clock) = (context.client.clone(), context.clock.clone());
    let recorder = Recorder::new(client.clone(), "garbage-collector-controller", None, clock);
    let (teller, telling) = Teller::new();
    let garbage = Garbage {
        context,
        kinds: kinds.into_iter().filter(collected).collect(),
        queue: Queue::default(),
        seen: Mutex::default(),
        vanished,
        teller,
    };
    let caches: Vec<Cache<Metadata>> = garbage.kinds.iter().map(|_| Cache::default()).collect();
    let watches = garbage.kinds.iter().zip(&caches).map(|(kind, cache)| {
        watch(kind.api(&client, None), Config::default(), cache, |moved| {
            garbage.moved(kind, &moved);
        })
    });
    tokio::join!(
        join_all(watches),
        work(&garbage.queue, CONCURRENT, |uid| garbage.look(uid)),
        tell(telling, recorder),
    );
}

/// What the watches tell.
impl Garbage {
    fn moved(&self, kind: &Kind, moved: &Moved<Metadata>) {
        let node =
            |object: &Metadata| Node::new(&kind.resource.api_version, &kind.resource.kind, &object.metadata);
        let before = moved.before.as_deref().and_then(node);
        let after = moved.after.as_deref().and_then(node);
        let mut look = BTreeSet::new();
        let mut seen = self.seen();
        // Gone, or replaced by another of its name.
        if let Some(gone) = before.filter(|before| after.as_ref().is_none_or(|after| after.uid != before.uid))
        {
            look.extend(seen.graph.remove(&gone.uid));
            if seen.gone.len() >= REMEMBERED {
                seen.gone.clear();
            }
            seen.gone.insert(gone.uid);
            if let Some(namespace) = gone.place.namespace {
                // Nobody listens any more only when the controllers are going down.
                let _ = self.vanished.send(namespace);
            }
        }
        if let Some(after) = after {
            look.extend(seen.graph.apply(after));
        }
        drop(seen);
        look.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No code that can panic runs under the lock, so what it guards is whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Observing.
impl Garbage {
    /// Look at one object and do what is to be done.
    async fn look(&self, uid: Uid) -> Result<Option<Duration>, kube::Error> {
        let known = self.seen().graph.get(&uid).cloned();
        let Some(known) = known else { return Ok(None) };
        let Some(object) = self.read(&known.place, &uid).await? else {
            return Ok(None);
        };
        let mut owners = Vec::new();
        if !object.deleting {
            for reference in &object.owners {
                owners.push(self.owner(&object, reference).await?);
            }
        }
        let mut dependents: Vec<Node> = self.seen().graph.dependents(&uid).cloned().collect();
        // What is let go without its dependents does not come back for one the watches have not seen yet.
        let final_word = object.orphans_dependents()
            || (object.awaits_dependents() && !dependents.iter().any(|node| node.blocks(&uid)));
        if final_word {
            dependents = self.live_dependents(&object).await?;
        }
        let borrowed: Vec<_> = dependents.iter().collect();
        for action in plan(&object, &owners, &borrowed) {
            self.act(&object, &dependents, action).await?;
        }
        Ok(None)
    }

    fn kind(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
        let wanted = group(api_version).unwrap_or_default();
        let same = |k: &&Kind| k.resource.kind == kind && k.resource.group == wanted;
        self.kinds.iter().find(same)
    }

    /// The object as it is now; `None` if it is gone.
    async fn read(&self, place: &Place, uid: &str) -> Result<Option<Node>, kube::Error> {
        let Some(kind) = self.kind(&place.api_version, &place.kind) else {
            return Ok(None);
        };
        let api = kind.api(&self.context.client, place.namespace.as_deref());
        let found = api.get_metadata_opt(&place.name).await?;
        let node = found.and_then(|found| Node::new(&place.api_version, &place.kind, &found.metadata));
        Ok(node.filter(|node| node.uid == uid))
    }

    async fn owner(&self, object: &Node, reference: &OwnerReference) -> Result<Owner, kube::Error> {
        let namespace = &object.place.namespace;
        {
            let seen = self.seen();
            if seen.gone.contains(&reference.uid) {
                return Ok(Owner::Absent);
            }
            if let Some(owner) = seen.graph.get(&reference.uid)
                && owner.place.kind == reference.kind
                && owner.place.name == reference.name
                && (owner.place.namespace.is_none() || owner.place.namespace == *namespace)
            {
                // Should it go right now, that change brings the object here again.
                return Ok(state(owner));
            }
        }
        let Some(kind) = self.kind(&reference.api_version, &reference.kind) else {
            // Nothing can be said about a kind that nobody knows.
            return Ok(Owner::Solid);
        };
        if kind.namespaced && namespace.is_none() {
            // A cluster-scoped object cannot be owned by one in a namespace: it is never collected.
            return Ok(Owner::Solid);
        }
        let place = Place {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            namespace: namespace.clone().filter(|_| kind.namespaced),
            name: reference.name.clone(),
        };
        let owner = self.read(&place, &reference.uid).await?;
        if owner.is_none() {
            self.tell_wrong_namespace(object, reference);
        }
        Ok(owner.as_ref().map_or(Owner::Absent, state))
    }

    /// An owner that is in another namespace is no owner; somebody may wonder.
    fn tell_wrong_namespace(&self, object: &Node, reference: &OwnerReference) {
        let elsewhere = self.seen().graph.get(&reference.uid).is_some();
        let (Some(namespace), true) = (&object.place.namespace, elsewhere) else {
            return;
        };
        let regarding = ObjectReference {
            api_version: Some(object.place.api_version.clone()),
            kind: Some(object.place.kind.clone()),
            namespace: Some(namespace.clone()),
            name: Some(object.place.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        let OwnerReference {
            api_version,
            kind,
            name,
            uid,
            ..
        } = reference;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace \"{namespace}\""
        );
        self.teller.tell(
            &regarding,
            EventType::Warning,
            "OwnerRefInvalidNamespace",
            message,
        );
    }

    /// The dependents there are now, whatever the watches have seen.
    async fn live_dependents(&self, object: &Node) -> Result<Vec<Node>, kube::Error> {
        let namespace = object.place.namespace.as_deref();
        let mut dependents = Vec::new();
        for kind in self
            .kinds
            .iter()
            .filter(|kind| kind.namespaced || namespace.is_none())
        {
            let api = kind.api(&self.context.client, namespace);
            let listed = api.list_metadata(&ListParams::default()).await?.items;
            dependents.extend(listed.iter().filter_map(|found| {
                let owners = found.metadata.owner_references.iter().flatten();
                let owned = owners.map(|owner| &owner.uid).any(|uid| *uid == object.uid);
                let node = Node::new(&kind.resource.api_version, &kind.resource.kind, &found.metadata);
                node.filter(|_| owned)
            }));
        }
        Ok(dependents)
    }
}

fn state(owner: &Node) -> Owner {
    match owner.awaits_dependents() {
        true => Owner::AwaitsDependents,
        false => Owner::Solid,
    }
}

/// Acting.
impl Garbage {
    async fn act(&self, object: &Node, dependents: &[Node], action: Action) -> Result<(), kube::Error> {
        let of = |uids: &[Uid]| {
            dependents
                .iter()
                .filter(|node| uids.contains(&node.uid))
                .collect::<Vec<_>>()
        };
        match action {
            Action::Delete(policy) => self.delete(object, policy).await?,
            Action::Disown(gone) => {
                let left = object.owners.iter().filter(|owner| !gone.contains(&owner.uid));
                self.patch(object, json!({"ownerReferences": left.collect::<Vec<_>>()}))
                    .await?;
            }
            Action::Release(uids) => {
                for dependent in of(&uids) {
                    let left = dependent.owners.iter().filter(|owner| owner.uid != object.uid);
                    self.patch(dependent, json!({"ownerReferences": left.collect::<Vec<_>>()}))
                        .await?;
                }
            }
            Action::Unblock(uids) => {
                for dependent in of(&uids) {
                    let mut owners = dependent.owners.clone();
                    let ours = owners.iter_mut().filter(|owner| owner.uid == object.uid);
                    ours.for_each(|owner| owner.block_owner_deletion = Some(false));
                    self.patch(dependent, json!({"ownerReferences": owners})).await?;
                }
            }
            Action::LookAt(uids) => uids.into_iter().for_each(|uid| self.queue.add(uid)),
            Action::RemoveFinalizer(finalizer) => {
                let left = object.finalizers.iter().filter(|f| *f != finalizer);
                self.patch(object, json!({"finalizers": left.collect::<Vec<_>>()}))
                    .await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, object: &Node, policy: PropagationPolicy) -> Result<(), kube::Error> {
        let Some(kind) = self.kind(&object.place.api_version, &object.place.kind) else {
            return Ok(());
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = kind.api(&self.context.client, object.place.namespace.as_deref());
        match api.delete(&object.place.name, &params).await {
            Err(error) if !not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Patch the metadata of exactly the version that was seen.
    async fn patch(&self, object: &Node, mut metadata: serde_json::Value) -> Result<(), kube::Error> {
        let Some(kind) = self.kind(&object.place.api_version, &object.place.kind) else {
            return Ok(());
        };
        metadata["uid"] = json!(object.uid);
        metadata["resourceVersion"] = json!(object.resource_version);
        let api = kind.api(&self.context.client, object.place.namespace.as_deref());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match api
            .patch_metadata(&object.place.name, &PatchParams::default(), &patch)
            .await
        {
            Err(error) if !not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
