//! Rules for IP addresses in Services, Endpoints and EndpointSlices.

use crate::validation::Invalid;
use std::net::IpAddr;

/// An IP address of either family, or what is wrong with the text.
pub fn parse(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    let detail = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
        Ok(address) => return Ok(address),
        Err(_) if has_leading_zeros(text) => "must not have leading 0s",
        Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    };
    Err(Invalid::malformed(field, text, detail))
}

/// Whether the text would be an IPv4 address but for zeros such as in `010.0.0.1`.
fn has_leading_zeros(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').map(|p| p.trim_start_matches('0')).collect();
    parts.len() == 4
        && parts.iter().zip(text.split('.')).all(|(stripped, part)| {
            !part.is_empty() && (stripped.is_empty() || stripped.parse::<u8>().is_ok())
        })
}

/// Addresses that make no sense as the end of traffic from elsewhere.
pub fn special(field: &str, address: IpAddr) -> Vec<Invalid> {
    let mut invalid = special_but_loopback(field, address);
    if address.is_loopback() {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        invalid.push(Invalid::malformed(field, address.to_string(), detail));
    }
    invalid
}

/// As [`special`], but loopback addresses may stand: pods of this cluster have theirs in 127.0.0.0/8, and
/// the endpoints of a Service must be able to name them. Kubernetes refuses them there.
pub fn special_but_loopback(field: &str, address: IpAddr) -> Vec<Invalid> {
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let detail = if address.is_unspecified() {
        format!("may not be unspecified ({address})")
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
    } else {
        return Vec::new();
    };
    vec![Invalid::malformed(field, address.to_string(), detail)]
}

/// A network in CIDR notation.
pub fn cidr(field: &str, text: &str) -> Option<Invalid> {
    let valid = text.split_once('/').is_some_and(|(ip, bits)| {
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        match (ip.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => digits && bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => digits && bits <= 128,
            _ => false,
        }
    });
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    (!valid).then(|| Invalid::malformed(field, text, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for good in ["10.0.0.1", "0.0.0.0", "2001:db8::1"] {
            assert!(parse("f", good).is_ok(), "{good}");
        }
        let table = [
            (
                "nope",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "256.0.0.1",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            ("10.0.0.01", "must not have leading 0s"),
            ("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address"),
        ];
        for (bad, detail) in table {
            assert_eq!(parse("f", bad), Err(Invalid::malformed("f", bad, detail)));
        }
    }

    #[test]
    fn special_addresses_are_refused_and_loopback_only_where_asked() {
        let count = |text: &str| special("f", text.parse().unwrap()).len();
        for bad in [
            "0.0.0.0",
            "127.0.0.9",
            "169.254.1.1",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert_eq!(count(bad), 1, "{bad}");
        }
        assert_eq!(count("10.0.0.1"), 0);
        assert_eq!(special_but_loopback("f", "127.3.2.1".parse().unwrap()), []);
    }

    #[test]
    fn a_network_is_an_address_and_a_length() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/128"] {
            assert_eq!(cidr("f", good), None, "{good}");
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "x/8",
            "::/129",
        ] {
            assert!(cidr("f", bad).is_some(), "{bad}");
        }
    }
}
