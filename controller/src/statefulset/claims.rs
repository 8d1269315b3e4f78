//! The claims that a set's pods use: made from the set's templates, kept or given an owner as the retention policy
//! says.

use super::identity::{controller_reference, ordinal, owner_reference};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

/// Set to `true` on a set, this has raised sizes in claim templates carried to the claims that there are. (Kubernetes
/// keeps templates as they are: kubernetes issue 68737.)
pub const RESIZE_CLAIMS: &str = "petset.dev/resize-claims";

/// The claim's name for a template's name at an ordinal (R44).
fn claim_name(template: &str, set: &str, ordinal: i32) -> String {
    format!("{template}-{set}-{ordinal}")
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec
        .as_ref()
        .and_then(|spec| spec.volume_claim_templates.as_deref())
        .unwrap_or_default()
}

/// The names of the claims of `ordinal`'s pod.
pub fn names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> {
    let name = set.name_any();
    templates(set)
        .iter()
        .map(move |template| claim_name(&template.name_any(), &name, ordinal))
}

/// Whether a claim of this name is one of the set's.
pub fn is_of(set: &StatefulSet, claim: &str) -> bool {
    let Some((rest, Some(_))) = super::identity::parent_and_ordinal(claim) else {
        return false;
    };
    let template = rest
        .strip_suffix(set.name_any().as_str())
        .and_then(|rest| rest.strip_suffix('-'));
    template.is_some_and(|name| templates(set).iter().any(|template| template.name_any() == name))
}

/// The names of the sets that a claim of this name may be of: what stands between any hyphen and the ordinal's.
pub fn possible_sets(claim: &str) -> impl Iterator<Item = &str> {
    let parent = super::identity::parent_and_ordinal(claim).map_or("", |(parent, _)| parent);
    parent.match_indices('-').map(|(at, _)| &parent[at + 1..])
}

/// Whether the set wants its claims to grow with their templates.
pub fn may_grow(set: &StatefulSet) -> bool {
    set.annotations()
        .get(RESIZE_CLAIMS)
        .is_some_and(|value| value == "true")
}

/// The claims of `ordinal`'s pod as they are created (R44).
pub fn new_claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let selected = set
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone())
        .unwrap_or_default();
    let claim = |(template, name): (&PersistentVolumeClaim, String)| {
        let mut claim = template.clone();
        claim.metadata.name = Some(name);
        claim.metadata.namespace = set.namespace();
        claim.labels_mut().extend(selected.clone());
        claim
    };
    templates(set)
        .iter()
        .zip(names(set, ordinal))
        .map(claim)
        .collect()
}

/// A pod's volumes: one for each claim template, instead of one of the same name, and the others (R25).
pub fn volumes(set: &StatefulSet, ordinal: i32, others: Option<Vec<Volume>>) -> Option<Vec<Volume>> {
    let mut volumes: Vec<_> = templates(set)
        .iter()
        .zip(names(set, ordinal))
        .map(|(template, claim_name)| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name,
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let is_claimed = |volume: &Volume| {
        templates(set)
            .iter()
            .any(|template| template.name_any() == volume.name)
    };
    volumes.extend(others.into_iter().flatten().filter(|volume| !is_claimed(volume)));
    (!volumes.is_empty()).then_some(volumes)
}

/// Whether the pod uses its claims.
pub fn storage_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let Some(ordinal) = ordinal(pod) else { return false };
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    templates(set)
        .iter()
        .zip(names(set, ordinal))
        .all(|(template, claim)| {
            let volume = volumes.iter().find(|volume| volume.name == template.name_any());
            let source = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
            source.is_some_and(|source| source.claim_name == claim)
        })
}

/// What happens to claims: `true` is `Delete`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Retention {
    delete_when_deleted: bool,
    delete_when_scaled: bool,
}

fn retention(set: &StatefulSet) -> Retention {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let is_delete = |half: Option<&String>| half.is_some_and(|value| value == "Delete");
    Retention {
        delete_when_deleted: is_delete(policy.and_then(|policy| policy.when_deleted.as_ref())),
        delete_when_scaled: is_delete(policy.and_then(|policy| policy.when_scaled.as_ref())),
    }
}

/// Whether a reference means `owner` or an earlier object of that name.
fn names_owner<T: Resource<DynamicType = ()>>(reference: &OwnerReference, owner: &T) -> bool {
    reference.api_version == T::api_version(&())
        && reference.kind == T::kind(&())
        && reference.name == owner.name_any()
}

fn is_stale<T: Resource<DynamicType = ()>>(claim: &PersistentVolumeClaim, owner: &T) -> bool {
    let reference = claim
        .owner_references()
        .iter()
        .find(|reference| names_owner(reference, owner));
    reference.is_some_and(|reference| Some(&reference.uid) != owner.meta().uid.as_ref())
}

/// Whether the claim still belongs to an earlier pod of that name and so must go before a new one is made (R46).
pub fn blocks_creation(set: &StatefulSet, claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    retention(set).delete_when_scaled && is_stale(claim, pod)
}

/// Whether somebody else manages the claim, so that the policy cannot (R45).
pub fn has_unexpected_controller(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    let retention = retention(set);
    if !retention.delete_when_deleted && !retention.delete_when_scaled {
        return false;
    }
    claim.owner_references().iter().any(|reference| {
        if names_owner(reference, set) {
            Some(&reference.uid) != set.metadata.uid.as_ref()
        } else if names_owner(reference, pod) {
            Some(&reference.uid) != pod.metadata.uid.as_ref()
        } else {
            reference.controller == Some(true)
        }
    })
}

/// The owners that the claim has to get under the retention policy; `None` when it has the right ones, or is not
/// ours to touch (R45).
pub fn owners_to_set(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
    is_condemned: bool,
) -> Option<Vec<OwnerReference>> {
    if is_stale(claim, set) || is_stale(claim, pod) {
        return None;
    }
    let retention = retention(set);
    let owners = claim.owner_references();
    let unexpected = has_unexpected_controller(claim, set, pod);
    let wants_pod = !unexpected && retention.delete_when_scaled && is_condemned;
    let wants_set = !unexpected && retention.delete_when_deleted && !wants_pod;
    let reference_to = |uid: Option<&String>| owners.iter().find(|reference| Some(&reference.uid) == uid);
    let is_right = |reference: Option<&OwnerReference>, wanted: bool| match reference {
        None => !wanted,
        // A reference of ours that does not control is put right even where nothing else is to change.
        Some(reference) => wanted && reference.controller == Some(true),
    };
    if is_right(reference_to(set.metadata.uid.as_ref()), wants_set)
        && is_right(reference_to(pod.metadata.uid.as_ref()), wants_pod)
    {
        return None;
    }
    let is_ours = |reference: &&OwnerReference| names_owner(reference, set) || names_owner(reference, pod);
    let mut wanted: Vec<_> = owners
        .iter()
        .filter(|reference| !is_ours(reference))
        .cloned()
        .collect();
    if wants_set {
        wanted.push(owner_reference(set));
    }
    if wants_pod {
        wanted.push(controller_reference(pod));
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(when_deleted: &str, when_scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "set-uid"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": when_scaled},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"app": "x", "tier": "db"}}}]},
        }))
        .expect("a set")
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "uid": "pod-uid"}})).expect("a pod")
    }

    fn claim(owners: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data-web-1", "ownerReferences": owners}}))
            .expect("a claim")
    }

    fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let version = if kind == "StatefulSet" { "apps/v1" } else { "v1" };
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller,
            "blockOwnerDeletion": true})
    }

    fn uids(owners: Option<Vec<OwnerReference>>) -> Option<Vec<String>> {
        owners.map(|owners| owners.into_iter().map(|owner| owner.uid).collect())
    }

    #[test]
    fn each_policy_gives_claims_the_owners_of_the_table() {
        let cases: [(&str, &str, &[&str], &[&str]); 4] = [
            ("Retain", "Retain", &[], &[]),
            ("Delete", "Retain", &["set-uid"], &["set-uid"]),
            ("Retain", "Delete", &[], &["pod-uid"]),
            ("Delete", "Delete", &["set-uid"], &["pod-uid"]),
        ];
        let starts = [
            json!([]),
            json!([owner("StatefulSet", "web", "set-uid", true)]),
            json!([owner("Pod", "web-1", "pod-uid", true)]),
            json!([owner("StatefulSet", "web", "set-uid", false)]),
        ];
        for (when_deleted, when_scaled, in_range, condemned) in cases {
            for (is_condemned, expected) in [(false, in_range), (true, condemned)] {
                for start in &starts {
                    let claim = claim(start);
                    let set = set(when_deleted, when_scaled);
                    let case = format!("{when_deleted}/{when_scaled} condemned {is_condemned} from {start}");
                    let owners = owners_to_set(&claim, &set, &pod(), is_condemned);
                    let mut after = claim.clone();
                    if let Some(owners) = owners {
                        after.metadata.owner_references = Some(owners);
                    }
                    let got: Vec<_> = after
                        .owner_references()
                        .iter()
                        .map(|owner| owner.uid.as_str())
                        .collect();
                    assert_eq!(got, expected, "{case}");
                    assert!(
                        after
                            .owner_references()
                            .iter()
                            .all(|owner| owner.controller == Some(true)),
                        "{case}"
                    );
                    assert_eq!(
                        owners_to_set(&after, &set, &pod(), is_condemned),
                        None,
                        "{case}: settles"
                    );
                }
            }
        }
    }

    #[test]
    fn a_claim_of_an_earlier_set_or_pod_is_left_alone() {
        for stale in [
            owner("StatefulSet", "web", "old", true),
            owner("Pod", "web-1", "old", true),
        ] {
            let claim = claim(&json!([stale]));
            for condemned in [false, true] {
                assert_eq!(
                    owners_to_set(&claim, &set("Delete", "Delete"), &pod(), condemned),
                    None
                );
                assert_eq!(
                    owners_to_set(&claim, &set("Retain", "Retain"), &pod(), condemned),
                    None
                );
            }
        }
    }

    #[test]
    fn a_foreign_controller_keeps_the_claim_and_ours_are_removed() {
        let foreign = owner("ConfigMap", "boss", "boss-uid", true);
        let set = set("Delete", "Delete");
        let alone = claim(&json!([foreign]));
        assert!(has_unexpected_controller(&alone, &set, &pod()));
        assert_eq!(owners_to_set(&alone, &set, &pod(), false), None);
        let both = claim(&json!([foreign, owner("StatefulSet", "web", "set-uid", true)]));
        assert_eq!(
            uids(owners_to_set(&both, &set, &pod(), false)),
            Some(vec!["boss-uid".into()])
        );
    }

    #[test]
    fn an_extra_owner_that_does_not_control_stays() {
        let claim = claim(&json!([owner("ConfigMap", "friend", "friend-uid", false)]));
        let owners = owners_to_set(&claim, &set("Delete", "Retain"), &pod(), false);
        assert_eq!(uids(owners), Some(vec!["friend-uid".into(), "set-uid".into()]));
    }

    #[test]
    fn a_claim_is_named_and_labelled_after_template_and_selector() {
        let claims = new_claims(&set("Retain", "Retain"), 7);
        assert_eq!(claims[0].name_any(), "data-web-7");
        let labels: Vec<_> = claims[0]
            .labels()
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(labels, ["app=web", "tier=db"]);
        assert!(is_of(&set("Retain", "Retain"), "data-web-7"));
        for other in ["data-web", "data-web-x", "logs-web-7", "dataweb-7", "data-web2-7"] {
            assert!(!is_of(&set("Retain", "Retain"), other), "{other}");
        }
    }

    #[test]
    fn a_claim_template_replaces_a_volume_of_its_name_and_keeps_the_others() {
        let others = ["data", "tmp"].map(|name| Volume {
            name: name.into(),
            ..Volume::default()
        });
        let volumes = volumes(&set("Retain", "Retain"), 0, Some(others.into())).expect("volumes");
        let names: Vec<_> = volumes
            .iter()
            .map(|v| (v.name.as_str(), v.persistent_volume_claim.is_some()))
            .collect();
        assert_eq!(names, [("data", true), ("tmp", false)]);
    }
}
