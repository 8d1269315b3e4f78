//! Objects of every kind, pages, patches, metadata alone, discovery, deletion.

use super::{IDLE, client, config_map, from, pods_may_be_made, soon, stateful_set};
use e2e::binary::Cluster;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, VersionMatch};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::wait::{await_condition, conditions, delete::delete_and_finalize};
use kube::{Api, Error};
use serde_json::json;
use std::collections::BTreeSet;

/// What a kind needs beside its name.
fn smallest(group: &str, kind: &str) -> serde_json::Value {
    let labels = json!({"app": "a"});
    let pod = json!({"containers": [{"name": "c", "image": "shell", "command": ["sleep", "60"]}]});
    match kind {
        "Event" if group == "events.k8s.io" => json!({
            "regarding": {"kind": "Pod", "namespace": "default", "name": "a"}, "type": "Normal", "reason": "Test",
            "action": "Test", "eventTime": "2026-01-02T03:04:05.678901Z", "reportingController": "example.com/a",
            "reportingInstance": "a",
        }),
        "Pod" => json!({"spec": pod}),
        "PodTemplate" => json!({"template": {"metadata": {"labels": labels}, "spec": pod}}),
        "Service" => json!({"spec": {"clusterIP": "None", "selector": labels}}),
        "StatefulSet" => json!({"spec": {
            "replicas": 0, "serviceName": "a", "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }}),
        "ControllerRevision" => json!({"revision": 1, "data": {"a": 1}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "PersistentVolumeClaim" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}},
        }}),
        "PersistentVolume" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "hostPath": {"path": "/nowhere"},
        }}),
        "RoleBinding" | "ClusterRoleBinding" => json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        }),
        "StorageClass" => json!({"provisioner": "example.com/none"}),
        "Event" => {
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"}, "reason": "Test"})
        }
        _ => json!({}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_that_is_discovered_can_be_created_read_listed_patched_and_deleted() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    pods_may_be_made(&client).await;
    let discovery = Discovery::new(client.clone()).run().await.expect("discovery");
    let aggregated = Discovery::new(client.clone()).run_aggregated().await;
    let aggregated = aggregated.expect("aggregated discovery");
    let kinds = |discovery: &Discovery| -> BTreeSet<String> {
        let groups = discovery.groups();
        let resources = groups.flat_map(kube::discovery::ApiGroup::recommended_resources);
        resources
            .map(|(resource, _)| format!("{}.{}", resource.plural, resource.api_version))
            .collect()
    };
    assert_eq!(kinds(&discovery), kinds(&aggregated));

    let mut seen = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST)
                || !capabilities.supports_operation(verbs::CREATE)
            {
                continue;
            }
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(client.clone(), &resource),
                Scope::Namespaced => Api::default_namespaced_with(client.clone(), &resource),
            };
            let name = format!("any-{}", resource.kind.to_lowercase());
            let mut object: DynamicObject = DynamicObject::new(&name, &resource);
            object.data = smallest(&resource.group, &resource.kind);
            let made = api.create(&PostParams::default(), &object).await;
            let made = made.unwrap_or_else(|error| panic!("{resource:?}: {error}"));
            let patch = json!({"metadata": {"labels": {"patched": "yes"}}});
            let patched = api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            assert_eq!(
                patched.expect("it can be patched").metadata.uid,
                made.metadata.uid
            );
            let listed = api
                .list(&ListParams::default().labels("patched=yes"))
                .await
                .expect("a list");
            assert_eq!(listed.items.len(), 1, "{resource:?}");
            let uid = made.metadata.uid.expect("it has one");
            api.delete(&name, &DeleteParams::default().grace_period(0))
                .await
                .expect("it can be deleted");
            soon(&name, await_condition(api, &name, conditions::is_deleted(&uid)))
                .await
                .expect("a watch");
            seen.push(resource.kind);
        }
    }
    assert!(seen.len() >= 17, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_one_list_and_versions_choose_it() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut versions = Vec::new();
    for number in 10..17 {
        let made = maps
            .create(
                &PostParams::default(),
                &config_map(&format!("page-{number}"), "1"),
            )
            .await;
        versions.push(
            made.expect("it is new")
                .metadata
                .resource_version
                .expect("it has one"),
        );
    }
    let select = ListParams::default().labels("of=test").limit(3);
    let mut page = maps.list(&select).await.expect("a page");
    let mut names = Vec::new();
    maps.delete("page-16", &DeleteParams::default())
        .await
        .expect("it was there");
    loop {
        names.extend(page.items.into_iter().filter_map(|item| item.metadata.name));
        let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else {
            break;
        };
        page = maps
            .list(&select.clone().continue_token(&token))
            .await
            .expect("a page");
    }
    let expected: Vec<String> = (10..17).map(|number| format!("page-{number}")).collect();
    assert_eq!(names, expected);

    let early = ListParams::default()
        .labels("of=test")
        .at(&versions[1])
        .matching(VersionMatch::Exact);
    let early = maps.list(&early).await.expect("the past is kept");
    assert_eq!(early.metadata.resource_version.as_ref(), Some(&versions[1]));
    assert_eq!(early.items.len(), 2);
    let since = ListParams::default()
        .labels("of=test")
        .at(&versions[1])
        .matching(VersionMatch::NotOlderThan);
    assert_eq!(maps.list(&since).await.expect("a list").items.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_thousands_arrives_whole_and_compressed() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let text = "petset ".repeat(20_000);
    for number in 0..5 {
        let made = maps
            .create(
                &PostParams::default(),
                &config_map(&format!("big-{number}"), &text),
            )
            .await;
        made.expect("it is new");
    }
    let listed = maps
        .list(&ListParams::default().labels("of=test"))
        .await
        .expect("a list");
    assert_eq!(listed.items.len(), 5);
    assert!(
        listed
            .items
            .iter()
            .all(|item| item.data.as_ref().is_some_and(|data| data["k"] == text))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_and_server_side_apply_change_what_they_name() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let applied = |value: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": value},
        })
    };
    let one = PatchParams::apply("one");
    let first = maps
        .patch("applied", &one, &Patch::Apply(applied("1")))
        .await
        .expect("it is made");
    let same = maps
        .patch("applied", &one, &Patch::Apply(applied("1")))
        .await
        .expect("nothing changes");
    assert_eq!(same.metadata.resource_version, first.metadata.resource_version);
    let two = PatchParams::apply("two");
    let conflict = maps.patch("applied", &two, &Patch::Apply(applied("2"))).await;
    match conflict {
        Err(Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
            assert!(status.message.contains(r#"conflict with "one""#), "{status:?}");
        }
        other => panic!("{other:?}"),
    }
    let forced = maps
        .patch("applied", &two.force(), &Patch::Apply(applied("2")))
        .await;
    let managers = forced
        .expect("by force")
        .metadata
        .managed_fields
        .expect("there are some");
    assert!(
        managers
            .iter()
            .any(|entry| entry.manager.as_deref() == Some("two")),
        "{managers:?}"
    );

    let sets: Api<StatefulSet> = Api::default_namespaced(client);
    sets.create(&PostParams::default(), &stateful_set("web", IDLE, 0))
        .await
        .expect("it is new");
    let sidecar = json!({"name": "sidecar", "image": "shell", "command": ["sleep", "60"]});
    let patch = json!({"spec": {"template": {"spec": {"containers": [sidecar]}}}});
    let patched = sets
        .patch("web", &PatchParams::default(), &Patch::Strategic(&patch))
        .await
        .expect("merged");
    let containers = |set: StatefulSet| {
        let spec = set.spec.and_then(|spec| spec.template.spec);
        spec.map_or(0, |spec| spec.containers.len())
    };
    assert_eq!(containers(patched), 2);
    let patched = sets
        .patch("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("replaced");
    assert_eq!(containers(patched), 1);
    let operation = json!([{"op": "add", "path": "/spec/replicas", "value": 1}]);
    let patch: Patch<()> = Patch::Json(from(operation));
    let scale = sets
        .patch_scale("web", &PatchParams::default(), &patch)
        .await
        .expect("it is scaled");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(1));
    let status = sets
        .get_status("web")
        .await
        .expect("it has one")
        .status
        .expect("it has one");
    assert!(status.replicas <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_can_be_had_without_the_rest() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let made = maps
        .create(&PostParams::default(), &config_map("m", "1"))
        .await
        .expect("it is new");
    let read = maps.get_metadata("m").await.expect("it is there");
    assert_eq!(read.metadata, made.metadata);
    assert_eq!(
        read.types.as_ref().map(|types| types.kind.as_str()),
        Some("PartialObjectMetadata")
    );
    let listed = maps
        .list_metadata(&ListParams::default().labels("of=test"))
        .await
        .expect("a list");
    assert_eq!(listed.items.len(), 1);
    let patch = json!({"metadata": {"annotations": {"a": "b"}}});
    let patched = maps
        .patch_metadata("m", &PatchParams::default(), &Patch::Merge(patch))
        .await;
    let annotations = patched
        .expect("it is patched")
        .metadata
        .annotations
        .expect("it has one");
    assert_eq!(annotations["a"], "b");

    let kind = GroupVersionKind::gvk("", "v1", "ConfigMap");
    let dynamic: Api<DynamicObject> = Api::default_namespaced_with(client, &ApiResource::from_gvk(&kind));
    assert_eq!(
        dynamic.get("m").await.expect("it is there").data["data"]["k"],
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_waits_for_what_it_has_to() {
    let cluster = Cluster::up();
    let client = client(&cluster).await;
    let sets: Api<StatefulSet> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    sets.create(&PostParams::default(), &stateful_set("web", IDLE, 1))
        .await
        .expect("it is new");
    soon(
        "it runs",
        await_condition(pods.clone(), "web-0", conditions::is_pod_running()),
    )
    .await
    .expect("a watch");
    soon(
        "the set goes",
        delete_and_finalize(sets, "web", &DeleteParams::foreground()),
    )
    .await
    .expect("it goes");
    assert_eq!(
        pods.get_opt("web-0").await.expect("an answer"),
        None,
        "its pod went before it"
    );
    let missing = pods.delete("web-0", &DeleteParams::default()).await;
    assert!(matches!(missing, Err(Error::Api(status)) if status.is_not_found()));
}
