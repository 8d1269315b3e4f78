//! What admission and the registry change in a pod that is written: its service account, tolerations,
//! priority, and the status that a new pod starts with.

use super::super::json::{default, default_text, items, set, text};
use super::qos;
use serde_json::{Value, json};

/// Seconds that a pod stays on a node that stopped answering, if it does not say otherwise.
const TOLERATION_SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// A new pod.
pub fn create(pod: &mut Value) {
    let status = initial_status(&pod["spec"]);
    set(pod, "status", status);
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    default_text(spec, "serviceAccountName", "default");
    set(spec, "serviceAccount", spec["serviceAccountName"].clone());
    // A negative grace period is stored as the shortest one.
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds < 0)
    {
        set(spec, "terminationGracePeriodSeconds", 1);
    }
    default(spec, "priority", priority(text(spec, "priorityClassName")));
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerate(spec);
}

/// A changed pod: what admission filled in before, clients need not repeat.
pub fn update(pod: &mut Value, old: &Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    for field in ["priority", "preemptionPolicy"] {
        if !old["spec"][field].is_null() {
            default(spec, field, old["spec"][field].clone());
        }
    }
    tolerate(spec);
}

fn initial_status(spec: &Value) -> Value {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(spec)});
    if !items(spec, "schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
    status
}

/// The values of the two priority classes that every cluster has.
fn priority(class: &str) -> i64 {
    match class {
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        _ => 0,
    }
}

fn tolerate(spec: &mut Value) {
    let missing: Vec<Value> = TAINTS
        .iter()
        .filter(|taint| {
            !items(spec, "tolerations").iter().any(|toleration| {
                let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
                (key == **taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
            })
        })
        .map(|taint| {
            json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS})
        })
        .collect();
    if !missing.is_empty() {
        default(spec, "tolerations", json!([]));
        if let Some(tolerations) = spec["tolerations"].as_array_mut() {
            tolerations.extend(missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pod_gets_account_priority_tolerations_and_a_fresh_status() {
        let mut pod = json!({"spec": {"containers": [], "terminationGracePeriodSeconds": -3, "tolerations": [{"key": TAINTS[0]}]},
                             "status": {"phase": "Running", "podIP": "1.2.3.4"}});
        create(&mut pod);
        assert_eq!(
            pod["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        let spec = &pod["spec"];
        assert_eq!(
            (&spec["serviceAccountName"], &spec["serviceAccount"]),
            (&json!("default"), &json!("default"))
        );
        assert_eq!(
            (&spec["priority"], &spec["preemptionPolicy"]),
            (&json!(0), &json!("PreemptLowerPriority"))
        );
        assert_eq!(spec["terminationGracePeriodSeconds"], 1);
        let keys: Vec<&str> = items(spec, "tolerations")
            .iter()
            .map(|t| text(t, "key"))
            .collect();
        assert_eq!(keys, TAINTS);
    }

    #[test]
    fn a_toleration_of_everything_needs_no_others() {
        let mut pod = json!({"spec": {"containers": [], "tolerations": [{"operator": "Exists"}]}});
        create(&mut pod);
        assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    }
}
