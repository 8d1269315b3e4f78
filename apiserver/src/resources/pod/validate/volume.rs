//! Volumes of a spec: each has one source, and that one is sound.

use super::super::super::claim_spec;
use super::super::super::json::{integer, items, text};
use super::environment;
use crate::validation::quantity::Quantity;
use crate::validation::{Invalid, Path, dns1123_label, dns1123_subdomain, go, names};
use serde_json::Value;
use std::collections::BTreeMap;

/// Every kind of volume, in upstream's order, and the text of its path where it is forbidden as a second
/// one (upstream misspells two of them).
const SOURCES: [(&str, &str); 30] = [
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// The fields that a volume of a storage system must have; nothing here mounts these.
const REQUIRED: [(&str, &[&str]); 19] = [
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["registry", "volume"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &["driver"]),
];

/// The sound volumes by name, and the problems of the others.
pub fn volumes<'a>(
    volumes: &'a [Value],
    pod_name: Option<&str>,
    path: &Path,
) -> (BTreeMap<&'a str, &'a Value>, Vec<Invalid>) {
    let mut sound = BTreeMap::new();
    let mut problems = Vec::new();
    let created: Vec<String> = volumes
        .iter()
        .filter(|volume| volume["ephemeral"].is_object())
        .filter_map(|volume| Some(format!("{}-{}", pod_name?, text(volume, "name"))))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = text(volume, "name");
        let mut wrong = source(volume, pod_name, &path);
        if name.is_empty() {
            wrong.push(Invalid::required(path.child("name"), ""));
        } else {
            wrong.extend(Invalid::each(path.child("name"), name, dns1123_label(name)));
        }
        if sound.contains_key(name) {
            wrong.push(Invalid::duplicate(path.child("name"), name));
        }
        if wrong.is_empty() {
            sound.insert(name, volume);
        }
        problems.extend(wrong);
        let claim = text(&volume["persistentVolumeClaim"], "claimName");
        if created.iter().any(|created| created == claim) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            let path = path.child("persistentVolumeClaim").child("claimName");
            problems.push(Invalid::malformed(path, claim, detail));
        }
    }
    (sound, problems)
}

fn source(volume: &Value, pod_name: Option<&str>, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut found = false;
    for (kind, forbidden) in SOURCES {
        let source = &volume[kind];
        if !source.is_object() {
            continue;
        }
        if found {
            let detail = "may not specify more than 1 volume type";
            problems.push(Invalid::forbidden(path.child(forbidden), detail));
            continue;
        }
        found = true;
        problems.extend(one_source(kind, source, volume, pod_name, path));
    }
    if !found {
        problems.push(Invalid::required(path, "must specify a volume type"));
    }
    problems
}

fn one_source(
    kind: &str,
    source: &Value,
    volume: &Value,
    pod_name: Option<&str>,
    path: &Path,
) -> Vec<Invalid> {
    let at = path.child(kind);
    match kind {
        "emptyDir" => empty_dir(source, &at),
        "hostPath" => host_path(source, &at),
        "secret" => files_from("secretName", source, &at),
        "configMap" => files_from("name", source, &at),
        "downwardAPI" => {
            let mut problems = mode(&source["defaultMode"], &at.child("defaultMode"));
            problems.extend(environment::files(source, &at));
            problems
        }
        "projected" => projected(source, &at),
        "ephemeral" => ephemeral(source, text(volume, "name"), pod_name, path),
        "image" => super::one_of(
            text(source, "pullPolicy"),
            &["Always", "IfNotPresent", "Never"],
            &at.child("pullPolicy"),
        ),
        _ => remote(kind, source, &at),
    }
}

fn remote(kind: &str, source: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let required = REQUIRED.iter().find(|(name, _)| *name == kind);
    for field in required.into_iter().flat_map(|(_, fields)| *fields) {
        if text(source, field).is_empty() && items(source, field).is_empty() {
            problems.push(Invalid::required(path.child(field), ""));
        }
    }
    if kind == "nfs" && !text(source, "path").starts_with('/') {
        let detail = "must be an absolute path";
        problems.push(Invalid::malformed(
            path.child("path"),
            text(source, "path"),
            detail,
        ));
    }
    if kind == "gitRepo" {
        problems.extend(local_path(text(source, "directory"), &path.child("directory")));
    }
    problems
}

fn empty_dir(source: &Value, path: &Path) -> Vec<Invalid> {
    match Quantity::from_json(&source["sizeLimit"]) {
        Ok(limit) if limit.sign() < 0 => vec![Invalid::forbidden(
            path.child("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        )],
        _ => Vec::new(),
    }
}

fn host_path(source: &Value, path: &Path) -> Vec<Invalid> {
    let types = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let given = text(source, "path");
    if given.is_empty() {
        return vec![Invalid::required(path.child("path"), "")];
    }
    let mut problems = no_backsteps(given, &path.child("path"));
    let kind = text(source, "type");
    if !types.contains(&kind) {
        problems.push(Invalid::not_supported(path.child("type"), kind, &types));
    }
    problems
}

fn files_from(name: &str, source: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if text(source, name).is_empty() {
        problems.push(Invalid::required(path.child(name), ""));
    }
    problems.extend(mode(&source["defaultMode"], &path.child("defaultMode")));
    problems.extend(keys_to_paths(source, path));
    problems
}

fn keys_to_paths(source: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (i, item) in items(source, "items").iter().enumerate() {
        let path = path.child("items").index(i);
        if text(item, "key").is_empty() {
            problems.push(Invalid::required(path.child("key"), ""));
        }
        problems.extend(file_path(text(item, "path"), &path.child("path")));
        problems.extend(mode(&item["mode"], &path.child("mode")));
    }
    problems
}

fn projected(source: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = mode(&source["defaultMode"], &path.child("defaultMode"));
    let mut seen: Vec<&str> = Vec::new();
    for (i, source) in items(source, "sources").iter().enumerate() {
        let at = path.child("sources").index(i);
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        let given: Vec<&str> = kinds
            .into_iter()
            .filter(|kind| source[*kind].is_object())
            .collect();
        for kind in &given {
            let projection = &source[*kind];
            let at = at.child(kind);
            match *kind {
                "secret" | "configMap" => {
                    if text(projection, "name").is_empty() {
                        problems.push(Invalid::required(at.child("name"), ""));
                    }
                    problems.extend(keys_to_paths(projection, &at));
                }
                "downwardAPI" => problems.extend(environment::files(projection, &at)),
                "serviceAccountToken" => problems.extend(token(projection, &at, path)),
                _ => {}
            }
            for item in items(projection, "items") {
                let file = text(item, "path");
                if seen.contains(&file) {
                    let shown = if *kind == "downwardAPI" {
                        file
                    } else {
                        text(projection, "name")
                    };
                    problems.push(Invalid::malformed(path, shown, "conflicting duplicate paths"));
                } else if !file.is_empty() {
                    seen.push(file);
                }
            }
        }
        if given.len() > 1 {
            let detail = "may not specify more than 1 volume type per source";
            problems.push(Invalid::forbidden(at, detail));
        }
    }
    problems
}

fn token(projection: &Value, at: &Path, volume: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let seconds = integer(projection, "expirationSeconds");
    let detail = match seconds {
        ..600 => "may not specify a duration less than 10 minutes",
        0x1_0000_0001.. => "may not specify a duration larger than 2^32 seconds",
        _ => "",
    };
    if !detail.is_empty() {
        problems.push(Invalid::malformed(at.child("expirationSeconds"), seconds, detail));
    }
    // Upstream reports the path of a token on the volume.
    problems.extend(file_path(text(projection, "path"), &volume.child("path")));
    problems
}

fn ephemeral(source: &Value, volume: &str, pod_name: Option<&str>, path: &Path) -> Vec<Invalid> {
    let template = &source["volumeClaimTemplate"];
    let at = path.child("ephemeral").child("volumeClaimTemplate");
    if !template.is_object() {
        return vec![Invalid::required(at, "")];
    }
    let mut problems = claim_spec::validate(&template["spec"], &at.child("spec"));
    if let Some(pod) = pod_name
        && !pod.is_empty()
        && !volume.is_empty()
    {
        let claim = format!("{pod}-{volume}");
        for message in dns1123_subdomain(&claim) {
            let detail = format!("PVC name {}: {message}", go::quote(&claim));
            problems.push(Invalid::malformed(path.child("name"), volume, detail));
        }
    }
    problems
}

/// The permissions of a file.
pub fn mode(mode: &Value, path: &Path) -> Vec<Invalid> {
    match mode.as_i64() {
        Some(mode) if !(0..=0o777).contains(&mode) => vec![Invalid::malformed(
            path,
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        )],
        _ => Vec::new(),
    }
}

/// The path of a file inside a volume, which must be there.
pub fn file_path(file: &str, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if file.is_empty() {
        problems.push(Invalid::required(path, ""));
    }
    problems.extend(local_path(file, path));
    if file.starts_with("..") && !file.starts_with("../") {
        // `..` itself has been reported as a step back already; upstream reports it twice.
        problems.push(Invalid::malformed(path, file, "must not start with '..'"));
    }
    problems
}

/// A path inside a volume: relative, and never a step back.
pub fn local_path(given: &str, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if given.starts_with('/') {
        problems.push(Invalid::malformed(path, given, "must be a relative path"));
    }
    problems.extend(no_backsteps(given, path));
    problems
}

fn no_backsteps(given: &str, path: &Path) -> Vec<Invalid> {
    if names::has_backsteps(given) {
        vec![Invalid::malformed(path, given, "must not contain '..'")]
    } else {
        Vec::new()
    }
}
