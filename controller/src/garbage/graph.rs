//! Who owns whom, as the watches have seen it, and whom a change makes worth a look.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use std::collections::{BTreeSet, HashMap};

/// A UID: what ownership goes by.
pub type Uid = String;

/// The finalizer of an object that waits for its dependents to go.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that waits for its dependents to be set free.
pub const ORPHAN: &str = "orphan";

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As in `apps/v1`.
    pub api_version: String,
    /// As in `StatefulSet`.
    pub kind: String,
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// What of an object matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its UID.
    pub uid: Uid,
    /// Where it is.
    pub place: Place,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Is it being deleted?
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// The version these were read from.
    pub resource_version: Option<String>,
}

impl Node {
    /// The node of an object; `None` for one without a UID.
    pub fn new(api_version: &str, kind: &str, metadata: &ObjectMeta) -> Option<Self> {
        Some(Self {
            uid: metadata.uid.clone()?,
            place: Place {
                api_version: api_version.into(),
                kind: kind.into(),
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone()?,
            },
            owners: metadata.owner_references.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone(),
        })
    }

    /// Does it wait, deleted, until its dependents are gone?
    pub fn awaits_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Does it wait, deleted, until its dependents are free?
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.has(ORPHAN)
    }

    /// Does it have the finalizer?
    pub fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// Must `owner`, deleted in the foreground, wait for this one?
    pub fn blocks(&self, owner: &str) -> bool {
        let blocking = |reference: &OwnerReference| reference.block_owner_deletion == Some(true);
        self.owners
            .iter()
            .any(|reference| reference.uid == owner && blocking(reference))
    }

    fn owned_by(&self) -> BTreeSet<Uid> {
        self.owners.iter().map(|owner| owner.uid.clone()).collect()
    }
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

impl Graph {
    /// The object with this UID.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that name it as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid))
    }

    /// An object is there, or has changed. Returned is who is worth a look now.
    pub fn apply(&mut self, node: Node) -> BTreeSet<Uid> {
        let before = self.nodes.get(&node.uid);
        let earlier_owners = before.map(Node::owned_by).unwrap_or_default();
        let owners = node.owned_by();
        let mut look = BTreeSet::new();
        // An owner in another namespace is none.
        let reachable =
            |owner: &Node| owner.place.namespace.is_none() || owner.place.namespace == node.place.namespace;
        let stays = |owner: &Node| reachable(owner) && !owner.awaits_dependents();
        let orphaned = |uid: &Uid| !self.nodes.get(uid).is_some_and(stays);
        let changed = before.is_none_or(|before| before.owners != node.owners);
        let ends = node.awaits_dependents() || node.orphans_dependents();
        if ends || (!node.deleting && changed && owners.iter().any(orphaned)) {
            look.insert(node.uid.clone());
        }
        if before.is_some_and(|before| before.owners != node.owners) {
            // An owner that waited may wait no longer.
            look.extend(earlier_owners.iter().filter(|uid| self.awaits(uid)).cloned());
        }
        for gone in earlier_owners.difference(&owners) {
            self.unlink(gone, &node.uid);
        }
        for owner in owners {
            self.dependents.entry(owner).or_default().insert(node.uid.clone());
        }
        self.nodes.insert(node.uid.clone(), node);
        look
    }

    /// An object is gone. Returned is who is worth a look now.
    pub fn remove(&mut self, uid: &str) -> BTreeSet<Uid> {
        let Some(node) = self.nodes.remove(uid) else {
            return BTreeSet::new();
        };
        let mut look: BTreeSet<Uid> = self.dependents(uid).map(|node| node.uid.clone()).collect();
        for owner in node.owned_by() {
            self.unlink(&owner, uid);
            if self.awaits(&owner) {
                look.insert(owner);
            }
        }
        look
    }

    fn awaits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(Node::awaits_dependents)
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A node `uid` with blocking references to `owners`.
    pub fn node(uid: &str, owners: &[&str]) -> Node {
        let reference = |owner: &&str| OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: (*owner).into(),
            uid: (*owner).into(),
            block_owner_deletion: Some(true),
            controller: None,
        };
        Node {
            uid: uid.into(),
            place: Place {
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                namespace: Some("default".into()),
                name: uid.into(),
            },
            owners: owners.iter().map(reference).collect(),
            deleting: false,
            finalizers: vec![],
            resource_version: None,
        }
    }

    /// The same, deleted and held by `finalizer`.
    pub fn deleted(uid: &str, owners: &[&str], finalizer: &str) -> Node {
        Node {
            deleting: true,
            finalizers: vec![finalizer.into()],
            ..node(uid, owners)
        }
    }

    fn set(uids: &[&str]) -> BTreeSet<Uid> {
        uids.iter().map(|uid| (*uid).into()).collect()
    }

    #[test]
    fn an_owner_that_goes_brings_its_dependents_up() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(node("set", &[])), set(&[]));
        assert_eq!(graph.apply(node("pod-0", &["set"])), set(&[]));
        assert_eq!(graph.apply(node("pod-1", &["set"])), set(&[]));
        assert_eq!(graph.remove("set"), set(&["pod-0", "pod-1"]));
        assert_eq!(graph.remove("pod-0"), set(&[]));
        assert_eq!(graph.remove("pod-0"), set(&[]));
    }

    #[test]
    fn a_dependent_of_nobody_known_is_looked_at_once_per_change_of_owners() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(node("pod", &["set"])), set(&["pod"]));
        assert_eq!(graph.apply(node("pod", &["set"])), set(&[]));
        assert_eq!(graph.apply(node("pod", &["set", "other"])), set(&["pod"]));
        assert_eq!(graph.apply(node("pod", &[])), set(&[]));
        assert_eq!(graph.apply(node("set", &[])), set(&[]));
        assert_eq!(graph.remove("set"), set(&[]));
    }

    #[test]
    fn an_owner_in_another_namespace_does_not_count() {
        let mut graph = Graph::default();
        let mut stray = node("pod", &["set"]);
        stray.place.namespace = Some("other".into());
        graph.apply(node("set", &[]));
        assert_eq!(graph.apply(stray), set(&["pod"]));
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_when_a_dependent_goes_or_lets_go() {
        let mut graph = Graph::default();
        graph.apply(node("set", &[]));
        graph.apply(node("pod-0", &["set"]));
        graph.apply(node("pod-1", &["set"]));
        assert_eq!(graph.apply(deleted("set", &[], FOREGROUND)), set(&["set"]));
        assert_eq!(graph.remove("pod-0"), set(&["set"]));
        assert_eq!(graph.apply(node("pod-1", &[])), set(&["set"]));
    }
}
