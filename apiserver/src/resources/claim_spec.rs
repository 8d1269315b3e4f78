//! The spec of a PersistentVolumeClaim, wherever it stands: in a claim, in a StatefulSet's
//! volumeClaimTemplates, in a pod's ephemeral volume.

use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, go, selector};
use serde_json::{Value, json};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// Fill in what a claim's spec leaves out: `volumeMode`, and `resources`, which is always written.
pub fn set_defaults(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    spec.entry("volumeMode").or_insert_with(|| json!("Filesystem"));
    spec.entry("resources").or_insert_with(|| json!({}));
}

/// Problems with a claim's spec.
pub fn validate(spec: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = access_modes(&spec["accessModes"], &path.child("accessModes"));
    // Upstream looks at the selector between "no access mode" and "wrong access mode".
    let selector = selector::label_selector(&spec["selector"], &path.child("selector"));
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        problems.extend(selector);
    } else {
        problems.splice(0..0, selector);
    }
    problems.extend(storage_request(
        &spec["resources"]["requests"]["storage"],
        &path.child("resources").key("storage"),
    ));
    problems.extend(class_name(
        &spec["storageClassName"],
        &path.child("storageClassName"),
    ));
    if let Some(mode) = spec["volumeMode"].as_str()
        && !VOLUME_MODES.contains(&mode)
    {
        problems.push(Invalid::not_supported(
            path.child("volumeMode"),
            mode,
            &VOLUME_MODES,
        ));
    }
    problems.extend(data_source(&spec["dataSource"], &path.child("dataSource")));
    problems.extend(data_source(&spec["dataSourceRef"], &path.child("dataSourceRef")));
    problems.extend(data_sources_agree(spec, path));
    problems.extend(class_name(
        &spec["volumeAttributesClassName"],
        &path.child("volumeAttributesClassName"),
    ));
    problems
}

fn access_modes(modes: &Value, path: &Path) -> Vec<Invalid> {
    let modes: Vec<&str> = modes
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if modes.is_empty() {
        return vec![Invalid::required(path, "at least 1 access mode is required")];
    }
    let wrong = modes.iter().filter(|mode| !ACCESS_MODES.contains(mode));
    let mut problems: Vec<Invalid> = wrong
        .map(|mode| Invalid::not_supported(path, *mode, &ACCESS_MODES))
        .collect();
    let single = |mode: &&str| *mode == "ReadWriteOncePod";
    let other = |mode: &&str| ACCESS_MODES.contains(mode) && !single(mode);
    if modes.iter().any(single) && modes.iter().any(other) {
        problems.push(Invalid::forbidden(
            path,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
    problems
}

fn storage_request(request: &Value, path: &Path) -> Vec<Invalid> {
    if request.is_null() {
        return vec![Invalid::required(path, "")];
    }
    match Quantity::from_json(request) {
        Err(problem) => vec![Invalid::malformed(path, request.clone(), problem)],
        Ok(quantity) if quantity.sign() <= 0 => {
            vec![Invalid::malformed(
                path,
                quantity.to_string(),
                "must be greater than zero",
            )]
        }
        Ok(_) => Vec::new(),
    }
}

fn class_name(name: &Value, path: &Path) -> Vec<Invalid> {
    match name.as_str() {
        None | Some("") => Vec::new(),
        Some(name) => Invalid::each(path, name, dns1123_subdomain(name)),
    }
}

fn data_source(source: &Value, path: &Path) -> Vec<Invalid> {
    if source.is_null() {
        return Vec::new();
    }
    let text = |field: &str| source[field].as_str().unwrap_or_default();
    let mut problems = Vec::new();
    for field in ["name", "kind"] {
        if text(field).is_empty() {
            problems.push(Invalid::required(path.child(field), ""));
        }
    }
    let group = text("apiGroup");
    if group.is_empty() && text("kind") != "PersistentVolumeClaim" {
        problems.push(Invalid::malformed(
            path,
            text("kind"),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ));
    }
    if !group.is_empty() {
        problems.extend(Invalid::each(
            path.child("apiGroup"),
            group,
            dns1123_subdomain(group),
        ));
    }
    let namespace = text("namespace");
    if !namespace.is_empty() {
        problems.extend(Invalid::each(
            path.child("namespace"),
            namespace,
            dns1123_label(namespace),
        ));
    }
    problems
}

fn data_sources_agree(spec: &Value, path: &Path) -> Vec<Invalid> {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if source.is_null() || reference.is_null() {
        return Vec::new();
    }
    // Upstream passes the path where the value should be; a path prints as the structure that it is.
    let printed = go::quote(&path.child("dataSource").to_string());
    let foreign = reference["namespace"].as_str().is_some_and(|ns| !ns.is_empty());
    let same = ["apiGroup", "kind", "name"]
        .iter()
        .all(|field| source[field] == reference[field]);
    let detail = match (foreign, same) {
        (true, _) => "may not be specified when dataSourceRef.namespace is specified",
        (false, false) => "must match dataSourceRef",
        (false, true) => return Vec::new(),
    };
    vec![Invalid::malformed_text(path, printed, detail)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: &Value) -> Vec<String> {
        let problems = validate(spec, &Path::new("spec"));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_leave_what_is_there_alone() {
        let mut spec = json!({"volumeMode": "Block"});
        set_defaults(&mut spec);
        assert_eq!(spec, json!({"volumeMode": "Block", "resources": {}}));
    }

    #[test]
    fn a_claim_needs_an_access_mode_and_a_size() {
        assert_eq!(
            problems(&json!({"resources": {}})),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ]
        );
        let right = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""});
        assert_eq!(problems(&right), Vec::<String>::new());
    }

    #[test]
    fn wrong_values_are_named_one_by_one() {
        let wrong = json!({
            "accessModes": ["ReadWriteOncePod", "ReadWriteOnce", "Sometimes"],
            "resources": {"requests": {"storage": "0"}},
            "storageClassName": "Bad_",
            "volumeMode": "Tape",
            "dataSource": {"kind": "Thing", "name": "x"},
        });
        let fields: Vec<String> = validate(&wrong, &Path::new("spec"))
            .into_iter()
            .map(|p| p.field)
            .collect();
        assert_eq!(
            fields,
            [
                "spec.accessModes",
                "spec.accessModes",
                "spec.resources[storage]",
                "spec.storageClassName",
                "spec.volumeMode",
                "spec.dataSource",
            ]
        );
    }
}
