//! Which servers questions are passed on to, as flags name them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The port of DNS.
pub const PORT: u16 = 53;

/// Whom to ask for names that are not the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// The nameservers of the host's `/etc/resolv.conf`.
    Host,
    /// These, in order.
    Addresses(Vec<SocketAddr>),
}

impl FromStr for Servers {
    type Err = String;

    /// `host`, or addresses with commas between them: `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "host" {
            return Ok(Self::Host);
        }
        let mut addresses = Vec::new();
        for part in text.split(',').map(str::trim) {
            let address = address(part)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Self::Addresses(addresses))
    }
}

/// An address with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    let address = address.or_else(|_| text.parse::<SocketAddr>()).map_err(|_| {
        format!(
            "{text:?} is no DNS server's address: give \"host\" for those of /etc/resolv.conf, or IP or IP:PORT, several \
             with commas between them (examples: 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:5353); names are not possible"
        )
    })?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(format!("{text:?}: nobody can be asked there"));
    }
    Ok(address)
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_with_or_without_a_port() {
        let cases = [
            ("host", "host"),
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
            ("192.0.2.1, 192.0.2.2:54,192.0.2.1", "192.0.2.1:53,192.0.2.2:54"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Servers>().expect(text).to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_an_example() {
        for text in [
            "",
            "dns.google",
            "192.0.2.1:",
            "192.0.2.256",
            "192.0.2.1,",
            "HOST:53",
        ] {
            let refused = text.parse::<Servers>().expect_err(text);
            assert!(refused.contains("192.0.2.1:5353"), "{refused}");
        }
        for text in ["0.0.0.0", "192.0.2.1:0", "[::]:53", "224.0.0.251"] {
            let refused = text.parse::<Servers>().expect_err(text);
            assert!(refused.contains("nobody can be asked"), "{refused}");
        }
    }
}
