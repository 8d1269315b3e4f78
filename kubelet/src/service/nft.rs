//! The rules for Services in the words of nftables: one table, replaced whole in one step, so that no packet ever meets half
//! of it. As `nft list ruleset` shows it:
//!
//! ```text
//! table ip TABLE {
//!   map spread-2 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; elements = … }
//!   set dropped, refused { type ipv4_addr . inet_proto . inet_service; … }
//!   set cluster-ips { type ipv4_addr; … }
//!   set hairpin { type ipv4_addr . ipv4_addr; … }
//!   chain services { dnat to ip daddr . meta l4proto . th dport . numgen random mod 2 map @spread-2; … }
//!   chain prerouting { type nat hook prerouting priority dstnat; iifname BRIDGE jump services }
//!   chain output { type nat hook output priority dstnat; jump services }
//!   chain unanswered { ip daddr . meta l4proto . th dport @dropped drop; … @refused reject; ip daddr @cluster-ips reject }
//!   chain unanswered-prerouting { type filter hook prerouting priority dstnat + 10; iifname BRIDGE jump unanswered }
//!   chain unanswered-output { type filter hook output priority dstnat + 10; jump unanswered }
//!   chain postrouting { type nat hook postrouting priority srcnat
//!     ip saddr . ip daddr @hairpin masquerade
//!     ip saddr & MASK == PODS, ip daddr & MASK != PODS, oifname != BRIDGE masquerade }
//! }
//! ```
//!
//! What still has a cluster IP as its destination after `dstnat` has no endpoint, or a port that the Service does not have.

mod expression;
mod message;
mod socket;

pub use socket::{Error, Socket};

use super::rules::{Destination, Rules, Spread};
use expression::{Destined, Reject, Verdict};
use message::{Batch, Hook, Rule, Set};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where the rules are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table's name: one for each cluster in a network namespace.
    pub table: String,
    /// Where pods' packets come in.
    pub bridge: String,
    /// The pods' addresses, which have a meaning only here: the network's address and the length of its prefix.
    pub pods: (Ipv4Addr, u8),
}

/// What makes the table new, or for the first time.
pub fn replace(place: &Place, rules: &Rules) -> Vec<u8> {
    let mut batch = Batch::new(&place.table);
    // A table can only be deleted if there is one.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    add_sets(&mut batch, rules);
    batch.add_chain("services");
    for spread in rules.endpoints.keys() {
        batch.add_rule("services", translate(*spread));
    }
    add_unanswered(&mut batch);
    add_bases(&mut batch, place);
    batch.end()
}

/// What takes the table away.
pub fn remove(table: &str) -> Vec<u8> {
    let mut batch = Batch::new(table);
    batch.add_table();
    batch.delete_table();
    batch.end()
}

fn map_name(spread: Spread) -> String {
    match spread {
        Spread::Chance(count) => format!("spread-{count}"),
        Spread::Client => "by-client".into(),
    }
}

fn add_sets(batch: &mut Batch, rules: &Rules) {
    for (spread, endpoints) in &rules.endpoints {
        let elements = endpoints.iter().map(|((destination, number), endpoint)| {
            let mut key = destined(destination);
            key.extend(number.to_ne_bytes());
            (key, target(*endpoint))
        });
        batch.add_set(&map_name(*spread), Set::NUMBERED_DESTINATIONS, elements);
    }
    for (name, destinations) in [("dropped", &rules.dropped), ("refused", &rules.refused)] {
        let elements = destinations.iter().map(|d| (destined(d), Vec::new()));
        batch.add_set(name, Set::DESTINATIONS, elements);
    }
    let addresses = rules
        .cluster_ips
        .iter()
        .map(|ip| (ip.octets().to_vec(), Vec::new()));
    batch.add_set("cluster-ips", Set::ADDRESSES, addresses);
    let same = rules.hairpin.iter().map(Ipv4Addr::octets);
    let pairs = same.map(|ip| ([ip, ip].concat(), Vec::new()));
    batch.add_set("hairpin", Set::PAIRS, pairs);
}

/// Address, protocol and port as registers have them: each part from a boundary of four bytes.
fn destined(destination: &Destination) -> Vec<u8> {
    let Destination { address, protocol } = destination;
    let mut key = address.ip().octets().to_vec();
    key.extend([protocol.number(), 0, 0, 0]);
    key.extend(address.port().to_be_bytes());
    key.extend([0, 0]);
    key
}

fn target(endpoint: SocketAddrV4) -> Vec<u8> {
    let mut data = endpoint.ip().octets().to_vec();
    data.extend(endpoint.port().to_be_bytes());
    data.extend([0, 0]);
    data
}

fn translate(spread: Spread) -> Rule {
    let rule = Rule::default().load_destination();
    let rule = match spread {
        Spread::Chance(count) => rule.load_chance(count),
        Spread::Client => rule.load_client(spread.buckets()),
    };
    rule.look_up_endpoint(&map_name(spread)).translate()
}

fn add_unanswered(batch: &mut Batch) {
    let chain = "unanswered";
    batch.add_chain(chain);
    let destined = |set: &str| Rule::default().load_destination().contained_in(set);
    batch.add_rule(chain, destined("dropped").verdict(Verdict::Drop));
    batch.add_rule(chain, destined("refused").reject(Reject::PortUnreachable));
    let unknown = Rule::default()
        .load_address(Destined::To)
        .contained_in("cluster-ips");
    batch.add_rule(chain, unknown.reject(Reject::PortUnreachable));
}

/// The chains that packets come to from outside.
fn add_bases(batch: &mut Batch, place: &Place) {
    for (hook, nat, filter) in [
        (Hook::Prerouting, "prerouting", "unanswered-prerouting"),
        (Hook::Output, "output", "unanswered-output"),
    ] {
        // What comes from elsewhere is not ours to change: another cluster may live on this machine.
        let from_pods = || match hook {
            Hook::Prerouting => Rule::default().comes_from(&place.bridge),
            _ => Rule::default(),
        };
        batch.add_base_chain(nat, "nat", hook, -100);
        batch.add_rule(nat, from_pods().verdict(Verdict::Jump("services")));
        batch.add_base_chain(filter, "filter", hook, -90);
        batch.add_rule(filter, from_pods().verdict(Verdict::Jump("unanswered")));
    }
    let chain = "postrouting";
    batch.add_base_chain(chain, "nat", Hook::Postrouting, 100);
    batch.add_rule(
        chain,
        Rule::default().load_pair().contained_in("hairpin").masquerade(),
    );
    let (network, prefix) = place.pods;
    let leaves = Rule::default()
        .address_within(Destined::From, network, prefix, true)
        .address_within(Destined::To, network, prefix, false)
        .leaves_not_by(&place.bridge);
    batch.add_rule(chain, leaves.masquerade());
}

#[cfg(test)]
mod tests {
    use super::super::port::Protocol;
    use super::*;

    #[test]
    fn keys_have_each_part_on_a_boundary_of_four_bytes() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let address = SocketAddrV4::new([10, 96, 0, 1].into(), 0x0102);
            let key = destined(&Destination { address, protocol });
            assert_eq!(key, [10, 96, 0, 1, protocol.number(), 0, 0, 0, 1, 2, 0, 0]);
            assert_eq!(target(address), [10, 96, 0, 1, 1, 2, 0, 0]);
        }
    }
}
