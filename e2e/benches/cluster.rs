//! How quick a whole cluster is: `cargo build --release -p petset && cargo bench -p e2e --bench cluster`.
//!
//! Prints medians of several runs of the real binary: process start to `/readyz`, on an empty data directory and on one with
//! 1,000 objects; resident memory at rest; an ordered set of three pods from request to 3/3 ready; a pod turning Ready to
//! its DNS answer.

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 7;
const OBJECTS: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(60);

struct Cluster {
    process: Child,
    data: PathBuf,
    ready_after: Duration,
}

fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own
        .ancestors()
        .nth(2)
        .context("a bench lies in target/PROFILE/deps")?;
    let binary = profile.join("petset");
    if !binary.exists() {
        bail!("{} is missing: cargo build --release -p petset", binary.display());
    }
    Ok(binary)
}

fn start(data: &Path) -> anyhow::Result<Cluster> {
    let socket = data.join("api.sock");
    let _ = std::fs::remove_file(&socket);
    let began = Instant::now();
    let process = Command::new(binary()?)
        .args(["up", "--api", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .stdout(Stdio::null())
        .spawn()?;
    while !is_ready(&socket) {
        if began.elapsed() > DEADLINE {
            bail!("petset is not ready");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(Cluster {
        process,
        data: data.to_owned(),
        ready_after: began.elapsed(),
    })
}

fn is_ready(socket: &Path) -> bool {
    let asked = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: petset\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

impl Cluster {
    fn stop(mut self) -> anyhow::Result<()> {
        // SAFETY: a signal to the child that this process has started and not yet waited for.
        unsafe { libc::kill(i32::try_from(self.process.id())?, libc::SIGTERM) };
        self.process.wait()?;
        Ok(())
    }

    fn running(&self) -> anyhow::Result<Value> {
        let file = self.data.join("running.json");
        let began = Instant::now();
        while !file.exists() && began.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }

    async fn client(&self) -> anyhow::Result<kube::Client> {
        let file = Kubeconfig::read_from(self.data.join("kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    fn dns(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.running()?["dns"].as_str().context("dns")?.parse()?)
    }

    /// Resident memory in MiB.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

fn set() -> anyhow::Result<(Service, StatefulSet)> {
    let service =
        json!({"metadata": {"name": "bench"}, "spec": {"clusterIP": "None", "selector": {"app": "bench"}}});
    let container = json!({"name": "c", "image": "busybox", "command": ["sleep", "1000000"]});
    let set = json!({
        "metadata": {"name": "bench"},
        "spec": {
            "serviceName": "bench", "replicas": 3, "selector": {"matchLabels": {"app": "bench"}},
            "template": {
                "metadata": {"labels": {"app": "bench"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    });
    Ok((serde_json::from_value(service)?, serde_json::from_value(set)?))
}

/// From the request to the watch event that shows three ready pods; and for each pod, from the watch event that shows it
/// Ready to the DNS answer.
async fn set_up(cluster: &Cluster) -> anyhow::Result<(Duration, Vec<Duration>)> {
    let client = cluster.client().await?;
    let dns = cluster.dns()?;
    let (service, set) = set()?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    services.create(&PostParams::default(), &service).await?;
    let names = tokio::spawn(async move { names_after_ready(&pods, dns).await });
    let mut events = sets.watch(&WatchParams::default(), "0").await?.boxed();
    let began = Instant::now();
    sets.create(&PostParams::default(), &set).await?;
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(set) | WatchEvent::Modified(set) = event
            && set.status.and_then(|s| s.ready_replicas) == Some(3)
        {
            return Ok((began.elapsed(), names.await??));
        }
    }
    bail!("the watch ended");
}

async fn names_after_ready(pods: &Api<Pod>, dns: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let mut events = pods.watch(&WatchParams::default(), "0").await?.boxed();
    let mut seen = Vec::new();
    let mut delays = Vec::new();
    while let Some(event) = events.try_next().await? {
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
            continue;
        };
        let name = pod.metadata.name.unwrap_or_default();
        let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
        if conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
            && !seen.contains(&name)
        {
            let began = Instant::now();
            let asked = format!("{name}.bench.default.svc.cluster.local");
            tokio::task::spawn_blocking(move || until_answered(dns, &asked)).await??;
            delays.push(began.elapsed());
            seen.push(name);
        }
        if seen.len() == 3 {
            return Ok(delays);
        }
    }
    bail!("the watch ended");
}

fn until_answered(dns: SocketAddr, name: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        socket.send_to(&question, dns)?;
        let mut answer = [0u8; 512];
        let length = socket.recv(&mut answer)?;
        if length > 12 && answer[3] & 15 == 0 && answer[7] > 0 {
            return Ok(());
        }
    }
    bail!("{name} has no address");
}

fn median(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (low, middle, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    format!("{middle:8.1}   ({low:.1} to {high:.1}, {} values)", values.len())
}

fn say(what: &str, values: Vec<f64>) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{what:<52}{}", median(values))?;
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

async fn fill(cluster: &Cluster) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await?);
    let create = |n: usize| {
        let maps = maps.clone();
        async move {
            let map =
                json!({"metadata": {"name": format!("filler-{n}")}, "data": {"text": "x".repeat(1000)}});
            maps.create(&PostParams::default(), &serde_json::from_value(map)?)
                .await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..OBJECTS)
        .map(create)
        .buffer_unordered(32)
        .try_collect::<()>()
        .await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut empty, mut memory, mut sets, mut names) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let directory = tempfile::tempdir()?;
        let cluster = start(directory.path())?;
        empty.push(millis(cluster.ready_after));
        tokio::time::sleep(Duration::from_secs(2)).await;
        memory.push(cluster.memory()?);
        let (set, dns) = set_up(&cluster).await?;
        sets.push(millis(set));
        names.extend(dns.into_iter().map(millis));
        cluster.stop()?;
    }
    let directory = tempfile::tempdir()?;
    let cluster = start(directory.path())?;
    fill(&cluster).await?;
    cluster.stop()?;
    let (mut filled, mut filled_memory) = (vec![], vec![]);
    for _ in 0..RUNS {
        let cluster = start(directory.path())?;
        filled.push(millis(cluster.ready_after));
        tokio::time::sleep(Duration::from_secs(1)).await;
        filled_memory.push(cluster.memory()?);
        cluster.stop()?;
    }
    say("start to /readyz, empty directory, ms", empty)?;
    say("start to /readyz, 1,000 objects, ms", filled)?;
    say("resident at rest, empty, MiB", memory)?;
    say("resident at rest, 1,000 objects, MiB", filled_memory)?;
    say("request to 3/3 ready, ordered, ms", sets)?;
    say("pod seen Ready to its DNS answer, ms", names)
}
