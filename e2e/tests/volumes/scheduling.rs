//! Pods and their claims: what waits for what, in any order, and what the scheduler says meanwhile.

use e2e::in_process::{InProcess, PODS};
use e2e::storage::{
    CLAIMS, CLASSES, VOLUMES, add_node, claim, class, is, is_bound, of, pod, volume, with_spec,
};
use serde_json::{Value, json};

fn delayed(provisioner: &str) -> Value {
    class(json!({"volumeBindingMode": "WaitForFirstConsumer", "provisioner": provisioner}))
}

/// A `local` volume of class `fast` as in a manifest for a cluster that has the node `worker-7`.
fn pasted(name: &str) -> Value {
    let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["worker-7"]});
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}});
    let fields = json!({
        "hostPath": null, "local": {"path": "/mnt/disks/ssd1"}, "storageClassName": "fast",
        "nodeAffinity": affinity,
    });
    with_spec(volume(name, "1Gi", "/"), fields)
}

fn is_scheduled(pod: &Value) -> bool {
    pod["spec"]["nodeName"].is_string()
}

/// What the pod's status says about its scheduling.
fn why(pod: &Value) -> &str {
    let conditions = pod["status"]["conditions"].as_array();
    let scheduled = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    scheduled
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
}

fn unresolvable(nodes: u8, reasons: &str) -> String {
    format!(
        "0/{nodes} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{nodes} nodes are \
         available: {nodes} Preemption is not helpful for scheduling."
    )
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_when_its_claim_is_and_says_what_it_waits_for() {
    let cluster = InProcess::start().await;
    add_node(&cluster, "node").await;
    cluster.create(PODS, pod("p", "c")).await;
    let missing = unresolvable(1, "persistentvolumeclaim \"c\" not found");
    assert_eq!(cluster.until_told("FailedScheduling").await, missing);
    let waiting = cluster.get(&of(PODS, "p")).await.expect("the pod");
    assert_eq!(why(&waiting), missing);
    cluster.create(CLAIMS, claim("c", "")).await;
    let unbound = unresolvable(1, "pod has unbound immediate PersistentVolumeClaims");
    cluster.until(&of(PODS, "p"), |pod| why(pod) == unbound).await;
    cluster.create(VOLUMES, volume("v", "1Gi", "/data/v")).await;
    let bound = cluster.until(&of(PODS, "p"), is_scheduled).await;
    assert_eq!(bound["spec"]["nodeName"], "node");
    assert_eq!(
        cluster.until_told("Scheduled").await,
        "Successfully assigned default/p to node"
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_for_its_first_consumer_is_bound_when_a_pod_is_scheduled() {
    let cluster = InProcess::start().await;
    cluster.create(CLASSES, delayed("example.com/disk")).await;
    // Not even a volume that fits is taken before.
    let fitting = with_spec(volume("v", "1Gi", "/data/v"), json!({"storageClassName": "fast"}));
    cluster.create(VOLUMES, fitting).await;
    cluster.until(&of(VOLUMES, "v"), is("Available")).await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    let told = cluster.until_told("WaitForFirstConsumer").await;
    assert_eq!(told, "waiting for first consumer to be created before binding");
    cluster.create(PODS, pod("p", "c")).await;
    assert_eq!(
        cluster.until_told("WaitForPodScheduled").await,
        "waiting for pod p to be scheduled"
    );
    let waiting = cluster.get(&of(CLAIMS, "c")).await.expect("the claim");
    assert_eq!(waiting["spec"]["volumeName"], Value::Null);
    add_node(&cluster, "node").await;
    let bound = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], "v");
    cluster.until(&of(PODS, "p"), is_scheduled).await;
    // Where there is none, one is made for the node.
    cluster.create(CLAIMS, claim("d", "fast")).await;
    cluster.create(PODS, pod("q", "d")).await;
    let bound = cluster.until(&of(CLAIMS, "d"), is_bound).await;
    let annotations = &bound["metadata"]["annotations"];
    assert_eq!(annotations["volume.kubernetes.io/selected-node"], "node");
    assert_eq!(
        annotations["volume.kubernetes.io/storage-provisioner"],
        "example.com/disk"
    );
    cluster.until(&of(PODS, "q"), is_scheduled).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_with_its_node_ends_the_wait_for_a_consumer() {
    let cluster = InProcess::start().await;
    cluster.create(CLASSES, delayed("example.com/disk")).await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    cluster.until_told("WaitForFirstConsumer").await;
    let placed = with_spec(pod("p", "c"), json!({"nodeName": "node"}));
    cluster.create(PODS, placed).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
}

#[tokio::test(start_paused = true)]
async fn a_local_volume_for_another_clusters_node_serves_the_only_node() {
    let cluster = InProcess::start().await;
    add_node(&cluster, "laptop").await;
    cluster
        .create(CLASSES, delayed("kubernetes.io/no-provisioner"))
        .await;
    cluster.create(VOLUMES, pasted("v")).await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    cluster.create(PODS, pod("p", "c")).await;
    let scheduled = cluster.until(&of(PODS, "p"), is_scheduled).await;
    assert_eq!(scheduled["spec"]["nodeName"], "laptop");
    let bound = cluster.until(&of(CLAIMS, "c"), is_bound).await;
    assert_eq!(bound["spec"]["volumeName"], "v");
}

#[tokio::test(start_paused = true)]
async fn of_several_nodes_a_local_volume_serves_the_one_it_names() {
    let cluster = InProcess::start().await;
    add_node(&cluster, "a").await;
    add_node(&cluster, "b").await;
    cluster
        .create(CLASSES, delayed("kubernetes.io/no-provisioner"))
        .await;
    cluster.create(VOLUMES, pasted("v")).await;
    cluster.create(CLAIMS, claim("c", "fast")).await;
    cluster.create(PODS, pod("p", "c")).await;
    let conflict = unresolvable(2, "2 node(s) didn't find available persistent volumes to bind");
    assert_eq!(cluster.until_told("FailedScheduling").await, conflict);
    // Bound already, it says where the pod may not go.
    let taken = with_spec(pasted("w"), json!({"storageClassName": ""}));
    cluster.create(VOLUMES, taken).await;
    cluster.create(CLAIMS, claim("d", "")).await;
    cluster.until(&of(CLAIMS, "d"), is_bound).await;
    cluster.create(PODS, pod("q", "d")).await;
    let conflict = unresolvable(2, "2 node(s) didn't match PersistentVolume's node affinity");
    cluster.until(&of(PODS, "q"), |pod| why(pod) == conflict).await;
    add_node(&cluster, "worker-7").await;
    for name in ["p", "q"] {
        let scheduled = cluster.until(&of(PODS, name), is_scheduled).await;
        assert_eq!(scheduled["spec"]["nodeName"], "worker-7");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_one_pod_is_had_by_one_pod_at_a_time() {
    let cluster = InProcess::start().await;
    let one_pod = json!({"accessModes": ["ReadWriteOncePod"]});
    cluster
        .create(VOLUMES, with_spec(volume("v", "1Gi", "/data/v"), one_pod.clone()))
        .await;
    cluster.create(CLAIMS, with_spec(claim("c", ""), one_pod)).await;
    cluster.until(&of(CLAIMS, "c"), is_bound).await;
    // Several at once, before there is a node.
    let names = ["a", "b", "c", "d"];
    for name in names {
        cluster.create(PODS, pod(name, "c")).await;
    }
    add_node(&cluster, "node").await;
    let conflict = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and \
                    ReadWriteOncePod access mode. no new claims to deallocate, preemption: 0/1 nodes are \
                    available: 1 No preemption victims found for incoming pod.";
    let is_finished = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    let has_claim = |pod: &Value| is_scheduled(pod) && !is_finished(pod);
    for finished in 0..names.len() {
        let pods = cluster
            .until(PODS, |pods| {
                let pods = pods["items"].as_array().expect("pods");
                let having = pods.iter().filter(|pod| has_claim(pod)).count();
                assert!(having <= 1, "{having} pods have the claim");
                let told = pods
                    .iter()
                    .filter(|pod| !is_scheduled(pod) && why(pod) == conflict);
                having == 1 && told.count() == names.len() - finished - 1
            })
            .await;
        let pods = pods["items"].as_array().expect("pods");
        let having = pods.iter().find(|pod| has_claim(pod)).expect("one has it");
        let name = having["metadata"]["name"].as_str().expect("a name");
        // One that has finished has it no more, like one that is gone.
        let finished = json!({"status": {"phase": "Succeeded"}});
        cluster.merge(&format!("{PODS}/{name}/status"), finished).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_one_node_may_be_shared_by_its_pods() {
    let cluster = InProcess::start().await;
    add_node(&cluster, "node").await;
    cluster.create(VOLUMES, volume("v", "1Gi", "/data/v")).await;
    cluster.create(CLAIMS, claim("c", "")).await;
    for name in ["a", "b"] {
        cluster.create(PODS, pod(name, "c")).await;
        cluster.until(&of(PODS, name), is_scheduled).await;
    }
}

#[tokio::test(start_paused = true)]
async fn class_volume_claim_and_pod_may_come_in_any_order() {
    let cluster = InProcess::start().await;
    add_node(&cluster, "node").await;
    for (number, order) in orders(4).into_iter().enumerate() {
        let name = &format!("n{number}");
        let mut class = delayed("kubernetes.io/no-provisioner");
        class["metadata"]["name"] = name.as_str().into();
        let volume = with_spec(pasted(name), json!({"storageClassName": name}));
        let objects = [
            (CLASSES, class),
            (VOLUMES, volume),
            (CLAIMS, claim(name, name)),
            (PODS, pod(name, name)),
        ];
        for index in order {
            let (path, object) = &objects[index];
            cluster.create(path, object.clone()).await;
        }
        cluster.until(&of(PODS, name), is_scheduled).await;
        let bound = cluster.until(&of(CLAIMS, name), is_bound).await;
        assert_eq!(bound["spec"]["volumeName"], *name);
    }
}

/// Every order of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for next in 0..count {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, next);
                    longer
                })
            })
            .collect();
    }
    orders
}
