//! What can be known of a pod that an earlier kubelet ran.

use crate::plan::{self, is_sidecar};
use crate::record::{PodRecord, Record, State};
use crate::restart::restart_policy;
use crate::shim::protocol::pod::Identity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, LinuxContainerUser, Pod};

/// What the API knows of a pod that an earlier kubelet ran: its restart counts, and how its containers ended, if nothing
/// better is known. `is_held`: there is a shim with some of its containers.
pub(super) fn recollect(pod: &Pod, now: Timestamp, is_held: bool) -> PodRecord {
    let status = pod.status.as_ref();
    let mut record = PodRecord {
        start_time: Some(status.and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0)),
        ..PodRecord::default()
    };
    let statuses = status.iter().flat_map(|s| {
        s.container_statuses
            .iter()
            .flatten()
            .chain(s.init_container_statuses.iter().flatten())
            .chain(s.ephemeral_container_statuses.iter().flatten())
    });
    for known in statuses {
        let state = known.state.as_ref();
        let was = state.and_then(|s| s.terminated.clone());
        let last = known.last_state.as_ref().and_then(|s| s.terminated.clone());
        if known.container_id.is_none() && was.is_none() && last.is_none() {
            continue;
        }
        let backing_off = state.is_some_and(|s| s.waiting.is_some());
        let vanished = || ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when petset was started again".into()),
            container_id: known.container_id.clone(),
            ..ContainerStateTerminated::default()
        };
        let ended = was
            .or_else(|| last.clone().filter(|_| backing_off))
            .unwrap_or_else(vanished);
        let before = last.filter(|l| *l != ended);
        let memory = Record {
            state: State::Ended(ended),
            last: before,
            restarts: known.restart_count,
            id: known.container_id.clone(),
            image: Some(known.image.clone()).filter(|image| !image.is_empty()),
            image_id: known.image_id.clone(),
            user: known
                .user
                .as_ref()
                .and_then(|user| identity(user.linux.as_ref()?)),
            resources: known.resources.clone(),
            ..Record::default()
        };
        record.containers.insert(known.name.clone(), memory);
    }
    if !is_held && !plan::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none() {
        run_init_containers_again(pod, &mut record);
    }
    record
}

fn identity(user: &LinuxContainerUser) -> Option<Identity> {
    let id = |id: i64| u32::try_from(id).ok();
    Some(Identity {
        uid: id(user.uid)?,
        gid: id(user.gid)?,
        groups: user
            .supplemental_groups
            .iter()
            .flatten()
            .filter_map(|group| id(*group))
            .collect(),
    })
}

/// Whether a pod that had containers gets new ones, since nothing is left of what they shared: as after a reboot.
pub(super) fn is_made_anew(pod: &Pod, record: &PodRecord, is_held: bool) -> bool {
    let is_wanted = !plan::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none();
    let restarts = pod
        .spec
        .as_ref()
        .is_some_and(|spec| restart_policy(spec) != "Never");
    !is_held && is_wanted && restarts && record.containers.values().any(|c| c.id.is_some())
}

/// What init containers set up may be gone with the processes: as after upstream's loss of a sandbox they run again,
/// unless nothing of the pod is ever to be restarted.
fn run_init_containers_again(pod: &Pod, record: &mut PodRecord) {
    let Some(spec) = &pod.spec else { return };
    if restart_policy(spec) == "Never" {
        return;
    }
    let init = spec.init_containers.iter().flatten();
    for container in init.filter(|c| !is_sidecar(c)) {
        if let Some(known) = record.containers.get_mut(&container.name)
            && let State::Ended(ended) = std::mem::take(&mut known.state)
        {
            known.last = Some(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(policy: &str, phase: &str, id: Value, deleted: Value) -> Pod {
        let status = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": id, "state": {"running": {}}});
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": deleted},
            "spec": {"restartPolicy": policy, "containers": [{"name": "c"}]},
            "status": {"phase": phase, "containerStatuses": [status]}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_is_made_anew_if_it_ran_and_goes_on_and_nothing_of_it_is_left() {
        let (id, never) = (json!("petset://1"), Value::Null);
        let deleted = json!("2026-01-02T03:04:05Z");
        let now = Timestamp::UNIX_EPOCH;
        let table = [
            (pod("Always", "Running", id.clone(), Value::Null), false, true),
            (pod("Always", "Running", id.clone(), Value::Null), true, false),
            (pod("Never", "Running", id.clone(), Value::Null), false, false),
            (pod("Always", "Running", id.clone(), deleted), false, false),
            (pod("Always", "Pending", never, Value::Null), false, false),
            (pod("OnFailure", "Failed", id, Value::Null), false, false),
        ];
        for (pod, is_held, expected) in table {
            let record = recollect(&pod, now, is_held);
            assert_eq!(
                is_made_anew(&pod, &record, is_held),
                expected,
                "{pod:?} {is_held}"
            );
        }
    }
}
