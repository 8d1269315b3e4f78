//! The command line. Every flag can also be given as an environment variable `PETSET_…`.

// clap would show the documentation of a flattened field as the command's own description.
#![allow(missing_docs)]

use apiserver::authorization::Mode;
use apiserver::filters::InFlight;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kubelet::isolation::Wanted;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

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

/// How names look and where they are answered.
#[derive(Args, Clone, Debug)]
pub struct Names {
    /// DNS address, UDP and TCP; port 0 picks a free one
    #[arg(
        long,
        env = "PETSET_DNS",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:1053"
    )]
    pub dns: SocketAddr,
    /// The zone of the cluster's names
    #[arg(
        long,
        env = "PETSET_CLUSTER_DOMAIN",
        value_name = "DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    /// Who is asked for names outside the cluster: none (they are refused), host (as /etc/resolv.conf says), or addresses
    #[arg(
        long,
        env = "PETSET_DNS_UPSTREAM",
        value_name = "none|host|ADDR[,ADDR]",
        default_value = "none"
    )]
    pub dns_upstream: Upstream,
    #[command(flatten)]
    pub looks: DnsLooks,
}

/// What can be seen of the DNS server, and by whom.
#[derive(Args, Clone, Debug)]
pub struct DnsLooks {
    /// Log every DNS question with its answer
    #[arg(long, env = "PETSET_DNS_LOG")]
    pub dns_log: bool,
    /// Serve the DNS server's metrics for Prometheus, at /metrics on this address; port 0 picks a free one
    #[arg(long, env = "PETSET_DNS_METRICS", value_name = "ADDR:PORT")]
    pub dns_metrics: Option<SocketAddr>,
    /// Whose clients may have whole zones by AXFR, as in dig AXFR cluster.local [default: nobody's]
    #[arg(
        long,
        env = "PETSET_DNS_ALLOW_TRANSFER",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub dns_allow_transfer: Vec<dns::transfer::Range>,
}

/// How pods find names.
#[derive(Args, Clone, Debug)]
pub struct PodNames {
    /// DNS address for pods, port 53, or none [default: the first of the pod range, where petset may listen there]
    #[arg(long, env = "PETSET_POD_DNS", value_name = "ADDR|none")]
    pub pod_dns: Option<PodDns>,
    /// Who is asked when a pod asks for a name outside the cluster
    #[arg(
        long,
        env = "PETSET_POD_DNS_UPSTREAM",
        value_name = "none|host|ADDR[,ADDR]",
        default_value = "host"
    )]
    pub pod_dns_upstream: Upstream,
}

/// `none`, or servers that are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream(pub Option<dns::upstream::Servers>);

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|servers| Self(Some(servers))),
        }
    }
}

/// `none`, or where pods' own DNS is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodDns(pub Option<IpAddr>);

impl FromStr for PodDns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let socket = text.parse::<SocketAddr>();
        let address = match socket {
            Ok(socket) if socket.port() != 53 => {
                return Err(format!(
                    "{text:?}: a pod's resolv.conf cannot name a port, so it must be 53"
                ));
            }
            Ok(socket) => socket.ip(),
            Err(_) => text.parse().map_err(|_| {
                format!("{text:?} is no address (an example is 127.244.0.1; none: pods use the host's DNS)")
            })?,
        };
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{text:?}: a pod's resolv.conf must name one address"));
        }
        Ok(Self(Some(address)))
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

/// `petset volumes`
#[derive(Args, Clone, Debug)]
pub struct Volumes {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub scope: Scope,
    /// List all claims, volumes and directories, not only what nobody needs
    #[arg(long, env = "PETSET_ALL")]
    pub all: bool,
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Option<VolumesCommand>,
}

/// Which namespaces are looked at.
#[derive(Args, Clone, Debug)]
pub struct Scope {
    /// Namespace of the claims; volumes and directories count to that of the claim they were made for
    #[arg(
        short = 'n',
        long,
        env = "PETSET_NAMESPACE",
        value_name = "NAME",
        default_value = "default",
        global = true
    )]
    pub namespace: String,
    /// All namespaces
    #[arg(short = 'A', long, env = "PETSET_ALL_NAMESPACES", global = true)]
    pub all_namespaces: bool,
}

impl Scope {
    /// ` in namespace default`, or nothing for all of them.
    pub fn place(&self) -> String {
        if self.all_namespaces {
            String::new()
        } else {
            format!(" in namespace {}", self.namespace)
        }
    }
}

/// What can be done with volumes.
#[derive(Clone, Debug, Subcommand)]
pub enum VolumesCommand {
    /// Remove leftovers: those that are named, or all that are listed, once you have confirmed it
    ///
    /// Nothing that a pod uses or a StatefulSet wants is ever removed. On a terminal the list is shown and a question
    /// asked; elsewhere naming things, or --yes, is the consent. A claim's data goes with it if the reclaim policy is
    /// Delete; a Released, Failed or Available volume goes with its data if that is in a directory that petset made.
    Prune(Prune),
}

/// `petset volumes prune`
#[derive(Args, Clone, Debug)]
pub struct Prune {
    /// What to remove: www-web-3 or pvc/www-web-3 (a claim), pv/NAME (a volume), dir/NAME (a directory)
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Do not ask
    #[arg(short = 'y', long, env = "PETSET_YES")]
    pub yes: bool,
}

/// `petset image`
#[derive(Args, Clone, Debug)]
pub struct Image {
    #[command(flatten)]
    pub data: Data,
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What can be done with images.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// Load the images of an archive: what docker save writes, or an OCI image layout; also compressed
    Load(ImageLoad),
    /// Fetch an image from its registry
    ///
    /// Registries that need a login are entered with what docker login wrote to ~/.docker/config.json; registries on a
    /// loopback address are spoken to over plain HTTP.
    Pull(ImagePull),
    /// List images
    Ls(ImageList),
    /// Remove images, by name or by id; the layers that no other image has go with the last name
    Rm(ImageRemove),
}

/// `petset image load`
#[derive(Args, Clone, Debug)]
pub struct ImageLoad {
    /// The archive, or - for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Name for the archive's image instead of the one that it brings
    #[arg(long, env = "PETSET_IMAGE_NAME", value_name = "REF")]
    pub name: Option<kubelet::image::reference::Reference>,
    #[command(flatten)]
    pub bounds: ImageBounds,
}

/// `petset image pull`
#[derive(Args, Clone, Debug)]
pub struct ImagePull {
    /// The image, as a pod names it: nginx:1.27, registry.example.com/team/app@sha256:…
    #[arg(value_name = "REF")]
    pub image: kubelet::image::reference::Reference,
    #[command(flatten)]
    pub bounds: ImageBounds,
}

/// What a layer may hold.
#[derive(Args, Clone, Copy, Debug)]
pub struct ImageBounds {
    /// Largest layer that is unpacked, in GiB
    #[arg(long, env = "PETSET_MAX_LAYER_SIZE", value_name = "GIB", default_value_t = 32,
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub max_layer_size: u64,
}

impl ImageBounds {
    /// With the bounds that are always the same.
    pub fn limits(self) -> kubelet::image::unpack::Limits {
        kubelet::image::unpack::Limits {
            bytes: self.max_layer_size << 30,
            ..kubelet::image::unpack::Limits::default()
        }
    }
}

/// `petset image ls`
#[derive(Args, Clone, Debug)]
pub struct ImageList {
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `petset image rm`
#[derive(Args, Clone, Debug)]
pub struct ImageRemove {
    /// Names or ids (sha256:…)
    #[arg(value_name = "REF", required = true)]
    pub images: Vec<String>,
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

/// `petset dns`
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Dns {
    #[command(subcommand)]
    pub command: Option<DnsCommand>,
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub names: Names,
    #[command(flatten)]
    pub ranges: Ranges,
    #[command(flatten)]
    pub log: Log,
}

/// What can be done with DNS besides serving it.
#[derive(Clone, Debug, Subcommand)]
pub enum DnsCommand {
    /// Print the records that a running petset serves, or those that it would serve for any cluster
    Records(DnsRecords),
}

/// `petset dns records`
#[derive(Args, Clone, Debug)]
pub struct DnsRecords {
    /// Only the records of this name, written as a pod would write it (web-0.nginx), or of an IP address (its PTR)
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Namespace of the pod that would ask
    #[arg(
        short = 'n',
        long,
        env = "PETSET_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// Form of the answer
    #[arg(short = 'o', long, env = "PETSET_OUTPUT", value_enum, default_value_t = RecordsOutput::Text)]
    pub output: RecordsOutput,
    /// Only this zone, such as cluster.local or 244.127.in-addr.arpa
    #[arg(long, env = "PETSET_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    #[command(flatten)]
    pub data: Data,
    /// Instead of asking a running petset, work it out from the objects of this API server
    #[arg(long, env = "PETSET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The zone of the cluster's names, with --kubeconfig
    #[arg(
        long,
        env = "PETSET_CLUSTER_DOMAIN",
        value_name = "DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    #[command(flatten)]
    pub ranges: Ranges,
}

/// Forms of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecordsOutput {
    /// A table, for people.
    Text,
    /// One JSON object with everything.
    Json,
    /// A zone file that other servers load, of the cluster's zone or that of --zone.
    Zone,
}

/// Whose reverse names there are.
#[derive(Args, Clone, Debug)]
pub struct Ranges {
    /// Ranges of pod addresses, IPv4 or IPv6, whose reverse names are answered
    #[arg(
        long,
        env = "PETSET_POD_CIDR",
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,127.244.0.0/16"
    )]
    pub pod_cidr: Vec<Cidr>,
    /// Ranges of Service addresses, IPv4 or IPv6, whose reverse names are answered
    #[arg(
        long,
        env = "PETSET_SERVICE_CIDR",
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.96.0.0/12"
    )]
    pub service_cidr: Vec<Cidr>,
}

impl Ranges {
    /// All of them, as text.
    pub fn reverse(&self) -> Vec<String> {
        let all = self.pod_cidr.iter().chain(&self.service_cidr);
        all.map(ToString::to_string).collect()
    }
}

/// A range of addresses, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            (1..=most).contains(&prefix).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is no range of addresses (examples are 10.244.0.0/16 and fd00:10:244::/56)")
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
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
    fn a_pods_dns_is_an_address_with_port_53() {
        for (text, expected) in [
            ("none", None),
            ("127.244.0.1", Some("127.244.0.1")),
            ("127.244.0.1:53", Some("127.244.0.1")),
            ("::1", Some("::1")),
            ("[::1]:53", Some("::1")),
        ] {
            let address = text.parse::<PodDns>().expect(text).0;
            assert_eq!(address.map(|a| a.to_string()).as_deref(), expected);
        }
        for (text, why) in [
            ("127.244.0.1:54", "cannot name a port"),
            ("0.0.0.0", "one address"),
            ("host", "127.244.0.1"),
        ] {
            let refused = text.parse::<PodDns>().expect_err(text);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn ranges_of_both_families_are_taken_one_by_one_or_with_commas() {
        let given = "petset dns --pod-cidr 10.244.0.0/16,fd00:10:244::/56 --pod-cidr 10.245.0.0/16";
        let parsed = Arguments::try_parse_from(given.split(' ')).expect("flags");
        let Command::Dns(dns) = parsed.command else {
            panic!("{parsed:?}")
        };
        assert_eq!(
            dns.ranges.reverse(),
            [
                "10.244.0.0/16",
                "fd00:10:244::/56",
                "10.245.0.0/16",
                "10.96.0.0/12"
            ]
        );
        for wrong in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/0", "fd00::/129", "x/8"] {
            assert!(
                wrong.parse::<Cidr>().expect_err(wrong).contains("no range"),
                "{wrong}"
            );
        }
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
