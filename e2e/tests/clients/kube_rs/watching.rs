//! `watcher` and reflector stores, by lists and by streaming lists.

use super::{client, config_map, soon};
use e2e::binary::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

/// The next event, in words.
async fn next<K: ResourceExt>(
    stream: &mut (impl futures::Stream<Item = kube::runtime::watcher::Result<Event<K>>> + Unpin),
) -> String {
    let event = soon("an event", stream.try_next())
        .await
        .expect("no error")
        .expect("it goes on");
    match event {
        Event::Init => "init".into(),
        Event::InitApply(object) => format!("init {}", object.name_any()),
        Event::InitDone => "done".into(),
        Event::Apply(object) => format!("apply {}", object.name_any()),
        Event::Delete(object) => format!("delete {}", object.name_any()),
    }
}

async fn is_told_everything(config: Config) {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for number in 1..=3 {
        let made = maps
            .create(&PostParams::default(), &config_map(&format!("old-{number}"), "1"))
            .await;
        made.expect("it is new");
    }
    let mut objects = watcher(maps.clone(), config.clone().labels("of=test")).boxed();
    let of_metadata: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client);
    let mut metadata = watcher(of_metadata, config.labels("of=test")).boxed();
    let before = ["init", "init old-1", "init old-2", "init old-3", "done"];
    for expected in before {
        assert_eq!(next(&mut objects).await, expected);
        assert_eq!(next(&mut metadata).await, expected);
    }
    maps.create(&PostParams::default(), &config_map("new", "1"))
        .await
        .expect("it is new");
    let patch = json!({"data": {"k": "2"}});
    maps.patch("new", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("it is patched");
    let leave = json!({"metadata": {"labels": {"of": null}}});
    maps.patch("old-1", &PatchParams::default(), &Patch::Merge(&leave))
        .await
        .expect("it is patched");
    maps.delete("new", &DeleteParams::default())
        .await
        .expect("it is deleted");
    for expected in ["apply new", "apply new", "delete old-1", "delete new"] {
        assert_eq!(next(&mut objects).await, expected);
        assert_eq!(next(&mut metadata).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_lists_in_pages_is_told_everything() {
    is_told_everything(Config::default().page_size(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_with_streaming_lists_is_told_everything() {
    is_told_everything(Config::default().streaming_lists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_timeout_after_a_bookmark_of_the_initial_events() {
    let cluster = Cluster::up();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .expect("it is new");
    let parameters = WatchParams::streaming_lists().labels("of=test").timeout(1);
    let events: Vec<WatchEvent<ConfigMap>> = {
        let stream = maps.watch(&parameters, "0").await.expect("a watch");
        soon("the end", stream.try_collect()).await.expect("no error")
    };
    match events.as_slice() {
        [WatchEvent::Added(object), WatchEvent::Bookmark(bookmark)] => {
            assert_eq!(object.name_any(), "a");
            assert_eq!(bookmark.metadata.annotations["k8s.io/initial-events-end"], "true");
            assert!(!bookmark.metadata.resource_version.is_empty());
        }
        other => panic!("{other:?}"),
    }
}
