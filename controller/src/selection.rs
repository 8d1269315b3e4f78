//! Which controllers run, said as kube-controller-manager's `--controllers` does: `*` is all of them, `NAME` one,
//! `-NAME` all but that one.

use std::collections::BTreeSet;
use std::str::FromStr;

/// Every controller, by name.
pub const NAMES: [&str; 10] = [
    "clusterrole",
    "endpointslice",
    "garbage",
    "namespace",
    "node",
    "scheduler",
    "serviceaccount",
    "statefulset",
    "tokensecret",
    "volume",
];

/// The controllers that are to run; by default all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(BTreeSet<&'static str>);

impl Default for Selection {
    fn default() -> Self {
        Self(NAMES.into())
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut all, mut chosen, mut left_out) = (false, BTreeSet::new(), BTreeSet::new());
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if item == "*" {
                all = true;
                continue;
            }
            let (set, name) = match item.strip_prefix('-') {
                Some(name) => (&mut left_out, name),
                None => (&mut chosen, item),
            };
            let known = NAMES.into_iter().find(|known| *known == name);
            set.insert(
                known.ok_or_else(|| format!("{name:?} is no controller; there are {}", NAMES.join(", ")))?,
            );
        }
        if all {
            chosen.extend(NAMES);
        }
        Ok(Self(chosen.difference(&left_out).copied().collect()))
    }
}

impl Selection {
    /// Whether a controller is to run.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(text: &str) -> Vec<&'static str> {
        text.parse::<Selection>().expect(text).0.into_iter().collect()
    }

    #[test]
    fn all_some_or_all_but_some_can_be_chosen() {
        assert_eq!(selected("*"), NAMES);
        assert_eq!(selected("volume, node"), ["node", "volume"]);
        assert_eq!(selected("*,-scheduler").len(), NAMES.len() - 1);
        assert_eq!(selected("-scheduler,*"), selected("*,-scheduler"));
    }

    #[test]
    fn an_unknown_controller_is_refused_with_those_that_there_are() {
        let refused = "*,-schedule".parse::<Selection>().expect_err("unknown");
        assert!(
            refused.contains("\"schedule\"") && refused.contains("scheduler"),
            "{refused}"
        );
    }
}
