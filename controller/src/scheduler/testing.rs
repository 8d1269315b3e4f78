//! Pods, nodes and claims for the tests of this folder.

use super::plan::{Observed, Verdict, plan};
use crate::volume::action::BIND_COMPLETED;
use crate::volume::testing::{claim, volume};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pod `default/p`.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn pod(spec: Value) -> Pod {
    let mut base = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": []},
    });
    let fields = spec.as_object().unwrap().clone();
    base["spec"].as_object_mut().unwrap().extend(fields);
    serde_json::from_value(base).unwrap()
}

/// A node labelled `disk: ssd` and with its name.
#[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
pub fn node(name: &str, spec: Value, ready: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"disk": "ssd", "kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

/// A pod and what is around it.
pub struct World {
    pub pod: Pod,
    pub nodes: Vec<Node>,
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    pub classes: BTreeMap<String, StorageClass>,
    pub volumes: Vec<Arc<PersistentVolume>>,
    pub in_use: BTreeSet<String>,
    pub others: Vec<Pod>,
}

impl World {
    /// The pod and the ready node `n`.
    pub fn new(pod: Pod) -> Self {
        Self {
            pod,
            nodes: vec![node("n", json!({}), "True")],
            claims: BTreeMap::new(),
            classes: BTreeMap::new(),
            volumes: Vec::new(),
            in_use: BTreeSet::new(),
            others: Vec::new(),
        }
    }

    /// A pod with claims of class `fast`, the node `n`, and no such class.
    pub fn with_claims(names: &[&str]) -> Self {
        let volumes: Vec<_> = names
            .iter()
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .collect();
        let mut this = Self::new(pod(json!({ "volumes": volumes })));
        for name in names {
            let claim = claim(name, json!({"storageClassName": "fast"}));
            this.claims.insert((*name).into(), claim);
        }
        this
    }

    /// Add a volume of class `fast`.
    pub fn add_volume(&mut self, name: &str, change: Value) {
        let mut spec = json!({"storageClassName": "fast"});
        let fields = change.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        self.volumes.push(Arc::new(volume(name, spec)));
    }

    /// Bind a claim to a new volume.
    pub fn bind(&mut self, claim: &str, volume: &str, change: Value) {
        self.add_volume(volume, change);
        let claim = self.claims.get_mut(claim).unwrap();
        claim
            .annotations_mut()
            .insert(BIND_COMPLETED.into(), "yes".into());
        claim.spec.as_mut().unwrap().volume_name = Some(volume.into());
    }

    pub fn verdict(&self) -> Verdict {
        plan(&Observed {
            pod: &self.pod,
            nodes: &self.nodes,
            claims: &self.claims,
            classes: &self.classes,
            volumes: &self.volumes,
            in_use: &self.in_use,
            others: &self.others,
        })
    }
}
