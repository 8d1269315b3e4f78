//! Every pod has its name, its place in the order and its claims, and gets them back.

use crate::cluster::{
    CLAIMS, COMES, Cluster, REPLACED, REVISIONS, SET, SETS, claim_template, is_deleted, owners, set, steps,
    text, uid,
};
use e2e::in_process::{Health, KUBELET, PODS};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// E1.
#[tokio::test(start_paused = true)]
async fn pods_come_up_one_after_the_other_each_with_its_name_and_its_claim() {
    let cluster = Cluster::start().await;
    let spec = json!({"replicas": 3, "volumeClaimTemplates": [claim_template("www")]});
    let set = cluster.create_set(spec).await;
    cluster.until_counts([3, 3, 3, 3]).await;
    assert_eq!(cluster.node.take_log(), steps(0..3, &COMES));
    // The kubelet's own time, and nothing that waits for anything else.
    let took = cluster.start.elapsed();
    assert!(took < 3 * KUBELET + Duration::from_millis(30), "took {took:?}");

    let revision = text(&cluster.status("updateRevision").await);
    for (ordinal, pod) in cluster.list(PODS).await.iter().enumerate() {
        let name = format!("web-{ordinal}");
        let expected = json!({
            "app": "web",
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": ordinal.to_string(),
            "controller-revision-hash": revision,
        });
        assert_eq!(pod["metadata"]["labels"], expected);
        assert_eq!(pod["metadata"]["name"], name);
        assert_eq!(pod["metadata"]["generateName"], "web-");
        assert_eq!(owners(pod), ["StatefulSet/web"]);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], uid(&set));
        let spec = &pod["spec"];
        assert_eq!(
            (&spec["hostname"], &spec["subdomain"]),
            (&json!(name), &json!("nginx"))
        );
        let claim = json!({"claimName": format!("www-{name}")});
        let volume = &spec["volumes"][0];
        assert_eq!(
            (&volume["name"], &volume["persistentVolumeClaim"]),
            (&json!("www"), &claim)
        );
    }
    assert_eq!(
        cluster.names(CLAIMS).await,
        ["www-web-0", "www-web-1", "www-web-2"]
    );
    for claim in cluster.list(CLAIMS).await {
        assert_eq!(claim["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(claim["status"]["phase"], "Bound");
    }
}

/// E1, its second half: the same claims, although every pod is another one.
#[tokio::test(start_paused = true)]
async fn pods_that_return_after_a_scale_to_0_have_the_claims_they_had() {
    let cluster =
        Cluster::with(json!({"replicas": 3, "volumeClaimTemplates": [claim_template("www")]})).await;
    let (claims, pods) = (cluster.uids(CLAIMS).await, cluster.uids(PODS).await);
    cluster.scale(0).await;
    cluster.until_counts([0, 0, 0, 0]).await;
    assert_eq!(cluster.uids(CLAIMS).await, claims);
    cluster.scale(3).await;
    cluster.until_counts([3, 3, 3, 3]).await;
    assert_eq!(cluster.uids(CLAIMS).await, claims);
    let returned = cluster.uids(PODS).await;
    assert!(returned.keys().eq(pods.keys()), "{returned:?}");
    assert!(returned.values().zip(pods.values()).all(|(new, old)| new != old));
}

/// R23, R25: what a template says about these does not count.
#[tokio::test(start_paused = true)]
async fn a_pods_name_and_claims_win_over_what_the_template_says() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "hostname": "somebody", "subdomain": "somewhere",
        "volumes": [{"name": "www", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "nginx:1"}],
    }});
    let claims = json!([claim_template("www")]);
    let cluster =
        Cluster::with(json!({"replicas": 1, "template": template, "volumeClaimTemplates": claims})).await;
    let spec = cluster.pod("web-0").await["spec"].clone();
    assert_eq!(
        (&spec["hostname"], &spec["subdomain"]),
        (&json!("web-0"), &json!("nginx"))
    );
    let volumes = spec["volumes"].as_array().expect("volumes");
    let find = |name: &str| {
        volumes
            .iter()
            .filter(|volume| volume["name"] == name)
            .collect::<Vec<_>>()
    };
    assert_eq!(find("www").len(), 1);
    assert_eq!(
        find("www")[0]["persistentVolumeClaim"],
        json!({"claimName": "www-web-0"})
    );
    assert_eq!(find("tmp")[0]["emptyDir"], json!({}));
}

/// R24.
#[tokio::test(start_paused = true)]
async fn a_pod_that_loses_the_label_with_its_name_gets_it_back() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    let before = cluster.uids(PODS).await;
    let label = "statefulset.kubernetes.io/pod-name";
    cluster
        .change_pod("web-1", json!({"metadata": {"labels": {label: "web-0"}}}))
        .await;
    cluster
        .until_pod("web-1", |pod| pod["metadata"]["labels"][label] == "web-1")
        .await;
    assert_eq!(cluster.uids(PODS).await, before);
    let told = cluster.until_told("SuccessfulUpdate").await;
    assert!(
        told.ends_with("Pod web-1 in StatefulSet web successful"),
        "{told}"
    );
}

/// R14: the name that Kubernetes 1.36 gives this very template; defaults and bytes are its own.
#[tokio::test(start_paused = true)]
async fn a_revision_has_the_name_that_kubernetes_gives_it() {
    let containers = json!([{"name": "c", "image": "nginx:1.27"}]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}});
    let cluster = Cluster::with(json!({"template": template})).await;
    assert_eq!(cluster.names(REVISIONS).await, ["web-6578754d74"]);
    cluster.change_image("nginx:2").await;
    cluster.until_rolled_out(1).await;
    assert_eq!(cluster.status("currentRevision").await, "web-77b5b5965d");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_comes_back_as_itself_and_it_is_told() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    let old = uid(&cluster.pod("web-0").await);
    cluster.delete_pod("web-0").await;
    cluster.until_pod("web-0", |pod| uid(pod) != old).await;
    cluster.until_counts([2, 2, 2, 2]).await;
    assert_eq!(cluster.node.take_log(), steps([0], &REPLACED));

    let create = |n: i32| format!("Create Pod web-{n} in StatefulSet web successful");
    assert_eq!(cluster.told().await, [(create(0), 2), (create(1), 1)]);
}

/// R29a: even a pod that ended well has to run again.
#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_well_or_badly_runs_again() {
    for policy in ["OrderedReady", "Parallel"] {
        for health in [Health::Failed, Health::Succeeded] {
            let cluster = Cluster::with(json!({"replicas": 3, "podManagementPolicy": policy})).await;
            let before = cluster.uids(PODS).await;
            let ended = before["web-1"].clone();
            cluster.node.judge(move |pod| {
                if pod.uid().as_ref() == Some(&ended) {
                    health
                } else {
                    Health::Ready
                }
            });
            cluster
                .until_pod("web-1", |pod| uid(pod) != before["web-1"])
                .await;
            cluster.until_counts([3, 3, 3, 3]).await;
            let after = cluster.uids(PODS).await;
            for name in ["web-0", "web-2"] {
                assert_eq!(
                    after[name], before[name],
                    "{policy} {health:?}: {name} has no part in it"
                );
            }
            assert_eq!(
                cluster.node.take_log(),
                steps([1], &REPLACED),
                "{policy} {health:?}"
            );
        }
    }
}

/// R29a, and a finalizer on the pod.
#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_is_replaced_only_once_it_is_really_gone() {
    for policy in ["OrderedReady", "Parallel"] {
        let cluster = Cluster::with(json!({"replicas": 2, "podManagementPolicy": policy})).await;
        let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
        cluster.change_pod("web-0", held).await;
        cluster.node.only("web-0", Health::Failed);
        let ended = cluster.until_pod("web-0", is_deleted).await;
        cluster.node.only("web-0", Health::Ready);
        cluster.rest().await;
        let still = cluster.pod("web-0").await;
        assert_eq!(
            (uid(&still), text(&still["status"]["phase"])),
            (uid(&ended), "Failed".into())
        );
        let counts = cluster.set().await["status"].clone();
        assert_eq!(
            (&counts["replicas"], &counts["readyReplicas"]),
            (&json!(2), &json!(1))
        );
        cluster
            .change_pod("web-0", json!({"metadata": {"finalizers": null}}))
            .await;
        cluster.until_counts([2, 2, 2, 2]).await;
        assert_ne!(uid(&cluster.pod("web-0").await), uid(&ended), "{policy}");
    }
}

/// R29d.
#[tokio::test(start_paused = true)]
async fn an_ordered_set_waits_for_a_pod_that_is_on_its_way_out() {
    let cluster = Cluster::with(json!({"replicas": 2})).await;
    cluster.node.let_go(false);
    cluster.delete_pod("web-0").await;
    cluster.scale(3).await;
    cluster.rest().await;
    assert_eq!(cluster.node.take_log(), ["web-0 deleting"]);
    cluster.node.let_go(true);
    cluster.until_counts([3, 3, 3, 3]).await;
    let expected = [steps([0], &["gone", "created", "ready"]), steps([2], &COMES)];
    assert_eq!(cluster.node.take_log(), expected.concat());
}

/// E20, R3: nothing happens at that moment but that it comes.
#[tokio::test(start_paused = true)]
async fn a_pod_becomes_available_by_time_alone() {
    let cluster = Cluster::start().await;
    cluster
        .create_set(json!({"replicas": 1, "minReadySeconds": 600}))
        .await;
    cluster.until_counts([1, 1, 0, 1]).await;
    let ready = Instant::now();
    sleep(Duration::from_secs(595)).await;
    assert_eq!(cluster.status("availableReplicas").await, 0);
    cluster.until_counts([1, 1, 1, 1]).await;
    let took = ready.elapsed();
    assert!(took < Duration::from_secs(602), "took {took:?}");
}

/// R29d with `minReadySeconds`.
#[tokio::test(start_paused = true)]
async fn a_pod_is_followed_only_after_min_ready_seconds() {
    let cluster = Cluster::start().await;
    cluster
        .create_set(json!({"replicas": 2, "minReadySeconds": 10}))
        .await;
    cluster.until_counts([1, 1, 0, 1]).await;
    assert_eq!(cluster.node.take_log(), steps([0], &COMES));
    cluster.until_counts([2, 2, 2, 2]).await;
    let took = cluster.start.elapsed();
    assert!(
        (Duration::from_secs(20)..Duration::from_secs(23)).contains(&took),
        "took {took:?}"
    );
}

/// I4.
#[tokio::test(start_paused = true)]
async fn available_pods_are_those_that_were_ready_for_min_ready_seconds() {
    let cluster = Cluster::start().await;
    let judge = |is_late: bool| {
        move |pod: &k8s_openapi::api::core::v1::Pod| match pod.name_any().as_str() {
            "web-0" | "web-1" => Health::Ready,
            "web-2" if is_late => Health::Ready,
            _ => Health::Unready,
        }
    };
    cluster.node.judge(judge(false));
    let spec = json!({"replicas": 4, "minReadySeconds": 3600, "podManagementPolicy": "Parallel"});
    cluster.create_set(spec).await;
    cluster.until_counts([4, 2, 0, 4]).await;
    sleep(Duration::from_secs(2 * 3600)).await;
    cluster.until_counts([4, 2, 2, 4]).await;
    cluster.node.judge(judge(true));
    cluster.until_counts([4, 3, 2, 4]).await;
}

/// Section 5.3's compatibility test: who looks anew at what is as it should be changes nothing.
#[tokio::test(start_paused = true)]
async fn controllers_that_start_anew_write_nothing_about_a_set_at_rest() {
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let mut cluster = Cluster::with(json!({
        "replicas": 3,
        "volumeClaimTemplates": [claim_template("www")],
        "persistentVolumeClaimRetentionPolicy": policy,
    }))
    .await;
    cluster.change_image("nginx:2").await;
    cluster.until_rolled_out(3).await;
    cluster.rest().await;
    let before = everything(&cluster).await;
    cluster.restart_controllers("*").await;
    cluster.rest().await;
    for (after, before) in everything(&cluster).await.iter().zip(&before) {
        assert_eq!(after, before);
    }
}

/// Everything about the set, resource versions included.
async fn everything(cluster: &Cluster) -> Vec<Value> {
    let mut objects = vec![];
    for collection in [SETS, PODS, CLAIMS, REVISIONS] {
        objects.extend(cluster.list(collection).await);
    }
    objects
}

/// I1.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_sent_again_as_it_was_written_is_not_changed() {
    let cluster = Cluster::start().await;
    let mut template = claim_template("www");
    template["apiVersion"] = "v1".into();
    template["kind"] = "PersistentVolumeClaim".into();
    let spec = json!({"replicas": 1, "volumeClaimTemplates": [template]});
    cluster.create_set(spec.clone()).await;
    let before = cluster.until_counts([1, 1, 1, 1]).await;
    let after = cluster.put(SET, set(spec)).await;
    assert_eq!(after["metadata"]["generation"], 1);
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["status"], before["status"]);
}
