//! What the plans for claims and volumes can ask for.

use events::EventType;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::Value;
use std::path::PathBuf;

/// "yes" once a claim's binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// "yes" where this controller, not the user, chose the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The provisioner that made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The provisioner that a claim waits for, and its older name.
pub const STORAGE_PROVISIONER: [&str; 2] = [
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];
/// The node that the scheduler has chosen for the first pod that uses a claim (P8): the word to begin.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// One step; the steps of a plan are taken in order and a failed one ends it. Patches are JSON merge
/// patches that carry in their metadata what they expect to find.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Patch the claim.
    PatchClaim(Value),
    /// Patch the claim's status.
    PatchClaimStatus(Value),
    /// Patch a volume.
    PatchVolume {
        /// Its name.
        name: String,
        /// The patch.
        patch: Value,
    },
    /// Patch a volume's status.
    PatchVolumeStatus {
        /// Its name.
        name: String,
        /// The patch.
        patch: Value,
    },
    /// Make the directory and the volume that names it.
    Provision(Box<PersistentVolume>),
    /// Let the directory of the claim's volume hold more, then write the new capacity into the volume.
    Expand {
        /// The volume's name.
        name: String,
        /// The directory that it stands for.
        directory: PathBuf,
        /// The patch of the volume, with its new capacity.
        patch: Value,
    },
    /// Remove the directory, then the volume; a failure is written into the volume's phase.
    Reclaim {
        /// What the volume stands for.
        directory: PathBuf,
    },
    /// Take the next look at the claim of this namespace and name.
    LookAtClaim {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An event about the object the plan is for.
    Tell {
        /// Normal or Warning.
        event_type: EventType,
        /// Upstream's reason.
        reason: &'static str,
        /// Upstream's text.
        message: String,
    },
}

impl Action {
    /// A Normal event.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Action::Tell {
            event_type: EventType::Normal,
            reason,
            message: message.into(),
        }
    }

    /// A Warning event.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Action::Tell {
            event_type: EventType::Warning,
            reason,
            message: message.into(),
        }
    }
}
