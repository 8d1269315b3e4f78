//! A namespace that is deleted deletes its content, pods first, and goes when nothing is left.

pub mod conditions;

use crate::kinds::{Kind, discover};
use crate::runtime::{Cache, Context, Key, Queue, not_found, watch, work};
use conditions::{Remains, conditions};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::discovery::verbs;
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// What of a namespace this controller finalizes.
const FINALIZER: &str = "kubernetes";

/// When to look again although no object was seen to go: kinds that cannot be watched tell nothing.
const PATIENCE: Duration = Duration::from_secs(15);

/// Empty and finalize namespaces that are deleted, for ever. `vanished` yields the namespace of every
/// object that has gone.
pub async fn run(context: Context, mut vanished: UnboundedReceiver<String>) {
    let queue = Queue::default();
    let namespaces = Cache::default();
    let api = Api::<Namespace>::all(context.client.clone());
    let listen = async {
        while let Some(name) = vanished.recv().await {
            if namespaces
                .get(&Key::new("", &name))
                .is_some_and(|namespace| is_ours(&namespace))
            {
                queue.add(name);
            }
        }
    };
    tokio::join!(
        watch(api, Config::default(), &namespaces, |moved| {
            if moved.after.as_deref().is_some_and(is_ours) {
                queue.add(moved.key().name);
            }
        }),
        listen,
        work(&queue, context.options.concurrent_syncs, |name| empty(
            &context, name
        )),
    );
}

/// Is it deleted and still ours to empty?
fn is_ours(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some() && finalizers(namespace).iter().any(|f| f == FINALIZER)
}

fn finalizers(namespace: &Namespace) -> Vec<String> {
    let spec = namespace.spec.as_ref();
    spec.and_then(|spec| spec.finalizers.clone()).unwrap_or_default()
}

async fn empty(context: &Context, name: String) -> Result<Option<Duration>, kube::Error> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let Some(namespace) = api.get_opt(&name).await?.filter(is_ours) else {
        return Ok(None);
    };
    let remains = delete_content(&context.client, &name).await;
    if remains.is_empty() {
        return finalize(&api, namespace).await.map(|()| None);
    }
    let before = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let before = before.unwrap_or_default();
    let now = Time((context.clock)());
    let after = conditions(&remains, &before, &now);
    if after != before {
        let patch = Patch::Merge(json!({
            "metadata": {"uid": namespace.metadata.uid},
            "status": {"conditions": after},
        }));
        api.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    Ok(Some(PATIENCE))
}

/// Delete what is there and say what is left after that.
async fn delete_content(client: &kube::Client, namespace: &str) -> Remains {
    let kinds = match discover(client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            return Remains {
                discovery_error: Some(error.to_string()),
                ..Remains::default()
            };
        }
    };
    let mut remains = Remains::default();
    let kinds = kinds.into_iter().filter(|kind| kind.namespaced);
    // Pods first, and nothing else before they are gone: they may need the rest to stop in good order.
    let (pods, others): (Vec<_>, Vec<_>) =
        kinds.partition(|kind| kind.resource.group.is_empty() && kind.resource.plural == "pods");
    for kinds in [pods, others] {
        for kind in &kinds {
            if let Err(error) = delete_kind(client, namespace, kind, &mut remains).await {
                remains.errors.push(error.to_string());
            }
        }
        if !remains.is_empty() {
            break;
        }
    }
    remains
}

async fn delete_kind(
    client: &kube::Client,
    namespace: &str,
    kind: &Kind,
    remains: &mut Remains,
) -> Result<(), kube::Error> {
    let api = kind.api(client, Some(namespace));
    let mut left = api.list_metadata(&ListParams::default()).await?.items;
    // What is deleted already is only waited for: deleting again changes nothing.
    let fresh: Vec<_> = left
        .iter()
        .filter(|object| object.metadata.deletion_timestamp.is_none())
        .collect();
    if !fresh.is_empty() {
        if kind.can(verbs::DELETE_COLLECTION) {
            api.delete_collection(&DeleteParams::background(), &ListParams::default())
                .await?;
        } else {
            try_join_all(fresh.into_iter().map(async |object| {
                let exactly = Preconditions {
                    uid: object.metadata.uid.clone(),
                    resource_version: None,
                };
                let params = DeleteParams::background().preconditions(exactly);
                match api.delete(&object.name_any(), &params).await {
                    Err(error) if !not_found(&error) => Err(error),
                    _ => Ok(()),
                }
            }))
            .await?;
        }
        left = api.list_metadata(&ListParams::default()).await?.items;
    }
    if left.is_empty() {
        return Ok(());
    }
    let resource = format!("{}.{}", kind.resource.plural, kind.resource.group);
    remains.objects.insert(resource, left.len());
    for finalizer in left.iter().flat_map(|object| object.finalizers()) {
        *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(())
}

/// Take our finalizer away: the last one gone, the apiserver lets the namespace go.
async fn finalize(api: &Api<Namespace>, mut namespace: Namespace) -> Result<(), kube::Error> {
    let name = namespace.name_any();
    let mut left = finalizers(&namespace);
    left.retain(|finalizer| finalizer != FINALIZER);
    namespace.spec.get_or_insert_default().finalizers = Some(left);
    let params = PostParams::default();
    let replaced: Result<Namespace, _> = api
        .replace_subresource("finalize", &name, &params, &namespace)
        .await;
    match replaced {
        Err(error) if !not_found(&error) => Err(error),
        _ => Ok(()),
    }
}
