//! Lease: who leads, and until when; a node's heartbeat.

use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, names};
use serde_json::Value;

static NAMES: Names = Names {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.coordination.v1.Lease",
    storage_group: "coordination.k8s.io",
};

static COLUMNS: [Column; 3] = [
    parts::NAME,
    parts::column("Holder", "schema:spec.holderIdentity"),
    parts::AGE,
];

/// See [the module](self).
pub struct Lease;

impl Kind for Lease {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    // A leader must know that nobody else wrote in between.
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let spec = &object["spec"];
        let mut invalid = Vec::new();
        if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
            let value = spec["leaseDurationSeconds"].clone();
            invalid.push(Invalid::malformed(
                "spec.leaseDurationSeconds",
                value,
                "must be greater than 0",
            ));
        }
        if spec["leaseTransitions"].as_i64().is_some_and(|n| n < 0) {
            let value = spec["leaseTransitions"].clone();
            let detail = "must be greater than or equal to 0";
            invalid.push(Invalid::malformed("spec.leaseTransitions", value, detail));
        }
        let strategy = spec["strategy"].as_str();
        invalid.extend(strategy.into_iter().flat_map(check_strategy));
        let preferred = spec["preferredHolder"].as_str().unwrap_or_default();
        if !preferred.is_empty() && strategy.unwrap_or_default().is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            invalid.push(Invalid::forbidden("spec.preferredHolder", detail));
        }
        invalid
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            parts::name(object),
            parts::text(&object["spec"]["holderIdentity"]),
            parts::age(object, now),
        ]
    }
}

/// A strategy of coordinated leader election is Kubernetes' own or qualified.
fn check_strategy(strategy: &str) -> Vec<Invalid> {
    // The repeated name is upstream's.
    const FIELD: &str = "spec.strategy.strategy";
    const OWN: &str = "OldestEmulationVersion";
    if strategy.contains('/') {
        Invalid::each(FIELD, strategy, names::qualified_name(strategy))
    } else if strategy == OWN {
        Vec::new()
    } else {
        vec![Invalid::not_supported(FIELD, strategy, &[OWN])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_have_lower_bounds() {
        let spec = |duration: i32, transitions: i32| {
            let spec = json!({"leaseDurationSeconds": duration, "leaseTransitions": transitions});
            Lease.validate_create(&json!({ "spec": spec })).len()
        };
        assert_eq!(spec(1, 0), 0);
        assert_eq!(spec(0, -1), 2);
    }

    #[test]
    fn a_preferred_holder_needs_a_strategy() {
        let mut object = json!({"spec": {"preferredHolder": "a"}});
        assert_eq!(Lease.validate_create(&object).len(), 1);
        object["spec"]["strategy"] = "OldestEmulationVersion".into();
        assert_eq!(Lease.validate_create(&object), []);
        object["spec"]["strategy"] = "Youngest".into();
        assert_eq!(Lease.validate_create(&object)[0].field, "spec.strategy.strategy");
    }
}
