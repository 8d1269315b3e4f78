//! What becomes of one object, given what is true of its owners and dependents.

use super::graph::{FOREGROUND, Node, ORPHAN, Uid};
use kube::api::PropagationPolicy;
use std::collections::BTreeSet;

/// What is true of one owner that an object names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is there and means to stay, or nobody can say that it is not.
    Solid,
    /// It is not there, or is another object of the same name.
    Absent,
    /// It is being deleted and waits for its dependents to go first.
    AwaitsDependents,
}

/// One step. Those of a plan are taken in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Delete the object.
    Delete(PropagationPolicy),
    /// Take these owners off the object: they are gone or going, others stay.
    Disown(BTreeSet<Uid>),
    /// Take the object off the owners of each of these dependents.
    Release(Vec<Uid>),
    /// Have a look at these dependents: they are to go first.
    LookAt(Vec<Uid>),
    /// Let no dependent hold up the object's own deletion: among its references to owners that wait, those
    /// that block no longer do. (Two that wait for each other would wait for ever.)
    Unblock(Vec<Uid>),
    /// Nothing keeps the object any more.
    RemoveFinalizer(&'static str),
}

/// The plan for an object. `owners` says what is true of each of its owners, in their order.
pub fn plan(object: &Node, owners: &[Owner], dependents: &[&Node]) -> Vec<Action> {
    if object.orphans_dependents() {
        let release = dependents.iter().map(|node| node.uid.clone()).collect();
        return vec![Action::Release(release), Action::RemoveFinalizer(ORPHAN)];
    }
    if object.awaits_dependents() {
        return await_dependents(object, dependents);
    }
    if object.deleting || owners.is_empty() {
        return Vec::new();
    }
    let is = |wanted: Owner| {
        let pairs = object.owners.iter().zip(owners);
        let matching = pairs.filter(move |(_, owner)| **owner == wanted);
        matching
            .map(|(reference, _)| reference.uid.clone())
            .collect::<BTreeSet<_>>()
    };
    let (solid, mut absent, waiting) = (is(Owner::Solid), is(Owner::Absent), is(Owner::AwaitsDependents));
    if !solid.is_empty() {
        absent.extend(waiting);
        return match absent.is_empty() {
            true => Vec::new(),
            false => vec![Action::Disown(absent)],
        };
    }
    if !waiting.is_empty() && !dependents.is_empty() {
        let circular = dependents.iter().filter(|node| node.awaits_dependents());
        let circular: Vec<_> = circular.map(|node| node.uid.clone()).collect();
        let unblock = (!circular.is_empty()).then_some(Action::Unblock(circular));
        let delete = Action::Delete(PropagationPolicy::Foreground);
        return unblock.into_iter().chain([delete]).collect();
    }
    // What a user has asked for the object's own dependents stays as it was asked.
    vec![Action::Delete(if object.has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if object.has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })]
}

fn await_dependents(object: &Node, dependents: &[&Node]) -> Vec<Action> {
    let mut blocking = dependents
        .iter()
        .filter(|node| node.blocks(&object.uid))
        .peekable();
    if blocking.peek().is_none() {
        return vec![Action::RemoveFinalizer(FOREGROUND)];
    }
    let idle = blocking
        .filter(|node| !node.deleting)
        .map(|node| node.uid.clone());
    let idle: Vec<_> = idle.collect();
    match idle.is_empty() {
        true => Vec::new(),
        false => vec![Action::LookAt(idle)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{deleted, node};
    use super::*;
    use Owner::{Absent, AwaitsDependents, Solid};
    use PropagationPolicy::{Background, Foreground, Orphan};

    fn uids(uids: &[&str]) -> BTreeSet<Uid> {
        uids.iter().map(|uid| (*uid).into()).collect()
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner_does() {
        let disown = |gone: &[&str]| vec![Action::Disown(uids(gone))];
        let table = [
            ([Solid, Solid], vec![]),
            ([Solid, Absent], disown(&["b"])),
            ([Absent, Solid], disown(&["a"])),
            ([AwaitsDependents, Solid], disown(&["a"])),
            ([Absent, Absent], vec![Action::Delete(Background)]),
            ([Absent, AwaitsDependents], vec![Action::Delete(Background)]),
        ];
        for (owners, expected) in table {
            assert_eq!(
                plan(&node("x", &["a", "b"]), &owners, &[]),
                expected,
                "{owners:?}"
            );
        }
    }

    #[test]
    fn nothing_is_done_about_what_nobody_owns_or_what_goes_already() {
        assert_eq!(plan(&node("x", &[]), &[], &[]), []);
        assert_eq!(plan(&deleted("x", &["a"], "example.com/held"), &[], &[]), []);
    }

    #[test]
    fn a_finalizer_for_dependents_decides_how_they_are_deleted() {
        for (finalizer, policy) in [(ORPHAN, Orphan), (FOREGROUND, Foreground), ("other", Background)] {
            let mut object = node("x", &["a"]);
            object.finalizers = vec![finalizer.into()];
            assert_eq!(
                plan(&object, &[Absent], &[]),
                [Action::Delete(policy)],
                "{finalizer}"
            );
        }
    }

    #[test]
    fn foreground_deletion_goes_down_the_tree_and_comes_up_again() {
        let (child, owner) = (node("pod", &["set"]), deleted("set", &[], FOREGROUND));
        assert_eq!(plan(&owner, &[], &[&child]), [Action::LookAt(vec!["pod".into()])]);
        // The child has none of its own, or has.
        assert_eq!(
            plan(&child, &[AwaitsDependents], &[]),
            [Action::Delete(Background)]
        );
        let grandchild = node("x", &["pod"]);
        assert_eq!(
            plan(&child, &[AwaitsDependents], &[&grandchild]),
            [Action::Delete(Foreground)]
        );
        let going = deleted("pod", &["set"], "example.com/held");
        assert_eq!(plan(&owner, &[], &[&going]), []);
        let done = [Action::RemoveFinalizer(FOREGROUND)];
        assert_eq!(plan(&owner, &[], &[]), done);
        let mut not_blocking = node("pod", &["set"]);
        not_blocking.owners[0].block_owner_deletion = None;
        assert_eq!(plan(&owner, &[], &[&not_blocking]), done);
    }

    #[test]
    fn a_circle_of_owners_does_not_wait_for_itself() {
        let object = node("a", &["b"]);
        let other = deleted("b", &["a"], FOREGROUND);
        assert_eq!(
            plan(&object, &[AwaitsDependents], &[&other]),
            [Action::Unblock(vec!["b".into()]), Action::Delete(Foreground)]
        );
    }

    #[test]
    fn orphaning_sets_every_dependent_free_first() {
        let owner = deleted("set", &[], ORPHAN);
        assert_eq!(
            plan(&owner, &[], &[&node("pod", &["set"])]),
            [
                Action::Release(vec!["pod".into()]),
                Action::RemoveFinalizer(ORPHAN)
            ]
        );
    }
}
