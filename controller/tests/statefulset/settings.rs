//! What a set's owner decides, as a value that can be varied, and the spec that says it.

use serde_json::{Value, json};

/// What happens to claims: whenDeleted and whenScaled, `true` is `Delete`; none when the set says nothing.
pub type Retention = Option<(bool, bool)>;

/// All that there is.
pub const RETENTIONS: [Retention; 5] = [
    None,
    Some((false, false)),
    Some((true, false)),
    Some((false, true)),
    Some((true, true)),
];

/// How a new template gets to the pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// Only when somebody deletes them.
    OnDelete,
    /// One at a time; no block says more.
    RollingPlain,
    /// From the top down to an index, and so many at once (a number, a percentage or nothing).
    Rolling { partition: i32, max_unavailable: Value },
}

/// A set's spec.
#[derive(Clone, Debug)]
pub struct Settings {
    pub replicas: i32,
    pub start: Option<i32>,
    pub is_ordered: bool,
    pub strategy: Strategy,
    pub min_ready_seconds: i32,
    pub retention: Retention,
    pub claim_templates: usize,
    pub history_limit: Option<i32>,
    pub service: Option<&'static str>,
    /// Which template: its image's number.
    pub template: usize,
    /// Whether pods that a rollout would wait for in vain are replaced (`petset.dev/unblock-rollout`).
    pub unblocks: bool,
}

/// A template whose pods never become ready.
pub const BAD_TEMPLATE: usize = 3;

impl Default for Settings {
    fn default() -> Self {
        Self {
            replicas: 3,
            start: None,
            is_ordered: true,
            strategy: Strategy::Rolling {
                partition: 0,
                max_unavailable: Value::Null,
            },
            min_ready_seconds: 0,
            retention: Some((false, false)),
            claim_templates: 1,
            history_limit: Some(10),
            service: Some("web"),
            template: 0,
            unblocks: false,
        }
    }
}

/// The names of the claim templates, as many as there may be. The second is a volume of the pod's template, too.
pub const CLAIM_TEMPLATES: [&str; 2] = ["data", "logs"];

impl Settings {
    /// The ordinals that there should be a pod for.
    pub fn range(&self) -> std::ops::Range<i32> {
        let start = self.start.unwrap_or(0);
        start..start + self.replicas
    }

    /// The names of the claims of an ordinal's pod.
    pub fn claims(&self, ordinal: i32) -> impl Iterator<Item = String> {
        let templates = CLAIM_TEMPLATES.into_iter().take(self.claim_templates);
        templates.map(move |template| format!("{template}-web-{ordinal}"))
    }

    /// Whether scaling down deletes claims.
    pub fn deletes_when_scaled(&self) -> bool {
        self.retention.is_some_and(|(_, when_scaled)| when_scaled)
    }

    /// The set as the API would store it.
    pub fn set(&self, uid: &str, generation: i64) -> Value {
        let unblocks = self.unblocks.then_some("true");
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "ns", "uid": uid, "generation": generation,
                "annotations": {"petset.dev/unblock-rollout": unblocks.unwrap_or("false")}},
            "spec": self.spec(),
        })
    }

    fn spec(&self) -> Value {
        let strategy = match &self.strategy {
            Strategy::OnDelete => json!({"type": "OnDelete"}),
            Strategy::RollingPlain => json!({"type": "RollingUpdate"}),
            Strategy::Rolling {
                partition,
                max_unavailable,
            } => json!({"type": "RollingUpdate",
                "rollingUpdate": {"partition": partition, "maxUnavailable": max_unavailable}}),
        };
        let retention = self.retention.map(|(when_deleted, when_scaled)| {
            let half = |is_delete| if is_delete { "Delete" } else { "Retain" };
            json!({"whenDeleted": half(when_deleted), "whenScaled": half(when_scaled)})
        });
        let policy = if self.is_ordered {
            "OrderedReady"
        } else {
            "Parallel"
        };
        let claims = CLAIM_TEMPLATES.iter().take(self.claim_templates).map(|name| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "labels": {"app": "overridden", "of": name}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                    "volumeMode": "Filesystem"},
                "status": {"phase": "Pending"}})
        });
        json!({
            "replicas": self.replicas,
            "ordinals": self.start.map(|start| json!({"start": start})),
            "podManagementPolicy": policy,
            "updateStrategy": strategy,
            "minReadySeconds": self.min_ready_seconds,
            "persistentVolumeClaimRetentionPolicy": retention,
            "volumeClaimTemplates": claims.collect::<Vec<_>>(),
            "revisionHistoryLimit": self.history_limit,
            "serviceName": self.service,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": self.template.to_string()}],
                    "volumes": [{"name": "logs", "emptyDir": {}}]}},
        })
    }
}
