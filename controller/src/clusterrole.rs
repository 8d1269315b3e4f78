//! ClusterRoles that gather others (`aggregationRule`): their rules are those of every ClusterRole that one of their
//! selectors selects.

use crate::runtime::Queue;
use crate::runtime::{Cache, Context, lost_race, watch, work};
use crate::selector;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Keep them complete, for ever.
pub async fn run(context: Context) {
    let queue = Queue::default();
    let roles: Cache<ClusterRole> = Cache::default();
    let api = Api::<ClusterRole>::all(context.client.clone());
    tokio::join!(
        // Any change may concern any that gathers; there are few of those.
        watch(api.clone(), Config::default(), &roles, |moved| {
            let gathering = roles
                .all()
                .into_iter()
                .filter(|role| role.aggregation_rule.is_some());
            gathering.for_each(|role| queue.add(role.name_any()));
            queue.add(moved.key().name);
        }),
        work(&queue, 1, |name| sync(&api, &roles, name)),
    );
}

async fn sync(
    api: &Api<ClusterRole>,
    roles: &Cache<ClusterRole>,
    name: String,
) -> Result<Option<Duration>, kube::Error> {
    roles.listed().await;
    let Some(role) = api.get_opt(&name).await? else {
        return Ok(None);
    };
    let Some(rules) = gathered(&role, &roles.all()) else {
        return Ok(None);
    };
    let patch = json!({"metadata": {"resourceVersion": role.resource_version()}, "rules": rules});
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Err(error) if !lost_race(&error) => Err(error),
        _ => Ok(None),
    }
}

/// What the rules of `role` are to become; `None` if they are right, or its own.
fn gathered(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    let selected = all.iter().filter(|other| {
        let labels = other.metadata.labels.clone().unwrap_or_default();
        other.name_any() != role.name_any()
            && selectors
                .iter()
                .any(|selector| selector::matches(selector, &labels))
    });
    for rule in selected.flat_map(|other| other.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn role(name: &str, part_of: Option<&str>, gathers: Option<&str>, resources: &[&str]) -> ClusterRole {
        let rules: Vec<Value> = resources
            .iter()
            .map(|resource| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]}))
            .collect();
        let mut object = json!({"metadata": {"name": name}, "rules": rules});
        if let Some(label) = part_of {
            object["metadata"]["labels"] = json!({label: "true"});
        }
        if let Some(label) = gathers {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        serde_json::from_value(object).expect("a ClusterRole")
    }

    #[test]
    fn a_role_has_the_rules_of_those_it_selects_each_once() {
        let all: Vec<Arc<ClusterRole>> = [
            role("a", Some("x"), None, &["pods", "services"]),
            role("b", Some("x"), None, &["pods", "nodes"]),
            role("c", Some("y"), None, &["secrets"]),
            role("sum", Some("x"), Some("x"), &["old"]),
        ]
        .map(Arc::new)
        .into();
        let rules = gathered(&all[3], &all).expect("other rules");
        let resources: Vec<_> = rules
            .iter()
            .filter_map(|rule| rule.resources.clone())
            .flatten()
            .collect();
        assert_eq!(resources, ["pods", "services", "nodes"]);
        let right = role("sum", Some("x"), Some("x"), &["pods", "services", "nodes"]);
        assert_eq!(gathered(&right, &all), None);
        assert_eq!(gathered(&all[0], &all), None);
    }
}
