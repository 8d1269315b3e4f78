//! `petset volumes`: what storage nobody needs any more, and its removal.

pub mod inventory;
pub mod item;
mod observe;
mod prune;
mod remove;
pub mod request;
pub mod usage;

pub use observe::all;

use crate::args::{Output, Scope, Volumes, VolumesCommand};
use crate::connect;
use crate::data::DataDir;
use crate::table::{age, table};
use inventory::inventory;
use item::{Item, Standing, What};
use jiff::Timestamp;
use std::io::Write;
use usage::{BUDGET, Used};

/// `petset volumes`, with or without a subcommand.
pub async fn run(arguments: Volumes) -> anyhow::Result<()> {
    let data = DataDir::existing(arguments.data.data_dir.as_deref())?;
    let client = connect::local(&data).await?;
    match arguments.command {
        Some(VolumesCommand::Prune(prune)) => prune::run(&client, &data, &arguments.scope, &prune).await,
        None => {
            let observed = observe::observe(&client, &data).await?;
            list(inventory(&observed), &arguments).await
        }
    }
}

/// Whether an item is looked at: one of no namespace always is.
fn in_scope(item: &Item, scope: &Scope) -> bool {
    scope.all_namespaces
        || item
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == scope.namespace)
}

async fn list(items: Vec<Item>, arguments: &Volumes) -> anyhow::Result<()> {
    let scope = &arguments.scope;
    // A volume that a claim has is in the claim's line.
    let listed = |item: &Item| match arguments.all {
        true => !matches!(item.standing, Standing::Bound(_)),
        false => item.standing.is_leftover(),
    };
    let (shown, elsewhere): (Vec<_>, Vec<_>) = items
        .into_iter()
        .filter(listed)
        .partition(|item| in_scope(item, scope));
    let used = usage::measure(shown.iter().map(|item| item.path.clone()).collect(), BUDGET).await?;
    let mut out = std::io::stdout();
    if arguments.output == Output::Json {
        let items: Vec<_> = shown
            .iter()
            .zip(used)
            .map(|(item, used)| item.json(used))
            .collect();
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({"items": items}))?
        )?;
        return Ok(());
    }
    if shown.is_empty() {
        let what = if arguments.all { "volumes" } else { "leftovers" };
        writeln!(out, "no {what}{}", scope.place())?;
    } else {
        out.write_all(
            rows(
                &shown,
                &used,
                scope.all_namespaces,
                arguments.all,
                Timestamp::now(),
            )
            .as_bytes(),
        )?;
    }
    if !elsewhere.is_empty() {
        writeln!(
            out,
            "({} more in other namespaces: petset volumes -A)",
            elsewhere.len()
        )?;
    }
    Ok(())
}

fn rows(items: &[Item], used: &[Option<Used>], namespaces: bool, standings: bool, now: Timestamp) -> String {
    let dash = || "-".to_owned();
    let mut header = vec![
        "NAME",
        "PHASE",
        "VOLUME",
        "CAPACITY",
        "USED",
        "AGE",
        "LAST USED BY",
    ];
    if standings {
        header.push("STANDING");
    }
    header.push("WHY");
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut rows = vec![header.into_iter().map(String::from).collect::<Vec<_>>()];
    for (item, used) in items.iter().zip(used) {
        let last = item.last_used_by.as_ref().map(|pod| match item.last_used {
            Some(at) => format!("{pod} ({} ago)", age(at, now)),
            None => pod.clone(),
        });
        let last = match item.used_by.first() {
            Some(pod) => Some(format!("{pod} (now)")),
            None => last,
        };
        let mut row = vec![
            item.to_string(),
            item.phase.clone().unwrap_or_else(dash),
            item.volume.clone().unwrap_or_else(dash),
            item.capacity.map_or_else(dash, controller::volume::usage::binary),
            used.map_or_else(dash, Used::text),
            item.created.map_or_else(dash, |created| age(created, now)),
            last.unwrap_or_else(dash),
        ];
        if standings {
            row.push(item.standing.word().into());
        }
        row.push(item.standing.why());
        if namespaces {
            // A volume belongs to none.
            let own = (item.what == What::Claim)
                .then(|| item.namespace.clone())
                .flatten();
            row.insert(0, own.unwrap_or_else(dash));
        }
        rows.push(row);
    }
    table(&rows)
}
