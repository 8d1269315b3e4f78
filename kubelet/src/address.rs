//! Pod addresses: one of its own for each pod. Without network namespaces they come out of a range in 127.0.0.0/8, which
//! every Linux host reaches without any set-up. A pod keeps its address for life, and a pod of the same name gets the same
//! one again when it is free.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// A range of IPv4 addresses in CIDR notation, for example `10.244.0.0/16`, or `127.244.0.0/16` on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    network: u32,
    prefix: u8,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not a pod range: {why} (an example is 10.244.0.0/16)");
        let (address, prefix) = text.split_once('/').ok_or_else(|| wrong("it has no /PREFIX"))?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| wrong("it does not start with an IPv4 address"))?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong("the prefix is not a number"))?;
        if !(8..=30).contains(&prefix) {
            return Err(wrong("the prefix must be from 8 to 30"));
        }
        if !(address.is_private() || address.is_loopback() || is_shared(address)) {
            return Err(wrong(
                "its addresses are somebody's: take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, or of \
                 loopback, 127.0.0.0/8",
            ));
        }
        let network = u32::from(address) & mask(prefix);
        if network == u32::from(Ipv4Addr::new(127, 0, 0, 0)) && prefix > 8 && prefix >= 24 {
            return Err(wrong("127.0.0.0/24 is the host's own"));
        }
        Ok(Self { network, prefix })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// 100.64.0.0/10, which providers of networks share.
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

impl Range {
    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The address at an offset, unless it is not one for a pod: network, gateway-like first, broadcast, and
    /// the host's own 127.0.0.0/24.
    fn at(self, offset: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(self.network + offset);
        let reserved = offset < 2 || offset + 1 == self.size() || address.octets()[..3] == [127, 0, 0];
        (!reserved).then_some(address)
    }

    /// The first address, which no pod gets: the pods' DNS server may have it.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    /// Length of the network's prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it lies on the host's loopback, 127.0.0.0/8.
    pub fn is_loopback(self) -> bool {
        Ipv4Addr::from(self.network).is_loopback()
    }

    /// Whether it has an address in common with another network.
    pub fn overlaps(self, (network, prefix): (Ipv4Addr, u8)) -> bool {
        let shorter = mask(prefix.min(self.prefix));
        u32::from(network) & shorter == self.network & shorter
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        self.overlaps((address, 32))
    }
}

/// Hands out addresses. Keys are pod UIDs; names are remembered to give a pet its address back.
#[derive(Debug)]
pub struct Addresses {
    range: Range,
    next: u32,
    of_pod: HashMap<String, Ipv4Addr>,
    used: HashSet<Ipv4Addr>,
    remembered: HashMap<(String, String), Ipv4Addr>,
}

impl Addresses {
    /// None of `range` is taken yet.
    pub fn new(range: Range) -> Self {
        Self {
            range,
            next: 2,
            of_pod: HashMap::new(),
            used: HashSet::new(),
            remembered: HashMap::new(),
        }
    }

    /// No pod is to get this address.
    pub fn reserve(&mut self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.used.insert(address);
        }
    }

    /// An address that the API already shows for a pod is that pod's, whoever gave it.
    pub fn adopt(&mut self, namespace: &str, name: &str, uid: &str, address: IpAddr) {
        if let IpAddr::V4(address) = address
            && self.range.contains(address)
            && self.used.insert(address)
        {
            self.of_pod.insert(uid.into(), address);
            self.remembered.insert((namespace.into(), name.into()), address);
        }
    }

    /// The pod's address; `None` when the range is full.
    pub fn assign(&mut self, namespace: &str, name: &str, uid: &str) -> Option<IpAddr> {
        if let Some(address) = self.of_pod.get(uid) {
            return Some(IpAddr::V4(*address));
        }
        let key = (namespace.to_owned(), name.to_owned());
        let again = self
            .remembered
            .get(&key)
            .copied()
            .filter(|a| !self.used.contains(a));
        let address = match again {
            Some(address) => address,
            None => self.fresh()?,
        };
        self.used.insert(address);
        self.of_pod.insert(uid.into(), address);
        self.remembered.insert(key, address);
        Some(IpAddr::V4(address))
    }

    /// The pod is gone; its address can be given again.
    pub fn release(&mut self, uid: &str) {
        if let Some(address) = self.of_pod.remove(uid) {
            self.used.remove(&address);
        }
    }

    /// Walks round the range, so that an address is not given to a stranger right after it was let go. Those
    /// remembered for a name come last.
    fn fresh(&mut self) -> Option<Ipv4Addr> {
        let kept: HashSet<Ipv4Addr> = self.remembered.values().copied().collect();
        let pick = |this: &Self, spare_kept: bool| {
            (0..this.range.size())
                .map(|n| (this.next + n) % this.range.size())
                .find(|offset| {
                    this.range
                        .at(*offset)
                        .is_some_and(|a| !(this.used.contains(&a) || spare_kept && kept.contains(&a)))
                })
        };
        let offset = pick(self, true).or_else(|| pick(self, false))?;
        self.next = offset + 1;
        let address = self.range.at(offset)?;
        self.remembered.retain(|_, held| *held != address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(range: &str) -> Addresses {
        Addresses::new(range.parse().expect("a range"))
    }

    fn assign(addresses: &mut Addresses, name: &str, uid: &str) -> String {
        addresses.assign("default", name, uid).expect("free").to_string()
    }

    #[test]
    fn a_pet_gets_its_address_back_and_a_stranger_does_not_get_it() {
        let mut a = addresses("127.244.0.0/16");
        assert_eq!(assign(&mut a, "web-0", "1"), "127.244.0.2");
        assert_eq!(assign(&mut a, "web-0", "1"), "127.244.0.2");
        a.release("1");
        assert_eq!(assign(&mut a, "other", "2"), "127.244.0.3");
        assert_eq!(assign(&mut a, "web-0", "3"), "127.244.0.2");
    }

    #[test]
    fn two_pods_never_share_an_address() {
        let mut a = addresses("127.244.0.0/28");
        a.adopt("default", "old", "0", "127.244.0.5".parse().expect("ip"));
        let given: Vec<_> = (1..=12)
            .map(|n| assign(&mut a, &n.to_string(), &n.to_string()))
            .collect();
        let unique: HashSet<_> = given.iter().collect();
        assert_eq!(unique.len(), 12);
        assert!(!given.contains(&"127.244.0.5".to_owned()));
        assert_eq!(a.assign("default", "one-more", "99"), None);
        a.release("3");
        assert_eq!(assign(&mut a, "one-more", "99"), given[2]);
    }

    #[test]
    fn the_first_address_and_those_reserved_are_not_for_pods() {
        let range: Range = "127.244.0.0/29".parse().expect("a range");
        assert_eq!(range.first().to_string(), "127.244.0.1");
        let mut a = Addresses::new(range);
        a.reserve("127.244.0.3".parse().expect("ip"));
        a.adopt("default", "old", "0", "127.244.0.3".parse().expect("ip"));
        let given: Vec<String> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| assign(&mut a, name, name))
            .collect();
        assert_eq!(
            given,
            ["127.244.0.2", "127.244.0.4", "127.244.0.5", "127.244.0.6"]
        );
        assert_eq!(a.assign("default", "old", "0"), None);
    }

    #[test]
    fn a_range_that_cannot_be_one_is_refused_with_the_reason() {
        for (text, why) in [
            ("192.0.2.0/24", "somebody's"),
            ("100.128.0.0/16", "somebody's"),
            ("127.0.0.0", "/PREFIX"),
            ("127.1.0.0/31", "from 8 to 30"),
            ("127.0.0.0/24", "host's own"),
            ("x/8", "IPv4"),
        ] {
            let refused = text.parse::<Range>().expect_err(text);
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(
            "127.5.6.7/16".parse::<Range>().expect("a range").to_string(),
            "127.5.0.0/16"
        );
    }

    #[test]
    fn two_networks_overlap_if_one_is_in_the_other() {
        let range: Range = "10.244.0.0/16".parse().expect("a range");
        for (network, prefix, overlaps) in [
            ([10, 244, 7, 0], 24, true),
            ([10, 0, 0, 0], 8, true),
            ([0, 0, 0, 0], 0, true),
            ([10, 245, 0, 0], 16, false),
            ([10, 96, 0, 0], 12, false),
        ] {
            assert_eq!(
                range.overlaps((network.into(), prefix)),
                overlaps,
                "{network:?}/{prefix}"
            );
        }
        assert!(!range.is_loopback());
    }
}
