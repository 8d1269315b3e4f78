//! What one node has against a pod, its claims aside: taints, labels.

use crate::selector::{Labels, requirement};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use kube::ResourceExt;

/// Why the pod may not run on this node, the first of upstream's filters that says no.
pub fn objection(pod: &Pod, node: &Node) -> Option<&'static str> {
    let spec = pod.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.unwrap_or_default();
    let node_spec = node.spec.clone().unwrap_or_default();
    let unschedulable = taint("node.kubernetes.io/unschedulable");
    if node_spec.unschedulable == Some(true) && !tolerated(&unschedulable, &tolerations) {
        return Some("node(s) were unschedulable");
    }
    let mut taints = node_spec.taints.unwrap_or_default();
    if !is_ready(node) {
        taints.push(taint("node.kubernetes.io/not-ready"));
    }
    let repels = |taint: &Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(taint, &tolerations)
    };
    if taints.iter().any(repels) {
        return Some("node(s) had untolerated taint(s)");
    }
    let chosen = spec.node_selector.unwrap_or_default();
    let affinity = spec.affinity.and_then(|affinity| affinity.node_affinity);
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let fits = crate::selector::equal(&chosen, node.labels())
        && required.is_none_or(|required| node_matches(&required, node));
    (!fits).then_some("node(s) didn't match Pod's node affinity/selector")
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

/// Does the node match the selector? One term is enough; a term without anything in it matches nothing.
pub fn node_matches(selector: &NodeSelector, node: &Node) -> bool {
    let fields: Labels = [("metadata.name".into(), node.name_any())].into();
    let holds = |term: &NodeSelectorTerm| {
        let by_label = term.match_expressions.as_deref().unwrap_or_default();
        let by_field = term.match_fields.as_deref().unwrap_or_default();
        let all = |requirements: &[NodeSelectorRequirement], labels: &Labels| {
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
    use crate::scheduler::testing::{node, pod};
    use serde_json::json;

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
                Some("node(s) had untolerated taint(s)"),
            ),
            (
                json!({}),
                json!({"unschedulable": true}),
                "True",
                Some("node(s) were unschedulable"),
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
                Some("node(s) had untolerated taint(s)"),
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
                Some("node(s) had untolerated taint(s)"),
            ),
            (
                json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}),
                tainted,
                "True",
                Some("node(s) had untolerated taint(s)"),
            ),
            (json!({"nodeSelector": {"disk": "ssd"}}), json!({}), "True", None),
            (
                json!({"nodeSelector": {"disk": "hdd"}}),
                json!({}),
                "True",
                Some("node(s) didn't match Pod's node affinity/selector"),
            ),
            (affinity("In"), json!({}), "True", None),
            (
                affinity("NotIn"),
                json!({}),
                "True",
                Some("node(s) didn't match Pod's node affinity/selector"),
            ),
        ];
        for (spec, node_spec, ready, expected) in table {
            let node = node("n", node_spec, ready);
            assert_eq!(objection(&pod(spec.clone()), &node), expected, "{spec}");
        }
    }
}
