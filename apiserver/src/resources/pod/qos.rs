//! The quality of service class of a pod, from the CPU and memory that its containers ask for.

use super::super::json::{entries, items};
use crate::validation::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// `BestEffort` if nothing is asked for, `Guaranteed` if every container limits both and asks for no less,
/// else `Burstable`.
pub fn class(spec: &Value) -> &'static str {
    let pod_level = &spec["resources"];
    let holders: Vec<&Value> =
        if compute(pod_level, "requests").is_empty() && compute(pod_level, "limits").is_empty() {
            let lists = ["containers", "initContainers"];
            let containers = lists.iter().flat_map(|list| items(spec, list));
            containers.map(|container| &container["resources"]).collect()
        } else {
            vec![pod_level]
        };
    let asks = |resources: &&Value| {
        !compute(resources, "requests").is_empty() || !compute(resources, "limits").is_empty()
    };
    if !holders.iter().any(asks) {
        return "BestEffort";
    }
    let guaranteed = holders
        .iter()
        .all(|resources| compute(resources, "limits").len() == 2);
    if guaranteed && total(&holders, "requests") == total(&holders, "limits") {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// CPU and memory above zero, in thousandths.
fn compute<'a>(resources: &'a Value, which: &str) -> BTreeMap<&'a str, i128> {
    entries(resources, which)
        .filter(|(name, _)| matches!(*name, "cpu" | "memory"))
        .filter_map(|(name, value)| Some((name, Quantity::from_json(value).ok()?)))
        .filter(|(_, quantity)| quantity.sign() > 0)
        .map(|(name, quantity)| (name, i128::from(quantity.milli_value())))
        .collect()
}

fn total<'a>(holders: &[&'a Value], which: &str) -> BTreeMap<&'a str, i128> {
    let mut sum = BTreeMap::new();
    for (name, amount) in holders.iter().flat_map(|resources| compute(resources, which)) {
        *sum.entry(name).or_default() += amount;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let full =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let less =
            json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        let cases = [
            (json!([{}]), "BestEffort"),
            (
                json!([{"resources": {"limits": {"example.com/x": "1"}}}]),
                "BestEffort",
            ),
            (json!([{"resources": full}]), "Guaranteed"),
            (json!([{"resources": full}, {}]), "Burstable"),
            (json!([{"resources": less}]), "Burstable"),
            (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
        ];
        for (containers, expected) in cases {
            assert_eq!(
                class(&json!({ "containers": containers })),
                expected,
                "{containers}"
            );
        }
    }
}
