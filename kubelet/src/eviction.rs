//! Whether a pod has used more of the disk than it may: `sizeLimit` of its emptyDirs, and its containers' limits of
//! `ephemeral-storage`. Upstream's eviction manager looks every ten seconds, in this order, and a pod that has exceeded a
//! limit fails with these words. (No `DisruptionTarget` condition: that is for pods that have to go for others' sake.)
//!
//! [`exceeded`] decides, [`usage`] looks at the disk.

pub mod usage;

use crate::environment::amount;
use crate::plan::is_sidecar;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use usage::Usage;

/// The reason of an evicted pod, and of the event that says so.
pub const REASON: &str = "Evicted";

/// What the containers of an evicted pod get, in seconds; as with every stop it is two between TERM and KILL.
pub const GRACE: i64 = 1;

/// The resource that is limited.
const STORAGE: &str = "ephemeral-storage";

/// From this priority on a pod is critical, and never evicted.
const CRITICAL: i32 = 2_000_000_000;

/// Whether there is anything that the pod could exceed.
pub fn is_limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is_critical = spec.priority.is_some_and(|priority| priority >= CRITICAL);
    let mut volumes = spec.volumes.iter().flatten();
    !is_critical && (volumes.any(|volume| size_limit(volume).is_some()) || pod_limit(spec).is_some())
}

/// Which limit the pod has exceeded: the message of its status and event.
pub fn exceeded(pod: &Pod, usage: &Usage) -> Option<String> {
    let spec = pod.spec.as_ref().filter(|_| is_limited(pod))?;
    let volumes = spec.volumes.iter().flatten();
    let too_large = volumes.filter_map(|volume| {
        let limit = size_limit(volume)?;
        let used = usage.volumes.get(&volume.name)?;
        (*used as f64 > amount(limit)?).then(|| {
            let (name, limit) = (&volume.name, &limit.0);
            format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ")
        })
    });
    let of_pod = || {
        let limit = pod_limit(spec)?;
        (total(spec, usage) as f64 > limit.bytes).then(|| {
            let limit = limit.shown();
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ")
        })
    };
    let of_container = |container: &Container| {
        let limit = storage_limit(container)?;
        let used = usage.containers.get(&container.name)?;
        (*used as f64 > amount(limit)?).then(|| {
            let (name, limit) = (&container.name, &limit.0);
            format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. ")
        })
    };
    let first = { too_large }.next();
    first
        .or_else(of_pod)
        .or_else(|| spec.containers.iter().find_map(of_container))
}

/// A limit of nothing is none.
fn size_limit(volume: &Volume) -> Option<&Quantity> {
    let limit = volume.empty_dir.as_ref()?.size_limit.as_ref();
    limit.filter(|limit| amount(limit).is_some_and(|bytes| bytes > 0.0))
}

fn storage_limit(container: &Container) -> Option<&Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    let limit = limits.get(STORAGE);
    limit.filter(|limit| amount(limit).is_some_and(|bytes| bytes > 0.0))
}

/// Everything of the pod that counts: what containers have written and said, and the volumes that are made of the node's
/// disk. One in memory is not, wherever it really is.
fn total(spec: &PodSpec, usage: &Usage) -> u64 {
    let counts = |volume: &&Volume| {
        let on_disk = |medium: Option<&str>| medium.unwrap_or_default().is_empty();
        let empty_dir = volume.empty_dir.as_ref();
        volume.config_map.is_some() || empty_dir.is_some_and(|e| on_disk(e.medium.as_deref()))
    };
    let volumes = spec.volumes.iter().flatten().filter(counts);
    let volumes = volumes.filter_map(|volume| usage.volumes.get(&volume.name));
    volumes.chain(usage.containers.values()).sum::<u64>() + usage.rest
}

/// A sum of limits.
#[derive(Clone, Debug, PartialEq)]
struct Sum {
    bytes: f64,
    /// As the first of them was written, so is the sum.
    like: Quantity,
}

impl Sum {
    fn add(self, other: &Sum) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            like: self.like,
        }
    }

    /// In the canonical form: the largest suffix that loses nothing, of powers of 1024 or of 1000.
    fn shown(&self) -> String {
        if amount(&self.like) == Some(self.bytes) {
            return self.like.0.clone();
        }
        let is_binary = self.like.0.ends_with('i');
        let (base, suffixes) = if is_binary {
            (1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
        } else {
            (1000, ["", "k", "M", "G", "T", "P", "E"])
        };
        let (mut number, mut suffix) = (self.bytes.ceil() as u64, 0);
        while number > 0 && number.is_multiple_of(base) && suffix + 1 < suffixes.len() {
            (number, suffix) = (number / base, suffix + 1);
        }
        format!("{number}{}", suffixes[suffix])
    }
}

/// What all containers together may use: the sum over those that run beside each other, or as much as an init container
/// may beside the sidecars before it. `None`: no container has a limit.
fn pod_limit(spec: &PodSpec) -> Option<Sum> {
    let limit = |container: &Container| {
        let like = storage_limit(container)?.clone();
        let bytes = amount(&like)?;
        Some(Sum { bytes, like })
    };
    let sum = |one: Option<Sum>, other: Option<Sum>| match (one, other) {
        (Some(one), Some(other)) => Some(one.add(&other)),
        (one, other) => one.or(other),
    };
    let mut all = spec.containers.iter().map(limit).fold(None, sum);
    let (mut sidecars, mut most) = (None, None::<Sum>);
    for container in spec.init_containers.iter().flatten() {
        let mut beside = limit(container);
        if is_sidecar(container) {
            all = sum(all, beside.clone());
            sidecars = sum(sidecars, beside);
            beside = sidecars.clone();
        } else if beside.is_some() {
            beside = sum(beside, sidecars.clone());
        }
        most = match (most, beside) {
            (Some(most), Some(other)) if other.bytes > most.bytes => Some(other),
            (most, other) => most.or(other),
        };
    }
    match (all, most) {
        (Some(all), Some(most)) if most.bytes > all.bytes => Some(most),
        (all, most) => all.or(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn limited(name: &str, storage: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"ephemeral-storage": storage}}})
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn usage(volumes: &[(&str, u64)], containers: &[(&str, u64)], rest: u64) -> Usage {
        let own = |(name, bytes): &(&str, u64)| ((*name).to_owned(), *bytes);
        Usage {
            volumes: volumes.iter().map(own).collect(),
            containers: containers.iter().map(own).collect(),
            rest,
        }
    }

    #[test]
    fn an_empty_dir_may_be_as_large_as_its_limit_and_not_larger() {
        let volumes = json!([
            {"name": "free", "emptyDir": {}},
            {"name": "zero", "emptyDir": {"sizeLimit": "0"}},
            {"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "fast", "emptyDir": {"sizeLimit": "2k", "medium": "Memory"}},
        ]);
        let pod = pod(json!({"containers": [{"name": "c"}], "volumes": volumes}));
        assert!(is_limited(&pod));
        let said = |volumes: &[(&str, u64)]| exceeded(&pod, &usage(volumes, &[("c", 1 << 40)], 0));
        let much = 1 << 40;
        assert_eq!(said(&[("free", much), ("zero", much), ("cache", 1 << 20)]), None);
        assert_eq!(
            said(&[("cache", (1 << 20) + 1)]).as_deref(),
            Some("Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ")
        );
        assert_eq!(
            said(&[("fast", 2001)]).as_deref(),
            Some("Usage of EmptyDir volume \"fast\" exceeds the limit \"2k\". ")
        );
    }

    #[test]
    fn what_a_pod_uses_altogether_counts_against_the_sum_of_its_containers_limits() {
        let volumes = json!([
            {"name": "cache", "emptyDir": {}},
            {"name": "fast", "emptyDir": {"medium": "Memory"}},
            {"name": "map", "configMap": {"name": "m"}},
            {"name": "secret", "secret": {"secretName": "s"}},
        ]);
        let spec = json!({"containers": [limited("a", "1Ki"), {"name": "b"}], "volumes": volumes});
        let pod = pod(spec);
        let said = |volumes: &[(&str, u64)], b, rest| exceeded(&pod, &usage(volumes, &[("b", b)], rest));
        assert_eq!(
            said(
                &[("cache", 500), ("fast", 9999), ("map", 24), ("secret", 9999)],
                400,
                100
            ),
            None
        );
        for (volumes, b, rest) in [
            (&[("cache", 1025)][..], 0, 0),
            (&[("map", 1025)], 0, 0),
            (&[], 1025, 0),
            (&[("cache", 1000)], 20, 5),
        ] {
            assert_eq!(
                said(volumes, b, rest).as_deref(),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. ")
            );
        }
    }

    #[test]
    fn a_container_may_not_use_what_others_leave() {
        let pod = pod(json!({"containers": [limited("a", "1Ki"), limited("b", "1Gi")]}));
        let said = |a, b| exceeded(&pod, &usage(&[], &[("a", a), ("b", b)], 0));
        assert_eq!(said(1024, 5000), None);
        assert_eq!(
            said(1025, 0).as_deref(),
            Some("Container a exceeded its local ephemeral storage limit \"1Ki\". ")
        );
    }

    #[test]
    fn a_pods_limit_is_that_of_what_runs_at_the_same_time() {
        let sidecar = |name, storage| {
            let mut container = limited(name, storage);
            container["restartPolicy"] = "Always".into();
            container
        };
        let shown = |init: Value, containers: Value| {
            let pod = pod(json!({"initContainers": init, "containers": containers}));
            pod_limit(&pod.spec.expect("a spec")).map(|sum| sum.shown())
        };
        let free = json!([{"name": "c"}]);
        assert_eq!(shown(json!([]), free.clone()), None);
        let two = json!([limited("a", "1Gi"), limited("b", "512Mi")]);
        assert_eq!(shown(json!([]), two.clone()).as_deref(), Some("1536Mi"));
        let init = json!([limited("i", "1Gi")]);
        assert_eq!(shown(init.clone(), two.clone()).as_deref(), Some("1536Mi"));
        assert_eq!(shown(init, free).as_deref(), Some("1Gi"));
        let beside = json!([sidecar("s", "1Gi"), limited("i", "3Gi")]);
        assert_eq!(shown(beside, two.clone()).as_deref(), Some("4Gi"));
        assert_eq!(shown(json!([sidecar("s", "512Mi")]), two).as_deref(), Some("2Gi"));
        let decimal = json!([limited("a", "1500M"), limited("b", "500M")]);
        assert_eq!(shown(json!([]), decimal).as_deref(), Some("2G"));
    }

    #[test]
    fn critical_pods_and_those_without_limits_are_left_alone() {
        let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1"}}]);
        let critical = pod(json!({"containers": [], "volumes": volumes, "priority": 2_000_000_000}));
        let used = usage(&[("v", 1 << 40)], &[], 1 << 40);
        assert!(!is_limited(&critical) && exceeded(&critical, &used).is_none());
        let free = pod(json!({"containers": [{"name": "c"}]}));
        assert!(!is_limited(&free) && exceeded(&free, &used).is_none());
    }
}
