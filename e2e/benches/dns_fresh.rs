//! How fresh DNS is: `cargo build --release -p petset && cargo bench -p e2e --bench dns_fresh`.
//!
//! Against the real binary, each as median, 99th percentile and maximum over some hundred times: from the moment in which
//! the API has acknowledged the write of an EndpointSlice to the first right answer, asked for over UDP without a pause;
//! the same with 10,000 endpoints of other Services in the table; and from the acknowledgement of a pod's status that turns
//! Ready to its answer, which the EndpointSlice controller is on the way of.

use anyhow::{Context, bail};
use e2e::binary::Cluster;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const WRITES: u16 = 300;
const OTHERS: u16 = 100;
const DEADLINE: Duration = Duration::from_secs(10);

fn service(name: &str, selector: &Value) -> anyhow::Result<Service> {
    let spec = json!({"clusterIP": "None", "selector": selector});
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": spec}),
    )?)
}

fn slice(service: &str, endpoints: &[(String, Ipv4Addr)]) -> anyhow::Result<EndpointSlice> {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(hostname, address)| json!({"hostname": hostname, "addresses": [address]}))
        .collect();
    Ok(serde_json::from_value(json!({
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "p", "port": 80}],
    }))?)
}

/// Asks one question again and again.
struct Asker {
    socket: UdpSocket,
    question: Vec<u8>,
}

impl Asker {
    fn new(dns: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(dns)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len())?);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        Ok(Self { socket, question })
    }

    /// The only address in the answer; `None` if there is none.
    fn ask(&self) -> anyhow::Result<Option<Ipv4Addr>> {
        self.socket.send(&self.question)?;
        let mut answer = [0_u8; 512];
        let length = self.socket.recv(&mut answer)?;
        if answer[3] & 15 != 0 || answer[7] != 1 || length < 16 {
            return Ok(None);
        }
        let octets: [u8; 4] = answer[length - 4..length].try_into()?;
        Ok(Some(octets.into()))
    }

    /// How long it takes until the answer is this.
    fn until(&self, expected: Option<Ipv4Addr>) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < DEADLINE {
            if self.ask()? == expected {
                return Ok(began.elapsed());
            }
        }
        bail!("the answer never became {expected:?}")
    }
}

async fn writes(client: &kube::Client, dns: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let asker = Asker::new(dns, "db.fresh.default.svc.cluster.local")?;
    let mut delays = Vec::new();
    for generation in 0..WRITES {
        let [high, low] = generation.to_be_bytes();
        let address = Ipv4Addr::new(10, high, low, 1);
        let wanted = slice("fresh", &[("db".into(), address)])?;
        slices.replace("fresh", &PostParams::default(), &wanted).await?;
        delays.push(asker.until(Some(address))?);
    }
    Ok(delays)
}

/// 10,000 endpoints of other Services.
async fn fill(client: &kube::Client, dns: SocketAddr) -> anyhow::Result<()> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let create = |n: u16| {
        let (services, slices) = (services.clone(), slices.clone());
        async move {
            let name = format!("other-{n}");
            services
                .create(&PostParams::default(), &service(&name, &Value::Null)?)
                .await?;
            let third = u8::try_from(n)?;
            let endpoints: Vec<_> = (0..100)
                .map(|m| (format!("n-{m}"), Ipv4Addr::new(10, 200, third, m)))
                .collect();
            slices
                .create(&PostParams::default(), &slice(&name, &endpoints)?)
                .await?;
            anyhow::Ok(())
        }
    };
    let all = stream::iter(0..OTHERS).map(create).buffer_unordered(8);
    all.try_collect::<()>().await?;
    for n in 0..OTHERS {
        let asker = Asker::new(dns, &format!("n-99.other-{n}.default.svc.cluster.local"))?;
        asker.until(Some(Ipv4Addr::new(10, 200, u8::try_from(n)?, 99)))?;
    }
    Ok(())
}

async fn pods(client: &kube::Client, dns: SocketAddr) -> anyhow::Result<[Vec<Duration>; 2]> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let labels = json!({"app": "bench"});
    services
        .create(&PostParams::default(), &service("bench", &labels)?)
        .await?;
    // On a node that nobody minds, so that its status is ours to write.
    let pod = json!({
        "metadata": {"name": "bench-0", "labels": labels},
        "spec": {
            "hostname": "bench-0", "subdomain": "bench", "nodeName": "elsewhere",
            "containers": [{"name": "c", "image": "busybox"}],
        },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    let address = Ipv4Addr::new(10, 1, 2, 3);
    let asker = Asker::new(dns, "bench-0.bench.default.svc.cluster.local")?;
    let (mut comes, mut goes) = (Vec::new(), Vec::new());
    for _ in 0..WRITES {
        for (ready, expected, delays) in [("True", Some(address), &mut comes), ("False", None, &mut goes)] {
            let status = json!({"status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": ready}],
            }});
            pods.patch_status("bench-0", &PatchParams::default(), &Patch::Merge(&status))
                .await?;
            delays.push(asker.until(expected)?);
        }
    }
    Ok([comes, goes])
}

fn say(what: &str, mut delays: Vec<Duration>) -> anyhow::Result<()> {
    delays.sort_unstable();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_secs_f64() * 1e3;
    writeln!(
        std::io::stdout(),
        "{what:<66}{:8.2} {:8.2} {:8.2}",
        at(50),
        at(99),
        at(100)
    )?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::up();
    let dns: SocketAddr = cluster.address("dns").parse().context("the DNS address")?;
    let file = Kubeconfig::read_from(cluster.data("kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    services
        .create(&PostParams::default(), &service("fresh", &Value::Null)?)
        .await?;
    slices
        .create(&PostParams::default(), &slice("fresh", &[])?)
        .await?;

    writeln!(
        std::io::stdout(),
        "{:<66}{:>8} {:>8} {:>8}",
        "milliseconds from acknowledged to answered",
        "median",
        "p99",
        "max"
    )?;
    say("an EndpointSlice", writes(&client, dns).await?)?;
    let [comes, goes] = pods(&client, dns).await?;
    say("a pod turns Ready", comes)?;
    say("a pod turns unready", goes)?;
    fill(&client, dns).await?;
    say(
        "an EndpointSlice, 10,000 endpoints beside it",
        writes(&client, dns).await?,
    )?;
    Ok(())
}
