//! The volume that a class makes for a claim: a directory with a name that people can read (P7).

use super::action::PROVISIONED_BY;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use std::path::{Path, PathBuf};

/// How much of the claim's UID tells directories of equally named claims apart.
const SHORT: usize = 8;

/// The name of the volume that is made for a claim.
pub fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

/// The volume, reserved for the claim from its first moment; or why there cannot be one.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    volumes_dir: &Path,
) -> Result<PersistentVolume, &'static str> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err("claim Selector is not supported");
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(
            "block volumes are not supported, only directories are provisioned: use volumeMode Filesystem",
        );
    }
    let directory = volumes_dir.join(directory_name(claim));
    let Some(path) = directory.to_str() else {
        return Err("the path of the volumes directory is not UTF-8: choose another data directory");
    };
    let requests = spec
        .resources
        .and_then(|resources| resources.requests)
        .unwrap_or_default();
    let capacity = requests
        .into_iter()
        .filter(|(resource, _)| resource == "storage")
        .collect();
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(claim)),
            annotations: Some([(PROVISIONED_BY.into(), class.provisioner.clone())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(capacity),
            claim_ref: Some(claim_reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: path.into(),
                type_: Some("DirectoryOrCreate".into()),
            }),
            mount_options: class.mount_options.clone(),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone().or(Some("Delete".into())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode.or(Some("Filesystem".into())),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// What a volume's claimRef says about its claim.
pub fn claim_reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// `<namespace>_<claim>_<first of the UID>`: names of objects never have an underscore.
fn directory_name(claim: &PersistentVolumeClaim) -> String {
    let namespace = claim.namespace().unwrap_or_default();
    let uid: String = claim.uid().unwrap_or_default().chars().take(SHORT).collect();
    // A name may have 253 characters and a file name 255 bytes in all.
    let mut name = claim.name_any();
    name.truncate(255 - namespace.len() - SHORT - 2);
    format!("{namespace}_{name}_{uid}")
}

/// The volume's directory, if it is one of ours: directly in `volumes_dir`.
pub fn directory(volume: &PersistentVolume, volumes_dir: &Path) -> Option<PathBuf> {
    let source = volume.spec.as_ref()?.host_path.as_ref()?;
    let path = Path::new(&source.path);
    let name = path.strip_prefix(volumes_dir).ok()?;
    let mut parts = name.components();
    let single = matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none();
    // Compared as text, so that `x/../y` and `x/.` are none of ours.
    (single && volumes_dir.join(name).as_os_str() == path.as_os_str()).then(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{claim, class, volume as stored};
    use serde_json::json;

    #[test]
    fn a_provisioned_volume_is_reserved_and_readable() {
        let claim = claim("www-web-0", json!({"storageClassName": "fast"}));
        let class = class("fast", json!({"mountOptions": ["ro"]}));
        let volume = volume(&claim, &class, Path::new("/data/volumes")).unwrap();
        assert_eq!(
            serde_json::to_value(volume).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {
                    "name": "pvc-www-web-0-uid",
                    "annotations": {"pv.kubernetes.io/provisioned-by": "example.com/disk"},
                },
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "1Gi"},
                    "claimRef": {
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default",
                        "name": "www-web-0", "uid": "www-web-0-uid", "resourceVersion": "7",
                    },
                    "hostPath": {
                        "path": "/data/volumes/default_www-web-0_www-web-",
                        "type": "DirectoryOrCreate",
                    },
                    "mountOptions": ["ro"],
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": "fast",
                    "volumeMode": "Filesystem",
                },
            })
        );
    }

    #[test]
    fn the_longest_names_still_make_a_file_name() {
        let mut claim = claim(&"c".repeat(253), json!({}));
        claim.metadata.namespace = Some("n".repeat(63));
        assert_eq!(directory_name(&claim).len(), 255);
    }

    #[test]
    fn selectors_and_block_volumes_cannot_be_provisioned() {
        for spec in [
            json!({"selector": {"matchLabels": {"a": "b"}}}),
            json!({"volumeMode": "Block"}),
        ] {
            assert!(volume(&claim("c", spec), &class("fast", json!({})), Path::new("/v")).is_err());
        }
    }

    #[test]
    fn only_what_lies_directly_in_the_volumes_directory_is_ours() {
        let table = [
            ("/data/volumes/a", true),
            ("/data/volumes", false),
            ("/data/volumes/", false),
            ("/data/volumes/.", false),
            ("/data/volumes/..", false),
            ("/data/volumes/a/b", false),
            ("/data/volumes/../pki", false),
            ("/data/volumes/a/../b", false),
            ("/data/volumes/a/", false),
            ("/data/volumesx/a", false),
            ("/etc", false),
            ("", false),
        ];
        for (path, ours) in table {
            let volume = stored("v", json!({"hostPath": {"path": path}}));
            assert_eq!(
                directory(&volume, Path::new("/data/volumes")).is_some(),
                ours,
                "{path}"
            );
        }
        let nfs = stored(
            "v",
            json!({"hostPath": null, "nfs": {"path": "/data/volumes/a", "server": "s"}}),
        );
        assert_eq!(directory(&nfs, Path::new("/data/volumes")), None);
    }
}
