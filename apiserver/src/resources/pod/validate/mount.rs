//! How containers mount the volumes of their pod, as directories or as block devices.

use super::super::super::json::{flag, items, text};
use super::Context;
use super::container::is_privileged;
use super::volume::local_path;
use crate::validation::{Invalid, Path, names};
use serde_json::Value;

/// Problems with the mounts of a container.
pub fn mounts(context: &Context<'_>, container: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    let devices = items(container, "volumeDevices");
    for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let (name, mount_path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            problems.push(Invalid::required(at.child("name"), ""));
        }
        let volume = context.volumes.get(name);
        if volume.is_none() {
            problems.push(Invalid::not_found(at.child("name"), name));
        }
        if mount_path.is_empty() {
            problems.push(Invalid::required(at.child("mountPath"), ""));
        }
        if seen.contains(&mount_path) {
            problems.push(Invalid::malformed(
                at.child("mountPath"),
                mount_path,
                "must be unique",
            ));
        }
        seen.push(mount_path);
        if devices.iter().any(|device| text(device, "name") == name) {
            let detail = "must not already exist in volumeDevices";
            problems.push(Invalid::malformed(at.child("name"), name, detail));
        }
        if devices
            .iter()
            .any(|device| text(device, "devicePath") == mount_path)
        {
            let detail = "must not already exist as a path in volumeDevices";
            problems.push(Invalid::malformed(at.child("mountPath"), mount_path, detail));
        }
        problems.extend(sub_paths(mount, path));
        problems.extend(propagation(mount, container, path));
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            problems.push(Invalid::malformed(
                at.child("subPathExpr"),
                text(mount, "subPathExpr"),
                detail,
            ));
        }
    }
    problems
}

/// Upstream reports these on the list of mounts, not on the mount.
fn sub_paths(mount: &Value, path: &Path) -> Vec<Invalid> {
    let fields = ["subPath", "subPathExpr"].into_iter();
    fields
        .filter(|field| !text(mount, field).is_empty())
        .flat_map(|field| local_path(text(mount, field), &path.child(field)))
        .collect()
}

fn propagation(mount: &Value, container: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if let Some(mode) = mount["mountPropagation"].as_str() {
        let path = path.child("mountPropagation");
        let modes = ["Bidirectional", "HostToContainer", "None"];
        if !modes.contains(&mode) {
            problems.push(Invalid::not_supported(&path, mode, &modes));
        }
        if mode == "Bidirectional" && !is_privileged(container) {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            problems.push(Invalid::forbidden(path, detail));
        }
    }
    let path = path.child("recursiveReadOnly");
    match mount["recursiveReadOnly"].as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                problems.push(Invalid::forbidden(
                    &path,
                    "may only be specified when readOnly is true",
                ));
            }
            if !matches!(mount["mountPropagation"].as_str(), None | Some("None")) {
                let detail = "may only be specified when mountPropagation is None or not specified";
                problems.push(Invalid::forbidden(path, detail));
            }
        }
        Some(other) => {
            problems.push(Invalid::not_supported(
                path,
                other,
                &["Disabled", "Enabled", "IfPossible"],
            ));
        }
    }
    problems
}

/// Problems with the block devices of a container.
pub fn devices(context: &Context<'_>, container: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let (mut names_seen, mut paths_seen) = (Vec::new(), Vec::new());
    let mounts = items(container, "volumeMounts");
    for (i, device) in items(container, "volumeDevices").iter().enumerate() {
        let at = path.index(i);
        let (name, device_path) = (text(device, "name"), text(device, "devicePath"));
        let mut wrong = |field: &str, value: &str, detail: &str| {
            problems.push(Invalid::malformed(at.child(field), value, detail));
        };
        if names_seen.contains(&name) {
            wrong("name", name, "must be unique");
        }
        match context.volumes.get(name) {
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                wrong("name", name, detail);
            }
            Some(_) => {}
            None => problems.push(Invalid::not_found(at.child("name"), name)),
        }
        if device_path.is_empty() {
            problems.push(Invalid::required(at.child("devicePath"), ""));
        }
        let mut wrong = |field: &str, value: &str, detail: &str| {
            problems.push(Invalid::malformed(at.child(field), value, detail));
        };
        if paths_seen.contains(&device_path) {
            wrong("devicePath", device_path, "must be unique");
        }
        if names::has_backsteps(device_path) {
            wrong("devicePath", device_path, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            wrong("name", name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            wrong("devicePath", device_path, detail);
        }
        names_seen.push(name);
        paths_seen.push(device_path);
    }
    problems
}
