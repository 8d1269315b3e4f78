//! DNS follows the API: what turns ready has its names at once, what goes has none.

use dns::answer::{Asker, TCP_LIMIT, Verdict, answer};
use dns::zone::{Live, Zone};
use dns::{Config, Options};
use e2e::in_process::{InProcess, PODS};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEADLINE: Duration = Duration::from_secs(60);

/// The names of a cluster, kept up to date until this is dropped.
struct Names {
    live: Arc<Live>,
    _following: JoinSet<()>,
}

/// What a client would be told over TCP.
fn ask(zone: &Zone, name: Name, type_: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name, type_));
    let asker = Asker {
        tcp: true,
        forwards: false,
        may_transfer: false,
    };
    let query = query.to_vec().expect("it can be written");
    let mut bytes = vec![0; TCP_LIMIT];
    let Verdict::Answer(written) = answer(zone, &query, asker, &mut rand::rng(), &mut bytes) else {
        panic!("no answer")
    };
    Message::from_vec(&bytes[..written.length]).expect("a message")
}

impl Names {
    fn follow(cluster: &InProcess) -> Self {
        let options = Options {
            reverse_ranges: vec!["127.244.0.0/16".into()],
            ..Options::default()
        };
        let config = Arc::new(Config::new(&options).expect("options"));
        let live = Arc::new(Live::new(&config));
        let mut following = JoinSet::new();
        following.spawn(dns::follow::follow(
            cluster.client(),
            config,
            live.clone(),
            dns::metrics::Metrics::new(),
        ));
        Self {
            live,
            _following: following,
        }
    }

    /// The code and the data for a name, in order.
    fn ask(&self, name: &str, type_: RecordType) -> (ResponseCode, Vec<String>) {
        let name = if name.ends_with("arpa.") {
            name.to_owned()
        } else {
            format!("{name}.default.svc.cluster.local.")
        };
        let name = Name::from_str(&name).expect("a name");
        let answer = ask(&self.live.load(), name, type_);
        let mut data: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        data.sort();
        (answer.metadata.response_code, data)
    }

    async fn until(&self, name: &str, type_: RecordType, code: ResponseCode, data: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.ask(name, type_);
            if found.0 == code && found.1 == data {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{name} {type_} is {found:?} and never {code} {data:?}"
            );
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_addresses(&self, name: &str, addresses: &[&str]) {
        self.until(name, RecordType::A, ResponseCode::NoError, addresses)
            .await;
    }

    async fn until_nobody(&self, name: &str) {
        self.until(name, RecordType::A, ResponseCode::NXDomain, &[]).await;
    }
}

async fn add_service(cluster: &InProcess, name: &str, publish_not_ready: bool) {
    let spec = json!({
        "clusterIP": "None", "selector": {"app": "web"}, "publishNotReadyAddresses": publish_not_ready,
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    });
    cluster
        .create(SERVICES, json!({"metadata": {"name": name}, "spec": spec}))
        .await;
}

async fn delete(cluster: &InProcess, path: &str) {
    cluster.delete(path, json!({"gracePeriodSeconds": 0})).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_turns_ready_appears_and_a_deleted_one_disappears() {
    let cluster = InProcess::start().await;
    let names = Names::follow(&cluster);
    add_service(&cluster, "web", false).await;
    cluster.add_pod("web-0", "127.244.0.10").await;
    names.until_nobody("web-0.web").await;

    let before = Instant::now();
    cluster.set_ready("web-0", true).await;
    names.until_addresses("web-0.web", &["127.244.0.10"]).await;
    let took = before.elapsed();
    assert!(took <= Duration::from_millis(5), "something waits: {took:?}");
    let ok = ResponseCode::NoError;
    let target = "0 100 8080 web-0.web.default.svc.cluster.local.";
    names
        .until("_http._tcp.web", RecordType::SRV, ok, &[target])
        .await;
    names.until("web", RecordType::AAAA, ok, &[]).await;
    let reverse = "10.0.244.127.in-addr.arpa.";
    names
        .until(
            reverse,
            RecordType::PTR,
            ok,
            &["web-0.web.default.svc.cluster.local."],
        )
        .await;

    cluster.add_pod("web-1", "127.244.0.11").await;
    cluster.set_ready("web-1", true).await;
    names
        .until_addresses("web", &["127.244.0.10", "127.244.0.11"])
        .await;
    cluster.set_ready("web-0", false).await;
    names.until_addresses("web", &["127.244.0.11"]).await;
    names.until_nobody("web-0.web").await;

    delete(&cluster, &format!("{PODS}/web-1")).await;
    names.until_nobody("web-1.web").await;
    names.until_nobody("web").await;
    // The same name with another address.
    cluster.add_pod("web-1", "127.244.0.12").await;
    cluster.set_ready("web-1", true).await;
    names.until_addresses("web-1.web", &["127.244.0.12"]).await;

    cluster.delete(&format!("{SERVICES}/web"), Value::Null).await;
    names.until_nobody("web-1.web").await;
}

#[tokio::test(start_paused = true)]
async fn a_service_may_publish_pods_before_they_are_ready() {
    let cluster = InProcess::start().await;
    add_service(&cluster, "web", true).await;
    add_service(&cluster, "also", true).await;
    cluster.add_pod("web-0", "127.244.0.10").await;
    let names = Names::follow(&cluster);
    // Until everything is known, nobody is told that a name does not exist.
    let (code, _) = names.ask("web", RecordType::A);
    assert_eq!(code, ResponseCode::ServFail);
    names.until_addresses("web-0.web", &["127.244.0.10"]).await;
    // The pod's own name is under the Service that its subdomain names.
    names
        .until_addresses("127-244-0-10.also", &["127.244.0.10"])
        .await;
    names.until_nobody("web-0.also").await;
}
