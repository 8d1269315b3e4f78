//! The roles and bindings that every cluster has; what is missing of them is added at every start.

use super::repair;
use crate::authorization::{cluster_role_bindings, cluster_roles, completed};
use crate::error::Error;
use crate::server::Server;
use serde_json::Value;

/// Add what is missing. All at once, so that a new cluster waits for its disk only once.
pub(crate) async fn reconcile(server: &Server) -> Result<(), Error> {
    let roles = cluster_roles().into_iter().map(|role| ("clusterroles", role));
    let bindings = cluster_role_bindings()
        .into_iter()
        .map(|binding| ("clusterrolebindings", binding));
    let all = roles.chain(bindings).map(|(plural, expected)| async move {
        let name = expected["metadata"]["name"].as_str().unwrap_or_default();
        let key = format!("/rbac.authorization.k8s.io/{plural}/{name}");
        let wanted = |old: &Value| match old {
            Value::Null => expected.clone(),
            old => completed(old, &expected).unwrap_or_else(|| old.clone()),
        };
        repair(server, &key, wanted).await
    });
    futures::future::try_join_all(all).await.map(drop)
}
