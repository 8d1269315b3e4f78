//! What the schemas do not say about Go's types, from the tables in `go.txt` and `enums.txt`; their heads explain them.

use std::collections::HashMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("go.txt");
const ENUMERATIONS: &str = include_str!("enums.txt");

/// How the elements of a list are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their own value.
    Set,
    /// By these fields of each.
    Map(&'static [&'static str]),
}

/// What is unusual about a field of a Go struct; the default is the usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub pointer: bool,
    pub by_value: bool,
    pub always_written: bool,
    pub omitted_when_empty: bool,
    pub go_type: Option<&'static str>,
    /// How managedFields see the list.
    pub list: ListKind,
    /// How a strategic merge patch sees the list.
    pub patch: ListKind,
    pub retain_keys: bool,
    pub patch_replaces: bool,
    pub atomic: bool,
    pub granular: bool,
}

/// The facts of one type.
#[derive(Debug, Default)]
pub(crate) struct TypeFacts {
    /// Whether managedFields see the struct as one value.
    pub atomic: bool,
    fields: Vec<(&'static str, Facts)>,
}

impl TypeFacts {
    /// Those of the type `name`, for example `core.v1.PodSpec`; the usual ones if the table has none.
    pub(crate) fn of(name: &str) -> Self {
        static LINES: OnceLock<HashMap<&str, &str>> = OnceLock::new();
        let lines = LINES.get_or_init(|| TABLE.lines().filter_map(|line| line.split_once(' ')).collect());
        let words = lines.get(name).copied().unwrap_or_default().split(' ');
        let mut facts = Self::default();
        for word in words.filter(|word| !word.is_empty()) {
            match word {
                "@" => facts.atomic = true,
                field => facts.fields.push(parse(field)),
            }
        }
        facts
    }

    /// Those of the field `name`.
    pub(crate) fn field(&self, name: &str) -> Facts {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, facts)| facts.clone()).unwrap_or_default()
    }
}

fn parse(word: &'static str) -> (&'static str, Facts) {
    let end = word.find(|c| "[$#@%*&+=".contains(c)).unwrap_or(word.len());
    // A minus is a sign only at the end or before `=`: names of fields may contain one.
    let end = match word[..end].strip_suffix('-') {
        Some(name) => name.len(),
        None => end,
    };
    let (name, mut signs) = word.split_at(end);
    let mut facts = Facts::default();
    if let Some((_, go_type)) = signs.split_once('=') {
        facts.go_type = Some(go_type);
        signs = &signs[..signs.len() - go_type.len() - 1];
    }
    if let Some((keys, rest)) = signs.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let list = |keys: &'static str| match keys {
            "" => ListKind::Set,
            keys => ListKind::Map(Box::leak(keys.split(',').collect())),
        };
        match (keys.strip_prefix('~'), keys.strip_prefix('!')) {
            (Some(keys), _) => facts.patch = list(keys),
            (_, Some(keys)) => facts.list = list(keys),
            _ => (facts.list, facts.patch) = (list(keys), list(keys)),
        }
        signs = rest;
    }
    facts.retain_keys = signs.contains('$');
    facts.patch_replaces = signs.contains('#');
    facts.atomic = signs.contains('@');
    facts.granular = signs.contains('%');
    facts.pointer = signs.contains('*');
    facts.by_value = signs.contains('&');
    facts.always_written = signs.contains('+');
    facts.omitted_when_empty = signs.contains('-');
    (name, facts)
}

/// The values of a named string `go_type` as a field of the type `owner` (`core.v1.PodSpec`) has it, if there are only
/// these. A type that the owner's package does not have is core's.
pub(crate) fn enumeration(owner: &str, go_type: &str) -> Option<Vec<&'static str>> {
    static LINES: OnceLock<HashMap<&str, &str>> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let lines = ENUMERATIONS.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split_once(' ')).collect()
    });
    let package = owner.rsplit_once('.').map_or("", |(package, _)| package);
    let of = |package: &str| lines.get(format!("{package}.{go_type}").as_str());
    let values = of(package).or_else(|| of("core.v1"))?;
    let value = |word: &'static str| if word == "\"\"" { "" } else { word };
    Some(values.split(' ').map(value).collect())
}

#[cfg(test)]
pub(super) fn table() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, words)| {
            (
                name,
                words
                    .split(' ')
                    .filter(|word| *word != "@")
                    .map(|word| parse(word).0)
                    .collect(),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enumeration_is_the_owners_or_cores() {
        let phases = ["Failed", "Pending", "Running", "Succeeded", "Unknown"];
        assert_eq!(
            enumeration("core.v1.PodStatus", "PodPhase"),
            Some(phases.to_vec())
        );
        let policy = enumeration("storage.v1.StorageClass", "PersistentVolumeReclaimPolicy");
        assert_eq!(policy, Some(vec!["Delete", "Recycle", "Retain"]));
        assert_eq!(
            enumeration("core.v1.ServiceSpec", "IPFamily"),
            Some(vec!["", "IPv4", "IPv6"])
        );
        assert_eq!(enumeration("autoscaling.v2.MetricSpec", "MetricSourceType"), None);
        assert_eq!(enumeration("core.v1.PodCondition", "ConditionStatus"), None);
    }

    #[test]
    fn every_sign_is_read() {
        let pod = TypeFacts::of("core.v1.PodSpec");
        assert_eq!(pod.field("containers").list, ListKind::Map(&["name"]));
        assert_eq!(pod.field("containers").patch, ListKind::Map(&["name"]));
        assert!(pod.field("volumes").retain_keys);
        assert!(pod.field("preemptionPolicy").pointer);
        assert_eq!(pod.field("preemptionPolicy").go_type, Some("PreemptionPolicy"));
        assert!(pod.field("nodeSelector").atomic);
        assert_eq!(pod.field("hostname"), Facts::default());
        let status = TypeFacts::of("core.v1.PodStatus");
        assert_eq!(
            (status.field("hostIPs").list, status.field("hostIPs").patch),
            (ListKind::Atomic, ListKind::Map(&["ip"]))
        );
        assert_eq!(
            TypeFacts::of("meta.v1.ObjectMeta").field("finalizers").patch,
            ListKind::Set
        );
        assert!(TypeFacts::of("meta.v1.LabelSelector").atomic);
        assert!(
            TypeFacts::of("core.v1.LocalObjectReference")
                .field("name")
                .omitted_when_empty
        );
        assert!(
            TypeFacts::of("apiextensions.v1.JSONSchemaProps")
                .field("x-kubernetes-list-type")
                .pointer
        );
        assert!(
            TypeFacts::of("core.v1.PersistentVolumeSpec")
                .field("claimRef")
                .granular
        );
        assert!(
            TypeFacts::of("policy.v1.PodDisruptionBudgetSpec")
                .field("selector")
                .patch_replaces
        );
    }
}
