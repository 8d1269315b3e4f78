//! One endpoint of 100,000 changes through the API, again and again, while dnsperf asks for others: what readers notice of
//! it, how soon the change is answered, and what it costs.

use crate::ask::{ask, until_complete};
use crate::dnsperf::{Dnsperf, RATE};
use crate::machine::processor_time;
use crate::names::{Cluster, IN_SLICE, Shape, endpoint_name};
use crate::petset::ApiServer;
use crate::servers::Server;
use anyhow::{Context, bail};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two changes.
const PAUSE: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_secs(10);

/// Print latencies without and with changes, and what is known of these.
pub async fn measure(dnsperf: &Dnsperf, api: &ApiServer, cluster: Cluster) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Arc::new(api.dns()?);
    until_complete(&server, cluster)?;
    let questions = cluster.questions(Shape::A, directory.path())?;
    let slices: Api<EndpointSlice> = Api::default_namespaced(api.client().await?);

    let before = processor_time(server.pid())?;
    let quiet = dnsperf.latencies(&server, &questions, RATE)?;
    let quiet_time = processor_time(server.pid())? - before;

    let stop = CancellationToken::new();
    let writing = tokio::spawn(write(slices, server.clone(), cluster, stop.clone()));
    let before = processor_time(server.pid())?;
    let changing = dnsperf.latencies(&server, &questions, RATE);
    let changing_time = processor_time(server.pid())? - before;
    stop.cancel();
    let mut delays = writing.await??;
    let changing = changing?;

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nupdate of one endpoint among {}: {} changes in {:?} while {RATE} questions/s are asked",
        cluster.endpoints,
        delays.len(),
        dnsperf.duration(),
    )?;
    for (title, mut latencies) in [("without changes", quiet), ("with changes", changing)] {
        latencies.sort_by(f64::total_cmp);
        let at = |permille: usize| latencies[(latencies.len() * permille / 1000).min(latencies.len() - 1)];
        writeln!(
            out,
            "{title:<24}p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, longest {:.0} µs",
            at(500),
            at(990),
            at(999),
            at(1000),
        )?;
    }
    delays.sort();
    let middle = delays.get(delays.len() / 2).context("no change was made")?;
    writeln!(
        out,
        "{:<24}{middle:?} in the median after the API's reply",
        "right answer"
    )?;
    let cost = changing_time.saturating_sub(quiet_time) / u32::try_from(delays.len())?;
    writeln!(
        out,
        "{:<24}{cost:?} for each change, watch and own questions included",
        "processor time"
    )?;
    Ok(())
}

/// Turn an endpoint not ready and ready again until told to stop; how long after the API's reply each change was
/// answered.
async fn write(
    slices: Api<EndpointSlice>,
    server: Arc<Server>,
    cluster: Cluster,
    stop: CancellationToken,
) -> anyhow::Result<Vec<Duration>> {
    let endpoint = cluster.endpoints / 2;
    let asked = endpoint_name(endpoint);
    let slice = format!("web-{}", endpoint / IN_SLICE);
    let mut delays = Vec::new();
    let mut ready = true;
    while !stop.is_cancelled() {
        ready = !ready;
        let mut object = slices.get(&slice).await?;
        let endpoints = object
            .endpoints
            .as_mut()
            .context("a slice of ours has endpoints")?;
        let conditions = endpoints[endpoint % IN_SLICE].conditions.get_or_insert_default();
        conditions.ready = Some(ready);
        slices.replace(&slice, &PostParams::default(), &object).await?;
        let replied = Instant::now();
        while ask(&server, &asked, "A")?.1.is_empty() == ready {
            if replied.elapsed() > DEADLINE {
                bail!("{asked} is never answered as it is: ready {ready}");
            }
        }
        delays.push(replied.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(delays)
}
