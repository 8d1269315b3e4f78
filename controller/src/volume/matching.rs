//! Which volume fits a claim (P3, P4, P15).

use crate::quantity::nanos;
use crate::selector;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use std::borrow::Borrow;

/// Where the class of a claim or volume stood before it was a field, and where it still wins.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The claim's class; `""` means volumes without a class. `None`: not said, a default may be filled in.
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotated = claim.annotations().get(CLASS_ANNOTATION).map(String::as_str);
    annotated.or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The volume's class, `""` for none.
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let annotated = volume.annotations().get(CLASS_ANNOTATION).map(String::as_str);
    annotated
        .or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref())
        .unwrap_or_default()
}

/// Bytes asked for, in billionths.
pub fn requested(claim: &PersistentVolumeClaim) -> i128 {
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|r| nanos(r.get("storage")?)).unwrap_or(0)
}

/// Bytes there are, in billionths.
pub fn capacity(volume: &PersistentVolume) -> i128 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|c| nanos(c.get("storage")?)).unwrap_or(0)
}

/// What the volume's claimRef says about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// No claim has it.
    Free,
    /// It names this very claim, by name or by UID too.
    Ours,
    /// It names another claim, or an earlier one of the same name.
    Other,
}

/// Whom the volume is reserved for, seen from `claim`.
pub fn reservation(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Reservation {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return Reservation::Free;
    };
    let same_name = reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace;
    let uid = reference.uid.as_deref().unwrap_or_default();
    if same_name && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref()) {
        Reservation::Ours
    } else {
        Reservation::Other
    }
}

/// Why the volume cannot serve the claim, in upstream's words.
pub fn misfit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let why = if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!(
            "the volume is marked for deletion \"{}\"",
            volume.name_any()
        ));
    } else if capacity(volume) < requested(claim) {
        "requested PV is too small"
    } else if volume_class(volume) != claim_class(claim).unwrap_or_default() {
        "storageClassName does not match"
    } else if volume_mode(volume) != claim_mode(claim) {
        "incompatible volumeMode"
    } else if !access_modes_fit(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(why.into())
}

/// The volume that an unbound claim gets: one that already names it, if it can serve it at all, else the
/// smallest free one that fits; of equally large ones the first by name. Which nodes reach it is not asked: upstream
/// leaves that to the scheduler, which sees only claims that wait for it before they are bound.
pub fn find<'a, V: Borrow<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
) -> Option<&'a PersistentVolume> {
    find_reserved(claim, volumes).or_else(|| find_free(claim, volumes, |_| true))
}

/// The volume that already names the claim, whatever its phase, class or labels (P3).
pub fn find_reserved<'a, V: Borrow<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
) -> Option<&'a PersistentVolume> {
    let serves = |volume: &&PersistentVolume| {
        reservation(volume, claim) == Reservation::Ours
            && volume.metadata.deletion_timestamp.is_none()
            && capacity(volume) >= requested(claim)
            && volume_mode(volume) == claim_mode(claim)
            && access_modes_fit(volume, claim)
    };
    smallest(volumes.iter().map(Borrow::borrow).filter(serves))
}

/// The smallest volume that fits and that nobody has, of those that `eligible` does not rule out.
pub fn find_free<'a, V: Borrow<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
    eligible: impl Fn(&PersistentVolume) -> bool,
) -> Option<&'a PersistentVolume> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let fits = |volume: &&PersistentVolume| {
        phase(volume) == "Available"
            && reservation(volume, claim) == Reservation::Free
            && misfit(volume, claim).is_none()
            && selector.is_none_or(|s| selector::matches(s, volume.labels()))
            && eligible(volume)
    };
    smallest(volumes.iter().map(Borrow::borrow).filter(fits))
}

fn smallest<'a>(volumes: impl Iterator<Item = &'a PersistentVolume>) -> Option<&'a PersistentVolume> {
    volumes.min_by_key(|volume| (capacity(volume), volume.name_any()))
}

/// The volume's phase, `""` before its first.
pub fn phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn volume_mode(volume: &PersistentVolume) -> &str {
    let mode = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    mode.unwrap_or("Filesystem")
}

fn claim_mode(claim: &PersistentVolumeClaim) -> &str {
    let mode = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    mode.unwrap_or("Filesystem")
}

fn access_modes_fit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    let asked = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    asked.is_none_or(|asked| asked.iter().all(|mode| offered.is_some_and(|o| o.contains(mode))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{claim, volume};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn chosen(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume]) -> Option<String> {
        find(claim, volumes).map(ResourceExt::name_any)
    }

    #[test]
    fn the_smallest_that_fits_wins() {
        let volumes = [
            volume("huge", json!({"capacity": {"storage": "10Gi"}})),
            volume("fits", json!({"capacity": {"storage": "2Gi"}})),
            volume("tiny", json!({"capacity": {"storage": "1Mi"}})),
        ];
        assert_eq!(chosen(&claim("c", json!({})), &volumes).as_deref(), Some("fits"));
    }

    #[test]
    fn what_does_not_fit_is_never_chosen() {
        let asked = json!({"selector": {"matchLabels": {"disk": "ssd"}}, "storageClassName": "fast"});
        let claim = claim("c", asked);
        let fitting = |change: Value| {
            let mut spec = json!({"storageClassName": "fast"});
            spec.as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            let mut volume = volume("v", spec);
            volume.metadata.labels = Some([("disk".into(), "ssd".into())].into());
            volume
        };
        assert!(chosen(&claim, &[fitting(json!({}))]).is_some());
        for change in [
            json!({"capacity": {"storage": "1Ki"}}),
            json!({"accessModes": ["ReadOnlyMany"]}),
            json!({"volumeMode": "Block"}),
            json!({"storageClassName": "slow"}),
            json!({"storageClassName": null}),
            json!({"claimRef": {"namespace": "default", "name": "other"}}),
            json!({"claimRef": {"namespace": "other", "name": "c"}}),
            json!({"claimRef": {"namespace": "default", "name": "c", "uid": "earlier"}}),
        ] {
            assert_eq!(chosen(&claim, &[fitting(change.clone())]), None, "{change}");
        }
        let mut unlabelled = fitting(json!({}));
        unlabelled.metadata.labels = None;
        let mut deleted = fitting(json!({}));
        deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let mut released = fitting(json!({}));
        released.status.as_mut().unwrap().phase = Some("Released".into());
        for volume in [unlabelled, deleted, released] {
            assert_eq!(chosen(&claim, std::slice::from_ref(&volume)), None, "{volume:?}");
        }
    }

    #[test]
    fn a_volume_that_names_the_claim_wins_whatever_its_phase_or_class() {
        let claim_ref = json!({"namespace": "default", "name": "c"});
        let mut named = volume(
            "named",
            json!({"claimRef": claim_ref, "capacity": {"storage": "9Gi"}, "storageClassName": "odd"}),
        );
        named.status = None;
        let volumes = [volume("small", json!({})), named];
        let claim = claim("c", json!({}));
        assert_eq!(chosen(&claim, &volumes).as_deref(), Some("named"));
        let reserved = find_reserved(&claim, &volumes).map(ResourceExt::name_any);
        assert_eq!(reserved.as_deref(), Some("named"));
        assert!(find_reserved(&claim, &volumes[..1]).is_none());
    }

    #[test]
    fn a_volume_that_names_the_claim_must_still_be_able_to_serve_it() {
        let claim = claim("c", json!({}));
        for change in [
            json!({"capacity": {"storage": "1Ki"}}),
            json!({"volumeMode": "Block"}),
            json!({"accessModes": ["ReadOnlyMany"]}),
        ] {
            let mut spec = json!({"claimRef": {"namespace": "default", "name": "c"}});
            let fields = change.as_object().unwrap().clone();
            spec.as_object_mut().unwrap().extend(fields);
            assert_eq!(chosen(&claim, &[volume("named", spec)]), None, "{change}");
        }
    }

    #[test]
    fn a_misfit_is_named_in_upstreams_words() {
        let claim = claim("c", json!({}));
        let table = [
            (json!({}), None),
            (
                json!({"capacity": {"storage": "1Ki"}, "storageClassName": "odd"}),
                Some("requested PV is too small"),
            ),
            (
                json!({"storageClassName": "odd", "volumeMode": "Block"}),
                Some("storageClassName does not match"),
            ),
            (
                json!({"volumeMode": "Block", "accessModes": []}),
                Some("incompatible volumeMode"),
            ),
            (
                json!({"accessModes": ["ReadWriteMany"]}),
                Some("incompatible accessMode"),
            ),
        ];
        for (spec, expected) in table {
            let volume = volume("v", spec);
            assert_eq!(misfit(&volume, &claim).as_deref(), expected, "{volume:?}");
        }
        let mut deleted = volume("v", json!({}));
        deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(
            misfit(&deleted, &claim).as_deref(),
            Some("the volume is marked for deletion \"v\"")
        );
    }

    /// What decides about a volume, from few values, so that ties and near misses are frequent.
    fn any_volume() -> impl Strategy<Value = (Value, &'static str)> {
        let reference = prop_oneof![
            3 => Just(Value::Null),
            1 => Just(json!({"namespace": "default", "name": "c"})),
            1 => Just(json!({"namespace": "default", "name": "c", "uid": "c-uid"})),
            1 => Just(json!({"namespace": "default", "name": "c", "uid": "earlier"})),
            1 => Just(json!({"namespace": "default", "name": "other"})),
            1 => Just(json!({"namespace": "elsewhere", "name": "c"})),
        ];
        let class = prop_oneof![3 => Just("fast"), 1 => Just("")];
        let modes = prop_oneof![
            3 => Just(json!(["ReadWriteOnce", "ReadOnlyMany"])),
            1 => Just(json!(["ReadOnlyMany"])),
        ];
        let mode = prop_oneof![4 => Just("Filesystem"), 1 => Just("Block")];
        let phase = prop_oneof![4 => Just("Available"), 1 => Just("Released"), 1 => Just("Bound")];
        (0..4u8, reference, class, modes, mode, phase).prop_map(
            |(size, reference, class, modes, mode, phase)| {
                let spec = json!({
                    "capacity": {"storage": format!("{size}Gi")}, "claimRef": reference,
                    "storageClassName": class, "accessModes": modes, "volumeMode": mode,
                });
                (spec, phase)
            },
        )
    }

    proptest! {
        #[test]
        fn the_smallest_fitting_volume_is_chosen_and_never_a_taken_one(
            volumes in prop::collection::vec(any_volume(), 0..8),
            asked in 0..4u8,
        ) {
            let claim = claim("c", json!({
                "storageClassName": "fast", "resources": {"requests": {"storage": format!("{asked}Gi")}},
            }));
            // The rules once more, on the plain values that were drawn.
            let size = |spec: &Value| spec["capacity"]["storage"].as_str().unwrap().to_owned();
            let able = |spec: &Value| {
                size(spec) >= format!("{asked}Gi")
                    && spec["volumeMode"] == "Filesystem"
                    && spec["accessModes"].as_array().unwrap().contains(&json!("ReadWriteOnce"))
            };
            let ours = |spec: &Value| {
                let reference = &spec["claimRef"];
                reference["namespace"] == "default"
                    && reference["name"] == "c"
                    && (reference["uid"].is_null() || reference["uid"] == "c-uid")
            };
            let free = |spec: &Value, phase: &str| {
                spec["claimRef"].is_null() && phase == "Available" && spec["storageClassName"] == "fast"
            };
            let reserved = volumes.iter().filter(|(spec, _)| able(spec) && ours(spec));
            let free = volumes.iter().filter(|(spec, phase)| able(spec) && free(spec, phase));
            let expected = reserved.map(|(spec, _)| size(spec)).min();
            let expected = expected.or_else(|| free.map(|(spec, _)| size(spec)).min());

            let stored: Vec<_> = volumes.iter().enumerate().map(|(index, (spec, phase))| {
                let mut volume = volume(&index.to_string(), spec.clone());
                volume.status.as_mut().unwrap().phase = Some((*phase).into());
                volume
            }).collect();
            let found = find(&claim, &stored);
            let found_size = found.map(|volume| volume.spec.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0.clone());
            prop_assert_eq!(found_size, expected);
            if let Some(found) = found {
                prop_assert!(reservation(found, &claim) != Reservation::Other);
            }
        }
    }
}
