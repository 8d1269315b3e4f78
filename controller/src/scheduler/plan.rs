//! Where one pod goes, or what keeps it from going anywhere.

use crate::selector::{Labels, requirement};
use crate::volume::action::BIND_COMPLETED;
use crate::volume::protection::claims;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorTerm, PersistentVolumeClaim, Pod, Taint, Toleration,
};
use kube::ResourceExt;
use std::borrow::Borrow;
use std::collections::BTreeMap;

/// How long a claim that exists may take to be bound before the pod's status and an event complain. The
/// usual few milliseconds are not worth telling. (Times of creation are whole seconds.)
const PATIENCE: SignedDuration = SignedDuration::from_secs(2);

/// What PostFilter plugins say when nobody could be preempted.
const NO_PREEMPTION: &str = "no new claims to deallocate, preemption";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Bind the pod to this node.
    Bind(String),
    /// It cannot be scheduled, for the reason given; only a change of something else helps.
    Unschedulable(String),
    /// Nothing is wrong yet; look again after this time if nothing changes before.
    Wait(SignedDuration),
    /// It is no business of this scheduler.
    Ignore,
}

/// The verdict about `pod`. `found` holds the claims of its namespace that it mentions and that exist.
pub fn plan<N: Borrow<Node>>(
    pod: &Pod,
    nodes: &[N],
    found: &BTreeMap<String, PersistentVolumeClaim>,
    now: Timestamp,
) -> Verdict {
    let spec = pod.spec.clone().unwrap_or_default();
    let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
    let placed = spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
    let gated = spec.scheduling_gates.is_some_and(|gates| !gates.is_empty());
    if placed || gated || scheduler != "default-scheduler" || pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Ignore;
    }
    if nodes.is_empty() {
        return Verdict::Unschedulable("no nodes available to schedule pods".into());
    }
    match hindrance(pod, found) {
        Hindrance::None => {}
        Hindrance::Final(reason) => return unschedulable(nodes.len(), &reason),
        Hindrance::Passing(reason) => {
            let created = pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(now, |time| time.0);
            let age = now.duration_since(created);
            return match age < PATIENCE {
                true => Verdict::Wait(PATIENCE - age),
                false => unschedulable(nodes.len(), &reason),
            };
        }
    }
    let mut nodes: Vec<&Node> = nodes.iter().map(Borrow::borrow).collect();
    nodes.sort_by_key(|node| node.name_any());
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for node in &nodes {
        match objection(pod, node) {
            None => return Verdict::Bind(node.name_any()),
            Some(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    // Sorted as text, the count first, as upstream prints its histogram.
    let mut reasons: Vec<_> = reasons
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.sort();
    unschedulable(nodes.len(), &reasons.join(", "))
}

fn unschedulable(nodes: usize, reason: &str) -> Verdict {
    Verdict::Unschedulable(format!(
        "0/{nodes} nodes are available: {reason}. {NO_PREEMPTION}: 0/{nodes} nodes are available: \
         {nodes} Preemption is not helpful for scheduling."
    ))
}

/// What keeps the pod from every node.
enum Hindrance {
    None,
    /// It passes by itself in the normal course of things.
    Passing(String),
    /// Somebody has to do something.
    Final(String),
}

fn hindrance(pod: &Pod, found: &BTreeMap<String, PersistentVolumeClaim>) -> Hindrance {
    let mut passing = Hindrance::None;
    for name in claims(pod) {
        let Some(claim) = found.get(name) else {
            return Hindrance::Final(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Hindrance::Final(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = volume.unwrap_or_default();
        if phase == Some("Lost") {
            return Hindrance::Final(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if volume.is_empty() || !claim.annotations().contains_key(BIND_COMPLETED) {
            passing = Hindrance::Passing("pod has unbound immediate PersistentVolumeClaims".into());
        }
    }
    passing
}

/// Why the pod may not run on this node, the first of upstream's filters that says no.
fn objection(pod: &Pod, node: &Node) -> Option<String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.unwrap_or_default();
    let node_spec = node.spec.clone().unwrap_or_default();
    let unschedulable = taint("node.kubernetes.io/unschedulable");
    if node_spec.unschedulable == Some(true) && !tolerated(&unschedulable, &tolerations) {
        return Some("node(s) were unschedulable".into());
    }
    let mut taints = node_spec.taints.unwrap_or_default();
    if !is_ready(node) {
        taints.push(taint("node.kubernetes.io/not-ready"));
    }
    let repelling = taints.iter().find(|taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(taint, &tolerations)
    });
    if let Some(taint) = repelling {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        ));
    }
    let chosen = spec.node_selector.unwrap_or_default();
    let affinity = spec.affinity.and_then(|affinity| affinity.node_affinity);
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let fits = crate::selector::equal(&chosen, node.labels())
        && required.is_none_or(|required| node_matches(&required, node));
    (!fits).then(|| "node(s) didn't match Pod's node affinity/selector".into())
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    }
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && ((key.is_empty() && exists) || key == taint.key)
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

/// Is the node's condition Ready true?
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// One term is enough; a term without anything in it matches nothing.
fn node_matches(selector: &NodeSelector, node: &Node) -> bool {
    let fields: Labels = [("metadata.name".into(), node.name_any())].into();
    let holds = |term: &NodeSelectorTerm| {
        let by_label = term.match_expressions.as_deref().unwrap_or_default();
        let by_field = term.match_fields.as_deref().unwrap_or_default();
        let all = |requirements: &[k8s_openapi::api::core::v1::NodeSelectorRequirement], labels: &Labels| {
            requirements.iter().all(|one| {
                let values = one.values.as_deref().unwrap_or_default();
                requirement(&one.key, &one.operator, values, labels)
            })
        };
        !(by_label.is_empty() && by_field.is_empty())
            && all(by_label, node.labels())
            && all(by_field, &fields)
    };
    selector.node_selector_terms.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
    fn pod(spec: Value) -> Pod {
        let mut base = json!({
            "metadata": {"name": "p", "namespace": "default", "creationTimestamp": at(100)},
            "spec": {"containers": []},
        });
        base["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(base).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
    fn node(spec: Value, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd"}},
            "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn verdict(pod: &Pod, node: Node) -> Verdict {
        plan(pod, &[node], &BTreeMap::new(), at(100))
    }

    fn message(reason: &str) -> Verdict {
        Verdict::Unschedulable(format!(
            "0/1 nodes are available: {reason}. no new claims to deallocate, preemption: 0/1 nodes are \
             available: 1 Preemption is not helpful for scheduling."
        ))
    }

    #[test]
    fn a_pod_without_wishes_goes_to_a_ready_node() {
        assert_eq!(
            verdict(&pod(json!({})), node(json!({}), "True")),
            Verdict::Bind("n".into())
        );
        let none: &[Node] = &[];
        assert_eq!(
            plan(&pod(json!({})), none, &BTreeMap::new(), at(100)),
            Verdict::Unschedulable("no nodes available to schedule pods".into())
        );
    }

    #[test]
    fn pods_of_others_are_ignored() {
        for spec in [
            json!({"nodeName": "n"}),
            json!({"schedulerName": "mine"}),
            json!({"schedulingGates": [{"name": "g"}]}),
        ] {
            assert_eq!(verdict(&pod(spec), node(json!({}), "True")), Verdict::Ignore);
        }
    }

    #[test]
    fn a_node_may_object() {
        let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        let affinity = |operator: &str| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": operator, "values": ["ssd"]}]}]
            }}}})
        };
        let table = [
            (
                json!({}),
                json!({}),
                "False",
                Some("1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"),
            ),
            (
                json!({}),
                json!({"unschedulable": true}),
                "True",
                Some("1 node(s) were unschedulable"),
            ),
            (
                json!({"tolerations": [{"operator": "Exists"}]}),
                json!({"unschedulable": true}),
                "False",
                None,
            ),
            (
                json!({}),
                tainted.clone(),
                "True",
                Some("1 node(s) had untolerated taint {k: v}"),
            ),
            (
                json!({"tolerations": [{"key": "k", "value": "v"}]}),
                tainted.clone(),
                "True",
                None,
            ),
            (
                json!({"tolerations": [{"key": "k", "value": "w"}]}),
                tainted.clone(),
                "True",
                Some("1 node(s) had untolerated taint {k: v}"),
            ),
            (
                json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}),
                tainted,
                "True",
                Some("1 node(s) had untolerated taint {k: v}"),
            ),
            (json!({"nodeSelector": {"disk": "ssd"}}), json!({}), "True", None),
            (
                json!({"nodeSelector": {"disk": "hdd"}}),
                json!({}),
                "True",
                Some("1 node(s) didn't match Pod's node affinity/selector"),
            ),
            (affinity("In"), json!({}), "True", None),
            (
                affinity("NotIn"),
                json!({}),
                "True",
                Some("1 node(s) didn't match Pod's node affinity/selector"),
            ),
        ];
        for (spec, node_spec, ready, objection) in table {
            let expected = objection.map_or(Verdict::Bind("n".into()), message);
            assert_eq!(
                verdict(&pod(spec.clone()), node(node_spec, ready)),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn claims_hold_a_pod_back() {
        let with_claim =
            pod(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}));
        let nodes = [node(json!({}), "True")];
        let claim = |bound: bool, phase: &str| -> PersistentVolumeClaim {
            let volume = bound.then_some("v");
            let annotations = if bound {
                json!({BIND_COMPLETED: "yes"})
            } else {
                json!({})
            };
            serde_json::from_value(json!({
                "metadata": {"name": "c", "annotations": annotations},
                "spec": {"volumeName": volume},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let table = [
            (None, 100, message("persistentvolumeclaim \"c\" not found")),
            (
                Some(claim(false, "Pending")),
                101,
                Verdict::Wait(SignedDuration::from_secs(1)),
            ),
            (
                Some(claim(false, "Pending")),
                102,
                message("pod has unbound immediate PersistentVolumeClaims"),
            ),
            (Some(claim(true, "Pending")), 100, Verdict::Bind("n".into())),
            (Some(claim(true, "Bound")), 100, Verdict::Bind("n".into())),
            (
                Some(claim(true, "Lost")),
                100,
                message("persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\""),
            ),
        ];
        for (claim, now, expected) in table {
            let found = claim.map(|claim| ("c".to_owned(), claim)).into_iter().collect();
            assert_eq!(plan(&with_claim, &nodes, &found, at(now)), expected);
        }
    }
}
