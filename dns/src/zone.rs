//! One version of everything that is answered, and the place where the newest one is found.

use crate::Config;
use crate::name::{self, Name};
use crate::names::{Names, Node};
use crate::records::TTL;
use arc_swap::{ArcSwap, Guard};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{LowerName, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, Restrict};
use std::sync::Arc;

/// Times of the SOA in seconds (RFC 1035, 3.3.13): when a secondary looks again, again after a failure, and gives up.
const REFRESH: u32 = 7200;
const RETRY: u32 = 1800;
const EXPIRE: u32 = 86_400;

/// One version of everything that is answered.
#[derive(Clone, Debug)]
pub struct Zone {
    config: Arc<Config>,
    names: Names,
    /// Whether the names are complete: before the first lists have come in, one that is missing may yet exist.
    complete: bool,
}

/// The newest version.
pub struct Live(ArcSwap<Zone>);

impl Live {
    /// Nothing is known yet but the zone itself.
    pub fn new(config: &Arc<Config>) -> Self {
        let names = crate::table::Table::new(config.clone()).commit();
        Self(ArcSwap::from_pointee(Zone::new(config, names, false)))
    }

    /// The newest version, which stays as it is. Nobody waits, neither readers nor the writer; to be held for a moment.
    pub fn load(&self) -> Guard<Arc<Zone>> {
        self.0.load()
    }

    /// The newest version, to be kept.
    pub fn zone(&self) -> Arc<Zone> {
        self.0.load_full()
    }

    /// From now on answer from this.
    pub fn replace(&self, zone: Zone) {
        self.0.store(Arc::new(zone));
    }
}

impl Zone {
    /// A version with these names.
    pub fn new(config: &Arc<Config>, names: Names, complete: bool) -> Self {
        Self {
            config: config.clone(),
            names,
            complete,
        }
    }

    /// Apexes, the cluster's first and then the reverse ones.
    pub fn apexes(&self) -> Vec<LowerName> {
        let name = |apex: &Name| LowerName::from(hickory_proto::rr::Name::from(apex));
        self.config.apexes().map(name).collect()
    }

    /// Whether a name, in lower case, is an apex.
    pub fn is_apex(&self, name: &[u8]) -> bool {
        self.config.apexes().any(|apex| apex.as_wire() == name)
    }

    /// Whether a name that is missing does not exist.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What stands at a name in lower case, if it exists.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.names.get(name)
    }

    /// The apex of the zone that a name, in lower case, belongs to.
    pub fn apex_of(&self, name: &[u8]) -> Option<&Name> {
        self.config
            .apexes()
            .find(|apex| name::is_within(name, apex.as_wire()))
    }

    /// The data of a zone's SOA. All zones have the same.
    pub fn soa(&self) -> Soa<'_> {
        Soa {
            server: self.config.server.as_wire(),
            contact: self.config.contact.as_wire(),
            origin: self.config.origin.as_wire(),
            numbers: [self.names.serial, REFRESH, RETRY, EXPIRE, TTL],
        }
    }

    /// The SOA of a zone as a record.
    pub fn soa_record(&self, apex: &Name) -> Record {
        let soa = SOA::new(
            (&self.config.server).into(),
            (&self.config.contact).into(),
            self.names.serial,
            REFRESH.cast_signed(),
            RETRY.cast_signed(),
            EXPIRE.cast_signed(),
            TTL,
        );
        Record::from_rdata(apex.into(), TTL, RData::SOA(soa))
    }

    /// What stands at a name as records, the SOA at an apex included.
    pub fn records_at(&self, name: &Name) -> Vec<Record> {
        let soa = self.is_apex(name.as_wire()).then(|| self.soa_record(name));
        let node = self.get(name.as_wire()).map(|node| records(node));
        soa.into_iter().chain(node.into_iter().flatten()).collect()
    }

    /// Every record, in the canonical order of names (RFC 4034, 6.1).
    pub fn records(&self) -> Vec<Record> {
        let mut names: Vec<hickory_proto::rr::Name> =
            self.names.iter().map(|node| (&node.name).into()).collect();
        names.sort();
        names
            .iter()
            .flat_map(|name| self.records_at(&name.into()))
            .collect()
    }
}

fn records(node: &Node) -> impl Iterator<Item = Record> {
    let owner = hickory_proto::rr::Name::from(&node.name);
    node.sets.iter().flat_map(move |set| {
        let owner = owner.clone();
        set.iter().filter_map(move |data| {
            let length = Restrict::new(u16::try_from(data.len()).ok()?);
            let data = RData::read(&mut BinDecoder::new(data), RecordType::from(set.type_()), length).ok()?;
            Some(Record::from_rdata(owner.clone(), set.ttl(), data))
        })
    })
}

/// What an SOA record is made of.
pub struct Soa<'a> {
    /// The name of the server, below the origin.
    pub server: &'a [u8],
    /// The mailbox of who is responsible, below the origin.
    pub contact: &'a [u8],
    /// The apex of the cluster's zone.
    pub origin: &'a [u8],
    /// Serial, refresh, retry, expire, minimum. The minimum is also the TTL (RFC 2308, 3).
    pub numbers: [u32; 5],
}
