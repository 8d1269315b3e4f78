//! What a DNS answer costs: petset's server beside nsd, knotd and a stock hickory-server, all with the same zone of 10,000
//! endpoints, asked by dnsperf.
//!
//! `cargo build --release -p petset && cargo bench -p e2e --bench dns`, with `-- a`, `nxdomain`, `mix`, `large` or `update`
//! for some parts, `--seconds N` for longer runs (3), `--rounds N` for more of them (3), `--petset FILE` for another binary
//! than the one beside this. It needs dnsperf, nsd and knot (Debian's packages) and two cores.
//!
//! One server has work at a time, on one core with one worker; dnsperf is on the other core. Each round asks every server
//! in turn, so that a noisy minute hits all of them. The processor time of a query is the user's and the system's of
//! the server's process with all its threads and children; it is what noise disturbs least.
//!
//! `large` has 100,000 endpoints beside 10,000: the same cost per query. `update` changes one endpoint of 100,000 again and
//! again while dnsperf asks: readers see no pause. (What one change costs in the table itself: `cargo bench -p dns`.)

mod ask;
mod dnsperf;
mod machine;
mod names;
mod petset;
mod report;
mod servers;
mod stock;
mod update;

use anyhow::{Context, bail};
use dnsperf::{Dnsperf, RATE};
use machine::Cores;
use names::{Cluster, Shape};
use petset::ApiServer;
use report::Measured;
use servers::{Others, Server};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

const SMALL: Cluster = Cluster { endpoints: 10_000 };
const LARGE: Cluster = Cluster { endpoints: 100_000 };

/// What is to be measured, and how.
struct Plan {
    parts: Vec<String>,
    seconds: u32,
    rounds: u32,
    petset: PathBuf,
}

const PARTS: [&str; 5] = ["a", "nxdomain", "mix", "large", "update"];

impl Plan {
    fn parse(arguments: Vec<String>) -> anyhow::Result<Self> {
        let mut plan = Self {
            parts: Vec::new(),
            seconds: 3,
            rounds: 3,
            petset: beside()?,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                // cargo says so to every bench.
                "--bench" => {}
                "--seconds" => plan.seconds = value()?.parse().context("--seconds")?,
                "--rounds" => plan.rounds = value()?.parse().context("--rounds")?,
                "--petset" => plan.petset = value()?.into(),
                part if PARTS.contains(&part) => plan.parts.push(argument),
                other => bail!("{other:?} is no part: {}", PARTS.join(", ")),
            }
        }
        if plan.parts.is_empty() {
            plan.parts = PARTS.map(Into::into).into();
        }
        if !plan.petset.is_file() {
            bail!(
                "{} is missing: cargo build --release -p petset",
                plan.petset.display()
            );
        }
        Ok(plan)
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|p| p == part)
    }
}

/// The binary of the same profile.
fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own
        .ancestors()
        .nth(2)
        .context("a bench lies in target/PROFILE/deps")?;
    Ok(profile.join("petset"))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((stock::ARGUMENT, zones)) = arguments.split_first().map(|(a, rest)| (a.as_str(), rest)) {
        return Runtime::new()?.block_on(stock::serve(zones));
    }
    let plan = Plan::parse(arguments)?;
    let cores = Cores::find()?;
    // Before there are other threads.
    machine::pin(cores.client)?;
    Runtime::new()?.block_on(measure(&plan, cores))
}

async fn measure(plan: &Plan, cores: Cores) -> anyhow::Result<()> {
    let dnsperf = Dnsperf::new(cores, plan.seconds)?;
    let shapes: Vec<Shape> = [Shape::A, Shape::Nxdomain, Shape::Mix]
        .into_iter()
        .filter(|shape| plan.has(shape.name()))
        .collect();
    if !shapes.is_empty() {
        side_by_side(plan, &dnsperf, cores, &shapes).await?;
    }
    if plan.has("large") || plan.has("update") {
        let api = ApiServer::start(&plan.petset, cores)?;
        api.fill(LARGE).await?;
        if plan.has("large") {
            large(plan, &dnsperf, cores, &api).await?;
        }
        if plan.has("update") {
            update::measure(&dnsperf, &api, LARGE).await?;
        }
    }
    Ok(())
}

/// All servers with the same 10,000 endpoints.
async fn side_by_side(plan: &Plan, dnsperf: &Dnsperf, cores: Cores, shapes: &[Shape]) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let others = Others::new(SMALL, directory.path(), cores)?;
    let api = ApiServer::start(&plan.petset, cores)?;
    api.fill(SMALL).await?;
    let servers = [api.dns()?, others.nsd()?, others.knotd()?, others.hickory()?];
    for server in &servers {
        ask::until_complete(server, SMALL)?;
    }
    for shape in shapes {
        ask::compare(&servers, SMALL, *shape)?;
        let questions = SMALL.questions(*shape, directory.path())?;
        let asked: Vec<(&Server, &Path)> = servers
            .iter()
            .map(|server| (server, questions.as_path()))
            .collect();
        let measured = rounds(plan, dnsperf, &asked)?;
        report::print(&title(plan, cores, SMALL, *shape), &measured, "nsd")?;
    }
    Ok(())
}

/// Ten times as many endpoints, for petset and, to see what the machine's caches have to do with it, for nsd.
async fn large(plan: &Plan, dnsperf: &Dnsperf, cores: Cores, api: &ApiServer) -> anyhow::Result<()> {
    let (few, many) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let small_api = ApiServer::start(&plan.petset, cores)?;
    small_api.fill(SMALL).await?;
    let mut servers = [
        small_api.dns()?,
        api.dns()?,
        Others::new(SMALL, few.path(), cores)?.nsd()?,
        Others::new(LARGE, many.path(), cores)?.nsd()?,
    ];
    let names = ["petset, 10,000", "petset, 100,000", "nsd, 10,000", "nsd, 100,000"];
    for ((server, name), cluster) in servers.iter_mut().zip(names).zip([SMALL, LARGE, SMALL, LARGE]) {
        server.name = name;
        ask::until_complete(server, cluster)?;
    }
    for shape in [Shape::A, Shape::Mix] {
        let small = SMALL.questions(shape, few.path())?;
        let large = LARGE.questions(shape, many.path())?;
        let files = [&small, &large, &small, &large].map(PathBuf::as_path);
        let asked: Vec<(&Server, &Path)> = servers.iter().zip(files).collect();
        let measured = rounds(plan, dnsperf, &asked)?;
        report::print(&title(plan, cores, LARGE, shape), &measured, names[0])?;
    }
    Ok(())
}

/// Every server in turn, again and again.
fn rounds(plan: &Plan, dnsperf: &Dnsperf, asked: &[(&Server, &Path)]) -> anyhow::Result<Vec<Measured>> {
    let new = |(server, _): &(&Server, &Path)| Measured {
        name: server.name.to_owned(),
        ..Measured::default()
    };
    let mut measured: Vec<Measured> = asked.iter().map(new).collect();
    for _ in 0..plan.rounds {
        for ((server, questions), measured) in asked.iter().zip(&mut measured) {
            let load = dnsperf.load(server, questions)?;
            let rate = RATE.min(load.rate / 2.0);
            measured.loads.push(load);
            measured
                .latencies
                .extend(dnsperf.latencies(server, questions, rate)?);
        }
    }
    Ok(measured)
}

fn title(plan: &Plan, cores: Cores, cluster: Cluster, shape: Shape) -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "{}, {} endpoints: medians of {} rounds of {} s at full load, latencies at up to {RATE} queries/s\n\
         server on core {}, dnsperf on core {}; load average {load}, about 2 when nobody else works on this machine",
        shape.name(),
        cluster.endpoints,
        plan.rounds,
        plan.seconds,
        cores.server,
        cores.client,
    )
}
