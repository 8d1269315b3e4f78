//! An API that knows objects by name, UID and resourceVersion, and refuses what a real one refuses: the other side of
//! a plan's actions. Without tasks, clocks or JSON, so that a hundred thousand steps take seconds.

use crate::settings::{BAD_TEMPLATE, Settings};
use controller::statefulset::action::{Action, Plan};
use controller::statefulset::{Observed, Surroundings};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The one set's UID.
pub const SET: &str = "the-set";

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is an object of that name.
    AlreadyExists,
    /// There is none.
    NotFound,
    /// It is another one, or not as it was.
    Conflict,
    /// The plan itself says that it cannot be done now.
    NotNow,
}

/// One set and what is around it.
pub struct Api {
    /// The set as a plan sees it, without anything around it.
    set: Observed,
    pub pods: BTreeMap<String, Arc<Pod>>,
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    pub revisions: BTreeMap<String, Arc<ControllerRevision>>,
    /// How often anything was written; the source of UIDs and versions.
    pub writes: u64,
}

impl Api {
    /// A set, new and alone.
    pub fn new(settings: &Settings) -> Self {
        Self {
            set: understood(settings, 1),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            revisions: BTreeMap::new(),
            writes: 0,
        }
    }

    /// What a plan is made of.
    pub fn observe(&self) -> Observed {
        let around = Surroundings {
            pods: self.pods.values().cloned().collect(),
            revisions: self.revisions.values().cloned().collect(),
            claims: self.claims.values().cloned().collect(),
            ..Surroundings::default()
        };
        self.set.clone().among(around)
    }

    /// The same after it was written as JSON and read back.
    pub fn reread(&self) -> Observed {
        fn again<T: serde::Serialize + serde::de::DeserializeOwned>(object: &Arc<T>) -> Arc<T> {
            let stored = serde_json::to_vec(&**object).expect("an object is JSON");
            Arc::new(serde_json::from_slice(&stored).expect("it can be read back"))
        }
        let stored = serde_json::to_value(&self.set.set).expect("a set is JSON");
        let around = Surroundings {
            pods: self.pods.values().map(again).collect(),
            revisions: self.revisions.values().map(again).collect(),
            claims: self.claims.values().map(again).collect(),
            ..Surroundings::default()
        };
        Observed::new(&stored).expect("a readable set").among(around)
    }

    /// Whether somebody has deleted the set, to go when its dependents are gone.
    pub fn is_set_deleted(&self) -> bool {
        self.set.set.metadata.deletion_timestamp.is_some()
    }

    /// The status as it was written last.
    pub fn status(&self) -> StatefulSetStatus {
        self.set.set.status.clone().unwrap_or_default()
    }

    /// The generation that the spec has.
    pub fn generation(&self) -> Option<i64> {
        self.set.set.metadata.generation
    }

    /// The user writes the set anew.
    pub fn put_set(&mut self, settings: &Settings) {
        self.writes += 1;
        let generation = self.generation().unwrap_or(0) + 1;
        let before = std::mem::replace(&mut self.set, understood(settings, generation));
        self.set.set.status = before.set.status;
        self.set.set.metadata.deletion_timestamp = before.set.metadata.deletion_timestamp;
    }

    /// The user deletes the set in the foreground.
    pub fn delete_set(&mut self, now: Timestamp) {
        self.writes += 1;
        self.set.set.metadata.deletion_timestamp = Some(Time(now));
    }

    /// The controller writes the status, over whatever is there.
    pub fn put_status(&mut self, status: StatefulSetStatus) {
        self.writes += 1;
        self.set.set.status = Some(status);
    }

    fn stamp(&mut self, metadata: &mut ObjectMeta) {
        self.writes += 1;
        metadata.resource_version = Some(self.writes.to_string());
        metadata.uid.get_or_insert_with(|| format!("uid-{}", self.writes));
    }

    /// Store a pod, as the API server does: Pending from the first moment.
    pub fn create_pod(&mut self, mut pod: Pod) -> Result<(), Refused> {
        let name = pod.name_any();
        if self.pods.contains_key(&name) {
            return Err(Refused::AlreadyExists);
        }
        self.stamp(&mut pod.metadata);
        let phase = &mut pod.status.get_or_insert_default().phase;
        phase.get_or_insert_with(|| "Pending".into());
        self.pods.insert(name, Arc::new(pod));
        Ok(())
    }

    /// Store a claim.
    pub fn create_claim(&mut self, mut claim: PersistentVolumeClaim) -> Result<(), Refused> {
        let name = claim.name_any();
        if self.claims.contains_key(&name) {
            return Err(Refused::AlreadyExists);
        }
        self.stamp(&mut claim.metadata);
        self.claims.insert(name, Arc::new(claim));
        Ok(())
    }

    /// Change a pod that is there.
    pub fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) -> Result<(), Refused> {
        let mut pod = self.pods.get(name).ok_or(Refused::NotFound)?.clone();
        change(Arc::make_mut(&mut pod));
        self.stamp(&mut Arc::make_mut(&mut pod).metadata);
        self.pods.insert(name.into(), pod);
        Ok(())
    }

    /// Change a claim that is there.
    pub fn change_claim(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut PersistentVolumeClaim),
    ) -> Result<(), Refused> {
        let mut claim = self.claims.get(name).ok_or(Refused::NotFound)?.clone();
        change(Arc::make_mut(&mut claim));
        self.stamp(&mut Arc::make_mut(&mut claim).metadata);
        self.claims.insert(name.into(), claim);
        Ok(())
    }

    fn change_revision(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut ControllerRevision),
    ) -> Result<(), Refused> {
        let mut revision = self.revisions.get(name).ok_or(Refused::NotFound)?.clone();
        change(Arc::make_mut(&mut revision));
        self.stamp(&mut Arc::make_mut(&mut revision).metadata);
        self.revisions.insert(name.into(), revision);
        Ok(())
    }

    /// Somebody deletes a pod: it is Terminating until the kubelet lets it go.
    pub fn delete_pod(&mut self, name: &str, now: Timestamp) -> Result<(), Refused> {
        self.change_pod(name, |pod| {
            pod.metadata.deletion_timestamp.get_or_insert(Time(now));
        })
    }

    /// Somebody deletes a claim: it stays Terminating while a pod uses it.
    pub fn delete_claim(&mut self, name: &str, now: Timestamp) -> Result<(), Refused> {
        self.change_claim(name, |claim| {
            claim.metadata.deletion_timestamp.get_or_insert(Time(now));
        })?;
        if !self.is_used(name) {
            self.remove_claim(name);
        }
        Ok(())
    }

    /// The object is really gone.
    pub fn remove_pod(&mut self, name: &str) {
        self.writes += 1;
        self.pods.remove(name);
    }

    /// The object is really gone.
    pub fn remove_claim(&mut self, name: &str) {
        self.writes += 1;
        self.claims.remove(name);
    }

    /// The object is really gone.
    pub fn remove_revision(&mut self, name: &str) {
        self.writes += 1;
        self.revisions.remove(name);
    }

    /// Whether a pod that has been placed mentions the claim; one that waits for its claims does not protect them.
    pub fn is_used(&self, claim: &str) -> bool {
        let is_placed = |pod: &&Arc<Pod>| {
            let status = pod.status.as_ref();
            status.is_some_and(|status| status.phase.as_deref() != Some("Pending"))
        };
        let mut placed = self.pods.values().filter(is_placed);
        placed.any(|pod| claims_of(pod).any(|name| name == claim))
    }

    /// Whether a pod can become ready.
    pub fn can_run(&self, pod: &Pod) -> bool {
        self.has_claims(pod) && !is_bad(pod)
    }

    /// Whether every claim of a pod is there.
    pub fn has_claims(&self, pod: &Pod) -> bool {
        claims_of(pod).all(|claim| self.claims.contains_key(claim))
    }

    /// Delete what had owners and has none any more, and let go what is deleted and not used. (Owners other than pods
    /// and the set are taken to be there.)
    pub fn collect_garbage(&mut self, now: Timestamp) {
        let pods: Vec<_> = self.pods.values().filter_map(|pod| pod.uid()).collect();
        let is_there = |owner: &OwnerReference| {
            let comes_and_goes = matches!(owner.kind.as_str(), "Pod" | "StatefulSet");
            !comes_and_goes || owner.uid == SET || pods.contains(&owner.uid)
        };
        let claims: Vec<_> = self.claims.values().cloned().collect();
        for claim in claims {
            let (name, owners) = (claim.name_any(), claim.owner_references());
            let left: Vec<_> = owners.iter().filter(|owner| is_there(owner)).cloned().collect();
            let is_deleted = claim.metadata.deletion_timestamp.is_some();
            if left.is_empty() && !owners.is_empty() && !is_deleted {
                self.delete_claim(&name, now).expect("it is there");
            } else if !left.is_empty() && left.len() < owners.len() {
                let change = |claim: &mut PersistentVolumeClaim| claim.metadata.owner_references = Some(left);
                self.change_claim(&name, change).expect("it is there");
            } else if is_deleted && !self.is_used(&name) {
                self.remove_claim(&name);
            }
        }
    }

    /// The kubelet tells what a pod does: a phase, or `Ready`.
    pub fn set_phase(&mut self, pod: &str, phase: &str, now: Timestamp) {
        let is_ready = phase == "Ready";
        let ready = if is_ready { "True" } else { "False" };
        let change = |pod: &mut Pod| {
            let status = pod.status.get_or_insert_default();
            status.phase = Some(if is_ready { "Running" } else { phase }.into());
            status.start_time.get_or_insert(Time(now));
            let conditions = status.conditions.get_or_insert_default();
            if conditions.first().is_none_or(|before| before.status != ready) {
                *conditions = vec![PodCondition {
                    type_: "Ready".into(),
                    status: ready.into(),
                    last_transition_time: Some(Time(now)),
                    ..PodCondition::default()
                }];
            }
        };
        self.change_pod(pod, change).expect("the pod is there");
    }

    /// Do all of a plan, as the controller does when nothing interferes; the first refusal of a lane ends it.
    pub fn perform(&mut self, plan: &Plan, now: Timestamp) -> Result<(), Refused> {
        let mut act = |action| self.act(action, now);
        plan.prepare.iter().flatten().flatten().try_for_each(&mut act)?;
        let done: Result<(), Refused> = plan.steps.iter().try_for_each(|step| {
            let lanes: Vec<_> = step
                .iter()
                .map(|lane| lane.iter().try_for_each(&mut act))
                .collect();
            lanes.into_iter().collect()
        });
        if let Some(status) = &plan.status {
            self.put_status(status.clone());
        }
        let pruned = plan.prune.iter().try_for_each(|action| self.act(action, now));
        done.and(pruned)
    }

    /// Do one action as the API would.
    pub fn act(&mut self, action: &Action, now: Timestamp) -> Result<(), Refused> {
        match action {
            Action::AdoptRevision(revision) => {
                let name = revision.name_any();
                let there = self.revisions.get(&name).ok_or(Refused::NotFound)?;
                if there.uid() != revision.uid() || self.is_set_deleted() {
                    return Err(Refused::Conflict);
                }
                self.change_revision(&name, |it| {
                    it.owner_references_mut()
                        .push(owner("apps/v1", "StatefulSet", "web", SET))
                })
            }
            Action::OwnPod { pod, owners, adopts } => {
                let name = pod.name_any();
                let there = self.pods.get(&name).ok_or(Refused::NotFound)?;
                let is_same = there.uid() == pod.uid() && there.resource_version() == pod.resource_version();
                if !is_same || (*adopts && self.is_set_deleted()) {
                    return Err(Refused::Conflict);
                }
                self.change_pod(&name, |pod| pod.metadata.owner_references = Some(owners.clone()))
            }
            Action::CreateRevision(revision) => {
                let name = revision.name_any();
                if self.revisions.contains_key(&name) {
                    return Err(Refused::AlreadyExists);
                }
                let mut revision = (**revision).clone();
                self.stamp(&mut revision.metadata);
                revision.metadata.creation_timestamp = Some(Time(now));
                self.revisions.insert(name, Arc::new(revision));
                Ok(())
            }
            Action::RenumberRevision {
                name,
                resource_version,
                revision,
            } => {
                let there = self.revisions.get(name).ok_or(Refused::NotFound)?;
                if there.resource_version() != *resource_version {
                    return Err(Refused::Conflict);
                }
                self.change_revision(name, |it| it.revision = *revision)
            }
            Action::DeleteRevision { name, uid } => match self.revisions.get(name) {
                None => Ok(()),
                Some(there) if there.uid().as_ref() != Some(uid) => Err(Refused::Conflict),
                Some(_) => {
                    self.remove_revision(name);
                    Ok(())
                }
            },
            Action::CreateClaim { claim, .. } => self.create_claim((**claim).clone()),
            Action::OwnClaim {
                name,
                resource_version,
                owners,
                ..
            } => {
                let there = self.claims.get(name).ok_or(Refused::NotFound)?;
                if resource_version.is_some() && there.resource_version() != *resource_version {
                    return Err(Refused::Conflict);
                }
                self.change_claim(name, |claim| {
                    claim.metadata.owner_references = Some(owners.clone())
                })
            }
            Action::CreatePod(pod) => self.create_pod((**pod).clone()),
            Action::UpdatePod {
                name,
                resource_version,
                labels,
                volumes,
            } => {
                let there = self.pods.get(name).ok_or(Refused::NotFound)?;
                if there.resource_version() != *resource_version {
                    return Err(Refused::Conflict);
                }
                self.change_pod(name, |pod| {
                    pod.labels_mut().extend(labels.clone());
                    if let (Some(volumes), Some(spec)) = (volumes, &mut pod.spec) {
                        spec.volumes = Some(volumes.clone());
                    }
                })
            }
            Action::DeletePod { name, uid } => match self.pods.get(name) {
                None => Ok(()),
                Some(there) if there.uid().as_ref() != Some(uid) => Err(Refused::Conflict),
                Some(_) => self.delete_pod(name, now),
            },
            Action::GrowClaim { name, .. } => panic!("{name} is not asked to grow"),
            Action::Tell(_) => Ok(()),
            Action::Refuse { .. } => Err(Refused::NotNow),
        }
    }
}

/// Whether the pod is of the template whose pods never become ready.
pub fn is_bad(pod: &Pod) -> bool {
    let image = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers[0].image.as_deref());
    image == Some(&*BAD_TEMPLATE.to_string())
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().filter_map(|spec| spec.volumes.as_ref());
    let claims = volumes
        .flatten()
        .filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.map(|claim| claim.claim_name.as_str())
}

/// A reference to an owner that controls.
pub fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn understood(settings: &Settings, generation: i64) -> Observed {
    Observed::new(&settings.set(SET, generation)).expect("a readable set")
}
