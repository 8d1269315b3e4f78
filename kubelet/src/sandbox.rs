//! What a pod's containers share, as the API object says it.

use crate::Kubelet;
use crate::environment;
use crate::shim::protocol::{Isolation, Memory, Sandbox};
use crate::volume;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The file in a pod's directory that says which address it has, also when the API has not been told yet.
const ADDRESS: &str = "address";

impl Kubelet {
    /// The sandbox of one of a pod's containers. With a PID namespace for each container all of a pod's are in one; without,
    /// what came from a container is known by being below its shim, so that each has its own.
    pub(crate) fn sandbox(
        &self,
        pod: &Pod,
        container: &str,
        address: Option<IpAddr>,
        isolation: Isolation,
    ) -> Sandbox {
        let directory = self.pod_directory(pod);
        let spec = pod.spec.as_ref();
        let is_set = |flag: Option<bool>| flag == Some(true);
        let on_host = spec.is_some_and(|s| is_set(s.host_network)) && isolation == Isolation::Namespaces;
        let context = spec.and_then(|s| s.security_context.as_ref());
        let sysctls = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
        let memory = match isolation {
            Isolation::Namespaces => self.memory(pod),
            Isolation::Mounts | Isolation::None => Vec::new(),
        };
        Sandbox {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            directory: match isolation {
                Isolation::Namespaces => directory,
                Isolation::Mounts | Isolation::None => directory.join("containers").join(container),
            },
            isolation,
            address,
            // Who is in the host's network has its name, too.
            hostname: (!on_host).then(|| environment::hostname(pod)),
            network: self.place(pod, address),
            host_ipc: spec.is_some_and(|s| is_set(s.host_ipc)),
            host_pid: spec.is_some_and(|s| is_set(s.host_pid)),
            share_processes: spec.is_some_and(|s| is_set(s.share_process_namespace)),
            sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
            memory,
        }
    }

    /// What of a pod is in memory: emptyDirs that are to be, and the `/dev/shm` that its containers share.
    fn memory(&self, pod: &Pod) -> Vec<Memory> {
        let directory = self.pod_directory(pod);
        let mut memory = volume::in_memory(pod, &directory);
        memory.push(Memory {
            path: shared_memory(&directory),
            size: Some(SHARED_MEMORY),
            group: None,
        });
        memory
    }
}

/// As much as container runtimes give.
const SHARED_MEMORY: u64 = 64 << 20;

/// Where a pod's `/dev/shm` is, below its directory.
pub(crate) fn shared_memory(directory: &Path) -> PathBuf {
    directory.join("shm")
}

/// Write down a pod's address in its directory.
pub(crate) fn note_address(directory: &Path, address: IpAddr) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join(ADDRESS), address.to_string())
}

/// The address that was written down.
pub(crate) fn noted_address(directory: &Path) -> Option<IpAddr> {
    std::fs::read_to_string(directory.join(ADDRESS))
        .ok()?
        .parse()
        .ok()
}
