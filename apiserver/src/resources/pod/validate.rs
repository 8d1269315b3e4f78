//! Validation of a pod's spec, in upstream's order; the same for a pod and, with another path, a template.

pub mod affinity;
mod container;
mod dns;
mod environment;
mod mount;
mod probe;
mod requirements;
mod security;
mod volume;

use super::super::json::{flag, integer, items, text};
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, metadata, names, numbers};
use serde_json::Value;
use std::collections::BTreeMap;

/// What the checks of one spec share.
pub struct Context<'a> {
    /// The spec.
    pub spec: &'a Value,
    /// Whether it is a pod's, not a template's.
    pub is_pod: bool,
    /// The sound volumes by name; container mounts refer to these.
    pub volumes: BTreeMap<&'a str, &'a Value>,
}

/// Problems with a pod spec at `path`. `pod_name` is the pod's name where it is known; a template has none.
pub fn pod_spec(spec: &Value, pod_name: Option<&str>, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if spec["terminationGracePeriodSeconds"].is_null() {
        problems.push(Invalid::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let (volumes, wrong) = volume::volumes(items(spec, "volumes"), pod_name, &path.child("volumes"));
    problems.extend(wrong);
    let context = Context {
        spec,
        is_pod: pod_name.is_some(),
        volumes,
    };
    problems.extend(requirements::pod_claims(spec, &path.child("resourceClaims")));
    problems.extend(container::containers(&context, path));
    problems.extend(requirements::pod_level(spec, &path.child("resources")));
    problems.extend(host_network_ports(&context, path));
    problems.extend(restart_policy(spec, &path.child("restartPolicy")));
    problems.extend(dns::policy(spec, &path.child("dnsPolicy")));
    problems.extend(metadata::labels(
        &spec["nodeSelector"],
        &path.child("nodeSelector"),
    ));
    problems.extend(security::pod(spec, &path.child("securityContext")));
    problems.extend(affinity::affinity(&spec["affinity"], &path.child("affinity")));
    problems.extend(dns::config(spec, &path.child("dnsConfig")));
    problems.extend(gates(spec, path));
    problems.extend(affinity::spread(
        items(spec, "topologySpreadConstraints"),
        &path.child("topologySpreadConstraints"),
    ));
    problems.extend(security::host_users(spec, path));
    problems.extend(scheduling(spec, path));
    problems
}

/// The second half of upstream's list: names, deadlines, tolerations, what the scheduler reads.
fn scheduling(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    problems.extend(optional_name(spec, "serviceAccountName", dns1123_subdomain, path));
    problems.extend(optional_name(spec, "nodeName", dns1123_subdomain, path));
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        for message in numbers::in_range(seconds, 1, i64::from(i32::MAX)) {
            problems.push(Invalid::malformed(
                path.child("activeDeadlineSeconds"),
                seconds,
                message,
            ));
        }
    }
    problems.extend(optional_name(spec, "hostname", dns1123_label, path));
    problems.extend(optional_name(spec, "subdomain", dns1123_label, path));
    problems.extend(tolerations(
        items(spec, "tolerations"),
        &path.child("tolerations"),
    ));
    problems.extend(dns::host_aliases(
        items(spec, "hostAliases"),
        &path.child("hostAliases"),
    ));
    problems.extend(optional_name(spec, "priorityClassName", dns1123_subdomain, path));
    problems.extend(optional_name(spec, "runtimeClassName", dns1123_subdomain, path));
    if let Some(policy) = spec["preemptionPolicy"].as_str() {
        problems.extend(one_of(
            policy,
            &["PreemptLowerPriority", "Never"],
            &path.child("preemptionPolicy"),
        ));
    }
    problems.extend(requirements::overhead(&spec["overhead"], &path.child("overhead")));
    problems.extend(security::operating_system(spec, path));
    problems
}

/// A name that may be left out.
fn optional_name(spec: &Value, field: &str, rule: fn(&str) -> Vec<String>, path: &Path) -> Vec<Invalid> {
    match text(spec, field) {
        "" => Vec::new(),
        name => Invalid::each(path.child(field), name, rule(name)),
    }
}

/// A value of an enumeration that must be there.
pub fn one_of(value: &str, supported: &[&str], path: &Path) -> Vec<Invalid> {
    match value {
        "" => vec![Invalid::required(path, "")],
        value if supported.contains(&value) => Vec::new(),
        value => vec![Invalid::not_supported(path, value, supported)],
    }
}

fn restart_policy(spec: &Value, path: &Path) -> Vec<Invalid> {
    one_of(
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
        path,
    )
}

fn gates(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, gate) in items(spec, "readinessGates").iter().enumerate() {
        let condition = text(gate, "conditionType");
        let path = path.child("readinessGates").index(i).child("conditionType");
        problems.extend(Invalid::each(path, condition, names::qualified_name(condition)));
    }
    let mut seen = Vec::new();
    for (i, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        let path = path.child("schedulingGates").index(i);
        problems.extend(Invalid::each(&path, name, names::qualified_name(name)));
        if seen.contains(&name) {
            problems.push(Invalid::duplicate(path, name));
        }
        seen.push(name);
    }
    problems
}

/// On the host's network a port of the container is a port of the host.
fn host_network_ports(context: &Context<'_>, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if !flag(context.spec, "hostNetwork") {
        return problems;
    }
    for (i, container) in items(context.spec, "containers").iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let (host, own) = (integer(port, "hostPort"), integer(port, "containerPort"));
            if (context.is_pod || host != 0) && host != own {
                let path = path.child("containers").index(i).child("ports").index(j);
                let detail = "must match `containerPort` when `hostNetwork` is true";
                problems.push(Invalid::malformed(path.child("hostPort"), host, detail));
            }
        }
    }
    problems
}

/// Problems with tolerations.
pub fn tolerations(tolerations: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            problems.extend(Invalid::each(path.child("key"), key, names::qualified_name(key)));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            problems.push(Invalid::malformed(path.child("operator"), operator, detail));
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            problems.push(Invalid::malformed(path.child("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    problems.push(Invalid::malformed(path.child("operator"), value, wrong.join(";")));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => problems.push(Invalid::malformed(
                path.child("operator"),
                value,
                "value must be empty when `operator` is 'Exists'",
            )),
            other => problems.push(Invalid::not_supported(
                path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() {
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            problems.extend(one_of(effect, &effects, &path.child("effect")));
        }
    }
    problems
}

/// Problems with a pod's own annotations that mean something to the server.
pub fn annotations(annotations: &Value, spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mirror = "kubernetes.io/config.mirror";
    if let Some(value) = annotations[mirror].as_str()
        && text(spec, "nodeName").is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        problems.push(Invalid::malformed(path.key(mirror), value, detail));
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = annotations[cost].as_str()
        && !is_deletion_cost(value)
    {
        problems.push(Invalid::malformed(
            path.key(cost),
            value,
            "must be a 32bit integer",
        ));
    }
    problems
}

/// A 32-bit integer without a plus sign or leading zeros.
fn is_deletion_cost(text: &str) -> bool {
    let plain = !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
    plain && text.parse::<i32>().is_ok()
}

/// What is checked of a pod and not of a template: images are not padded, tokens need an account.
pub fn only_in_pods(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if text(spec, "serviceAccountName").is_empty() {
        for (i, volume) in items(spec, "volumes").iter().enumerate() {
            for (j, source) in items(&volume["projected"], "sources").iter().enumerate() {
                if source["serviceAccountToken"].is_object() {
                    let path = path.child("volumes").index(i).child("projected");
                    let path = path.child("sources").index(j).child("serviceAccountToken");
                    let detail = "must not be specified when serviceAccountName is not set";
                    problems.push(Invalid::forbidden(path, detail));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in items(spec, list).iter().enumerate() {
            problems.extend(container::padded_image(container, &path.child(list).index(i)));
        }
    }
    problems
}

/// A pod template: its metadata and its spec. Upstream prints the paths of its labels and annotations
/// without `metadata`.
pub fn template(template: &Value, path: &Path) -> Vec<Invalid> {
    let spec = &template["spec"];
    let mut problems = template_metadata(template, path);
    problems.extend(pod_spec(spec, None, &path.child("spec")));
    if !items(spec, "ephemeralContainers").is_empty() {
        problems.push(Invalid::forbidden(
            path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    problems
}

/// Problems with the labels and annotations of a pod template.
pub fn template_metadata(template: &Value, path: &Path) -> Vec<Invalid> {
    let meta = &template["metadata"];
    let mut problems = metadata::labels(&meta["labels"], &path.child("labels"));
    let annotations_path = path.child("annotations");
    problems.extend(metadata::annotations(&meta["annotations"], &annotations_path));
    problems.extend(annotations(
        &meta["annotations"],
        &template["spec"],
        &annotations_path,
    ));
    problems
}

/// The names of the claims of a spec.
fn claim_names(spec: &Value) -> Vec<&str> {
    let claims = items(spec, "resourceClaims").iter();
    claims
        .map(|claim| text(claim, "name"))
        .filter(|n| !n.is_empty())
        .collect()
}

#[cfg(test)]
mod tests;
