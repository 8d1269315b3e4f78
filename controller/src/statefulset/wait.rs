//! What a set waits for, in words: the answer to "why is it not moving?".
//!
//! Kubernetes' own controller waits in silence. Here whatever ends a sync early leaves a [`Wait`]; from them come the
//! `Progressing` condition, one Warning event per cause, and `petset explain`.

use super::identity::{condition, controller_of, is_available, is_ready, is_terminating};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use std::fmt;

/// How long a pod may take to become Ready, or to go once its grace period is over, before it is worth a Warning.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Why a container does not start, as kubelets put it, when it will not without somebody's help.
const HOPELESS: [&str; 8] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// Something that has to happen before the set can go on, or be what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// For machines: the reason of the condition and of the event.
    pub reason: &'static str,
    /// What is the matter, as a sentence without its full stop. It says the same as long as the cause is the same.
    pub what: String,
    /// What is not done before, as a noun.
    pub holds_up: Option<String>,
    /// What helps.
    pub help: Option<String>,
    /// From when on this is no longer usual, so that a Warning is due. `None`: time alone will end it.
    pub due_at: Option<Timestamp>,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(held_up) = &self.holds_up {
            write!(f, ". Waiting for it: {held_up}")?;
        }
        match &self.help {
            Some(help) => write!(f, ". {help}"),
            None => Ok(()),
        }
    }
}

impl Wait {
    /// The pod is not what it should be: available, and there to stay. `None` when it is.
    pub fn for_pod(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Self> {
        if !is_terminating(pod) && is_ready(pod) && is_available(pod, min_ready_seconds, now) {
            return None;
        }
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let see = format!("See: kubectl describe pod {name} -n {namespace}");
        if is_terminating(pod) {
            return Some(Self::for_going(pod, see));
        }
        if is_ready(pod) {
            return Some(Self {
                reason: "PodNotAvailable",
                what: format!(
                    "Pod {name} is Ready, and available once minReadySeconds ({min_ready_seconds}) have passed"
                ),
                holds_up: None,
                help: None,
                due_at: None,
            });
        }
        let since = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.clone());
        let since = since.or_else(|| pod.creation_timestamp()).map(|time| time.0);
        let (what, due_at) = match trouble(pod) {
            Some(trouble) => (format!("Pod {name} is not Ready: {trouble}"), Some(now)),
            None => {
                let usual_until = since.and_then(|since| since.checked_add(PATIENCE).ok());
                let what = match unscheduled(pod) {
                    Some(why) => format!("Pod {name} is not scheduled: {why}"),
                    None => format!("Pod {name} is not Ready"),
                };
                (what, usual_until)
            }
        };
        Some(Self {
            reason: "PodNotReady",
            what,
            holds_up: None,
            help: Some(see),
            due_at,
        })
    }

    fn for_going(pod: &Pod, see: String) -> Self {
        let name = pod.name_any();
        let kept_by = pod.finalizers().join(", ");
        let what = match kept_by.as_str() {
            "" => format!("Pod {name} is being deleted"),
            _ => format!("Pod {name} is being deleted and kept by its finalizers ({kept_by})"),
        };
        // The end of its grace period.
        let end = pod.metadata.deletion_timestamp.as_ref();
        Self {
            reason: "PodTerminating",
            what,
            holds_up: None,
            help: Some(see),
            due_at: end.and_then(|end| end.0.checked_add(PATIENCE).ok()),
        }
    }

    /// A claim has to go before its pod can be created (R44, R46).
    pub fn for_claim(claim: &PersistentVolumeClaim, pod: &str) -> Self {
        let (name, namespace) = (claim.name_any(), claim.namespace().unwrap_or_default());
        let deleted_at = claim.metadata.deletion_timestamp.as_ref();
        let what = match deleted_at {
            Some(_) => format!("Claim {name} is being deleted"),
            None => format!("Claim {name} belongs to the {pod} that there was before and goes with it"),
        };
        Self {
            reason: "ClaimTerminating",
            what,
            holds_up: Some(format!("the creation of Pod {pod}")),
            help: Some(format!("See: kubectl describe pvc {name} -n {namespace}")),
            due_at: deleted_at.and_then(|at| at.0.checked_add(PATIENCE).ok()),
        }
    }

    /// A pod that is not the set's has the name of one that should be (R9).
    pub fn for_name(pod: &Pod, set: &StatefulSet, now: Timestamp) -> Self {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let held_up = Some(format!("the creation of the set's own {name}"));
        if is_terminating(pod) {
            let see = format!("See: kubectl describe pod {name} -n {namespace}");
            return Self::for_going(pod, see).holding_up(held_up);
        }
        // One that is the set's still is being released.
        let whose = match controller_of(pod).filter(|owner| Some(&owner.uid) != set.metadata.uid.as_ref()) {
            Some(owner) => format!("belongs to {} {}", owner.kind, owner.name),
            None => "has labels that the set's selector does not match".to_owned(),
        };
        Self {
            reason: "PodNameTaken",
            what: format!("There is a Pod {name} already, which {whose}"),
            holds_up: held_up,
            help: Some(format!("Delete it: kubectl delete pod {name} -n {namespace}")),
            due_at: Some(now),
        }
    }

    /// The same wait, with what is not done before it is over.
    pub fn holding_up(self, what: Option<String>) -> Self {
        Self {
            holds_up: what,
            ..self
        }
    }

    /// Whether it lasts longer than is usual.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due_at.is_some_and(|at| at <= now)
    }
}

/// What keeps the pod from running that no waiting will change: the first container, init containers before
/// others, that does not start or keeps ending. In words that stay the same from one restart to the next.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = [&status.init_container_statuses, &status.container_statuses];
    containers
        .into_iter()
        .flatten()
        .flatten()
        .find_map(container_trouble)
}

fn container_trouble(container: &ContainerStatus) -> Option<String> {
    if container.ready {
        return None;
    }
    let name = &container.name;
    let last = container
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    if let Some(ended) = last.filter(|ended| container.restart_count > 0 && ended.exit_code != 0) {
        return Some(format!(
            "container {name} keeps ending, last with exit code {}",
            ended.exit_code
        ));
    }
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref())?;
    HOPELESS
        .contains(&reason)
        .then(|| format!("container {name} does not start ({reason})"))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False")?;
    scheduled.message.clone().or_else(|| scheduled.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn pod(status: Value) -> Pod {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "ns", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "status": status});
        serde_json::from_value(pod).expect("a pod")
    }

    fn container(state: Value, restarts: i32, last: Value) -> Value {
        json!({"phase": "Running", "containerStatuses": [{"name": "web", "ready": false, "restartCount": restarts,
            "image": "", "imageID": "", "state": state, "lastState": last}]})
    }

    #[test]
    fn a_pod_that_is_slow_is_waited_for_in_silence_at_first() {
        let wait = Wait::for_pod(&pod(json!({"phase": "Pending"})), 0, at(5)).expect("a wait");
        assert_eq!(wait.what, "Pod web-1 is not Ready");
        assert!(!wait.is_due(at(29)) && wait.is_due(at(30)));
    }

    #[test]
    fn a_pod_that_needs_help_is_told_about_at_once_in_words_that_stay() {
        let failed = json!({"terminated": {"exitCode": 3}});
        let backing_off = container(
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            2,
            failed.clone(),
        );
        let running_again = container(json!({"running": {}}), 3, failed);
        for status in [backing_off, running_again] {
            let wait = Wait::for_pod(&pod(status), 0, at(5)).expect("a wait");
            assert_eq!(
                wait.what,
                "Pod web-1 is not Ready: container web keeps ending, last with exit code 3"
            );
            assert!(wait.is_due(at(5)));
        }
        let missing = container(json!({"waiting": {"reason": "ImagePullBackOff"}}), 0, json!({}));
        let wait = Wait::for_pod(&pod(missing), 0, at(5)).expect("a wait");
        assert_eq!(
            wait.what,
            "Pod web-1 is not Ready: container web does not start (ImagePullBackOff)"
        );
    }

    #[test]
    fn min_ready_seconds_is_nothing_to_warn_of_and_an_available_pod_nothing_to_wait_for() {
        let ready = |since: &str| {
            pod(json!({"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}))
        };
        let wait = Wait::for_pod(&ready("1970-01-01T00:00:10Z"), 60, at(1000));
        assert_eq!(wait, None);
        let wait = Wait::for_pod(&ready("1970-01-01T00:16:00Z"), 60, at(1000)).expect("a wait");
        assert_eq!(wait.due_at, None);
    }

    #[test]
    fn a_pod_that_finalizers_keep_says_so() {
        let mut pod = pod(json!({"phase": "Running"}));
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)));
        pod.metadata.finalizers = Some(vec!["example.com/hold".into()]);
        let wait = Wait::for_pod(&pod, 0, at(5))
            .expect("a wait")
            .holding_up(Some("the creation of Pod web-2".into()));
        assert_eq!(
            wait.to_string(),
            "Pod web-1 is being deleted and kept by its finalizers (example.com/hold). Waiting for it: \
             the creation of Pod web-2. See: kubectl describe pod web-1 -n ns"
        );
        assert!(!wait.is_due(at(129)) && wait.is_due(at(130)));
    }
}
