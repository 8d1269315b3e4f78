//! What there is of storage and who still needs it: the decision of what is a leftover. Pure: from what was observed
//! to one item for each claim, volume and directory.

use super::item::{Item, Standing, What};
use controller::volume::last_use::{LAST_USED, LAST_USED_BY};
use controller::volume::provision;
use controller::volume::usage::{capacity_bytes, storage_bytes};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use std::path::{Path, PathBuf};

/// Everything that an inventory is made of. Directories are to be observed first: one whose volume is made meanwhile is
/// then seen with its volume.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Where the directories of provisioned volumes are.
    pub volumes_dir: PathBuf,
    /// What is in there.
    pub directories: Vec<Directory>,
    /// Claims of all namespaces, as everything that follows.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Volumes.
    pub volumes: Vec<PersistentVolume>,
    /// Pods, finished ones too.
    pub pods: Vec<Pod>,
    /// StatefulSets.
    pub sets: Vec<StatefulSet>,
}

/// A directory below `volumes/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its name.
    pub name: String,
    /// When it was made, where the file system knows.
    pub made: Option<Timestamp>,
}

/// An item for each claim, volume and directory that petset made, in this order and by name.
pub fn inventory(observed: &Observed) -> Vec<Item> {
    let mut claims: Vec<_> = observed
        .claims
        .iter()
        .map(|claim| observed.claim(claim))
        .collect();
    let mut volumes: Vec<_> = observed
        .volumes
        .iter()
        .map(|volume| observed.volume(volume))
        .collect();
    let mut directories: Vec<_> = observed
        .directories
        .iter()
        .filter_map(|found| observed.directory(found))
        .collect();
    for items in [&mut claims, &mut volumes, &mut directories] {
        items.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }
    claims.extend(volumes);
    claims.extend(directories);
    claims
}

impl Observed {
    fn claim(&self, claim: &PersistentVolumeClaim) -> Item {
        let volume = self.volume_of(claim);
        let requested = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
        let (last_used_by, last_used) = volume.map(last_use).unwrap_or_default();
        let namespace = claim.namespace().unwrap_or_default();
        let used_by = self.pods_with(&namespace, &claim.name_any());
        let standing = self.standing_of_claim(claim, &used_by, last_used_by.as_deref());
        Item {
            what: What::Claim,
            namespace: Some(namespace),
            name: claim.name_any(),
            uid: claim.uid(),
            resource_version: claim.resource_version(),
            phase: claim.status.as_ref().and_then(|status| status.phase.clone()),
            volume: volume.map(|volume| volume.name_any()),
            reclaim_policy: volume.map(policy),
            path: volume.and_then(path_of),
            own_data: volume.is_some_and(|volume| self.is_own(volume)),
            capacity: volume.map(capacity_bytes).or(requested.map(storage_bytes)),
            created: claim.creation_timestamp().map(|time| time.0),
            used_by,
            last_used_by,
            last_used,
            standing,
        }
    }

    fn standing_of_claim(
        &self,
        claim: &PersistentVolumeClaim,
        used_by: &[String],
        last: Option<&str>,
    ) -> Standing {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        if !used_by.is_empty() {
            return Standing::InUse(format!("used by {}", list("pod", used_by)));
        }
        let sets: Vec<_> = self
            .sets
            .iter()
            .filter(|set| set.namespace().as_ref() == Some(&namespace))
            .collect();
        if let Some(why) = sets.iter().find_map(|set| wants(set, &name)) {
            return Standing::Wanted(why);
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Standing::Going("it is being deleted".into());
        }
        let out_of_range = sets.iter().find(|set| ordinal_of(set, &name).is_some());
        if let Some(set) = out_of_range {
            let set_name = set.name_any();
            return Standing::Leftover(match ordinals(set) {
                range if range.is_empty() => format!("StatefulSet {set_name} has no replicas"),
                range => format!(
                    "StatefulSet {set_name} has ordinals {} to {} only",
                    range.start,
                    range.end - 1
                ),
            });
        }
        let owner = claim
            .owner_references()
            .iter()
            .find(|owner| owner.kind == "StatefulSet")
            .map(|o| o.name.clone());
        let parent = || {
            let pod = last?.strip_prefix(&format!("{namespace}/"))?;
            let (set, ordinal) = pod.rsplit_once('-')?;
            let is_member = ordinal.parse::<u32>().is_ok() && name.ends_with(&format!("-{pod}"));
            is_member.then(|| set.to_owned())
        };
        let gone = owner
            .or_else(parent)
            .filter(|set| !sets.iter().any(|there| there.name_any() == *set));
        Standing::Leftover(match gone {
            Some(set) => format!("StatefulSet {set} is gone"),
            None => "no pod uses it, no StatefulSet wants it".into(),
        })
    }

    fn volume(&self, volume: &PersistentVolume) -> Item {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let (last_used_by, last_used) = last_use(volume);
        let path = path_of(volume);
        let used_by = path.as_deref().map(|path| self.pods_on(path)).unwrap_or_default();
        Item {
            what: What::Volume,
            namespace: reference.and_then(|reference| reference.namespace.clone()),
            name: volume.name_any(),
            uid: volume.uid(),
            resource_version: volume.resource_version(),
            phase: volume.status.as_ref().and_then(|status| status.phase.clone()),
            volume: None,
            reclaim_policy: Some(policy(volume)),
            path,
            own_data: self.is_own(volume),
            capacity: Some(capacity_bytes(volume)),
            created: volume.creation_timestamp().map(|time| time.0),
            standing: self.standing_of_volume(volume, &used_by),
            used_by,
            last_used_by,
            last_used,
        }
    }

    fn standing_of_volume(&self, volume: &PersistentVolume, used_by: &[String]) -> Standing {
        let status = volume.status.clone().unwrap_or_default();
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let reference = reference.and_then(|r| Some((r.namespace.clone()?, r.name.clone()?, r.uid.clone())));
        let claim = reference.as_ref().and_then(|(namespace, name, uid)| {
            let is_it = |claim: &&PersistentVolumeClaim| {
                claim.namespace().as_ref() == Some(namespace)
                    && claim.name_any() == *name
                    && uid
                        .as_ref()
                        .is_none_or(|uid| uid.is_empty() || claim.uid().as_ref() == Some(uid))
            };
            self.claims.iter().find(is_it)
        });
        // One that names the volume waits for it, even if the volume is another's yet.
        let chosen_by = |claim: &&PersistentVolumeClaim| {
            let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            named == Some(&volume.name_any())
        };
        if let Some(claim) = claim.or_else(|| self.claims.iter().find(chosen_by)) {
            let claim = format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any());
            return Standing::Bound(claim);
        }
        if !used_by.is_empty() {
            return Standing::InUse(format!("its directory is used by {}", list("pod", used_by)));
        }
        if volume.metadata.deletion_timestamp.is_some() {
            return Standing::Going("it is being deleted".into());
        }
        let policy = policy(volume);
        match (status.phase.as_deref().unwrap_or_default(), reference) {
            ("Released", Some((namespace, name, _))) => Standing::Leftover(format!(
                "claim {namespace}/{name} is gone, reclaim policy {policy}"
            )),
            ("Failed", _) => Standing::Leftover(match status.message {
                Some(message) => format!("failed: {message}"),
                None => "failed".into(),
            }),
            ("Available", Some((namespace, name, _))) => {
                let in_namespace = |set: &&StatefulSet| set.namespace().as_ref() == Some(&namespace);
                match self
                    .sets
                    .iter()
                    .filter(in_namespace)
                    .find_map(|set| wants(set, &name))
                {
                    Some(why) => Standing::Wanted(format!("reserved for claim {namespace}/{name}: {why}")),
                    None => Standing::Leftover(format!(
                        "reserved for claim {namespace}/{name}, which does not exist"
                    )),
                }
            }
            ("Available" | "Released", _) => Standing::Leftover("no claim has it".into()),
            _ => Standing::Going("its phase is about to change".into()),
        }
    }

    /// `None`: not a directory that petset makes.
    fn directory(&self, directory: &Directory) -> Option<Item> {
        let (namespace, name, uid) = parts(&directory.name)?;
        let path = self.volumes_dir.join(&directory.name);
        if self
            .volumes
            .iter()
            .filter_map(path_of)
            .any(|mentioned| mentioned.starts_with(&path))
        {
            return None;
        }
        let claim = self.claims.iter().find(|claim| {
            claim.namespace().as_deref() == Some(namespace)
                && claim.uid().is_some_and(|own| own.starts_with(uid))
        });
        let used_by = self.pods_on(&path);
        let standing = match claim {
            Some(claim) => Standing::Wanted(format!(
                "claim {namespace}/{} is about to get it",
                claim.name_any()
            )),
            None if !used_by.is_empty() => Standing::InUse(format!("used by {}", list("pod", &used_by))),
            None => Standing::Leftover(format!(
                "no PersistentVolume mentions it (it was made for claim {namespace}/{name})"
            )),
        };
        Some(Item {
            what: What::Directory,
            namespace: Some(namespace.into()),
            name: directory.name.clone(),
            uid: None,
            resource_version: None,
            phase: None,
            volume: None,
            reclaim_policy: None,
            path: Some(path),
            own_data: true,
            capacity: None,
            created: directory.made,
            used_by,
            last_used_by: None,
            last_used: None,
            standing,
        })
    }

    /// The volume that a claim is bound to, both agreeing.
    fn volume_of(&self, claim: &PersistentVolumeClaim) -> Option<&PersistentVolume> {
        let name = claim.spec.as_ref()?.volume_name.as_deref()?;
        let volume = self.volumes.iter().find(|volume| volume.name_any() == name)?;
        claim_has(volume, claim.metadata.uid.as_deref()?).then_some(volume)
    }

    /// Is its data in one of petset's directories, which no other volume mentions?
    fn is_own(&self, volume: &PersistentVolume) -> bool {
        let Some(own) = provision::directory(volume, &self.volumes_dir) else {
            return false;
        };
        if own
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(parts)
            .is_none()
        {
            return false;
        }
        let others = self
            .volumes
            .iter()
            .filter(|other| other.name_any() != volume.name_any());
        !others
            .filter_map(path_of)
            .any(|path| path.starts_with(&own) || own.starts_with(&path))
    }

    /// Pods that mention a claim, whatever has become of them.
    fn pods_with(&self, namespace: &str, claim: &str) -> Vec<String> {
        let uses = |pod: &&Pod| {
            pod.namespace().as_deref() == Some(namespace)
                && volumes_of(pod).any(|volume| {
                    let named = volume
                        .persistent_volume_claim
                        .as_ref()
                        .map(|source| source.claim_name.clone());
                    let own = volume
                        .ephemeral
                        .as_ref()
                        .map(|_| format!("{}-{}", pod.name_any(), volume.name));
                    named.or(own).as_deref() == Some(claim)
                })
        };
        self.pods.iter().filter(uses).map(|pod| pod.name_any()).collect()
    }

    /// Pods that mount a directory, or something in it, by its path.
    fn pods_on(&self, path: &Path) -> Vec<String> {
        let mounts = |pod: &&Pod| {
            volumes_of(pod)
                .filter_map(|volume| volume.host_path.as_ref())
                .any(|source| Path::new(&source.path).starts_with(path))
        };
        let name = |pod: &Pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        self.pods.iter().filter(mounts).map(name).collect()
    }
}

fn volumes_of(pod: &Pod) -> impl Iterator<Item = &k8s_openapi::api::core::v1::Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn claim_has(volume: &PersistentVolume, uid: &str) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| reference.uid.as_deref() == Some(uid))
}

fn policy(volume: &PersistentVolume) -> String {
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    policy.unwrap_or_else(|| "Retain".into())
}

/// Where a volume's data is on this machine.
fn path_of(volume: &PersistentVolume) -> Option<PathBuf> {
    let spec = volume.spec.as_ref()?;
    let host = spec.host_path.as_ref().map(|source| &source.path);
    host.or(spec.local.as_ref().map(|source| &source.path))
        .map(PathBuf::from)
}

fn last_use(volume: &PersistentVolume) -> (Option<String>, Option<Timestamp>) {
    let annotations = volume.annotations();
    let at = annotations.get(LAST_USED).and_then(|text| text.parse().ok());
    (annotations.get(LAST_USED_BY).cloned(), at)
}

/// The namespace, claim and start of the UID that a directory of a provisioned volume is named after.
fn parts(directory: &str) -> Option<(&str, &str, &str)> {
    let (rest, uid) = directory.rsplit_once('_')?;
    let (namespace, claim) = rest.split_once('_')?;
    let is_uid = uid.len() == 8 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_uid && !namespace.is_empty() && !claim.is_empty()).then_some((namespace, claim, uid))
}

/// The ordinals that a set is to have pods for.
fn ordinals(set: &StatefulSet) -> std::ops::Range<i64> {
    let Some(spec) = &set.spec else { return 0..0 };
    let start = i64::from(
        spec.ordinals
            .as_ref()
            .and_then(|ordinals| ordinals.start)
            .unwrap_or(0),
    );
    start..start + i64::from(spec.replicas.unwrap_or(1).max(0))
}

/// The ordinal whose claim has this name, by one of the set's templates.
fn ordinal_of(set: &StatefulSet, claim: &str) -> Option<i64> {
    let templates = set.spec.as_ref()?.volume_claim_templates.iter().flatten();
    templates.into_iter().find_map(|template| {
        let digits = claim.strip_prefix(&format!("{}-{}-", template.name_any(), set.name_any()))?;
        let ordinal: i64 = digits.parse().ok()?;
        (ordinal.to_string() == digits && ordinal >= 0).then_some(ordinal)
    })
}

/// Why a set needs a claim of this name, if it does.
fn wants(set: &StatefulSet, claim: &str) -> Option<String> {
    if let Some(ordinal) = ordinal_of(set, claim).filter(|ordinal| ordinals(set).contains(ordinal)) {
        let name = set.name_any();
        return Some(format!("StatefulSet {name} wants it for pod {name}-{ordinal}"));
    }
    // A claim that the pod template itself names is every pod's, however many there are now.
    let template = set.spec.as_ref()?.template.spec.as_ref()?;
    let mut volumes = template.volumes.iter().flatten();
    let is_named = volumes.any(|volume| {
        volume
            .persistent_volume_claim
            .as_ref()
            .is_some_and(|c| c.claim_name == claim)
    });
    is_named.then(|| format!("the pod template of StatefulSet {} names it", set.name_any()))
}

fn list(what: &str, names: &[String]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {}", names.join(", "))
}

#[cfg(test)]
mod tests;
