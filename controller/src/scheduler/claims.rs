//! What a pod's claims ask of a node, and what is to be done so that they have volumes there (P8, P15).
//!
//! A volume or a class that names nodes (`nodeAffinity`, `allowedTopologies`) is held to it where there are several.
//! With one node there is no choice to be made and nothing that could be elsewhere: the names in a manifest that was
//! written for another cluster, a `local` volume's hostname above all, say nothing about this one.

use super::node::node_matches;
use super::plan::Observed;
use crate::volume::action::{BIND_COMPLETED, SELECTED_NODE};
use crate::volume::claim::{NO_PROVISIONER, guarded, reserve, waits_for_consumer};
use crate::volume::matching::{claim_class, find_free, find_reserved, requested};
use crate::volume::protection::claims;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, TopologySelectorLabelRequirement, TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NO_MATCH: &str = "node(s) didn't find available persistent volumes to bind";
const ELSEWHERE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// One write that helps a claim to a volume: a JSON merge patch that carries what it expects to find.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Reserve a volume for a claim.
    Volume {
        /// The volume's name.
        name: String,
        /// The patch.
        patch: Value,
    },
    /// Tell the claim's provisioner to begin.
    Claim {
        /// The claim's name.
        name: String,
        /// The patch.
        patch: Value,
    },
}

/// What the claims of a pod ask of its node.
pub struct Needs<'a> {
    observed: &'a Observed<'a>,
    bound: Vec<&'a PersistentVolumeClaim>,
    /// Those that wait for this pod, the smallest first, each with its class.
    delayed: Vec<(&'a PersistentVolumeClaim, &'a StorageClass)>,
}

/// The needs, or what keeps the pod from every node.
pub fn needs<'a>(observed: &'a Observed) -> Result<Needs<'a>, String> {
    let (mut bound, mut delayed) = (Vec::new(), Vec::new());
    let mut immediate = false;
    for name in claims(observed.pod) {
        let Some(claim) = observed.claims.get(name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let volume = volume_name(claim);
        if phase == Some("Lost") {
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let class = claim_class(claim).and_then(|class| observed.classes.get(class));
        match class.filter(|class| waits_for_consumer(class)) {
            _ if is_bound(claim) => bound.push(claim),
            Some(class) if volume.is_empty() => delayed.push((claim, class)),
            _ => immediate = true,
        }
    }
    if immediate {
        return Err("pod has unbound immediate PersistentVolumeClaims".into());
    }
    delayed.sort_by_key(|(claim, _)| requested(claim));
    // Mentioned twice is needed once.
    delayed.dedup_by_key(|(claim, _)| claim.metadata.name.clone());
    Ok(Needs {
        observed,
        bound,
        delayed,
    })
}

impl Needs<'_> {
    /// Have all claims got their volumes?
    pub fn are_met(&self) -> bool {
        self.delayed.is_empty()
    }

    /// What is to be done so that all claims get volumes on this node (nothing, if somebody is at it), or what is
    /// against it.
    pub fn on(&self, node: &Node) -> Result<Vec<Step>, Vec<&'static str>> {
        let mut reasons = BTreeSet::new();
        for claim in &self.bound {
            let name = volume_name(claim);
            match self.observed.volumes.iter().find(|v| v.name_any() == name) {
                Some(volume) if self.reaches(node, volume) => {}
                Some(_) => _ = reasons.insert(ELSEWHERE),
                None => _ = reasons.insert(NO_VOLUME),
            }
        }
        let mut taken = BTreeSet::new();
        let mut steps = Vec::new();
        for (claim, class) in &self.delayed {
            match self.help(node, claim, class, &mut taken) {
                Ok(step) => steps.extend(step),
                Err(reason) => _ = reasons.insert(reason),
            }
        }
        match reasons.is_empty() {
            true => Ok(steps),
            false => Err(reasons.into_iter().collect()),
        }
    }

    /// The step towards a volume for this claim; none if it has been taken. `taken` are the volumes that the
    /// pod's other claims get.
    fn help(
        &self,
        node: &Node,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        taken: &mut BTreeSet<String>,
    ) -> Result<Option<Step>, &'static str> {
        let volumes = self.observed.volumes;
        if let Some(volume) = find_reserved(claim, volumes) {
            return match self.reaches(node, volume) {
                true => Ok(None),
                false => Err(NO_MATCH),
            };
        }
        let provisions = class.provisioner != NO_PROVISIONER;
        if let Some(selected) = claim.annotations().get(SELECTED_NODE).filter(|_| provisions) {
            let elsewhere = *selected != node.name_any();
            let exists = self.observed.nodes.iter().any(|n| n.name_any() == *selected);
            return match elsewhere && exists {
                true => Err(NO_MATCH),
                false => Ok(None),
            };
        }
        let eligible = |v: &PersistentVolume| !taken.contains(&v.name_any()) && self.reaches(node, v);
        if let Some(volume) = find_free(claim, volumes, eligible) {
            let name = volume.name_any();
            taken.insert(name.clone());
            let patch = reserve(claim, volume);
            return Ok(Some(Step::Volume { name, patch }));
        }
        if !provisions || !self.allowed(node, class) {
            return Err(NO_MATCH);
        }
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node.name_any()}}});
        Ok(Some(Step::Claim {
            name: claim.name_any(),
            patch: guarded(claim, patch),
        }))
    }

    fn reaches(&self, node: &Node, volume: &PersistentVolume) -> bool {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required.as_ref());
        self.is_only_node() || required.is_none_or(|required| node_matches(required, node))
    }

    /// May the class make volumes for this node? One term is enough, one without anything in it allows nothing.
    fn allowed(&self, node: &Node, class: &StorageClass) -> bool {
        let labels = node.labels();
        let holds = |term: &TopologySelectorTerm| {
            let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
            let fits = |one: &TopologySelectorLabelRequirement| {
                labels
                    .get(&one.key)
                    .is_some_and(|label| one.values.contains(label))
            };
            !expressions.is_empty() && expressions.iter().all(fits)
        };
        let terms = class.allowed_topologies.as_deref().unwrap_or_default();
        self.is_only_node() || terms.is_empty() || terms.iter().any(holds)
    }

    fn is_only_node(&self) -> bool {
        self.observed.nodes.len() == 1
    }
}

/// Is the claim's binding complete?
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && claim.annotations().contains_key(BIND_COMPLETED)
}

/// May only one pod at a time have the claim? (P15)
pub fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

/// The volume that the claim names, `""` for none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::plan::Verdict;
    use crate::scheduler::testing::{World, node};
    use crate::volume::testing::class;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use std::sync::Arc;

    /// The verdict in short: the node, the steps, or what the message begins with.
    fn verdict(world: &World) -> String {
        match world.verdict() {
            Verdict::Bind(node) => format!("bind {node}"),
            Verdict::Prepare(steps) => {
                let steps = steps.iter().map(|step| match step {
                    Step::Volume { name, patch } => {
                        let claim = patch["spec"]["claimRef"]["name"].as_str().unwrap();
                        format!("reserve {name} for {claim}")
                    }
                    Step::Claim { name, patch } => {
                        let node = &patch["metadata"]["annotations"][SELECTED_NODE];
                        format!("make {name} on {}", node.as_str().unwrap())
                    }
                });
                steps.collect::<Vec<_>>().join(", ")
            }
            Verdict::Await => "await".into(),
            Verdict::Unschedulable(message) => {
                let (_, reasons) = message.split_once("nodes are available: ").unwrap();
                reasons.split_once(". no new").unwrap().0.into()
            }
            Verdict::Ignore => "ignore".into(),
        }
    }

    fn delayed(provisioner: &str) -> StorageClass {
        class(
            "fast",
            json!({"volumeBindingMode": "WaitForFirstConsumer", "provisioner": provisioner}),
        )
    }

    fn only_on(hostname: &str) -> Value {
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [hostname]}]}]}}})
    }

    fn two_nodes(world: &mut World) {
        world.nodes = ["a", "b"].map(|name| node(name, json!({}), "True")).into();
    }

    #[test]
    fn a_claim_that_is_not_there_lost_or_going_keeps_the_pod_from_every_node() {
        let mut world = World::with_claims(&["c"]);
        assert_eq!(
            verdict(&world),
            "pod has unbound immediate PersistentVolumeClaims"
        );
        let claim = world.claims.get_mut("c").unwrap();
        claim.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(verdict(&world), "persistentvolumeclaim \"c\" is being deleted");
        let claim = world.claims.get_mut("c").unwrap();
        claim.spec.as_mut().unwrap().volume_name = Some("v".into());
        claim.status.as_mut().unwrap().phase = Some("Lost".into());
        assert_eq!(
            verdict(&world),
            "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\""
        );
        world.claims.clear();
        assert_eq!(verdict(&world), "persistentvolumeclaim \"c\" not found");
    }

    #[test]
    fn a_claim_whose_user_named_the_volume_is_never_delayed() {
        let mut world = World::with_claims(&["c"]);
        world.classes.insert("fast".into(), delayed("example.com/disk"));
        let claim = world.claims.get_mut("c").unwrap();
        claim.spec.as_mut().unwrap().volume_name = Some("v".into());
        assert_eq!(
            verdict(&world),
            "pod has unbound immediate PersistentVolumeClaims"
        );
    }

    #[test]
    fn a_bound_volume_decides_about_the_node_where_there_are_several() {
        let mut world = World::with_claims(&["c"]);
        world.bind("c", "v", only_on("b"));
        assert_eq!(verdict(&world), "bind n");
        two_nodes(&mut world);
        assert_eq!(verdict(&world), "bind b");
        let mut elsewhere = World::with_claims(&["c"]);
        elsewhere.bind("c", "v", only_on("worker-7"));
        assert_eq!(verdict(&elsewhere), "bind n");
        two_nodes(&mut elsewhere);
        assert_eq!(
            verdict(&elsewhere),
            "2 node(s) didn't match PersistentVolume's node affinity"
        );
        elsewhere.volumes.clear();
        assert_eq!(
            verdict(&elsewhere),
            "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
        );
    }

    #[test]
    fn a_delayed_claim_gets_a_free_volume_or_has_one_made() {
        let mut world = World::with_claims(&["c"]);
        world.classes.insert("fast".into(), delayed("example.com/disk"));
        assert_eq!(verdict(&world), "make c on n");
        world.add_volume("v", json!({}));
        assert_eq!(verdict(&world), "reserve v for c");
        // One step is enough: now others are at it.
        let mut asked = World::with_claims(&["c"]);
        asked.classes.insert("fast".into(), delayed("example.com/disk"));
        let annotations = asked.claims.get_mut("c").unwrap().annotations_mut();
        annotations.insert(SELECTED_NODE.into(), "n".into());
        assert_eq!(verdict(&asked), "await");
        world.volumes.clear();
        let reference = json!({"namespace": "default", "name": "c", "uid": "c-uid"});
        world.add_volume("v", json!({"claimRef": reference}));
        assert_eq!(verdict(&world), "await");
    }

    #[test]
    fn a_class_that_never_provisions_needs_a_volume_that_the_node_reaches() {
        let mut world = World::with_claims(&["c"]);
        world.classes.insert("fast".into(), delayed(NO_PROVISIONER));
        assert_eq!(
            verdict(&world),
            "1 node(s) didn't find available persistent volumes to bind"
        );
        world.add_volume("v", only_on("worker-7"));
        assert_eq!(verdict(&world), "reserve v for c");
        two_nodes(&mut world);
        assert_eq!(
            verdict(&world),
            "2 node(s) didn't find available persistent volumes to bind"
        );
        world.add_volume("w", only_on("b"));
        assert_eq!(verdict(&world), "reserve w for c");
    }

    #[test]
    fn the_claims_of_one_pod_get_different_volumes_the_smallest_first() {
        let mut world = World::with_claims(&["big", "small"]);
        world.classes.insert("fast".into(), delayed(NO_PROVISIONER));
        let big = world.claims.get_mut("big").unwrap().spec.as_mut().unwrap();
        big.resources = serde_json::from_value(json!({"requests": {"storage": "2Gi"}})).ok();
        world.add_volume("five", json!({"capacity": {"storage": "5Gi"}}));
        assert_eq!(
            verdict(&world),
            "1 node(s) didn't find available persistent volumes to bind"
        );
        world.add_volume("three", json!({"capacity": {"storage": "3Gi"}}));
        assert_eq!(verdict(&world), "reserve three for small, reserve five for big");
    }

    #[test]
    fn a_class_may_be_held_to_a_topology_where_there_are_several_nodes() {
        let mut world = World::with_claims(&["c"]);
        let mut class = delayed("example.com/disk");
        let term = json!([{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["b"]}]}]);
        class.allowed_topologies = serde_json::from_value(term).unwrap();
        world.classes.insert("fast".into(), class);
        assert_eq!(verdict(&world), "make c on n");
        two_nodes(&mut world);
        assert_eq!(verdict(&world), "make c on b");
        // What was begun on another node is not begun again here.
        let annotations = world.claims.get_mut("c").unwrap().annotations_mut();
        annotations.insert(SELECTED_NODE.into(), "a".into());
        assert_eq!(verdict(&world), "await");
        world.nodes[0].spec.get_or_insert_default().unschedulable = Some(true);
        assert_eq!(
            verdict(&world),
            "1 node(s) didn't find available persistent volumes to bind, 1 node(s) were unschedulable"
        );
    }

    #[test]
    fn what_is_written_expects_what_was_seen() {
        let mut world = World::with_claims(&["c"]);
        world.classes.insert("fast".into(), delayed("example.com/disk"));
        let Verdict::Prepare(steps) = world.verdict() else {
            panic!("nothing to do")
        };
        let expected = json!({"metadata": {
            "uid": "c-uid", "resourceVersion": "7", "annotations": {SELECTED_NODE: "n"},
        }});
        assert_eq!(
            steps,
            [Step::Claim {
                name: "c".into(),
                patch: expected
            }]
        );
        world.add_volume("v", json!({}));
        let Verdict::Prepare(steps) = world.verdict() else {
            panic!("nothing to do")
        };
        let [Step::Volume { patch, .. }] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(patch["metadata"]["resourceVersion"], "8");
        let volume: Arc<PersistentVolume> = world.volumes[0].clone();
        assert_eq!(patch["metadata"]["uid"], json!(volume.metadata.uid));
    }
}
