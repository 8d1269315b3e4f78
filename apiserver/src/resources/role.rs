//! Role and ClusterRole: rules about what may be done, in a namespace or everywhere.

use super::parts;
use crate::resource::{Kind, Names};
use crate::validation::{Invalid, Path, names, selector};
use serde_json::{Value, json};

static ROLE: Names = Names {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "Role",
    plural: "roles",
    singular: "role",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.rbac.v1.Role",
    storage_group: "rbac.authorization.k8s.io",
};

static CLUSTER_ROLE: Names = Names {
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRole",
    ..ROLE
};

/// Rules in one namespace.
pub struct Role;

/// Rules everywhere, or wherever a RoleBinding says.
pub struct ClusterRole;

impl Kind for Role {
    fn names(&self) -> &'static Names {
        &ROLE
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        rules(object, true)
    }
}

impl Kind for ClusterRole {
    fn names(&self) -> &'static Names {
        &CLUSTER_ROLE
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let mut invalid = rules(object, false);
        let gathers = &object["aggregationRule"];
        if gathers.is_object() {
            let field = "aggregationRule.clusterRoleSelectors";
            let selectors: Vec<&Value> = parts::items(&gathers["clusterRoleSelectors"]).collect();
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                invalid.push(Invalid::required(field, detail));
            }
            for (i, each) in selectors.into_iter().enumerate() {
                invalid.extend(selector::label_selector(
                    each,
                    &Path::new(&format!("{field}[{i}]")),
                ));
            }
        }
        invalid
    }
}

fn rules(object: &Value, namespaced: bool) -> Vec<Invalid> {
    let rules = parts::items(&object["rules"]).enumerate();
    rules
        .flat_map(|(i, each)| rule(each, namespaced, &format!("rules[{i}]")))
        .collect()
}

fn rule(rule: &Value, namespaced: bool, field: &str) -> Vec<Invalid> {
    let has = |list: &str| parts::items(&rule[list]).next().is_some();
    let mut invalid = Vec::new();
    if !has("verbs") {
        let detail = "verbs must contain at least one value";
        invalid.push(Invalid::required(format!("{field}.verbs"), detail));
    }
    if has("nonResourceURLs") {
        let urls = || (format!("{field}.nonResourceURLs"), json!(rule["nonResourceURLs"]));
        if namespaced {
            let (field, value) = urls();
            let detail = "namespaced rules cannot apply to non-resource URLs";
            invalid.push(Invalid::malformed(field, value, detail));
        }
        if ["apiGroups", "resources", "resourceNames"].into_iter().any(has) {
            let (field, value) = urls();
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            invalid.push(Invalid::malformed(field, value, detail));
        }
        return invalid;
    }
    for (list, detail) in [
        ("apiGroups", "resource rules must supply at least one api group"),
        ("resources", "resource rules must supply at least one resource"),
    ] {
        if !has(list) {
            invalid.push(Invalid::required(format!("{field}.{list}"), detail));
        }
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(kind: &dyn Kind, object: &Value) -> Vec<String> {
        kind.validate_create(object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_rule_is_about_resources_or_paths_and_has_verbs() {
        let rules = json!({"rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {"apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"]},
            {"verbs": ["get"], "nonResourceURLs": ["/a"]},
            {"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["pods"]},
        ]});
        let both = "rules[4].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs";
        let others = [
            "rules[1].verbs: Required value: verbs must contain at least one value",
            "rules[2].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[2].resources: Required value: resource rules must supply at least one resource",
        ];
        assert_eq!(problems(&ClusterRole, &rules), [&others[..], &[both]].concat());
        let namespaced = |i: usize| {
            format!(
                "rules[{i}].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs"
            )
        };
        assert_eq!(
            problems(&Role, &rules),
            [&others[..], &[&namespaced(3), &namespaced(4), both]].concat()
        );
    }

    #[test]
    fn a_role_that_gathers_others_says_which() {
        let gathers = |selectors: Value| json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
        assert_eq!(
            problems(&ClusterRole, &gathers(json!([]))),
            [
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ]
        );
        assert_eq!(
            problems(&ClusterRole, &gathers(json!([{"matchLabels": {"a": "b"}}]))),
            [] as [&str; 0]
        );
        assert_eq!(
            problems(&ClusterRole, &gathers(json!([{"matchLabels": {"a": "-"}}]))).len(),
            1
        );
    }
}
