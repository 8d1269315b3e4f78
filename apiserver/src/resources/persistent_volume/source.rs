//! Where the data of a PersistentVolume lies, and which nodes reach it. The sources that a machine can serve
//! by itself (hostPath, local, nfs) and csi are checked in full; of the others only that there is one.

use crate::resources::changes::{Field, Shape};
use crate::resources::pod::validate::affinity::node_selector;
use crate::validation::{Invalid, Path, names};
use serde_json::Value;

const SECRET: &[Field] = &[
    ("Name", "name", Shape::Text),
    ("Namespace", "namespace", Shape::Text),
];

/// The sources as upstream's internal type has them.
pub static SOURCES: [Field; 22] = [
    ("GCEPersistentDisk", "gcePersistentDisk", Shape::Same),
    ("AWSElasticBlockStore", "awsElasticBlockStore", Shape::Same),
    (
        "HostPath",
        "hostPath",
        Shape::Pointer(&[("Path", "path", Shape::Text), ("Type", "type", Shape::Same)]),
    ),
    ("Glusterfs", "glusterfs", Shape::Same),
    (
        "NFS",
        "nfs",
        Shape::Pointer(&[
            ("Server", "server", Shape::Text),
            ("Path", "path", Shape::Text),
            ("ReadOnly", "readOnly", Shape::Flag),
        ]),
    ),
    ("RBD", "rbd", Shape::Same),
    ("Quobyte", "quobyte", Shape::Same),
    ("ISCSI", "iscsi", Shape::Same),
    ("FlexVolume", "flexVolume", Shape::Same),
    ("Cinder", "cinder", Shape::Same),
    ("CephFS", "cephfs", Shape::Same),
    ("FC", "fc", Shape::Same),
    ("Flocker", "flocker", Shape::Same),
    ("AzureFile", "azureFile", Shape::Same),
    ("VsphereVolume", "vsphereVolume", Shape::Same),
    ("AzureDisk", "azureDisk", Shape::Same),
    ("PhotonPersistentDisk", "photonPersistentDisk", Shape::Same),
    ("PortworxVolume", "portworxVolume", Shape::Same),
    ("ScaleIO", "scaleIO", Shape::Same),
    (
        "Local",
        "local",
        Shape::Pointer(&[("Path", "path", Shape::Text), ("FSType", "fsType", Shape::Same)]),
    ),
    ("StorageOS", "storageos", Shape::Same),
    (
        "CSI",
        "csi",
        Shape::Pointer(&[
            ("Driver", "driver", Shape::Text),
            ("VolumeHandle", "volumeHandle", Shape::Text),
            ("ReadOnly", "readOnly", Shape::Flag),
            ("FSType", "fsType", Shape::Text),
            ("VolumeAttributes", "volumeAttributes", Shape::Same),
            (
                "ControllerPublishSecretRef",
                "controllerPublishSecretRef",
                Shape::Pointer(SECRET),
            ),
            ("NodeStageSecretRef", "nodeStageSecretRef", Shape::Pointer(SECRET)),
            (
                "NodePublishSecretRef",
                "nodePublishSecretRef",
                Shape::Pointer(SECRET),
            ),
            (
                "ControllerExpandSecretRef",
                "controllerExpandSecretRef",
                Shape::Pointer(SECRET),
            ),
            (
                "NodeExpandSecretRef",
                "nodeExpandSecretRef",
                Shape::Pointer(SECRET),
            ),
        ]),
    ),
];

/// The order in which upstream looks for sources, which decides which one is the second of two.
const CHECKED: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// What upstream fills in within a source that is there.
const DEFAULTS: [(&str, &str, &str); 11] = [
    ("hostPath", "type", ""),
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("azureDisk", "cachingMode", "ReadWrite"),
    ("azureDisk", "kind", "Shared"),
    ("azureDisk", "fsType", "ext4"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
    ("azureFile", "shareName", ""),
];

/// The JSON names of all sources.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(_, json_name, _)| *json_name)
}

/// Fill in what a source leaves out.
pub fn set_defaults(spec: &mut Value) {
    for (source, field, default) in DEFAULTS {
        let Some(source) = spec.get_mut(source).and_then(Value::as_object_mut) else {
            continue;
        };
        source.entry(field).or_insert_with(|| default.into());
    }
}

/// Exactly one source, and a right one.
pub fn check(spec: &Value) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let present: Vec<&str> = CHECKED
        .into_iter()
        .filter(|name| !spec[*name].is_null())
        .collect();
    for (i, name) in present.iter().enumerate() {
        if i > 0 {
            // The capital letters are upstream's.
            let shown = if *name == "cephfs" { "cephFS" } else { name };
            let detail = "may not specify more than 1 volume type";
            invalid.push(Invalid::forbidden(format!("spec.{shown}"), detail));
        } else {
            invalid.extend(check_one(name, spec));
        }
    }
    if present.is_empty() {
        invalid.push(Invalid::required("spec", "must specify a volume type"));
    }
    let path = spec["hostPath"]["path"].as_str().unwrap_or_default();
    let is_root = path.starts_with('/') && path.split('/').all(|part| part.is_empty() || part == ".");
    if is_root && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        invalid.push(Invalid::forbidden("spec.persistentVolumeReclaimPolicy", detail));
    }
    invalid
}

fn check_one(name: &str, spec: &Value) -> Vec<Invalid> {
    let source = &spec[name];
    let field = |child: &str| format!("spec.{name}.{child}");
    let text = |child: &str| source[child].as_str().unwrap_or_default();
    let path = || {
        let path = text("path");
        if path.is_empty() {
            return Some(Invalid::required(field("path"), ""));
        }
        names::has_backsteps(path).then(|| Invalid::malformed(field("path"), path, "must not contain '..'"))
    };
    match name {
        "hostPath" if text("path").is_empty() => path().into_iter().collect(),
        "hostPath" => path()
            .into_iter()
            .chain(host_path_type(&source["type"]))
            .collect(),
        "local" => {
            let mut invalid: Vec<Invalid> = path().into_iter().collect();
            if spec["nodeAffinity"].is_null() {
                let detail = "Local volume requires node affinity";
                invalid.push(Invalid::required("spec.nodeAffinity", detail));
            }
            invalid
        }
        "nfs" => {
            let missing = ["server", "path"]
                .into_iter()
                .filter(|child| text(child).is_empty());
            let mut invalid: Vec<Invalid> =
                missing.map(|child| Invalid::required(field(child), "")).collect();
            if !text("path").starts_with('/') {
                let detail = "must be an absolute path";
                invalid.push(Invalid::malformed(field("path"), text("path"), detail));
            }
            invalid
        }
        "csi" => {
            let driver = text("driver");
            let mut invalid = Vec::new();
            if driver.is_empty() {
                invalid.push(Invalid::required(field("driver"), ""));
            } else {
                if driver.len() > 63 {
                    invalid.push(Invalid::too_long(field("driver"), 63));
                }
                let messages = names::dns1123_subdomain(&driver.to_lowercase());
                invalid.extend(Invalid::each(field("driver"), driver, messages));
            }
            if text("volumeHandle").is_empty() {
                invalid.push(Invalid::required(field("volumeHandle"), ""));
            }
            invalid
        }
        _ => Vec::new(),
    }
}

fn host_path_type(value: &Value) -> Option<Invalid> {
    const TYPES: [&str; 8] = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let kind = value.as_str()?;
    (!TYPES.contains(&kind)).then(|| Invalid::not_supported("spec.hostPath.type", kind, &TYPES))
}

/// Which nodes reach the volume: at least one term, each of right requirements.
pub fn node_affinity(affinity: &Value) -> Vec<Invalid> {
    let path = Path::new("spec").child("nodeAffinity").child("required");
    if affinity.is_null() {
        return Vec::new();
    }
    if affinity["required"].is_null() {
        return vec![Invalid::required(path, "must specify required node constraints")];
    }
    node_selector(&affinity["required"], &path)
}

/// Whether two affinities are the same, except that a beta label may have become the final one.
pub fn same_but_for_beta_labels(new: &Value, old: &Value) -> bool {
    const FINAL: [(&str, &str); 5] = [
        (
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        (
            "beta.kubernetes.io/instance-type",
            "node.kubernetes.io/instance-type",
        ),
    ];
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(key, new)| {
                    let old = old.get(key).unwrap_or(&Value::Null);
                    let renamed =
                        key == "key" && FINAL.iter().any(|(beta, stable)| old == beta && new == stable);
                    renamed || same_but_for_beta_labels(new, old)
                })
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len()
                && new
                    .iter()
                    .zip(old)
                    .all(|(new, old)| same_but_for_beta_labels(new, old))
        }
        (new, old) => new == old,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(spec: &Value) -> Vec<String> {
        check(spec).into_iter().map(|i| i.field).collect()
    }

    #[test]
    fn there_is_exactly_one_source() {
        assert_eq!(fields(&json!({})), ["spec"]);
        assert_eq!(fields(&json!({"hostPath": {"path": "/a"}})), [""; 0]);
        let two = json!({"hostPath": {"path": "/a"}, "cephfs": {}});
        assert_eq!(fields(&two), ["spec.cephFS"]);
    }

    #[test]
    fn a_source_is_told_what_it_lacks() {
        let table = [
            (json!({"hostPath": {}}), vec!["spec.hostPath.path"]),
            (
                json!({"hostPath": {"path": "/a/../b", "type": "Dir"}}),
                vec!["spec.hostPath.path", "spec.hostPath.type"],
            ),
            (json!({"local": {"path": "/a"}}), vec!["spec.nodeAffinity"]),
            (
                json!({"nfs": {"path": "a"}}),
                vec!["spec.nfs.server", "spec.nfs.path"],
            ),
            (
                json!({"csi": {"driver": "A_b"}}),
                vec!["spec.csi.driver", "spec.csi.volumeHandle"],
            ),
            (
                json!({"hostPath": {"path": "//./"}, "persistentVolumeReclaimPolicy": "Recycle"}),
                vec!["spec.persistentVolumeReclaimPolicy"],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(fields(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn every_source_is_both_shown_and_checked() {
        let mut shown: Vec<&str> = names().collect();
        let mut checked = CHECKED.to_vec();
        shown.sort_unstable();
        checked.sort_unstable();
        assert_eq!(shown, checked);
    }

    #[test]
    fn node_affinity_has_terms_of_right_requirements() {
        let affinity = |expression: Value| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}});
        let table = [
            (Value::Null, 0),
            (json!({}), 1),
            (json!({"required": {"nodeSelectorTerms": []}}), 1),
            (
                affinity(json!({"key": "a", "operator": "In", "values": ["b"]})),
                0,
            ),
            (affinity(json!({"key": "a", "operator": "In"})), 1),
            (
                affinity(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
                1,
            ),
            (affinity(json!({"key": "", "operator": "Near"})), 3),
            (
                affinity(json!({"key": "a", "operator": "Gt", "values": ["1", "2"]})),
                1,
            ),
        ];
        for (affinity, expected) in table {
            assert_eq!(node_affinity(&affinity).len(), expected, "{affinity}");
        }
    }

    #[test]
    fn a_beta_label_may_become_final() {
        let affinity =
            |key: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key}]}]}});
        let (beta, stable) = (affinity("beta.kubernetes.io/os"), affinity("kubernetes.io/os"));
        assert!(same_but_for_beta_labels(&stable, &beta));
        assert!(!same_but_for_beta_labels(&beta, &stable));
    }
}
