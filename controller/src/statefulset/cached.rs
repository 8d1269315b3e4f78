//! What the watches have seen around a set, found without looking at any other set's.

use super::claims;
use super::identity::{controller_of, parent_and_ordinal};
use super::observed::{Surroundings, ordinals};
use crate::runtime::{Cache, Key};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that is watched for sets.
pub struct Caches {
    /// Known by the Service that governs them.
    pub sets: Cache<StatefulSet>,
    /// Known by their owner, and by the set that their name is of.
    pub pods: Cache<Pod>,
    /// Known by their owner or as nobody's, and by the set that their name is of.
    pub revisions: Cache<ControllerRevision>,
    /// Claims.
    pub claims: Cache<PersistentVolumeClaim>,
    /// Services.
    pub services: Cache<Service>,
    /// StorageClasses.
    pub classes: Cache<StorageClass>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            sets: Cache::known_as(|set| {
                let service = set.spec.as_ref().and_then(|spec| spec.service_name.as_deref());
                let governed = service.map(|name| governed_by(&namespace_of(set), name));
                governed.into_iter().collect()
            }),
            pods: Cache::known_as(|pod| {
                let name = pod.name_any();
                let parent =
                    parent_and_ordinal(&name).map(|(parent, _)| named_after(&namespace_of(pod), parent));
                let owner = controller_of(pod).map(|owner| owned_by(&owner.uid));
                parent.into_iter().chain(owner).collect()
            }),
            revisions: Cache::known_as(|revision| {
                let name = revision.name_any();
                let namespace = namespace_of(revision);
                let parent = name
                    .rsplit_once('-')
                    .map(|(parent, _)| named_after(&namespace, parent));
                let owner = match controller_of(revision) {
                    Some(owner) => owned_by(&owner.uid),
                    None => nobodys(&namespace),
                };
                parent.into_iter().chain([owner]).collect()
            }),
            claims: Cache::default(),
            services: Cache::default(),
            classes: Cache::default(),
        }
    }
}

fn namespace_of(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_default()
}

/// What a set is known as whose pods get their names from a Service.
pub fn governed_by(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}

fn named_after(namespace: &str, set: &str) -> String {
    format!("named after {namespace}/{set}")
}

fn owned_by(uid: &str) -> String {
    format!("owned by {uid}")
}

fn nobodys(namespace: &str) -> String {
    format!("nobody's in {namespace}")
}

impl Caches {
    /// Wait until every watch has shown what there was.
    pub async fn listed(&self) {
        tokio::join!(
            self.sets.listed(),
            self.pods.listed(),
            self.revisions.listed(),
            self.claims.listed(),
            self.services.listed(),
            self.classes.listed(),
        );
    }

    /// What there is around a set.
    pub fn around(&self, set: &StatefulSet) -> Surroundings {
        let (namespace, name) = (namespace_of(set), set.name_any());
        let owned = owned_by(&set.uid().unwrap_or_default());
        let named = named_after(&namespace, &name);
        let pods = union([self.pods.named(&owned), self.pods.named(&named)]);
        let nobodys = self.revisions.named(&nobodys(&namespace));
        let revisions = union([
            self.revisions.named(&owned),
            self.revisions.named(&named),
            nobodys,
        ]);
        let ordinals = ordinals(set, &pods);
        let claims = ordinals.iter().flat_map(|ordinal| claims::names(set, *ordinal));
        let claims = claims.filter_map(|claim| self.claims.get(&Key::new(&namespace, claim)));
        let service = set.spec.as_ref().and_then(|spec| spec.service_name.as_deref());
        Surroundings {
            claims: claims.collect(),
            service: service.and_then(|name| self.services.get(&Key::new(&namespace, name))),
            classes: if claims::may_grow(set) {
                self.classes.all()
            } else {
                vec![]
            },
            pods,
            revisions,
        }
    }
}

fn union<T: ResourceExt, const N: usize>(found: [Vec<Arc<T>>; N]) -> Vec<Arc<T>> {
    let by_name = found
        .into_iter()
        .flatten()
        .map(|object| (object.name_any(), object));
    by_name.collect::<BTreeMap<_, _>>().into_values().collect()
}
