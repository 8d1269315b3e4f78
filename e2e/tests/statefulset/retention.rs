//! Claims: whose they are, when they go, and which ones a pod has to wait for.

use crate::cluster::{
    CLAIMS, Cluster, SET, claim_template, is_deleted, is_ready, name, of, owners, text, uid,
};
use e2e::in_process::{Health, PODS};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["www-web-0", "www-web-1", "www-web-2"];

fn policy(when_deleted: &str, when_scaled: &str) -> Value {
    json!({"whenDeleted": when_deleted, "whenScaled": when_scaled})
}

fn with_claims(replicas: i64, policy: &Value) -> Value {
    json!({"replicas": replicas, "volumeClaimTemplates": [claim_template("www")],
        "persistentVolumeClaimRetentionPolicy": policy})
}

/// Every claim's owners, by ordinal.
async fn claim_owners(cluster: &Cluster) -> Vec<Vec<String>> {
    cluster.list(CLAIMS).await.iter().map(owners).collect()
}

/// I6, R45: with a scale that is really sent. While the condemned pods are on their way out, their claims are theirs.
#[tokio::test(start_paused = true)]
async fn each_policy_gives_claims_their_owners_and_scaling_down_keeps_or_removes_them() {
    let nobody: &[&str] = &[];
    let set: &[&str] = &["StatefulSet/web"];
    let pod: &[&str] = &["Pod"];
    // The policy's halves; the owner in range, and of a condemned pod's claim; what is left.
    let cases = [
        ("Retain", "Retain", nobody, nobody, &NAMES[..]),
        ("Delete", "Retain", set, set, &NAMES[..]),
        ("Retain", "Delete", nobody, pod, &NAMES[..1]),
        ("Delete", "Delete", set, pod, &NAMES[..1]),
    ];
    for pods in ["OrderedReady", "Parallel"] {
        for (when_deleted, when_scaled, in_range, condemned, left) in cases {
            let case = format!("{when_deleted}/{when_scaled} {pods}");
            let mut spec = with_claims(3, &policy(when_deleted, when_scaled));
            spec["podManagementPolicy"] = pods.into();
            let cluster = Cluster::with(spec).await;
            assert_eq!(claim_owners(&cluster).await, [in_range; 3], "{case}");

            cluster.node.let_go(false);
            cluster.scale(1).await;
            cluster.until_pod("web-2", is_deleted).await;
            cluster.rest().await;
            let of_pod = |ordinal: usize| -> Vec<String> {
                let owner = |owner: &&str| owner.replace("Pod", &format!("Pod/web-{ordinal}"));
                condemned.iter().map(owner).collect()
            };
            let owned = claim_owners(&cluster).await;
            assert_eq!(
                owned,
                [
                    in_range.iter().map(|&o| o.to_owned()).collect(),
                    of_pod(1),
                    of_pod(2)
                ],
                "{case}"
            );
            if condemned == pod {
                let claim = cluster.list(CLAIMS).await.remove(2);
                let pod = uid(&cluster.pod("web-2").await);
                assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], pod, "{case}");
            }
            cluster.node.let_go(true);
            cluster.until_counts([1, 1, 1, 1]).await;
            for name in NAMES.iter().filter(|name| !left.contains(name)) {
                cluster.until_gone(&of(CLAIMS, name)).await;
            }
            cluster.rest().await;
            assert_eq!(cluster.names(CLAIMS).await, left, "{case}");
            assert_eq!(claim_owners(&cluster).await[0], in_range, "{case}");
        }
    }
}

/// E22, R45.
#[tokio::test(start_paused = true)]
async fn claims_go_with_their_set_if_the_policy_says_so() {
    for (when_deleted, left) in [("Delete", &NAMES[..0]), ("Retain", &NAMES[..])] {
        for when_scaled in ["Delete", "Retain"] {
            let cluster = Cluster::with(with_claims(3, &policy(when_deleted, when_scaled))).await;
            cluster.delete(SET, Value::Null).await;
            cluster.until_gone(SET).await;
            cluster.rest().await;
            assert!(cluster.names(PODS).await.is_empty());
            assert_eq!(cluster.names(CLAIMS).await, left, "{when_deleted}/{when_scaled}");
            let volumes = std::fs::read_dir(cluster.volumes()).expect("it is there").count();
            assert_eq!(volumes, left.len(), "{when_deleted}/{when_scaled}");
        }
    }
}

/// E23: what goes goes with its directory.
#[tokio::test(start_paused = true)]
async fn claims_go_with_pods_that_are_scaled_away_if_the_policy_says_so() {
    let cluster = Cluster::with(with_claims(3, &policy("Retain", "Delete"))).await;
    cluster.scale(1).await;
    for name in &NAMES[1..] {
        cluster.until_gone(&of(CLAIMS, name)).await;
    }
    cluster.rest().await;
    assert_eq!(cluster.names(CLAIMS).await, NAMES[..1]);
    let volumes = cluster.names("/api/v1/persistentvolumes").await;
    let directories = std::fs::read_dir(cluster.volumes()).expect("it is there").count();
    assert_eq!((volumes.len(), directories), (1, 1));
}

/// R45: in range there is nothing to remove, whatever happens to the pod.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_by_hand_keeps_its_claim() {
    let cluster = Cluster::with(with_claims(3, &policy("Delete", "Delete"))).await;
    let before = cluster.uids(CLAIMS).await;
    let pod = uid(&cluster.pod("web-1").await);
    cluster.delete_pod("web-1").await;
    cluster.until_pod("web-1", |found| uid(found) != pod).await;
    cluster.until_counts([3, 3, 3, 3]).await;
    cluster.rest().await;
    assert_eq!(cluster.uids(CLAIMS).await, before);
    assert_eq!(claim_owners(&cluster).await, [["StatefulSet/web"]; 3]);
}

/// E25: a pod that lost its owner is taken back, and its claim goes with the set all the same.
#[tokio::test(start_paused = true)]
async fn claims_go_with_their_set_after_a_pod_was_adopted() {
    let cluster = Cluster::with(with_claims(3, &policy("Delete", "Retain"))).await;
    let pod = uid(&cluster.pod("web-2").await);
    cluster
        .change_pod("web-2", json!({"metadata": {"ownerReferences": null}}))
        .await;
    let adopted = cluster
        .until_pod("web-2", |pod| owners(pod) == ["StatefulSet/web"])
        .await;
    assert_eq!(uid(&adopted), pod);
    cluster.until_counts([3, 3, 3, 3]).await;
    cluster.delete(SET, Value::Null).await;
    for name in NAMES {
        cluster.until_gone(&of(CLAIMS, name)).await;
    }
}

/// R45: the claims of pods that are there follow a policy that changes; those of pods that are not stay as they are.
#[tokio::test(start_paused = true)]
async fn a_changed_policy_reaches_the_claims_of_the_pods_that_are_there() {
    let cluster = Cluster::with(with_claims(3, &policy("Retain", "Retain"))).await;
    cluster.scale(2).await;
    cluster.until_counts([2, 2, 2, 2]).await;
    let set = || vec!["StatefulSet/web".to_owned()];
    for (when_deleted, expected) in [
        ("Delete", [set(), set(), vec![]]),
        ("Retain", [vec![], vec![], vec![]]),
    ] {
        cluster
            .change(json!({"persistentVolumeClaimRetentionPolicy": policy(when_deleted, "Delete")}))
            .await;
        cluster.until_counts([2, 2, 2, 2]).await;
        cluster.rest().await;
        assert_eq!(claim_owners(&cluster).await, expected, "{when_deleted}");
    }
    assert_eq!(cluster.names(CLAIMS).await, NAMES);
}

/// R45: another controller's claim is left to it, and that is told once.
#[tokio::test(start_paused = true)]
async fn a_claim_that_somebody_else_controls_is_not_taken() {
    let cluster = Cluster::start().await;
    let boss = json!({"metadata": {"name": "boss"}});
    let boss = cluster
        .create("/api/v1/namespaces/default/configmaps", boss)
        .await;
    let mut claim = claim_template("www-web-0");
    claim["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "boss",
        "uid": uid(&boss), "controller": true, "blockOwnerDeletion": true}]);
    cluster.create(CLAIMS, claim).await;
    cluster
        .create_set(with_claims(2, &policy("Delete", "Delete")))
        .await;
    cluster.until_counts([2, 2, 2, 2]).await;
    let expected = [
        vec!["ConfigMap/boss".to_owned()],
        vec!["StatefulSet/web".to_owned()],
    ];
    assert_eq!(claim_owners(&cluster).await, expected);
    let told = cluster.until_told("ConflictingController").await;
    assert_eq!(
        told,
        "PersistentVolumeClaim www-web-0 has a conflicting OwnerReference that acts as a manging controller, \
         the retention policy is ignored for this claim"
    );
    cluster.delete(SET, Value::Null).await;
    cluster.until_gone(&of(CLAIMS, "www-web-1")).await;
    cluster.rest().await;
    assert_eq!(cluster.names(CLAIMS).await, ["www-web-0"]);
}

/// R46.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_scaled_up_again_waits_for_its_old_claim_to_go_and_gets_an_empty_one() {
    let cluster = Cluster::with(with_claims(2, &policy("Retain", "Delete"))).await;
    let hold = json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "example.com/hold"]}});
    let claim = of(CLAIMS, "www-web-1");
    let old = uid(&cluster.merge(&claim, hold).await);
    let volume = |claim: &Value| text(&claim["spec"]["volumeName"]);
    let directory = async |claim: &Value| {
        let path = format!("/api/v1/persistentvolumes/{}", volume(claim));
        let volume = cluster.get(&path).await.expect("it is bound");
        std::path::PathBuf::from(text(&volume["spec"]["hostPath"]["path"]))
    };
    let bound = cluster.get(&claim).await.expect("it is there");
    std::fs::write(directory(&bound).await.join("page"), "old").expect("a directory");
    cluster.scale(1).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    cluster.scale(2).await;
    cluster.rest().await;
    let still = cluster.get(&claim).await.expect("it is held");
    assert_eq!((uid(&still), is_deleted(&still)), (old.clone(), true));
    assert_eq!(cluster.names(PODS).await, ["web-0"]);
    cluster
        .merge(&claim, json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.until_counts([2, 2, 2, 2]).await;
    let new = cluster.get(&claim).await.expect("there is another");
    assert_ne!(uid(&new), old);
    assert!(!directory(&new).await.join("page").exists());
}

/// R46: also while nobody has come to delete the claim yet.
#[tokio::test(start_paused = true)]
async fn a_claim_that_belongs_to_a_pod_that_is_gone_is_not_given_to_the_next() {
    let mut cluster = Cluster::with(with_claims(2, &policy("Retain", "Delete"))).await;
    let claim = of(CLAIMS, "www-web-1");
    let old = uid(&cluster.get(&claim).await.expect("it is there"));
    cluster.restart_controllers("*,-garbage").await;
    cluster.scale(1).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    cluster.scale(2).await;
    cluster.rest().await;
    let still = cluster.get(&claim).await.expect("nobody deletes it");
    assert_eq!((uid(&still), is_deleted(&still)), (old.clone(), false));
    assert_eq!(cluster.names(PODS).await, ["web-0"]);
    cluster.restart_controllers("*").await;
    cluster.until_counts([2, 2, 2, 2]).await;
    assert_ne!(uid(&cluster.get(&claim).await.expect("there is another")), old);
}

/// R46: the guard is for those whose claims go; others take what is there.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_scaled_up_again_gets_the_claim_that_was_kept() {
    let cluster = Cluster::with(with_claims(2, &policy("Delete", "Retain"))).await;
    let before = cluster.uids(CLAIMS).await;
    cluster.scale(1).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    cluster.scale(2).await;
    cluster.until_counts([2, 2, 2, 2]).await;
    assert_eq!(cluster.uids(CLAIMS).await, before);
}

/// R44.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_being_deleted_keeps_its_pod_from_being_made_and_that_is_told() {
    let cluster = Cluster::start().await;
    let mut claim = claim_template("www-web-0");
    claim["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let claim = uid(&cluster.create(CLAIMS, claim).await);
    let path = of(CLAIMS, "www-web-0");
    cluster.delete(&path, Value::Null).await;
    cluster
        .create_set(with_claims(1, &policy("Retain", "Retain")))
        .await;
    let told = cluster.until_told("FailedCreate").await;
    assert!(
        told.ends_with("failed error: pvc www-web-0 is being deleted"),
        "{told}"
    );
    cluster.rest().await;
    assert!(cluster.names(PODS).await.is_empty());
    cluster
        .merge(&path, json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.until_counts([1, 1, 1, 1]).await;
    let found = cluster.get(&path).await.expect("there is another");
    assert_ne!(uid(&found), claim);
}

/// R44: whatever it asks for.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_there_already_is_used_as_it_is() {
    let cluster = Cluster::start().await;
    let mut claim = claim_template("www-web-0");
    claim["metadata"]["labels"] = json!({"made": "by-hand"});
    claim["spec"]["resources"]["requests"]["storage"] = "7Mi".into();
    let claim = cluster.create(CLAIMS, claim).await;
    cluster
        .create_set(with_claims(1, &policy("Retain", "Retain")))
        .await;
    cluster.until_counts([1, 1, 1, 1]).await;
    let used = cluster.list(CLAIMS).await.remove(0);
    assert_eq!((uid(&used), name(&used)), (uid(&claim), "www-web-0".into()));
    assert_eq!(used["metadata"]["labels"], json!({"made": "by-hand"}));
    assert_eq!(used["spec"]["resources"]["requests"]["storage"], "7Mi");
}

/// R29c, P10: nothing keeps the claim of a pod that no node has, and the pod gets another.
#[tokio::test(start_paused = true)]
async fn a_pending_pod_whose_claim_was_deleted_gets_another() {
    let cluster = Cluster::start().await;
    let cordon = |unschedulable: Value| json!({"spec": {"unschedulable": unschedulable}});
    cluster.merge("/api/v1/nodes/node", cordon(true.into())).await;
    cluster
        .create_set(with_claims(1, &policy("Retain", "Retain")))
        .await;
    let path = of(CLAIMS, "www-web-0");
    let bound = |claim: &Value| claim["status"]["phase"] == "Bound";
    let old = uid(&cluster.until(&path, bound).await);
    let pod = cluster
        .until_pod("web-0", |pod| pod["status"]["phase"] == "Pending")
        .await;
    cluster.delete(&path, Value::Null).await;
    cluster
        .until(&path, |claim| uid(claim) != old && bound(claim))
        .await;
    cluster.merge("/api/v1/nodes/node", cordon(Value::Null)).await;
    let ready = cluster.until_pod("web-0", is_ready).await;
    assert_eq!(uid(&ready), uid(&pod));
}

/// R31: no pod goes before its claim is its own, so that the claim goes with it.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_well_is_scaled_away_with_its_claim() {
    let cluster = Cluster::with(with_claims(2, &policy("Retain", "Delete"))).await;
    cluster.node.only("web-1", Health::Unready);
    cluster.until_counts([2, 1, 1, 2]).await;
    cluster.scale(1).await;
    cluster.until_counts([1, 1, 1, 1]).await;
    cluster.until_gone(&of(CLAIMS, "www-web-1")).await;
}
