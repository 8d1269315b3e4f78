//! Claims get volumes: those an administrator made, and directories made for them.

use e2e::in_process::{InProcess, PODS};
use e2e::storage::{CLAIMS, CLASSES, VOLUMES, claim, class, is, is_bound, of, pod, volume, with_spec};
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_smallest_volume_that_fits_and_releases_it_for_good() {
    let cluster = InProcess::start().await;
    cluster.create(VOLUMES, volume("big", "9Gi", "/data/big")).await;
    cluster.create(VOLUMES, volume("fits", "5Gi", "/data/fits")).await;
    for name in ["big", "fits"] {
        cluster.until(&of(VOLUMES, name), is("Available")).await;
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
    cluster.until(&of(VOLUMES, "fits"), is("Released")).await;
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
    for (reason, text) in [
        (
            "ExternalProvisioning",
            "Waiting for a volume to be created either by the external provisioner 'example.com/disk' or manually \
             by the system administrator. If volume creation is delayed, please verify that the provisioner is \
             running and correctly registered."
                .to_owned(),
        ),
        (
            "Provisioning",
            "External provisioner is provisioning volume for claim \"default/www-web-0\"".to_owned(),
        ),
        (
            "ProvisioningSucceeded",
            format!("Successfully provisioned volume {name}"),
        ),
    ] {
        assert_eq!(cluster.until_told(reason).await, text);
    }
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
    cluster.until(&of(VOLUMES, "v"), is("Failed")).await;
    cluster.until_told("VolumeFailedDelete").await;
    assert!(precious.exists());
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_pod_keeps_its_claim_and_a_pending_one_does_not() {
    let cluster = InProcess::start().await;
    cluster.create(VOLUMES, volume("v", "1Gi", "/data/v")).await;
    cluster.create(CLAIMS, claim("c", "")).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
    let mut scheduled = pod("p", "c");
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
    cluster.create(PODS, pod("p", "other")).await;
    cluster.delete(&of(CLAIMS, "other"), Value::Null).await;
    cluster.until_gone(&of(CLAIMS, "other")).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_chooses_by_selector_and_a_volume_by_its_claim_ref() {
    let cluster = InProcess::start().await;
    let mut slow = volume("slow", "1Gi", "/data/slow");
    slow["metadata"]["labels"] = json!({"disk": "hdd"});
    let mut quick = volume("quick", "9Gi", "/data/quick");
    quick["metadata"]["labels"] = json!({"disk": "ssd"});
    let reserved = json!({"claimRef": {"namespace": "default", "name": "mine"}, "storageClassName": "odd"});
    let reserved = with_spec(volume("reserved", "5Gi", "/data/reserved"), reserved);
    for volume in [slow, quick, reserved] {
        cluster.create(VOLUMES, volume).await;
    }
    let picky = json!({"selector": {"matchLabels": {"disk": "ssd"}}});
    cluster.create(CLAIMS, with_spec(claim("picky", ""), picky)).await;
    cluster.create(CLAIMS, claim("mine", "")).await;
    let bound = cluster.until(&of(CLAIMS, "picky"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], "quick");
    let bound = cluster.until(&of(CLAIMS, "mine"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], "reserved");
    // The administrator chose, not the controller.
    let volume = cluster.until(&of(VOLUMES, "reserved"), is_bound).await;
    assert_eq!(volume["metadata"]["annotations"], Value::Null);
    assert_eq!(volume["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_names_its_volume_gets_that_one_or_hears_why_not() {
    let cluster = InProcess::start().await;
    cluster
        .create(VOLUMES, volume("other", "1Gi", "/data/other"))
        .await;
    cluster
        .create(CLAIMS, with_spec(claim("a", ""), json!({"volumeName": "v"})))
        .await;
    let odd = with_spec(volume("v", "1Gi", "/data/v"), json!({"storageClassName": "odd"}));
    cluster.create(VOLUMES, odd).await;
    assert_eq!(
        cluster.until_told("VolumeMismatch").await,
        "Cannot bind to requested volume \"v\": storageClassName does not match"
    );
    let repaired = json!({"spec": {"storageClassName": ""}});
    cluster.merge(&of(VOLUMES, "v"), repaired).await;
    let bound = cluster.until(&of(CLAIMS, "a"), is_bound).await;
    // The user chose, not the controller.
    let annotations = json!({"pv.kubernetes.io/bind-completed": "yes"});
    assert_eq!(bound["metadata"]["annotations"], annotations);
    cluster
        .create(CLAIMS, with_spec(claim("b", ""), json!({"volumeName": "v"})))
        .await;
    assert_eq!(
        cluster.until_told("FailedBinding").await,
        "volume \"v\" already bound to a different claim."
    );
    let waiting = cluster.get(&of(CLAIMS, "b")).await.expect("the claim");
    assert_eq!(waiting["status"]["phase"], "Pending");
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_class_gets_the_default_one_that_comes_later() {
    let cluster = InProcess::start().await;
    let mut unsaid = claim("unsaid", "");
    unsaid["spec"]["storageClassName"] = Value::Null;
    cluster.create(CLAIMS, unsaid).await;
    cluster.create(CLAIMS, claim("none", "")).await;
    cluster.until_told("FailedBinding").await;
    cluster.create(CLASSES, class(json!({}))).await;
    let default = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    cluster
        .merge(
            &of(CLASSES, "fast"),
            json!({"metadata": {"annotations": default}}),
        )
        .await;
    let bound = cluster.until(&of(CLAIMS, "unsaid"), is_bound).await;
    assert_eq!(bound["spec"]["storageClassName"], "fast");
    let none = cluster.get(&of(CLAIMS, "none")).await.expect("the claim");
    assert_eq!(none["status"]["phase"], "Pending");
    assert_eq!(none["spec"]["storageClassName"], "");
}

#[tokio::test(start_paused = true)]
async fn what_a_directory_cannot_be_is_not_provisioned() {
    let failure = "failed to provision volume with StorageClass \"fast\": ";
    for (class_fields, spec, expected) in [
        (
            json!({}),
            json!({"selector": {"matchLabels": {"disk": "ssd"}}}),
            format!("{failure}claim Selector is not supported"),
        ),
        (
            json!({}),
            json!({"volumeMode": "Block"}),
            format!(
                "{failure}block volumes are not supported, only directories are provisioned: use volumeMode \
                 Filesystem"
            ),
        ),
        (
            json!({"provisioner": "kubernetes.io/no-provisioner"}),
            json!({}),
            "no volume plugin matched name: kubernetes.io/no-provisioner".into(),
        ),
    ] {
        let cluster = InProcess::start().await;
        cluster.create(CLASSES, class(class_fields)).await;
        cluster.create(CLAIMS, with_spec(claim("c", "fast"), spec)).await;
        assert_eq!(cluster.until_told("ProvisioningFailed").await, expected);
        let waiting = cluster.get(&of(CLAIMS, "c")).await.expect("the claim");
        assert_eq!(waiting["status"]["phase"], "Pending");
        assert_eq!(waiting["spec"]["volumeName"], Value::Null);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_volume_vanished_is_lost_until_the_volume_is_back() {
    let cluster = InProcess::start().await;
    cluster.create(VOLUMES, volume("v", "1Gi", "/data/v")).await;
    cluster.create(CLAIMS, claim("c", "")).await;
    cluster.until(&of(VOLUMES, "v"), is_bound).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
    cluster.delete(&of(VOLUMES, "v"), Value::Null).await;
    // Protected while it is bound; only force removes it.
    let kept = cluster.get(&of(VOLUMES, "v")).await.expect("kept while bound");
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    let force = json!({"metadata": {"finalizers": null}});
    cluster.merge(&of(VOLUMES, "v"), force).await;
    let lost = cluster.until(&of(CLAIMS, "c"), is("Lost")).await;
    assert_eq!(lost["spec"]["volumeName"], "v");
    assert_eq!(lost["status"]["capacity"], Value::Null);
    assert_eq!(
        cluster.until_told("ClaimLost").await,
        "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
    );
    cluster.create(VOLUMES, volume("v", "2Gi", "/data/v")).await;
    let found = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    assert_eq!(found["status"]["capacity"]["storage"], "2Gi");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_volume_goes_with_its_claim_and_takes_its_directory_along() {
    let cluster = InProcess::start().await;
    cluster.create(CLASSES, class(json!({}))).await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    let bound = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    let name = bound["spec"]["volumeName"].as_str().expect("a name");
    let volume = cluster.until(&of(VOLUMES, name), is_bound).await;
    let directory = volume["spec"]["hostPath"]["path"].as_str().expect("a path");
    cluster.delete(&of(VOLUMES, name), Value::Null).await;
    cluster.delete(&of(CLAIMS, "c"), Value::Null).await;
    cluster.until_gone(&of(VOLUMES, name)).await;
    assert!(!std::path::Path::new(directory).exists());
}
