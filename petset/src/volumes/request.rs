//! What `petset volumes prune` is asked to remove, and what of that may go. Pure.

use super::item::{Item, Standing, What};

/// What goes, and for each name that does not, why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// May be removed.
    pub items: Vec<&'a Item>,
    /// Explanations, one for each refused name.
    pub refused: Vec<String>,
}

/// What is named: `NAME` or `pvc/NAME` is a claim of `namespace`, `NAMESPACE/NAME` one of another, `pv/NAME` a volume,
/// `dir/NAME` a directory.
pub fn named<'a>(items: &'a [Item], names: &[String], namespace: &str) -> Chosen<'a> {
    let mut chosen = Chosen::default();
    for name in names {
        match one(items, name, namespace) {
            Ok(item) if chosen.items.contains(&item) => {}
            Ok(item) => chosen.items.push(item),
            Err(why) => chosen.refused.push(why),
        }
    }
    chosen
}

fn one<'a>(items: &'a [Item], given: &str, namespace: &str) -> Result<&'a Item, String> {
    let (what, namespace, name) = match given.split_once('/') {
        None => (What::Claim, namespace, given),
        Some(("pvc" | "persistentvolumeclaim", name)) => (What::Claim, namespace, name),
        Some(("pv" | "persistentvolume", name)) => (What::Volume, "", name),
        Some(("dir", name)) => (What::Directory, "", name),
        Some((namespace, name)) => (What::Claim, namespace, name),
    };
    let is_it = |item: &&Item| {
        item.what == what
            && item.name == name
            && (what != What::Claim || item.namespace.as_deref() == Some(namespace))
    };
    let Some(item) = items.iter().find(is_it) else {
        return Err(unknown(items, what, namespace, name));
    };
    let why = item.standing.why();
    match &item.standing {
        Standing::Leftover(_) => Ok(item),
        Standing::InUse(_) => Err(format!(
            "{item} is in use ({why}): delete the pod or scale its set down first"
        )),
        Standing::Wanted(_) => Err(format!("{item} is still needed ({why})")),
        Standing::Bound(claim) => Err(format!(
            "{item} is bound to claim {claim}: prune that claim instead"
        )),
        Standing::Going(_) => Err(format!("{item} cannot be removed now: {why}")),
    }
}

fn unknown(items: &[Item], what: What, namespace: &str, name: &str) -> String {
    let there = items.iter().find(|item| item.name == name);
    let hint = match there {
        Some(item) if item.what == What::Claim => {
            format!(
                "; there is one in namespace {}: say {}/{name}",
                item.namespace(),
                item.namespace()
            )
        }
        Some(item) => format!("; did you mean {item}?"),
        None => String::new(),
    };
    match what {
        What::Claim => format!("there is no claim {name} in namespace {namespace}{hint}"),
        What::Volume => format!("there is no PersistentVolume {name}{hint}"),
        What::Directory => {
            format!("there is no directory {name} that petset made and no PersistentVolume mentions{hint}")
        }
    }
}

/// What is still to be removed as it was shown: the same object, unchanged, and still nobody's.
pub fn unchanged<'a>(now: &'a [Item], shown: &Item) -> Result<&'a Item, String> {
    let same = |item: &&Item| {
        item.what == shown.what && item.name == shown.name && item.namespace == shown.namespace
    };
    let Some(item) = now.iter().find(same) else {
        return Err(format!("{shown} is gone already"));
    };
    if !item.standing.is_leftover() {
        return Err(format!("{shown} is kept: {} meanwhile", item.standing.why()));
    }
    if (&item.uid, &item.resource_version) != (&shown.uid, &shown.resource_version) {
        return Err(format!(
            "{shown} is kept: it was changed meanwhile; look again with petset volumes"
        ));
    }
    Ok(item)
}

#[cfg(test)]
mod tests;
