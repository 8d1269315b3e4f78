//! What the kernel is to do with packets for Services: the contents of a few maps and sets, as a pure function of
//! [`ServicePort`]s. [`nft`](super::nft) says what is done with them.
//!
//! A destination and a number choose an endpoint. The number comes from chance, as many as there are endpoints, or for session affinity
//! from the client's address. So there is one lookup for each *count* of endpoints, however many Services there are.

use super::port::{Backends, Protocol, ServicePort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// How many numbers clients' addresses are spread over. It is always the same, so that a client's number is.
const CLIENT_BUCKETS: u32 = 256;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Address and port.
    pub address: SocketAddrV4,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// How the number that chooses an endpoint comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// At random, below this.
    Chance(u32),
    /// From the client's address.
    Client,
}

impl Spread {
    /// One more than the largest number.
    pub fn buckets(self) -> u32 {
        match self {
            Self::Chance(buckets) => buckets,
            Self::Client => CLIENT_BUCKETS,
        }
    }
}

/// Everything that the table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Endpoints by destination and number. The spread of a destination is the one it stands under; every number below its
    /// buckets is there.
    pub endpoints: BTreeMap<Spread, BTreeMap<(Destination, u32), SocketAddrV4>>,
    /// Destinations whose packets are not answered.
    pub dropped: BTreeSet<Destination>,
    /// Destinations that refuse, besides those at `cluster_ips`.
    pub refused: BTreeSet<Destination>,
    /// Addresses of which only what leads to an endpoint is anybody's.
    pub cluster_ips: BTreeSet<Ipv4Addr>,
    /// Addresses of endpoints: one that reaches itself through a Service must see another client's address than its own.
    pub hairpin: BTreeSet<Ipv4Addr>,
}

/// The rules for these ports. `node` is the node's address in the cluster's network, at which node ports answer too.
pub fn rules(ports: &[ServicePort], node: Option<Ipv4Addr>) -> Rules {
    let mut rules = Rules::default();
    for port in ports {
        rules.cluster_ips.insert(*port.cluster.ip());
        rules.add(port, port.cluster, &port.inside);
        let node_port = node.zip(port.node_port);
        let node_port = node_port.map(|(ip, port)| SocketAddrV4::new(ip, port));
        for address in port.external.iter().copied().chain(node_port) {
            rules.add(port, address, &port.outside);
        }
    }
    rules
}

impl Rules {
    fn add(&mut self, port: &ServicePort, address: SocketAddrV4, backends: &Backends) {
        let destination = Destination {
            address,
            protocol: port.protocol,
        };
        let endpoints: Vec<_> = backends.endpoints().iter().copied().filter(reachable).collect();
        let Ok(count @ 1..) = u32::try_from(endpoints.len()) else {
            let unanswered = match backends {
                Backends::Dropped => &mut self.dropped,
                _ => &mut self.refused,
            };
            unanswered.insert(destination);
            return;
        };
        self.hairpin
            .extend(endpoints.iter().map(|endpoint| *endpoint.ip()));
        let spread = match port.affinity {
            true => Spread::Client,
            false => Spread::Chance(count),
        };
        let chosen = self.endpoints.entry(spread).or_default();
        for (bucket, endpoint) in (0..spread.buckets()).zip(endpoints.iter().cycle()) {
            let endpoint = match spread {
                Spread::Chance(_) => *endpoint,
                Spread::Client => steady(&endpoints, bucket),
            };
            chosen.insert((destination, bucket), endpoint);
        }
    }
}

/// Nobody else's loopback can be reached, and no packet goes to nowhere or to all.
fn reachable(endpoint: &SocketAddrV4) -> bool {
    let ip = endpoint.ip();
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local())
}

/// The endpoint that scores highest for this number, so that one that comes or goes moves its own clients only.
///
/// # Panics
/// If there is no endpoint.
pub fn steady(endpoints: &[SocketAddrV4], number: u32) -> SocketAddrV4 {
    let score = |endpoint: &&SocketAddrV4| {
        let endpoint = u64::from(endpoint.ip().to_bits()) << 16 | u64::from(endpoint.port());
        mix(mix(endpoint) ^ u64::from(number))
    };
    *endpoints.iter().max_by_key(score).expect("there are endpoints")
}

/// A number with each bit depending on each (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().expect("address and port")
    }

    fn port(cluster: &str, inside: Backends) -> ServicePort {
        ServicePort {
            namespace: "default".into(),
            service: "web".into(),
            uid: "u".into(),
            protocol: Protocol::Tcp,
            cluster: at(cluster),
            external: Vec::new(),
            node_port: None,
            affinity: false,
            outside: inside.clone(),
            inside,
        }
    }

    fn endpoints(all: &[&str]) -> Backends {
        Backends::Endpoints(all.iter().map(|text| at(text)).collect())
    }

    fn tcp(address: &str) -> Destination {
        Destination {
            address: at(address),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn every_endpoint_has_one_number_among_as_many_as_there_are_endpoints() {
        let two = port("10.96.0.1:80", endpoints(&["10.1.0.1:8080", "10.1.0.2:8080"]));
        let also_two = port("10.96.0.2:80", endpoints(&["10.1.0.1:1", "10.1.0.1:2"]));
        let rules = rules(&[two, also_two], None);
        let expected = BTreeMap::from([
            ((tcp("10.96.0.1:80"), 0), at("10.1.0.1:8080")),
            ((tcp("10.96.0.1:80"), 1), at("10.1.0.2:8080")),
            ((tcp("10.96.0.2:80"), 0), at("10.1.0.1:1")),
            ((tcp("10.96.0.2:80"), 1), at("10.1.0.1:2")),
        ]);
        assert_eq!(rules.endpoints, BTreeMap::from([(Spread::Chance(2), expected)]));
        assert_eq!(rules.hairpin, [[10, 1, 0, 1].into(), [10, 1, 0, 2].into()].into());
        assert_eq!(rules.cluster_ips.len(), 2);
        assert!(rules.refused.is_empty() && rules.dropped.is_empty());
    }

    #[test]
    fn without_an_endpoint_that_can_be_reached_there_is_an_answer_or_none() {
        for (backends, refused) in [
            (Backends::Refused, true),
            (endpoints(&["127.0.0.1:6443"]), true),
            (Backends::Dropped, false),
        ] {
            let rules = rules(&[port("10.96.0.1:80", backends)], None);
            let expected = BTreeSet::from([tcp("10.96.0.1:80")]);
            assert_eq!(
                (rules.refused == expected, rules.dropped == expected),
                (refused, !refused)
            );
            assert!(rules.endpoints.is_empty());
        }
    }

    #[test]
    fn node_ports_and_external_addresses_have_the_policy_for_those_outside() {
        let mut port = port("10.96.0.1:80", endpoints(&["10.1.0.1:8080"]));
        port.outside = Backends::Dropped;
        port.node_port = Some(30080);
        port.external = vec![at("192.0.2.1:80")];
        let rules = rules(&[port], Some([10, 1, 0, 254].into()));
        assert_eq!(
            rules.dropped,
            [tcp("10.1.0.254:30080"), tcp("192.0.2.1:80")].into()
        );
        assert_eq!(rules.endpoints[&Spread::Chance(1)].len(), 1);
    }

    proptest! {
        #[test]
        fn with_affinity_a_client_keeps_its_endpoint_while_others_come_and_go(count in 1u8..40, gone in 0u8..40) {
            let named = |without: Option<u8>| -> Vec<_> {
                let all = (0..count).filter(|n| Some(*n) != without);
                all.map(|n| SocketAddrV4::new([10, 1, 0, n + 1].into(), 80)).collect()
            };
            let chosen = |endpoints: Vec<SocketAddrV4>| {
                let mut port = port("10.96.0.1:80", Backends::Endpoints(endpoints));
                port.affinity = true;
                let found = rules(&[port], None).endpoints;
                found[&Spread::Client].clone()
            };
            prop_assume!(gone < count && count > 1);
            let lost = SocketAddrV4::new([10, 1, 0, gone + 1].into(), 80);
            let (before, after) = (chosen(named(None)), chosen(named(Some(gone))));
            for (key, endpoint) in &after {
                if before[key] != lost {
                    prop_assert_eq!(before[key], *endpoint);
                }
            }
        }
    }

    #[test]
    fn clients_are_shared_out_about_evenly() {
        let three = [at("10.1.0.1:80"), at("10.1.0.2:80"), at("10.1.0.3:80")];
        let mut counts = BTreeMap::<_, u32>::new();
        for bucket in 0..CLIENT_BUCKETS {
            *counts.entry(steady(&three, bucket)).or_default() += 1;
        }
        assert!(
            counts.len() == 3 && counts.values().all(|count| (60..=112).contains(count)),
            "{counts:?}"
        );
    }
}
