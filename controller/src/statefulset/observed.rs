//! What the API says about one set: the set, and the pods, revisions, claims and the Service that concern it.

use super::identity::{ordinal, range};
use super::revision;
use crate::runtime::{Key, not_found};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that [`plan`](super::plan::plan) decides by, the time excepted.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The set.
    pub set: StatefulSet,
    /// Its selector, understood.
    pub selector: Selector,
    /// Its pod template.
    pub template: PodTemplateSpec,
    /// What a revision of this template holds, made from what is stored, so that nothing gets lost on the way.
    pub data: Value,
    /// The pods that are the set's, may be, or stand in its way.
    pub pods: Vec<Arc<Pod>>,
    /// The revisions that are the set's, may be, or have a name that it would give.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// The newest revision, if the API server makes the present template of it though its bytes are others: it was
    /// written by a server with other defaults (R16).
    pub same_template: Option<String>,
    /// The claims by name.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// The StorageClasses by name; may be left out when no claim is to grow.
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    /// The Service that `spec.serviceName` names.
    pub service: Option<Arc<Service>>,
}

/// What there is around a set. More than what concerns it does no harm.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Pods of the namespace.
    pub pods: Vec<Arc<Pod>>,
    /// ControllerRevisions of the namespace.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Claims of the namespace.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// StorageClasses.
    pub classes: Vec<Arc<StorageClass>>,
    /// The governing Service.
    pub service: Option<Arc<Service>>,
}

/// Why a set cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API could not be asked.
    #[error("cannot observe: {0}")]
    Api(#[from] kube::Error),
    /// What the API answered is no StatefulSet as far as we can read it.
    #[error("the StatefulSet cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The selector does not parse: nothing to be done until somebody changes it (R4).
    #[error("the selector cannot be understood: {0}")]
    Selector(#[from] kube::core::ParseExpressionError),
}

impl Observed {
    /// Understand a set as it is stored.
    pub fn new(stored: &Value) -> Result<Self, Error> {
        let set: StatefulSet = serde_json::from_value(stored.clone())?;
        let spec = set.spec.clone().unwrap_or_default();
        Ok(Self {
            selector: Selector::try_from(spec.selector)?,
            template: spec.template,
            data: revision::data(&stored["spec"]["template"]),
            set,
            pods: vec![],
            revisions: vec![],
            same_template: None,
            claims: BTreeMap::new(),
            classes: BTreeMap::new(),
            service: None,
        })
    }

    /// The set with what there is around it.
    pub fn among(mut self, around: Surroundings) -> Self {
        self.pods = around.pods;
        self.revisions = around.revisions;
        self.claims = by_name(around.claims);
        self.classes = by_name(around.classes);
        self.service = around.service;
        self
    }
}

fn by_name<T: ResourceExt>(objects: Vec<Arc<T>>) -> BTreeMap<String, Arc<T>> {
    let named = objects.into_iter().map(|object| (object.name_any(), object));
    named.collect()
}

/// The ordinals that a set has or may have claims for: those of its range and of its pods.
pub fn ordinals(set: &StatefulSet, pods: &[Arc<Pod>]) -> BTreeSet<i32> {
    let others = pods.iter().filter_map(|pod| ordinal(pod));
    range(set).chain(others).collect()
}

/// The set as the API has it; `None` when there is none (any more).
pub async fn stored(client: &Client, key: &Key) -> Result<Option<Value>, Error> {
    match sets(client, &key.namespace).get(&key.name).await {
        Ok(set) => Ok(Some(serde_json::to_value(set)?)),
        Err(error) if not_found(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Ask the API for all there is to know about a set; `None` when there is none.
pub async fn observe(client: &Client, key: &Key) -> Result<Option<Observed>, Error> {
    let Some(stored) = stored(client, key).await? else {
        return Ok(None);
    };
    let namespace = key.namespace.as_str();
    let (pods, revisions, claims, services, classes) = tokio::try_join!(
        list(Api::namespaced(client.clone(), namespace)),
        list(Api::namespaced(client.clone(), namespace)),
        list(Api::namespaced(client.clone(), namespace)),
        list::<Service>(Api::namespaced(client.clone(), namespace)),
        list(Api::all(client.clone())),
    )?;
    let name = stored["spec"]["serviceName"].as_str().unwrap_or_default();
    let around = Surroundings {
        pods,
        revisions,
        claims,
        classes,
        service: services.into_iter().find(|service| service.name_any() == name),
    };
    let mut observed = Observed::new(&stored)?.among(around);
    observed.same_template = same_template(client, &observed).await?;
    Ok(Some(observed))
}

async fn list<T>(api: Api<T>) -> Result<Vec<Arc<T>>, kube::Error>
where
    T: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let listed = api.list(&ListParams::default()).await?;
    Ok(listed.items.into_iter().map(Arc::new).collect())
}

fn sets(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<StatefulSet>(&());
    Api::namespaced_with(client.clone(), namespace, &kind)
}

/// The newest revision's name, if the API server makes the present template of it: asked by a dry run of putting it
/// back. Otherwise a server that has learnt a new default would roll every set (R16).
pub async fn same_template(client: &Client, observed: &Observed) -> Result<Option<String>, Error> {
    let Some(newest) = revision::newest_of_another_template(observed) else {
        return Ok(None);
    };
    let Some(data) = &newest.data else {
        return Ok(None);
    };
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let namespace = observed.set.namespace().unwrap_or_default();
    let put_back = sets(client, &namespace)
        .patch(&observed.set.name_any(), &params, &Patch::Strategic(&data.0))
        .await;
    match put_back {
        Ok(set) => {
            let is_same = revision::data(&set.data["spec"]["template"]) == observed.data;
            Ok(is_same.then(|| newest.name_any()))
        }
        // What cannot be put back any more is not the same.
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
