//! A set's conditions: whether it is all there, whether it goes on, and what is wrong around it.
//!
//! Kubernetes sets none (kubernetes issue 79606). petset does, so that `kubectl wait --for=condition=Available sts/web`
//! works. Conditions of other types are somebody else's and stay as they are.

use super::event::Told;
use super::growth::Growth;
use super::service;
use super::status::Counts;
use super::wait::Wait;
use events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// `True`: every replica is available.
const AVAILABLE: &str = "Available";
/// `False`: something keeps the set from getting any further, and its reason and message say what.
const PROGRESSING: &str = "Progressing";
/// `False`: the pods have no DNS names. There only when it is or was so.
const GOVERNED: &str = "GoverningService";
/// Whether every claim is as large as its template says. There only when that is wanted.
const RESIZED: &str = "ClaimsResized";

/// The types of the conditions that are this controller's.
const OWN: [&str; 4] = [AVAILABLE, PROGRESSING, GOVERNED, RESIZED];

/// What a sync found out.
pub struct Outlook<'a> {
    /// The pods, counted.
    pub counts: Counts,
    /// The revision of the set's template.
    pub revision: &'a str,
    /// How many pods the strategy leaves at another revision.
    pub left_behind: usize,
    /// Whether there is something to do right now.
    pub is_acting: bool,
    /// What was waited for.
    pub waits: &'a [Wait],
    /// What is wrong with the governing Service.
    pub service: Option<service::Trouble>,
    /// How far the claims are.
    pub growth: &'a Growth,
}

impl Outlook<'_> {
    /// The next moment at which something that is waited for is no longer usual.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let waits = self.waits.iter().filter_map(|wait| wait.due_at);
        let service = self.service.as_ref().and_then(|trouble| trouble.due_at);
        waits.chain(service).filter(|at| *at > now).min()
    }
}

/// The set's conditions, others' included, and what of them is bad news that was not told yet.
pub fn conditions(
    set: &StatefulSet,
    outlook: &Outlook<'_>,
    now: Timestamp,
) -> (Option<Vec<StatefulSetCondition>>, Vec<Told>) {
    let old = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let find = |type_: &str| old.iter().find(|condition| condition.type_ == type_);
    let found = [
        Some(available(set, outlook.counts)),
        Some(progressing(outlook, now)),
        governed(outlook, find(GOVERNED), now),
        outlook.growth.is_wanted.then(|| resized(outlook.growth)),
    ];
    let own: Vec<_> = found
        .into_iter()
        .flatten()
        .map(|found| found.dated(find, now))
        .collect();
    let is_told = |condition: &StatefulSetCondition| {
        let before = find(&condition.type_);
        before.is_some_and(|before| before.status == condition.status && before.message == condition.message)
    };
    let news = own.iter().filter(|condition| {
        condition.status == "False" && condition.type_ != AVAILABLE && !is_told(condition)
            // A claim that is growing is no bad news.
            && condition.reason.as_deref() != Some(GROWING)
    });
    let news = news.map(|condition| Told {
        event_type: EventType::Warning,
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    });
    let news = news.collect();
    (merge(old, &own), news)
}

/// This controller's own conditions of `ours` among those of others in `present`.
pub fn merge(
    present: &[StatefulSetCondition],
    ours: &[StatefulSetCondition],
) -> Option<Vec<StatefulSetCondition>> {
    let is_own = |condition: &&StatefulSetCondition| OWN.contains(&condition.type_.as_str());
    let others = present.iter().filter(|condition| !is_own(condition));
    let all: Vec<_> = others.chain(ours.iter().filter(is_own)).cloned().collect();
    (!all.is_empty()).then_some(all)
}

const GROWING: &str = "Growing";

/// A condition without its date.
struct Found {
    type_: &'static str,
    is_true: bool,
    reason: &'static str,
    message: String,
}

impl Found {
    /// With the time since when its status is what it is.
    fn dated<'a>(
        self,
        before: impl Fn(&str) -> Option<&'a StatefulSetCondition>,
        now: Timestamp,
    ) -> StatefulSetCondition {
        let status = if self.is_true { "True" } else { "False" };
        let same = before(self.type_).filter(|before| before.status == status);
        let since = same.and_then(|before| before.last_transition_time.clone());
        StatefulSetCondition {
            type_: self.type_.into(),
            status: status.into(),
            reason: Some(self.reason.into()),
            message: Some(self.message),
            last_transition_time: since.or(Some(Time(now))),
        }
    }
}

fn available(set: &StatefulSet, counts: Counts) -> Found {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let is_true = counts.available >= wanted;
    Found {
        type_: AVAILABLE,
        is_true,
        reason: if is_true {
            "AllReplicasAvailable"
        } else {
            "ReplicasUnavailable"
        },
        message: format!(
            "{} of {wanted} replicas are available",
            counts.available.min(wanted)
        ),
    }
}

fn progressing(outlook: &Outlook<'_>, now: Timestamp) -> Found {
    let found = |is_true, reason, message| Found {
        type_: PROGRESSING,
        is_true,
        reason,
        message,
    };
    if let Some(wait) = outlook.waits.iter().find(|wait| wait.is_due(now)) {
        return found(false, wait.reason, wait.to_string());
    }
    if outlook.is_acting {
        return found(
            true,
            "Reconciling",
            "Pods are being created, replaced or removed".into(),
        );
    }
    if let Some(wait) = outlook.waits.first() {
        return found(true, "Reconciling", wait.what.clone());
    }
    let revision = outlook.revision;
    let message = match outlook.left_behind {
        0 => format!("All pods are at revision {revision}"),
        left => format!(
            "All pods are at revision {revision} but {left}, which the update strategy leaves as they are"
        ),
    };
    found(true, "Complete", message)
}

fn governed(outlook: &Outlook<'_>, before: Option<&StatefulSetCondition>, now: Timestamp) -> Option<Found> {
    let found = |is_true, reason, message| Found {
        type_: GOVERNED,
        is_true,
        reason,
        message,
    };
    match &outlook.service {
        Some(trouble) if trouble.due_at.is_none_or(|at| at <= now) => {
            Some(found(false, trouble.reason, trouble.message.clone()))
        }
        Some(_) => None,
        None => before.map(|_| {
            found(
                true,
                "Governed",
                "The governing Service gives the pods their names".into(),
            )
        }),
    }
}

fn resized(growth: &Growth) -> Found {
    let found = |is_true, reason, message| Found {
        type_: RESIZED,
        is_true,
        reason,
        message,
    };
    let Growth {
        grown,
        growing,
        stuck,
        ..
    } = growth;
    let count = grown + growing.len() + stuck.len();
    if !stuck.is_empty() {
        let message = format!(
            "{grown} of {count} claims have their template's size. {}",
            stuck.join("; ")
        );
        return found(false, "NotExpandable", message);
    }
    if !growing.is_empty() {
        let message = format!(
            "{grown} of {count} claims have their template's size. Growing: {}",
            growing.join(", ")
        );
        return found(false, GROWING, message);
    }
    found(
        true,
        "Resized",
        format!("{count} of {count} claims have their template's size"),
    )
}
