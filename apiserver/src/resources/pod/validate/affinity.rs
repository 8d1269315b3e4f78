//! Where a pod wants to run: affinity to nodes and pods, and spreading.

use super::super::super::json::{entries, integer, items, text};
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, names, selector};
use serde_json::Value;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Problems with `affinity`.
pub fn affinity(affinity: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = node(&affinity["nodeAffinity"], &path.child("nodeAffinity"));
    for kind in ["podAffinity", "podAntiAffinity"] {
        problems.extend(pods(&affinity[kind], &path.child(kind)));
    }
    problems
}

fn weight(term: &Value, path: &Path) -> Option<Invalid> {
    let weight = integer(term, "weight");
    (!(1..=100).contains(&weight))
        .then(|| Invalid::malformed(path.child("weight"), weight, "must be in the range 1-100"))
}

fn node(affinity: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if affinity[REQUIRED].is_object() {
        problems.extend(node_selector(&affinity[REQUIRED], &path.child(REQUIRED)));
    }
    for (i, term) in items(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        problems.extend(weight(term, &path));
        problems.extend(node_term(&term["preference"], false, &path.child("preference")));
    }
    problems
}

/// Problems with a node selector that must be satisfied, as pods and volumes have them.
pub fn node_selector(selector: &Value, path: &Path) -> Vec<Invalid> {
    let path = path.child("nodeSelectorTerms");
    let terms = items(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        return vec![Invalid::required(
            path,
            "must have at least one node selector term",
        )];
    }
    let terms = terms.iter().enumerate();
    terms
        .flat_map(|(i, term)| node_term(term, true, &path.index(i)))
        .collect()
}

fn node_term(term: &Value, check_values: bool, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, requirement) in items(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        problems.extend(node_requirement(requirement, check_values, &path));
    }
    for (i, requirement) in items(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(i);
        problems.extend(node_field(requirement, &path));
    }
    problems
}

fn values(requirement: &Value) -> Vec<&str> {
    items(requirement, "values")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

fn node_requirement(requirement: &Value, check_values: bool, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let values = values(requirement);
    let at = path.child("values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => problems.push(Invalid::required(
            &at,
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => problems.push(Invalid::forbidden(
            &at,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values.len() != 1 => problems.push(Invalid::required(
            &at,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => problems.push(Invalid::malformed(
            path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = text(requirement, "key");
    problems.extend(Invalid::each(path.child("key"), key, names::qualified_name(key)));
    if check_values {
        for (i, value) in values.into_iter().enumerate() {
            problems.extend(Invalid::each(at.index(i), value, names::label_value(value)));
        }
    }
    problems
}

fn node_field(requirement: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let values = values(requirement);
    match text(requirement, "operator") {
        "In" | "NotIn" if values.len() != 1 => problems.push(Invalid::required(
            path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        )),
        "In" | "NotIn" => {}
        other => problems.push(Invalid::malformed(
            path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = text(requirement, "key");
    if key != "metadata.name" {
        let detail = "not a valid field selector key";
        problems.push(Invalid::malformed(path.child("key"), key, detail));
        return problems;
    }
    for (i, value) in values.into_iter().enumerate() {
        let path = path.child("values").index(i);
        problems.extend(Invalid::each(path, value, dns1123_subdomain(value)));
    }
    problems
}

fn pods(affinity: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, term) in items(affinity, REQUIRED).iter().enumerate() {
        problems.extend(pod_term(term, &path.child(REQUIRED).index(i)));
    }
    for (i, term) in items(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        problems.extend(weight(term, &path));
        problems.extend(pod_term(&term["podAffinityTerm"], &path.child("podAffinityTerm")));
    }
    problems
}

fn pod_term(term: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = selector::label_selector(&term["labelSelector"], &path.child("labelSelector"));
    problems.extend(selector::label_selector(
        &term["namespaceSelector"],
        &path.child("namespaceSelector"),
    ));
    for namespace in items(term, "namespaces").iter().filter_map(Value::as_str) {
        problems.extend(Invalid::each(
            path.child("namespace"),
            namespace,
            dns1123_label(namespace),
        ));
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        problems.extend(label_keys(term, field, &path.child(field)));
    }
    for (i, key) in items(term, "matchLabelKeys").iter().enumerate() {
        if items(term, "mismatchLabelKeys").contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            problems.push(Invalid::malformed(
                path.child("matchLabelKeys").index(i),
                key.clone(),
                detail,
            ));
        }
    }
    let topology = text(term, "topologyKey");
    if topology.is_empty() {
        problems.push(Invalid::required(path.child("topologyKey"), "can not be empty"));
    }
    problems.extend(Invalid::each(
        path.child("topologyKey"),
        topology,
        names::qualified_name(topology),
    ));
    problems
}

fn label_keys(term: &Value, field: &str, path: &Path) -> Vec<Invalid> {
    let keys = items(term, field);
    if !keys.is_empty() && term["labelSelector"].is_null() {
        let detail = "must not be specified when labelSelector is not set";
        return vec![Invalid::forbidden(path, detail)];
    }
    let keys = keys.iter().map(|key| key.as_str().unwrap_or_default());
    keys.enumerate()
        .flat_map(|(i, key)| Invalid::each(path.index(i), key, names::qualified_name(key)))
        .collect()
}

/// Problems with `topologySpreadConstraints`.
pub fn spread(constraints: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let positive = "must be greater than zero";
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let skew = integer(constraint, "maxSkew");
        if skew <= 0 {
            problems.push(Invalid::malformed(path.child("maxSkew"), skew, positive));
        }
        let (key, action) = (
            text(constraint, "topologyKey"),
            text(constraint, "whenUnsatisfiable"),
        );
        if key.is_empty() {
            problems.push(Invalid::required(path.child("topologyKey"), "can not be empty"));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            problems.push(Invalid::not_supported(
                path.child("whenUnsatisfiable"),
                action,
                &actions,
            ));
        }
        let same =
            |other: &Value| text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == action;
        if constraints[i + 1..].iter().any(same) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            problems.push(Invalid::duplicate(path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            let path = path.child("minDomains");
            if domains <= 0 {
                problems.push(Invalid::malformed(&path, domains, positive));
            }
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                problems.push(Invalid::malformed(path, domains, detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint[field].as_str()
                && !["Honor", "Ignore"].contains(&policy)
            {
                problems.push(Invalid::not_supported(
                    path.child(field),
                    policy,
                    &["Honor", "Ignore"],
                ));
            }
        }
        problems.extend(spread_label_keys(constraint, &path.child("matchLabelKeys")));
        problems.extend(selector::label_selector(
            &constraint["labelSelector"],
            &path.child("labelSelector"),
        ));
    }
    problems
}

fn spread_label_keys(constraint: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let keys = items(constraint, "matchLabelKeys");
    if keys.is_empty() {
        return problems;
    }
    let selector = &constraint["labelSelector"];
    if selector.is_null() {
        let detail = "must not be specified when labelSelector is not set";
        problems.push(Invalid::forbidden(path, detail));
    }
    let selected = |key: &str| {
        entries(selector, "matchLabels").any(|(k, _)| k == key)
            || items(selector, "matchExpressions")
                .iter()
                .any(|e| text(e, "key") == key)
    };
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        problems.extend(Invalid::each(path.index(i), key, names::qualified_name(key)));
        if selected(key) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            problems.push(Invalid::malformed(path.index(i), key, detail));
        }
    }
    problems
}
