//! PersistentVolumes and their claims: binding, provisioning of directories, protection, reclaim. Every
//! StorageClass's provisioner is played by this controller; on one machine a volume is a directory.

mod act;
pub mod action;
pub mod claim;
#[cfg(test)]
mod convergence;
pub mod directory;
pub mod expand;
pub mod last_use;
pub mod matching;
pub mod protection;
pub mod provision;
pub mod quota;
pub mod reclaim;
#[cfg(test)]
pub(crate) mod testing;
pub mod usage;

use crate::runtime::{Cache, Context, Key, Moved, Queue, Teller, tell, watch, work};
use action::Action;
use events::Recorder;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use last_use::LastUse;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use usage::Usage;

/// Marks the class that claims get which do not say any; the second is its older name.
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// What can be out of order: a claim, or a volume by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Concern {
    Claim(Key),
    Volume(String),
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Concern::Claim(key) => write!(f, "claim {key}"),
            Concern::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

/// Why a sync has to be done again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("cannot make the directory {path}: {source}")]
    Make { path: PathBuf, source: std::io::Error },
    #[error("the directory {path} cannot hold more: {source}")]
    Expand { path: PathBuf, source: std::io::Error },
    #[error("cannot remove the directory {path}: {source}")]
    Remove { path: PathBuf, source: std::io::Error },
}

/// The controller and what its watches have seen.
struct Volumes {
    context: Context,
    queue: Queue<Concern>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    pods: Cache<Pod>,
    teller: Teller,
    usage: Usage,
    last_use: LastUse,
}

/// Bind, provision, protect and reclaim, for ever.
pub async fn run(context: Context) {
    let client = context.client.clone();
    let concurrent = context.options.concurrent_syncs;
    let recorder = Recorder::new(
        client.clone(),
        "persistentvolume-controller",
        None,
        context.clock.clone(),
    );
    let (teller, telling) = Teller::new();
    let this = Volumes {
        usage: Usage::new(context.options.volumes_dir.clone()),
        last_use: LastUse::new(context.clock.clone()),
        context,
        queue: Queue::default(),
        claims: Cache::default(),
        volumes: Cache::default(),
        pods: Cache::default(),
        teller,
    };
    let classes = Cache::default();
    let all = Config::default;
    tokio::join!(
        watch(Api::all(client.clone()), all(), &this.claims, |moved| this
            .claim_moved(&moved)),
        watch(Api::all(client.clone()), all(), &this.volumes, |moved| this
            .volume_moved(&moved)),
        watch(Api::all(client.clone()), all(), &this.pods, |moved| this
            .pod_moved(&moved)),
        watch(Api::all(client.clone()), all(), &classes, |moved| this
            .class_moved(&moved)),
        work(&this.queue, concurrent, |concern| this.sync(concern)),
        tell(telling, recorder),
        this.usage
            .run(client.clone(), &this.claims, &this.volumes, &this.teller),
        this.last_use.run(client.clone()),
    );
}

/// Whom a change concerns.
impl Volumes {
    fn claim_moved(&self, moved: &Moved<PersistentVolumeClaim>) {
        self.queue.add(Concern::Claim(moved.key()));
        if let (Some(claim), None) = (&moved.before, &moved.after) {
            let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            self.queue.add(Concern::Volume(
                named.unwrap_or_else(|| provision::volume_name(claim)),
            ));
        }
    }

    fn volume_moved(&self, moved: &Moved<PersistentVolume>) {
        let name = moved.key().name;
        self.usage.volume_moved(&name);
        for volume in [&moved.before, &moved.after].into_iter().flatten() {
            match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
                Some(reference) => self.queue.add(Concern::Claim(Key::new(
                    reference.namespace.clone().unwrap_or_default(),
                    reference.name.clone().unwrap_or_default(),
                ))),
                None => self.add_pending(matching::volume_class(volume), Some(&name)),
            }
        }
        self.queue.add(Concern::Volume(name));
    }

    fn pod_moved(&self, moved: &Moved<Pod>) {
        if let (Some(pod), None) = (&moved.before, &moved.after) {
            self.last_use.pod_gone(pod, &self.claims, &self.volumes);
        }
        // For the claims it mentions counts that it has got a node, is found to get none, or has gone
        // (P8, P10). A new one is the scheduler's business first.
        let standing = |pod: &Pod| (protection::is_placed(pod), protection::is_unschedulable(pod));
        let before = moved.before.as_deref().map(standing).unwrap_or_default();
        if moved.after.as_deref().map(standing) == Some(before) {
            return;
        }
        for claim in moved.latest().iter().flat_map(|pod| protection::claims(pod)) {
            let key = Key::new(moved.key().namespace, claim);
            self.queue.add(Concern::Claim(key));
        }
    }

    fn class_moved(&self, moved: &Moved<StorageClass>) {
        self.add_pending(&moved.key().name, None);
    }

    /// Claims that are not bound and could be now: those of the class, without any, or of that volume.
    fn add_pending(&self, class: &str, volume: Option<&str>) {
        for claim in self.claims.all() {
            let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            let concerned = matching::claim_class(&claim).is_none_or(|own| own == class)
                || volume.is_some_and(|volume| named == Some(volume));
            if concerned && claim::claim_phase(&claim) != "Bound" {
                self.queue.add(Concern::Claim(Key::of(claim.as_ref())));
            }
        }
    }
}

/// Observing.
impl Volumes {
    async fn sync(&self, concern: Concern) -> Result<Option<Duration>, Error> {
        match concern {
            Concern::Claim(key) => self.sync_claim(&key).await?,
            Concern::Volume(name) => self.sync_volume(&name).await?,
        }
        Ok(None)
    }

    async fn sync_claim(&self, key: &Key) -> Result<(), Error> {
        let Some(claim) = self.claim_api(&key.namespace).get_opt(&key.name).await? else {
            return Ok(());
        };
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let pods = match claim.metadata.deletion_timestamp {
            // Whether a pod holds it must be true now, not a moment ago.
            Some(_) => pods.list(&ListParams::default()).await?.items,
            None => Vec::new(),
        };
        if let Some(patch) = protection::protect_claim(&claim, &pods) {
            // The change brings the claim here again.
            self.act(&claim, Action::PatchClaim(patch)).await?;
            return Ok(());
        }
        let unbound = !claim.annotations().contains_key(action::BIND_COMPLETED);
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = match named.filter(|name| !name.is_empty()) {
            Some(name) => self.volume_api().get_opt(name).await?,
            None => None,
        };
        let class_name = matching::claim_class(&claim);
        let volumes = match unbound && volume.is_none() {
            true => self.candidates(&claim).await?,
            false => Vec::new(),
        };
        let class = match class_name.filter(|name| !name.is_empty()) {
            Some(name) => self.class_api().get_opt(name).await?,
            None => None,
        };
        let default_class = match class_name {
            None if unbound => default_class(self.class_api().list(&ListParams::default()).await?.items),
            _ => None,
        };
        let users = self.users(key);
        let observed = claim::Observed {
            claim: &claim,
            volume: volume.as_ref(),
            volumes: &volumes,
            class: class.as_ref(),
            default_class: default_class.as_deref(),
            users: &users,
            volumes_dir: &self.context.options.volumes_dir,
            now: (self.context.clock)(),
        };
        for action in claim::plan(&observed) {
            self.act(&claim, action).await?;
        }
        Ok(())
    }

    /// The pods that use a claim.
    fn users(&self, claim: &Key) -> claim::Users {
        let mut pods = self.pods.in_namespace(&claim.namespace);
        pods.retain(|pod| protection::claims(pod).any(|name| name == claim.name));
        let waiting = pods.iter().filter(|pod| !protection::is_placed(pod));
        claim::Users {
            waiting: waiting.map(|pod| pod.name_any()).collect(),
            placed: pods.iter().any(|pod| protection::is_active(pod)),
        }
    }

    /// The volumes a claim may get. What the watch has seen is fresh enough: a binding is written for
    /// exactly the version that was seen, so a stale choice is refused and made again. A watch that has
    /// seen nothing may not have begun, and then listing afresh is cheap or necessary.
    async fn candidates(&self, claim: &PersistentVolumeClaim) -> Result<Vec<Arc<PersistentVolume>>, Error> {
        let mut volumes = self.volumes.all();
        if volumes.is_empty() {
            let listed = self.volume_api().list(&ListParams::default()).await?;
            volumes = listed.items.into_iter().map(Arc::new).collect();
        }
        // Made by an earlier try that did not get to the end.
        let own = self.volume_api().get_opt(&provision::volume_name(claim)).await?;
        volumes
            .retain(|volume| volume.metadata.name != own.as_ref().and_then(|own| own.metadata.name.clone()));
        volumes.extend(own.map(Arc::new));
        Ok(volumes)
    }

    async fn sync_volume(&self, name: &str) -> Result<(), Error> {
        let Some(volume) = self.volume_api().get_opt(name).await? else {
            return Ok(());
        };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim = match reference.and_then(|r| r.namespace.as_deref().zip(r.name.as_deref())) {
            Some((namespace, name)) => self.claim_api(namespace).get_opt(name).await?,
            None => None,
        };
        let mut written = false;
        for action in reclaim::plan(&volume, claim.as_ref(), &self.context.options.volumes_dir) {
            written |= matches!(
                action,
                Action::PatchVolume { .. } | Action::PatchVolumeStatus { .. }
            );
            self.act(&volume, action).await?;
        }
        // Only after the plan: the volume must not go while its directory is still to be removed. And
        // what was just written brings the volume here again.
        if let Some(patch) = protection::protect_volume(&volume)
            && !written
        {
            let name = volume.name_any();
            self.act(&volume, Action::PatchVolume { name, patch }).await?;
        }
        Ok(())
    }

    fn claim_api(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn volume_api(&self) -> Api<PersistentVolume> {
        Api::all(self.context.client.clone())
    }

    fn class_api(&self) -> Api<StorageClass> {
        Api::all(self.context.client.clone())
    }
}

/// The newest of the classes marked as the default one (P1).
fn default_class(mut classes: Vec<StorageClass>) -> Option<String> {
    classes.retain(|class| {
        let marked = |key: &str| class.annotations().get(key).is_some_and(|value| value == "true");
        DEFAULT_CLASS.into_iter().any(marked)
    });
    // The last of the greatest: the newest, and of several the first by name.
    classes.sort_by_key(|class| std::cmp::Reverse(class.name_any()));
    let newest = classes.into_iter().max_by_key(ResourceExt::creation_timestamp);
    newest.map(|class| class.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn the_newest_class_that_is_marked_is_the_default_one() {
        let class = |name: &str, second: i64, mark: Option<(&str, &str)>| {
            let mut class = testing::class(name, serde_json::json!({}));
            let created = jiff::Timestamp::from_second(second).unwrap();
            class.metadata.creation_timestamp = Some(Time(created));
            class.metadata.annotations = mark.map(|(key, value)| [(key.into(), value.into())].into());
            class
        };
        let [mark, older_mark] = DEFAULT_CLASS.map(|key| Some((key, "true")));
        let table = [
            (vec![], None),
            (vec![class("a", 1, None)], None),
            (vec![class("a", 1, Some((DEFAULT_CLASS[0], "false")))], None),
            (vec![class("a", 1, older_mark), class("b", 2, None)], Some("a")),
            (vec![class("a", 1, mark), class("b", 2, mark)], Some("b")),
            (vec![class("b", 2, mark), class("a", 2, mark)], Some("a")),
        ];
        for (classes, expected) in table {
            assert_eq!(default_class(classes.clone()).as_deref(), expected, "{classes:?}");
        }
    }
}
