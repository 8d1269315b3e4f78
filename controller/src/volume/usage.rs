//! Keeping provisioned volumes to their size: by a limit of the file system where there can be one, otherwise by
//! measuring them now and then and one Warning event on the claim once it has passed its capacity.
//!
//! A walk takes as long as the volume has files, so walks are taken one at a time, and after each the volume is left
//! alone for a hundred times as long as it took.

pub mod walk;

use super::{matching, provision, quota};
use crate::runtime::{Cache, Key, Queue, Teller, work};
use ::events::EventType;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The event's reason.
pub const OVER_CAPACITY: &str = "VolumeOverCapacity";

/// A new volume is empty: nothing is missed by looking after this only.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// The shortest and the longest time between two looks at a volume.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3600);
/// How many times as long as a walk took the volume is left alone.
const REST: u32 = 100;
/// A limit that is in force is looked after this often: somebody may have made the directory anew.
const LIMITED: Duration = Duration::from_secs(60);

/// Which volumes are over their capacity, and when to look at which.
pub struct Usage {
    volumes_dir: PathBuf,
    /// Volumes whose limit is to be set; quick.
    limits: Queue<String>,
    /// Volumes without a limit, to be measured; slow.
    walks: Queue<String>,
    /// What is known of a volume, by name.
    known: Mutex<HashMap<String, Known>>,
    /// UIDs of claims that were over their capacity when an earlier run saw them last.
    warned: Mutex<HashSet<String>>,
}

/// What the last looks at a volume have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// Bytes it may have.
    capacity: u64,
    /// Whether a Warning is out.
    over: bool,
}

impl Usage {
    /// For volumes whose directories are in `volumes_dir`.
    pub fn new(volumes_dir: PathBuf) -> Self {
        Self {
            volumes_dir,
            limits: Queue::default(),
            walks: Queue::default(),
            known: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// A volume is there, was changed, or is gone.
    pub fn volume_moved(&self, name: &str) {
        self.limits.add(name.to_owned());
    }

    /// Set limits, measure and warn, for ever.
    pub async fn run(
        &self,
        client: kube::Client,
        claims: &Cache<PersistentVolumeClaim>,
        volumes: &Cache<PersistentVolume>,
        teller: &Teller,
    ) {
        // The events are the record of what has been said. Without them something is said twice: no harm.
        let events: Api<Event> = Api::all(client);
        let warnings = ListParams::default().fields(&format!("reason={OVER_CAPACITY}"));
        let said = events
            .list(&warnings)
            .await
            .map(|list| list.items)
            .unwrap_or_default();
        let warned = said.into_iter().filter_map(|event| event.involved_object.uid);
        lock(&self.warned).extend(warned);
        tokio::join!(
            work(&self.limits, 2, |name| self.limit(name, volumes)),
            work(&self.walks, 1, |name| self.walk(name, claims, volumes, teller)),
        );
    }

    /// Hold a volume to its size; one that cannot be held is measured from now on.
    async fn limit(
        &self,
        name: String,
        volumes: &Cache<PersistentVolume>,
    ) -> Result<Option<Duration>, Infallible> {
        let Some((path, capacity)) = self.ours(&name, volumes) else {
            lock(&self.known).remove(&name);
            return Ok(None);
        };
        let held = tokio::task::spawn_blocking(move || quota::hold(&path, capacity)).await;
        if matches!(held, Ok(Some(_))) {
            lock(&self.known).remove(&name);
            return Ok(Some(LIMITED));
        }
        let known = lock(&self.known).get(&name).copied();
        // Whatever else moved a volume says nothing about its content.
        if known.is_none_or(|known| known.capacity != capacity) {
            let over = known.is_some_and(|known| known.over);
            lock(&self.known).insert(name.clone(), Known { capacity, over });
            self.walks.add_after(name, FIRST_LOOK);
        }
        Ok(None)
    }

    /// Measure a volume, warn if it has passed its capacity, and say when to measure it again.
    async fn walk(
        &self,
        name: String,
        claims: &Cache<PersistentVolumeClaim>,
        volumes: &Cache<PersistentVolume>,
        teller: &Teller,
    ) -> Result<Option<Duration>, Infallible> {
        let known = lock(&self.known).get(&name).copied();
        let (Some((path, capacity)), Some(known)) = (self.ours(&name, volumes), known) else {
            return Ok(None);
        };
        let start = Instant::now();
        let Some(measured) = measure(path.clone()).await else {
            // It may not have been made yet, or not any more.
            return Ok(Some(SHORTEST));
        };
        let pause = pause_after(start.elapsed());
        let Some(claim) = volumes
            .get(&Key::new("", &name))
            .and_then(|volume| claim_of(&volume, claims))
        else {
            return Ok(Some(pause));
        };
        let said_before = claim.uid().is_some_and(|uid| lock(&self.warned).remove(&uid));
        let was_over = known.over || said_before;
        let over = is_over(was_over, measured, capacity);
        if over && !was_over {
            let text = warning(&claim, &name, &path, measured.bytes, capacity);
            teller.tell(&claim.object_ref(&()), EventType::Warning, OVER_CAPACITY, text);
        }
        lock(&self.known)
            .entry(name)
            .and_modify(|known| known.over = over);
        Ok(Some(pause))
    }

    /// A volume's directory, if it is one of ours, and its capacity in bytes.
    fn ours(&self, name: &str, volumes: &Cache<PersistentVolume>) -> Option<(PathBuf, u64)> {
        let volume = volumes.get(&Key::new("", name))?;
        let path = provision::directory(&volume, &self.volumes_dir)?;
        Some((path, capacity_bytes(&volume)))
    }
}

/// A walk beside everything else; it ends when nobody waits for it any more.
async fn measure(path: PathBuf) -> Option<walk::Measured> {
    let stop = CancellationToken::new();
    let _dropped = stop.clone().drop_guard();
    let walked = tokio::task::spawn_blocking(move || walk::measure(&path, || !stop.is_cancelled()));
    walked.await.ok()?.ok()
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(REST).clamp(SHORTEST, LONGEST)
}

/// Whether a volume counts as over its capacity. What an incomplete walk has not found may or may not be there.
fn is_over(was_over: bool, measured: walk::Measured, capacity: u64) -> bool {
    measured.bytes > capacity || (was_over && !measured.complete)
}

/// The claim that the volume is bound to.
fn claim_of(
    volume: &PersistentVolume,
    claims: &Cache<PersistentVolumeClaim>,
) -> Option<std::sync::Arc<PersistentVolumeClaim>> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let claim = claims.get(&Key::new(
        reference.namespace.as_deref()?,
        reference.name.as_deref()?,
    ))?;
    (claim.metadata.uid == reference.uid).then_some(claim)
}

fn warning(claim: &PersistentVolumeClaim, volume: &str, path: &Path, used: u64, capacity: u64) -> String {
    let namespace = claim.namespace().unwrap_or_default();
    let name = claim.name_any();
    format!(
        "claim {namespace}/{name} uses {} of its capacity {} (volume {volume}), and this file system does not hold it \
         to that: remove data in {}, or ask for more: kubectl -n {namespace} patch pvc {name} -p \
         '{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"SIZE\"}}}}}}}}'",
        binary(used),
        binary(capacity),
        path.display()
    )
}

/// The volume's capacity in whole bytes, rounded up.
pub fn capacity_bytes(volume: &PersistentVolume) -> u64 {
    whole(matching::capacity(volume))
}

/// A quantity of storage in whole bytes, rounded up; 0 for what is no quantity.
pub fn storage_bytes(quantity: &Quantity) -> u64 {
    whole(crate::quantity::nanos(quantity).unwrap_or(0))
}

fn whole(nanos: i128) -> u64 {
    u64::try_from(nanos.max(0).saturating_add(999_999_999) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Bytes as people read them: `512`, `1Gi`, and with a decimal what is not exactly that: `1.2Gi`.
pub fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut exact = bytes;
    // Tenths of the unit, rounded to the nearest.
    let mut tenths = u128::from(bytes) * 10;
    let mut shown = bytes.to_string();
    for unit in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        let is_whole = exact.is_multiple_of(1024);
        exact = if is_whole { exact / 1024 } else { 1 };
        shown = match is_whole {
            true => format!("{exact}{unit}"),
            false => format!("{}.{}{unit}", tenths / 10, tenths % 10),
        };
    }
    shown
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that can panic runs under the lock, so what it guards is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::walk::Measured;
    use super::*;
    use crate::volume::testing::{claim, volume};
    use serde_json::json;

    #[test]
    fn the_longer_a_walk_took_the_longer_the_volume_is_left_alone() {
        let table = [
            (0, 10_000),
            (50, 10_000),
            (200, 20_000),
            (30_000, 3_000_000),
            (600_000, 3_600_000),
        ];
        for (took, pause) in table {
            assert_eq!(
                pause_after(Duration::from_millis(took)),
                Duration::from_millis(pause),
                "{took}"
            );
        }
    }

    #[test]
    fn a_volume_is_over_when_more_was_found_than_it_may_have() {
        let measured = |bytes, complete| Measured { bytes, complete };
        // was over, found, complete, is over
        let table = [
            (false, 10, true, false),
            (false, 11, true, true),
            (true, 11, true, true),
            (true, 10, true, false),
            (false, 11, false, true),
            (false, 3, false, false),
            (true, 3, false, true),
        ];
        for (was, bytes, complete, expected) in table {
            assert_eq!(
                is_over(was, measured(bytes, complete), 10),
                expected,
                "{was} {bytes} {complete}"
            );
        }
    }

    #[test]
    fn the_warning_says_what_is_too_large_and_what_to_do() {
        let claim = claim("www-web-0", json!({}));
        let text = warning(&claim, "pvc-1", Path::new("/data/volumes/d"), 3 << 29, 1 << 30);
        assert_eq!(
            text,
            "claim default/www-web-0 uses 1.5Gi of its capacity 1Gi (volume pvc-1), and this file system does not \
             hold it to that: remove data in /data/volumes/d, or ask for more: kubectl -n default patch pvc www-web-0 \
             -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"SIZE\"}}}}'"
        );
    }

    #[test]
    fn bytes_are_shown_in_binary_units() {
        let table = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1536, "1.5Ki"),
            (1 << 20, "1Mi"),
            (16 << 20, "16Mi"),
            (5 << 28, "1.3Gi"),
            ((1 << 30) + 1, "1.0Gi"),
            ((1 << 20) - 1, "1.0Mi"),
            (1_288_490_189, "1.2Gi"),
            (u64::MAX, "16.0Ei"),
        ];
        for (bytes, text) in table {
            assert_eq!(binary(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn a_capacity_is_in_whole_bytes() {
        for (quantity, bytes) in [
            ("1Gi", 1 << 30),
            ("1500m", 2),
            ("0", 0),
            ("-1", 0),
            ("16Ei", u64::MAX),
        ] {
            let volume = volume("v", json!({"capacity": {"storage": quantity}}));
            assert_eq!(capacity_bytes(&volume), bytes, "{quantity}");
        }
    }
}
