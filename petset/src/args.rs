//! The command line. Every flag can also be given as an environment variable `PETSET_…`.

// clap would show the documentation of a flattened field as the command's own description.
#![allow(missing_docs)]

mod dns;
mod image;
mod ranges;
mod volumes;

pub use dns::{Dns, DnsCommand, DnsLooks, DnsRecords, Names, PodDns, PodNames, RecordsOutput, Upstream};
pub use image::{Image, ImageBounds, ImageCommand, ImageList, ImageLoad, ImagePull, ImageRemove};
pub use ranges::{Cidr, Ranges};
pub use volumes::{Prune, Scope, Volumes, VolumesCommand};

use apiserver::authorization::Mode;
use apiserver::filters::InFlight;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kubelet::isolation::Wanted;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Kubernetes StatefulSets as plain local processes.
#[derive(Debug, Parser)]
#[command(name = "petset", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster and keep it in the foreground until Ctrl-C
    Up(Up),
    /// Say what runs: URLs, DNS address, pid, version, uptime; and what each claim uses
    Status(Status),
    /// List claims, volumes and directories that nobody needs any more, or remove some of them
    Volumes(Volumes),
    /// Load, pull, list and remove images that pods run from
    Image(Image),
    /// Print the path of the kubeconfig that `up` wrote
    Kubeconfig(Data),
    /// Run a shell, or a command, where pods' addresses and the cluster's names work
    Shell(Shell),
    /// Say what a StatefulSet does next and what it waits for
    Explain(Explain),
    /// Run the API server alone
    Apiserver(Apiserver),
    /// Run the controllers alone, against any API server
    Controller(Controller),
    /// Run the kubelet alone, against any API server
    Kubelet(Kubelet),
    /// Run the DNS server alone, against any API server
    Dns(Dns),
}

/// Where everything is kept.
#[derive(Args, Clone, Debug)]
pub struct Data {
    /// Directory for objects, volumes, pods and credentials [default: petset in the XDG data directory]
    #[arg(long, env = "PETSET_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// How to log.
#[derive(Args, Clone, Copy, Debug)]
pub struct Log {
    /// Form of the log lines on standard error (what is logged: RUST_LOG, default warn)
    #[arg(long, env = "PETSET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Forms of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the API is served.
#[derive(Args, Clone, Debug)]
pub struct Api {
    /// HTTPS address of the API; port 0 picks a free one
    #[arg(
        long,
        env = "PETSET_API",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:6443"
    )]
    pub api: SocketAddr,
    /// Also serve the API over plain HTTP, without authentication, on this loopback address
    #[arg(long, env = "PETSET_HTTP", value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// Who may do what: RBAC (roles and bindings say so) or AlwaysAllow (everybody who is known may do everything)
    #[arg(
        long,
        env = "PETSET_AUTHORIZATION_MODE",
        value_name = "RBAC|AlwaysAllow",
        default_value_t = Mode::Rbac
    )]
    pub authorization_mode: Mode,
    /// How many requests that read are served at a time, watches and logs aside; 0 is no limit
    #[arg(
        long,
        env = "PETSET_MAX_REQUESTS_INFLIGHT",
        value_name = "COUNT",
        default_value_t = 400
    )]
    pub max_requests_inflight: usize,
    /// How many requests that write are served at a time; 0 is no limit
    #[arg(
        long,
        env = "PETSET_MAX_MUTATING_REQUESTS_INFLIGHT",
        value_name = "COUNT",
        default_value_t = 200
    )]
    pub max_mutating_requests_inflight: usize,
}

impl Api {
    /// How many requests are served at a time, and how long one may take: a minute, as upstream.
    pub fn in_flight(&self) -> InFlight {
        InFlight {
            reading: self.max_requests_inflight,
            mutating: self.max_mutating_requests_inflight,
            timeout: Some(std::time::Duration::from_secs(60)),
        }
    }
}

/// How pods run.
#[derive(Args, Clone, Debug)]
pub struct Pods {
    /// How far pods are kept apart from the host and from each other: namespaces (own file system view, processes and
    /// network), mounts (volumes at their paths, the host's network), none (plain processes), or auto, the first that this
    /// machine allows
    #[arg(
        long,
        env = "PETSET_ISOLATION",
        value_name = "auto|namespaces|mounts|none",
        default_value_t = Wanted::Auto
    )]
    pub isolation: Wanted,
    /// Range of pod addresses [default: 10.244.0.0/16 or one that the host does not use; without network namespaces
    /// 127.244.0.0/16]
    #[arg(long, env = "PETSET_POD_CIDR", value_name = "CIDR")]
    pub pod_cidr: Option<kubelet::address::Range>,
    /// Address of this machine at which node ports of Services and host ports of pods are found
    #[arg(
        long,
        env = "PETSET_NODE_PORT_ADDRESS",
        value_name = "ADDR",
        default_value = "127.0.0.1"
    )]
    pub node_port_address: IpAddr,
    /// Name of the node [default: this machine's host name]
    #[arg(long, env = "PETSET_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Longest pause before a container that keeps ending is started again, in seconds
    #[arg(long, alias = "max-back-off", env = "PETSET_CRASH_LOOP_MAX", value_name = "SECONDS", default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(1..=300))]
    pub crash_loop_max: u32,
    /// How many processes and threads a pod's container may have [default: no limit]
    #[arg(long, env = "PETSET_POD_MAX_PIDS", value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub pod_max_pids: Option<u64>,
    /// Leave pods running when petset is told to stop; the next start takes them over
    #[arg(long, env = "PETSET_KEEP_PODS")]
    pub keep_pods: bool,
    /// Size at which a container's log is rotated, for example 10Mi
    #[arg(long, env = "PETSET_CONTAINER_LOG_MAX_SIZE", value_name = "SIZE", default_value = "10Mi", value_parser = log_size)]
    pub container_log_max_size: u64,
    /// How many files of a container's log are kept
    #[arg(long, env = "PETSET_CONTAINER_LOG_MAX_FILES", value_name = "NUMBER", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub container_log_max_files: u32,
}

/// A number of bytes, as Kubernetes writes quantities.
fn log_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        unit => return Err(format!("{unit:?} is none of k, M, G, Ki, Mi, Gi")),
    };
    let number: u64 = digits.parse().map_err(|e| format!("{digits:?}: {e}"))?;
    let size = number.checked_mul(factor).filter(|size| *size > 0);
    size.ok_or_else(|| format!("{text:?} is not a size that a log can have"))
}

/// `petset up`
#[derive(Args, Clone, Debug)]
pub struct Up {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub api: Api,
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub pod_names: PodNames,
    #[command(flatten)]
    pub pods: Pods,
    #[command(flatten)]
    pub log: Log,
    /// Manifests to apply once the cluster is up: a file, a directory, or - for standard input
    #[arg(
        short = 'f',
        long = "filename",
        env = "PETSET_FILENAME",
        value_name = "FILE|DIR|-",
        value_delimiter = ','
    )]
    pub filename: Vec<PathBuf>,
}

/// `petset status`
#[derive(Args, Clone, Debug)]
pub struct Status {
    #[command(flatten)]
    pub data: Data,
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// `petset shell`
#[derive(Args, Clone, Debug)]
pub struct Shell {
    #[command(flatten)]
    pub data: Data,
    /// Look names up as a pod of this namespace does
    #[arg(
        short = 'n',
        long,
        env = "PETSET_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// What to run [default: the shell that SHELL names]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `petset explain`
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// The set, as kubectl names it: sts/web
    #[arg(value_name = "sts/NAME")]
    pub set: String,
    /// Its namespace
    #[arg(
        short = 'n',
        long,
        env = "PETSET_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub data: Data,
}

/// `petset apiserver`
#[derive(Args, Clone, Debug)]
pub struct Apiserver {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub api: Api,
    #[command(flatten)]
    pub log: Log,
}

/// Which API server a component works for.
#[derive(Args, Clone, Debug)]
pub struct Remote {
    /// How to reach the API server [default: as kubectl finds it]
    #[arg(long, env = "PETSET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `petset controller`
#[derive(Args, Clone, Debug)]
pub struct Controller {
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub data: Data,
    /// Which controllers run: * for all, NAME for one, -NAME for all but that one
    #[arg(
        long,
        env = "PETSET_CONTROLLERS",
        value_name = "LIST",
        default_value = "*",
        allow_hyphen_values = true
    )]
    pub controllers: controller::selection::Selection,
    #[command(flatten)]
    pub log: Log,
}

/// `petset kubelet`
#[derive(Args, Clone, Debug)]
pub struct Kubelet {
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub pods: Pods,
    /// Where pods are to ask for names, port 53 [default: as the host does]
    #[arg(
        long,
        env = "PETSET_CLUSTER_DNS",
        value_name = "ADDR[,ADDR]",
        value_delimiter = ','
    )]
    pub cluster_dns: Vec<IpAddr>,
    /// The zone of the cluster's names
    #[arg(
        long,
        env = "PETSET_CLUSTER_DOMAIN",
        value_name = "DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    #[command(flatten)]
    pub log: Log,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        let all = Arguments::command();
        let nested = all.get_subcommands().flat_map(clap::Command::get_subcommands);
        for command in all.get_subcommands().chain(nested) {
            for flag in command
                .get_arguments()
                .filter(|a| !["help", "version"].contains(&a.get_id().as_str()) && !a.is_positional())
            {
                let variable = flag.get_env().and_then(|e| e.to_str()).unwrap_or_default();
                assert!(
                    variable.starts_with("PETSET_"),
                    "{} {}",
                    command.get_name(),
                    flag.get_id()
                );
            }
        }
    }
}
