//! What may change in a pod's status: a terminated container that does not restart stays so, addresses are
//! addresses, the quality of service is settled at creation.

use super::super::json::{items, text};
use crate::validation::{Invalid, Path, dns1123_subdomain, names};
use serde_json::Value;

/// Problems with a changed status.
pub fn validate(new: &Value, old: &Value) -> Vec<Invalid> {
    let path = Path::new("status");
    let policy = text(&old["spec"], "restartPolicy");
    let mut problems = conditions(&new["status"], &Path::new("metadata").child("conditions"));
    let (spec, new, old) = (&old["spec"], &new["status"], &old["status"]);
    let nominated = text(new, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(old, "nominatedNodeName") {
        problems.extend(Invalid::each(
            path.child("nominatedNodeName"),
            nominated,
            dns1123_subdomain(nominated),
        ));
    }
    if new["qosClass"] != old["qosClass"] && !old["qosClass"].is_null() {
        let class = new["qosClass"].clone();
        problems.push(Invalid::malformed(
            path.child("qosClass"),
            class,
            "field is immutable",
        ));
    }
    for (field, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        // Ephemeral containers are never restarted, whatever the pod's policy.
        ("ephemeralContainerStatuses", "Never"),
    ] {
        let sidecars = items(spec, "initContainers")
            .iter()
            .filter(|c| field == "initContainerStatuses" && text(c, "restartPolicy") == "Always")
            .map(|c| text(c, "name"))
            .collect::<Vec<_>>();
        problems.extend(restarts(
            items(new, field),
            items(old, field),
            policy,
            &sidecars,
            &path.child(field),
        ));
    }
    problems.extend(addresses(new, "podIPs", &path));
    if let Some(first) = items(new, "hostIPs").first()
        && text(first, "ip") != text(new, "hostIP")
    {
        let at = path.child("hostIPs").index(0).child("ip");
        problems.push(Invalid::malformed(
            at,
            text(first, "ip"),
            "must be equal to `hostIP`",
        ));
    }
    problems.extend(addresses(new, "hostIPs", &path));
    problems
}

/// Conditions of one's own have qualified names. (Upstream reports them under `metadata`.)
fn conditions(status: &Value, path: &Path) -> Vec<Invalid> {
    let conditions = items(status, "conditions").iter().enumerate();
    conditions
        .map(|(i, condition)| (i, text(condition, "type")))
        .filter(|(_, kind)| !matches!(*kind, "PodScheduled" | "Ready" | "Initialized"))
        .flat_map(|(i, kind)| Invalid::each(path.index(i).child("Type"), kind, names::qualified_name(kind)))
        .collect()
}

fn restarts(new: &[Value], old: &[Value], policy: &str, sidecars: &[&str], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if policy == "Always" {
        return problems;
    }
    for (i, before) in old.iter().enumerate() {
        let terminated = &before["state"]["terminated"];
        let failed = terminated["exitCode"].as_i64().unwrap_or_default() != 0;
        let name = text(before, "name");
        if terminated.is_null() || (failed && policy == "OnFailure") || sidecars.contains(&name) {
            continue;
        }
        let revived =
            |status: &&Value| text(status, "name") == name && status["state"]["terminated"].is_null();
        for _ in new.iter().filter(revived) {
            let detail = "may not be transitioned to non-terminated state";
            problems.push(Invalid::forbidden(path.index(i).child("state"), detail));
        }
    }
    problems
}

fn addresses(status: &Value, field: &str, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let path = path.child(field);
    let ips: Vec<&str> = items(status, field).iter().map(|a| text(a, "ip")).collect();
    for (i, ip) in ips.iter().enumerate() {
        problems.extend(Invalid::each(path.index(i), ip, names::ip(ip)));
    }
    let families = |v6: bool| ips.iter().filter(|ip| ip.contains(':') == v6).count();
    if ips.len() > 1 && (ips.len() > 2 || families(true) != families(false)) {
        let detail = "may specify no more than one IP for each IP family";
        problems.push(Invalid::malformed(&path, status[field].clone(), detail));
    }
    for (i, ip) in ips.iter().enumerate() {
        if ips[..i].contains(ip) {
            problems.push(Invalid::duplicate(path.index(i), status[field][i].clone()));
        }
    }
    problems
}
