//! DNS follows the API: what turns ready has its names at once, what goes has none.

use dns::answer::{Asker, TCP_LIMIT, Verdict, answer};
use dns::zone::{Live, Zone};
use dns::{Config, Options};
use e2e::in_process::{InProcess, PODS};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use kube::client::Body;
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
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
        Self::follow_through(cluster.client())
    }

    fn follow_through(client: kube::Client) -> Self {
        let options = Options {
            reverse_ranges: vec!["127.244.0.0/16".into()],
            ..Options::default()
        };
        let config = Arc::new(Config::new(&options).expect("options"));
        let live = Arc::new(Live::new(&config));
        let mut following = JoinSet::new();
        following.spawn(dns::follow::follow(
            client,
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

#[tokio::test(start_paused = true)]
async fn a_terminating_pod_leaves_at_once_unless_unready_pods_are_published() {
    let cluster = InProcess::start().await;
    let names = Names::follow(&cluster);
    add_service(&cluster, "web", false).await;
    add_service(&cluster, "all", true).await;
    cluster.add_pod("web-0", "127.244.0.10").await;
    cluster.set_ready("web-0", true).await;
    names.until_addresses("web-0.web", &["127.244.0.10"]).await;

    let before = Instant::now();
    // Nobody ends its processes, so it stays and is terminating.
    let pod = format!("{PODS}/web-0");
    cluster.delete(&pod, json!({"gracePeriodSeconds": 30})).await;
    names.until_nobody("web-0.web").await;
    let took = before.elapsed();
    assert!(took <= Duration::from_millis(5), "something waits: {took:?}");
    let there = cluster.get(&pod).await.expect("it is still there");
    assert!(there["metadata"]["deletionTimestamp"].is_string(), "{there:#}");
    names.until_addresses("127-244-0-10.all", &["127.244.0.10"]).await;

    let before = Instant::now();
    delete(&cluster, &pod).await;
    names.until_nobody("127-244-0-10.all").await;
    let took = before.elapsed();
    assert!(took <= Duration::from_millis(5), "something waits: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn names_of_a_deleted_service_go_before_its_slices_do() {
    let mut cluster = InProcess::start().await;
    add_service(&cluster, "web", false).await;
    cluster.add_pod("web-0", "127.244.0.10").await;
    cluster.set_ready("web-0", true).await;
    let names = Names::follow(&cluster);
    names.until_addresses("web-0.web", &["127.244.0.10"]).await;
    // Without its collector the slices stay.
    cluster.restart_controllers("*,-garbage").await;
    cluster.delete(&format!("{SERVICES}/web"), Value::Null).await;
    names.until_nobody("web-0.web").await;
    assert_eq!(cluster.list(SLICES).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_begins_to_publish_unready_pods_never_loses_the_ready_ones() {
    let cluster = InProcess::start().await;
    let names = Names::follow(&cluster);
    add_service(&cluster, "web", false).await;
    for (name, ip) in [("web-0", "127.244.0.10"), ("web-1", "127.244.0.11")] {
        cluster.add_pod(name, ip).await;
    }
    cluster.set_ready("web-0", true).await;
    names.until_addresses("web", &["127.244.0.10"]).await;
    for published in [true, false] {
        let spec = json!({"spec": {"publishNotReadyAddresses": published}});
        cluster.merge(&format!("{SERVICES}/web"), spec).await;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (_, found) = names.ask("web", RecordType::A);
            assert!(found.contains(&"127.244.0.10".to_owned()), "{found:?}");
            if (found.len() == 2) == published {
                break;
            }
            assert!(Instant::now() < deadline, "published {published}: {found:?}");
            sleep(Duration::from_micros(100)).await;
        }
    }
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// An API whose lists of EndpointSlices come in pages of one, each when it is let through, and whose watch on them shows
/// nothing and then, each time it is let end, says that what has changed since is no longer known.
#[derive(Clone)]
struct Slow {
    pages: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
    expiries: Arc<Semaphore>,
}

impl Slow {
    fn client(&self, inner: kube::Client) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let (this, inner) = (this.clone(), inner.clone());
            async move { this.pass(&inner, request).await }
        });
        kube::Client::new(service, "default")
    }

    async fn pass(
        &self,
        inner: &kube::Client,
        mut request: axum::http::Request<Body>,
    ) -> Result<axum::http::Response<Body>, kube::Error> {
        let uri = request.uri().to_string();
        if !uri.contains("endpointslices") {
            return inner.send(request).await;
        }
        if uri.contains("watch=true") {
            self.expiries.acquire().await.expect("it stays open").forget();
            let status = json!({"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired"});
            let event = json!({"type": "ERROR", "object": status}).to_string() + "\n";
            return Ok(axum::http::Response::new(Body::from(event.into_bytes())));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.pages.acquire().await.expect("it stays open").forget();
        let paged = uri.replace("limit=500", "limit=1");
        assert_ne!(uri, paged, "the client asks for pages of another size");
        *request.uri_mut() = paged.parse().expect("a URI");
        inner.send(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_whole_yet_is_not_shown() {
    let cluster = InProcess::start().await;
    cluster
        .create(
            SERVICES,
            json!({"metadata": {"name": "manual"}, "spec": {"clusterIP": "None"}}),
        )
        .await;
    for (name, hostname, address) in [("a", "db", "192.0.2.1"), ("b", "other", "192.0.2.2")] {
        let metadata = json!({"name": name, "labels": {"kubernetes.io/service-name": "manual"}});
        let endpoints = json!([{"addresses": [address], "hostname": hostname}]);
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints});
        cluster.create(SLICES, slice).await;
    }
    let api = Slow {
        pages: Arc::new(Semaphore::new(2)),
        asked: Arc::default(),
        expiries: Arc::new(Semaphore::new(0)),
    };
    let names = Names::follow_through(api.client(cluster.client()));
    names.until_addresses("db.manual", &["192.0.2.1"]).await;

    // It moves from the first slice to the second, which nobody sees.
    cluster
        .merge(&format!("{SLICES}/a"), json!({"endpoints": []}))
        .await;
    let moved = json!({"endpoints": [{"addresses": ["192.0.2.9"], "hostname": "db"}]});
    cluster.merge(&format!("{SLICES}/b"), moved).await;
    api.expiries.add_permits(1);
    api.pages.add_permits(1);
    let deadline = Instant::now() + DEADLINE;
    while api.asked.load(Ordering::SeqCst) < 4 {
        assert!(Instant::now() < deadline, "the second page is never asked for");
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(names.ask("db.manual", RecordType::A).1, ["192.0.2.1"]);
    api.pages.add_permits(1);
    names.until_addresses("db.manual", &["192.0.2.9"]).await;
    names.until_nobody("other.manual").await;
}
