//! Answering a question from the names: a pure function, and the place where the newest names are found.

use crate::Config;
use crate::table::{Names, Node, Table};
use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, RData, Record, RecordType};
use std::collections::HashSet;
use std::sync::Arc;

/// A chain of aliases is followed so far.
const LONGEST_CHAIN: usize = 8;

/// One version of everything that is answered.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Apexes, the cluster's and the reverse ones.
    apexes: Vec<LowerName>,
    names: Names,
    /// Whether the names are complete: before the first lists have come in, one that is missing may yet exist.
    complete: bool,
}

/// The newest version.
pub struct Live(ArcSwap<Zone>);

impl Live {
    /// Nothing is known yet but the zone itself.
    pub fn new(config: &Arc<Config>) -> Self {
        let names = Table::new(config.clone()).commit();
        Self(ArcSwap::from_pointee(Zone::new(config, names, false)))
    }

    /// The newest version, which stays as it is.
    pub fn zone(&self) -> Arc<Zone> {
        self.0.load_full()
    }

    /// From now on answer from this.
    pub fn replace(&self, zone: Zone) {
        self.0.store(Arc::new(zone));
    }
}

/// What to say; the names of the sections are those of the message.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The response code.
    pub code: ResponseCode,
    /// Whether we are the authority for the name.
    pub authoritative: bool,
    /// Aliases first, then the set that was asked for.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authorities: Vec<Record>,
    /// Addresses of the names that answers point to.
    pub additionals: Vec<Record>,
}

impl Answer {
    /// A code and nothing else.
    pub fn bare(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

impl Zone {
    /// A version with these names.
    pub fn new(config: &Config, names: Names, complete: bool) -> Self {
        let apexes = config.apexes().map(LowerName::new).collect();
        Self {
            apexes,
            names,
            complete,
        }
    }

    /// Apexes, the cluster's first and then the reverse ones.
    pub fn apexes(&self) -> &[LowerName] {
        &self.apexes
    }

    /// Every record, in the canonical order of names (RFC 4034, 6.1) and of types.
    pub fn records(&self) -> Vec<Record> {
        let mut nodes: Vec<_> = self.names.iter().collect();
        nodes.sort_by(|a, b| a.0.cmp(b.0));
        let sets = nodes.into_iter().flat_map(|(_, node)| node.values());
        sets.flatten().cloned().collect()
    }

    /// Answer a question of class IN.
    pub fn answer(&self, name: &LowerName, type_: RecordType) -> Answer {
        if matches!(type_, RecordType::AXFR | RecordType::IXFR) || self.apex_of(name).is_none() {
            return Answer::bare(ResponseCode::Refused);
        }
        let mut answer = Answer {
            authoritative: true,
            ..Answer::bare(ResponseCode::NoError)
        };
        let mut current = name.clone();
        let mut seen = HashSet::new();
        loop {
            let Some(node) = self.names.get(&current) else {
                return self.missing(answer, &current);
            };
            if let Some(set) = pick(node, type_) {
                answer.answers.extend(set.iter().cloned());
                answer.additionals = self.glue(set);
                return answer;
            }
            let alias = node.get(&RecordType::CNAME).and_then(|set| set.first());
            let Some((record, target)) = alias.and_then(|record| Some((record, alias_target(record)?)))
            else {
                answer.authorities.extend(self.soa(&current));
                return answer;
            };
            if !seen.insert(current) || seen.len() > LONGEST_CHAIN {
                return answer;
            }
            answer.answers.push(record.clone());
            if self.apex_of(&target).is_none() {
                // Outside: whoever asked has to ask somebody else.
                return answer;
            }
            current = target;
        }
    }

    /// The code belongs to the last name of a chain (RFC 6604).
    fn missing(&self, mut answer: Answer, name: &LowerName) -> Answer {
        if !self.complete {
            return Answer::bare(ResponseCode::ServFail);
        }
        answer.code = ResponseCode::NXDomain;
        answer.authorities.extend(self.soa(name));
        answer
    }

    fn apex_of(&self, name: &LowerName) -> Option<&LowerName> {
        self.apexes.iter().find(|apex| apex.zone_of(name))
    }

    fn soa(&self, name: &LowerName) -> Option<Record> {
        let apex = self.apex_of(name)?;
        self.names.get(apex)?.get(&RecordType::SOA)?.first().cloned()
    }

    /// The addresses of everything that the set points to.
    fn glue(&self, set: &[Record]) -> Vec<Record> {
        let mut seen = HashSet::new();
        let targets = set.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(LowerName::new(&srv.target)),
            RData::NS(ns) => Some(LowerName::new(&ns.0)),
            _ => None,
        });
        let nodes = targets
            .filter(|t| seen.insert(t.clone()))
            .filter_map(|t| self.names.get(&t));
        let addresses =
            nodes.flat_map(|node| [RecordType::A, RecordType::AAAA].map(|type_| node.get(&type_)));
        addresses.into_iter().flatten().flatten().cloned().collect()
    }
}

fn alias_target(record: &Record) -> Option<LowerName> {
    match &record.data {
        RData::CNAME(cname) => Some(LowerName::new(&cname.0)),
        _ => None,
    }
}

/// The set that answers a type; ANY gets one that exists (RFC 8482, 4.1).
fn pick(node: &Node, type_: RecordType) -> Option<&Vec<Record>> {
    match type_ {
        RecordType::ANY => {
            let first = [RecordType::A, RecordType::AAAA].iter().find_map(|t| node.get(t));
            first.or_else(|| node.values().next())
        }
        type_ => node.get(&type_),
    }
}
