//! `kubectl delete` of a StatefulSet, with each `--cascade`: what goes, in which order, and what stays (rules R47 and R48
//! of the reference).

use e2e::binary::{Cluster, repository};
use serde_json::{Value, json};

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().expect("it has one").to_owned()
}

const PODS: [&str; 2] = ["db-0", "db-1"];
const CLAIMS: [&str; 2] = ["data-db-0", "data-db-1"];

fn uids(cluster: &Cluster, kind: &str, names: [&str; 2]) -> [String; 2] {
    names.map(|name| uid(&cluster.get(&format!("{kind} {name}"))))
}

fn revisions(cluster: &Cluster) -> Vec<Value> {
    let list = cluster.get("controllerrevisions");
    list["items"].as_array().cloned().unwrap_or_default()
}

fn is_gone(event: &Value, name: &str) -> bool {
    event["type"] == "DELETED" && event["object"]["metadata"]["name"] == name
}

#[test]
fn orphans_stay_and_a_set_of_the_same_name_takes_them_over() {
    let cluster = Cluster::with_two_shells();
    let (pods, claims) = (uids(&cluster, "pod", PODS), uids(&cluster, "pvc", CLAIMS));
    let kept = revisions(&cluster);
    assert_eq!(kept.len(), 1);
    assert_eq!(
        cluster.kubectl("delete sts db --cascade=orphan"),
        "statefulset.apps \"db\" deleted\n"
    );
    cluster.until_gone("sts db");
    let names = revisions(&cluster)
        .into_iter()
        .map(|r| r["metadata"]["name"].clone());
    let names: Vec<String> = names.filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    let left = PODS.map(|pod| format!("pod {pod}")).into_iter();
    for what in left.chain(names.iter().map(|name| format!("controllerrevision {name}"))) {
        let orphan = cluster.until(&what, |object| object["metadata"]["ownerReferences"].is_null());
        assert!(orphan["metadata"]["deletionTimestamp"].is_null(), "{orphan:#}");
    }

    let manifest = repository("e2e/manifests/shells.yaml").display().to_string();
    cluster.kubectl(&format!("apply -f {manifest}"));
    let set = uid(&cluster.until_available("db", 2));
    assert_eq!(uids(&cluster, "pod", PODS), pods, "the pods are the same");
    assert_eq!(uids(&cluster, "pvc", CLAIMS), claims, "and so are their claims");
    let adopted = revisions(&cluster);
    assert_eq!(adopted.len(), 1, "{adopted:#?}");
    assert_eq!(uid(&adopted[0]), uid(&kept[0]), "and their revision");
    let all = PODS.map(|pod| cluster.get(&format!("pod {pod}")));
    for object in all.iter().chain(&adopted) {
        assert_eq!(
            object["metadata"]["ownerReferences"][0]["uid"],
            set.as_str(),
            "{object:#}"
        );
    }
}

#[test]
fn in_the_background_the_set_goes_first() {
    let cluster = Cluster::with_two_shells();
    let claims = uids(&cluster, "pvc", CLAIMS);
    let mut pods = cluster.watch("/api/v1/namespaces/default/pods?watch=true");
    assert_eq!(
        cluster.kubectl("delete sts db"),
        "statefulset.apps \"db\" deleted\n"
    );
    assert!(cluster.look("sts db").is_err(), "kubectl has waited for it");
    for pod in PODS {
        if !pods.seen.iter().any(|event| is_gone(event, pod)) {
            pods.until(pod, |event| is_gone(event, pod));
        }
    }
    // Without an order: both were told to stop before either was gone.
    let stopping = pods
        .seen
        .iter()
        .take_while(|event| event["type"] != "DELETED")
        .filter(|event| event["object"]["metadata"]["deletionTimestamp"].is_string())
        .filter_map(|event| event["object"]["metadata"]["name"].as_str());
    let stopping: std::collections::BTreeSet<&str> = stopping.collect();
    assert_eq!(stopping.into_iter().collect::<Vec<_>>(), PODS);
    cluster.until("controllerrevisions", |list| list["items"] == json!([]));
    assert_eq!(uids(&cluster, "pvc", CLAIMS), claims, "the claims stay");
}

#[test]
fn in_the_foreground_the_set_goes_last() {
    let cluster = Cluster::with_two_shells();
    let set = uid(&cluster.get("sts db"));
    let mut pods = cluster.watch("/api/v1/namespaces/default/pods?watch=true");
    let mut sets = cluster.watch("/apis/apps/v1/namespaces/default/statefulsets?watch=true");
    cluster.kubectl("delete sts db --cascade=foreground");
    let last = sets.until("the set goes", |event| event["type"] == "DELETED");
    // Its dependants went first: nothing of it is left the moment it is gone.
    assert_eq!(cluster.kubectl("get pods,controllerrevisions -o name"), "");
    for pod in PODS {
        if !pods.seen.iter().any(|event| is_gone(event, pod)) {
            pods.until(pod, |event| is_gone(event, pod));
        }
    }
    assert_eq!(uid(&last["object"]), set);
    let waiting = sets
        .seen
        .iter()
        .any(|event| event["object"]["metadata"]["finalizers"] == json!(["foregroundDeletion"]));
    assert!(waiting, "{:#?}", sets.seen);
    for claim in CLAIMS {
        assert_eq!(cluster.get(&format!("pvc {claim}"))["status"]["phase"], "Bound");
    }
}

/// kubectl asks for the pod once more before it begins to watch; what goes and comes back in between keeps it for ever.
#[test]
fn deleting_a_pod_returns_although_another_of_its_name_comes_at_once() {
    let cluster = Cluster::with_two_shells();
    for _ in 0..10 {
        cluster.kubectl("delete pod db-1 --timeout=30s");
    }
    cluster.until_available("db", 2);
}
