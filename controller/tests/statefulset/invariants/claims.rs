//! Claims: for which pods they are made, and whose they are.

use super::{Check, ordinal_of};
use crate::api::SET;
use controller::statefulset::action::Action;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use std::collections::BTreeSet;

impl Check<'_> {
    /// Claims are created for their pods and before them, and owned as R45's table says.
    pub fn claims(&self) {
        for lane in self.lanes() {
            let mut created = BTreeSet::new();
            let mut is_refused = false;
            for action in lane {
                match action {
                    Action::CreateClaim { claim, pod, .. } => {
                        let name = claim.name_any();
                        assert!(!self.api.claims.contains_key(&name), "{name} is there");
                        let ordinal = ordinal_of(pod).expect("web-N");
                        assert!(
                            self.settings.range().contains(&ordinal),
                            "{name} is for a pod that stays"
                        );
                        assert!(
                            self.settings.claims(ordinal).any(|it| it == name),
                            "{name} is of {pod}"
                        );
                        assert_eq!(claim.labels()["app"], "web", "the selector's labels win");
                        assert!(name.starts_with(&claim.labels()["of"]));
                        assert!(claim.owner_references().is_empty());
                        assert!(created.insert(name), "a claim is created once");
                    }
                    Action::CreatePod(pod) => {
                        let name = pod.name_any();
                        let ordinal = ordinal_of(&name).expect("web-N");
                        for claim in self.settings.claims(ordinal) {
                            let there = self.api.claims.get(&claim);
                            assert!(
                                there.is_some() || created.contains(&claim),
                                "{claim} comes before {name}"
                            );
                            let is_going = there.is_some_and(|it| it.metadata.deletion_timestamp.is_some());
                            assert!(!is_going || is_refused, "{claim} is on its way out");
                        }
                        assert!(!self.waits_for_claims(ordinal), "{name} waits for a stale claim");
                    }
                    Action::OwnClaim {
                        name, pod, owners, ..
                    } => {
                        assert!(
                            self.api.claims.contains_key(name) || created.contains(name),
                            "{name}"
                        );
                        let owners: Vec<_> = owners.iter().map(|it| (&*it.uid, it.controller)).collect();
                        let expected = self.owners(name, ordinal_of(pod).expect("web-N"));
                        let expected = expected.unwrap_or_else(|| panic!("{name} is not ours to touch"));
                        let expected: Vec<_> = expected.iter().map(|it| (&*it.0, it.1)).collect();
                        assert_eq!(owners, expected, "{name}'s owners");
                    }
                    Action::Refuse { .. } => is_refused = true,
                    _ => {}
                }
            }
        }
    }

    /// The owners that a claim of an ordinal's pod has to have (R45); none when the claim is left alone.
    pub fn owners(&self, claim: &str, ordinal: i32) -> Option<Vec<(String, Option<bool>)>> {
        let name = format!("web-{ordinal}");
        let pod = self.members.get(&ordinal).and_then(|it| it.pod.uid());
        let nobody = PersistentVolumeClaim::default();
        let claim = self.api.claims.get(claim).map_or(&nobody, |it| &**it);
        if is_stale(claim, "StatefulSet", "web", Some(SET)) || is_stale(claim, "Pod", &name, pod.as_deref()) {
            return None;
        }
        let is_ours = |uid: &str| uid == SET || Some(uid) == pod.as_deref();
        let others = claim.owner_references().iter().filter(|it| !is_ours(&it.uid));
        let has_boss = others.clone().any(|it| it.controller == Some(true));
        let mut owners: Vec<_> = others.map(|it| (it.uid.clone(), it.controller)).collect();
        let (when_deleted, when_scaled) = self.settings.retention.unwrap_or((false, false));
        let is_condemned = !self.settings.range().contains(&ordinal);
        let ours = match (when_deleted, when_scaled, is_condemned) {
            _ if has_boss => None,
            (_, true, true) => pod,
            (true, _, _) => Some(SET.into()),
            _ => None,
        };
        owners.extend(ours.map(|uid| (uid, Some(true))));
        Some(owners)
    }

    /// Only a stale claim holds up a pod in the plan itself: one on its way out is created against, and refused.
    pub fn waits_for_claims(&self, ordinal: i32) -> bool {
        let claims = self
            .settings
            .claims(ordinal)
            .filter_map(|name| self.api.claims.get(&name));
        let mut claims = claims.map(|claim| {
            self.settings.deletes_when_scaled() && is_stale(claim, "Pod", &format!("web-{ordinal}"), None)
        });
        claims.any(|is_stale| is_stale)
    }
}

/// Whether a claim is of an earlier object of that kind and name.
fn is_stale(claim: &PersistentVolumeClaim, kind: &str, name: &str, uid: Option<&str>) -> bool {
    let reference = claim
        .owner_references()
        .iter()
        .find(|it| it.kind == kind && it.name == name);
    reference.is_some_and(|it| Some(&*it.uid) != uid)
}
