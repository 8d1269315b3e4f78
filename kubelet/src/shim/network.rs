//! The cluster's network and the pods' places in it, made with rtnetlink: a bridge in the cluster's network namespace
//! ([`cluster`]) and for each pod a namespace of its own with a cable to the bridge ([`pod`]).
//!
//! Everything here is synchronous and works on the network namespace of the calling thread: the holder and the shims
//! have one thread only.
//!
//! What one pod sends to another always goes through the bridge's own address (a pod has no route to its neighbours),
//! so that the cluster's namespace sees all of it and may translate Services' addresses, whether or not bridges show
//! what they carry to the packet filter (`br_netfilter`).

pub mod cluster;
pub mod pod;
mod route;

pub use cluster::ClusterNetwork;
pub use pod::Attached;

use std::fs;
use std::io;
use std::net::Ipv4Addr;

/// What could not be done to a network, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {source}")]
pub struct Error {
    /// In the words of a sentence that starts with "cannot".
    pub doing: String,
    /// The kernel's answer.
    pub source: io::Error,
}

fn to(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    |source| Error { doing, source }
}

/// The hardware address of whoever has this address in the cluster's network. It follows from the address, so that what
/// neighbours remember stays true when a pod comes back under its address.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    // The second bit of the first byte: given locally, not by a maker.
    [&[0x0a, 0x58][..], &address.octets()].concat()
}

/// Set a parameter of the kernel, named as `sysctl` names it, in the calling thread's namespaces. As there, a `/` stands
/// for a dot inside of a part (`net.ipv4.conf.eth0/1.forwarding`).
pub fn sysctl(name: &str, value: &str) -> Result<(), Error> {
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = name.chars().map(swap).collect();
    // A name can lead nowhere but to a parameter.
    let written = if path.split('/').any(|part| part.is_empty() || part == "..") {
        Err(io::ErrorKind::InvalidInput.into())
    } else {
        fs::write(format!("/proc/sys/{path}"), value)
    };
    written.map_err(to(format!("set the kernel parameter {name} to {value:?}")))
}

/// As [`sysctl`], for one that not every kernel has and that nothing depends on.
fn sysctl_if_there(name: &str, value: &str) {
    let _ = sysctl(name, value);
}

/// Let everybody listen on every port and send pings: inside of the cluster's networks no port is anybody's privilege.
fn open_to_all() -> Result<(), Error> {
    sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
    // In a user namespace only the groups that it maps can be named.
    sysctl("net.ipv4.ping_group_range", "0 2147483647")
        .or_else(|_| sysctl("net.ipv4.ping_group_range", "0 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_follows_from_the_address() {
        let address = hardware_address(Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(address, [0x0a, 0x58, 10, 244, 1, 2]);
    }

    #[test]
    fn a_parameters_name_leads_to_a_parameter_only() {
        for name in ["", "net..ipv4", "net.//.//.proc", "kernel.//.x"] {
            let refused = sysctl(name, "1").expect_err(name);
            assert_eq!(refused.source.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(sysctl("net.ipv4.no_such_parameter", "1").is_err());
    }
}
