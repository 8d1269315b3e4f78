//! All roles and bindings, arranged so that a question looks only at the bindings of its user: who may do what is
//! a pure function of this and the question.

use super::attributes::Attributes;
use super::rule;
use crate::auth::User;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use std::collections::{BTreeSet, HashMap};

/// Where the four kinds lie in the store.
pub const PREFIX: &str = "/rbac.authorization.k8s.io/";

/// An authorizer's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why, or what went wrong while looking; may be empty.
    pub reason: String,
}

/// Every rule that there is.
#[derive(Debug, Default)]
pub struct Policy {
    /// Rules by namespace (empty: ClusterRoles) and name.
    roles: HashMap<(String, String), Vec<PolicyRule>>,
    /// Bindings by namespace (empty: ClusterRoleBindings).
    bindings: HashMap<String, Bindings>,
}

#[derive(Debug, Default)]
struct Bindings {
    by_name: HashMap<String, Binding>,
    /// The names of those that bind a subject.
    by_subject: HashMap<Bound, BTreeSet<String>>,
}

#[derive(Debug)]
struct Binding {
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Whom a subject binds: a user (service accounts are users) or a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Bound {
    User(String),
    Group(String),
}

impl Bound {
    fn of(subject: &Subject, namespace: &str) -> Option<Bound> {
        match subject.kind.as_str() {
            "User" => Some(Bound::User(subject.name.clone())),
            "Group" => Some(Bound::Group(subject.name.clone())),
            "ServiceAccount" => match account_namespace(subject, namespace) {
                "" => None,
                namespace => Some(Bound::User(format!(
                    "system:serviceaccount:{namespace}:{}",
                    subject.name
                ))),
            },
            _ => None,
        }
    }
}

fn account_namespace<'a>(subject: &'a Subject, binding: &'a str) -> &'a str {
    match subject.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => namespace,
        _ => binding,
    }
}

/// A rule that a user has.
pub struct Held<'a> {
    /// What it allows.
    pub rule: &'a PolicyRule,
    namespace: &'a str,
    name: &'a str,
    binding: &'a Binding,
    subject: &'a Subject,
}

impl Held<'_> {
    /// Upstream's words for where it comes from.
    fn source(&self) -> String {
        let (kind, name) = match self.namespace {
            "" => ("ClusterRoleBinding", self.name.to_owned()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        let subject = match self.subject.kind.as_str() {
            "ServiceAccount" => format!(
                "{}/{}",
                self.subject.name,
                account_namespace(self.subject, self.namespace)
            ),
            _ => self.subject.name.clone(),
        };
        let role = &self.binding.role;
        format!(
            "{kind} {name:?} of {} {:?} to {} {subject:?}",
            role.kind, role.name, self.subject.kind
        )
    }
}

impl Policy {
    /// Take in what stands at a key of the store now; `None`: nothing any more.
    pub fn change(&mut self, key: &str, value: Option<&[u8]>) {
        let Some(rest) = key.strip_prefix(PREFIX) else {
            return;
        };
        let (plural, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let place = |(namespace, name): (&str, &str)| (namespace.to_owned(), name.to_owned());
        let (namespace, name) = match plural {
            "roles" | "rolebindings" => rest.split_once('/').map(place).unwrap_or_default(),
            _ => (String::new(), rest.to_owned()),
        };
        match plural {
            "roles" => self.set_role(
                namespace,
                name,
                decode(value).map(|role: Role| role.rules.unwrap_or_default()),
            ),
            "clusterroles" => {
                let role = decode(value).map(|role: ClusterRole| role.rules.unwrap_or_default());
                self.set_role(namespace, name, role);
            }
            "rolebindings" => {
                let binding = decode(value).map(|binding: RoleBinding| Binding {
                    role: binding.role_ref,
                    subjects: binding.subjects.unwrap_or_default(),
                });
                self.set_binding(namespace, name, binding);
            }
            "clusterrolebindings" => {
                let binding = decode(value).map(|binding: ClusterRoleBinding| Binding {
                    role: binding.role_ref,
                    subjects: binding.subjects.unwrap_or_default(),
                });
                self.set_binding(namespace, name, binding);
            }
            _ => {}
        }
    }

    fn set_role(&mut self, namespace: String, name: String, rules: Option<Vec<PolicyRule>>) {
        match rules {
            Some(rules) => self.roles.insert((namespace, name), rules),
            None => self.roles.remove(&(namespace, name)),
        };
    }

    fn set_binding(&mut self, namespace: String, name: String, binding: Option<Binding>) {
        let bindings = self.bindings.entry(namespace.clone()).or_default();
        if let Some(old) = bindings.by_name.remove(&name) {
            for bound in old
                .subjects
                .iter()
                .filter_map(|subject| Bound::of(subject, &namespace))
            {
                if let Some(names) = bindings.by_subject.get_mut(&bound) {
                    names.remove(&name);
                    if names.is_empty() {
                        bindings.by_subject.remove(&bound);
                    }
                }
            }
        }
        if let Some(new) = binding {
            for bound in new
                .subjects
                .iter()
                .filter_map(|subject| Bound::of(subject, &namespace))
            {
                bindings.by_subject.entry(bound).or_default().insert(name.clone());
            }
            bindings.by_name.insert(name, new);
        }
        if bindings.by_name.is_empty() {
            self.bindings.remove(&namespace);
        }
    }

    /// Show `visit` every rule that `user` has in `namespace` (empty: at the cluster scope), until it answers false.
    /// What comes back are roles that bindings name and that are not there.
    pub fn visit<'a>(
        &'a self,
        user: &User,
        namespace: &'a str,
        mut visit: impl FnMut(Held<'a>) -> bool,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        let mine: Vec<Bound> = std::iter::once(Bound::User(user.name.clone()))
            .chain(user.groups.iter().cloned().map(Bound::Group))
            .collect();
        let places = if namespace.is_empty() {
            vec![""]
        } else {
            vec!["", namespace]
        };
        for place in places {
            let Some(bindings) = self.bindings.get(place) else {
                continue;
            };
            let names: BTreeSet<&String> = mine
                .iter()
                .filter_map(|bound| bindings.by_subject.get(bound))
                .flatten()
                .collect();
            for (name, binding) in names
                .into_iter()
                .filter_map(|name| bindings.by_name.get_key_value(name))
            {
                let subject = binding
                    .subjects
                    .iter()
                    .find(|subject| Bound::of(subject, place).is_some_and(|bound| mine.contains(&bound)));
                let Some(subject) = subject else { continue };
                let Some(rules) = self.rules_of(&binding.role, place) else {
                    let role = &binding.role;
                    lost.push(format!(
                        "{}.rbac.authorization.k8s.io {:?} not found",
                        role.kind.to_lowercase(),
                        role.name
                    ));
                    continue;
                };
                for rule in rules {
                    let held = Held {
                        rule,
                        namespace: place,
                        name,
                        binding,
                        subject,
                    };
                    if !visit(held) {
                        return lost;
                    }
                }
            }
        }
        lost
    }

    /// The rules of the role that a binding in `namespace` refers to, if it is there.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<&[PolicyRule]> {
        let namespace = match role.kind.as_str() {
            "Role" => namespace,
            _ => "",
        };
        let rules = self.roles.get(&(namespace.to_owned(), role.name.clone()));
        rules.map(Vec::as_slice)
    }

    /// Whether `user` may do what is asked for.
    pub fn decide(&self, user: &User, asked: &Attributes) -> Decision {
        let mut reason = None;
        let namespace = if asked.path.is_some() {
            ""
        } else {
            &asked.namespace
        };
        let lost = self.visit(user, namespace, |held| {
            let allows = rule::allows(held.rule, asked);
            if allows {
                reason = Some(format!("RBAC: allowed by {}", held.source()));
            }
            !allows
        });
        match reason {
            Some(reason) => Decision {
                allowed: true,
                reason,
            },
            None => Decision {
                allowed: false,
                reason: match lost.as_slice() {
                    [] => String::new(),
                    [only] => format!("RBAC: {only}"),
                    several => format!("RBAC: [{}]", several.join(", ")),
                },
            },
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
    let mut object: serde_json::Value = serde_json::from_slice(value?).ok()?;
    // Objects are stored without these, and the types demand them.
    let kind = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
    object["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
    object["kind"] = kind.into();
    match serde_json::from_value(object) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::warn!(%error, "a stored role or binding cannot be read; it counts as absent");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(objects: &[(&str, Value)]) -> Policy {
        let mut policy = Policy::default();
        for (key, object) in objects {
            policy.change(&format!("{PREFIX}{key}"), Some(object.to_string().as_bytes()));
        }
        policy
    }

    fn binding(role: (&str, &str), subjects: Value) -> Value {
        json!({"metadata": {}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}})
    }

    fn pods(verb: &str) -> Value {
        json!({"metadata": {}, "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    }

    fn asked(verb: &str, namespace: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            resource: "pods".into(),
            namespace: namespace.into(),
            ..Attributes::default()
        }
    }

    fn example() -> Policy {
        policy(&[
            ("clusterroles/lister", pods("list")),
            ("roles/a/getter", pods("get")),
            (
                "clusterrolebindings/all",
                binding(
                    ("ClusterRole", "lister"),
                    json!([{"kind": "Group", "name": "staff"}]),
                ),
            ),
            (
                "rolebindings/a/one",
                binding(
                    ("Role", "getter"),
                    json!([
                        {"kind": "User", "name": "x"}, {"kind": "ServiceAccount", "name": "web"},
                    ]),
                ),
            ),
            (
                "rolebindings/a/lister",
                binding(
                    ("ClusterRole", "lister"),
                    json!([{"kind": "User", "name": "jane"}]),
                ),
            ),
            (
                "rolebindings/b/lost",
                binding(("Role", "getter"), json!([{"kind": "User", "name": "jane"}])),
            ),
        ])
    }

    #[test]
    fn a_binding_gives_its_subjects_the_role_where_it_is() {
        let policy = example();
        let web = "system:serviceaccount:a:web";
        for (user, groups, verb, namespace, reason) in [
            (
                "bob",
                &["staff"][..],
                "list",
                "",
                "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"lister\" to Group \"staff\"",
            ),
            (
                "bob",
                &["staff"],
                "list",
                "a",
                "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"lister\" to Group \"staff\"",
            ),
            ("bob", &[], "list", "a", ""),
            ("staff", &[], "list", "a", ""),
            (
                "jane",
                &[],
                "list",
                "a",
                "RBAC: allowed by RoleBinding \"lister/a\" of ClusterRole \"lister\" to User \"jane\"",
            ),
            ("jane", &[], "list", "", ""),
            (
                web,
                &[],
                "get",
                "a",
                "RBAC: allowed by RoleBinding \"one/a\" of Role \"getter\" to ServiceAccount \"web/a\"",
            ),
            (web, &[], "get", "b", ""),
            ("web", &[], "get", "a", ""),
        ] {
            let decision = policy.decide(&User::new(user, groups), &asked(verb, namespace));
            assert_eq!(
                (decision.allowed, decision.reason.as_str()),
                (!reason.is_empty(), reason),
                "{user} {verb} {namespace}"
            );
        }
    }

    #[test]
    fn a_role_that_is_not_there_is_told_and_gives_nothing() {
        let decision = example().decide(&User::new("jane", &[]), &asked("get", "b"));
        assert_eq!(
            decision,
            Decision {
                allowed: false,
                reason: "RBAC: role.rbac.authorization.k8s.io \"getter\" not found".into(),
            }
        );
    }

    #[test]
    fn what_is_changed_or_removed_counts_no_more() {
        let mut policy = example();
        let jane = User::new("jane", &[]);
        policy.change(
            &format!("{PREFIX}clusterroles/lister"),
            Some(pods("watch").to_string().as_bytes()),
        );
        assert!(!policy.decide(&jane, &asked("list", "a")).allowed);
        assert!(policy.decide(&jane, &asked("watch", "a")).allowed);
        policy.change(&format!("{PREFIX}rolebindings/a/lister"), None);
        assert_eq!(policy.decide(&jane, &asked("watch", "a")), Decision::default());
        let nobody = binding(("ClusterRole", "lister"), json!([]));
        policy.change(
            &format!("{PREFIX}clusterrolebindings/all"),
            Some(nobody.to_string().as_bytes()),
        );
        assert!(
            !policy
                .decide(&User::new("bob", &["staff"]), &asked("watch", ""))
                .allowed
        );
    }
}
