//! `petset volumes prune`: say exactly what goes, have it confirmed, remove that and nothing else.

use super::inventory::inventory;
use super::item::Item;
use super::remove::remove;
use super::request::{Chosen, named, unchanged};
use super::usage::{self, BUDGET, Used};
use super::{in_scope, observe};
use crate::args::{Prune, Scope};
use crate::data::DataDir;
use anyhow::bail;
use std::io::{BufRead, IsTerminal, Write};

/// Who agrees to the removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    /// It was given on the command line.
    Given,
    /// Whoever sits at the terminal is asked.
    Ask,
    /// Nobody can be asked.
    Missing,
}

/// `--yes` is consent, and so is naming things where nobody can be asked; on a terminal the list is shown first.
fn consent(yes: bool, named: bool, terminal: bool) -> Consent {
    match (yes, terminal) {
        (true, _) => Consent::Given,
        (false, true) => Consent::Ask,
        (false, false) if named => Consent::Given,
        (false, false) => Consent::Missing,
    }
}

/// Remove what is named, or everything that is left over in the scope.
pub async fn run(client: &kube::Client, data: &DataDir, scope: &Scope, prune: &Prune) -> anyhow::Result<()> {
    let items = inventory(&observe::observe(client, data).await?);
    let chosen = match prune.names.is_empty() {
        false => named(&items, &prune.names, &scope.namespace),
        true => Chosen {
            items: items
                .iter()
                .filter(|item| item.standing.is_leftover() && in_scope(item, scope))
                .collect(),
            refused: Vec::new(),
        },
    };
    let mut refused = chosen.refused.len();
    for why in &chosen.refused {
        writeln!(std::io::stderr(), "petset: {why}")?;
    }
    if chosen.items.is_empty() {
        if refused > 0 {
            bail!("nothing was removed");
        }
        writeln!(
            std::io::stdout(),
            "nothing to remove: no leftovers{}",
            scope.place()
        )?;
        return Ok(());
    }
    let paths = chosen.items.iter().map(|item| item.path.clone()).collect();
    let used = usage::measure(paths, BUDGET).await?;
    let terminal = std::io::stdin().is_terminal();
    let consent = consent(prune.yes, !prune.names.is_empty(), terminal);
    if consent != Consent::Given {
        std::io::stdout().write_all(announcement(&chosen.items, &used).as_bytes())?;
    }
    match consent {
        Consent::Given => {}
        Consent::Ask if confirmed()? => {}
        Consent::Ask => {
            writeln!(std::io::stdout(), "nothing was removed")?;
            return Ok(());
        }
        Consent::Missing => bail!("nothing was removed: confirm with --yes, or name what is to go"),
    }
    // Between the list and the answer there was time for anything.
    let now = inventory(&observe::observe(client, data).await?);
    for item in chosen.items {
        let removed = match unchanged(&now, item) {
            Ok(item) => remove(client, data, item).await,
            Err(why) => Err(anyhow::anyhow!(why)),
        };
        match removed {
            Ok(said) => writeln!(std::io::stdout(), "{said}")?,
            Err(why) => {
                refused += 1;
                writeln!(std::io::stderr(), "petset: {why:#}")?;
            }
        }
    }
    if refused > 0 {
        bail!("{refused} of the above could not be removed");
    }
    Ok(())
}

/// What goes, a line each, and how much.
fn announcement(items: &[&Item], used: &[Option<Used>]) -> String {
    let mut text = String::from("This removes:\n");
    let mut freed = 0;
    for (item, used) in items.iter().zip(used) {
        let size = used.map_or_else(String::new, |used| format!(" [{}]", used.text()));
        text += &format!(
            "  {item}: {}{size}; {}\n",
            item.consequence(),
            item.standing.why()
        );
        freed += used.filter(|_| item.loses_data()).map_or(0, |used| used.bytes);
    }
    let freed = controller::volume::usage::binary(freed);
    text + &format!("{} in all, {freed} of data; it cannot be undone.\n", items.len())
}

fn confirmed() -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    write!(out, "Remove? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_without_consent() {
        // yes, named, terminal
        let table = [
            (true, false, false, Consent::Given),
            (true, true, true, Consent::Given),
            (false, true, false, Consent::Given),
            (false, false, false, Consent::Missing),
            (false, false, true, Consent::Ask),
            (false, true, true, Consent::Ask),
        ];
        for (yes, named, terminal, expected) in table {
            assert_eq!(
                consent(yes, named, terminal),
                expected,
                "{yes} {named} {terminal}"
            );
        }
    }
}
