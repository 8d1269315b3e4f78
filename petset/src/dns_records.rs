//! `petset dns records`: what the DNS server of a running petset serves, or what one would serve for any cluster.

mod choice;

use crate::args::{DnsRecords, RecordsOutput, Remote};
use crate::data::DataDir;
use crate::{connect, table};
use anyhow::{Context, bail};
use axum::body::{Body, to_bytes};
use dns::zonefile::{self, Line};
use http::Request;
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::path::Path;
use tokio::net::UnixStream;

/// Ask, choose and print.
pub async fn run(arguments: DnsRecords) -> anyhow::Result<()> {
    let all = match &arguments.kubeconfig {
        Some(kubeconfig) => computed(&arguments, kubeconfig).await?,
        None => served(&arguments).await?,
    };
    let all = match &arguments.zone {
        Some(zone) => choice::of_zone(&all, zone)?,
        None => all,
    };
    let chosen = match &arguments.name {
        Some(name) => choice::of_name(&all, name, &arguments.namespace)?,
        None => all,
    };
    let text = match arguments.output {
        RecordsOutput::Text => text(&chosen, arguments.name.is_some() || arguments.zone.is_some()),
        RecordsOutput::Json => serde_json::to_string_pretty(&zonefile::json(&chosen))? + "\n",
        RecordsOutput::Zone => zone(&chosen),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

/// What the petset of the data directory serves.
async fn served(arguments: &DnsRecords) -> anyhow::Result<Vec<Line>> {
    let data = DataDir::existing(arguments.data.data_dir.as_deref())?;
    let running = data.running()?.with_context(|| {
        format!(
            "{}, or say which API server is meant with --kubeconfig",
            data.nothing_runs()
        )
    })?;
    if running.dns.is_none() {
        bail!(
            "an API server alone runs on {}, without DNS (to see what a DNS server would serve: petset dns records \
             --kubeconfig {})",
            data.path().display(),
            running.kubeconfig.display()
        );
    }
    let socket = data.dns_socket();
    let answer = get(&socket, "/zone").await;
    let answer = answer.with_context(|| format!("cannot ask the DNS server at {}", socket.display()))?;
    let mut answer: serde_json::Value = serde_json::from_slice(&answer).context("the DNS server's answer")?;
    serde_json::from_value(answer["items"].take()).context("the DNS server's answer")
}

/// What a DNS server would serve for the cluster of a kubeconfig.
async fn computed(arguments: &DnsRecords, kubeconfig: &Path) -> anyhow::Result<Vec<Line>> {
    let kubeconfig = Some(kubeconfig.to_owned());
    let (client, _) = connect::remote(&Remote { kubeconfig }).await?;
    let options = dns::Options {
        cluster_domain: arguments.cluster_domain.clone(),
        reverse_ranges: arguments.ranges.reverse(),
        ..dns::Options::default()
    };
    let snapshot = dns::snapshot::take(&client, &options).await?;
    for failure in snapshot.forbidden {
        writeln!(
            std::io::stderr(),
            "petset: {failure}: their own names are left out"
        )?;
    }
    Ok(zonefile::lines(&snapshot.zone.apexes(), &snapshot.zone.records()))
}

/// A body from whoever listens on a Unix socket.
async fn get(socket: &Path, path: &str) -> anyhow::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(http::header::HOST, "dns")
        .body(Body::empty())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        bail!("{path}: {}", response.status());
    }
    Ok(to_bytes(Body::new(response.into_body()), usize::MAX)
        .await?
        .to_vec())
}

/// A zone file of the first zone, the cluster's unless another one was chosen.
fn zone(lines: &[Line]) -> String {
    let Some(first) = lines.first() else {
        return String::new();
    };
    let mut text = zonefile::zone(&first.zone, lines);
    let others = zones(lines);
    if others.len() > 1 {
        text += "; more zones, each to be had with --zone:\n";
        others
            .iter()
            .skip(1)
            .for_each(|zone| text += &format!("; {zone}\n"));
    }
    text
}

/// The zones that there are lines of, in their order.
fn zones(lines: &[Line]) -> Vec<&str> {
    let mut zones: Vec<&str> = lines.iter().map(|line| line.zone.as_str()).collect();
    zones.dedup();
    zones
}

/// A table of records. Zones that hold nothing but themselves are only counted, unless something was asked for.
fn text(lines: &[Line], was_asked_for: bool) -> String {
    let is_empty = |zone: &&str| {
        let mut names = lines
            .iter()
            .filter(|line| line.zone == **zone)
            .map(|line| &line.name);
        !was_asked_for && names.all(|name| name == zone)
    };
    let empty: Vec<&str> = zones(lines).into_iter().filter(is_empty).collect();
    let mut rows = vec![["NAME", "TTL", "TYPE", "DATA"].map(String::from).to_vec()];
    let shown = lines.iter().filter(|line| !empty.contains(&line.zone.as_str()));
    rows.extend(shown.map(|line| {
        vec![
            line.name.clone(),
            line.ttl.to_string(),
            line.type_.clone(),
            line.data.clone(),
        ]
    }));
    let mut text = table::table(&rows);
    match &empty[..] {
        [] => {}
        [zone] => text += &format!("(and zone {zone} without names)\n"),
        [first, .., last] => {
            text += &format!("(and {} zones without names, {first} to {last})\n", empty.len());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn line(zone: &str, name: &str, type_: &str, data: &str) -> Line {
        Line {
            zone: zone.into(),
            name: name.into(),
            ttl: 5,
            type_: type_.into(),
            data: data.into(),
        }
    }

    /// A cluster with a pod, the pods' reverse zone, and two of Services, of which there are none.
    pub(super) fn lines() -> Vec<Line> {
        let z = "cluster.local.";
        let web = "web-0.nginx.default.svc.cluster.local.";
        let reverse = "244.127.in-addr.arpa.";
        vec![
            line(z, z, "SOA", "ns.dns.cluster.local."),
            line(z, "ns.dns.cluster.local.", "A", "127.0.0.1"),
            line(z, web, "A", "127.244.0.2"),
            line(z, "nginx.default.svc.cluster.local.", "A", "127.244.0.2"),
            line(
                z,
                "nginx.default.svc.cluster.local.",
                "SRV",
                &format!("0 100 80 {web}"),
            ),
            line(reverse, reverse, "SOA", "ns.dns.cluster.local."),
            line(reverse, "2.0.244.127.in-addr.arpa.", "PTR", web),
            line(
                "96.10.in-addr.arpa.",
                "96.10.in-addr.arpa.",
                "SOA",
                "ns.dns.cluster.local.",
            ),
            line(
                "97.10.in-addr.arpa.",
                "97.10.in-addr.arpa.",
                "SOA",
                "ns.dns.cluster.local.",
            ),
        ]
    }

    #[test]
    fn a_table_leaves_out_zones_without_names_and_says_so() {
        let expected = "\
NAME                                     TTL   TYPE   DATA
cluster.local.                           5     SOA    ns.dns.cluster.local.
ns.dns.cluster.local.                    5     A      127.0.0.1
web-0.nginx.default.svc.cluster.local.   5     A      127.244.0.2
nginx.default.svc.cluster.local.         5     A      127.244.0.2
nginx.default.svc.cluster.local.         5     SRV    0 100 80 web-0.nginx.default.svc.cluster.local.
244.127.in-addr.arpa.                    5     SOA    ns.dns.cluster.local.
2.0.244.127.in-addr.arpa.                5     PTR    web-0.nginx.default.svc.cluster.local.
(and 2 zones without names, 96.10.in-addr.arpa. to 97.10.in-addr.arpa.)
";
        assert_eq!(text(&lines(), false), expected);
        assert!(!text(&lines()[7..], true).contains("without names"));
    }

    #[test]
    fn a_zone_file_has_one_zone_and_names_the_others() {
        let file = zone(&lines());
        assert!(
            file.starts_with("$ORIGIN cluster.local.\ncluster.local. "),
            "{file}"
        );
        assert!(file.ends_with("; 244.127.in-addr.arpa.\n; 96.10.in-addr.arpa.\n; 97.10.in-addr.arpa.\n"));
        assert_eq!(
            file.lines().filter(|line| !line.starts_with([';', '$'])).count(),
            5
        );
        assert!(!zone(&lines()[7..8]).contains(';'));
    }
}
