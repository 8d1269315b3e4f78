//! What StatefulSets cost: `cargo build --release -p petset && cargo bench -p e2e --bench statefulsets`, with
//! `-- ordered`, `-- parallel` or `-- idle` for one part.
//!
//! Prints, of the real binary: an ordered set of 100 trivial processes from 0 to 100 and back, and the processor time that
//! the whole cluster takes for it; 1,000 pod objects of a Parallel set with nobody to run them; and what scaling one
//! set costs the controller beside 1, 100 and 1,000 idle sets of three pods in the same namespace.

use anyhow::{Context, bail};
use e2e::binary::Cluster;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const REPLICAS: i32 = 100;
const OBJECTS: i32 = 1000;
const DEADLINE: Duration = Duration::from_secs(120);
const IDLE: [usize; 3] = [1, 100, 1000];

/// How often the one set is scaled up and down beside the idle ones.
const ROUNDS: usize = 5;

fn set(name: &str, policy: &str, replicas: i32) -> anyhow::Result<StatefulSet> {
    let container = json!({"name": "c", "image": "busybox", "command": ["sleep", "1000000"]});
    let labels = json!({"app": name});
    let set: Value = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "podManagementPolicy": policy, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    });
    Ok(serde_json::from_value(set)?)
}

async fn sets(cluster: &Cluster) -> anyhow::Result<Api<StatefulSet>> {
    let file = Kubeconfig::read_from(cluster.data("kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Api::default_namespaced(kube::Client::try_from(config)?))
}

/// Scale and wait until the status shows so many pods, and ready ones if they can be.
async fn scale(sets: &Api<StatefulSet>, name: &str, replicas: i32, ready: bool) -> anyhow::Result<Duration> {
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let began = Instant::now();
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    sets.patch(name, &PatchParams::default(), &patch).await?;
    // A watch ends after a while.
    while began.elapsed() < DEADLINE {
        let mut events = sets.watch(&only, "0").await?.boxed();
        while let Some(event) = events.try_next().await? {
            let (WatchEvent::Added(set) | WatchEvent::Modified(set)) = event else {
                continue;
            };
            let wanted = set.spec.and_then(|spec| spec.replicas);
            let status = set.status.unwrap_or_default();
            let is_ready = !ready || status.ready_replicas.unwrap_or(0) == replicas;
            let is_seen = status.observed_generation == set.metadata.generation;
            if wanted == Some(replicas) && is_seen && status.replicas == replicas && is_ready {
                return Ok(began.elapsed());
            }
        }
    }
    bail!("{name} has not got {replicas} pods")
}

/// Processor seconds of a process and of its children that have ended.
fn processor_time(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // utime, stime, cutime, cstime: fields 14 to 17 of the line, which begins with pid and name.
    let ticks: f64 = fields[11..15]
        .iter()
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    Ok(ticks / 100.0)
}

fn say(what: &str, value: f64, unit: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{what:<64}{value:10.2} {unit}")?;
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What starting and ending one such process costs anybody.
fn bare_process() -> anyhow::Result<f64> {
    let began = Instant::now();
    for _ in 0..REPLICAS {
        let mut process = Command::new("sleep")
            .arg("1000000")
            .stdin(Stdio::null())
            .spawn()?;
        process.kill()?;
        process.wait()?;
    }
    Ok(millis(began.elapsed()) / f64::from(REPLICAS))
}

async fn up_and_down() -> anyhow::Result<()> {
    let cluster = Cluster::up();
    let sets = sets(&cluster).await?;
    sets.create(&PostParams::default(), &set("bench", "OrderedReady", 0)?)
        .await?;
    let before = processor_time(cluster.pid())?;
    let up = scale(&sets, "bench", REPLICAS, true).await?;
    let down = scale(&sets, "bench", 0, true).await?;
    let used = processor_time(cluster.pid())? - before;
    let each = |duration| millis(duration) / f64::from(REPLICAS);
    say("a bare process, started and killed", bare_process()?, "ms")?;
    say("ordered, 0 to 100, each pod", each(up), "ms")?;
    say("ordered, 100 to 0, each pod", each(down), "ms")?;
    say("processor time of the cluster for 0 to 100 to 0", used, "s")
}

async fn many_objects() -> anyhow::Result<()> {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver"]);
    let kubeconfig = cluster.data("kubeconfig");
    cluster.spawn_beside("controller", &["controller", "--kubeconfig", &kubeconfig]);
    let sets = sets(&cluster).await?;
    sets.create(&PostParams::default(), &set("bench", "Parallel", 0)?)
        .await?;
    let took = scale(&sets, "bench", OBJECTS, false).await?;
    let rate = f64::from(OBJECTS) / took.as_secs_f64();
    say(
        "1,000 pod objects of a Parallel set, no kubelet",
        rate,
        "objects/s",
    )
}

async fn beside_idle_sets(idle: usize) -> anyhow::Result<f64> {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver"]);
    let kubeconfig = cluster.data("kubeconfig");
    // Without a ServiceAccount there is no pod.
    let only = "statefulset,serviceaccount";
    let alone = ["controller", "--kubeconfig", &kubeconfig, "--controllers", only];
    let controller = cluster.spawn_beside("controller", &alone);
    let sets = &sets(&cluster).await?;
    stream::iter(0..idle)
        .map(|n| async move {
            let name = format!("idle-{n}");
            sets.create(&PostParams::default(), &set(&name, "Parallel", 0)?)
                .await?;
            scale(sets, &name, 3, false).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    sets.create(&PostParams::default(), &set("busy", "Parallel", 0)?)
        .await?;
    scale(sets, "busy", 10, false).await?;
    let before = processor_time(controller)?;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        scale(sets, "busy", 100, false).await?;
        scale(sets, "busy", 10, false).await?;
    }
    let (took, used) = (began.elapsed(), processor_time(controller)? - before);
    let what = format!("scaling 10 to 100 to 10, {ROUNDS} times, beside {idle} idle sets");
    say(&what, took.as_secs_f64(), "s")?;
    say("  processor time of the controller", used, "s")?;
    Ok(used)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `-- idle` and the like choose; cargo adds flags of its own.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|it| it == part);
    if is_chosen("ordered") {
        up_and_down().await?;
    }
    if is_chosen("parallel") {
        many_objects().await?;
    }
    if !is_chosen("idle") {
        return Ok(());
    }
    let mut used = vec![];
    for idle in IDLE {
        used.push(beside_idle_sets(idle).await?);
    }
    say(
        "controller's time beside 1,000 idle sets, to that beside 1",
        used[2] / used[0],
        "",
    )
}
