//! What can be seen of the DNS server, and by whom: its log of questions, its metrics, whole zones.

use crate::args;
use crate::cluster::bind_tcp;
use dns::transfer::Allowed;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// What `--dns-log` and its like say.
#[derive(Clone, Debug, Default)]
pub struct DnsLooks {
    /// Whether every question is logged.
    pub log: bool,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Who may have whole zones.
    pub allow_transfer: Allowed,
}

impl DnsLooks {
    /// From the command line.
    pub fn new(given: &args::DnsLooks) -> Self {
        Self {
            log: given.dns_log,
            metrics: given.dns_metrics,
            allow_transfer: given.dns_allow_transfer.iter().copied().collect(),
        }
    }

    /// The socket of the metrics, if they are served.
    pub async fn bind(&self) -> anyhow::Result<Option<TcpListener>> {
        match self.metrics {
            Some(address) => Ok(Some(
                bind_tcp(address, "the DNS server's metrics", "--dns-metrics").await?,
            )),
            None => Ok(None),
        }
    }
}

/// Where Prometheus finds them.
pub fn metrics_url(address: SocketAddr) -> String {
    format!("http://{address}/metrics")
}
