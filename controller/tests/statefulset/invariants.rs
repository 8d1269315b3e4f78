//! What must be true of every plan, whatever was observed: upstream's rules, said a second time and in another way.

mod claims;
mod counts;
mod pods;

use crate::api::{Api, SET};
use crate::settings::Settings;
use controller::statefulset::action::{Action, Lane, Plan};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// A pod that belongs to the set, as far as a plan may care.
pub struct Member<'a> {
    pub pod: &'a Pod,
    pub ordinal: i32,
    pub is_finished: bool,
    pub is_terminating: bool,
    pub is_ready: bool,
    pub is_available: bool,
    pub revision: &'a str,
}

impl Member<'_> {
    /// It works and stays.
    pub fn is_well(&self) -> bool {
        self.is_ready && self.is_available && !self.is_terminating
    }
}

/// The ordinal that a name of the set's pods says.
pub fn ordinal_of(name: &str) -> Option<i32> {
    name.strip_prefix("web-")?.parse().ok()
}

/// When a pod became Ready, if it is.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let condition = status
        .conditions
        .as_ref()?
        .iter()
        .find(|it| it.type_ == "Ready")?;
    let since = condition.last_transition_time.as_ref()?.0;
    (status.phase.as_deref() == Some("Running") && condition.status == "True").then_some(since)
}

/// The set's pods by ordinal (R6–R8).
pub fn members<'a>(api: &'a Api, settings: &Settings, now: Timestamp) -> BTreeMap<i32, Member<'a>> {
    let wait = SignedDuration::from_secs(settings.min_ready_seconds.into());
    let members = api.pods.values().filter_map(|pod| {
        let ordinal = ordinal_of(pod.metadata.name.as_deref()?)?;
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        let owner = pod
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        let is_taken = match owner {
            Some(owner) => owner.uid == SET,
            None => !is_terminating && !api.is_set_deleted(),
        };
        if !is_taken || pod.labels().get("app").is_none_or(|app| app != "web") {
            return None;
        }
        let phase = pod.status.as_ref()?.phase.as_deref();
        let since = ready_since(pod);
        Some((
            ordinal,
            Member {
                pod,
                ordinal,
                is_finished: matches!(phase, Some("Failed" | "Succeeded")),
                is_terminating,
                is_ready: since.is_some(),
                is_available: since
                    .is_some_and(|since| settings.min_ready_seconds == 0 || since + wait < now),
                revision: pod
                    .labels()
                    .get("controller-revision-hash")
                    .map_or("", String::as_str),
            },
        ))
    });
    members.collect()
}

/// Everything that a check needs.
pub struct Check<'a> {
    pub api: &'a Api,
    pub settings: &'a Settings,
    pub now: Timestamp,
    pub plan: &'a Plan,
    pub members: BTreeMap<i32, Member<'a>>,
    /// The revision of the present template, stored or about to be.
    update: String,
    /// The revision that the set comes from.
    current: String,
}

/// Check a plan against what it was made of.
pub fn check(api: &Api, settings: &Settings, now: Timestamp, plan: &Plan) {
    let update = update_revision(api, settings, plan);
    let status = api.status();
    let is_listed = |name: &String| api.revisions.get(name).is_some_and(|it| is_candidate(it));
    let check = Check {
        api,
        settings,
        now,
        plan,
        members: members(api, settings, now),
        current: status
            .current_revision
            .filter(is_listed)
            .unwrap_or_else(|| update.clone()),
        update,
    };
    check.ownership();
    check.pods();
    check.claims();
    check.status();
    check.prune();
    check.wake_up();
}

fn is_candidate(revision: &ControllerRevision) -> bool {
    let owner = revision
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    owner.is_none_or(|owner| owner.uid == SET)
}

/// The number of the template that a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<&str> {
    let data = &revision.data.as_ref()?.0;
    data["spec"]["template"]["spec"]["containers"][0]["image"].as_str()
}

/// The revision that holds the present template: there is exactly one such, or the plan creates it (R16).
fn update_revision(api: &Api, settings: &Settings, plan: &Plan) -> String {
    let template = settings.template.to_string();
    let candidates = api.revisions.values().filter(|it| is_candidate(it));
    let newest = candidates.clone().map(|it| it.revision).max().unwrap_or(0);
    let mut holding: Vec<_> = candidates
        .filter(|it| template_of(it) == Some(&template))
        .collect();
    holding.sort_by_key(|it| it.revision);
    let mut writes = plan.prepare.iter().flatten().flatten().filter(|action| {
        matches!(
            action,
            Action::CreateRevision(_) | Action::RenumberRevision { .. }
        )
    });
    let write = writes.next();
    assert!(writes.next().is_none(), "one revision at most is written");
    match (holding.last(), write) {
        (Some(there), None) => {
            assert_eq!(there.revision, newest, "{} is not the newest", there.name_any());
            there.name_any()
        }
        (Some(there), Some(Action::RenumberRevision { name, revision, .. })) => {
            assert_eq!(*name, there.name_any());
            assert!(
                there.revision < newest && *revision == newest + 1,
                "a rollback makes it the newest"
            );
            name.clone()
        }
        (None, Some(Action::CreateRevision(new))) => {
            assert_eq!(template_of(new), Some(&*template));
            assert_eq!(new.revision, newest + 1);
            assert!(!api.revisions.contains_key(&new.name_any()), "its name is free");
            new.name_any()
        }
        (there, write) => panic!("{there:?} holds the template, but {write:?}"),
    }
}

impl Check<'_> {
    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.plan.steps.iter().flatten()
    }

    fn actions(&self) -> impl Iterator<Item = &Action> {
        self.lanes().flatten()
    }

    fn created(&self) -> Vec<(i32, &Pod)> {
        let pods = self.actions().filter_map(|action| match action {
            Action::CreatePod(pod) => Some(&**pod),
            _ => None,
        });
        pods.map(|pod| (ordinal_of(&pod.name_any()).expect("web-N"), pod))
            .collect()
    }

    fn deleted(&self) -> Vec<&Member<'_>> {
        let names = self.actions().filter_map(|action| match action {
            Action::DeletePod { name, uid } => Some((name, uid)),
            _ => None,
        });
        let member = |(name, uid): (&String, &String)| {
            let member = ordinal_of(name).and_then(|ordinal| self.members.get(&ordinal));
            let member = member.unwrap_or_else(|| panic!("{name} is deleted, but not the set's"));
            assert_eq!(
                member.pod.uid().as_ref(),
                Some(uid),
                "{name}: another of that name"
            );
            member
        };
        names.map(member).collect()
    }

    fn in_range(&self) -> impl DoubleEndedIterator<Item = &Member<'_>> {
        let range = self.settings.range();
        self.members
            .values()
            .filter(move |it| range.contains(&it.ordinal))
    }

    fn condemned(&self) -> impl DoubleEndedIterator<Item = &Member<'_>> {
        let range = self.settings.range();
        self.members
            .values()
            .filter(move |it| !range.contains(&it.ordinal))
    }

    /// Whether every ordinal of a range has a pod that works and stays.
    fn all_well(&self, mut range: std::ops::Range<i32>) -> bool {
        range.all(|ordinal| self.members.get(&ordinal).is_some_and(Member::is_well))
    }

    /// What fits and is nobody's is adopted, what is ours and does not fit is released (R7, R8).
    fn ownership(&self) {
        let adopted = self.api.pods.values().filter(|pod| {
            let is_member = ordinal_of(&pod.name_any()).is_some_and(|it| self.members.contains_key(&it));
            is_member && pod.owner_references().iter().all(|owner| owner.uid != SET)
        });
        let expected_adopted: BTreeSet<_> = adopted.map(|pod| pod.name_any()).collect();
        let released = self.api.pods.values().filter(|pod| {
            let is_ours = pod
                .owner_references()
                .iter()
                .any(|it| it.uid == SET && it.controller == Some(true));
            let fits = ordinal_of(&pod.name_any()).is_some()
                && pod.labels().get("app").is_some_and(|app| app == "web");
            is_ours && !fits && !self.api.is_set_deleted()
        });
        let expected_released: BTreeSet<_> = released.map(|pod| pod.name_any()).collect();
        let (mut adopted, mut released) = (BTreeSet::new(), BTreeSet::new());
        for action in self.plan.prepare.iter().flatten().flatten() {
            match action {
                Action::OwnPod { pod, owners, adopts } => {
                    let is_ours = owners.iter().any(|owner| owner.uid == SET);
                    assert_eq!(is_ours, *adopts);
                    let names = if *adopts { &mut adopted } else { &mut released };
                    assert!(names.insert(pod.name_any()), "{} is patched once", pod.name_any());
                }
                Action::AdoptRevision(revision) => assert!(revision.owner_references().is_empty()),
                Action::CreateRevision(_) | Action::RenumberRevision { .. } => {}
                other => panic!("{other:?} does not prepare anything"),
            }
        }
        assert_eq!(adopted, expected_adopted, "adopted");
        assert_eq!(released, expected_released, "released");
    }
}
