//! The words of the controller's events, which clients and people compare (R49).

use super::action::Verb;
use events::EventType;

/// An event about a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Good news or bad.
    pub event_type: EventType,
    /// Its reason, for machines.
    pub reason: String,
    /// Its message, for people.
    pub message: String,
}

/// What became of a pod; `Err` says why it failed.
pub fn about_pod(set: &str, verb: Verb, pod: &str, done: Result<(), &str>) -> Told {
    match done {
        Ok(()) => Told {
            event_type: EventType::Normal,
            reason: format!("Successful{verb:?}"),
            message: format!("{verb:?} Pod {pod} in StatefulSet {set} successful"),
        },
        Err(why) => Told {
            event_type: EventType::Warning,
            reason: format!("Failed{verb:?}"),
            message: format!("{verb:?} Pod {pod} in StatefulSet {set} failed error: {why}"),
        },
    }
}

/// What became of a claim that a pod needs; `Err` says why it could not be created.
pub fn about_claim(set: &str, claim: &str, pod: &str, done: Result<(), &str>) -> Told {
    match done {
        Ok(()) => Told {
            event_type: EventType::Normal,
            reason: "SuccessfulCreate".into(),
            message: format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success"),
        },
        Err(why) => Told {
            event_type: EventType::Warning,
            reason: "FailedCreate".into(),
            message: format!("Create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {why}"),
        },
    }
}

/// Somebody else manages a claim. (The misspelling is upstream's.)
pub fn conflicting_controller(claim: &str) -> Told {
    Told {
        event_type: EventType::Warning,
        reason: "ConflictingController".into(),
        message: format!(
            "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, \
             the retention policy is ignored for this claim"
        ),
    }
}

/// A pod that blocked a rollout is replaced (`petset.dev/unblock-rollout`).
pub fn rollout_unblocked(pod: &str, old: &str, new: &str) -> Told {
    Told {
        event_type: EventType::Normal,
        reason: "RolloutUnblocked".into(),
        message: format!("Pod {pod} of revision {old} is not Ready and is replaced by one of revision {new}"),
    }
}

/// What became of a claim that was to grow; `Err` says why it did not.
pub fn about_growth(set: &str, claim: &str, storage: &str, done: Result<(), &str>) -> Told {
    match done {
        Ok(()) => Told {
            event_type: EventType::Normal,
            reason: "SuccessfulUpdate".into(),
            message: format!("Update Claim {claim} in StatefulSet {set} successful: it asks for {storage}"),
        },
        Err(why) => Told {
            event_type: EventType::Warning,
            reason: "FailedUpdate".into(),
            message: format!("Update Claim {claim} in StatefulSet {set} to {storage} failed error: {why}"),
        },
    }
}
