//! What has been measured, as numbers and beside one of the servers as ratios.

use crate::dnsperf::Load;
use anyhow::Context;
use std::io::Write;

/// The measurements of one server.
#[derive(Debug, Default)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// One for each round.
    pub loads: Vec<Load>,
    /// Those of all rounds, in microseconds.
    pub latencies: Vec<f64>,
}

/// Answers a second, processor time, latency: the middle, one in ten, one in a hundred, one in a thousand.
const COLUMNS: [&str; 6] = [
    "queries/s",
    "CPU µs/query",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "p99.9 µs",
];

impl Measured {
    fn row(&self) -> Option<[f64; 6]> {
        let sorted = |values: Vec<f64>| {
            let mut values = values;
            values.sort_by(f64::total_cmp);
            values
        };
        let rates = sorted(self.loads.iter().map(|load| load.rate).collect());
        let costs = sorted(self.loads.iter().map(|load| load.cost).collect());
        let latencies = sorted(self.latencies.clone());
        let at = |permille: usize| latencies.get(latencies.len() * permille / 1000).copied();
        let middle = |values: &[f64]| values.get(values.len() / 2).copied();
        Some([
            middle(&rates)?,
            middle(&costs)?,
            at(500)?,
            at(900)?,
            at(990)?,
            at(999)?,
        ])
    }
}

/// Print the numbers, then the ratios to the server of this name.
pub fn print(title: &str, measured: &[Measured], base: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let base_row = measured
        .iter()
        .find(|server| server.name == base)
        .and_then(Measured::row);
    let base_row = base_row.with_context(|| format!("{base} has not been measured"))?;
    writeln!(out, "\n{title}")?;
    write!(out, "{:<24}", "")?;
    for column in COLUMNS {
        write!(out, "{column:>14}")?;
    }
    writeln!(out)?;
    for server in measured {
        let row = server
            .row()
            .with_context(|| format!("{} has no measurements", server.name))?;
        write!(out, "{:<24}", server.name)?;
        for (value, decimals) in row.into_iter().zip([0, 2, 0, 0, 0, 0]) {
            write!(out, "{value:>14.decimals$}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "as ratios to {base}")?;
    for server in measured.iter().filter(|server| server.name != base) {
        let row = server
            .row()
            .with_context(|| format!("{} has no measurements", server.name))?;
        write!(out, "{:<24}", server.name)?;
        for (value, base) in row.into_iter().zip(base_row) {
            write!(out, "{:>14.2}", value / base)?;
        }
        writeln!(out)?;
    }
    out.flush().context("standard output")
}
