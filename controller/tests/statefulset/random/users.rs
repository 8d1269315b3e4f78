//! What users do to sets, pods and claims, sensible or not.

use super::{Episode, Random, random_strategy};
use crate::api::owner;
use crate::settings::{RETENTIONS, Settings};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

impl Episode {
    /// A random change by a user.
    pub fn user_moves(&mut self) {
        match self.random.below(24) {
            0..=5 => self.edit("replicas", |settings, random| {
                settings.replicas = random.below(6) as i32
            }),
            6..=8 => self.edit("template", |settings, random| settings.template = random.below(4)),
            9 => self.edit("strategy", |settings, random| {
                settings.strategy = random_strategy(random)
            }),
            10 => self.edit("retention", |settings, random| {
                settings.retention = random.of(&RETENTIONS)
            }),
            11 => self.edit("start", |settings, random| {
                settings.start = random.of(&[None, Some(1), Some(2), Some(9)]);
            }),
            12 => self.edit("minReadySeconds", |settings, random| {
                settings.min_ready_seconds = random.of(&[0, 5]);
            }),
            13 => self.edit("revisionHistoryLimit", |settings, random| {
                settings.history_limit = random.of(&[None, Some(0), Some(2)]);
            }),
            14..=16 => self.user_deletes_a_pod(),
            17 | 18 => {
                let Some(name) = self.some_claim() else { return };
                self.api.delete_claim(&name, self.now).expect("it is there");
                self.did(|| format!("the user deletes the claim {name}"));
            }
            19 => self.user_touches_a_pod(),
            20 => self.user_makes_a_pod(),
            21 => self.user_touches_a_claim(),
            22 => {
                let revisions: Vec<_> = self.api.revisions.keys().cloned().collect();
                if !revisions.is_empty() && self.random.one_in(4) {
                    let name = self.random.of(&revisions);
                    self.api.remove_revision(&name);
                    self.did(|| format!("the user deletes the revision {name}"));
                }
            }
            _ => {
                if self.random.one_in(40) {
                    self.api.delete_set(self.now);
                    self.did(|| "the user deletes the set".into());
                }
            }
        }
    }

    fn edit(&mut self, what: &'static str, edit: impl FnOnce(&mut Settings, &mut Random)) {
        edit(&mut self.settings, &mut self.random);
        self.api.put_set(&self.settings);
        self.did(|| format!("the user changes {what}: {:?}", self.settings));
    }

    fn user_deletes_a_pod(&mut self) {
        let Some(name) = self.some_pod() else { return };
        if self.random.one_in(3) {
            self.api.remove_pod(&name);
            self.did(|| format!("the user deletes at once {name}"));
        } else {
            self.api.delete_pod(&name, self.now).expect("it is there");
            self.did(|| format!("the user deletes {name}"));
        }
    }

    /// A pod loses its owner, its labels or its volumes.
    fn user_touches_a_pod(&mut self) {
        let Some(name) = self.some_pod() else { return };
        let (what, change): (_, fn(&mut Pod)) = match self.random.below(5) {
            0 => ("takes the owners of", |pod| pod.metadata.owner_references = None),
            1 => ("takes the app label of", |pod| {
                pod.labels_mut().insert("app".into(), "other".into());
            }),
            2 => ("takes the name label of", |pod| {
                pod.labels_mut().remove("statefulset.kubernetes.io/pod-name");
            }),
            3 => ("takes the revision label of", |pod| {
                pod.labels_mut().remove("controller-revision-hash");
            }),
            _ => ("gives the app label to", |pod| {
                pod.labels_mut().insert("app".into(), "web".into());
            }),
        };
        self.api.change_pod(&name, change).expect("it is there");
        self.did(|| format!("the user {what} {name}"));
    }

    /// A pod that nobody asked for, the set's by its name and labels, or somebody else's.
    fn user_makes_a_pod(&mut self) {
        let ordinal = self.random.below(12);
        let is_foreign = self.random.one_in(3);
        let pod = stray(ordinal, is_foreign);
        if self.api.create_pod(pod).is_ok() {
            self.did(|| format!("the user makes web-{ordinal}, foreign: {is_foreign}"));
        }
    }

    /// A claim gets owners that the policy does not know, or there is one before its pod.
    fn user_touches_a_claim(&mut self) {
        let ordinal = self.random.below(12);
        let name = format!("data-web-{ordinal}");
        let kind = self.random.below(6);
        if kind == 0 {
            let claim = serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}}));
            if self.api.create_claim(claim.expect("a claim")).is_ok() {
                self.did(|| format!("the user makes {name}"));
            }
            return;
        }
        let Some(name) = self.some_claim() else { return };
        let done = self.api.change_claim(&name, |claim| {
            let owners = claim.owner_references_mut();
            match kind {
                1 => owners.push(owner("v1", "ConfigMap", "boss", "boss")),
                2 => {
                    let mut friend = owner("v1", "ConfigMap", "friend", "friend");
                    friend.controller = None;
                    owners.push(friend);
                }
                3 => *owners = vec![owner("apps/v1", "StatefulSet", "web", "an-earlier-set")],
                4 => owners.iter_mut().for_each(|owner| owner.controller = Some(false)),
                _ => owners.clear(),
            }
        });
        done.expect("it is there");
        self.did(|| format!("the user changes the owners of {name}"));
    }
}

/// A pod that the controller has not made.
fn stray(ordinal: usize, is_foreign: bool) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("web-{ordinal}"), "namespace": "ns", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "stray"}]},
    }))
    .expect("a pod");
    if is_foreign {
        pod.metadata.owner_references = Some(vec![owner("apps/v1", "ReplicaSet", "other", "other")]);
    }
    pod
}
