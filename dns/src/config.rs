//! What a DNS server is told, checked: its zones and its own addresses.

use crate::Error;
use crate::name::Name;
use crate::transfer;
use std::net::IpAddr;

/// What a DNS server needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The zone of the cluster's names, for example `cluster.local`.
    pub cluster_domain: String,
    /// Address ranges (CIDR) whose reverse names are answered.
    pub reverse_ranges: Vec<String>,
    /// The server's own addresses, as `ns.dns.DOMAIN` gives them.
    pub addresses: Vec<IpAddr>,
    /// The SOA's serial of the first version; every version has the next. The time in seconds keeps it growing over
    /// restarts, for servers that transfer the zone.
    pub first_serial: u32,
    /// Who may have whole zones (AXFR).
    pub allow_transfer: transfer::Allowed,
    /// Whether every question is told with [`crate::log::query`].
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            reverse_ranges: Vec::new(),
            addresses: vec![[127, 0, 0, 1].into()],
            first_serial: 1,
            allow_transfer: transfer::Allowed::default(),
            log: false,
        }
    }
}

/// [`Options`], parsed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The zone's apex.
    pub origin: Name,
    /// Apexes of the reverse zones, each once.
    pub reverse: Vec<Name>,
    /// The server's own name, `ns.dns.DOMAIN`.
    pub server: Name,
    /// Who is responsible, as a name: `hostmaster.DOMAIN`.
    pub contact: Name,
    /// The server's own addresses.
    pub addresses: Vec<IpAddr>,
    /// The SOA's serial of the first version.
    pub first_serial: u32,
}

impl Config {
    /// The apexes of all zones, the cluster's first.
    pub fn apexes(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.origin).chain(&self.reverse)
    }

    /// Refuses what is no domain or no range.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let domain = options.cluster_domain.trim_matches('.');
        let wrong = |why: &str| Error::Option(format!("cluster domain {domain:?}: {why}"));
        if domain.is_empty() {
            return Err(wrong("it is empty (an example is cluster.local)"));
        }
        let unfit =
            || wrong("it is no domain name: labels of 1 to 63 letters, digits and dashes between dots");
        let origin = Name::from_text(domain).ok_or_else(unfit)?;
        let (server, contact) = (origin.descendant(&["ns", "dns"]), origin.child("hostmaster"));
        let too_long = || wrong("it is too long for names below it");
        let mut reverse = Vec::new();
        for range in &options.reverse_ranges {
            reverse.extend(reverse_zones(range).map_err(Error::Option)?);
        }
        reverse.sort();
        reverse.dedup();
        Ok(Self {
            server: server.ok_or_else(too_long)?,
            contact: contact.ok_or_else(too_long)?,
            origin,
            reverse,
            addresses: options.addresses.clone(),
            first_serial: options.first_serial,
        })
    }
}

/// The reverse zones that cover a range: names end at whole octets (IPv4) or half ones (IPv6), so a range within one
/// needs several.
fn reverse_zones(range: &str) -> Result<Vec<Name>, String> {
    let wrong =
        || format!("{range:?} is no range of addresses (examples are 127.244.0.0/16 and fd00:10::/64)");
    let (address, prefix) = range.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
    // The bits of the address at the top of 128, how many an address has, and how many a label stands for.
    let (bits, all, label) = match address {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32, 8),
        IpAddr::V6(ip) => (u128::from(ip), 128, 4),
    };
    if !(1..=all).contains(&prefix) {
        return Err(wrong());
    }
    let whole = prefix.div_ceil(label) * label;
    let network = bits & (u128::MAX << (128 - prefix));
    let zone = |n: u128| {
        let bits = network | (n << (128 - whole));
        let ip = match address {
            IpAddr::V4(_) => IpAddr::from(u32::to_be_bytes(u32::try_from(bits >> 96).expect("32 bits"))),
            IpAddr::V6(_) => IpAddr::from(bits.to_be_bytes()),
        };
        let below = usize::try_from((all - whole) / label).expect("at most 31");
        std::iter::successors(Some(Name::reverse(ip)), Name::parent)
            .nth(below)
            .expect("it has a label for each part of the address")
    };
    Ok((0..1 << (whole - prefix)).map(zone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(range: &str) -> Vec<String> {
        let zones = reverse_zones(range).expect(range);
        zones.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_range_within_an_octet_or_a_nibble_needs_a_zone_for_each_value() {
        assert_eq!(zones("127.244.0.0/16"), ["244.127.in-addr.arpa."]);
        assert_eq!(zones("192.0.2.7/32"), ["7.2.0.192.in-addr.arpa."]);
        assert_eq!(zones("10.96.0.0/12").len(), 16);
        assert_eq!(zones("10.96.0.0/12")[1], "97.10.in-addr.arpa.");
        assert_eq!(zones("fd00::/8"), ["d.f.ip6.arpa."]);
        assert_eq!(zones("fd00:10::/30").len(), 4);
        assert_eq!(zones("fd00:10::/30")[3], "3.1.0.0.0.0.d.f.ip6.arpa.");
        assert_eq!(zones("::1/128")[0].matches("0.").count(), 31);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/0",
            "fd00::/129",
            "ten/8",
            "10.0.0.0/x",
            "",
        ] {
            let error = reverse_zones(wrong).expect_err(wrong);
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }

    #[test]
    fn a_domain_that_is_none_is_refused() {
        let options = |domain: &str| Options {
            cluster_domain: domain.into(),
            reverse_ranges: vec!["10.0.0.0/9".into(), "10.64.0.0/10".into()],
            ..Options::default()
        };
        let config = Config::new(&options("Cluster.Local.")).expect("a domain");
        assert_eq!(config.origin.to_string(), "cluster.local.");
        assert_eq!(config.server.to_string(), "ns.dns.cluster.local.");
        assert_eq!(config.reverse.len(), 128, "each zone once");
        assert!(Config::new(&options(".")).is_err());
        assert!(Config::new(&options(&"x".repeat(64))).is_err());
        assert!(Config::new(&options(&["x".repeat(60).as_str(); 4].join("."))).is_err());
    }
}
