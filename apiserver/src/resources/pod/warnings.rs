//! Warnings about pods and templates: what is accepted and probably not meant.

use super::super::json::{entries, integer, items, text};
use crate::validation::quantity::Quantity;
use crate::validation::{Path, go};
use serde_json::Value;

/// Warnings about a spec and its metadata. `path` leads to what holds both: empty for a pod.
pub fn pod(spec: &Value, meta: &Value, path: &Path) -> Vec<String> {
    let at = path.child("spec");
    let mut warnings = node_labels(spec, &at);
    warnings.extend(spreading(spec, &at));
    warnings.extend(annotations(meta, &path.child("metadata").child("annotations")));
    warnings.extend(volumes(spec, &at.child("volumes")));
    warnings.extend(duplicates(spec, "hostAliases", "ip", &at));
    warnings.extend(duplicates(spec, "imagePullSecrets", "name", &at));
    warnings.extend(empty_pull_secrets(spec, &at.child("imagePullSecrets")));
    warnings.extend(fractions(&spec["overhead"], &at.child("overhead")));
    let mut ports = Vec::new();
    let mut port_warnings = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in items(spec, list).iter().enumerate() {
            let at = at.child(list).index(i);
            for which in ["limits", "requests"] {
                let path = at.child("resources").child(which);
                warnings.extend(fractions(&container["resources"][which], &path));
            }
            warnings.extend(environment(container, &at.child("env")));
            port_warnings.extend(overlapping(container, &at.child("ports"), &mut ports));
        }
    }
    warnings.extend(port_warnings);
    if integer(spec, "terminationGracePeriodSeconds") < 0 {
        let at = at.child("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{at}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings.extend(affinity(spec, &at.child("affinity")));
    warnings
}

/// Labels of nodes that have another name now.
const OLD_LABELS: [(&str, &str); 5] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

fn deprecated(label: &str) -> Option<&'static str> {
    OLD_LABELS
        .iter()
        .find(|(old, _)| *old == label)
        .map(|(_, message)| *message)
}

fn node_labels(spec: &Value, path: &Path) -> Vec<String> {
    let path = path.child("nodeSelector");
    entries(spec, "nodeSelector")
        .filter_map(|(key, _)| Some(format!("{}: {}", path.key(key), deprecated(key)?)))
        .collect()
}

fn no_selector(path: &Path) -> String {
    format!("{path}: a null labelSelector results in matching no pod")
}

fn spreading(spec: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        let key = text(constraint, "topologyKey");
        if let Some(message) = deprecated(key) {
            warnings.push(format!("{}: {key} is {message}", path.child("topologyKey")));
        }
        if constraint["labelSelector"].is_null() {
            warnings.push(no_selector(&path.child("labelSelector")));
        }
    }
    warnings
}

fn affinity(spec: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = &spec["affinity"][kind];
        let path = path.child(kind);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in items(affinity, required).iter().enumerate() {
            if term["labelSelector"].is_null() {
                warnings.push(no_selector(&path.child(required).index(i).child("labelSelector")));
            }
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in items(affinity, preferred).iter().enumerate() {
            if term["podAffinityTerm"]["labelSelector"].is_null() {
                let path = path.child(preferred).index(i).child("podAffinityTerm");
                warnings.push(no_selector(&path.child("labelSelector")));
            }
        }
    }
    warnings
}

fn annotations(meta: &Value, path: &Path) -> Vec<String> {
    let old = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ];
    old.iter()
        .filter(|(key, _)| !meta["annotations"][*key].is_null())
        .map(|(key, message)| format!("{}: {message}", path.key(key)))
        .collect()
}

fn volumes(spec: &Value, path: &Path) -> Vec<String> {
    let old = [
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("gitRepo", "gitRepo", "deprecated in v1.11"),
        (
            "scaleIO",
            "scaleIO",
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        (
            "flocker",
            "flocker",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "storageos",
            "storageOS",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "quobyte",
            "quobyte",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "glusterfs",
            "glusterfs",
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        (
            "cephfs",
            "cephfs",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let mut warnings = Vec::new();
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        for (field, shown, message) in old {
            if !volume[field].is_null() {
                warnings.push(format!("{}: {message}", path.index(i).child(shown)));
            }
        }
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
        let path = path.index(i).child("ephemeral").child("volumeClaimTemplate");
        warnings.extend(claim_spec(claim, &path.child("spec")));
    }
    warnings
}

/// Warnings about a claim's spec: storage in fractions of a byte.
pub fn claim_spec(spec: &Value, path: &Path) -> Vec<String> {
    let path = path.child("resources").child("requests").key("storage");
    fraction(&spec["resources"]["requests"]["storage"], &path)
        .into_iter()
        .collect()
}

fn fractions(amounts: &Value, path: &Path) -> Vec<String> {
    ["memory", "ephemeral-storage"]
        .iter()
        .filter_map(|name| fraction(&amounts[*name], &path.key(name)))
        .collect()
}

fn fraction(amount: &Value, path: &Path) -> Option<String> {
    let quantity = Quantity::from_json(amount).ok()?;
    let shown = go::quote(&quantity.to_string());
    (quantity.milli_value() % 1000 != 0)
        .then(|| format!("{path}: fractional byte value {shown} is invalid, must be an integer"))
}

fn duplicates(spec: &Value, list: &str, field: &str, path: &Path) -> Vec<String> {
    let values: Vec<&str> = items(spec, list).iter().map(|item| text(item, field)).collect();
    let repeated = values
        .iter()
        .enumerate()
        .filter(|(i, value)| values[..*i].contains(value));
    repeated
        .map(|(i, value)| {
            let at = path.child(list).index(i).child(field);
            format!("{at}: duplicate {field} {}", go::quote(value))
        })
        .collect()
}

fn empty_pull_secrets(spec: &Value, path: &Path) -> Vec<String> {
    let secrets = items(spec, "imagePullSecrets").iter().enumerate();
    secrets
        .filter(|(_, secret)| text(secret, "name").is_empty())
        .map(|(i, _)| format!("{}: invalid empty name \"\"", path.index(i).child("name")))
        .collect()
}

/// A variable that replaces an earlier one without building on it.
fn environment(container: &Value, path: &Path) -> Vec<String> {
    let variables = items(container, "env");
    let mut warnings = Vec::new();
    for (i, variable) in variables.iter().enumerate() {
        let name = text(variable, "name");
        let before = variables[..i].iter().any(|earlier| text(earlier, "name") == name);
        let reference = format!("$({name})");
        let value = text(variable, "value");
        let builds = variable["valueFrom"].is_null() && value != reference && value.contains(&reference);
        if before && !builds {
            warnings.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                path.index(i),
                go::quote(name)
            ));
        }
    }
    warnings
}

/// A port of a container, with the path to it.
struct Port<'a> {
    path: String,
    number: i64,
    protocol: &'a str,
    host_port: i64,
    host_ip: &'a str,
}

fn overlapping<'a>(container: &'a Value, path: &Path, seen: &mut Vec<Port<'a>>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, port) in items(container, "ports").iter().enumerate() {
        let port = Port {
            path: path.index(i).to_string(),
            number: integer(port, "containerPort"),
            protocol: text(port, "protocol"),
            host_port: integer(port, "hostPort"),
            host_ip: text(port, "hostIP"),
        };
        let same = |other: &&Port<'_>| other.number == port.number && other.protocol == port.protocol;
        for other in seen.iter().filter(same) {
            let how = if other.host_ip == port.host_ip && other.host_port == port.host_port {
                "duplicate"
            } else if other.host_port == 0 || port.host_port == 0 {
                "overlapping"
            } else if other.host_port == port.host_port && other.host_ip.is_empty() != port.host_ip.is_empty()
            {
                "dangerously ambiguous"
            } else {
                continue;
            };
            warnings.push(format!(
                "{}: {how} port definition with {}",
                port.path, other.path
            ));
        }
        seen.push(port);
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_probably_not_meant_is_warned_about() {
        let spec = json!({
            "containers": [
                {"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}],
                 "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"memory": "100m"}}},
                {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            ],
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "topologySpreadConstraints": [{"topologyKey": "zone"}],
        });
        assert_eq!(
            pod(&spec, &Value::Null, &Path::new("spec").child("template")),
            [
                "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.template.spec.containers[1].ports[0]: duplicate port definition with spec.template.spec.containers[0].ports[0]",
            ]
        );
        assert_eq!(
            pod(&json!({"containers": []}), &Value::Null, &Path::default()),
            Vec::<String>::new()
        );
    }
}
