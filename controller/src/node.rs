//! Node lifecycle: a node whose kubelet has fallen silent is not ready, and what its conditions say keeps
//! pods away by taints. The Node and its lease are the kubelet's.

use crate::runtime::{Cache, Context, Queue, Teller, tell, watch, work};
use events::{EventType, Recorder};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Config;
use kube::{Api, Resource};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a kubelet may be silent (upstream's node-monitor-grace-period).
const GRACE: Duration = Duration::from_secs(50);

/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// The conditions that a silent kubelet leaves unknown.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Which condition, with which status, keeps pods away, and the taint that does it.
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Keeps pods away from a node that is cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Watch over every node, for ever.
pub async fn run(context: Context) {
    let client = context.client.clone();
    let clock = context.clock.clone();
    let recorder = Recorder::new(client.clone(), "node-controller", None, clock);
    let (teller, telling) = Teller::new();
    let queue = Queue::default();
    let (nodes, leases) = (Cache::default(), Cache::default());
    // By this clock, not the kubelet's: what counts is when news came.
    let heard: Mutex<HashMap<String, Instant>> = Mutex::default();
    let hear = |name: &str| {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(name.to_owned(), Instant::now());
    };
    let silence = |name: &str| {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .entry(name.to_owned())
            .or_insert_with(Instant::now)
            .elapsed()
    };
    tokio::join!(
        watch(
            Api::<Node>::all(client.clone()),
            Config::default(),
            &nodes,
            |moved| {
                let name = moved.key().name;
                let heartbeat =
                    |node: &Node| ready(node).map(|c| (c.status.clone(), c.last_heartbeat_time.clone()));
                let before = moved.before.as_deref().map(heartbeat);
                if before != moved.after.as_deref().map(heartbeat)
                    && moved.after.as_deref().is_some_and(is_heard)
                {
                    hear(&name);
                }
                queue.add(name);
            }
        ),
        watch(
            Api::<Lease>::namespaced(client.clone(), LEASES),
            Config::default(),
            &leases,
            |moved| {
                hear(&moved.key().name);
                queue.add(moved.key().name);
            }
        ),
        work(&queue, 1, |name| {
            let silence = silence(&name);
            check(&context, &teller, name, silence)
        }),
        tell(telling, recorder),
    );
}

/// Has the kubelet itself said how the node is?
fn is_heard(node: &Node) -> bool {
    ready(node).is_some_and(|condition| condition.status != "Unknown")
}

async fn check(
    context: &Context,
    teller: &Teller,
    name: String,
    silence: Duration,
) -> Result<Option<Duration>, kube::Error> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let Some(node) = nodes.get_opt(&name).await? else {
        return Ok(None);
    };
    if let Some(taints) = taints(&node, &Time((context.clock)())) {
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        nodes
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    if let Some(left) = GRACE.checked_sub(silence).filter(|left| !left.is_zero()) {
        return Ok(Some(left));
    }
    if let Some(status) = unknown(&node, &Time((context.clock)())) {
        let patch = Patch::Strategic(status);
        nodes.patch_status(&name, &PatchParams::default(), &patch).await?;
        let text = format!("Node {name} status is now: NodeNotReady");
        teller.tell(&node.object_ref(&()), EventType::Normal, "NodeNotReady", text);
    }
    Ok(None)
}

/// The patch that makes every condition unknown; `None` where they are.
fn unknown(node: &Node, now: &Time) -> Option<Value> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let find = |type_: &str| conditions.and_then(|all| all.iter().find(|c| c.type_ == type_));
    let changed = CONDITIONS
        .iter()
        .filter(|type_| find(type_).is_none_or(|c| c.status != "Unknown"));
    let patches: Vec<_> = changed
        .map(|type_| {
            let (reason, message) = match find(type_) {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            json!({
                "type": type_, "status": "Unknown", "reason": reason, "message": message, "lastTransitionTime": now,
            })
        })
        .collect();
    let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"conditions": patches}});
    (!patches.is_empty()).then_some(patch)
}

/// The taints as they should be: those of others, and ours as the conditions have them. A condition that
/// nobody has told yet changes nothing. `None`: they are.
fn taints(node: &Node, now: &Time) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let present = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let told = |type_: &str| conditions.and_then(|all| all.iter().find(|c| c.type_ == type_));
    let mut wanted: Vec<(&str, bool)> = TAINTS
        .iter()
        .filter_map(|(type_, status, key)| Some((*key, told(type_)?.status == *status)))
        .collect();
    let cordoned = spec.is_some_and(|spec| spec.unschedulable == Some(true));
    wanted.push((UNSCHEDULABLE, cordoned));
    let is = |taint: &Taint, key: &str| taint.key == key && taint.effect == "NoSchedule";
    let mut taints = present.clone();
    for (key, wanted) in wanted {
        let there = taints.iter().any(|taint| is(taint, key));
        if wanted && !there {
            taints.push(Taint {
                key: key.into(),
                effect: "NoSchedule".into(),
                time_added: Some(now.clone()),
                value: None,
            });
        } else if !wanted && there {
            taints.retain(|taint| !is(taint, key));
        }
    }
    (taints != present).then_some(taints)
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_becomes_unknown_once() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let node = |status: &str| -> Node {
            let condition = |type_: &str| json!({"type": type_, "status": status});
            let conditions: Vec<_> = CONDITIONS.iter().map(|type_| condition(type_)).collect();
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}))
                .unwrap()
        };
        let patch = unknown(&node("True"), &now).unwrap();
        assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 4);
        assert_eq!(patch["status"]["conditions"][0]["reason"], "NodeStatusUnknown");
        assert_eq!(unknown(&node("Unknown"), &now), None);
        let never = unknown(&Node::default(), &now).unwrap();
        assert_eq!(
            never["status"]["conditions"][0]["reason"],
            "NodeStatusNeverUpdated"
        );
    }
    #[test]
    fn taints_follow_conditions_and_leave_those_of_others() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let keys = |spec: Value, conditions: Value| {
            let node = json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}});
            let node = serde_json::from_value(node).unwrap();
            taints(&node, &now).map(|all| all.into_iter().map(|taint| taint.key).collect::<Vec<_>>())
        };
        let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
        let mine = taint("mine");
        let not_ready = taint("node.kubernetes.io/not-ready");
        let both = json!({"taints": [mine, not_ready]});
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        let key = |name: &str| format!("node.kubernetes.io/{name}");
        assert_eq!(keys(both.clone(), ready("True")), Some(vec!["mine".into()]));
        assert_eq!(keys(both.clone(), ready("False")), None);
        assert_eq!(keys(both.clone(), json!([])), None);
        assert_eq!(
            keys(both, ready("Unknown")),
            Some(vec!["mine".into(), key("unreachable")])
        );
        assert_eq!(keys(json!({}), ready("True")), None);
        assert_eq!(
            keys(json!({"unschedulable": true}), ready("True")),
            Some(vec![key("unschedulable")])
        );
        let pressed = json!([{"type": "DiskPressure", "status": "True"}]);
        assert_eq!(keys(json!({}), pressed), Some(vec![key("disk-pressure")]));
    }
}
