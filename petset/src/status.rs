//! `petset status`: what runs.

use crate::args::{Output, Status};
use crate::data::{DataDir, Running};
use anyhow::bail;
use jiff::Timestamp;
use std::io::Write;

/// Print it; an error (exit code 1) when nothing runs.
pub fn print(arguments: &Status) -> anyhow::Result<()> {
    let data = DataDir::open(arguments.data.data_dir.as_deref())?;
    let Some(running) = data.running()? else {
        bail!(
            "nothing runs on {} (start it with: petset up)",
            data.path().display()
        );
    };
    let text = match arguments.output {
        Output::Text => text(&running, Timestamp::now()),
        Output::Json => json(&running, Timestamp::now())?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn uptime(running: &Running, now: Timestamp) -> i64 {
    now.duration_since(running.started).as_secs().max(0)
}

fn json(running: &Running, now: Timestamp) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(running)?;
    value["uptimeSeconds"] = uptime(running, now).into();
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn text(running: &Running, now: Timestamp) -> String {
    let seconds = uptime(running, now);
    let up = match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, _) => format!("{h}h{m}m"),
    };
    let mut lines = vec![
        ("API", running.api.clone()),
        ("Socket", running.socket.display().to_string()),
        ("Kubeconfig", running.kubeconfig.display().to_string()),
    ];
    lines.extend(running.http.clone().map(|http| ("HTTP", http)));
    lines.extend(running.dns.clone().map(|dns| ("DNS", dns)));
    lines.extend(running.cluster_domain.clone().map(|domain| ("Domain", domain)));
    lines.push(("Version", running.version.clone()));
    lines.push(("Pid", running.pid.to_string()));
    lines.push(("Uptime", up));
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<12}{value}\n"))
        .collect()
}
