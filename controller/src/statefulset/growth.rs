//! Carrying sizes that were raised in claim templates to the claims that there are, where the set asks for it.

use super::action::{Action, Lane};
use super::claims::{may_grow, new_claims};
use super::identity::range;
use super::observed::Observed;
use crate::quantity::nanos;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

/// How far the claims are.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Whether the set wants its claims to grow at all.
    pub is_wanted: bool,
    /// Claims that have the size of their template.
    pub grown: usize,
    /// Claims that ask for it and do not have it yet, and claims that are to ask for it.
    pub growing: Vec<String>,
    /// Claims that cannot, each with the reason.
    pub stuck: Vec<String>,
    /// The claims that are asked to grow now.
    pub actions: Vec<Lane>,
}

/// What there is to do for claims to become as large as their templates say. They never shrink.
pub fn growth(observed: &Observed) -> Growth {
    let mut growth = Growth {
        is_wanted: may_grow(&observed.set),
        ..Growth::default()
    };
    if !growth.is_wanted {
        return growth;
    }
    for new in range(&observed.set).flat_map(|ordinal| new_claims(&observed.set, ordinal)) {
        let name = new.name_any();
        let Some(claim) = observed.claims.get(&name) else {
            continue;
        };
        let Some(wanted) = requested(&new) else { continue };
        if is_at_least(requested(claim), &wanted) {
            match is_at_least(capacity(claim), &wanted) {
                true => growth.grown += 1,
                false => growth.growing.push(name),
            }
            continue;
        }
        match obstacle(observed, claim) {
            Some(obstacle) => growth.stuck.push(format!("{name} {obstacle}")),
            None => {
                growth.actions.push(vec![Action::GrowClaim {
                    name: name.clone(),
                    resource_version: claim.resource_version(),
                    storage: wanted,
                }]);
                growth.growing.push(name);
            }
        }
    }
    growth
}

/// Why the API would refuse (P14).
fn obstacle(observed: &Observed, claim: &PersistentVolumeClaim) -> Option<String> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Bound") {
        return Some("is not Bound yet".into());
    }
    let class = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_deref());
    let Some(name) = class.filter(|name| !name.is_empty()) else {
        return Some("has no StorageClass, so that its volume cannot grow".into());
    };
    let expands = observed
        .classes
        .get(name)
        .is_some_and(|class| class.allow_volume_expansion == Some(true));
    (!expands).then(|| format!("is of StorageClass {name}, which does not have allowVolumeExpansion: true"))
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").cloned()
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage").cloned()
}

fn is_at_least(has: Option<Quantity>, wanted: &Quantity) -> bool {
    has.and_then(|has| nanos(&has)) >= nanos(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn growth_of(annotation: &str, request: &str, status: Value, expands: bool) -> Growth {
        let set = json!({"metadata": {"name": "web", "annotations": {"petset.dev/resize-claims": annotation}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {}, "volumeClaimTemplates":
                [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}]}});
        let mut observed = Observed::new(&set).expect("a set");
        let claim = json!({"metadata": {"name": "data-web-0"}, "status": status,
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": request}}}});
        let class =
            json!({"metadata": {"name": "fast"}, "provisioner": "x", "allowVolumeExpansion": expands});
        observed.claims = [(
            "data-web-0".into(),
            Arc::new(serde_json::from_value(claim).expect("a claim")),
        )]
        .into();
        observed.classes = [(
            "fast".into(),
            Arc::new(serde_json::from_value(class).expect("a class")),
        )]
        .into();
        growth(&observed)
    }

    fn bound(capacity: &str) -> Value {
        json!({"phase": "Bound", "capacity": {"storage": capacity}})
    }

    #[test]
    fn a_claim_smaller_than_its_template_is_asked_to_grow_where_it_can() {
        let growth = growth_of("true", "1Gi", bound("1Gi"), true);
        assert!(matches!(&growth.actions[..], [lane] if matches!(&lane[..],
            [Action::GrowClaim { storage, .. }] if storage.0 == "2Gi")));
        assert_eq!(growth.growing, ["data-web-0"]);
        for (status, expands, why) in [
            (bound("1Gi"), false, "allowVolumeExpansion"),
            (json!({"phase": "Pending"}), true, "Bound"),
        ] {
            let growth = growth_of("true", "1Gi", status, expands);
            assert!(
                growth.actions.is_empty() && growth.stuck[0].contains(why),
                "{growth:?}"
            );
        }
    }

    #[test]
    fn nothing_shrinks_and_nothing_grows_unasked() {
        assert_eq!(growth_of("true", "3Gi", bound("3Gi"), true).grown, 1);
        assert_eq!(
            growth_of("true", "2Gi", bound("1Gi"), true).growing,
            ["data-web-0"]
        );
        assert!(growth_of("false", "1Gi", bound("1Gi"), true).actions.is_empty());
    }
}
