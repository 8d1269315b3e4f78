//! petset is restarted under watchers and stores.

use super::{IDLE, client, config_map, soon, stateful_set, until};
use e2e::binary::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Debug;
use tokio::task::JoinSet;

fn restart(cluster: &mut Cluster, kill: bool) {
    let address = cluster.address("api");
    if kill {
        cluster.kill();
    } else {
        assert!(cluster.terminate().success(), "{}", cluster.said());
    }
    cluster.start(&["--api", address.trim_start_matches("https://")]);
}

/// What a watch says, as type and name, until there is nothing to say for a second.
async fn events(maps: &Api<ConfigMap>, since: &str) -> Vec<String> {
    let parameters = WatchParams::default().labels("of=test").timeout(1);
    let stream = maps.watch(&parameters, since).await.expect("a watch");
    let words = |event| match event {
        WatchEvent::Added(object) => format!("added {}", ResourceExt::name_any(&object)),
        WatchEvent::Modified(object) => format!("modified {}", ResourceExt::name_any(&object)),
        WatchEvent::Deleted(object) => format!("deleted {}", ResourceExt::name_any(&object)),
        other => format!("{other:?}"),
    };
    soon("the end", stream.map_ok(words).try_collect())
        .await
        .expect("no error")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_after_a_restart_gets_exactly_the_events_in_between() {
    let mut cluster = Cluster::up();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    for kill in [false, true] {
        let listed = maps.list(&ListParams::default()).await.expect("a list");
        let since = listed.metadata.resource_version.expect("it has one");
        let first = maps
            .create(&PostParams::default(), &config_map("a", "1"))
            .await
            .expect("it is new");
        let watching = maps
            .watch(&WatchParams::default().labels("of=test"), &since)
            .await
            .expect("a watch");
        let mut watching = watching.boxed();
        soon("the first event", watching.try_next())
            .await
            .expect("no error");
        restart(&mut cluster, kill);
        let end = soon("its end", watching.try_next()).await;
        assert!(
            if kill {
                !matches!(end, Ok(Some(_)))
            } else {
                matches!(end, Ok(None))
            },
            "{end:?}"
        );

        let patch = Patch::Merge(json!({"data": {"k": "2"}}));
        maps.patch("a", &PatchParams::default(), &patch)
            .await
            .expect("it is patched");
        maps.delete("a", &DeleteParams::default())
            .await
            .expect("it is deleted");
        assert_eq!(
            events(&maps, &since).await,
            ["added a", "modified a", "deleted a"]
        );
        let between = first.metadata.resource_version.expect("it has one");
        assert_eq!(events(&maps, &between).await, ["modified a", "deleted a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_continued_after_a_restart() {
    let mut cluster = Cluster::up();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name, "1"))
            .await
            .expect("it is new");
    }
    let select = ListParams::default().labels("of=test").limit(2);
    let first = maps.list(&select).await.expect("a page");
    restart(&mut cluster, true);
    maps.delete("c", &DeleteParams::default())
        .await
        .expect("it was there");
    let token = first.metadata.continue_.expect("there is more");
    let second = maps.list(&select.continue_token(&token)).await.expect("a page");
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(
        second.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["c"]
    );
}

/// A store that follows a kind for as long as the tasks are kept.
fn store<K>(tasks: &mut JoinSet<()>, api: Api<K>, config: watcher::Config) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(api, config).default_backoff().reflect(writer);
    // Errors are the restarts; the watcher begins again by itself.
    tasks.spawn(stream.for_each(|_| std::future::ready(())));
    reader
}

/// The versions of what a store has.
fn versions<K: ResourceExt + 'static>(objects: impl IntoIterator<Item = K>) -> BTreeMap<String, String> {
    let version = |object: K| {
        (
            object.uid().unwrap_or_default(),
            object.resource_version().unwrap_or_default(),
        )
    };
    objects.into_iter().map(version).collect()
}

fn cached<K>(store: &Store<K>) -> BTreeMap<String, String>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    versions(store.state().iter().map(|object| K::clone(object)))
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_of_a_set_that_is_scaled_meanwhile_know_what_there_is() {
    let mut cluster = Cluster::up();
    let client = client(&cluster).await;
    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut tasks = JoinSet::new();
    let streaming = watcher::Config::default().streaming_lists();
    let paged = watcher::Config::default().page_size(1);
    let set_stores = [&streaming, &paged].map(|config| store(&mut tasks, sets.clone(), config.clone()));
    let pod_stores = [&streaming, &paged].map(|config| store(&mut tasks, pods.clone(), config.clone()));
    sets.create(&PostParams::default(), &stateful_set("web", IDLE, 2))
        .await
        .expect("it is new");
    for (kill, replicas) in [(false, 3), (true, 1), (false, 2)] {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        sets.patch_scale("web", &PatchParams::default(), &patch)
            .await
            .expect("it is scaled");
        restart(&mut cluster, kill);
    }
    until("two pods are available", || async {
        let set = sets.get("web").await.map_err(|error| error.to_string())?;
        let status = set.status.clone().unwrap_or_default();
        let settled = status.observed_generation == set.metadata.generation
            && (status.replicas, status.available_replicas) == (2, Some(2));
        settled.then_some(()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
    until("the stores are what the API has", || async {
        let list = ListParams::default();
        let sets = versions(sets.list(&list).await.map_err(|error| error.to_string())?);
        let pods = versions(pods.list(&list).await.map_err(|error| error.to_string())?);
        let same = set_stores.iter().all(|store| cached(store) == sets)
            && pod_stores.iter().all(|store| cached(store) == pods);
        let stores: Vec<_> = pod_stores.iter().map(cached).collect();
        same.then_some(())
            .ok_or_else(|| format!("{pods:?} and {stores:?}"))
    })
    .await;
}
