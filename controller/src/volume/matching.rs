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
pub fn misfit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if capacity(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if volume_class(volume) != claim_class(claim).unwrap_or_default() {
        Some("storageClassName does not match")
    } else if volume_mode(volume) != claim_mode(claim) {
        Some("incompatible volumeMode")
    } else if !access_modes_fit(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The volume that an unbound claim gets: one that already names it, if it is large enough, else the
/// smallest free one that fits. With `only_reserved` (binding is delayed) the second kind is left alone.
pub fn find<'a, V: Borrow<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
    only_reserved: bool,
) -> Option<&'a PersistentVolume> {
    let volumes = volumes.iter().map(Borrow::borrow);
    let (reserved, free): (Vec<_>, Vec<_>) = volumes
        .filter(|volume| volume_mode(volume) == claim_mode(claim) && capacity(volume) >= requested(claim))
        .filter(|volume| reservation(volume, claim) != Reservation::Other)
        .partition(|volume| reservation(volume, claim) == Reservation::Ours);
    let reserved = reserved
        .into_iter()
        .filter(|v| v.metadata.deletion_timestamp.is_none());
    if let Some(volume) = reserved.min_by_key(|volume| (capacity(volume), volume.name_any())) {
        return Some(volume);
    }
    if only_reserved {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    free.into_iter()
        .filter(|volume| {
            volume.metadata.deletion_timestamp.is_none()
                && phase(volume) == "Available"
                && misfit(volume, claim).is_none()
                && selector.is_none_or(|s| selector::matches(s, volume.labels()))
        })
        .min_by_key(|volume| (capacity(volume), volume.name_any()))
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
    use serde_json::json;

    fn chosen(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume]) -> Option<String> {
        find(claim, volumes, false).map(ResourceExt::name_any)
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
        let fitting = |change: serde_json::Value| {
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
        let delayed = find(&claim, &volumes, true).map(ResourceExt::name_any);
        assert_eq!(delayed.as_deref(), Some("named"));
        assert!(find(&claim, &volumes[..1], true).is_none());
    }
}
