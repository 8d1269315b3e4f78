//! Which pods are the set's: adoption and release.

use super::action::Action;
use super::identity::{controller_of, is_member, is_terminating, owner_reference};
use super::observed::Observed;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::SelectorExt;

/// The pods that are the set's, and what to write so that they are: adopt what fits and is nobody's, release
/// what does not fit any more (R7–R9).
pub fn members(observed: &Observed) -> (Vec<&Pod>, Vec<Action>) {
    let set = &observed.set;
    let is_deleted = set.metadata.deletion_timestamp.is_some();
    let (mut members, mut owning) = (vec![], vec![]);
    for pod in &observed.pods {
        let fits = observed.selector.matches(pod.labels()) && is_member(set, pod);
        match controller_of(&**pod) {
            Some(owner) if Some(&owner.uid) != set.metadata.uid.as_ref() => {}
            Some(_) if fits => members.push(&**pod),
            Some(_) if is_deleted => {}
            Some(_) => {
                let others = pod.owner_references().iter();
                let others = others.filter(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
                owning.push(Action::OwnPod {
                    pod: pod.clone(),
                    owners: others.cloned().collect(),
                    adopts: false,
                });
            }
            None if fits && !is_deleted && !is_terminating(pod) => {
                let mut owners = pod.owner_references().to_vec();
                owners.push(owner_reference(set));
                owning.push(Action::OwnPod {
                    pod: pod.clone(),
                    owners,
                    adopts: true,
                });
                members.push(&**pod);
            }
            None => {}
        }
    }
    (members, owning)
}
