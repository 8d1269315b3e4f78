//! Containers of all three lists: what they share, and what only some of them may have.

use super::super::super::json::{flag, integer, items, text};
use super::{Context, environment, mount, one_of, probe, requirements, security};
use crate::validation::{Invalid, Path, dns1123_label, names, numbers};
use serde_json::Value;

/// Problems with the containers of a spec at `path`.
pub fn containers(context: &Context<'_>, path: &Path) -> Vec<Invalid> {
    let mut problems = regular(context, &path.child("containers"));
    problems.extend(init(context, &path.child("initContainers")));
    problems.extend(ephemeral(context, &path.child("ephemeralContainers")));
    problems
}

fn regular(context: &Context<'_>, path: &Path) -> Vec<Invalid> {
    let containers = items(context.spec, "containers");
    if containers.is_empty() {
        return vec![Invalid::required(path, "")];
    }
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        problems.extend(common(context, container, &path));
        let name = text(container, "name");
        if seen.contains(&name) {
            problems.push(Invalid::duplicate(path.child("name"), name));
        }
        seen.push(name);
        problems.extend(probe::hooks_and_probes(context, container, &path));
        if let Some(policy) = container["restartPolicy"].as_str() {
            problems.extend(one_of(
                policy,
                &["Always", "OnFailure", "Never"],
                &path.child("restartPolicy"),
            ));
        }
    }
    problems.extend(host_port_conflicts(containers, path));
    problems
}

fn init(context: &Context<'_>, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen: Vec<&str> = items(context.spec, "containers")
        .iter()
        .map(|c| text(c, "name"))
        .collect();
    for (i, container) in items(context.spec, "initContainers").iter().enumerate() {
        let list = path;
        let path = path.index(i);
        problems.extend(common(context, container, &path));
        let policy = container["restartPolicy"].as_str();
        if let Some(policy) = policy {
            problems.extend(one_of(
                policy,
                &["Always", "OnFailure", "Never"],
                &path.child("restartPolicy"),
            ));
        }
        let name = text(container, "name");
        if seen.contains(&name) {
            problems.push(Invalid::duplicate(path.child("name"), name));
        } else if !name.is_empty() {
            seen.push(name);
        }
        problems.extend(host_port_conflicts(std::slice::from_ref(container), list));
        if policy == Some("Always") {
            problems.extend(probe::hooks_and_probes(context, container, &path));
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !container[field].is_null() {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    problems.push(Invalid::forbidden(path.child(field), detail));
                }
            }
        }
    }
    problems
}

/// What an ephemeral container may not have.
const NOT_EPHEMERAL: [&str; 8] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
];

fn ephemeral(context: &Context<'_>, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let others: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| items(context.spec, list))
        .map(|container| text(container, "name"))
        .collect();
    let mut seen = others.clone();
    for (i, container) in items(context.spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        problems.extend(common(context, container, &path));
        problems.extend(padded_image(container, &path));
        let name = text(container, "name");
        if seen.contains(&name) {
            problems.push(Invalid::duplicate(path.child("name"), name));
        }
        seen.push(name);
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            problems.push(Invalid::not_found(path.child("targetContainerName"), target));
        }
        let detail = "cannot be set for an Ephemeral Container";
        for field in NOT_EPHEMERAL {
            let empty = container[field].is_null()
                || container[field].as_object().is_some_and(|o| o.is_empty())
                || container[field].as_array().is_some_and(Vec::is_empty);
            if !empty {
                problems.push(Invalid::forbidden(path.child(field), detail));
            }
        }
        for (j, mount) in items(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    let path = path.child("volumeMounts").index(j).child(field);
                    problems.push(Invalid::forbidden(path, detail));
                }
            }
        }
    }
    problems
}

/// What is checked of every container, in upstream's order.
fn common(context: &Context<'_>, container: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let name = text(container, "name");
    if name.is_empty() {
        problems.push(Invalid::required(path.child("name"), ""));
    } else {
        problems.extend(Invalid::each(path.child("name"), name, dns1123_label(name)));
    }
    if text(container, "image").is_empty() {
        problems.push(Invalid::required(path.child("image"), ""));
    }
    problems.extend(one_of(
        text(container, "terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
        &path.child("terminationMessagePolicy"),
    ));
    problems.extend(ports(items(container, "ports"), &path.child("ports")));
    problems.extend(environment::variables(
        items(container, "env"),
        &path.child("env"),
    ));
    problems.extend(environment::sources(
        items(container, "envFrom"),
        &path.child("envFrom"),
    ));
    problems.extend(mount::mounts(context, container, &path.child("volumeMounts")));
    problems.extend(mount::devices(context, container, &path.child("volumeDevices")));
    problems.extend(one_of(
        text(container, "imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        &path.child("imagePullPolicy"),
    ));
    problems.extend(requirements::requirements(
        &container["resources"],
        &super::claim_names(context.spec),
        &path.child("resources"),
    ));
    problems.extend(requirements::resize_policy(
        context.spec,
        container,
        &path.child("resizePolicy"),
    ));
    problems.extend(security::container(
        context.spec,
        container,
        &path.child("securityContext"),
    ));
    problems
}

fn ports(ports: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && seen.contains(&name) {
                problems.push(Invalid::duplicate(path.child("name"), name));
            }
            problems.extend(Invalid::each(path.child("name"), name, wrong));
            seen.push(name);
        }
        match integer(port, "containerPort") {
            0 => problems.push(Invalid::required(path.child("containerPort"), "")),
            number => problems.extend(port_number(number, &path.child("containerPort"))),
        }
        let host_port = integer(port, "hostPort");
        if host_port != 0 {
            problems.extend(port_number(host_port, &path.child("hostPort")));
        }
        problems.extend(one_of(
            text(port, "protocol"),
            &["SCTP", "TCP", "UDP"],
            &path.child("protocol"),
        ));
    }
    problems
}

fn port_number(number: i64, path: &Path) -> impl Iterator<Item = Invalid> {
    let messages = numbers::port(number).into_iter();
    messages.map(move |message| Invalid::malformed(path, number, message))
}

fn host_port_conflicts(containers: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let number = integer(port, "hostPort");
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                problems.push(Invalid::duplicate(path, key.as_str()));
            }
            seen.push(key);
        }
    }
    problems
}

/// An image name may not begin or end with white space, except in a template, for old times' sake.
pub fn padded_image(container: &Value, path: &Path) -> Option<Invalid> {
    let image = text(container, "image");
    let detail = "must not have leading or trailing whitespace";
    (image.trim() != image).then(|| Invalid::malformed(path.child("image"), image, detail))
}

/// Whether a container may do as it likes on its host.
pub fn is_privileged(container: &Value) -> bool {
    flag(&container["securityContext"], "privileged")
}
