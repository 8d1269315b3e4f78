//! What every namespace is born with: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`,
//! which says by what certificate pods may trust the API. Both come back when they are removed.

use crate::runtime::{Cache, Context, Key, Queue, already_exists, watch, work};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such \
     as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions \
     of Kubernetes clusters.",
);

/// Keep both in every namespace, for ever.
pub async fn run(context: Context) {
    let queue = Queue::default();
    let client = &context.client;
    let (namespaces, accounts, configs) = (Cache::default(), Cache::default(), Cache::default());
    let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
    tokio::join!(
        watch(
            Api::<Namespace>::all(client.clone()),
            Config::default(),
            &namespaces,
            |moved| {
                queue.add(moved.key().name);
            }
        ),
        watch(
            Api::<ServiceAccount>::all(client.clone()),
            named(ACCOUNT),
            &accounts,
            |moved| {
                queue.add(moved.key().namespace);
            }
        ),
        watch(
            Api::<ConfigMap>::all(client.clone()),
            named(ROOT_CA),
            &configs,
            |moved| {
                queue.add(moved.key().namespace);
            }
        ),
        work(&queue, context.options.concurrent_syncs, |name| furnish(
            &context, name
        )),
    );
}

async fn furnish(context: &Context, namespace: String) -> Result<Option<Duration>, kube::Error> {
    let client = &context.client;
    let found = Api::<Namespace>::all(client.clone()).get_opt(&namespace).await?;
    if found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()) {
        return Ok(None);
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    if accounts.get_opt(ACCOUNT).await?.is_none() {
        let account = ServiceAccount {
            metadata: named(Key::new(&namespace, ACCOUNT)),
            ..ServiceAccount::default()
        };
        tolerate_existing(accounts.create(&PostParams::default(), &account).await)?;
    }
    let Some(certificate) = &context.options.root_ca else {
        return Ok(None);
    };
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    match configs.get_opt(ROOT_CA).await? {
        None => {
            let mut config = ConfigMap {
                metadata: named(Key::new(&namespace, ROOT_CA)),
                data: Some([(ROOT_CA_KEY.into(), certificate.clone())].into()),
                ..ConfigMap::default()
            };
            config
                .annotations_mut()
                .insert(DESCRIPTION.0.into(), DESCRIPTION.1.into());
            tolerate_existing(configs.create(&PostParams::default(), &config).await)?;
        }
        Some(config) if !is_right(&config, certificate) => {
            let patch = json!({
                "metadata": {"annotations": {DESCRIPTION.0: DESCRIPTION.1}},
                "data": {ROOT_CA_KEY: certificate},
            });
            let patch = Patch::Merge(patch);
            configs.patch(ROOT_CA, &PatchParams::default(), &patch).await?;
        }
        Some(_) => {}
    }
    Ok(None)
}

fn is_right(config: &ConfigMap, certificate: &str) -> bool {
    let data = config.data.as_ref().and_then(|data| data.get(ROOT_CA_KEY));
    data.is_some_and(|data| data == certificate)
        && config.annotations().get(DESCRIPTION.0).map(String::as_str) == Some(DESCRIPTION.1)
}

fn named(key: Key) -> ObjectMeta {
    ObjectMeta {
        name: Some(key.name),
        namespace: Some(key.namespace),
        ..ObjectMeta::default()
    }
}

/// Somebody made it in the meantime: what was wanted is there.
fn tolerate_existing<T>(created: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match created {
        Err(error) if !already_exists(&error) => Err(error),
        _ => Ok(()),
    }
}
