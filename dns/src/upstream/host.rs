//! The nameservers of the host, as `/etc/resolv.conf` names them now.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(2);

/// Nameservers, read again when the file changes.
#[derive(Debug)]
pub struct Nameservers {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    /// Device, inode, length and time of the last change.
    stamp: Option<[i64; 5]>,
    servers: Vec<SocketAddr>,
}

impl Nameservers {
    /// Those of this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            known: Mutex::default(),
        }
    }

    /// The nameservers, and whether they have been read just now.
    pub fn current(&self, now: Instant) -> (Vec<SocketAddr>, bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = known.looked.is_none();
        if known.looked.is_some_and(|looked| now < looked + LOOK) {
            return (known.servers.clone(), false);
        }
        known.looked = Some(now);
        let stamp = fs::metadata(&self.path).ok().map(|file| {
            let (device, inode) = (file.dev() as i64, file.ino() as i64);
            [device, inode, file.len() as i64, file.mtime(), file.mtime_nsec()]
        });
        if !is_first && stamp == known.stamp {
            return (known.servers.clone(), false);
        }
        known.stamp = stamp;
        known.servers = nameservers(&fs::read_to_string(&self.path).unwrap_or_default());
        (known.servers.clone(), true)
    }
}

/// The nameservers that resolv.conf(5) lists; without any it is the one on this machine.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let server = words.next().and_then(address);
        servers.extend(server.filter(|server| !servers.contains(server)));
    }
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, super::servers::PORT).into());
    }
    servers
}

/// An address, which may be one of a link: `fe80::1%eth0`.
fn address(text: &str) -> Option<SocketAddr> {
    let port = super::servers::PORT;
    let Some((ip, link)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port));
    };
    let index = link.parse().ok().or_else(|| {
        let index = fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).ok()?;
        index.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(ip.parse::<Ipv6Addr>().ok()?, port, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nameserver_line_counts_once_and_nothing_else_does() {
        let cases = [
            ("nameserver 192.0.2.1\n", "192.0.2.1:53"),
            (
                "# nameserver 192.0.2.9\nsearch example.com\nnameserver\t192.0.2.1 # mine\n nameserver 2001:db8::1\nnameserver 192.0.2.1\n",
                "192.0.2.1:53 [2001:db8::1]:53",
            ),
            ("nameserver fe80::1%7\n", "[fe80::1%7]:53"),
            (
                "nameserver fe80::1%nosuchlink\nnameserver 192.0.2.1",
                "192.0.2.1:53",
            ),
            (
                "nameserver dns.example.com\nnameservers 192.0.2.1\n",
                "127.0.0.1:53",
            ),
            ("", "127.0.0.1:53"),
        ];
        for (text, expected) in cases {
            let found: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_but_not_looked_at_for_every_question() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("resolv.conf");
        let write = |server: &str| fs::write(&path, format!("nameserver {server}\n")).expect("written");
        write("192.0.2.1");
        let names = Nameservers::new(&path);
        let start = Instant::now();
        let at = |text: &str| vec![SocketAddr::new(text.parse().expect("ip"), 53)];
        assert_eq!(names.current(start), (at("192.0.2.1"), true));
        write("198.51.100.17");
        assert_eq!(names.current(start + LOOK / 2), (at("192.0.2.1"), false));
        assert_eq!(names.current(start + LOOK), (at("198.51.100.17"), true));
        assert_eq!(names.current(start + LOOK * 2), (at("198.51.100.17"), false));
        fs::remove_file(&path).expect("removed");
        assert_eq!(names.current(start + LOOK * 3), (at("127.0.0.1"), true));
    }
}
