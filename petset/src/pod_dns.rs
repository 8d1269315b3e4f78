//! The pods' own DNS address. A pod's resolv.conf cannot name a port, so it is port 53 of an address that only pods use,
//! where this machine lets petset have that.

use crate::args;
use anyhow::Context;
use dns::listener::{Unbound, threads};
use dns::upstream::Servers;
use kubelet::address::Range;
use kubelet::network::Network;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

/// The only port that a resolver asks.
const PORT: u16 = 53;

/// Where it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nowhere: pods use the host's.
    Nowhere,
    /// Here if that is possible.
    IfPossible(IpAddr),
    /// Here.
    At(IpAddr),
}

impl Wanted {
    /// What `--pod-dns` says; without it the first address of the pods' range, which is their gateway if they have one.
    pub fn new(flag: Option<args::PodDns>, range: Range) -> Self {
        match flag {
            Some(args::PodDns(Some(address))) => Self::At(address),
            Some(args::PodDns(None)) => Self::Nowhere,
            None => Self::IfPossible(range.first().into()),
        }
    }
}

/// Its sockets, or why there are none.
pub type Bound = Result<dns::Listener, String>;

/// Listen there, in the network that pods are in. Only an address that somebody asked for is worth an error.
pub async fn bind(wanted: Wanted, network: &Network, upstream: Option<Servers>) -> anyhow::Result<Bound> {
    let (address, must) = match wanted {
        Wanted::Nowhere => return Ok(Err("switched off with --pod-dns none".into())),
        Wanted::IfPossible(address) => (SocketAddr::new(address, PORT), false),
        Wanted::At(address) => (SocketAddr::new(address, PORT), true),
    };
    match listen(address, network, upstream).await {
        Ok(listener) => Ok(Ok(listener)),
        Err(error) if must => {
            let remedy = remedy(error.kind());
            Err(error).with_context(|| {
                format!("cannot listen on {address} for the pods' DNS, as --pod-dns says{remedy}")
            })
        }
        Err(error) => {
            let why = format!("cannot listen on {address}: {error}{}", remedy(error.kind()));
            tracing::debug!(why, "pods use the host's DNS");
            Ok(Err(why))
        }
    }
}

async fn listen(
    address: SocketAddr,
    network: &Network,
    upstream: Option<Servers>,
) -> io::Result<dns::Listener> {
    let domain = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let tcp = network.socket(domain, libc::SOCK_STREAM, 0).await?;
    let mut udp = Vec::new();
    for _ in 0..threads() {
        udp.push(network.socket(domain, libc::SOCK_DGRAM, 0).await?);
    }
    dns::Listener::bind_these(address, Unbound { tcp, udp }, upstream)
}

/// What helps against an error, in parentheses.
fn remedy(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::PermissionDenied => {
            " (run petset as root, or: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=53)"
        }
        ErrorKind::AddrInUse => {
            " (another petset or DNS server has it: choose another address with --pod-dns)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_flag_it_is_the_first_address_of_the_range_if_possible() {
        let range: Range = "127.244.0.0/16".parse().expect("a range");
        let first = IpAddr::from([127, 244, 0, 1]);
        let named = IpAddr::from([127, 0, 0, 153]);
        assert_eq!(Wanted::new(None, range), Wanted::IfPossible(first));
        assert_eq!(Wanted::new(Some(args::PodDns(None)), range), Wanted::Nowhere);
        assert_eq!(
            Wanted::new(Some(args::PodDns(Some(named))), range),
            Wanted::At(named)
        );
    }
}
