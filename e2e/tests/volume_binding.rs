//! Claims get volumes: those an administrator made, and directories made for them.

use e2e::in_process::InProcess;
use serde_json::{Value, json};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn claim(name: &str, class: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": class,
    }})
}

fn volume(name: &str, size: &str, path: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "hostPath": {"path": path},
        "persistentVolumeReclaimPolicy": "Retain",
    }})
}

fn class(change: Value) -> Value {
    let mut class = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk"});
    let fields = change.as_object().expect("an object").clone();
    class.as_object_mut().expect("an object").extend(fields);
    class
}

fn pod(claim: &str) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "nginx"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
    }})
}

fn is_bound(object: &Value) -> bool {
    object["status"]["phase"] == "Bound"
}

fn of(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_smallest_volume_that_fits_and_releases_it_for_good() {
    let cluster = InProcess::start().await;
    cluster.create(VOLUMES, volume("big", "9Gi", "/data/big")).await;
    cluster.create(VOLUMES, volume("fits", "5Gi", "/data/fits")).await;
    for name in ["big", "fits"] {
        cluster
            .until(&of(VOLUMES, name), |volume| {
                volume["status"]["phase"] == "Available"
            })
            .await;
    }
    cluster.create(CLAIMS, claim("c", "")).await;
    let bound = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], "fits");
    assert_eq!(bound["status"]["capacity"]["storage"], "5Gi");
    let annotations =
        json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    assert_eq!(bound["metadata"]["annotations"], annotations);
    let volume = cluster.until(&of(VOLUMES, "fits"), is_bound).await;
    assert_eq!(volume["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
    cluster.delete(&of(CLAIMS, "c"), Value::Null).await;
    cluster.until_gone(&of(CLAIMS, "c")).await;
    cluster
        .until(&of(VOLUMES, "fits"), |volume| {
            volume["status"]["phase"] == "Released"
        })
        .await;
    // The same name is not the same claim.
    cluster.create(CLAIMS, claim("c", "")).await;
    let again = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    assert_eq!(again["spec"]["volumeName"], "big");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_came_first_is_bound_when_its_volume_comes() {
    let cluster = InProcess::start().await;
    cluster.create(CLAIMS, claim("c", "")).await;
    let told = cluster.until_told("FailedBinding").await;
    assert_eq!(
        told,
        "no persistent volumes available for this claim and no storage class is set"
    );
    cluster.create(VOLUMES, volume("late", "1Gi", "/data/late")).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_makes_a_directory_and_its_policy_removes_it() {
    let cluster = InProcess::start().await;
    cluster.create(CLAIMS, claim("www-web-0", "fast")).await;
    let told = cluster.until_told("ProvisioningFailed").await;
    assert_eq!(told, "storageclass.storage.k8s.io \"fast\" not found");
    cluster.create(CLASSES, class(json!({}))).await;
    let bound = cluster.until(&of(CLAIMS, "www-web-0"), is_bound).await;
    let name = bound["spec"]["volumeName"].as_str().expect("a name").to_owned();
    let uid = bound["metadata"]["uid"].as_str().expect("a UID");
    assert_eq!(name, format!("pvc-{uid}"));
    let directory = cluster.volumes().join(format!("default_www-web-0_{}", &uid[..8]));
    let volume = cluster.until(&of(VOLUMES, &name), is_bound).await;
    assert_eq!(
        volume["spec"]["hostPath"]["path"],
        directory.to_str().expect("UTF-8")
    );
    assert_eq!(
        volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"],
        "example.com/disk"
    );
    std::fs::write(directory.join("index.html"), "hello").expect("the directory is there");
    cluster.until_told("ProvisioningSucceeded").await;
    cluster.delete(&of(CLAIMS, "www-web-0"), Value::Null).await;
    cluster.until_gone(&of(VOLUMES, &name)).await;
    assert!(!directory.exists());
    assert!(cluster.volumes().exists());
}

#[tokio::test(start_paused = true)]
async fn a_volume_outside_our_directory_fails_rather_than_loses_data() {
    let cluster = InProcess::start().await;
    let precious = cluster.elsewhere().join("precious");
    std::fs::create_dir(&precious).expect("a directory");
    let mut volume = volume("v", "1Gi", precious.to_str().expect("UTF-8"));
    volume["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    cluster.create(VOLUMES, volume).await;
    cluster.create(CLAIMS, claim("c", "")).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
    cluster.delete(&of(CLAIMS, "c"), Value::Null).await;
    cluster
        .until(&of(VOLUMES, "v"), |volume| volume["status"]["phase"] == "Failed")
        .await;
    cluster.until_told("VolumeFailedDelete").await;
    assert!(precious.exists());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_for_its_first_consumer_is_bound_when_a_pod_uses_it() {
    let cluster = InProcess::start().await;
    cluster
        .create(
            CLASSES,
            class(json!({"volumeBindingMode": "WaitForFirstConsumer"})),
        )
        .await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    let told = cluster.until_told("WaitForFirstConsumer").await;
    assert_eq!(told, "waiting for first consumer to be created before binding");
    cluster.create(PODS, pod("c")).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_grows_by_being_asked_to() {
    let cluster = InProcess::start().await;
    cluster
        .create(CLASSES, class(json!({"allowVolumeExpansion": true})))
        .await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    let bound = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    let grow = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    cluster.merge(&of(CLAIMS, "c"), grow).await;
    cluster
        .until(&of(CLAIMS, "c"), |claim| {
            claim["status"]["capacity"]["storage"] == "3Gi"
        })
        .await;
    let volume = cluster
        .get(&of(
            VOLUMES,
            bound["spec"]["volumeName"].as_str().expect("a name"),
        ))
        .await;
    assert_eq!(volume.expect("the volume")["spec"]["capacity"]["storage"], "3Gi");
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_pod_keeps_its_claim_and_a_pending_one_does_not() {
    let cluster = InProcess::start().await;
    cluster.create(VOLUMES, volume("v", "1Gi", "/data/v")).await;
    cluster.create(CLAIMS, claim("c", "")).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
    let mut scheduled = pod("c");
    scheduled["spec"]["nodeName"] = "node".into();
    cluster.create(PODS, scheduled).await;
    cluster.delete(&of(CLAIMS, "c"), Value::Null).await;
    // Something else that the same controller does shows that it has had its turn.
    cluster.create(CLAIMS, claim("other", "")).await;
    cluster.until_told("FailedBinding").await;
    let kept = cluster.get(&of(CLAIMS, "c")).await.expect("kept while in use");
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    cluster
        .delete(&of(PODS, "p"), json!({"gracePeriodSeconds": 0}))
        .await;
    cluster.until_gone(&of(CLAIMS, "c")).await;
    // A pod that is not scheduled keeps nothing.
    cluster.create(PODS, pod("other")).await;
    cluster.delete(&of(CLAIMS, "other"), Value::Null).await;
    cluster.until_gone(&of(CLAIMS, "other")).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_when_its_claim_is_and_says_what_it_waits_for() {
    let cluster = InProcess::start().await;
    cluster
        .create("/api/v1/nodes", json!({"metadata": {"name": "node"}}))
        .await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.merge("/api/v1/nodes/node/status", ready).await;
    cluster.create(PODS, pod("c")).await;
    let told = cluster.until_told("FailedScheduling").await;
    assert!(
        told.starts_with("0/1 nodes are available: persistentvolumeclaim \"c\" not found."),
        "{told}"
    );
    let waiting = cluster.get(&of(PODS, "p")).await.expect("the pod");
    let conditions = waiting["status"]["conditions"].as_array().expect("conditions");
    let scheduled = conditions
        .iter()
        .find(|c| c["type"] == "PodScheduled")
        .expect("the condition");
    assert_eq!(scheduled["reason"], "Unschedulable");
    cluster.create(VOLUMES, volume("v", "1Gi", "/data/v")).await;
    cluster.create(CLAIMS, claim("c", "")).await;
    cluster
        .until(&of(PODS, "p"), |pod| pod["spec"]["nodeName"] == "node")
        .await;
    assert_eq!(
        cluster.until_told("Scheduled").await,
        "Successfully assigned default/p to node"
    );
}
