//! The roles and bindings that every cluster has (`roles.txt`), and what is missing of them in a cluster that is
//! started again: its owner may add to them, and may keep one as it is with the annotation
//! `rbac.authorization.kubernetes.io/autoupdate: "false"`.

use super::rule;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

/// Roles and the subjects that have them from the start: kind and name.
const BINDINGS: [(&str, &[(&str, &str)]); 9] = [
    ("cluster-admin", &[("Group", "system:masters")]),
    ("system:basic-user", &[("Group", "system:authenticated")]),
    ("system:discovery", &[("Group", "system:authenticated")]),
    (
        "system:kube-controller-manager",
        &[("User", "system:kube-controller-manager")],
    ),
    ("system:kube-dns", &[("User", "system:kube-dns")]),
    ("system:kube-scheduler", &[("User", "system:kube-scheduler")]),
    ("system:node-proxier", &[("User", "system:kube-proxy")]),
    (
        "system:public-info-viewer",
        &[
            ("Group", "system:authenticated"),
            ("Group", "system:unauthenticated"),
        ],
    ),
    (
        "system:service-account-issuer-discovery",
        &[("Group", "system:serviceaccounts")],
    ),
];

/// The ClusterRoles by name, without UID and time.
pub fn cluster_roles() -> Vec<Value> {
    let mut roles: Vec<Value> = Vec::new();
    for line in include_str!("roles.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        match (line.strip_prefix("  "), roles.last_mut()) {
            (Some(rule), Some(role)) => {
                let rule = parse_rule(rule).expect("a line of roles.txt is a rule");
                let rules = role["rules"]
                    .as_array_mut()
                    .expect("a role that gathers others has no rules");
                rules.push(json!(rule));
            }
            _ => roles.push(parse_role(line)),
        }
    }
    roles
}

fn parse_role(line: &str) -> Value {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let mut role = json!({"metadata": metadata(name), "rules": []});
    for word in words {
        let (sign, of) = word.split_at(1);
        let label = format!("{GROUP}/aggregate-to-{of}");
        if sign == "+" {
            role["metadata"]["labels"][label] = "true".into();
        } else {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
            role["rules"] = Value::Null;
        }
    }
    role
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {BOOTSTRAPPING.0: BOOTSTRAPPING.1},
        "annotations": {AUTOUPDATE: "true"},
    })
}

/// A rule as `roles.txt` writes it.
pub fn parse_rule(text: &str) -> Option<PolicyRule> {
    let list = |words: &str| -> Vec<String> { words.split(',').map(str::to_owned).collect() };
    let mut words = text.split_whitespace();
    let verbs = words.next()?.split(',').flat_map(|verb| match verb {
        "read" => vec!["get", "list", "watch"],
        "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
        verb => vec![verb],
    });
    let mut verbs: Vec<String> = verbs.map(str::to_owned).collect();
    verbs.sort();
    let second = words.next()?;
    let Some(resources) = words.next() else {
        return Some(PolicyRule {
            verbs,
            non_resource_urls: Some(list(second)),
            ..PolicyRule::default()
        });
    };
    let groups = second.split(',').map(|group| match group {
        "core" => String::new(),
        group => group.to_owned(),
    });
    Some(PolicyRule {
        verbs,
        api_groups: Some(groups.collect()),
        resources: Some(list(resources)),
        resource_names: words.next().map(list),
        non_resource_urls: None,
    })
}

/// The ClusterRoleBindings by name, without UID and time.
pub fn cluster_role_bindings() -> Vec<Value> {
    let bindings = BINDINGS.iter().map(|(role, subjects)| {
        let subjects = subjects
            .iter()
            .map(|(kind, name)| json!({"kind": kind, "apiGroup": GROUP, "name": name}));
        json!({
            "metadata": metadata(role),
            "subjects": subjects.collect::<Vec<_>>(),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        })
    });
    bindings.collect()
}

/// What the stored role or binding becomes so that nothing of `expected` is missing; `None`: it is left alone.
pub fn completed(stored: &Value, expected: &Value) -> Option<Value> {
    if stored["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut new = stored.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in expected["metadata"][map].as_object().into_iter().flatten() {
            new["metadata"][map][key] = value.clone();
        }
    }
    if let Some(rule) = expected.get("aggregationRule") {
        new["aggregationRule"] = rule.clone();
    } else if expected["rules"].is_array() {
        let rules = |role: &Value| -> Vec<PolicyRule> {
            serde_json::from_value(role["rules"].clone()).unwrap_or_default()
        };
        let missing = rule::missing(&rules(stored), &rules(expected));
        append(&mut new, "rules", missing.into_iter().map(|rule| json!(rule)));
    }
    if let Some(subjects) = expected["subjects"].as_array() {
        let there = stored["subjects"].as_array().cloned().unwrap_or_default();
        let missing = subjects.iter().filter(|subject| !there.contains(subject));
        append(&mut new, "subjects", missing.cloned());
        new["roleRef"] = expected["roleRef"].clone();
    }
    (new != *stored).then_some(new)
}

fn append(object: &mut Value, field: &str, items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    match object[field].as_array_mut() {
        Some(list) => list.extend(items),
        None if items.is_empty() => {}
        None => object[field] = items.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_role_or_a_rule_and_every_binding_names_a_role() {
        let roles = cluster_roles();
        let names: Vec<&str> = roles
            .iter()
            .filter_map(|role| role["metadata"]["name"].as_str())
            .collect();
        for name in [
            "cluster-admin",
            "admin",
            "edit",
            "view",
            "system:discovery",
            "system:node",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        for binding in cluster_role_bindings() {
            let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
            assert!(names.contains(&role), "{role}");
        }
        let edit = roles
            .iter()
            .find(|role| role["metadata"]["name"] == "edit")
            .expect("edit");
        assert_eq!(
            edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"],
            "true"
        );
        assert_eq!(
            edit["aggregationRule"],
            json!({"clusterRoleSelectors": [{"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}}]})
        );
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        assert_eq!(
            json!(parse_rule("read core,apps a,b x").expect("a rule")),
            json!({"verbs": ["get", "list", "watch"], "apiGroups": ["", "apps"], "resources": ["a", "b"], "resourceNames": ["x"]})
        );
        assert_eq!(
            json!(parse_rule("get /a,/b/*").expect("a rule")),
            json!({"verbs": ["get"], "nonResourceURLs": ["/a", "/b/*"]})
        );
    }

    #[test]
    fn what_was_taken_away_comes_back_and_what_was_added_stays() {
        for expected in cluster_roles().into_iter().chain(cluster_role_bindings()) {
            assert_eq!(completed(&expected, &expected), None);
        }
        let roles = cluster_roles();
        let expected = roles
            .iter()
            .find(|role| role["metadata"]["name"] == "system:kube-dns")
            .expect("a role");
        let mine = json!(parse_rule("get core configmaps").expect("a rule"));
        let mut stored = expected.clone();
        stored["rules"] = json!([mine]);
        stored["metadata"]["labels"] = json!({"mine": "1"});
        let new = completed(&stored, expected).expect("a repair");
        assert_eq!(
            new["metadata"]["labels"],
            json!({"mine": "1", BOOTSTRAPPING.0: BOOTSTRAPPING.1})
        );
        assert_eq!(new["rules"][0], mine);
        assert_eq!(new["rules"].as_array().map(Vec::len), Some(3));
        stored["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(completed(&stored, expected), None);
    }
}
