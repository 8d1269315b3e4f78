//! RoleBinding and ClusterRoleBinding: who has a role, in a namespace or everywhere.

use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::validation::{Invalid, go, names};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

static ROLE_BINDING: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.rbac.v1.RoleBinding",
    storage_group: GROUP,
};

static CLUSTER_ROLE_BINDING: Names = Names {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    ..ROLE_BINDING
};

static COLUMNS: [Column; 6] = [
    parts::NAME,
    parts::column("Role", "schema:roleRef"),
    parts::AGE,
    parts::wide("Users", "Users in the roleBinding"),
    parts::wide("Groups", "Groups in the roleBinding"),
    parts::wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

static CLUSTER_COLUMNS: [Column; 6] = [
    parts::NAME,
    parts::column("Role", "schema:roleRef"),
    parts::AGE,
    parts::wide("Users", "Users in the clusterRoleBinding"),
    parts::wide("Groups", "Groups in the clusterRoleBinding"),
    parts::wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
];

/// A binding of either scope.
pub struct Binding {
    names: &'static Names,
    columns: &'static [Column],
}

/// A Role or ClusterRole for some in one namespace.
pub static IN_NAMESPACE: Binding = Binding {
    names: &ROLE_BINDING,
    columns: &COLUMNS,
};

/// A ClusterRole for some everywhere.
pub static IN_CLUSTER: Binding = Binding {
    names: &CLUSTER_ROLE_BINDING,
    columns: &CLUSTER_COLUMNS,
};

impl Kind for Binding {
    fn names(&self) -> &'static Names {
        self.names
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Value) {
        set_defaults(object);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        validate(object, self.names.namespaced)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        validate_update(new, old, self.names.namespaced)
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

fn set_defaults(object: &mut Value) {
    let is_empty = |value: &Value| value.as_str().unwrap_or_default().is_empty();
    if is_empty(&object["roleRef"]["apiGroup"]) {
        object["roleRef"]["apiGroup"] = GROUP.into();
    }
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if (subject["kind"] == "User" || subject["kind"] == "Group") && is_empty(&subject["apiGroup"]) {
            subject["apiGroup"] = GROUP.into();
        }
    }
}

fn validate(object: &Value, namespaced: bool) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let role = |field: &str| object["roleRef"][field].as_str().unwrap_or_default();
    if role("apiGroup") != GROUP {
        invalid.push(Invalid::not_supported(
            "roleRef.apiGroup",
            role("apiGroup"),
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&role("kind")) {
        invalid.push(Invalid::not_supported("roleRef.kind", role("kind"), kinds));
    }
    match role("name") {
        "" => invalid.push(Invalid::required("roleRef.name", "")),
        name => invalid.extend(Invalid::each("roleRef.name", name, names::path_segment(name))),
    }
    for (i, each) in parts::items(&object["subjects"]).enumerate() {
        invalid.extend(subject(each, namespaced, &format!("subjects[{i}]")));
    }
    invalid
}

fn subject(subject: &Value, namespaced: bool, field: &str) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    let text = |field: &str| subject[field].as_str().unwrap_or_default();
    let (name, group) = (text("name"), text("apiGroup"));
    if name.is_empty() {
        invalid.push(Invalid::required(format!("{field}.name"), ""));
    }
    let must_be = |wanted: &str| {
        (group != wanted).then(|| Invalid::not_supported(format!("{field}.apiGroup"), group, &[wanted]))
    };
    match text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let problems = names::dns1123_subdomain(name);
                invalid.extend(Invalid::each(format!("{field}.name"), name, problems));
            }
            invalid.extend(must_be(""));
            if !namespaced && text("namespace").is_empty() {
                invalid.push(Invalid::required(format!("{field}.namespace"), ""));
            }
        }
        "User" | "Group" => invalid.extend(must_be(GROUP)),
        kind => invalid.push(Invalid::not_supported(
            format!("{field}.kind"),
            kind,
            &["ServiceAccount", "User", "Group"],
        )),
    }
    invalid
}

fn validate_update(new: &Value, old: &Value, namespaced: bool) -> Vec<Invalid> {
    let mut invalid = validate(new, namespaced);
    if new["roleRef"] != old["roleRef"] {
        // Go prints the fields of its own type, which has no other names for them.
        let text = |field: &str| go::quote(new["roleRef"][field].as_str().unwrap_or_default());
        let printed = format!(
            "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
            text("apiGroup"),
            text("kind"),
            text("name")
        );
        invalid.push(Invalid::malformed_text(
            "roleRef",
            printed,
            "cannot change roleRef",
        ));
    }
    invalid
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let role = |field: &str| object["roleRef"][field].as_str().unwrap_or_default();
    let subjects = |kind: &str| -> Value {
        let names = parts::items(&object["subjects"]).filter(|subject| subject["kind"] == kind);
        let names = names.map(|subject| {
            let text = |field: &str| subject[field].as_str().unwrap_or_default();
            match kind {
                "ServiceAccount" => format!("{}/{}", text("namespace"), text("name")),
                _ => text("name").to_owned(),
            }
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    vec![
        parts::name(object),
        format!("{}/{}", role("kind"), role("name")).into(),
        parts::age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding() -> Value {
        json!({
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [
                {"kind": "User", "name": "jane"},
                {"kind": "ServiceAccount", "name": "web", "namespace": "a"},
            ],
        })
    }

    fn problems(invalid: Vec<Invalid>) -> Vec<String> {
        invalid.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn groups_are_defaulted_and_then_it_is_valid() {
        let mut object = binding();
        IN_NAMESPACE.set_defaults(&mut object);
        assert_eq!(object["roleRef"]["apiGroup"], GROUP);
        assert_eq!(object["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(object["subjects"][1].get("apiGroup"), None);
        assert_eq!(IN_NAMESPACE.validate_create(&object), []);
        assert_eq!(IN_CLUSTER.validate_create(&object), []);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut object = binding();
        IN_CLUSTER.set_defaults(&mut object);
        object["roleRef"]["kind"] = "Role".into();
        object["roleRef"]["name"] = "".into();
        object["subjects"][0]["kind"] = "Robot".into();
        object["subjects"][1]["namespace"] = "".into();
        assert_eq!(
            problems(IN_CLUSTER.validate_create(&object)),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Required value",
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                "subjects[1].namespace: Required value",
            ]
        );
    }

    #[test]
    fn the_role_of_a_binding_stays() {
        let mut old = binding();
        IN_NAMESPACE.set_defaults(&mut old);
        let mut new = old.clone();
        new["subjects"] = json!([]);
        assert_eq!(IN_NAMESPACE.validate_update(&new, &old), []);
        new["roleRef"]["name"] = "edit".into();
        assert_eq!(
            problems(IN_NAMESPACE.validate_update(&new, &old)),
            [
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: cannot change roleRef"
            ]
        );
    }

    #[test]
    fn the_table_says_whom_it_binds() {
        let cells = IN_NAMESPACE.cells(&binding(), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "ClusterRole/view");
        assert_eq!(cells[3..], [json!("jane"), json!(""), json!("a/web")]);
    }
}
