//! The cluster's DNS server: authoritative for the names of Services and pods, answering from memory.
//!
//! [`records`] says which names each object of the API makes (pure functions), [`table`] puts them together, [`zone`]
//! answers a question from them (a pure function), [`follow`] keeps them up to date by watching, [`server`] speaks the
//! protocol. One answer comes from one version of the data.

pub mod follow;
pub mod log;
pub mod metrics;
pub mod presentation;
pub mod records;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod transfer;
pub mod upstream;
pub mod zone;
pub mod zonefile;

use hickory_proto::rr::Name;
use metrics::Metrics;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use zone::Live;

/// What a DNS server needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The zone of the cluster's names, for example `cluster.local`.
    pub cluster_domain: String,
    /// Address ranges (CIDR, IPv4) whose reverse names are answered.
    pub reverse_ranges: Vec<String>,
    /// The server's own address, as `ns.dns.DOMAIN` gives it.
    pub address: IpAddr,
    /// Who may have whole zones (AXFR).
    pub allow_transfer: transfer::Allowed,
    /// Whether every question is told with [`log::query`].
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            reverse_ranges: Vec::new(),
            address: IpAddr::from([127, 0, 0, 1]),
            allow_transfer: transfer::Allowed::default(),
            log: false,
        }
    }
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// The watches on the API ended.
    #[error("the DNS server lost its watches on the API")]
    Watches,
    /// The sockets cannot be served any more.
    #[error("the DNS server's sockets failed: {0}")]
    Sockets(String),
}

/// Bound sockets whose clients are treated alike.
#[derive(Debug)]
pub struct Listener {
    /// Several with SO_REUSEPORT, or one.
    pub udp: Vec<UdpSocket>,
    /// On the same address as `udp`.
    pub tcp: Vec<TcpListener>,
    /// Who is asked for names outside all zones; `None`: they are refused.
    pub upstream: Option<upstream::Servers>,
}

/// Answer on all sockets until `shutdown`.
pub async fn run(
    client: kube::Client,
    options: Options,
    listeners: Vec<Listener>,
    looks: status::Listeners,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let config = Arc::new(Config::new(&options)?);
    let live = Arc::new(Live::new(&config));
    let metrics = Metrics::new();
    let looking = status::serve(looks, live.clone(), metrics);
    let (udp, tcp): (Vec<_>, Vec<_>) = listeners.into_iter().map(|l| (l.udp, l.tcp)).unzip();
    let (udp, tcp) = (
        udp.into_iter().flatten().collect(),
        tcp.into_iter().flatten().collect(),
    );
    let mut server = server::listen(live.clone(), udp, tcp);
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = follow::follow(client, config, live) => Err(Error::Watches),
        ended = looking => Err(Error::Sockets(match ended {
            Ok(()) => "they were closed".into(),
            Err(error) => error.to_string(),
        })),
        ended = server.block_until_done() => Err(Error::Sockets(match ended {
            Ok(()) => "they were closed".into(),
            Err(error) => error.to_string(),
        })),
    };
    if let Err(error) = server.shutdown_gracefully().await {
        tracing::debug!(%error, "while stopping DNS");
    }
    outcome
}

/// [`Options`], parsed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The zone's apex.
    pub origin: Name,
    /// Apexes of the reverse zones.
    pub reverse: Vec<Name>,
    /// The server's own address.
    pub address: IpAddr,
}

impl Config {
    /// The apexes of all zones, the cluster's first.
    pub fn apexes(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.origin).chain(&self.reverse)
    }

    /// Refuses what is no domain or no range.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let domain = options.cluster_domain.trim_matches('.');
        let wrong = |why: String| Error::Option(format!("cluster domain {domain:?}: {why}"));
        if domain.is_empty() {
            return Err(wrong("it is empty (an example is cluster.local)".into()));
        }
        let mut origin = Name::from_str(domain)
            .map_err(|e| wrong(e.to_string()))?
            .to_lowercase();
        origin.set_fqdn(true);
        let mut reverse = Vec::new();
        for range in &options.reverse_ranges {
            reverse.extend(reverse_zones(range).map_err(Error::Option)?);
        }
        Ok(Self {
            origin,
            reverse,
            address: options.address,
        })
    }
}

/// The reverse zones that cover a range: names end at whole octets, so a range within an octet needs several.
fn reverse_zones(range: &str) -> Result<Vec<Name>, String> {
    let wrong = || format!("{range:?} is no IPv4 range (an example is 127.244.0.0/16)");
    let (address, prefix) = range.split_once('/').ok_or_else(wrong)?;
    let address: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let prefix: u32 = prefix
        .parse()
        .ok()
        .filter(|p| (1..=32).contains(p))
        .ok_or_else(wrong)?;
    let octets = prefix.div_ceil(8);
    let network = u32::from(address) & (u32::MAX << (32 - prefix));
    let zones = 0..(1u32 << (octets * 8 - prefix));
    zones
        .map(|n| {
            let bytes = (network + (n << (32 - octets * 8))).to_be_bytes();
            let labels: Vec<String> = bytes[..octets as usize].iter().rev().map(u8::to_string).collect();
            Name::from_str(&format!("{}.in-addr.arpa.", labels.join("."))).map_err(|e| e.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(range: &str) -> Vec<String> {
        reverse_zones(range)
            .expect(range)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_range_within_an_octet_needs_a_zone_for_each_value() {
        assert_eq!(zones("127.244.0.0/16"), ["244.127.in-addr.arpa."]);
        assert_eq!(zones("10.96.0.0/12").len(), 16);
        assert_eq!(zones("10.96.0.0/12")[1], "97.10.in-addr.arpa.");
        assert!(reverse_zones("10.0.0.0").is_err());
        assert!(reverse_zones("10.0.0.0/33").is_err());
    }

    #[test]
    fn a_domain_that_is_none_is_refused() {
        let options = |domain: &str| Options {
            cluster_domain: domain.into(),
            ..Options::default()
        };
        assert_eq!(
            Config::new(&options("Cluster.Local."))
                .expect("a domain")
                .origin
                .to_string(),
            "cluster.local."
        );
        assert!(Config::new(&options(".")).is_err());
        assert!(Config::new(&options(&"x".repeat(64))).is_err());
    }
}
