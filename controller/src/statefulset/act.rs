//! Doing what was planned: one API call per action, an event for what users want to know.

use super::action::{Action, Lane, Plan, Step, Verb};
use super::condition;
use super::event::{self, Told};
use super::identity::owner_reference;
use super::observed::Observed;
use crate::runtime::{Teller, already_exists, lost_race, not_found, version_of};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who writes, as upstream's controllers call themselves in `managedFields`.
const FIELD_MANAGER: &str = "kube-controller-manager";

/// How many lanes at most are worked on at once (R30).
const LARGEST_BATCH: usize = 500;

/// How often a status is written again after somebody else wrote the set in between.
const STATUS_ATTEMPTS: usize = 5;

/// Why an action was not done: try again, from observation on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused or could not be asked.
    #[error("cannot {what}: {source}")]
    Api {
        /// What was to be done.
        what: String,
        /// The answer.
        source: kube::Error,
    },
    /// It is not the time for it.
    #[error("cannot go on: {0}")]
    Refused(String),
    /// The set is gone or on its way: it must not take anything any more.
    #[error("the set has just been deleted")]
    SetDeleted,
}

/// The highest resourceVersions that writes have got, by kind.
#[derive(Debug, Default)]
pub struct Written {
    /// Of pods.
    pub pods: AtomicU64,
    /// Of claims.
    pub claims: AtomicU64,
    /// Of ControllerRevisions.
    pub revisions: AtomicU64,
}

impl Written {
    fn note<T: Resource<DynamicType = ()>>(&self, object: &T) {
        let highest = match T::kind(&()).as_ref() {
            "Pod" => &self.pods,
            "PersistentVolumeClaim" => &self.claims,
            "ControllerRevision" => &self.revisions,
            _ => return,
        };
        highest.fetch_max(version_of(object).unwrap_or(0), Ordering::Relaxed);
    }
}

/// The way to act for one set.
pub struct Actor<'a> {
    written: &'a Written,
    client: &'a Client,
    teller: &'a Teller,
    set: &'a StatefulSet,
    namespace: String,
    regarding: ObjectReference,
}

impl<'a> Actor<'a> {
    /// Acts for the set that was observed.
    pub fn new(client: &'a Client, teller: &'a Teller, observed: &'a Observed, written: &'a Written) -> Self {
        let set = &observed.set;
        let mut regarding = set.object_ref(&());
        regarding.resource_version = set.resource_version();
        Self {
            written,
            client,
            teller,
            set,
            namespace: set.namespace().unwrap_or_default(),
            regarding,
        }
    }

    /// Do it. The status is written even if a step failed (R5).
    pub async fn act(&self, plan: Plan) -> Result<(), Error> {
        self.steps(plan.prepare).await?;
        let done = self.steps(plan.steps).await;
        let told = match plan.status {
            Some(status) => self.write_status(status).await,
            None => Ok(()),
        };
        // The status remembers what was told: what it does not say yet is told again.
        if told.is_ok() {
            plan.news.into_iter().for_each(|news| self.tell(news));
        }
        let pruned = self.lane(plan.prune).await;
        done.and(told).and(pruned)
    }

    async fn steps(&self, steps: Vec<Step>) -> Result<(), Error> {
        for step in steps {
            self.step(step).await?;
        }
        Ok(())
    }

    /// One lane first, then two at once, four … so that what fails for all is not tried by all (R30).
    async fn step(&self, step: Step) -> Result<(), Error> {
        let mut lanes = step.into_iter();
        let mut size = 1;
        loop {
            let batch: Vec<_> = lanes.by_ref().take(size).map(|lane| self.lane(lane)).collect();
            if batch.is_empty() {
                return Ok(());
            }
            join_all(batch).await.into_iter().collect::<Result<(), Error>>()?;
            size = (size * 2).min(LARGEST_BATCH);
        }
    }

    async fn lane(&self, lane: Lane) -> Result<(), Error> {
        for action in lane {
            self.perform(action).await?;
        }
        Ok(())
    }

    async fn perform(&self, action: Action) -> Result<(), Error> {
        match action {
            Action::AdoptRevision(revision) => {
                self.check_not_deleted().await?;
                let owners = revision.owner_references().iter().cloned();
                let owners: Vec<_> = owners.chain([owner_reference(self.set)]).collect();
                let body = json!({"metadata": {"uid": revision.uid(), "ownerReferences": owners}});
                self.patch::<ControllerRevision>(&revision.name_any(), &body)
                    .await
            }
            Action::OwnPod { pod, owners, adopts } => {
                if adopts {
                    self.check_not_deleted().await?;
                }
                let version = pod.resource_version();
                let metadata =
                    json!({"uid": pod.uid(), "resourceVersion": version, "ownerReferences": owners});
                self.patch::<Pod>(&pod.name_any(), &json!({"metadata": metadata}))
                    .await
            }
            Action::CreateRevision(revision) => self.create(&*revision).await,
            Action::RenumberRevision {
                name,
                resource_version,
                revision,
            } => {
                let body = json!({"metadata": {"resourceVersion": resource_version}, "revision": revision});
                self.patch::<ControllerRevision>(&name, &body).await
            }
            Action::DeleteRevision { name, uid } => match self.delete::<ControllerRevision>(&name, uid).await
            {
                Err(Error::Api { source, .. }) if not_found(&source) => Ok(()),
                done => done,
            },
            Action::CreateClaim { claim, pod, part_of } => self.create_claim(&claim, &pod, part_of).await,
            Action::OwnClaim {
                name,
                resource_version,
                owners,
                pod,
                is_told,
            } => {
                let metadata = json!({"resourceVersion": resource_version, "ownerReferences": owners});
                let done = self
                    .patch::<PersistentVolumeClaim>(&name, &json!({"metadata": metadata}))
                    .await;
                if is_told && done.is_err() {
                    self.tell_pod(Verb::Update, &pod, &done);
                }
                done
            }
            Action::CreatePod(pod) => {
                let done = self.create(&*pod).await;
                self.tell_pod(Verb::Create, &pod.name_any(), &done);
                done
            }
            Action::UpdatePod {
                name,
                resource_version,
                labels,
                volumes,
            } => {
                let mut body = json!({"metadata": {"resourceVersion": resource_version, "labels": labels}});
                if let Some(volumes) = volumes {
                    body["spec"] = json!({"volumes": volumes});
                }
                let done = self.patch::<Pod>(&name, &body).await;
                self.tell_pod(Verb::Update, &name, &done);
                done
            }
            Action::DeletePod { name, uid } => match self.delete::<Pod>(&name, uid).await {
                // As good as deleted (R38).
                Err(Error::Api { source, .. }) if not_found(&source) => Ok(()),
                done => {
                    self.tell_pod(Verb::Delete, &name, &done);
                    done
                }
            },
            Action::GrowClaim {
                name,
                resource_version,
                storage,
            } => {
                let body = json!({"metadata": {"resourceVersion": resource_version},
                    "spec": {"resources": {"requests": {"storage": storage}}}});
                let done = self.patch::<PersistentVolumeClaim>(&name, &body).await;
                let set = self.set.name_any();
                self.tell_outcome(&done, |done| event::about_growth(&set, &name, &storage.0, done));
                done
            }
            Action::Tell(told) => {
                self.tell(told);
                Ok(())
            }
            Action::Refuse { pod, verb, message } => {
                let refused = Err(Error::Refused(message));
                if let Some(verb) = verb {
                    self.tell_pod(verb, &pod, &refused);
                }
                refused
            }
        }
    }

    async fn create_claim(
        &self,
        claim: &PersistentVolumeClaim,
        pod: &str,
        part_of: Option<Verb>,
    ) -> Result<(), Error> {
        let done = self.create(claim).await;
        let (set, name) = (self.set.name_any(), claim.name_any());
        self.tell_outcome(&done, |done| event::about_claim(&set, &name, pod, done));
        if let (Err(error), Some(verb)) = (&done, part_of)
            && !is_lost_race(error)
        {
            let why = format!("failed to create PVC {name}: {}", reason(error));
            self.tell_pod(verb, pod, &Err(Error::Refused(why)));
        }
        done
    }

    /// Write the status over what is there, as long as it is the same set (R42).
    async fn write_status(&self, status: StatefulSetStatus) -> Result<(), Error> {
        let sets: Api<StatefulSet> = self.api();
        let mut set = self.set.clone();
        set.metadata.managed_fields = None;
        set.status = Some(status.clone());
        let mut attempt = 1;
        loop {
            let written = sets.replace_status(&set.name_any(), &params(), &set).await;
            match written {
                Ok(_) => return Ok(()),
                // Nobody is left to read it.
                Err(error) if not_found(&error) => return Ok(()),
                Err(error) if lost_race(&error) && attempt < STATUS_ATTEMPTS => {
                    attempt += 1;
                    set = sets
                        .get(&set.name_any())
                        .await
                        .map_err(|source| failed("read the set", source))?;
                    if set.uid() != self.set.uid() {
                        return Ok(());
                    }
                    // Somebody may have set a condition meanwhile.
                    let present = set
                        .status
                        .and_then(|status| status.conditions)
                        .unwrap_or_default();
                    let ours = status.conditions.as_deref().unwrap_or_default();
                    set.status = Some(StatefulSetStatus {
                        conditions: condition::merge(&present, ours),
                        ..status.clone()
                    });
                }
                Err(source) => return Err(failed("write the status", source)),
            }
        }
    }

    /// Asked again right before something is taken: an owner that is gone would take it along (R8).
    async fn check_not_deleted(&self) -> Result<(), Error> {
        let sets: Api<StatefulSet> = self.api();
        let now = sets
            .get_opt(&self.set.name_any())
            .await
            .map_err(|source| failed("read the set", source))?;
        match now {
            Some(now) if now.uid() == self.set.uid() && now.metadata.deletion_timestamp.is_none() => Ok(()),
            _ => Err(Error::SetDeleted),
        }
    }

    fn api<T>(&self) -> Api<T>
    where
        T: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<T>(&self, object: &T) -> Result<(), Error>
    where
        T: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let created = self.api::<T>().create(&params(), object).await;
        created
            .map(|object| self.written.note(&object))
            .map_err(|source| failed(&format!("create {}", object.name_any()), source))
    }

    async fn patch<T>(&self, name: &str, body: &Value) -> Result<(), Error>
    where
        T: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let patched = self.api::<T>().patch(name, &params, &Patch::Merge(body)).await;
        patched
            .map(|object| self.written.note(&object))
            .map_err(|source| failed(&format!("change {name}"), source))
    }

    async fn delete<T>(&self, name: &str, uid: String) -> Result<(), Error>
    where
        T: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let deleted = self.api::<T>().delete(name, &params).await;
        deleted
            .map(|object| {
                object.map_left(|object| self.written.note(&object));
            })
            .map_err(|source| failed(&format!("delete {name}"), source))
    }

    fn tell(&self, told: Told) {
        self.teller
            .tell(&self.regarding, told.event_type, told.reason, told.message);
    }

    fn tell_pod(&self, verb: Verb, pod: &str, done: &Result<(), Error>) {
        let set = self.set.name_any();
        self.tell_outcome(done, |done| event::about_pod(&set, verb, pod, done));
    }

    /// Tell what was done, or why it was not; a lost race is not worth telling (R49).
    fn tell_outcome(&self, done: &Result<(), Error>, told: impl FnOnce(Result<(), &str>) -> Told) {
        match done {
            Ok(()) => self.tell(told(Ok(()))),
            Err(error) if is_lost_race(error) => {}
            Err(error) => self.tell(told(Err(&reason(error)))),
        }
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

fn failed(what: &str, source: kube::Error) -> Error {
    Error::Api {
        what: what.into(),
        source,
    }
}

fn is_lost_race(error: &Error) -> bool {
    matches!(error, Error::Api { source, .. } if already_exists(source) || lost_race(source))
}

/// The words of whoever refused, as upstream repeats them.
fn reason(error: &Error) -> String {
    match error {
        Error::Api {
            source: kube::Error::Api(status),
            ..
        } => status.message.clone(),
        Error::Api { source, .. } => source.to_string(),
        Error::Refused(message) => message.clone(),
        Error::SetDeleted => error.to_string(),
    }
}
