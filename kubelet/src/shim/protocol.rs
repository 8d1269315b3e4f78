//! What the kubelet says to the [`holder`], and to the shims of [`pod`]s: one JSON object a line, over Unix sockets. A line
//! may carry file descriptors.

pub mod holder;
pub mod pod;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The variable that says where a container without a mount namespace finds its volumes; no two containers have the same.
pub const ROOT_VARIABLE: &str = "PETSET_ROOT";

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments; a program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; `None` is the root directory.
    pub working_dir: Option<PathBuf>,
    /// What appears where; ignored without a mount namespace.
    pub mounts: Vec<Mount>,
    /// An empty directory of the pod's own, for building its view of the file system.
    pub scratch: PathBuf,
    /// `runAsUser`, `runAsGroup` and supplementary groups; only root can change them.
    pub user: Option<u32>,
    /// See `user`.
    pub group: Option<u32>,
    /// See `user`.
    pub groups: Vec<u32>,
    /// Whose standard streams the main process gets.
    pub stdio: MainStdio,
    /// What the container's root directory is made of.
    pub root: Root,
    /// Directories of the host that are empty in a view of it: petset's own.
    pub hidden: Vec<PathBuf>,
    /// What the container's processes may do.
    pub security: Security,
    /// How much they may use.
    pub limits: Limits,
    /// Where what the main process says is written.
    pub log: Option<Log>,
}

/// A log file of one instance of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Its directory exists.
    pub path: PathBuf,
    /// It is rotated when it has grown to so many bytes.
    pub max_size: u64,
    /// So many files are kept, the current one included.
    pub max_files: usize,
}

/// How far a pod is kept apart from the host and from other pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Not at all: a plain process, volumes as links.
    None,
    /// Mount and UTS namespaces only: volumes at their mount paths, the host's network.
    #[default]
    Mounts,
    /// Mount, PID, UTS, IPC and network namespaces.
    Namespaces,
}

/// What the containers of one pod share. The holder makes a shim of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The pod's UID.
    pub uid: String,
    /// The pod's directory; the shim's socket and notes lie there.
    pub directory: PathBuf,
    /// Which namespaces there are.
    pub isolation: Isolation,
    /// The pod's address, for the kubelet that finds the sandbox.
    pub address: Option<std::net::IpAddr>,
    /// Host name in the pod's own UTS namespace.
    pub hostname: Option<String>,
    /// `None`: the network of the holder (`hostNetwork`, or an isolation without networks).
    pub network: Option<PodNetwork>,
    /// `hostIPC`.
    pub host_ipc: bool,
    /// `hostPID`.
    pub host_pid: bool,
    /// `shareProcessNamespace`.
    pub share_processes: bool,
    /// `securityContext.sysctls`: name and value.
    pub sysctls: Vec<(String, String)>,
    /// Directories that are in memory, for the pod's processes only.
    pub memory: Vec<Memory>,
}

/// A directory that is in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Where, on the host; made if it is not there.
    pub path: PathBuf,
    /// How many bytes it holds at most; `None` is the kernel's choice.
    pub size: Option<u64>,
    /// Whose it is (`fsGroup`).
    pub group: Option<u32>,
}

/// A pod's place in the cluster's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The cluster's bridge.
    pub bridge: String,
    /// The bridge's end of the pod's cable; at most 15 bytes.
    pub interface: String,
    /// The pod's address.
    pub address: std::net::Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: std::net::Ipv4Addr,
}

/// What a root directory is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A copy-on-write view of the host's.
    #[default]
    Host,
    /// These directories over each other, the first on top; they are never written to.
    Layers(Vec<PathBuf>),
}

/// What of `securityContext` is for the container's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `privileged`: every capability, the host's devices, no filter.
    pub privileged: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// Whether capabilities begin with a container runtime's default set instead of with what petset has.
    pub container_capabilities: bool,
    /// `capabilities.add`, without `CAP_`; `ALL` is all.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`, without `CAP_`; `ALL` is all.
    pub drop_capabilities: Vec<String>,
    /// `seccompProfile: RuntimeDefault`.
    pub seccomp_default: bool,
}

/// How much a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu: Option<u64>,
    /// `requests.cpu` in thousandths, for the share of a busy machine.
    pub cpu_request: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What is the standard input of a main process. Output goes to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MainStdio {
    /// `/dev/null`.
    #[default]
    NoInput,
    /// What clients type who are attached.
    Input,
    /// All three are a terminal.
    Terminal,
}

/// A directory or file of the host that appears at a path of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// What of it: a path that must not lead out of it, whatever links there are. Missing directories are made.
    pub sub_path: Option<PathBuf>,
    /// In the pod; absolute.
    pub target: PathBuf,
    /// Whether writes fail.
    pub read_only: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal for a process that a signal ended.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}
