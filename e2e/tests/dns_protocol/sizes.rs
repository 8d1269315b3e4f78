//! V57 to V60: what does not fit into a datagram, and the order of addresses.

use crate::said::Said;
use crate::tools::{TOOLS, Tool, WAYS, Way, ask};
use e2e::binary::Cluster;
use std::collections::BTreeMap;

/// V57, V58, V59: whole records as far as they fit and TC; all of them over TCP.
pub fn what_is_too_long_is_cut(cluster: &Cluster, server: &str) {
    let questions = [
        ("big.default.svc.cluster.local.", "A"),
        ("big.default.svc.cluster.local.", "SRV"),
        ("_http._tcp.big.default.svc.cluster.local.", "SRV"),
    ];
    for tool in TOOLS {
        for way in WAYS {
            let (limit, least) = match way {
                Way::Plain => (512, [20, 5, 5]),
                Way::Edns => (1232, [60, 18, 18]),
                Way::Tcp => (65_535, [100, 100, 100]),
            };
            let answers = ask(cluster, server, tool, way, &questions);
            for (said, least) in answers.iter().zip(least) {
                let is_whole = way == Way::Tcp;
                let text = format!("{tool:?} {way:?}: {}", said.text);
                assert!(
                    said.status == "NOERROR" && said.is("aa") && said.is("tc") != is_whole,
                    "{text}"
                );
                assert!(said.size <= limit && said.answer.len() >= least, "{text}");
                assert_eq!(said.answer.len() == 100, is_whole, "{text}");
                assert!(said.authority.is_empty(), "{text}");
                assert_eq!(said.edns.is_some(), way == Way::Edns, "{text}");
                assert!(is_whole || said.additional.is_empty(), "{text}");
                let mut data = said.data();
                data.sort_unstable();
                data.dedup();
                assert_eq!(data.len(), said.answer.len(), "a record comes twice: {text}");
            }
        }
    }
}

/// V60: of 600 answers each of three addresses is first in 200, give or take six standard deviations and more.
pub fn each_address_comes_first(cluster: &Cluster, server: &str) {
    let questions = [("nginx-all.default.svc.cluster.local.", "A"); 600];
    let answers = ask(cluster, server, Tool::Dig, Way::Plain, &questions);
    let mut first = BTreeMap::<String, u32>::new();
    for said in &answers {
        assert_eq!(said.answer.len(), 3, "{}", said.text);
        *first.entry(first_of(said)).or_default() += 1;
    }
    assert!(
        first.len() == 3 && first.values().all(|n| (120..=276).contains(n)),
        "{first:?}"
    );
}

fn first_of(said: &Said) -> String {
    said.data()[0].to_owned()
}
