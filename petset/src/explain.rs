//! `petset explain sts/web`: what the StatefulSet controller does next and what it waits for, decided by the
//! controller's own plan.

use crate::args::{Explain, Output};
use crate::connect;
use anyhow::{Context, bail};
use controller::runtime::Key;
use controller::statefulset::action::Plan;
use controller::statefulset::{Observed, observe, plan::plan};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::io::Write;

/// How many of the set's latest warnings are shown.
const MOST_WARNINGS: usize = 3;

/// Ask, plan and print.
pub async fn run(arguments: Explain) -> anyhow::Result<()> {
    let name = set_name(&arguments.set)?;
    let key = Key::new(&arguments.namespace, name);
    let client = connect::named_or_local(&arguments.remote, &arguments.data).await?;
    let Some(observed) = observe(&client, &key).await? else {
        bail!(
            "there is no StatefulSet {name} in namespace {}",
            arguments.namespace
        );
    };
    let now = Timestamp::now();
    let plan = plan(&observed, now);
    let warnings = warnings(&client, &key).await?;
    let text = match arguments.output {
        Output::Text => text(&key, &observed, &plan, &warnings, now),
        Output::Json => serde_json::to_string_pretty(&as_json(&key, &plan, &warnings))? + "\n",
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

/// The name in `web`, `sts/web`, `statefulset/web`, `statefulsets.apps/web`.
fn set_name(given: &str) -> anyhow::Result<&str> {
    let kinds = [
        "sts",
        "statefulset",
        "statefulsets",
        "statefulset.apps",
        "statefulsets.apps",
    ];
    match given.split_once('/') {
        None => Ok(given),
        Some((kind, name)) if kinds.contains(&kind.to_lowercase().as_str()) => Ok(name),
        Some((kind, _)) => bail!("only StatefulSets can be explained, not {kind:?}: write sts/NAME"),
    }
}

/// The latest things that went wrong with the set.
async fn warnings(client: &kube::Client, key: &Key) -> anyhow::Result<Vec<Event>> {
    let about = format!(
        "involvedObject.kind=StatefulSet,involvedObject.name={},type=Warning",
        key.name
    );
    let events: Api<Event> = Api::namespaced(client.clone(), &key.namespace);
    let mut events = events.list(&ListParams::default().fields(&about)).await?.items;
    events.sort_by_key(|event| std::cmp::Reverse(event.last_timestamp.as_ref().map(|time| time.0)));
    events.truncate(MOST_WARNINGS);
    Ok(events)
}

/// Everything that the plan wants done, in its order.
fn actions(plan: &Plan) -> Vec<String> {
    let steps = plan.prepare.iter().chain(&plan.steps).flatten().flatten();
    steps.chain(&plan.prune).map(ToString::to_string).collect()
}

fn text(key: &Key, observed: &Observed, plan: &Plan, warnings: &[Event], now: Timestamp) -> String {
    let mut text = headline(key, observed);
    let actions = actions(plan);
    let is_done = actions.is_empty() && plan.waits.is_empty();
    text += &section("Next:", &actions);
    let waits: Vec<_> = plan.waits.iter().map(ToString::to_string).collect();
    text += &section("Waiting for:", &waits);
    text += &section("Wrong:", &complaints(observed));
    if is_done {
        text += "Nothing to do: the set is what it should be.\n";
    } else {
        let warnings = warnings.iter().filter_map(|event| event.message.clone());
        text += &section("Latest warnings:", &warnings.collect::<Vec<_>>());
    }
    if let Some(at) = plan.wake_at {
        let seconds = at.duration_since(now).as_secs().max(0);
        text += &format!("Looked at again in {seconds}s, or when anything changes.\n");
    }
    text
}

/// A title and its lines; nothing if there are none.
fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("{title}\n  {}\n", lines.join("\n  "))
}

/// What the set's conditions say is wrong besides what it waits for.
fn complaints(observed: &Observed) -> Vec<String> {
    let conditions = observed
        .set
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let bad = conditions.filter(|condition| {
        condition.status == "False" && !["Available", "Progressing"].contains(&condition.type_.as_str())
    });
    bad.filter_map(|condition| condition.message.clone()).collect()
}

fn headline(key: &Key, observed: &Observed) -> String {
    let wanted = observed
        .set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = observed.set.status.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or(0);
    let mut line = format!("StatefulSet {key}: {available} of {wanted} replicas available");
    if let (Some(current), Some(update)) = (status.current_revision, status.update_revision) {
        let updated = status.updated_replicas.unwrap_or(0);
        line += &match current == update {
            true => format!(", all at revision {update}"),
            false => format!(", {updated} of {wanted} at revision {update}, coming from {current}"),
        };
    }
    line + "\n"
}

fn as_json(key: &Key, plan: &Plan, warnings: &[Event]) -> Value {
    let waits = plan.waits.iter().map(
        |wait| json!({"reason": wait.reason, "what": wait.what, "holdsUp": wait.holds_up, "help": wait.help}),
    );
    json!({
        "namespace": key.namespace,
        "name": key.name,
        "next": actions(plan),
        "waits": waits.collect::<Value>(),
        "warnings": warnings.iter().map(|event| event.message.clone()).collect::<Value>(),
        "wakeAt": plan.wake_at.map(|at| at.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_named_as_kubectl_names_it() {
        for given in ["web", "sts/web", "StatefulSet/web", "statefulsets.apps/web"] {
            assert_eq!(set_name(given).ok(), Some("web"), "{given}");
        }
        assert!(set_name("pod/web-0").is_err());
    }
}
