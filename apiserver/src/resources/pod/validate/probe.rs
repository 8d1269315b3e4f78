//! Probes and lifecycle hooks, and the handlers that both are made of.

use super::super::super::json::{integer, items, text};
use super::Context;
use crate::validation::{Invalid, Path, names, numbers};
use serde_json::Value;

/// Problems with the hooks and probes of a container that may have them.
pub fn hooks_and_probes(context: &Context<'_>, container: &Value, path: &Path) -> Vec<Invalid> {
    let grace = context.spec["terminationGracePeriodSeconds"].as_i64();
    let mut problems = Vec::new();
    let lifecycle = &container["lifecycle"];
    for hook in ["postStart", "preStop"] {
        if lifecycle[hook].is_object() {
            let path = path.child("lifecycle").child(hook);
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            problems.extend(handler(&lifecycle[hook], &kinds, grace, &path));
        }
    }
    if !text(lifecycle, "stopSignal").is_empty() && context.spec["os"]["name"].is_null() {
        let detail = "may not be set for containers with empty `spec.os.name`";
        problems.push(Invalid::forbidden(
            path.child("lifecycle").child("stopSignal"),
            detail,
        ));
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[field].is_object() {
            problems.extend(probe(&container[field], field, &path.child(field)));
        }
    }
    problems
}

fn probe(probe: &Value, kind: &str, path: &Path) -> Vec<Invalid> {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc"];
    let mut problems = handler(probe, &kinds, None, path);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        problems.extend(numbers::non_negative(&probe[field], &path.child(field)));
    }
    let grace_path = path.child("terminationGracePeriodSeconds");
    let grace = probe["terminationGracePeriodSeconds"].as_i64();
    if let Some(seconds) = grace
        && seconds <= 0
    {
        problems.push(Invalid::malformed(&grace_path, seconds, "must be greater than 0"));
    }
    if kind == "readinessProbe" {
        if let Some(seconds) = grace {
            let detail = "must not be set for readinessProbes";
            problems.push(Invalid::malformed(grace_path, seconds, detail));
        }
    } else if integer(probe, "successThreshold") != 1 {
        let threshold = integer(probe, "successThreshold");
        problems.push(Invalid::malformed(
            path.child("successThreshold"),
            threshold,
            "must be 1",
        ));
    }
    problems
}

/// Exactly one of `kinds`, and that one sound.
fn handler(handler: &Value, kinds: &[&str], grace: Option<i64>, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut found = false;
    for kind in kinds {
        let action = &handler[*kind];
        if !action.is_object() {
            continue;
        }
        let path = path.child(kind);
        if found {
            problems.push(Invalid::forbidden(
                path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        found = true;
        match *kind {
            "exec" if items(action, "command").is_empty() => {
                problems.push(Invalid::required(path.child("command"), ""));
            }
            "exec" => {}
            "httpGet" => problems.extend(http_get(action, &path)),
            "sleep" => problems.extend(sleep(action, grace, &path)),
            _ => problems.extend(numbers::port_number_or_name(&action["port"], &path.child("port"))),
        }
    }
    if !found {
        problems.push(Invalid::required(path, "must specify a handler type"));
    }
    problems
}

fn http_get(action: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if text(action, "path").is_empty() {
        problems.push(Invalid::required(path.child("path"), ""));
    }
    problems.extend(numbers::port_number_or_name(&action["port"], &path.child("port")));
    let scheme = text(action, "scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        problems.push(Invalid::not_supported(
            path.child("scheme"),
            scheme,
            &["HTTP", "HTTPS"],
        ));
    }
    for header in items(action, "httpHeaders") {
        let name = text(header, "name");
        problems.extend(Invalid::each(
            path.child("httpHeaders"),
            name,
            names::http_header_name(name),
        ));
    }
    problems
}

fn sleep(action: &Value, grace: Option<i64>, path: &Path) -> Option<Invalid> {
    let (seconds, grace) = (integer(action, "seconds"), grace?);
    if (0..=grace).contains(&seconds) {
        return None;
    }
    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    Some(Invalid::malformed(path, seconds, detail))
}
