//! What a change costs in the table, and what readers notice of it: `cargo bench -p dns --bench table`.
//!
//! One endpoint among 100,000 turns not ready and ready again, once with the endpoints spread over 1,000 Services and once
//! with all of them in one, whose slices are of a hundred as the EndpointSlice controller makes them. Beside the first, a
//! thread answers questions without end and notes the longest time that an answer took, without and with the writer.

use dns::answer::{Asker, UDP_LIMIT, Verdict, answer, code};
use dns::table::{Key, Table};
use dns::zone::{Live, Zone};
use dns::{Config, Options};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::SeedableRng;
use serde_json::{Value, json};
use std::hint::black_box;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SLICES: usize = 1000;
const IN_SLICE: usize = 100;
const CHANGES: usize = 2000;
/// The slice that changes.
const CHANGED: usize = SLICES / 2;

/// The Service of each slice.
type Naming = fn(usize) -> String;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let config = Arc::new(Config::new(&Options {
        reverse_ranges: vec!["127.0.0.0/8".into()],
        ..Options::default()
    })?);
    let spread: Naming = |slice| format!("web-{slice}");
    let together: Naming = |_| "web".to_owned();
    say(
        "100,000 endpoints of 1,000 Services",
        &mut changes(&config, spread, CHANGES)?,
    )?;
    say(
        "100,000 endpoints of one Service",
        &mut changes(&config, together, CHANGES / 20)?,
    )?;
    readers(&config, spread)
}

fn say(title: &str, took: &mut [Duration]) -> Result<(), Error> {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let (middle, most, longest) = (at(50), at(99), at(100));
    let line = format!("median {middle:>10.1?}   p99 {most:>10.1?}   longest {longest:>10.1?}");
    writeln!(std::io::stdout(), "{title:<44}{line}   ({} times)", took.len())?;
    Ok(())
}

/// How long each of so many changes takes, from the object to the names.
fn changes(config: &Arc<Config>, service: Naming, times: usize) -> Result<Vec<Duration>, Error> {
    let mut table = filled(config, service)?;
    let versions = versions(service)?;
    let mut names = table.commit();
    let mut took = Vec::with_capacity(times);
    for n in 0..times {
        let began = Instant::now();
        table.slice(&key(&format!("slice-{CHANGED}")), Some(&versions[n % 2]));
        // Somebody holds the names before, as the readers do.
        names = black_box(table.commit());
        took.push(began.elapsed());
    }
    drop(names);
    Ok(took)
}

/// What readers notice.
fn readers(config: &Arc<Config>, service: Naming) -> Result<(), Error> {
    let mut table = filled(config, service)?;
    let versions = versions(service)?;
    let live = Live::new(config);
    live.replace(Zone::new(config, table.commit(), true));
    for title in ["an answer, nobody writes", "an answer beside a writer"] {
        let stop = AtomicBool::new(false);
        let mut took = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&live, service, &stop));
            for n in 0..CHANGES {
                if title.ends_with("writer") {
                    table.slice(&key(&format!("slice-{CHANGED}")), Some(&versions[n % 2]));
                    live.replace(Zone::new(config, table.commit(), true));
                } else {
                    std::thread::sleep(Duration::from_micros(250));
                }
            }
            stop.store(true, Ordering::Relaxed);
            reader.join()
        })
        .map_err(|_| "the reader has panicked")??;
        say(title, &mut took)?;
    }
    Ok(())
}

/// Answer until told to stop; how long each answer took.
fn read(live: &Live, service: Naming, stop: &AtomicBool) -> Result<Vec<Duration>, String> {
    let questions = (0..SLICES).map(|slice| {
        let service = service(slice);
        question(&format!("{service}-7.{service}.default.svc.cluster.local."))
    });
    let questions: Vec<Vec<u8>> = questions.collect::<Result<_, _>>()?;
    let asker = Asker {
        tcp: false,
        forwards: false,
        may_transfer: false,
    };
    let mut random = rand::rngs::SmallRng::seed_from_u64(7);
    let mut bytes = [0; UDP_LIMIT];
    let mut took = Vec::with_capacity(10_000_000);
    for question in questions.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let verdict = black_box(answer(&live.load(), question, asker, &mut random, &mut bytes));
        took.push(began.elapsed());
        if !matches!(verdict, Verdict::Answer(written) if written.code == code::NO_ERROR) {
            return Err(format!("a pod has no address: {verdict:?}"));
        }
    }
    Ok(took)
}

/// Asks for the address of a name.
fn question(name: &str) -> Result<Vec<u8>, String> {
    let name = Name::from_str(name).map_err(|error| error.to_string())?;
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().map_err(|error| error.to_string())
}

fn key(name: &str) -> Key {
    ("default".into(), name.into())
}

fn filled(config: &Arc<Config>, service: Naming) -> Result<Table, Error> {
    let mut table = Table::new(config.clone());
    for n in 0..SLICES {
        let name = service(n);
        let metadata = json!({"name": name, "namespace": "default"});
        let object: Service =
            serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterIP": "None"}}))?;
        table.service(&key(&name), Some(&object));
        table.slice(&key(&format!("slice-{n}")), Some(&slice(n, &name, true)?));
    }
    Ok(table)
}

/// The slice that changes, with one endpoint fewer and with all of them.
fn versions(service: Naming) -> Result<[EndpointSlice; 2], Error> {
    let service = service(CHANGED);
    Ok([slice(CHANGED, &service, false)?, slice(CHANGED, &service, true)?])
}

/// A slice with a hundred endpoints, of which one may not be ready.
fn slice(n: usize, service: &str, complete: bool) -> Result<EndpointSlice, Error> {
    let endpoint = |k: usize| -> Value {
        let ordinal = if service == "web" { n * IN_SLICE + k } else { k };
        json!({
            "addresses": [format!("127.{}.{}.{}", 64 + n / 200, n % 200, k + 1)],
            "hostname": format!("{service}-{ordinal}"), "conditions": {"ready": complete || k != 50},
        })
    };
    let endpoints: Vec<Value> = (0..IN_SLICE).map(endpoint).collect();
    let labels = json!({"kubernetes.io/service-name": service});
    let slice = json!({
        "metadata": {"name": format!("slice-{n}"), "namespace": "default", "labels": labels},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    Ok(serde_json::from_value(slice)?)
}
