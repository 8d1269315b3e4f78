//! What a namespace that is being deleted says about how far it has come.

use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// What is left in a namespace, and what went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Why the kinds could not be found out, if so.
    pub discovery_error: Option<String>,
    /// Why content could not be deleted.
    pub errors: Vec<String>,
    /// How many objects are left, by `RESOURCE.GROUP` (`pods.` in the core group).
    pub objects: BTreeMap<String, usize>,
    /// How many objects each finalizer holds.
    pub finalizers: BTreeMap<String, usize>,
}

impl Remains {
    /// Can the namespace go?
    pub fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.errors.is_empty() && self.objects.is_empty()
    }
}

/// The five conditions, in upstream's order; one that has not changed keeps its time.
pub fn conditions(remains: &Remains, before: &[NamespaceCondition], now: &Time) -> Vec<NamespaceCondition> {
    let list = |counts: &BTreeMap<String, usize>, verb: &str| {
        let each = counts
            .iter()
            .map(|(name, count)| format!("{name} {verb} {count} resource instances"));
        let text = each.collect::<Vec<_>>().join(", ");
        (!text.is_empty()).then_some(text)
    };
    let discovery = remains.discovery_error.clone();
    let errors = remains.errors.join(", ");
    let errors = (!errors.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {errors}",
            remains.errors.len()
        )
    });
    let objects = list(&remains.objects, "has");
    let finalizers = list(&remains.finalizers, "in");
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            discovery.map(|error| {
                (
                    "DiscoveryFailed",
                    format!("Discovery failed for some groups, 1 failing: {error}"),
                )
            }),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            errors.map(|text| ("ContentDeletionFailed", text)),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            objects.map(|text| {
                (
                    "SomeResourcesRemain",
                    format!("Some resources are remaining: {text}"),
                )
            }),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers.map(|text| {
                let text = format!("Some content in the namespace has finalizers remaining: {text}");
                ("SomeFinalizersRemain", text)
            }),
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ),
    ];
    rows.into_iter()
        .map(|(type_, failing, fine)| {
            let (status, (reason, message)) = match failing {
                Some(failing) => ("True", failing),
                None => ("False", (fine.0, fine.1.to_owned())),
            };
            let earlier = before.iter().find(|c| c.type_ == type_ && c.status == status);
            let since = earlier.and_then(|condition| condition.last_transition_time.clone());
            NamespaceCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(remains: &Remains) -> Vec<(String, String, String)> {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let all = conditions(remains, &[], &now);
        let row = |c: NamespaceCondition| (c.status, c.reason.unwrap(), c.message.unwrap());
        all.into_iter().map(row).collect()
    }

    #[test]
    fn an_empty_namespace_says_that_all_went_well() {
        assert!(Remains::default().is_empty());
        assert!(
            told(&Remains::default())
                .iter()
                .all(|(status, ..)| status == "False")
        );
    }

    #[test]
    fn what_remains_is_counted_in_upstreams_words() {
        let remains = Remains {
            objects: [("configmaps.".into(), 1), ("statefulsets.apps".into(), 2)].into(),
            finalizers: [("example.com/a".into(), 1)].into(),
            ..Remains::default()
        };
        assert!(!remains.is_empty());
        let told = told(&remains);
        assert_eq!(told[2].0, "False");
        assert_eq!(
            told[3],
            (
                "True".into(),
                "SomeResourcesRemain".into(),
                "Some resources are remaining: configmaps. has 1 resource instances, statefulsets.apps has 2 \
                 resource instances"
                    .into()
            )
        );
        assert_eq!(
            told[4].2,
            "Some content in the namespace has finalizers remaining: example.com/a in 1 resource instances"
        );
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let earlier = Time(jiff::Timestamp::UNIX_EPOCH);
        let later = Time(jiff::Timestamp::from_second(60).unwrap());
        let before = conditions(&Remains::default(), &[], &earlier);
        let remains = Remains {
            objects: [("pods.".into(), 1)].into(),
            ..Remains::default()
        };
        let after = conditions(&remains, &before, &later);
        let times: Vec<_> = after
            .iter()
            .map(|c| c.last_transition_time.clone().unwrap())
            .collect();
        assert_eq!(
            times,
            [&earlier, &earlier, &earlier, &later, &earlier].map(Clone::clone)
        );
    }
}
