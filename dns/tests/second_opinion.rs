//! A second opinion: hickory-server's own zone in memory, filled with the records that we export, says the same to every
//! name and type. What it is known to do otherwise is left out by name.

#[path = "support/fixture.rs"]
mod fixture;

use dns::answer::{Asker, TCP_LIMIT, Verdict, answer};
use dns::name::Name as OurName;
use dns::zone::Zone;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{LowerName, Name, Record, RecordType};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const TYPES: [RecordType; 8] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::NS,
    RecordType::MX,
];

/// hickory-server with every record of ours.
async fn other(zone: &Zone) -> (Server<Catalog>, TcpStream) {
    let mut catalog = Catalog::new();
    let apexes = zone.apexes();
    let records = zone.records();
    for apex in &apexes {
        let origin = Name::from(apex.clone());
        let mut handler: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(origin, ZoneType::Primary, AxfrPolicy::Deny);
        for record in records.iter().filter(|r| apex.zone_of(&LowerName::new(&r.name))) {
            handler.upsert_mut(record.clone(), 1);
        }
        catalog.upsert(apex.clone(), vec![Arc::new(handler) as Arc<dyn ZoneHandler>]);
    }
    let mut server = Server::new(catalog);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    server.register_listener(listener, Duration::from_secs(60), 64);
    let stream = TcpStream::connect(address).await.expect("loopback");
    (server, stream)
}

async fn ask_other(stream: &mut TcpStream, query: &[u8]) -> Message {
    let length = u16::try_from(query.len()).expect("short").to_be_bytes();
    let exchange = async {
        stream.write_all(&[&length, query].concat()).await?;
        let mut bytes = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    let bytes = timeout(Duration::from_secs(20), exchange).await.expect("in time");
    Message::from_vec(&bytes.expect("loopback")).expect("a message")
}

fn ask_ours(zone: &Zone, query: &[u8]) -> Message {
    let asker = Asker {
        tcp: true,
        forwards: false,
        may_transfer: false,
    };
    let mut bytes = vec![0; TCP_LIMIT];
    let Verdict::Answer(written) = answer(zone, query, asker, &mut rand::rng(), &mut bytes) else {
        panic!("no answer")
    };
    Message::from_vec(&bytes[..written.length]).expect("a message")
}

/// What has to be the same: the code, and the records of the answer. The SOA of a negative answer is in the authority
/// section of both; its time is not compared, for hickory leaves it to the client to take the minimum.
fn compared(message: &Message) -> (u16, BTreeSet<String>, Vec<RecordType>) {
    let line = |record: &Record| format!("{} {}", record.name.to_lowercase(), record.data);
    let authorities = message.authorities.iter().map(Record::record_type);
    (
        message.metadata.response_code.into(),
        message.answers.iter().map(line).collect(),
        authorities.filter(|type_| *type_ == RecordType::SOA).collect(),
    )
}

#[tokio::test]
async fn hickorys_own_zone_says_the_same_of_the_same_records() {
    let zone = Zone::new(&fixture::config(), fixture::table().commit(), true);
    let (_server, mut stream) = other(&zone).await;
    let mut names = BTreeSet::new();
    for record in zone.records() {
        // The name, the names above it, and some that do not exist.
        let mut name = record.name.clone();
        while zone.apex_of(OurName::from(&name).as_wire()).is_some() {
            for label in ["nosuch", "_tcp", "*"] {
                names.extend(name.prepend_label(label.as_bytes()));
            }
            names.insert(name.clone());
            name = name.base_name();
        }
    }
    let (mut count, mut differences) = (0, Vec::new());
    for name in names {
        // hickory-server does not look at what becomes of an alias (RFC 6604).
        let records = zone.records_at(&OurName::from(&name));
        let is_alias = records
            .iter()
            .any(|record| record.record_type() == RecordType::CNAME);
        for type_ in TYPES {
            if is_alias && type_ != RecordType::CNAME {
                continue;
            }
            let mut query = Message::new(7, MessageType::Query, OpCode::Query);
            query.add_query(Query::query(name.clone(), type_));
            let query = query.to_vec().expect("it can be written");
            let ours = compared(&ask_ours(&zone, &query));
            let other = compared(&ask_other(&mut stream, &query).await);
            if ours != other {
                differences.push(format!("{name} {type_}: we say {ours:?}, hickory says {other:?}"));
            }
            count += 1;
        }
    }
    println!("{count} questions");
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(count > 3000, "{count} questions");
}
