//! Environment variables: their names, and where their values come from.

use super::super::super::json::{items, text};
use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path, dns1123_subdomain, names};
use serde_json::Value;

/// Fields of a pod that a variable may hold.
const VARIABLE_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that a file of a downward API volume may hold.
pub const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// All that the downward API knows, for variables or files; all else is "not supported" as a label.
const KNOWN_FIELDS: [&str; 12] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.podIP",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Problems with a list of variables.
pub fn variables(variables: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            problems.push(Invalid::required(path.child("name"), ""));
        } else {
            problems.extend(Invalid::each(path.child("name"), name, names::env_var_name(name)));
        }
        problems.extend(value_from(variable, &path.child("valueFrom")));
    }
    problems
}

fn value_from(variable: &Value, path: &Path) -> Vec<Invalid> {
    let source = &variable["valueFrom"];
    if source.is_null() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut sources = 0;
    for kind in [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ] {
        let reference = &source[kind];
        if reference.is_null() {
            continue;
        }
        sources += 1;
        let path = path.child(kind);
        problems.extend(match kind {
            "fieldRef" => field(reference, &VARIABLE_FIELDS, &path),
            "resourceFieldRef" => resource(reference, false, &path),
            "fileKeyRef" => Vec::new(),
            _ => key(reference, &path),
        });
    }
    let detail = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !text(variable, "value").is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return problems;
    };
    problems.push(Invalid::malformed(path, "", detail));
    problems
}

/// A reference to a field of the pod; `allowed` says which make sense here.
pub fn field(reference: &Value, allowed: &[&str], path: &Path) -> Vec<Invalid> {
    for field in ["apiVersion", "fieldPath"] {
        if text(reference, field).is_empty() {
            return vec![Invalid::required(path.child(field), "")];
        }
    }
    let (version, field) = (text(reference, "apiVersion"), text(reference, "fieldPath"));
    let unconvertible = |detail: String| {
        let detail = format!("error converting fieldPath: {detail}");
        vec![Invalid::malformed(path.child("fieldPath"), field, detail)]
    };
    if version != "v1" {
        return unconvertible(format!(
            "unsupported pod version: {}",
            crate::validation::go::quote(version)
        ));
    }
    let subscripted = field.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    if let Some((whole, subscript)) = subscripted {
        return match whole {
            "metadata.annotations" => {
                let lower = subscript.to_lowercase();
                Invalid::each(path, &lower, names::qualified_name(&lower))
            }
            "metadata.labels" => Invalid::each(path, subscript, names::qualified_name(subscript)),
            _ => unconvertible(format!("field label does not support subscript: {field}")),
        };
    }
    let known = KNOWN_FIELDS.contains(&field) || VARIABLE_FIELDS.contains(&field);
    if !known {
        return unconvertible(format!("field label not supported: {field}"));
    }
    if !allowed.contains(&field) {
        return vec![Invalid::not_supported(path.child("fieldPath"), field, allowed)];
    }
    Vec::new()
}

/// A reference to a container's requests or limits; a volume has to say whose.
pub fn resource(reference: &Value, in_volume: bool, path: &Path) -> Vec<Invalid> {
    let name = text(reference, "resource");
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    let mut problems = Vec::new();
    if in_volume && text(reference, "containerName").is_empty() {
        problems.push(Invalid::required(path.child("containerName"), ""));
    } else if name.is_empty() {
        problems.push(Invalid::required(path.child("resource"), ""));
    } else if !RESOURCES.contains(&name) && !huge {
        problems.push(Invalid::not_supported(path.child("resource"), name, &RESOURCES));
    }
    let divisor =
        Quantity::from_json(&reference["divisor"]).map_or_else(|_| "0".to_owned(), |d| d.to_string());
    let (supported, what): (&[&str], &str) = match name.split_once('.') {
        Some((_, "cpu")) => (&["1m", "1"], "cpu"),
        Some((_, "memory")) => (&SIZES, "memory"),
        Some((_, "ephemeral-storage")) => (&SIZES, "local ephemeral storage"),
        _ if huge => (&SIZES, "hugepages"),
        _ => return problems,
    };
    if divisor != "0" && !supported.contains(&divisor.as_str()) {
        let list = if what == "cpu" {
            "1m and 1".to_owned()
        } else {
            supported.join(", ")
        };
        let detail = format!("only divisor's values {list} are supported with the {what} resource");
        problems.push(Invalid::malformed(path.child("divisor"), name, detail));
    }
    problems
}

fn key(reference: &Value, path: &Path) -> Vec<Invalid> {
    let (name, key) = (text(reference, "name"), text(reference, "key"));
    let mut problems = Invalid::each(path.child("name"), name, dns1123_subdomain(name));
    if key.is_empty() {
        problems.push(Invalid::required(path.child("key"), ""));
    } else {
        problems.extend(Invalid::each(path.child("key"), key, names::config_map_key(key)));
    }
    problems
}

/// Problems with the sources of whole sets of variables.
pub fn sources(sources: &[Value], path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        let item = path.index(i);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            problems.extend(Invalid::each(
                item.child("prefix"),
                prefix,
                names::env_var_name(prefix),
            ));
        }
        let kinds = ["configMapRef", "secretRef"];
        let given: Vec<&str> = kinds
            .into_iter()
            .filter(|kind| !source[*kind].is_null())
            .collect();
        for kind in &given {
            let name = text(&source[*kind], "name");
            let path = item.child(kind).child("name");
            if name.is_empty() {
                problems.push(Invalid::required(path, ""));
            } else {
                problems.extend(Invalid::each(path, name, dns1123_subdomain(name)));
            }
        }
        // Upstream reports these on the list, not on the item.
        if given.is_empty() {
            let detail = "must specify one of: `configMapRef` or `secretRef`";
            problems.push(Invalid::malformed(path, "", detail));
        } else if given.len() > 1 {
            let detail = "may not have more than one field specified at a time";
            problems.push(Invalid::malformed(path, "", detail));
        }
    }
    problems
}

/// A file of a downward API volume; `path` is that of the volume's source.
pub fn file(file: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = super::volume::file_path(text(file, "path"), &path.child("path"));
    let (field_ref, resource_ref) = (&file["fieldRef"], &file["resourceFieldRef"]);
    if field_ref.is_object() {
        problems.extend(field(field_ref, &FILE_FIELDS, &path.child("fieldRef")));
        if resource_ref.is_object() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            problems.push(Invalid::malformed(path, "resource", detail));
        }
    } else if resource_ref.is_object() {
        problems.extend(resource(resource_ref, true, &path.child("resourceFieldRef")));
    } else {
        let detail = "one of fieldRef and resourceFieldRef is required";
        problems.push(Invalid::required(path, detail));
    }
    problems.extend(super::volume::mode(&file["mode"], &path.child("mode")));
    problems
}

/// The files of a downward API source.
pub fn files(source: &Value, path: &Path) -> Vec<Invalid> {
    items(source, "items")
        .iter()
        .flat_map(|f| file(f, path))
        .collect()
}
