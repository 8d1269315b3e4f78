//! Requests and limits, and the claims that containers refer to.

use super::super::super::json::{entries, items, text};
use super::one_of;
use crate::validation::numbers::NOT_NEGATIVE;
use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, names};
use serde_json::{Value, json};

const STANDARD: [&str; 4] = ["cpu", "ephemeral-storage", "memory", "storage"];

/// Problems with the requests, limits and claims of a container.
pub fn requirements(resources: &Value, claims: &[&str], path: &Path) -> Vec<Invalid> {
    let mut problems = amounts(resources, container_resource, path);
    problems.extend(claim_references(resources, claims, &path.child("claims")));
    problems
}

/// Problems with the resources of a whole pod.
pub fn pod_level(spec: &Value, path: &Path) -> Vec<Invalid> {
    let resources = &spec["resources"];
    if resources.is_null() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if !resources["claims"].is_null() {
        let detail = "claims cannot be set for Resources at pod-level";
        problems.push(Invalid::forbidden(path.child("claims"), detail));
    }
    problems.extend(amounts(resources, pod_resource, path));
    problems
}

/// Problems with the overhead that a runtime class adds.
pub fn overhead(overhead: &Value, path: &Path) -> Vec<Invalid> {
    amounts(&json!({ "limits": overhead }), container_resource, path)
}

type NameRule = fn(&str, &Path) -> Vec<Invalid>;

fn amounts(resources: &Value, rule: NameRule, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let limit = |name: &str| Quantity::from_json(&resources["limits"][name]).ok();
    for (which, is_request) in [("limits", false), ("requests", true)] {
        let at = path.child(which);
        for (name, value) in entries(resources, which) {
            let key = at.key(name);
            let quantity = match Quantity::from_json(value) {
                Ok(quantity) => quantity,
                Err(problem) => {
                    problems.push(Invalid::malformed(key, value.clone(), problem));
                    continue;
                }
            };
            problems.extend(rule(name, &key));
            problems.extend(amount(name, quantity, &key));
            let overcommit = is_native(name) && !name.starts_with("hugepages-");
            match limit(name).filter(|_| is_request) {
                Some(limit) if !overcommit && quantity != limit => {
                    let detail = format!("must be equal to {name} limit of {limit}");
                    problems.push(Invalid::malformed(&at, quantity.to_string(), detail));
                }
                Some(limit) if quantity > limit => {
                    let detail = format!("must be less than or equal to {name} limit of {limit}");
                    problems.push(Invalid::malformed(&at, quantity.to_string(), detail));
                }
                None if is_request && !overcommit => {
                    let detail = "Limit must be set for non overcommitable resources";
                    problems.push(Invalid::required(path.child("limits"), detail));
                }
                _ => {}
            }
        }
    }
    problems.extend(huge_pages(resources, path));
    problems
}

fn amount(name: &str, quantity: Quantity, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if quantity.sign() < 0 {
        problems.push(Invalid::malformed(path, quantity.to_string(), NOT_NEGATIVE));
    }
    // Only what is counted must be whole; bytes may be fractions, with a warning.
    if !is_native(name) && quantity.milli_value() % 1000 != 0 {
        problems.push(Invalid::malformed(
            path,
            quantity.to_string(),
            "must be an integer",
        ));
    }
    if let Some(size) = name.strip_prefix("hugepages-")
        && let Ok(page) = Quantity::parse(size)
        && (page.value() <= 0 || quantity.value() % page.value() != 0)
    {
        let detail = format!("{quantity} is not positive integer multiple of {name}");
        problems.push(Invalid::malformed(path, quantity.to_string(), detail));
    }
    problems
}

fn huge_pages(resources: &Value, path: &Path) -> Option<Invalid> {
    let has = |wanted: &dyn Fn(&str) -> bool| {
        ["limits", "requests"]
            .iter()
            .any(|which| entries(resources, which).any(|(name, _)| wanted(name)))
    };
    let alone = has(&|name| name.starts_with("hugepages-")) && !has(&|name| matches!(name, "cpu" | "memory"));
    alone.then(|| Invalid::forbidden(path, "HugePages require cpu or memory"))
}

/// A resource that Kubernetes itself defines: without a prefix, or with its own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn container_resource(name: &str, path: &Path) -> Vec<Invalid> {
    let mut problems = Invalid::each(path, name, names::qualified_name(name));
    if !problems.is_empty() {
        return problems;
    }
    let standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') {
        if !standard {
            let detail = "must be a standard resource type or fully qualified";
            problems.push(Invalid::malformed(path, name, detail));
        }
        if !standard || name == "storage" {
            let detail = "must be a standard resource for containers";
            problems.push(Invalid::malformed(path, name, detail));
        }
    } else if is_native(name) || !is_extended(name) {
        let detail = "doesn't follow extended resource name standard";
        problems.push(Invalid::malformed(path, name, detail));
    }
    problems
}

fn is_extended(name: &str) -> bool {
    !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn pod_resource(name: &str, path: &Path) -> Vec<Invalid> {
    let problems = Invalid::each(path, name, names::qualified_name(name));
    let supported = ["cpu", "memory"];
    if !problems.is_empty() || supported.contains(&name) || name.starts_with("hugepages-") {
        return problems;
    }
    vec![Invalid::not_supported(
        path,
        name,
        &["cpu", "hugepages-", "memory"],
    )]
}

/// Problems with the claims that a pod declares.
pub fn pod_claims(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (i, claim) in items(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            problems.push(Invalid::required(path.child("name"), ""));
        } else if seen.contains(&name) {
            problems.push(Invalid::duplicate(path.child("name"), name));
        } else {
            problems.extend(Invalid::each(path.child("name"), name, dns1123_label(name)));
            seen.push(name);
        }
        let fields = ["resourceClaimName", "resourceClaimTemplateName"];
        let given: Vec<&str> = fields.into_iter().filter(|f| !claim[*f].is_null()).collect();
        if given.len() == 2 {
            let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            problems.push(Invalid::malformed(&path, claim.clone(), detail));
        } else if given.is_empty() {
            let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            problems.push(Invalid::malformed(&path, claim.clone(), detail));
        }
        for field in given {
            let value = text(claim, field);
            problems.extend(Invalid::each(path.child(field), value, dns1123_subdomain(value)));
        }
    }
    problems
}

fn claim_references(resources: &Value, declared: &[&str], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, claim) in items(resources, "claims").iter().enumerate() {
        let path = path.index(i);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            problems.push(Invalid::required(path, ""));
            continue;
        }
        let repeated =
            |(n, r): &(&str, &str)| *n == name && (*r == request || r.is_empty() || request.is_empty());
        if seen.iter().any(repeated) {
            problems.push(Invalid::duplicate(&path, name));
        }
        seen.push((name, request));
        if !declared.contains(&name) {
            problems.push(Invalid::not_found(path, name));
        }
    }
    problems
}

/// Problems with what a change of resources does to a container.
pub fn resize_policy(spec: &Value, container: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (i, policy) in items(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            problems.push(Invalid::duplicate(path.index(i), resource));
        }
        seen.push(resource);
        problems.extend(one_of(resource, &["cpu", "memory"], path));
        problems.extend(one_of(restart, &["NotRequired", "RestartContainer"], path));
        if text(spec, "restartPolicy") == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            problems.push(Invalid::malformed(path, restart, detail));
        }
    }
    problems
}
