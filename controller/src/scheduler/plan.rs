//! Where one pod goes, what is to be done before, or what keeps it from going anywhere.

use super::claims::{self, Needs, Step};
use super::{node, ports};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What PostFilter plugins say when nobody could be preempted.
const NO_PREEMPTION: &str = "no new claims to deallocate, preemption";

/// Why preemption does not help: of the node's own properties, and of what other pods do there. (Pods here have
/// one priority, or a system one: nobody is preempted.)
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// What is known about a pod when its verdict is made.
pub struct Observed<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Every node.
    pub nodes: &'a [Node],
    /// The claims of its namespace that it mentions and that exist, by name.
    pub claims: &'a BTreeMap<String, PersistentVolumeClaim>,
    /// The classes of those that are not bound, by name, where they exist.
    pub classes: &'a BTreeMap<String, StorageClass>,
    /// The volumes that the claims have or may get.
    pub volumes: &'a [Arc<PersistentVolume>],
    /// The claims with access mode ReadWriteOncePod, of those it mentions, that another pod has.
    pub in_use: &'a BTreeSet<String>,
    /// Pods that may hold ports of nodes, if it asks for any.
    pub others: &'a [Pod],
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Bind the pod to this node.
    Bind(String),
    /// See to its claims first; once they are bound, the next look finds a place for the pod.
    Prepare(Vec<Step>),
    /// Its claims are being seen to.
    Await,
    /// It cannot be scheduled, for the reason given; only a change of something else helps.
    Unschedulable(String),
    /// It is no business of this scheduler.
    Ignore,
}

/// The verdict about a pod.
pub fn plan(observed: &Observed) -> Verdict {
    let spec = observed.pod.spec.clone().unwrap_or_default();
    let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
    let placed = spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
    let gated = spec.scheduling_gates.is_some_and(|gates| !gates.is_empty());
    let deleted = observed.pod.metadata.deletion_timestamp.is_some();
    if placed || gated || scheduler != "default-scheduler" || deleted {
        return Verdict::Ignore;
    }
    let count = observed.nodes.len();
    if count == 0 {
        return Verdict::Unschedulable("no nodes available to schedule pods".into());
    }
    let needs = match claims::needs(observed) {
        Ok(needs) => needs,
        Err(reason) => return unschedulable(count, &reason, &format!("{count} {NOT_HELPFUL}")),
    };
    let mut nodes: Vec<&Node> = observed.nodes.iter().collect();
    nodes.sort_by_key(|node| node.name_any());
    let (mut reasons, mut preemption) = (Histogram::default(), Histogram::default());
    for node in nodes {
        match consider(observed, &needs, node) {
            Ok(_) if needs.are_met() => return Verdict::Bind(node.name_any()),
            Ok(steps) if steps.is_empty() => return Verdict::Await,
            Ok(steps) => return Verdict::Prepare(steps),
            Err(objection) => {
                objection.reasons.iter().for_each(|reason| reasons.count(reason));
                preemption.count(objection.preemption);
            }
        }
    }
    unschedulable(count, &reasons.to_string(), &preemption.to_string())
}

/// What a node has against a pod.
struct Objection {
    reasons: Vec<&'static str>,
    preemption: &'static str,
}

/// What is to be done for the pod to run on this node. Upstream's filters in their order: the first that
/// objects has the word.
fn consider(observed: &Observed, needs: &Needs, node: &Node) -> Result<Vec<Step>, Objection> {
    if let Some(reason) = node::objection(observed.pod, node) {
        return Err(Objection {
            reasons: vec![reason],
            preemption: NOT_HELPFUL,
        });
    }
    if ports::are_taken(observed.pod, &node.name_any(), observed.others) {
        return Err(Objection {
            reasons: vec!["node(s) didn't have free ports for the requested pod ports"],
            preemption: NO_VICTIMS,
        });
    }
    if !observed.in_use.is_empty() {
        return Err(Objection {
            reasons: vec![
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ],
            preemption: NO_VICTIMS,
        });
    }
    needs.on(node).map_err(|reasons| Objection {
        reasons,
        preemption: NOT_HELPFUL,
    })
}

fn unschedulable(nodes: usize, reasons: &str, preemption: &str) -> Verdict {
    Verdict::Unschedulable(format!(
        "0/{nodes} nodes are available: {reasons}. {NO_PREEMPTION}: 0/{nodes} nodes are available: {preemption}."
    ))
}

/// Reasons and how many nodes gave them.
#[derive(Default)]
struct Histogram(BTreeMap<&'static str, usize>);

impl Histogram {
    fn count(&mut self, reason: &'static str) {
        *self.0.entry(reason).or_default() += 1;
    }
}

/// Sorted as text, the count first, as upstream prints it.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.iter().map(|(reason, count)| format!("{count} {reason}"));
        let lines: BTreeSet<String> = lines.collect();
        f.write_str(&lines.into_iter().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::testing::{World, node, pod};
    use serde_json::json;

    fn message(reason: &str) -> Verdict {
        Verdict::Unschedulable(format!(
            "0/1 nodes are available: {reason}. no new claims to deallocate, preemption: 0/1 nodes are \
             available: 1 Preemption is not helpful for scheduling."
        ))
    }

    #[test]
    fn a_pod_without_wishes_goes_to_a_ready_node() {
        let mut world = World::new(pod(json!({})));
        assert_eq!(world.verdict(), Verdict::Bind("n".into()));
        world.nodes.clear();
        assert_eq!(
            world.verdict(),
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
            assert_eq!(World::new(pod(spec)).verdict(), Verdict::Ignore);
        }
    }

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let mut world = World::new(pod(json!({"nodeSelector": {"disk": "hdd"}})));
        world.nodes = vec![
            node("a", json!({"unschedulable": true}), "True"),
            node("b", json!({}), "True"),
            node("c", json!({}), "True"),
        ];
        let text = "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node \
                    affinity/selector. no new claims to deallocate, preemption: 0/3 nodes are available: 3 \
                    Preemption is not helpful for scheduling.";
        assert_eq!(world.verdict(), Verdict::Unschedulable(text.into()));
    }

    #[test]
    fn what_keeps_a_pod_from_every_node_is_not_counted_per_node() {
        let mut world = World::with_claims(&["c"]);
        world.claims.clear();
        let missing = message("persistentvolumeclaim \"c\" not found");
        assert_eq!(world.verdict(), missing);
    }

    #[test]
    fn a_port_of_the_node_that_another_pod_has_keeps_a_pod_pending() {
        let ports = json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]);
        let mut world = World::new(pod(json!({ "containers": ports })));
        let mut other = pod(json!({"containers": ports, "nodeName": "n"}));
        other.metadata.uid = Some("other".into());
        world.others.push(other);
        let text = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. no new \
                    claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for \
                    incoming pod.";
        assert_eq!(world.verdict(), Verdict::Unschedulable(text.into()));
        world.nodes.push(node("m", json!({}), "True"));
        assert_eq!(world.verdict(), Verdict::Bind("m".into()));
    }

    #[test]
    fn a_claim_for_one_pod_keeps_a_second_one_pending() {
        let mut world = World::with_claims(&["c"]);
        world.bind("c", "v", json!({}));
        assert_eq!(world.verdict(), Verdict::Bind("n".into()));
        world.in_use.insert("c".into());
        let text = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and \
                    ReadWriteOncePod access mode. no new claims to deallocate, preemption: 0/1 nodes are \
                    available: 1 No preemption victims found for incoming pod.";
        assert_eq!(world.verdict(), Verdict::Unschedulable(text.into()));
    }
}
