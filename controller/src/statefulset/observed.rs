//! What the API says about one set, asked afresh: the set, the pods, revisions and claims of its namespace.

use super::revision;
use crate::runtime::{Key, not_found};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;

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
    /// Every pod of the namespace: any of them may be the set's, or stand in its way.
    pub pods: Vec<Pod>,
    /// Every ControllerRevision of the namespace.
    pub revisions: Vec<ControllerRevision>,
    /// The claims of the namespace by name; none when the set has no claim templates.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
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
    /// Understand a set as it is stored, and what there is in its namespace.
    pub fn new(
        stored: &Value,
        pods: Vec<Pod>,
        revisions: Vec<ControllerRevision>,
        claims: Vec<PersistentVolumeClaim>,
    ) -> Result<Self, Error> {
        let set: StatefulSet = serde_json::from_value(stored.clone())?;
        let spec = set.spec.clone().unwrap_or_default();
        Ok(Self {
            selector: Selector::try_from(spec.selector)?,
            template: spec.template,
            data: revision::data(&stored["spec"]["template"]),
            set,
            pods,
            revisions,
            claims: claims
                .into_iter()
                .map(|claim| (claim.name_any(), claim))
                .collect(),
        })
    }
}

/// Ask the API; `None` when there is no such set (any more).
pub async fn observe(client: &Client, key: &Key) -> Result<Option<Observed>, Error> {
    let kind = ApiResource::erase::<StatefulSet>(&());
    let sets: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &kind);
    let set = match sets.get(&key.name).await {
        Ok(set) => serde_json::to_value(set)?,
        Err(error) if not_found(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), &key.namespace);
    let claims = async {
        let templates = set["spec"]["volumeClaimTemplates"].as_array();
        if templates.is_none_or(Vec::is_empty) {
            return Ok(vec![]);
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
        claims.list(&ListParams::default()).await.map(|list| list.items)
    };
    let all = ListParams::default();
    let (pods, revisions, claims) = tokio::try_join!(pods.list(&all), revisions.list(&all), claims)?;
    Observed::new(&set, pods.items, revisions.items, claims).map(Some)
}
