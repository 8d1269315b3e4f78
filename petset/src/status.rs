//! `petset status`: what runs, and what each claim uses of its volume.

use crate::args::{Output, Status};
use crate::connect;
use crate::data::{DataDir, PodDns, Running};
use crate::volumes::usage::{self, BUDGET, Used};
use crate::volumes::{self, inventory};
use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// An API server that does not answer in this time is told of instead of its claims.
const PATIENCE: Duration = Duration::from_secs(10);

/// Print it; an error (exit code 1) when nothing runs.
pub async fn print(arguments: Status) -> anyhow::Result<()> {
    let data = DataDir::existing(arguments.data.data_dir.as_deref())?;
    let running = data.running()?.with_context(|| data.nothing_runs())?;
    let asked = tokio::time::timeout(PATIENCE, claims(&data)).await;
    let claims = asked.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server does not answer")));
    let claims = claims.map_err(|error| format!("{error:#}"));
    let text = match arguments.output {
        Output::Text => text(&running, Timestamp::now()) + &claims_text(&claims),
        Output::Json => json(&running, &claims, Timestamp::now())?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// A claim and what it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    namespace: String,
    name: String,
    /// None until it is bound.
    volume: Option<String>,
    /// Bytes; none where the data is not on this machine.
    used_bytes: Option<u64>,
    /// `false`: there was no time to see everything, `usedBytes` is the least.
    used_is_complete: Option<bool>,
    capacity_bytes: Option<u64>,
    percent: Option<u64>,
    /// Whether the file system enforces the capacity.
    enforced: Option<bool>,
}

async fn claims(data: &DataDir) -> anyhow::Result<Vec<Claim>> {
    let client = connect::local(data).await?;
    let observed = inventory::Observed {
        volumes_dir: data.volumes(),
        claims: volumes::all(&client).await?,
        volumes: volumes::all(&client).await?,
        ..inventory::Observed::default()
    };
    let mut items = inventory::inventory(&observed);
    items.retain(|item| item.what == volumes::item::What::Claim);
    let used = usage::measure(items.iter().map(|item| item.path.clone()).collect(), BUDGET).await?;
    let claims = items.into_iter().zip(used);
    Ok(claims.map(|(item, used)| claim(item, used)).collect())
}

fn claim(item: volumes::item::Item, used: Option<Used>) -> Claim {
    // What was asked for is no capacity before there is a volume.
    let capacity = item.capacity.filter(|_| item.volume.is_some());
    Claim {
        namespace: item.namespace.unwrap_or_default(),
        name: item.name,
        volume: item.volume,
        used_bytes: used.map(|used| used.bytes),
        used_is_complete: used.map(|used| used.complete),
        capacity_bytes: capacity,
        percent: used
            .zip(capacity)
            .and_then(|(used, capacity)| percent(used.bytes, capacity)),
        enforced: used.map(|used| used.enforced),
    }
}

/// Rounded down, so that 100 is reached only by what is full.
fn percent(used: u64, capacity: u64) -> Option<u64> {
    let percent = (u128::from(used) * 100).checked_div(u128::from(capacity))?;
    u64::try_from(percent).ok()
}

fn claims_text(claims: &Result<Vec<Claim>, String>) -> String {
    let claims = match claims {
        Err(error) => return format!("Claims      unknown: {error}\n"),
        Ok(claims) if claims.is_empty() => return String::new(),
        Ok(claims) => claims,
    };
    let dash = || "-".to_owned();
    let header = ["CLAIM", "VOLUME", "USED", "CAPACITY", "USE%", "ENFORCED"].map(String::from);
    let mut rows = vec![header.to_vec()];
    for claim in claims {
        let complete = claim.used_is_complete != Some(false);
        let used = claim.used_bytes.zip(claim.enforced);
        let used = used.map(|(bytes, enforced)| {
            Used {
                bytes,
                complete,
                enforced,
            }
            .text()
        });
        let at_least = if complete { "" } else { ">" };
        let enforced = claim
            .enforced
            .map(|enforced| if enforced { "yes" } else { "no" }.to_owned());
        rows.push(vec![
            format!("{}/{}", claim.namespace, claim.name),
            claim.volume.clone().unwrap_or_else(dash),
            used.unwrap_or_else(dash),
            claim
                .capacity_bytes
                .map_or_else(dash, controller::volume::usage::binary),
            claim
                .percent
                .map_or_else(dash, |percent| format!("{at_least}{percent}%")),
            enforced.unwrap_or_else(dash),
        ]);
    }
    format!("\n{}", crate::table::table(&rows))
}

fn uptime(running: &Running, now: Timestamp) -> i64 {
    now.duration_since(running.started).as_secs().max(0)
}

fn json(running: &Running, claims: &Result<Vec<Claim>, String>, now: Timestamp) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(running)?;
    value["uptimeSeconds"] = uptime(running, now).into();
    match claims {
        Ok(claims) => value["claims"] = serde_json::to_value(claims)?,
        Err(error) => value["claimsError"] = error.as_str().into(),
    }
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
    lines.extend(running.pod_dns.clone().map(|pods| match pods {
        PodDns::At(address) => ("Pod DNS", address),
        PodDns::Missing(why) => ("Pod DNS", format!("none, pods use the host's: {why}")),
    }));
    lines.extend(running.pods.iter().flat_map(|pods| {
        let reach = if pods.apart {
            ", reached from petset shell"
        } else {
            ""
        };
        [
            ("Isolation", format!("{} ({})", pods.isolation, pods.why)),
            ("Pods", format!("{}{reach}", pods.range)),
        ]
    }));
    lines.extend(running.dns_metrics.clone().map(|url| ("DNS metrics", url)));
    lines.extend(running.cluster_domain.clone().map(|domain| ("Domain", domain)));
    lines.push(("Version", running.version.clone()));
    lines.push(("Pid", running.pid.to_string()));
    lines.push(("Uptime", up));
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<12}{value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(used: Option<u64>, complete: bool, enforced: bool) -> Claim {
        let capacity = 1 << 30;
        Claim {
            namespace: "default".into(),
            name: "www-web-0".into(),
            volume: used.map(|_| "pvc-1".into()),
            used_bytes: used,
            used_is_complete: used.map(|_| complete),
            capacity_bytes: used.map(|_| capacity),
            percent: used.and_then(|used| percent(used, capacity)),
            enforced: used.map(|_| enforced),
        }
    }

    #[test]
    fn a_claim_s_line_says_what_it_uses_and_whether_it_can_use_more_than_it_may() {
        let claims = [
            claim(Some(3 << 28), true, true),
            claim(Some(5 << 28), true, false),
            claim(Some(1 << 28), false, false),
            claim(None, true, false),
        ];
        let expected = "
CLAIM               VOLUME   USED     CAPACITY   USE%   ENFORCED
default/www-web-0   pvc-1    768Mi    1Gi        75%    yes
default/www-web-0   pvc-1    1.3Gi    1Gi        125%   no
default/www-web-0   pvc-1    >256Mi   1Gi        >25%   no
default/www-web-0   -        -        -          -      -
";
        assert_eq!(claims_text(&Ok(claims.to_vec())), expected);
        assert_eq!(claims_text(&Ok(vec![])), "");
        assert_eq!(claims_text(&Err("gone".into())), "Claims      unknown: gone\n");
    }

    #[test]
    fn a_share_is_rounded_down_and_nothing_has_no_share() {
        assert_eq!(percent(1023, 1024), Some(99));
        assert_eq!(percent(u64::MAX, 1), None);
        assert_eq!(percent(u64::MAX, u64::MAX), Some(100));
        assert_eq!(percent(1, 0), None);
    }
}
