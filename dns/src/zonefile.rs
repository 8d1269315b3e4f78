//! Records as text: in the lines of a zone file (RFC 1035, 5; RFC 3597), one file for each zone, and as JSON.
//!
//! Every name is absolute, so that a line means the same wherever it stands. A name that exists without records (an empty
//! namespace's, say) has no line: a server that loads the file answers NXDOMAIN where petset says that there is no data.

use crate::presentation::{name, string};
use hickory_proto::rr::{LowerName, Name, RData, Record};
use hickory_proto::serialize::binary::BinEncodable;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::IpAddr;

/// A record as zone files write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    /// The apex of its zone: `cluster.local.`
    pub zone: String,
    /// The owner: `web-0.nginx.default.svc.cluster.local.`
    pub name: String,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// `SRV`
    #[serde(rename = "type")]
    pub type_: String,
    /// `0 50 80 web-0.nginx.default.svc.cluster.local.`
    pub data: String,
}

impl Line {
    /// A record of one of the zones with these apexes; `None` for one of no zone.
    pub fn new(apexes: &[LowerName], record: &Record) -> Option<Self> {
        let zone = zone_of(apexes, &LowerName::new(&record.name))?;
        let type_ = crate::presentation::type_name(record.record_type().into());
        Some(Self {
            zone: name(zone),
            name: name(&record.name),
            ttl: record.ttl,
            type_,
            data: data(&record.data),
        })
    }
}

/// The name under which an address is looked up, as [`Line::name`] has it.
pub fn reverse(address: IpAddr) -> String {
    name(&Name::from(address))
}

/// The apex of the zone that a name belongs to: the nearest one above it.
pub fn zone_of<'a>(apexes: &'a [LowerName], name: &LowerName) -> Option<&'a LowerName> {
    let above = apexes.iter().filter(|apex| apex.zone_of(name));
    above.max_by_key(|apex| apex.num_labels())
}

/// All records as lines: those of one zone together and its SOA first, otherwise in the order of their names, and those
/// of one set in the order of their data.
pub fn lines(apexes: &[LowerName], records: &[Record]) -> Vec<Line> {
    let mut records: Vec<&Record> = records.iter().collect();
    for set in records.chunk_by_mut(|a, b| a.name == b.name && a.record_type() == b.record_type()) {
        set.sort_by(|a, b| a.data.cmp(&b.data));
    }
    let mut lines: Vec<Line> = records
        .into_iter()
        .filter_map(|record| Line::new(apexes, record))
        .collect();
    let apexes: Vec<String> = apexes.iter().map(|apex| name(apex)).collect();
    lines.sort_by_cached_key(|line| {
        let zone = apexes.iter().position(|apex| *apex == line.zone);
        (zone, line.type_ != "SOA")
    });
    lines
}

/// The zone file of one zone, from the lines of all; `apex` as [`Line::zone`] has it.
pub fn zone(apex: &str, lines: &[Line]) -> String {
    let lines = lines.iter().filter(|line| line.zone == apex);
    let width = lines
        .clone()
        .map(|line| line.name.len())
        .max()
        .unwrap_or_default();
    let mut text = format!("$ORIGIN {apex}\n");
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<width$} {} IN {:<5} {}",
            line.name, line.ttl, line.type_, line.data
        );
    }
    text
}

/// `{"items": […]}`, each with `zone`, `name`, `ttl`, `type` and `data` as in a zone file.
pub fn json(lines: &[Line]) -> serde_json::Value {
    serde_json::json!({ "items": lines })
}

fn data(data: &RData) -> String {
    match data {
        RData::A(address) => address.0.to_string(),
        RData::AAAA(address) => address.0.to_string(),
        RData::CNAME(target) => name(target),
        RData::NS(target) => name(target),
        RData::PTR(target) => name(target),
        RData::SRV(srv) => {
            format!(
                "{} {} {} {}",
                srv.priority,
                srv.weight,
                srv.port,
                name(&srv.target)
            )
        }
        RData::SOA(soa) => format!(
            "{} {} {} {} {} {} {}",
            name(&soa.mname),
            name(&soa.rname),
            soa.serial,
            soa.refresh,
            soa.retry,
            soa.expire,
            soa.minimum
        ),
        RData::TXT(txt) => txt
            .txt_data
            .iter()
            .map(|text| string(text))
            .collect::<Vec<_>>()
            .join(" "),
        other => unknown(other),
    }
}

/// Data of any type (RFC 3597, 5).
fn unknown(data: &RData) -> String {
    let bytes = data.to_bytes().unwrap_or_default();
    let mut text = format!("\\# {}", bytes.len());
    for (n, byte) in bytes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{byte:02x}", if n == 0 { " " } else { "" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    use std::str::FromStr;

    fn named(text: &str) -> Name {
        Name::from_str(text).expect("a name")
    }

    fn records() -> Vec<Record> {
        let soa = || {
            let soa = SOA::new(
                named("ns.dns.z."),
                named("hostmaster.z."),
                7,
                7200,
                1800,
                86400,
                5,
            );
            RData::SOA(soa)
        };
        let odd = Name::from_labels([&b"a.b"[..], b"\x01 @", b"z"]).expect("a name");
        let all = [
            (named("z."), RData::NS(NS(named("ns.dns.z.")))),
            (named("z."), soa()),
            (odd.clone(), RData::CNAME(CNAME(odd))),
            (named("web-0.nginx.z."), RData::A(A([127, 244, 0, 10].into()))),
            (named("web-0.nginx.z."), RData::A(A([127, 244, 0, 2].into()))),
            (
                named("web-0.nginx.z."),
                RData::AAAA(AAAA("fd00::2".parse().expect("an address"))),
            ),
            (
                named("_http._tcp.nginx.z."),
                RData::SRV(SRV::new(0, 50, 80, named("web-0.nginx.z."))),
            ),
            (
                named("t.z."),
                RData::TXT(TXT::from_bytes(vec![b"1.1.0", b"say \"x\"; \\\xff"])),
            ),
            (named("m.z."), RData::MX(MX::new(10, named("z.")))),
            (named("127.in-addr.arpa."), soa()),
            (
                named("2.0.244.127.in-addr.arpa."),
                RData::PTR(PTR(named("web-0.nginx.z."))),
            ),
            (named("elsewhere."), RData::A(A([127, 0, 0, 1].into()))),
        ];
        let record = |(name, data)| Record::from_rdata(name, 5, data);
        all.into_iter().map(record).collect()
    }

    fn apexes() -> Vec<LowerName> {
        ["z.", "127.in-addr.arpa."]
            .map(|apex| LowerName::new(&named(apex)))
            .into()
    }

    #[test]
    fn a_zone_is_its_soa_and_then_its_other_records_in_order() {
        expect_test::expect![[r#"
            $ORIGIN z.
            z.                  5 IN SOA   ns.dns.z. hostmaster.z. 7 7200 1800 86400 5
            z.                  5 IN NS    ns.dns.z.
            a\.b.\001\032\@.z.  5 IN CNAME a\.b.\001\032\@.z.
            web-0.nginx.z.      5 IN A     127.244.0.2
            web-0.nginx.z.      5 IN A     127.244.0.10
            web-0.nginx.z.      5 IN AAAA  fd00::2
            _http._tcp.nginx.z. 5 IN SRV   0 50 80 web-0.nginx.z.
            t.z.                5 IN TXT   "1.1.0" "say \"x\"; \\\255"
            m.z.                5 IN MX    \# 5 000a017a00
        "#]]
        .assert_eq(&zone("z.", &lines(&apexes(), &records())));
    }

    #[test]
    fn a_record_is_in_the_nearest_zone_above_it() {
        let mut apexes = apexes();
        apexes.insert(0, LowerName::new(&named("arpa.")));
        let lines = lines(&apexes, &records());
        assert_eq!(lines.len(), 11, "what is in no zone has no line");
        let reverse = zone("127.in-addr.arpa.", &lines);
        assert!(
            reverse.ends_with("2.0.244.127.in-addr.arpa. 5 IN PTR   web-0.nginx.z.\n"),
            "{reverse}"
        );
        assert_eq!(zone("arpa.", &lines), "$ORIGIN arpa.\n");
    }

    #[test]
    fn json_has_the_same_lines() {
        let lines = lines(&apexes(), &records());
        let json = json(&lines);
        let expected = serde_json::json!({
            "zone": "127.in-addr.arpa.", "name": "2.0.244.127.in-addr.arpa.", "ttl": 5, "type": "PTR",
            "data": "web-0.nginx.z.",
        });
        assert_eq!(json["items"][10], expected);
        let read: Vec<Line> = serde_json::from_value(json["items"].clone()).expect("lines");
        assert_eq!(read, lines);
    }
}
