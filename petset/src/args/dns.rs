//! How names are answered, and `petset dns`.

// clap would show the documentation of a flattened field as the command's own description.
#![allow(missing_docs)]

use super::{Data, Log, Ranges, Remote};
use clap::{Args, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
