//! The files by which a pod's programs find names: its own `/etc/resolv.conf`, `/etc/hosts` and what belongs to them,
//! written into the pod's directory and mounted over the host's.

use crate::dns::{ClusterDns, Formed, ResolvConf, resolv_conf};
use crate::shim::protocol::Mount;
use crate::{environment, hosts};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Write them below `directory`, the pod's own. Where they are mounted, and what is to be told as `DNSConfigForming`.
/// A path at which the container mounts something itself is left to it.
pub fn prepare(
    pod: &Pod,
    container: &Container,
    address: Option<IpAddr>,
    cluster: &ClusterDns,
    directory: &Path,
) -> Result<(Vec<Mount>, Vec<String>), String> {
    let of_host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut files = Vec::new();
    let mut warnings = Vec::new();
    let formed = resolv_conf(pod, cluster, &ResolvConf::parse(&of_host("/etc/resolv.conf")));
    if let Some(Formed { conf, warnings: told }) = formed {
        files.push(("/etc/resolv.conf", conf.to_string()));
        files
            .extend(hosts::nsswitch(&of_host("/etc/nsswitch.conf")).map(|text| ("/etc/nsswitch.conf", text)));
        warnings = told;
    }
    if let Some(address) = address {
        let text = hosts::hosts(pod, address, &cluster.domain, &of_host("/etc/hosts"));
        files.push(("/etc/hosts", text));
        // Not every distribution has it, and a new entry in /etc would cost a mount for each old one.
        if Path::new("/etc/hostname").is_file() {
            files.push(("/etc/hostname", environment::hostname(pod) + "\n"));
        }
    }
    let taken = |path: &str| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|mount| Path::new(&mount.mount_path) == Path::new(path))
    };
    files.retain(|(path, _)| !taken(path));
    let mut mounts = Vec::new();
    for (target, text) in files {
        let source = directory.join(target.trim_start_matches('/'));
        write(&source, &text).map_err(|e| format!("cannot write {}: {e}", source.display()))?;
        mounts.push(Mount {
            sub_path: None,
            source,
            target: target.into(),
            read_only: false,
        });
    }
    Ok((mounts, warnings))
}

/// In place, so that the pod's other containers, which have it mounted, see it too, and only if there is something new.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn targets(volume_mounts: serde_json::Value) -> Vec<String> {
        let directory = tempfile::tempdir().expect("tempdir");
        let container = json!({"name": "c", "volumeMounts": volume_mounts});
        let pod =
            json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let container = pod.spec.as_ref().expect("a spec").containers[0].clone();
        let cluster = ClusterDns {
            servers: vec![[127, 244, 0, 1].into()],
            domain: "cluster.local".into(),
            ..ClusterDns::default()
        };
        let address = Some([127, 244, 0, 2].into());
        let made = prepare(&pod, &container, address, &cluster, directory.path());
        let (mounts, warnings) = made.expect("prepared");
        assert!(warnings.is_empty());
        let again = prepare(&pod, &container, address, &cluster, directory.path());
        assert_eq!(again.expect("prepared").0, mounts);
        for mount in &mounts {
            assert!(mount.source.starts_with(directory.path()) && mount.source.is_file());
        }
        mounts
            .into_iter()
            .map(|mount| mount.target.display().to_string())
            .collect()
    }

    #[test]
    fn a_pod_has_files_of_its_own_but_where_it_mounts_something_itself() {
        let all = targets(json!([]));
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            assert!(all.iter().any(|target| target == path), "{all:?}");
        }
        let rest = targets(
            json!([{"name": "v", "mountPath": "/etc/hosts"}, {"name": "w", "mountPath": "/etc/resolv.conf/"}]),
        );
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            assert!(!rest.iter().any(|target| target == path), "{rest:?}");
        }
    }
}
