//! Ports that need a privilege: without it, nothing listens below `net.ipv4.ip_unprivileged_port_start` (1024) on the
//! host's loopback, where pods live that have no network of their own.

use std::fs;

/// `CAP_NET_BIND_SERVICE`, by its number.
const NET_BIND_SERVICE: u32 = 10;

/// The lowest port that this process may listen on.
pub fn lowest_port() -> u16 {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let start = start
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    let capabilities = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status));
    if capabilities.is_some_and(|set| set & (1 << NET_BIND_SERVICE) != 0) {
        0
    } else {
        start
    }
}

/// The effective capabilities that `/proc/self/status` tells.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// What to tell a user whose pod wants `port`; `None` when it can have it.
pub fn remedy(port: u16) -> Option<String> {
    refusal(port, lowest_port())
}

fn refusal(port: u16, lowest: u16) -> Option<String> {
    (port < lowest).then(|| {
        format!(
            "port {port} needs a privilege that petset does not have here (ports below {lowest} are root's): use a \
             containerPort of {lowest} or above, run petset as root, or allow it with 'sudo sysctl -w \
             net.ipv4.ip_unprivileged_port_start={port}'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_below_the_lowest_is_refused_with_what_to_do() {
        let message = refusal(80, 1024).expect("refused");
        assert!(
            message.contains("net.ipv4.ip_unprivileged_port_start=80"),
            "{message}"
        );
        assert_eq!(refusal(80, 0), None);
        assert_eq!(refusal(1024, 1024), None);
    }

    #[test]
    fn capabilities_are_read_in_hexadecimal() {
        assert_eq!(
            effective("Name:\tx\nCapEff:\t0000000000000400\n"),
            Some(1 << NET_BIND_SERVICE)
        );
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
