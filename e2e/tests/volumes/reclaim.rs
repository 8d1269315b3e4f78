//! What becomes of a volume after its claim, how its data is attached again, and how a claim grows.

use axum::http::Method;
use e2e::in_process::InProcess;
use e2e::storage::{CLAIMS, CLASSES, VOLUMES, claim, class, is, is_bound, of, with_spec};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A bound claim of a class, its volume's name and directory.
async fn provisioned(cluster: &InProcess, fields: Value) -> (String, PathBuf) {
    cluster.create(CLASSES, class(fields)).await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    let bound = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    let name = bound["spec"]["volumeName"].as_str().expect("a name").to_owned();
    let volume = cluster.until(&of(VOLUMES, &name), is_bound).await;
    let path = volume["spec"]["hostPath"]["path"].as_str().expect("a path");
    (name, path.into())
}

/// A volume that was kept when its claim was deleted, with a file in it, its name and directory.
async fn retained(cluster: &InProcess) -> (String, PathBuf) {
    let (name, directory) = provisioned(cluster, json!({"reclaimPolicy": "Retain"})).await;
    std::fs::write(directory.join("file"), "data").expect("the directory is there");
    cluster.delete(&of(CLAIMS, "c"), Value::Null).await;
    let released = cluster.until(&of(VOLUMES, &name), is("Released")).await;
    assert_eq!(released["spec"]["claimRef"]["name"], "c");
    (name, directory)
}

#[tokio::test(start_paused = true)]
async fn a_retained_volume_is_not_used_again_by_itself() {
    let cluster = InProcess::start().await;
    let (name, directory) = retained(&cluster).await;
    // The same name is not the same claim, not even with the volume's name in it.
    let named = with_spec(claim("named", "fast"), json!({"volumeName": name}));
    cluster.create(CLAIMS, named).await;
    assert_eq!(
        cluster.until_told("FailedBinding").await,
        format!("volume \"{name}\" already bound to a different claim.")
    );
    cluster.create(CLAIMS, claim("c", "fast")).await;
    let again = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    assert_ne!(again["spec"]["volumeName"], name);
    assert!(directory.join("file").exists());
}

#[tokio::test(start_paused = true)]
async fn a_released_volume_is_attached_again_by_clearing_its_claim_ref_and_naming_it() {
    let cluster = InProcess::start().await;
    let (name, directory) = retained(&cluster).await;
    let cleared = json!({"spec": {"claimRef": null}});
    cluster.merge(&of(VOLUMES, &name), cleared).await;
    cluster.until(&of(VOLUMES, &name), is("Available")).await;
    // Before the set makes one of its own, whose name this is to be.
    let named = with_spec(claim("www-web-0", "fast"), json!({"volumeName": name}));
    cluster.create(CLAIMS, named).await;
    let bound = cluster.until(&of(CLAIMS, "www-web-0"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], name);
    let volume = cluster.until(&of(VOLUMES, &name), is_bound).await;
    assert_eq!(volume["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
    let data = std::fs::read(directory.join("file")).expect("the data is there");
    assert_eq!(data, b"data");
}

#[tokio::test(start_paused = true)]
async fn a_released_volume_is_kept_for_a_claim_that_does_not_exist_yet() {
    let cluster = InProcess::start().await;
    let (name, directory) = retained(&cluster).await;
    let kept = json!({"spec": {"claimRef": {"name": "www-web-0", "uid": null, "resourceVersion": null}}});
    cluster.merge(&of(VOLUMES, &name), kept).await;
    cluster.until(&of(VOLUMES, &name), is("Available")).await;
    cluster.create(CLAIMS, claim("other", "fast")).await;
    let other = cluster.until(&of(CLAIMS, "other"), is_bound).await;
    assert_ne!(other["spec"]["volumeName"], name);
    // As a StatefulSet makes it, without a volume's name.
    cluster.create(CLAIMS, claim("www-web-0", "fast")).await;
    let bound = cluster.until(&of(CLAIMS, "www-web-0"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], name);
    assert!(directory.join("file").exists());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_removed_is_tried_again() {
    let cluster = InProcess::start().await;
    let (name, directory) = provisioned(&cluster, json!({})).await;
    // Removal needs the directory above to be one.
    let volumes = directory.parent().expect("a directory above");
    let aside = cluster.elsewhere().join("aside");
    std::fs::rename(volumes, &aside).expect("moved away");
    std::fs::write(volumes, "in the way").expect("a file");
    cluster.delete(&of(CLAIMS, "c"), Value::Null).await;
    let failed = cluster.until(&of(VOLUMES, &name), is("Failed")).await;
    let why = failed["status"]["message"].as_str().expect("a message");
    assert!(why.starts_with("cannot remove the directory"), "{why}");
    assert_eq!(cluster.until_told("VolumeFailedDelete").await, why);
    std::fs::remove_file(volumes).expect("removed");
    std::fs::rename(&aside, volumes).expect("moved back");
    cluster.until_gone(&of(VOLUMES, &name)).await;
    assert!(!directory.exists());
}

const GROWABLE: &str = "allowVolumeExpansion";

fn size(storage: &str) -> Value {
    json!({"spec": {"resources": {"requests": {"storage": storage}}}})
}

#[tokio::test(start_paused = true)]
async fn a_claim_grows_by_being_asked_to() {
    let cluster = InProcess::start().await;
    let (name, _) = provisioned(&cluster, json!({GROWABLE: true})).await;
    cluster.merge(&of(CLAIMS, "c"), size("3Gi")).await;
    let grown = cluster
        .until(&of(CLAIMS, "c"), |claim| {
            claim["status"]["capacity"]["storage"] == "3Gi"
        })
        .await;
    assert_eq!(grown["status"]["conditions"], Value::Null);
    assert_eq!(grown["status"]["allocatedResourceStatuses"], Value::Null);
    let volume = cluster.get(&of(VOLUMES, &name)).await.expect("the volume");
    assert_eq!(volume["spec"]["capacity"]["storage"], "3Gi");
    for (reason, text) in [
        (
            "ExternalExpanding",
            "waiting for an external controller to expand this PVC".to_owned(),
        ),
        ("Resizing", format!("External resizer is resizing volume {name}")),
        (
            "FileSystemResizeRequired",
            "Require file system resize of volume on node".to_owned(),
        ),
        (
            "FileSystemResizeSuccessful",
            format!("MountVolume.NodeExpandVolume succeeded for volume \"{name}\""),
        ),
    ] {
        assert_eq!(cluster.until_told(reason).await, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_growth_that_fails_shows_and_goes_on_when_it_can() {
    let cluster = InProcess::start().await;
    let (name, directory) = provisioned(&cluster, json!({GROWABLE: true})).await;
    std::fs::remove_dir(&directory).expect("removed");
    cluster.merge(&of(CLAIMS, "c"), size("3Gi")).await;
    let told = cluster.until_told("VolumeResizeFailed").await;
    let expected = format!(
        "resize volume \"{name}\" failed: the directory {}",
        directory.display()
    );
    assert!(told.starts_with(&expected), "{told}");
    let stuck = cluster.get(&of(CLAIMS, "c")).await.expect("the claim");
    assert_eq!(stuck["status"]["capacity"]["storage"], "1Gi");
    assert_eq!(stuck["status"]["conditions"][0]["type"], "Resizing");
    std::fs::create_dir(&directory).expect("made");
    let grown = cluster
        .until(&of(CLAIMS, "c"), |claim| {
            claim["status"]["capacity"]["storage"] == "3Gi"
        })
        .await;
    assert_eq!(grown["status"]["conditions"], Value::Null);
}

/// The refusal of a change to the claim `c`: code, reason, and message up to the diff.
async fn refusal(cluster: &InProcess, patch: Value) -> (u16, String, String) {
    match cluster.send(Method::PATCH, &of(CLAIMS, "c"), &patch).await {
        Err(kube::Error::Api(status)) => {
            let message = status.message.lines().next().unwrap_or_default().to_owned();
            (status.code, status.reason.clone(), message)
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn invalid(detail: &str) -> (u16, String, String) {
    let message = format!("PersistentVolumeClaim \"c\" is invalid: {detail}");
    (422, "Invalid".into(), message)
}

#[tokio::test(start_paused = true)]
async fn a_change_that_a_claim_does_not_allow_is_refused_in_upstreams_words() {
    let frozen = "spec: Forbidden: spec is immutable after creation except resources.requests and \
                  volumeAttributesClassName for bound claims";
    let cluster = InProcess::start().await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    assert_eq!(refusal(&cluster, size("3Gi")).await, invalid(frozen));
    cluster.create(CLASSES, class(json!({}))).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
    let other_modes = json!({"spec": {"accessModes": ["ReadWriteMany"]}});
    assert_eq!(refusal(&cluster, other_modes).await, invalid(frozen));
    let other_class = json!({"spec": {"storageClassName": "slow"}});
    assert_eq!(refusal(&cluster, other_class).await, invalid(frozen));
    let not_growable = (
        403,
        "Forbidden".to_owned(),
        "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the \
         storageclass that provisions the pvc must support resize"
            .to_owned(),
    );
    assert_eq!(refusal(&cluster, size("3Gi")).await, not_growable);
    let less = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    assert_eq!(refusal(&cluster, size("500Mi")).await, invalid(less));
}
