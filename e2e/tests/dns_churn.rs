//! While endpoints change all the time and dnsperf asks, every answer is one of the states that were true.
//!
//! Two headless Services without selector have a hand-made EndpointSlice each. Every write of a slice is a new generation:
//! all of its endpoints get addresses, and their port a number, that tell it. So one look at an answer says which state it
//! is of, and whether it is whole. What is counted as a change is an endpoint that has another address after a write:
//! about 1,000 a second.

use e2e::binary::{Cluster, PATIENCE, eventually};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long endpoints change; longer where the machine is too busy for enough generations.
const CHURN: Duration = Duration::from_secs(10);

/// The pause between writes of both slices: 66 endpoints each time.
const TICK: Duration = Duration::from_millis(60);

/// The pause of a checking client after each answer, so that it leaves the writer the time to write.
const BREATH: Duration = Duration::from_micros(500);

/// Fewer generations than these are no churn, and fewer answers than these no proof.
const LEAST_GENERATIONS: u16 = 40;
const LEAST_ANSWERS: usize = 500;

/// A Service and how many endpoints it always has: `n-0`, `n-1`, …
#[derive(Clone, Copy)]
struct Service {
    name: &'static str,
    endpoints: u8,
}

/// The largest whose addresses fit into a UDP answer, and one whose SRV records do together with theirs.
const MANY: Service = Service {
    name: "many",
    endpoints: 60,
};
const FEW: Service = Service {
    name: "few",
    endpoints: 6,
};

impl Service {
    fn domain(self) -> String {
        format!("{}.default.svc.cluster.local.", self.name)
    }

    fn object(self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name, "namespace": "default"},
            "spec": {"clusterIP": "None"},
        })
    }

    fn slice(self, generation: u16) -> Value {
        let endpoints: Vec<Value> = (0..self.endpoints)
            .map(|n| json!({"addresses": [address(generation, n).to_string()], "hostname": format!("n-{n}")}))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": self.name, "namespace": "default", "labels": {"kubernetes.io/service-name": self.name},
            },
            "endpoints": endpoints, "ports": [{"name": "p", "port": generation + 1}],
        })
    }
}

fn address(generation: u16, n: u8) -> Ipv4Addr {
    let [high, low] = generation.to_be_bytes();
    Ipv4Addr::new(10, high, low, n)
}

/// The generation that all addresses are of, if they are just those of the endpoints in `expected`.
fn generation(records: &[Record], expected: impl Iterator<Item = u8>) -> Result<u16, String> {
    let mut generations = BTreeSet::new();
    let mut found = Vec::new();
    for record in records {
        let Some(IpAddr::V4(address)) = record.data.ip_addr() else {
            return Err(format!("{record} is no address"));
        };
        let [_, high, low, n] = address.octets();
        generations.insert(u16::from_be_bytes([high, low]));
        found.push(n);
    }
    found.sort_unstable();
    if found != expected.collect::<Vec<_>>() {
        return Err(format!("endpoints {found:?}"));
    }
    match generations.into_iter().collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        ref mixed => Err(format!("a mix of generations {mixed:?}")),
    }
}

/// What a question is about.
#[derive(Clone, Copy, Debug)]
enum Ask {
    All,
    One(u8),
    Ports,
    Nothing,
}

impl Ask {
    fn question(self, service: Service) -> (String, RecordType) {
        let domain = service.domain();
        match self {
            Ask::All => (domain, RecordType::A),
            Ask::One(n) => (format!("n-{n}.{domain}"), RecordType::A),
            Ask::Ports => (format!("_p._tcp.{domain}"), RecordType::SRV),
            Ask::Nothing => (domain, RecordType::AAAA),
        }
    }

    /// The generation of an answer that is right; `None` if it does not tell one.
    fn check(self, service: Service, answer: &Message) -> Result<Option<u16>, String> {
        if answer.metadata.response_code != ResponseCode::NoError {
            return Err(answer.metadata.response_code.to_string());
        }
        if answer.metadata.truncation {
            return Err("it is truncated".into());
        }
        match self {
            Ask::All => generation(&answer.answers, 0..service.endpoints).map(Some),
            Ask::One(n) => generation(&answer.answers, n..=n).map(Some),
            Ask::Nothing if answer.answers.is_empty() => Ok(None),
            Ask::Nothing => Err("an address that there is not".into()),
            Ask::Ports => {
                let mut targets = BTreeSet::new();
                let mut ports = BTreeSet::new();
                for record in &answer.answers {
                    let RData::SRV(srv) = &record.data else {
                        return Err(format!("{record} is no SRV"));
                    };
                    targets.insert(srv.target.to_string());
                    ports.insert(srv.port);
                }
                let all = (0..service.endpoints).map(|n| format!("n-{n}.{}", service.domain()));
                if answer.answers.len() != usize::from(service.endpoints) || targets != all.collect() {
                    return Err(format!("targets {targets:?}"));
                }
                let addresses: Vec<Record> = answer.additionals.to_vec();
                let generation = generation(&addresses, 0..service.endpoints)?;
                if ports != BTreeSet::from([generation + 1]) {
                    return Err(format!(
                        "ports {ports:?} with addresses of generation {generation}"
                    ));
                }
                Ok(Some(generation))
            }
        }
    }
}

/// Asks until it is told to stop; how many answers were checked, and how many never came.
fn check_all(dns: SocketAddr, newest: &AtomicU16, stop: &AtomicBool) -> (usize, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(dns).expect("an address");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a time-out");
    let asks = [
        (MANY, Ask::All),
        (FEW, Ask::Ports),
        (FEW, Ask::All),
        (MANY, Ask::One(0)),
        (FEW, Ask::One(3)),
        (MANY, Ask::One(59)),
        (FEW, Ask::Nothing),
    ];
    // By Service: what this client has seen is never taken back.
    let mut seen = [(MANY.name, 0), (FEW.name, 0)];
    let (mut checked, mut lost) = (0_usize, 0);
    while !stop.load(Ordering::Relaxed) {
        let (service, ask) = asks[checked % asks.len()];
        let id = u16::try_from(checked % 65_536).expect("16 bits");
        let Some(answer) = exchange(&socket, id, &ask.question(service)) else {
            lost += 1;
            continue;
        };
        match ask.check(service, &answer) {
            Err(why) => panic!("{ask:?} of {}: {why}\n{answer}", service.name),
            Ok(Some(generation)) => {
                let (_, last) = seen
                    .iter_mut()
                    .find(|(name, _)| *name == service.name)
                    .expect("both are there");
                assert!(
                    generation >= *last,
                    "{ask:?} of {}: {generation} after {last}",
                    service.name
                );
                let newest = newest.load(Ordering::SeqCst);
                assert!(
                    generation <= newest,
                    "{generation} was never written, {newest} is the newest"
                );
                *last = generation;
            }
            Ok(None) => {}
        }
        checked += 1;
        std::thread::sleep(BREATH);
    }
    (checked, lost)
}

fn exchange(socket: &UdpSocket, id: u16, (name, type_): &(String, RecordType)) -> Option<Message> {
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_str(name).expect("a name"), *type_));
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_max_payload(1232);
    question.set_edns(edns);
    socket
        .send(&question.to_vec().expect("a question"))
        .expect("sent");
    let mut bytes = [0; 4096];
    loop {
        let length = socket.recv(&mut bytes).ok()?;
        let answer = Message::from_vec(&bytes[..length]).expect("an answer is a message");
        // One that came too late for the question before is not for this one.
        if answer.metadata.id == id {
            return Some(answer);
        }
    }
}

/// dnsperf for as long as endpoints change, with names that always exist.
fn dnsperf(cluster: &Cluster, dns: SocketAddr) -> std::process::Child {
    let mut names = String::new();
    for (service, ask) in [
        (MANY, Ask::All),
        (FEW, Ask::All),
        (FEW, Ask::Ports),
        (FEW, Ask::One(1)),
        (MANY, Ask::One(30)),
    ] {
        let (name, type_) = ask.question(service);
        names += &format!("{name} {type_}\n");
    }
    let file = cluster.write("names", &names);
    let (host, port) = (dns.ip().to_string(), dns.port().to_string());
    let seconds = (CHURN.as_secs() + 1).to_string();
    Command::new("dnsperf")
        .args([
            "-s", &host, "-p", &port, "-l", &seconds, "-e", "-c", "4", "-q", "20",
        ])
        // As much as leaves two slow cores the time to write a thousand endpoints a second beside it.
        .args(["-Q", "5000", "-d"])
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("dnsperf (Debian: dnsperf) is in PATH")
}

async fn client(cluster: &Cluster) -> kube::Client {
    let file = Kubeconfig::read_from(cluster.data("kubeconfig")).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.expect("a configuration")).expect("a client")
}

/// Write generation after generation; the last one.
async fn churn(client: kube::Client, newest: &AtomicU16) -> u16 {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client);
    let began = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    while began.elapsed() < CHURN || newest.load(Ordering::SeqCst) < LEAST_GENERATIONS {
        assert!(
            began.elapsed() < PATIENCE,
            "{newest:?} generations are all that could be written"
        );
        tick.tick().await;
        let generation = newest.fetch_add(1, Ordering::SeqCst) + 1;
        let write = async |service: Service| {
            let slice = serde_json::from_value(service.slice(generation)).expect("an EndpointSlice");
            let written = slices.replace(service.name, &PostParams::default(), &slice).await;
            written.expect("nobody else writes it");
        };
        tokio::join!(write(MANY), write(FEW));
    }
    newest.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_churn_every_answer_is_one_of_the_states_that_were_true() {
    let cluster = Cluster::up();
    let dns: SocketAddr = cluster.address("dns").parse().expect("an address");
    for service in [MANY, FEW] {
        cluster.create(&service.object());
        cluster.create(&service.slice(0));
        eventually("the first state is answered", PATIENCE, || {
            let dug = cluster.dig(&service.domain(), "A");
            (dug.answer.len() == usize::from(service.endpoints))
                .then_some(())
                .ok_or(dug.text)
        });
    }
    let (newest, stop) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicBool::new(false)));
    let load = dnsperf(&cluster, dns);
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (newest, stop) = (newest.clone(), stop.clone());
            std::thread::spawn(move || check_all(dns, &newest, &stop))
        })
        .collect();
    let began = Instant::now();
    let client = client(&cluster).await;
    let generations = churn(client, &newest).await;
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut checked, mut lost) = (0, 0);
    for client in clients {
        let (answers, missing) = client.join().expect("every answer was right");
        checked += answers;
        lost += missing;
    }
    let said = load.wait_with_output().expect("dnsperf ends by itself");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();

    let changes = u64::from(generations) * u64::from(MANY.endpoints + FEW.endpoints);
    println!(
        "{changes} endpoints changed in {generations} generations, {:.0} a second; {checked} answers checked, {lost} lost",
        changes as f64 / took.as_secs_f64()
    );
    println!("{said}");
    assert!(checked >= LEAST_ANSWERS, "{checked} answers");
    // Its names always exist, so there is one code.
    let codes = said.lines().find(|line| line.contains("Response codes"));
    let codes = codes.unwrap_or_else(|| panic!("dnsperf counts no codes: {said}"));
    let only = codes
        .split_once("NOERROR")
        .is_some_and(|(_, rest)| rest.contains("100.00%"));
    assert!(only, "{codes}");
    // And after the last write the last state.
    for service in [MANY, FEW] {
        let first = address(generations, 0).to_string();
        let name = format!("n-0.{}", service.domain());
        eventually("the last state is answered", PATIENCE, || {
            let dug = cluster.dig(&name, "A");
            (dug.data() == [first.as_str()]).then_some(()).ok_or(dug.text)
        });
    }
}
