//! Applying manifests as `kubectl apply` does: create what is missing, patch what is there, and leave kubectl's own
//! annotation so that it can go on from there.

use crate::manifest::Manifest;
use anyhow::{Context, anyhow};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, Status};
use kube::discovery::{self, Scope};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Apply in order, saying for each object what became of it. The first refusal ends it.
pub async fn apply(client: &kube::Client, manifests: &[Manifest], say: impl Fn(&str)) -> anyhow::Result<()> {
    for manifest in manifests {
        let line = apply_one(client, &manifest.object)
            .await
            .with_context(|| manifest.origin.clone())?;
        say(&line);
    }
    Ok(())
}

async fn apply_one(client: &kube::Client, given: &Value) -> anyhow::Result<String> {
    let text = |key: &str| given[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion")
        .split_once('/')
        .unwrap_or(("", text("apiVersion")));
    let kind = GroupVersionKind::gvk(group, version, text("kind"));
    let found = discovery::pinned_kind(client, &kind).await;
    let (resource, capabilities) = found.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => no_kind(&kind),
        kube::Error::Discovery(_) => no_kind(&kind),
        error => error.into(),
    })?;
    let mut object = given.clone();
    if capabilities.scope == Scope::Namespaced && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    let applied = serde_json::to_string(&object)? + "\n";
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = serde_json::json!({});
    }
    object["metadata"]["annotations"][LAST_APPLIED] = applied.into();
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    };
    let prefix = if group.is_empty() {
        String::new()
    } else {
        format!(".{group}")
    };
    let shown = |name: &str, what: &str| format!("{}{prefix}/{name} {what}", text("kind").to_lowercase());
    let parameters = PostParams {
        field_manager: Some("kubectl-client-side-apply".into()),
        ..PostParams::default()
    };
    let typed: DynamicObject = serde_json::from_value(object.clone())?;
    match create(&api, &parameters, &typed).await {
        Ok(created) => return Ok(shown(&created.metadata.name.unwrap_or_default(), "created")),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(error) => return Err(said(error)),
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let before = api.get(name).await.map_err(said)?;
    let parameters = PatchParams {
        field_manager: Some("kubectl-client-side-apply".into()),
        ..PatchParams::default()
    };
    let after = api
        .patch(name, &parameters, &Patch::Strategic(&object))
        .await
        .map_err(said)?;
    let same = before.metadata.resource_version == after.metadata.resource_version;
    Ok(shown(name, if same { "unchanged" } else { "configured" }))
}

/// For how long a pod waits for its namespace's service account, which is made a moment after the namespace.
const ACCOUNT: Duration = Duration::from_secs(10);

async fn create(
    api: &Api<DynamicObject>,
    parameters: &PostParams,
    object: &DynamicObject,
) -> kube::Result<DynamicObject> {
    let until = Instant::now() + ACCOUNT;
    loop {
        match api.create(parameters, object).await {
            Err(kube::Error::Api(status)) if is_too_early(&status) && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            created => return created,
        }
    }
}

fn is_too_early(refusal: &Status) -> bool {
    refusal.code == 403
        && refusal.message.contains("error looking up service account")
        && refusal.message.ends_with("serviceaccount \"default\" not found")
}

fn no_kind(kind: &GroupVersionKind) -> anyhow::Error {
    anyhow!(
        "no matches for kind {:?} in version {:?}: petset does not serve it",
        kind.kind,
        kind.api_version()
    )
}

/// The server's own words.
fn said(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!("{}", status.message),
        error => error.into(),
    }
}
