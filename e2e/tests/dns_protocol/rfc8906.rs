//! RFC 8906, section 8: the lines of dig that show whether a server keeps to the protocol, and what each expects. V65; of
//! the table's own rows V52 and V53, which kdig asks as well.

use crate::said::{Said, parse};
use e2e::binary::run;
use std::process::Command;

/// What a line expects of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The zone's SOA.
    Soa,
    /// NOERROR without an answer.
    Nothing,
    /// BADVERS without an answer.
    BadVersion,
}

use Expected::{BadVersion, Nothing, Soa};

/// Section, arguments, what is to come back; all with `+norec` but one.
const LINES: [(&str, &str, Expected); 17] = [
    ("8.1.1", "+noedns +noad +norec soa", Soa),
    ("8.1.2", "+noedns +noad +norec type1000", Nothing),
    ("8.1.3.1", "+noedns +noad +norec +cd soa", Soa),
    ("8.1.3.2", "+noedns +norec +ad soa", Soa),
    ("8.1.3.3", "+noedns +noad +norec +zflag soa", Soa),
    ("8.1.3.4", "+noedns +noad +rec soa", Soa),
    ("8.1.5", "+noedns +noad +norec +tcp soa", Soa),
    ("8.2.1", "+nocookie +edns=0 +noad +norec soa", Soa),
    (
        "8.2.2",
        "+nocookie +edns=1 +noednsneg +noad +norec soa",
        BadVersion,
    ),
    ("8.2.3", "+nocookie +edns=0 +noad +norec +ednsopt=100 soa", Soa),
    ("8.2.4", "+nocookie +edns=0 +noad +norec +ednsflags=0x40 soa", Soa),
    (
        "8.2.5",
        "+nocookie +edns=1 +noednsneg +noad +norec +ednsflags=0x40 soa",
        BadVersion,
    ),
    (
        "8.2.6",
        "+nocookie +edns=1 +noednsneg +noad +norec +ednsopt=100 soa",
        BadVersion,
    ),
    (
        "8.2.7",
        "+nocookie +norec +noad +dnssec +bufsize=512 +ignore dnskey",
        Nothing,
    ),
    ("8.2.8", "+nocookie +edns=0 +noad +norec +dnssec soa", Soa),
    (
        "8.2.9",
        "+nocookie +edns=1 +noednsneg +noad +norec +dnssec soa",
        BadVersion,
    ),
    (
        "8.2.10",
        "+edns=0 +noad +norec +cookie +nsid +expire +subnet=0.0.0.0/0 soa",
        Soa,
    ),
];

/// Every line.
pub fn every_line_holds(server: &str) {
    let (host, port) = server.rsplit_once(':').expect("it has a port");
    let host = format!("@{host}");
    for (section, arguments, expected) in LINES {
        let mut dig = Command::new("dig");
        dig.args(["-r", &host, "-p", port, "+time=10", "cluster.local"])
            .args(arguments.split(' '));
        let said = one(&run(&mut dig).ok());
        let text = format!("{section} {arguments}:\n{}", said.text);
        check(&said, expected, &text);
        assert_eq!(said.is("rd"), arguments.contains("+rec"), "{text}");
        let asks_edns = !arguments.split(' ').any(|word| word == "+noedns");
        assert_eq!(said.edns.is_some(), asks_edns, "{text}");
        if let Some(edns) = &said.edns {
            // An option, or an unknown flag, would be told on the line or on one of its own.
            let flags = if arguments.contains("+dnssec") {
                "flags: do;"
            } else {
                "flags:;"
            };
            assert!(edns.starts_with(&format!("version: 0, {flags}")), "{text}");
            let options = ["OPT=100", "COOKIE", "NSID", "EXPIRE", "CLIENT-SUBNET", "MBZ"];
            assert!(!options.iter().any(|option| said.text.contains(option)), "{text}");
        }
    }
    for (arguments, expected) in [
        ("+edns=1", BadVersion),
        ("+edns=0 +nsid +cookie=0102030405060708", Soa),
    ] {
        let mut kdig = Command::new("kdig");
        kdig.args([&host, "-p", port, "cluster.local", "SOA", "+norec"])
            .args(arguments.split(' '));
        let said = one(&run(&mut kdig).ok());
        check(&said, expected, &said.text);
        let edns = said.edns.as_deref().unwrap_or_default();
        assert!(edns.starts_with("0; flags: ;"), "{}", said.text);
    }
    // 8.1.4: an operation that nobody knows, as a header and nothing else.
    let mut dig = Command::new("dig");
    let line = "+noedns +noad +opcode=15 +norec +header-only";
    dig.args(["-r", &host, "-p", port]).args(line.split(' '));
    let said = one(&run(&mut dig).ok());
    assert!(
        said.status == "NOTIMP" && said.text.contains("opcode: RESERVED15"),
        "{}",
        said.text
    );
    assert!(
        !said.is("aa") && said.answer.is_empty() && said.authority.is_empty(),
        "{}",
        said.text
    );
}

fn one(text: &str) -> Said {
    let mut messages = parse(text);
    assert_eq!(messages.len(), 1, "{text}");
    messages.remove(0)
}

fn check(said: &Said, expected: Expected, text: &str) {
    let status = if expected == BadVersion {
        "BADVERS"
    } else {
        "NOERROR"
    };
    assert_eq!(said.status, status, "{text}");
    let is_soa = said.answer.len() == 1 && said.answer[0].data.starts_with("SOA ");
    assert_eq!(is_soa, expected == Soa, "{text}");
    assert_eq!(said.answer.is_empty(), expected != Soa, "{text}");
    assert_eq!(said.authority.len(), usize::from(expected == Nothing), "{text}");
    assert_eq!(said.is("aa"), expected != BadVersion, "{text}");
    assert!(
        said.is("qr") && !["ra", "ad", "cd", "tc"].iter().any(|flag| said.is(flag)),
        "{text}"
    );
    assert!(!said.text.contains("MBZ"), "{text}");
}
