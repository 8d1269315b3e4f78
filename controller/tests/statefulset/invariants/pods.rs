//! Which pods are created, updated and deleted, and in which order.

use super::{Check, Member, ordinal_of, template_of};
use crate::api::SET;
use crate::settings::Strategy;
use controller::statefulset::action::Action;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeSet;

impl Check<'_> {
    /// Every action on a pod has a reason, and its time has come.
    pub fn pods(&self) {
        let (created, deleted) = (self.created(), self.deleted());
        if self.api.is_set_deleted() {
            assert!(
                self.plan.steps.is_empty(),
                "a set that is being deleted is only counted"
            );
            return;
        }
        let touched: BTreeSet<_> = created
            .iter()
            .map(|it| it.0)
            .chain(deleted.iter().map(|it| it.ordinal))
            .collect();
        assert_eq!(
            touched.len(),
            created.len() + deleted.len(),
            "one thing for each ordinal"
        );
        for (ordinal, pod) in &created {
            self.created_pod(*ordinal, pod);
        }
        for member in &deleted {
            assert!(!member.is_terminating, "web-{} is deleted twice", member.ordinal);
        }
        for action in self.actions() {
            if let Action::UpdatePod { name, labels, .. } = action {
                let member = &self.members[&ordinal_of(name).expect("web-N")];
                assert!(
                    self.settings.range().contains(&member.ordinal) && !member.is_finished,
                    "{name}"
                );
                assert_eq!(labels["statefulset.kubernetes.io/pod-name"], *name);
            }
        }
        let range = self.settings.range();
        let (finished, rest): (Vec<_>, Vec<_>) = deleted
            .into_iter()
            .partition(|it| it.is_finished && range.contains(&it.ordinal));
        let (condemned, updated): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|it| !range.contains(&it.ordinal));
        self.updated(&updated);
        if self.settings.is_ordered {
            self.in_order(&created, &finished, &condemned, &updated);
        } else {
            self.at_once(&created, &finished, &condemned);
        }
    }

    /// OrderedReady: upstream's monotonic invariants.
    fn in_order(
        &self,
        created: &[(i32, &Pod)],
        finished: &[&Member<'_>],
        condemned: &[&Member<'_>],
        updated: &[&Member<'_>],
    ) {
        let range = self.settings.range();
        assert!(
            created.len() + finished.len() + condemned.len() <= 1,
            "one thing at a time"
        );
        assert!(
            updated.is_empty() || created.len() + finished.len() + condemned.len() == 0,
            "updates come last"
        );
        for (ordinal, _) in created {
            assert!(
                self.all_well(range.start..*ordinal),
                "web-{ordinal} before its predecessors"
            );
        }
        for member in finished {
            assert!(
                self.all_well(range.start..member.ordinal),
                "web-{} before its time",
                member.ordinal
            );
        }
        for member in condemned {
            assert!(
                self.all_well(range.clone()),
                "nothing goes while something is to be brought in order"
            );
            let top = self.condemned().next_back().map(|it| it.ordinal);
            assert_eq!(Some(member.ordinal), top, "the highest goes first");
            let others_well = self.condemned().rev().skip(1).all(Member::is_well);
            assert!(
                member.is_well() || others_well,
                "the top waits, unless only it is unwell"
            );
        }
        if !updated.is_empty() {
            // Unless one that never gets ready is in the way, and its owner has said what is to be done then.
            let unblocked = |it: &&Member<'_>| !it.is_ready && self.all_well(range.start..it.ordinal);
            let unblocks = self.settings.unblocks && updated.len() == 1 && updated.iter().all(unblocked);
            assert!(unblocks || self.all_well(range), "an update waits for all");
            assert!(
                unblocks || self.condemned().count() == 0,
                "scaling comes before updating"
            );
        }
    }

    /// Parallel: everything that can be done is done at once.
    fn at_once(&self, created: &[(i32, &Pod)], finished: &[&Member<'_>], condemned: &[&Member<'_>]) {
        for ordinal in self.settings.range() {
            match self.members.get(&ordinal) {
                None => {
                    let is_created = created.iter().any(|it| it.0 == ordinal);
                    let is_taken = self.api.pods.contains_key(&format!("web-{ordinal}"));
                    let is_due = !is_taken && !self.waits_for_claims(ordinal);
                    assert_eq!(is_created, is_due, "web-{ordinal} is missing");
                }
                Some(member) => {
                    let is_due = member.is_finished && !member.is_terminating;
                    let is_deleted = finished.iter().any(|it| it.ordinal == ordinal);
                    assert_eq!(is_deleted, is_due, "web-{ordinal} has ended");
                }
            }
        }
        let due = self.condemned().filter(|it| !it.is_terminating).count();
        assert_eq!(condemned.len(), due, "all that is condemned goes");
    }

    /// Updates go from the top to the partition, only what is outdated, and never more at once than may be missed.
    fn updated(&self, updated: &[&Member<'_>]) {
        if updated.is_empty() {
            return;
        }
        let range = self.settings.range();
        let (partition, setting) = match &self.settings.strategy {
            Strategy::OnDelete => panic!("OnDelete deletes nothing for an update"),
            Strategy::RollingPlain => (0, &Value::Null),
            Strategy::Rolling {
                partition,
                max_unavailable,
            } => (*partition, max_unavailable),
        };
        let budget = match setting {
            Value::Number(number) => number.as_i64().expect("a number") as usize,
            Value::String(percent) => {
                let percent: usize = percent.trim_end_matches('%').parse().expect("a percentage");
                percent * self.settings.replicas as usize / 100
            }
            _ => 1,
        };
        let unavailable = range.clone().filter(|it| !self.all_well(*it..it + 1)).count();
        let given_up: Vec<_> = updated
            .iter()
            .filter(|it| it.is_available && !it.is_terminating)
            .collect();
        assert!(
            given_up.is_empty() || given_up.len() + unavailable <= budget.max(1),
            "{} given up, {unavailable} unavailable, {budget} allowed",
            given_up.len()
        );
        for member in updated {
            assert_ne!(
                member.revision, self.update,
                "web-{} is up to date",
                member.ordinal
            );
            assert!(
                member.ordinal - range.start >= partition,
                "web-{} is below the partition",
                member.ordinal
            );
        }
        if let Some(lowest) = given_up.iter().map(|it| it.ordinal).min() {
            let left = self.in_range().filter(|it| {
                it.ordinal > lowest && it.is_available && !it.is_terminating && it.revision != self.update
            });
            let mut left = left.filter(|it| updated.iter().all(|updated| updated.ordinal != it.ordinal));
            assert!(left.next().is_none(), "updates go top down");
        }
    }

    /// A pod as R21–R26 describe it.
    fn created_pod(&self, ordinal: i32, pod: &Pod) {
        let name = format!("web-{ordinal}");
        assert!(
            self.settings.range().contains(&ordinal),
            "only what is wanted is created"
        );
        assert!(!self.members.contains_key(&ordinal), "{name} is there");
        let labels = pod.labels();
        assert_eq!(labels["statefulset.kubernetes.io/pod-name"], name);
        assert_eq!(labels["apps.kubernetes.io/pod-index"], ordinal.to_string());
        assert_eq!(labels["app"], "web");
        let index = ordinal - self.settings.range().start;
        let current_below = match &self.settings.strategy {
            Strategy::OnDelete => 0,
            Strategy::RollingPlain => self.api.status().current_replicas.unwrap_or(0),
            Strategy::Rolling { partition, .. } => *partition,
        };
        let expected = if index < current_below {
            &self.current
        } else {
            &self.update
        };
        assert_eq!(labels["controller-revision-hash"], *expected, "{name}");
        let spec = pod.spec.as_ref().expect("a spec");
        if let Some(revision) = self.api.revisions.get(expected) {
            assert_eq!(
                spec.containers[0].image.as_deref(),
                template_of(revision),
                "{name}"
            );
        }
        assert_eq!(spec.hostname.as_deref(), Some(&*name));
        assert_eq!(spec.subdomain.as_deref(), self.settings.service);
        let owners = pod.owner_references();
        assert!(owners.len() == 1 && owners[0].uid == SET && owners[0].controller == Some(true));
        let volumes = spec.volumes.as_deref().unwrap_or_default();
        let mut claims = volumes
            .iter()
            .filter_map(|it| it.persistent_volume_claim.as_ref());
        for claim in self.settings.claims(ordinal) {
            assert_eq!(
                claims.next().map(|it| &it.claim_name),
                Some(&claim),
                "{name}'s volumes"
            );
        }
        assert!(claims.next().is_none(), "{name} has no other claims");
        assert_eq!(
            volumes.iter().filter(|it| it.name == "logs").count(),
            1,
            "{name}'s volumes"
        );
    }
}
