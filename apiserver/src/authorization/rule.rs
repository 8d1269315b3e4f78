//! What a rule allows, and whether rules cover others: pure functions, upstream's semantics.

use super::attributes::Attributes;
use k8s_openapi::api::rbac::v1::PolicyRule;
use std::collections::BTreeSet;

const ALL: &str = "*";

/// Whether the rule allows what is asked for.
pub fn allows(rule: &PolicyRule, asked: &Attributes) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| each(list).any(|item| item == ALL || item == wanted);
    if !rule.verbs.iter().any(|verb| verb == ALL || *verb == asked.verb) {
        return false;
    }
    if let Some(path) = &asked.path {
        return each(&rule.non_resource_urls).any(|allowed| path_covers(allowed, path));
    }
    let names = each(&rule.resource_names).collect::<Vec<_>>();
    has(&rule.api_groups, &asked.group)
        && resource_allowed(rule, asked)
        && (names.is_empty() || names.contains(&asked.name.as_str()))
}

fn resource_allowed(rule: &PolicyRule, asked: &Attributes) -> bool {
    each(&rule.resources).any(|allowed| {
        if allowed == ALL {
            return true;
        }
        match (allowed.split_once('/'), asked.subresource.as_str()) {
            (None, "") => allowed == asked.resource,
            (Some((resource, subresource)), own) => {
                !own.is_empty() && subresource == own && (resource == ALL || resource == asked.resource)
            }
            _ => false,
        }
    })
}

fn each(list: &Option<Vec<String>>) -> impl Iterator<Item = &str> {
    list.iter().flatten().map(String::as_str)
}

fn path_covers(allowed: &str, path: &str) -> bool {
    allowed == ALL
        || allowed == path
        || allowed.ends_with('*') && path.starts_with(allowed.trim_end_matches('*'))
}

/// The parts of `wanted` that `held` does not allow, in the smallest form; none if it covers them all.
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(break_down);
    let missing = parts.filter(|part| !held.iter().any(|rule| covers(rule, part)));
    compact(missing.collect())
}

/// The rule as rules of one verb for one resource (of one name) or one path each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |text: &str| Some(vec![text.to_owned()]);
    let names: Vec<Option<&str>> = match each(&rule.resource_names).map(Some).collect::<Vec<_>>() {
        names if names.is_empty() => vec![None],
        names => names,
    };
    for group in each(&rule.api_groups) {
        for resource in each(&rule.resources) {
            for verb in &rule.verbs {
                parts.extend(names.iter().map(|name| PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.and_then(one),
                    non_resource_urls: None,
                }));
            }
        }
    }
    for path in each(&rule.non_resource_urls) {
        parts.extend(rule.verbs.iter().map(|verb| PolicyRule {
            verbs: vec![verb.clone()],
            non_resource_urls: one(path),
            ..PolicyRule::default()
        }));
    }
    parts
}

fn covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let has_all = |held: &Option<Vec<String>>, wanted: &Option<Vec<String>>| {
        each(held).any(|item| item == ALL) || each(wanted).all(|item| each(held).any(|h| h == item))
    };
    let verbs = owner.verbs.iter().any(|verb| verb == ALL)
        || part.verbs.iter().all(|verb| owner.verbs.contains(verb));
    let resources = each(&part.resources).all(|wanted| {
        each(&owner.resources).any(|held| {
            let same_subresource = || {
                let (_, subresource) = wanted.split_once('/')?;
                Some(held.strip_prefix("*/")? == subresource)
            };
            held == ALL || held == wanted || same_subresource().unwrap_or(false)
        })
    });
    let owned_names = each(&owner.resource_names).count();
    let names = match each(&part.resource_names).next() {
        None => owned_names == 0,
        Some(_) => owned_names == 0 || has_all(&owner.resource_names, &part.resource_names),
    };
    let paths = each(&part.non_resource_urls)
        .all(|wanted| each(&owner.non_resource_urls).any(|held| path_covers(held, wanted)));
    verbs && has_all(&owner.api_groups, &part.api_groups) && resources && names && paths
}

/// Rules that differ only in their verbs become one.
fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compacted: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = compacted.iter_mut().find(|other| {
            rule.non_resource_urls.is_none()
                && (&other.api_groups, &other.resources, &other.resource_names)
                    == (&rule.api_groups, &rule.resources, &rule.resource_names)
        });
        match same {
            Some(other) => other.verbs.extend(rule.verbs),
            None => compacted.push(rule),
        }
    }
    compacted
}

/// Rules in upstream's words, one a line, sorted: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
pub fn describe(rules: &[PolicyRule]) -> String {
    let lines: BTreeSet<String> = rules.iter().map(describe_one).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn describe_one(rule: &PolicyRule) -> String {
    let lists = [
        ("APIGroups", each(&rule.api_groups).collect::<Vec<_>>()),
        ("Resources", each(&rule.resources).collect()),
        ("NonResourceURLs", each(&rule.non_resource_urls).collect()),
        ("ResourceNames", each(&rule.resource_names).collect()),
        ("Verbs", rule.verbs.iter().map(String::as_str).collect()),
    ];
    let parts: Vec<String> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(&list)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list as Go's `%q` prints it.
pub fn quoted(list: &[impl AsRef<str>]) -> String {
    let list: Vec<String> = list.iter().map(|text| format!("{:?}", text.as_ref())).collect();
    format!("[{}]", list.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `VERBS GROUPS RESOURCES [NAMES]` or `VERBS /PATHS`, lists with commas, `core` for the core group.
    fn rule(text: &str) -> PolicyRule {
        super::super::roles::parse_rule(text).expect("a rule")
    }

    fn asked(verb: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            namespace: "a".into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_no_more() {
        for (text, verb, resource, name, allowed) in [
            ("get core pods", "get", "pods", "a", true),
            ("get core pods", "list", "pods", "", false),
            ("* core pods", "anything", "pods", "", true),
            ("get apps pods", "get", "pods", "a", false),
            ("get * pods", "get", "pods", "a", true),
            ("get core *", "get", "pods", "a", true),
            ("get core *", "get", "pods/log", "a", true),
            ("get core pods", "get", "pods/log", "a", false),
            ("get core pods/log", "get", "pods/log", "a", true),
            ("get core pods/log", "get", "pods", "a", false),
            ("get core */log", "get", "pods/log", "a", true),
            ("get core */log", "get", "pods/exec", "a", false),
            ("get core pods/*", "get", "pods/log", "a", false),
            ("get core pods a,b", "get", "pods", "b", true),
            ("get core pods a,b", "get", "pods", "c", false),
            ("list core pods a", "list", "pods", "", false),
            ("create core pods/exec", "create", "pods/exec", "a", true),
            ("create core pods/exec", "get", "pods/exec", "a", false),
            ("get /api", "get", "pods", "a", false),
        ] {
            assert_eq!(
                allows(&rule(text), &asked(verb, resource, name)),
                allowed,
                "{text}: {verb} {resource}"
            );
        }
    }

    #[test]
    fn paths_are_allowed_to_the_letter_or_below() {
        for (text, path, allowed) in [
            ("get /healthz", "/healthz", true),
            ("get /healthz", "/healthz/ping", false),
            ("get /healthz/*", "/healthz/ping", true),
            ("get /healthz*", "/healthz", true),
            ("get *", "/anything", true),
            ("post /healthz", "/healthz", false),
            ("* /*", "/anything", true),
        ] {
            let asked = Attributes {
                verb: "get".into(),
                path: Some(path.into()),
                ..Attributes::default()
            };
            assert_eq!(
                super::super::roles::parse_rule(text).is_some_and(|rule| allows(&rule, &asked)),
                allowed,
                "{text}: {path}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_told_in_its_smallest_form() {
        let held = [rule("get,list core pods"), rule("* apps * x"), rule("get /api/*")];
        for (wanted, lacks) in [
            ("get core pods", ""),
            ("get core pods web-0", ""),
            (
                "get,list,watch,delete core pods",
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#,
            ),
            (
                "get core pods,secrets",
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
            ),
            ("get apps deployments x", ""),
            (
                "get apps deployments x,y",
                r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["y"], Verbs:["get"]}"#,
            ),
            (
                "get apps deployments",
                r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}"#,
            ),
            (
                "get core pods/log",
                r#"{APIGroups:[""], Resources:["pods/log"], Verbs:["get"]}"#,
            ),
            ("get /api/v1", ""),
            (
                "get,post /api/v1,/version",
                "{NonResourceURLs:[\"/api/v1\"], Verbs:[\"post\"]}\n{NonResourceURLs:[\"/version\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/version\"], Verbs:[\"post\"]}",
            ),
        ] {
            assert_eq!(describe(&missing(&held, &[rule(wanted)])), lacks, "{wanted}");
        }
        let all = [rule("* * *"), rule("* /*")];
        assert_eq!(describe(&missing(&all, &held)), "");
        assert_eq!(
            describe(&missing(&held, &all[..1])),
            r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#
        );
    }

    fn texts(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(proptest::sample::select(of).prop_map(str::to_owned), 1..3)
    }

    prop_compose! {
        fn rules()(
            verbs in texts(&["get", "list", "*"]),
            groups in texts(&["", "apps", "*"]),
            resources in texts(&["pods", "pods/log", "*/log", "sets", "*"]),
            names in proptest::option::of(texts(&["a", "b"])),
        ) -> PolicyRule {
            PolicyRule { verbs, api_groups: Some(groups), resources: Some(resources), resource_names: names, non_resource_urls: None }
        }
    }

    proptest! {
        /// What nothing is missing from gives no right that was not held: the promise of the escalation check.
        #[test]
        fn covered_rules_allow_nothing_that_was_not_allowed(
            held in proptest::collection::vec(rules(), 0..4),
            wanted in rules(),
        ) {
            if !missing(&held, std::slice::from_ref(&wanted)).is_empty() {
                return Ok(());
            }
            for verb in ["get", "list", "watch"] {
                for group in ["", "apps", "other"] {
                    for resource in ["pods", "pods/log", "sets", "sets/log"] {
                        for name in ["", "a", "b", "c"] {
                            let asked = Attributes { group: group.into(), ..asked(verb, resource, name) };
                            prop_assert!(
                                !allows(&wanted, &asked) || held.iter().any(|rule| allows(rule, &asked)),
                                "{asked:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
