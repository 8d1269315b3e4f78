//! What a pod costs: `cargo build --release -p petset && cargo bench -p e2e --bench pods -- namespaces` (or `mounts`,
//! `none`; all three without). As root run it in a network of its own: `unshare --net sh -c 'ip link set lo up; …'`.
//!
//! Prints, of the real binary and for each isolation: the time from the pod object to its program running (the program is
//! `date`, which says when); the memory of petset's own processes for each idle pod; and how long 500 pods take that
//! are asked for at once, and their end.

use anyhow::{Context, bail};
use e2e::binary::{Cluster, Level, petset_binary};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TIMED: usize = 50;
const IDLE: usize = 50;
const MANY: usize = 500;
const UNDISTURBED: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(300);

fn pod(name: &str, command: &[&str]) -> anyhow::Result<Pod> {
    let container = json!({"name": "c", "image": "busybox", "command": command});
    let spec =
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]});
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": spec}),
    )?)
}

async fn pods(cluster: &Cluster) -> anyhow::Result<Api<Pod>> {
    let file = Kubeconfig::read_from(cluster.data("kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Api::default_namespaced(kube::Client::try_from(config)?))
}

fn say(what: &str, value: f64, unit: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "  {what:<62}{value:10.2} {unit}")?;
    Ok(())
}

/// Wait until so many pods are in a phase.
async fn until(pods: &Api<Pod>, phase: &str, count: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let of_phase = ListParams::default().fields(&format!("status.phase={phase}"));
        let found = pods.list_metadata(&of_phase).await?.items.len();
        if found == count {
            return Ok(());
        }
        if began.elapsed() > DEADLINE {
            bail!("{found} of {count} pods are {phase}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_none(pods: &Api<Pod>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !pods
        .list_metadata(&ListParams::default().limit(1))
        .await?
        .items
        .is_empty()
    {
        if began.elapsed() > DEADLINE {
            bail!("pods stay");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn create(pods: &Api<Pod>, count: usize) -> anyhow::Result<()> {
    for n in 0..count {
        pods.create(
            &PostParams::default(),
            &pod(&format!("idle-{n}"), &["sleep", "1000000"])?,
        )
        .await?;
    }
    Ok(())
}

/// From the answer to `create` to the program's first words, in ms; one pod after the other.
async fn starts(pods: &Api<Pod>) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::new();
    for n in 0..TIMED {
        let name = format!("date-{n}");
        pods.create(&PostParams::default(), &pod(&name, &["date", "+%s%N"])?)
            .await?;
        let object = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        // To ask all the time would take the processors that the start needs.
        tokio::time::sleep(UNDISTURBED).await;
        until(pods, "Succeeded", n + 1).await?;
        let log = pods.logs(&name, &LogParams::default()).await?;
        let running: u128 = log.trim().parse().with_context(|| format!("{log:?} of {name}"))?;
        took.push(running.saturating_sub(object) as f64 / 1e6);
    }
    took.sort_by(f64::total_cmp);
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
        .await?;
    until_none(pods).await?;
    Ok(took)
}

/// What all processes of this binary hold together, in kB: shared pages count once.
fn memory() -> anyhow::Result<f64> {
    let binary = petset_binary().canonicalize()?;
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let is_ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == binary);
        let Ok(text) = std::fs::read_to_string(entry.path().join("smaps_rollup")) else {
            continue;
        };
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let held = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        sum += held.filter(|_| is_ours).unwrap_or(0.0);
    }
    Ok(sum)
}

async fn measure(isolation: &'static str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{isolation}")?;
    let level = Level {
        isolation,
        ..Level::default()
    };
    let mut cluster = Cluster::at(level);
    if level.is_on_loopback() {
        // A test's range has no room for so many.
        cluster.start(&["--pod-cidr", "127.64.0.0/16"]);
    } else {
        cluster.start(&[]);
    }
    let pods = &pods(&cluster).await?;
    // The first pod pays for what is made once.
    create(pods, 1).await?;
    until(pods, "Running", 1).await?;
    pods.delete("idle-0", &DeleteParams::default().grace_period(0))
        .await?;
    until_none(pods).await?;

    let took = starts(pods).await?;
    say(
        "from the pod object to its program, median",
        took[TIMED / 2],
        "ms",
    )?;
    say("  the slowest but one of 50", took[TIMED - 2], "ms")?;

    let before = memory()?;
    create(pods, IDLE).await?;
    until(pods, "Running", IDLE).await?;
    let each = (memory()? - before) / IDLE as f64;
    say("memory of petset's own for each idle pod", each / 1024.0, "MB")?;
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
        .await?;
    until_none(pods).await?;

    let began = Instant::now();
    let all: Vec<Pod> = (0..MANY)
        .map(|n| pod(&format!("many-{n}"), &["sleep", "1000000"]))
        .collect::<anyhow::Result<_>>()?;
    let parameters = PostParams::default();
    let created = all.iter().map(|each| pods.create(&parameters, each));
    futures::future::try_join_all(created).await?;
    until(pods, "Running", MANY).await?;
    say(
        "500 pods at once, until all run",
        began.elapsed().as_secs_f64(),
        "s",
    )?;
    say("  memory of all of petset then", memory()? / 1024.0, "MB")?;
    let began = Instant::now();
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
        .await?;
    until_none(pods).await?;
    say("  until all are gone", began.elapsed().as_secs_f64(), "s")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // `-- none` and the like choose; cargo adds flags of its own.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    for isolation in ["namespaces", "mounts", "none"] {
        if chosen.is_empty() || chosen.iter().any(|it| it == isolation) {
            measure(isolation).await?;
        }
    }
    Ok(())
}
