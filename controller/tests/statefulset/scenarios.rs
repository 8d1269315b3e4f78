//! The scenarios of upstream's unit tests (`stateful_set_control_test.go`), for both management policies and every
//! retention setting, with every plan on the way checked.

use crate::api::{Api, Refused, SET};
use crate::invariants::{check, members, ordinal_of};
use crate::settings::{RETENTIONS, Settings};
use controller::statefulset::action::{Action, Plan};
use controller::statefulset::plan::plan;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// One set in a world where nothing happens by itself.
struct Scenario {
    api: Api,
    settings: Settings,
    now: Timestamp,
}

/// Run a scenario for OrderedReady and Parallel, and for each retention setting.
fn everywhere(scenario: impl Fn(&mut Scenario)) {
    for is_ordered in [true, false] {
        for retention in RETENTIONS {
            let settings = Settings {
                is_ordered,
                retention,
                ..Settings::default()
            };
            eprintln!("{settings:?}");
            let api = Api::new(&settings);
            let now = Timestamp::UNIX_EPOCH;
            scenario(&mut Scenario { api, settings, now });
        }
    }
}

impl Scenario {
    fn plan(&self) -> Plan {
        let plan = plan(&self.api.observe(), self.now);
        check(&self.api, &self.settings, self.now, &plan);
        plan
    }

    /// One sync in which nothing fails.
    fn sync(&mut self) -> Result<(), Refused> {
        let plan = self.plan();
        self.api.perform(&plan, self.now)
    }

    /// One sync in which the first action that `fails` picks fails; whether there was one.
    fn sync_failing(&mut self, fails: impl Fn(&Action) -> bool) -> bool {
        let plan = self.plan();
        let mut has_failed = false;
        for action in plan.prepare.iter().chain(&plan.steps).flatten().flatten() {
            if fails(action) {
                has_failed = true;
                break;
            }
            let _ = self.api.act(action, self.now);
        }
        self.api
            .put_status(plan.status.unwrap_or_else(|| self.api.status()));
        has_failed
    }

    /// The kubelet makes ready what can be and lets go what is deleted, and the garbage collector works.
    fn others(&mut self) {
        let pods: Vec<_> = self.api.pods.values().cloned().collect();
        for pod in pods {
            let name = pod.name_any();
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if pod.metadata.deletion_timestamp.is_some() {
                self.api.remove_pod(&name);
            } else if phase == Some("Pending") && self.api.has_claims(&pod) {
                self.api.set_phase(&name, "Ready", self.now);
            }
        }
        self.api.collect_garbage(self.now);
        self.now += SignedDuration::from_secs(1);
    }

    /// Until nothing is written any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let before = self.api.writes;
            let _ = self.sync();
            self.others();
            if self.api.writes == before {
                return self.is_as_it_should_be();
            }
        }
        panic!("it does not settle");
    }

    fn is_as_it_should_be(&self) {
        let members = members(&self.api, &self.settings, self.now);
        let ordinals: Vec<_> = members.keys().copied().collect();
        assert_eq!(ordinals, self.settings.range().collect::<Vec<_>>());
        assert!(members.values().all(|it| it.is_well()));
        let status = self.api.status();
        assert_eq!(status.replicas, self.settings.replicas);
        assert_eq!(status.current_revision, status.update_revision);
        for ordinal in self.settings.range() {
            for claim in self.settings.claims(ordinal) {
                let owners: Vec<_> = self.api.claims[&claim]
                    .owner_references()
                    .iter()
                    .map(|it| &it.uid)
                    .collect();
                let is_the_sets = self
                    .settings
                    .retention
                    .is_some_and(|(when_deleted, _)| when_deleted);
                assert_eq!(owners, if is_the_sets { vec![SET] } else { vec![] }, "{claim}");
            }
        }
        let mut claims: Vec<_> = self
            .api
            .claims
            .keys()
            .filter_map(|name| ordinal_of(&name["data-".len()..]))
            .collect();
        claims.retain(|ordinal| !self.settings.range().contains(ordinal));
        assert!(
            claims.is_empty() || !self.settings.deletes_when_scaled(),
            "{claims:?} are left"
        );
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Settings)) {
        edit(&mut self.settings);
        self.api.put_set(&self.settings);
    }

    fn uid(&self, pod: &str) -> Option<String> {
        self.api.pods.get(pod)?.uid()
    }
}

fn creates_pod(action: &Action, name: &str) -> bool {
    matches!(action, Action::CreatePod(pod) if pod.name_any() == name)
}

#[test]
fn pods_are_created() {
    everywhere(|it| it.settle());
}

#[test]
fn a_set_scales_up_and_down() {
    everywhere(|it| {
        it.settle();
        it.edit(|set| set.replicas = 5);
        it.settle();
        it.edit(|set| set.replicas = 0);
        it.settle();
        let kept = if it.settings.deletes_when_scaled() { 0 } else { 5 };
        assert_eq!(it.api.claims.len(), kept, "whenScaled decides about claims");
        it.edit(|set| set.replicas = 2);
        it.settle();
    });
}

#[test]
fn a_deleted_pod_is_replaced_and_keeps_its_claims() {
    everywhere(|it| {
        it.settle();
        for pod in ["web-0", "web-2"] {
            let (before, claim) = (it.uid(pod), it.api.claims[&format!("data-{pod}")].uid());
            it.api.remove_pod(pod);
            it.settle();
            assert_ne!(it.uid(pod), before);
            assert_eq!(it.api.claims[&format!("data-{pod}")].uid(), claim);
        }
    });
}

#[test]
fn a_pod_that_ended_is_created_again_even_if_it_cannot_be_deleted_at_first() {
    for phase in ["Failed", "Succeeded"] {
        everywhere(|it| {
            it.settle();
            for pod in ["web-0", "web-1"] {
                let before = it.uid(pod);
                it.api.set_phase(pod, phase, it.now);
                let deletes =
                    |action: &Action| matches!(action, Action::DeletePod { name, .. } if name == pod);
                assert!(it.sync_failing(deletes), "{pod} is deleted");
                assert_eq!(it.uid(pod), before, "it could not be");
                assert_eq!(it.api.status().replicas, 3, "the status is written nevertheless");
                it.settle();
                assert_ne!(it.uid(pod), before);
            }
        });
    }
}

#[test]
fn a_pod_that_cannot_be_created_is_created_later() {
    everywhere(|it| {
        assert!(it.sync_failing(|action| creates_pod(action, "web-0")));
        assert!(it.api.pods.is_empty());
        assert!(it.api.claims.contains_key("data-web-0"), "the claim comes first");
        it.settle();
        it.edit(|set| set.replicas = 5);
        assert!(it.sync_failing(|action| creates_pod(action, "web-3")));
        it.settle();
    });
}

#[test]
fn a_claim_that_cannot_be_created_holds_up_its_pod_only() {
    everywhere(|it| {
        let creates = |action: &Action| matches!(action, Action::CreateClaim { pod, .. } if pod == "web-0");
        assert!(it.sync_failing(creates));
        assert!(!it.api.pods.contains_key("web-0"));
        it.settle();
    });
}

#[test]
fn a_pod_that_cannot_be_updated_is_updated_later() {
    everywhere(|it| {
        it.settle();
        let label = "statefulset.kubernetes.io/pod-name";
        let unnamed = it
            .api
            .change_pod("web-1", |pod| drop(pod.labels_mut().remove(label)));
        unnamed.expect("it is there");
        assert!(
            it.sync_failing(|action| matches!(action, Action::UpdatePod { name, .. } if name == "web-1"))
        );
        it.settle();
        assert_eq!(it.api.pods["web-1"].labels()[label], "web-1");
    });
}

#[test]
fn a_status_that_cannot_be_written_is_written_later() {
    everywhere(|it| {
        for _ in 0..3 {
            let before = it.api.status();
            it.sync().expect("nothing fails");
            it.api.put_status(before);
            it.others();
        }
        it.settle();
        assert_eq!(it.api.status().ready_replicas, Some(3));
    });
}

#[test]
fn a_pod_that_cannot_be_deleted_while_a_revision_rolls_is_deleted_later() {
    everywhere(|it| {
        it.settle();
        it.edit(|set| set.template = 1);
        assert!(
            it.sync_failing(|action| matches!(action, Action::DeletePod { .. })),
            "it rolls"
        );
        let status = it.api.status();
        assert_ne!(status.current_revision, status.update_revision);
        it.settle();
        let update = it.api.status().update_revision;
        let labels = it
            .api
            .pods
            .values()
            .map(|pod| pod.labels().get("controller-revision-hash").cloned());
        assert!(
            labels.into_iter().all(|label| label == update),
            "all are at the new revision"
        );
        it.edit(|set| set.template = 0);
        it.settle();
        assert_eq!(it.api.revisions.len(), 2, "going back makes no third revision");
    });
}

#[test]
fn a_pending_pods_claim_that_vanished_is_created_again() {
    everywhere(|it| {
        let _ = it.sync();
        it.api.delete_claim("data-web-0", it.now).expect("it is there");
        assert!(
            !it.api.claims.contains_key("data-web-0"),
            "a pending pod does not protect it"
        );
        let _ = it.sync();
        assert!(it.api.claims.contains_key("data-web-0"));
        it.settle();
    });
}

#[test]
fn a_running_pods_claim_that_vanished_is_not_missed_before_the_pod_is() {
    everywhere(|it| {
        it.settle();
        // Somebody took its finalizer away; the pod runs on.
        it.api.remove_claim("data-web-0");
        let steps = it.plan().steps;
        assert!(steps.is_empty(), "{steps:?}");
    });
}

#[test]
fn what_an_earlier_controller_stored_is_left_as_it_is() {
    everywhere(|it| {
        it.settle();
        let reread = plan(&it.api.reread(), it.now);
        let writes = reread
            .prepare
            .iter()
            .chain(&reread.steps)
            .flatten()
            .flatten()
            .chain(&reread.prune);
        assert_eq!(writes.count(), 0, "{reread:#?}");
        assert!(reread.status.is_none());
    });
}
