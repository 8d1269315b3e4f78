//! The plans for claims and volumes against a small API: whatever comes in whatever order, however often a sync is
//! cut off in its middle and however old the list of volumes is that it saw, no volume is had twice, and in the
//! end every claim has one that can have one.

use super::action::{Action, BIND_COMPLETED};
use super::{claim, matching, provision, reclaim, testing};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data/volumes";

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    /// A user creates the claim of this number, in one of several shapes.
    Claim(u8, u8),
    /// A user deletes it.
    Delete(u8),
    /// An administrator makes the volume of this number and size.
    Volume(u8, u8),
    /// An administrator frees it, if it is released.
    Free(u8),
    /// The watch catches up.
    See,
    /// The claim is synced, but only so many actions.
    SyncClaim(u8, usize),
    /// A volume is synced, but only so many actions.
    SyncVolume(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let cut = || prop_oneof![1 => 0..5usize, 2 => Just(usize::MAX)];
    prop_oneof![
        3 => (0..3u8, 0..4u8).prop_map(|(number, shape)| Step::Claim(number, shape)),
        1 => (0..3u8).prop_map(Step::Delete),
        2 => (0..3u8, 1..4u8).prop_map(|(number, size)| Step::Volume(number, size)),
        1 => (0..3u8).prop_map(Step::Free),
        2 => Just(Step::See),
        6 => (0..3u8, cut()).prop_map(|(number, cut)| Step::SyncClaim(number, cut)),
        6 => (0..6usize, cut()).prop_map(|(index, cut)| Step::SyncVolume(index, cut)),
    ]
}

/// Objects as the API keeps them, and the volumes as the watch has seen them last.
#[derive(Default)]
struct World {
    claims: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    seen: Vec<Arc<PersistentVolume>>,
    /// Of the last write.
    version: u64,
}

/// Somebody else was faster, or there is no such object.
struct Lost;

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Claim(number, shape) => self.create_claim(&format!("c{number}"), shape),
            Step::Delete(number) => _ = self.claims.remove(&format!("c{number}")),
            Step::Volume(number, size) => self.create_volume(&format!("v{number}"), size),
            Step::Free(number) => {
                if let Some(volume) = self.volumes.get_mut(&format!("v{number}"))
                    && volume["status"]["phase"] == "Released"
                {
                    volume["spec"]["claimRef"] = Value::Null;
                    self.version += 1;
                    volume["metadata"]["resourceVersion"] = self.version.to_string().into();
                }
            }
            Step::See => self.seen = self.typed_volumes(),
            Step::SyncClaim(number, cut) => _ = self.sync_claim(&format!("c{number}"), cut),
            Step::SyncVolume(index, cut) => {
                if let Some(name) = self.volumes.keys().nth(index).cloned() {
                    self.sync_volume(&name, cut);
                }
            }
        }
    }

    fn create_claim(&mut self, name: &str, shape: u8) {
        let spec = match shape {
            0 => json!({}),
            1 => json!({"storageClassName": "fast"}),
            2 => json!({"volumeName": "v0"}),
            _ => json!({"resources": {"requests": {"storage": "2Gi"}}}),
        };
        let mut claim = json!(testing::claim(name, spec));
        self.version += 1;
        claim["metadata"]["uid"] = format!("uid-{}", self.version).into();
        claim["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.claims.entry(name.into()).or_insert(claim);
    }

    fn create_volume(&mut self, name: &str, size: u8) {
        let capacity = json!({"capacity": {"storage": format!("{size}Gi")}});
        self.add_volume(json!(testing::volume(name, capacity)));
    }

    fn add_volume(&mut self, mut volume: Value) {
        self.version += 1;
        volume["metadata"]["uid"] = format!("uid-{}", self.version).into();
        volume["metadata"]["resourceVersion"] = self.version.to_string().into();
        volume["status"] = json!({"phase": "Pending"});
        let name = volume["metadata"]["name"].as_str().unwrap().to_owned();
        self.volumes.entry(name).or_insert(volume);
    }

    fn typed_volumes(&self) -> Vec<Arc<PersistentVolume>> {
        let volumes = self.volumes.values();
        volumes
            .map(|volume| Arc::new(serde_json::from_value(volume.clone()).unwrap()))
            .collect()
    }

    fn volume(&self, name: &str) -> Option<PersistentVolume> {
        let volume = self.volumes.get(name)?;
        Some(serde_json::from_value(volume.clone()).unwrap())
    }

    fn claim(&self, name: &str) -> Option<PersistentVolumeClaim> {
        let claim = self.claims.get(name)?;
        Some(serde_json::from_value(claim.clone()).unwrap())
    }

    /// How many actions of the plan were to be taken.
    fn sync_claim(&mut self, name: &str, cut: usize) -> usize {
        let Some(claim) = self.claim(name) else { return 0 };
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = self.volume(named.unwrap_or_default());
        let own = self.volume(&provision::volume_name(&claim)).map(Arc::new);
        let mut volumes = self.seen.clone();
        volumes.retain(|seen| own.as_ref().is_none_or(|own| own.name_any() != seen.name_any()));
        volumes.extend(own);
        let class = testing::class("fast", json!({}));
        let observed = claim::Observed {
            claim: &claim,
            volume: volume.as_ref(),
            volumes: &volumes,
            class: (matching::claim_class(&claim) == Some("fast")).then_some(&class),
            default_class: None,
            users: &claim::Users::default(),
            volumes_dir: Path::new(DIR),
            now: Timestamp::UNIX_EPOCH,
        };
        self.act(name, claim::plan(&observed), cut)
    }

    fn sync_volume(&mut self, name: &str, cut: usize) -> usize {
        let Some(volume) = self.volume(name) else { return 0 };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim = reference.and_then(|reference| self.claim(reference.name.as_deref()?));
        let actions = reclaim::plan(&volume, claim.as_ref(), Path::new(DIR));
        self.act(name, actions, cut)
    }

    /// Take the first `cut` actions for the object of this name, until one is refused.
    fn act(&mut self, object: &str, actions: Vec<Action>, cut: usize) -> usize {
        let is_write = |action: &&Action| !matches!(action, Action::Tell { .. } | Action::LookAtClaim { .. });
        let writes = actions.iter().filter(is_write).count();
        for action in actions.into_iter().take(cut) {
            self.version += 1;
            let version = self.version;
            let done = match action {
                Action::PatchClaim(patch) | Action::PatchClaimStatus(patch) => {
                    write(self.claims.get_mut(object), &patch, version)
                }
                Action::PatchVolume { name, patch }
                | Action::PatchVolumeStatus { name, patch }
                | Action::Expand { name, patch, .. } => write(self.volumes.get_mut(&name), &patch, version),
                Action::Provision(volume) if self.volumes.contains_key(&volume.name_any()) => Err(Lost),
                Action::Provision(volume) => {
                    self.add_volume(json!(volume));
                    Ok(())
                }
                Action::Reclaim { .. } => {
                    self.volumes.remove(object);
                    Ok(())
                }
                Action::LookAtClaim { .. } | Action::Tell { .. } => Ok(()),
            };
            if done.is_err() {
                break;
            }
        }
        writes
    }

    /// Nobody has what another has, and what a claim says of its volume is so.
    fn check(&self) {
        for (name, claim) in &self.claims {
            if claim["status"]["phase"] != "Bound" {
                continue;
            }
            assert_eq!(
                claim["metadata"]["annotations"][BIND_COMPLETED], "yes",
                "{claim:#}"
            );
            let volume = claim["spec"]["volumeName"].as_str().unwrap();
            let volume = &self.volumes[volume];
            assert_eq!(
                volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"],
                "{name}: {volume:#}"
            );
        }
    }

    /// Sync everything, with a watch that keeps up, until there is nothing to do.
    fn settle(&mut self) {
        for _ in 0..20 {
            let mut writes = 0;
            for name in self.volumes.keys().cloned().collect::<Vec<_>>() {
                writes += self.sync_volume(&name, usize::MAX);
            }
            self.take(&Step::See);
            for name in self.claims.keys().cloned().collect::<Vec<_>>() {
                writes += self.sync_claim(&name, usize::MAX);
                self.take(&Step::See);
            }
            self.check();
            if writes == 0 {
                return;
            }
        }
        panic!("it never comes to rest: {:#?} {:#?}", self.claims, self.volumes);
    }
}

fn write(object: Option<&mut Value>, patch: &Value, version: u64) -> Result<(), Lost> {
    let object = object.ok_or(Lost)?;
    for field in ["uid", "resourceVersion"] {
        let expected = &patch["metadata"][field];
        if !expected.is_null() && *expected != object["metadata"][field] {
            return Err(Lost);
        }
    }
    merge(object, patch);
    object["metadata"]["resourceVersion"] = version.to_string().into();
    Ok(())
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        match value.is_null() {
            true => _ = object.as_object_mut().unwrap().remove(name),
            false => merge(&mut object[name], value),
        }
    }
}

proptest! {
    #[test]
    fn no_volume_is_had_twice_and_whoever_can_have_one_gets_one(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.settle();
        for claim in world.claims.values() {
            let claim: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
            let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            if claim::claim_phase(&claim) == "Bound" {
                continue;
            }
            prop_assert_eq!(claim::claim_phase(&claim), "Pending");
            let could_have = match named.and_then(|name| world.volume(name)) {
                Some(volume) => matching::reservation(&volume, &claim) != matching::Reservation::Other
                    && matching::misfit(&volume, &claim).is_none(),
                None if named.is_some() => false,
                None => matching::find(&claim, &world.typed_volumes()).is_some()
                    || matching::claim_class(&claim) == Some("fast"),
            };
            prop_assert!(!could_have, "{} has nothing: {:#?}", claim.name_any(), world.volumes);
        }
    }
}
