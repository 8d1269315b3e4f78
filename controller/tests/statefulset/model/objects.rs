//! Small states as the objects that a plan is made of, and plans as small writes.

use super::{Claims, Owner, Phase, Pods, SmallClaim, SmallPod, Spec, Write};
use crate::api::{SET, owner};
use crate::invariants::ordinal_of;
use crate::settings::{Retention, Settings};
use controller::statefulset::action::{Action, Plan};
use controller::statefulset::plan::plan;
use controller::statefulset::{Observed, Surroundings};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

type Seen = (Spec, u8, Pods, Claims);

/// The kind of set, and what was planned for it already: planning is what takes the time.
pub struct Objects {
    settings: Settings,
    revisions: Vec<ControllerRevision>,
    planned: Mutex<HashMap<Seen, Vec<Write>>>,
}

impl Objects {
    /// A set with or without claims (and what happens to them then).
    pub fn new(is_ordered: bool, claims: Option<Retention>, unblocks: bool) -> Self {
        let settings = Settings {
            is_ordered,
            retention: claims.flatten(),
            claim_templates: usize::from(claims.is_some()),
            service: None,
            unblocks,
            ..Settings::default()
        };
        let revisions = (0..2).map(|template| revision_of(&settings, template)).collect();
        Self {
            settings,
            revisions,
            planned: Mutex::default(),
        }
    }

    pub fn has_claims(&self) -> bool {
        self.settings.claim_templates > 0
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the controller writes when it sees this.
    pub fn plan(&self, spec: Spec, current: u8, pods: Pods, claims: Claims) -> Vec<Write> {
        let seen = (spec, current, pods, claims);
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.entry(seen).or_insert_with(|| self.writes(seen)).clone()
    }

    fn name(&self, template: u8) -> String {
        self.revisions[usize::from(template)].name_any()
    }

    fn template(&self, name: &str) -> u8 {
        let found = (0..2).find(|template| self.name(*template) == name);
        found.expect("one of the two revisions")
    }

    fn writes(&self, (spec, current, pods, claims): Seen) -> Vec<Write> {
        let settings = Settings {
            replicas: spec.replicas.into(),
            template: spec.template.into(),
            ..self.settings.clone()
        };
        let mut set = settings.set(SET, 1);
        set["status"] = json!({"replicas": 0, "currentRevision": self.name(current)});
        // The present template's revision is the newest, so that there is nothing to write about it.
        let mut revisions = self.revisions.clone();
        revisions[usize::from(spec.template)].revision = 3;
        let there =
            |(ordinal, pod): (usize, &Option<SmallPod>)| pod.map(|pod| Arc::new(self.pod(ordinal, pod)));
        let around = Surroundings {
            pods: pods.iter().enumerate().filter_map(there).collect(),
            revisions: revisions.into_iter().map(Arc::new).collect(),
            claims: claims
                .iter()
                .enumerate()
                .filter_map(|(ordinal, claim)| claim.map(|claim| Arc::new(small_claim(ordinal, claim))))
                .collect(),
            ..Surroundings::default()
        };
        let observed = Observed::new(&set).expect("a readable set").among(around);
        self.small(plan(&observed, Timestamp::UNIX_EPOCH), current, &pods, &claims)
    }

    fn small(&self, plan: Plan, current: u8, pods: &Pods, claims: &Claims) -> Vec<Write> {
        assert!(
            plan.prepare.is_empty() && plan.prune.is_empty(),
            "revisions are as they should be"
        );
        let index = |name: &str| usize::try_from(ordinal_of(name).expect("web-N")).expect("small");
        let claim_index = |name: &str| index(name.strip_prefix("data-").expect("data-web-N"));
        let write = |action: &Action| match action {
            Action::CreatePod(pod) => Some(Write::CreatePod {
                ordinal: index(&pod.name_any()),
                template: self.template(&pod.labels()["controller-revision-hash"]),
            }),
            Action::DeletePod { name, uid } => Some(Write::DeletePod {
                ordinal: index(name),
                uid: uid.parse().expect("a small UID"),
            }),
            Action::UpdatePod { name, .. } => {
                let ordinal = index(name);
                Some(Write::UpdatePod {
                    ordinal,
                    was: pods[ordinal].expect("it is there"),
                })
            }
            Action::CreateClaim { claim, .. } => Some(Write::CreateClaim {
                ordinal: claim_index(&claim.name_any()),
            }),
            Action::OwnClaim { name, owners, .. } => {
                let ordinal = claim_index(name);
                let owner = match &owners[..] {
                    [] => Owner::Nobody,
                    [one] if one.uid == SET => Owner::Set,
                    [one] => Owner::Pod(one.uid.parse().expect("a small UID")),
                    several => panic!("several owners: {several:?}"),
                };
                Some(Write::OwnClaim {
                    ordinal,
                    was: claims[ordinal],
                    owner,
                })
            }
            Action::Refuse { .. } => Some(Write::Refuse),
            Action::Tell(_) => None,
            // There is no way to say that a claim is to be deleted.
            other => panic!("unexpected {other:?}"),
        };
        let status = plan
            .status
            .as_ref()
            .and_then(|status| status.current_revision.as_deref());
        let told = status
            .map(|name| self.template(name))
            .filter(|told| *told != current);
        let steps = plan.steps.iter().flatten().flatten().filter_map(write);
        steps
            .chain(told.map(|current| Write::Status { current }))
            .collect()
    }

    fn pod(&self, ordinal: usize, pod: SmallPod) -> Pod {
        let name = format!("web-{ordinal}");
        let (phase, ready) = match pod.phase {
            Phase::Pending => ("Pending", "False"),
            Phase::Unready => ("Running", "False"),
            Phase::Ready => ("Running", "True"),
            Phase::Failed => ("Failed", "False"),
        };
        let claims = self
            .settings
            .claims(0)
            .map(|_| json!({"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}}));
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": pod.uid.to_string(),
                "ownerReferences": [owner("apps/v1", "StatefulSet", "web", SET)],
                "deletionTimestamp": pod.is_terminating.then_some("1970-01-01T00:00:00Z"),
                "labels": {"app": "web", "statefulset.kubernetes.io/pod-name": name,
                    "apps.kubernetes.io/pod-index": ordinal.to_string(),
                    "controller-revision-hash": self.name(pod.template)}},
            "spec": {"containers": [], "volumes": claims.collect::<Vec<_>>()},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("a pod")
    }
}

fn small_claim(ordinal: usize, claim: SmallClaim) -> PersistentVolumeClaim {
    let owners = match claim.owner {
        Owner::Nobody => vec![],
        Owner::Set => vec![owner("apps/v1", "StatefulSet", "web", SET)],
        Owner::Pod(uid) => vec![owner("v1", "Pod", &format!("web-{ordinal}"), &uid.to_string())],
    };
    serde_json::from_value(json!({"metadata": {"name": format!("data-web-{ordinal}"), "namespace": "ns",
        "ownerReferences": owners, "deletionTimestamp": claim.is_terminating.then_some("1970-01-01T00:00:00Z")}}))
    .expect("a claim")
}

/// The revision of a template as the controller itself makes it.
fn revision_of(settings: &Settings, template: usize) -> ControllerRevision {
    let settings = Settings {
        template,
        ..settings.clone()
    };
    let observed = Observed::new(&settings.set(SET, 1)).expect("a readable set");
    let plan = plan(&observed, Timestamp::UNIX_EPOCH);
    let made = plan
        .prepare
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|action| match action {
            Action::CreateRevision(revision) => Some(*revision),
            _ => None,
        });
    ControllerRevision {
        revision: template as i64 + 1,
        ..made.expect("a new set keeps its template")
    }
}
