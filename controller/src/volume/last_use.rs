//! Who used a volume last: when a pod that could use it is gone, its volume says so in two annotations. They are on
//! the volume and not on the claim, because they must outlive the claim; and a pod's end is the moment at which the
//! question arises, so that starting pods costs nothing.

use super::protection;
use crate::runtime::{Cache, Key, Queue, not_found, work};
use ::events::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The pod that used the volume last, as `namespace/name`. A pod that uses it now is not in here.
pub const LAST_USED_BY: &str = "petset.dev/last-used-by";
/// When that pod was gone, as RFC 3339.
pub const LAST_USED: &str = "petset.dev/last-used";

/// What is still to be written.
pub struct LastUse {
    clock: Clock,
    queue: Queue<String>,
    uses: Mutex<HashMap<String, Use>>,
}

/// A use that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    pod: String,
    until: Timestamp,
}

impl LastUse {
    /// Nothing to write yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            queue: Queue::default(),
            uses: Mutex::default(),
        }
    }

    /// The pod is gone: note it for the volumes of the claims it has used.
    pub fn pod_gone(
        &self,
        pod: &Pod,
        claims: &Cache<PersistentVolumeClaim>,
        volumes: &Cache<PersistentVolume>,
    ) {
        for claim in used_claims(pod) {
            let key = Key::new(pod.namespace().unwrap_or_default(), claim);
            let named = claims
                .get(&key)
                .and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
            // The claim may have gone with its pod; the volume still knows it.
            let Some(volume) = named.or_else(|| volume_for(&key, &volumes.all())) else {
                continue;
            };
            let pod = format!("{}/{}", key.namespace, pod.name_any());
            let until = (self.clock)();
            let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            uses.insert(volume.clone(), Use { pod, until });
            drop(uses);
            self.queue.add(volume);
        }
    }

    /// Write what is noted, for ever.
    pub async fn run(&self, client: kube::Client) {
        let volumes: Api<PersistentVolume> = Api::all(client);
        work(&self.queue, 1, |name| self.write(name, &volumes)).await;
    }

    async fn write(
        &self,
        name: String,
        volumes: &Api<PersistentVolume>,
    ) -> Result<Option<std::time::Duration>, kube::Error> {
        let uses = || self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = uses().get(&name).cloned() else {
            return Ok(None);
        };
        match volumes
            .patch(&name, &PatchParams::default(), &Patch::Merge(annotations(&last)))
            .await
        {
            Ok(_) => {}
            Err(error) if not_found(&error) => {}
            Err(error) => return Err(error),
        }
        let mut uses = uses();
        if uses.get(&name) == Some(&last) {
            uses.remove(&name);
        }
        Ok(None)
    }
}

/// The claims that the pod could use: none before it had a node.
fn used_claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let could_run = node.is_some_and(|node| !node.is_empty());
    protection::claims(pod).filter(move |_| could_run)
}

fn volume_for(claim: &Key, volumes: &[std::sync::Arc<PersistentVolume>]) -> Option<String> {
    let found = volumes.iter().find(|volume| {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        reference.is_some_and(|reference| {
            reference.namespace.as_ref() == Some(&claim.namespace)
                && reference.name.as_ref() == Some(&claim.name)
        })
    });
    found.map(|volume| volume.name_any())
}

fn annotations(last: &Use) -> Value {
    // To the second, as the API's own times are.
    let until = last.until.round(jiff::Unit::Second).unwrap_or(last.until);
    json!({"metadata": {"annotations": {LAST_USED_BY: last.pod, LAST_USED: until.to_string()}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::volume;

    fn pod(node: &str) -> Pod {
        let volumes = json!([{"name": "y", "persistentVolumeClaim": {"claimName": "c"}}]);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "nodeName": node, "volumes": volumes}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_without_a_node_has_used_nothing() {
        assert_eq!(used_claims(&pod("n")).collect::<Vec<_>>(), ["c"]);
        assert_eq!(used_claims(&pod("")).count(), 0);
    }

    #[test]
    fn a_volume_is_found_by_the_claim_it_was_bound_to() {
        let of = |name: &str| json!({"claimRef": {"namespace": "default", "name": name, "uid": "u"}});
        let volumes = [
            volume("a", json!({})),
            volume("b", of("other")),
            volume("v", of("c")),
        ]
        .map(std::sync::Arc::new);
        assert_eq!(volume_for(&Key::new("default", "c"), &volumes), Some("v".into()));
        assert_eq!(volume_for(&Key::new("elsewhere", "c"), &volumes), None);
    }

    #[test]
    fn pod_and_time_are_written_down() {
        let until = "2026-01-02T03:04:05.6Z".parse().expect("a time");
        let patch = annotations(&Use {
            pod: "default/web-3".into(),
            until,
        });
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({"petset.dev/last-used-by": "default/web-3", "petset.dev/last-used": "2026-01-02T03:04:06Z"})
        );
    }
}
