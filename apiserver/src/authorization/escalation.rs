//! Nobody gives away more than they have: writing a role takes having its rules (or the verb `escalate`), writing a
//! binding takes having the rules of its role (or the verb `bind`).

use super::attributes::Attributes;
use super::rule;
use crate::auth::User;
use crate::call::Call;
use crate::error::{Error, Target};
use crate::metadata;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

/// Check the write of an object of one of the four kinds; others pass.
pub async fn check(call: &Call, object: &Value) -> Result<(), Error> {
    let names = call.kind.names();
    if names.group != "rbac.authorization.k8s.io" {
        return Ok(());
    }
    if names.plural.ends_with("bindings") {
        binding(call, object).await
    } else {
        role(call, object).await
    }
}

/// Whether only what the garbage collector writes has changed: owners and finalizers.
pub fn is_collection(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        let metadata = rest.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            for field in [
                "finalizers",
                "managedFields",
                "ownerReferences",
                "resourceVersion",
            ] {
                metadata.remove(field);
            }
        }
        rest
    };
    rest(new) == rest(old)
}

/// A question about the object that is written, with another verb.
fn about(call: &Call, verb: &str, resource: &str, name: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        group: "rbac.authorization.k8s.io".into(),
        namespace: call.namespace().unwrap_or_default().into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

async fn role(call: &Call, object: &Value) -> Result<(), Error> {
    let plural = call.kind.names().plural;
    if may(call, &about(call, "escalate", plural, call.name())).await? {
        return Ok(());
    }
    let name = metadata::text(object, "name");
    let rules: Vec<PolicyRule> = serde_json::from_value(object["rules"].clone()).unwrap_or_default();
    confirm(call, name, &rules).await?;
    if object["aggregationRule"].is_object() {
        // It may gather anything later.
        let everything = ["* * *", "* *"].map(super::roles::parse_rule);
        let everything: Vec<PolicyRule> = everything.into_iter().flatten().collect();
        if confirm(call, name, &everything).await.is_err() {
            let why = "must have cluster-admin privileges to use an aggregationRule";
            return Err(Error::Forbidden(call.target(name), why.into()));
        }
    }
    Ok(())
}

async fn binding(call: &Call, object: &Value) -> Result<(), Error> {
    let role: RoleRef = serde_json::from_value(object["roleRef"].clone()).unwrap_or_default();
    let plural = match role.kind.as_str() {
        "Role" => "roles",
        _ => "clusterroles",
    };
    if may(call, &about(call, "bind", plural, &role.name)).await? {
        return Ok(());
    }
    let namespace = call.namespace().unwrap_or_default();
    let rules = {
        let policy = call.server.policy().await?;
        policy.rules_of(&role, namespace).map(<[PolicyRule]>::to_vec)
    };
    let rules = rules.ok_or_else(|| {
        Error::NotFound(Target {
            group: "rbac.authorization.k8s.io".into(),
            resource: plural.into(),
            name: role.name.clone(),
        })
    })?;
    confirm(call, metadata::text(object, "name"), &rules).await
}

async fn may(call: &Call, asked: &Attributes) -> Result<bool, Error> {
    Ok(call.server.authorize(&call.user, asked).await?.allowed)
}

/// Refuse unless the user has all of `rules` in the call's namespace.
async fn confirm(call: &Call, name: &str, rules: &[PolicyRule]) -> Result<(), Error> {
    let namespace = call.namespace().unwrap_or_default();
    let mut held = Vec::new();
    let lost = {
        let policy = call.server.policy().await?;
        policy.visit(&call.user, namespace, |each| {
            held.push(each.rule.clone());
            true
        })
    };
    let missing = rule::missing(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Forbidden(
        call.target(name),
        refusal(&call.user, &missing, &lost),
    ))
}

fn refusal(user: &User, missing: &[PolicyRule], lost: &[String]) -> String {
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        rule::quoted(&user.groups),
        rule::describe(missing)
    );
    if !lost.is_empty() {
        message += &format!("; resolution errors: [{}]", lost.join(", "));
    }
    message
}
