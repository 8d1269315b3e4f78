//! What a plan is made of.

use super::event::Told;
use super::identity::revision_of;
use super::wait::Wait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One write, or what is to be told instead of one.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make a revision that has no owner the set's.
    AdoptRevision(Arc<ControllerRevision>),
    /// Make a pod the set's, or nobody's: these are its owners from now on.
    OwnPod {
        /// The pod as it was observed.
        pod: Arc<Pod>,
        /// All its owners.
        owners: Vec<OwnerReference>,
        /// Whether the set takes it, which it must not any more while it is being deleted.
        adopts: bool,
    },
    /// Keep a template.
    CreateRevision(Box<ControllerRevision>),
    /// Give a revision a new number: a rollback made it the newest.
    RenumberRevision {
        /// Its name.
        name: String,
        /// The version that was observed.
        resource_version: Option<String>,
        /// Its number from now on.
        revision: i64,
    },
    /// Forget a template.
    DeleteRevision {
        /// Its name.
        name: String,
        /// Which one of that name.
        uid: String,
    },
    /// Create a claim for a pod.
    CreateClaim {
        /// The claim.
        claim: Box<PersistentVolumeClaim>,
        /// The pod that needs it.
        pod: String,
        /// What fails with it: creating or updating that pod (nothing else when the pod exists already).
        part_of: Option<Verb>,
    },
    /// Set the owners of a claim, as the retention policy wants them.
    OwnClaim {
        /// Its name.
        name: String,
        /// The version that was observed; none when it is created just before.
        resource_version: Option<String>,
        /// All its owners.
        owners: Vec<OwnerReference>,
        /// The pod that uses it.
        pod: String,
        /// The claim could be wanted by a pod that is there: a failure is told as that pod's.
        is_told: bool,
    },
    /// Create a pod.
    CreatePod(Box<Pod>),
    /// Give a pod its identity and storage.
    UpdatePod {
        /// Its name.
        name: String,
        /// The version that was observed.
        resource_version: Option<String>,
        /// The labels it has to have.
        labels: BTreeMap<String, String>,
        /// Its volumes, if they have to change.
        volumes: Option<Vec<Volume>>,
    },
    /// Delete a pod.
    DeletePod {
        /// Its name.
        name: String,
        /// Which one of that name.
        uid: String,
    },
    /// Have a claim ask for more, as its template does by now.
    GrowClaim {
        /// Its name.
        name: String,
        /// The version that was observed.
        resource_version: Option<String>,
        /// How much it is to ask for.
        storage: Quantity,
    },
    /// Tell about the set.
    Tell(Told),
    /// Nothing can be done now: told as the failure of what was wanted, tried again later.
    Refuse {
        /// The pod that was to be created or updated.
        pod: String,
        /// Which of the two (`None`: neither, there is nothing to tell).
        verb: Option<Verb>,
        /// Why not.
        message: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::AdoptRevision(revision) => write!(f, "adopt ControllerRevision {}", revision.name_any()),
            Action::OwnPod { pod, adopts, .. } => {
                let verb = if *adopts { "adopt" } else { "release" };
                write!(f, "{verb} Pod {}", pod.name_any())
            }
            Action::CreateRevision(revision) => {
                write!(f, "create ControllerRevision {}", revision.name_any())
            }
            Action::RenumberRevision { name, revision, .. } => {
                write!(f, "make ControllerRevision {name} number {revision}")
            }
            Action::DeleteRevision { name, .. } => write!(f, "delete ControllerRevision {name}"),
            Action::CreateClaim { claim, .. } => write!(f, "create claim {}", claim.name_any()),
            Action::OwnClaim { name, owners, .. } if owners.is_empty() => {
                write!(f, "make claim {name} nobody's, as the retention policy wants")
            }
            Action::OwnClaim { name, owners, .. } => {
                let owners: Vec<_> = owners
                    .iter()
                    .map(|owner| format!("{} {}", owner.kind, owner.name))
                    .collect();
                let owners = owners.join(" and ");
                write!(
                    f,
                    "have claim {name} go with {owners}, as the retention policy wants"
                )
            }
            Action::CreatePod(pod) => write!(
                f,
                "create Pod {} at revision {}",
                pod.name_any(),
                revision_of(pod)
            ),
            Action::UpdatePod { name, .. } => write!(f, "give Pod {name} its labels and volumes"),
            Action::DeletePod { name, .. } => write!(f, "delete Pod {name}"),
            Action::GrowClaim { name, storage, .. } => write!(f, "have claim {name} ask for {}", storage.0),
            Action::Tell(told) => write!(f, "tell: {}", told.message),
            Action::Refuse { pod, message, .. } => {
                write!(f, "wait before anything is done about Pod {pod}: {message}")
            }
        }
    }
}

/// What can be done with a pod, as events call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Create it.
    Create,
    /// Change its labels or volumes.
    Update,
    /// Delete it.
    Delete,
}

/// Actions to be done in their order, until one fails.
pub type Lane = Vec<Action>;

/// Lanes that do not depend on each other. If one fails the steps that follow are not done.
pub type Step = Vec<Lane>;

/// What to do, in this order. If `prepare` fails the rest is not done; if `steps` fails the rest is, for
/// the status is true nevertheless.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Adoption, release and the present revision.
    pub prepare: Vec<Step>,
    /// What is to be done about pods and claims.
    pub steps: Vec<Step>,
    /// The status, if it is news.
    pub status: Option<StatefulSetStatus>,
    /// Revisions that are not needed any more.
    pub prune: Lane,
    /// What the set waits for, in words; told only as far as it is `news`.
    pub waits: Vec<Wait>,
    /// What the status did not say before and people should hear of.
    pub news: Vec<Told>,
    /// When to look again though nothing moves: a pod becomes available by the mere passing of time (R3).
    pub wake_at: Option<Timestamp>,
}
