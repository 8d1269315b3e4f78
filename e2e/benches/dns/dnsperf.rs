//! dnsperf: as much as a server can take, and how long single answers take at a rate that leaves it air.
//!
//! Of the latencies dnsperf sums up only mean, extremes and deviation. With `-v` it prints each one; that costs it so
//! much that it cannot load a server at the same time. And under full load with a fixed number of open questions latency
//! is nothing but that number over the rate (Little's law). So latencies have a run of their own, at a fixed rate.

use crate::machine::{self, Cores, processor_time, spawn_on};
use crate::servers::Server;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Clients, and open questions of all of them together.
const CLIENTS: &str = "20";
const OPEN: &str = "100";
/// Questions a second while latencies are measured, if the server can do twice that.
pub const RATE: f64 = 5000.0;

/// dnsperf on its core.
pub struct Dnsperf {
    program: PathBuf,
    cores: Cores,
    seconds: u32,
}

/// What a server can do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Answers a second.
    pub rate: f64,
    /// Processor time for each, in microseconds.
    pub cost: f64,
}

impl Dnsperf {
    /// Find it. Every run takes so many seconds.
    pub fn new(cores: Cores, seconds: u32) -> anyhow::Result<Self> {
        let program = machine::program("dnsperf", "dnsperf")?;
        Ok(Self {
            program,
            cores,
            seconds,
        })
    }

    /// As many questions as the server answers.
    pub fn load(&self, server: &Server, questions: &Path) -> anyhow::Result<Load> {
        let before = processor_time(server.pid())?;
        let text = self.run(server, questions, &[])?;
        let used = processor_time(server.pid())? - before;
        let completed = number(&text, "Queries completed:")?;
        if number(&text, "Queries lost:")? > completed / 100.0 {
            bail!("{} loses questions:\n{text}", server.name);
        }
        Ok(Load {
            rate: number(&text, "Queries per second:")?,
            cost: used.as_secs_f64() * 1e6 / completed,
        })
    }

    /// Latencies in microseconds at a fixed rate.
    pub fn latencies(&self, server: &Server, questions: &Path, rate: f64) -> anyhow::Result<Vec<f64>> {
        let rate = format!("{rate:.0}");
        let text = self.run(server, questions, &["-v", "-Q", &rate])?;
        // > NOERROR web-0.nginx.default.svc.cluster.local A 0.000123
        let lines = text.lines().filter(|line| line.starts_with("> "));
        let seconds = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let latencies: Vec<f64> = seconds.map(|seconds| seconds * 1e6).collect();
        if latencies.is_empty() {
            bail!("dnsperf -v tells no latencies:\n{text}");
        }
        Ok(latencies)
    }

    fn run(&self, server: &Server, questions: &Path, more: &[&str]) -> anyhow::Result<String> {
        let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
        let seconds = self.seconds.to_string();
        let mut command = machine::command(&self.program);
        command
            .args([
                "-s", &host, "-p", &port, "-c", CLIENTS, "-T", "1", "-q", OPEN, "-l", &seconds, "-d",
            ])
            .arg(questions)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let output = spawn_on(self.cores.client, &mut command)?.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("dnsperf ended with {}:\n{text}", output.status);
        }
        Ok(text)
    }

    /// How long a run is.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

fn number(text: &str, title: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(title));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    let word = word.with_context(|| format!("dnsperf does not say {title:?}:\n{text}"))?;
    word.parse().with_context(|| format!("{title} {word}"))
}
