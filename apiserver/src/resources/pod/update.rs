//! What may change in a pod: images, a deadline's end, added tolerations, removed gates.

use super::super::json::{entries, items, set, text};
use super::validate;
use crate::validation::{Invalid, Path, numbers};
use serde_json::{Value, json};

/// What the refusal of any other change says.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is checked of a pod on every write.
pub fn whole(pod: &Value) -> Vec<Invalid> {
    let (spec, meta, path) = (&pod["spec"], &pod["metadata"], Path::new("spec"));
    let annotations_path = Path::new("metadata").child("annotations");
    let mut problems = validate::annotations(&meta["annotations"], spec, &annotations_path);
    problems.extend(validate::pod_spec(spec, Some(text(meta, "name")), &path));
    problems.extend(validate::only_in_pods(spec, &path));
    problems
}

/// Problems with changed ephemeral containers: they come and never change or go.
pub fn ephemeral_containers(new: &Value, old: &Value) -> Vec<Invalid> {
    const LIST: &str = "ephemeralContainers";
    let mut problems = whole(new);
    for before in items(&old["spec"], LIST) {
        let name = text(before, "name");
        let after = items(&new["spec"], LIST)
            .iter()
            .find(|container| text(container, "name") == name);
        let what = match after {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        // Upstream's message ends in a new line, too.
        let detail = format!("existing ephemeral containers {name:?} may not be {what}\n");
        problems.push(Invalid::forbidden(Path::new("spec").child(LIST), detail));
    }
    problems
}

/// Problems with a changed pod.
pub fn validate(new: &Value, old: &Value) -> Vec<Invalid> {
    let mut problems = whole(new);
    problems.extend(annotations(new, old));
    let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    for list in ["containers", "initContainers"] {
        if items(new, list).len() != items(old, list).len() {
            let detail = "pod updates may not add or remove containers";
            problems.push(Invalid::forbidden(path.child(list), detail));
            return problems;
        }
    }
    let deadline = deadline(new, old, &path.child("activeDeadlineSeconds"));
    // A deadline that may not be set ends the list; one that was taken away does not.
    let ends = !deadline.is_empty() && !new["activeDeadlineSeconds"].is_null();
    problems.extend(deadline);
    if ends {
        return problems;
    }
    problems.extend(tolerations(new, old, &path.child("tolerations")));
    problems.extend(scheduling_gates(new, old, &path.child("schedulingGates")));
    let gated = !items(old, "schedulingGates").is_empty();
    if gated {
        problems.extend(node_selector(new, old, &path.child("nodeSelector")));
    }
    if munged(new, old, gated) != *old {
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n");
        problems.push(Invalid::forbidden(path, detail));
    }
    problems
}

/// The new spec with everything that may change set back.
fn munged(new: &Value, old: &Value, gated: bool) -> Value {
    let mut spec = new.clone();
    for list in ["containers", "initContainers"] {
        for (i, before) in items(old, list).iter().enumerate() {
            set(&mut spec[list][i], "image", before["image"].clone());
        }
    }
    let mut restored = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if gated {
        restored.push("nodeSelector");
    }
    let (grace, before) = (
        new["terminationGracePeriodSeconds"].as_i64(),
        old["terminationGracePeriodSeconds"].as_i64(),
    );
    if grace == Some(1) && before.is_some_and(|seconds| seconds < 0) {
        restored.push("terminationGracePeriodSeconds");
    }
    for field in restored {
        restore(&mut spec, old, field);
    }
    if gated && spec["affinity"] != old["affinity"] {
        let mut affinity = spec["affinity"].clone();
        if !affinity.is_object() {
            affinity = json!({});
        }
        restore(&mut affinity, &old["affinity"], "nodeAffinity");
        match old["affinity"].is_null() && affinity == json!({}) {
            true => restore(&mut spec, old, "affinity"),
            false => set(&mut spec, "affinity", affinity),
        }
    }
    spec
}

fn restore(spec: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => set(spec, field, value.clone()),
        None => {
            if let Some(spec) = spec.as_object_mut() {
                spec.remove(field);
            }
        }
    }
}

/// A mirror pod stays one, a pod does not become one.
fn annotations(new: &Value, old: &Value) -> Vec<Invalid> {
    let key = "kubernetes.io/config.mirror";
    let path = Path::new("metadata").child("annotations").key(key);
    let (new, old) = (
        &new["metadata"]["annotations"][key],
        &old["metadata"]["annotations"][key],
    );
    match (old.is_null(), old == new) {
        (_, true) => Vec::new(),
        (true, false) => vec![Invalid::forbidden(path, "may not add mirror pod annotation")],
        (false, false) => vec![Invalid::forbidden(
            path,
            "may not remove or update mirror pod annotation",
        )],
    }
}

fn deadline(new: &Value, old: &Value, path: &Path) -> Vec<Invalid> {
    let field = "activeDeadlineSeconds";
    match (new[field].as_i64(), old[field].as_i64()) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            let detail = numbers::in_range(new, 0, i64::from(i32::MAX)).concat();
            vec![Invalid::malformed(path, new, detail)]
        }
        (Some(new), Some(old)) if old < new => {
            let detail = "must be less than or equal to previous value";
            vec![Invalid::malformed(path, new, detail)]
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            vec![Invalid::malformed_text(path, "\"null\"", detail)]
        }
        _ => Vec::new(),
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path) -> Vec<Invalid> {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let kept: Vec<Value> = items(new, "tolerations").iter().map(without_seconds).collect();
    if !items(old, "tolerations")
        .iter()
        .all(|old| kept.contains(&without_seconds(old)))
    {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return vec![Invalid::forbidden(path, detail)];
    }
    validate::tolerations(items(new, "tolerations"), path)
}

fn scheduling_gates(new: &Value, old: &Value, path: &Path) -> Vec<Invalid> {
    let before: Vec<&str> = items(old, "schedulingGates")
        .iter()
        .map(|g| text(g, "name"))
        .collect();
    let gates = items(new, "schedulingGates").iter().enumerate();
    gates
        .map(|(i, gate)| (i, text(gate, "name")))
        .filter(|(_, name)| !before.contains(name))
        .map(|(i, name)| {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            Invalid::forbidden(path.index(i).child("name"), detail)
        })
        .collect()
}

fn node_selector(new: &Value, old: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if entries(old, "nodeSelector").any(|(key, value)| new["nodeSelector"].get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        problems.push(Invalid::malformed(path, new["nodeSelector"].clone(), detail));
    }
    problems
}
