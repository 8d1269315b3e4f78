//! What petset does beyond Kubernetes, seen through kubectl: what a set waits for, and a rollout that helps itself.

use crate::sets::{patch, resume, set, text, until_rolled_out};
use serde_json::json;

/// Kubernetes issues 67250 and 79606.
#[test]
fn a_blocked_rollout_says_what_helps_and_a_set_that_asks_for_it_goes_on_by_itself() {
    let cluster = crate::sets::cluster();
    crate::sets::create(&cluster, &set(&cluster, json!({"replicas": 2})));
    for name in ["web-0", "web-1"] {
        resume(&cluster, name);
    }
    cluster.kubectl("wait --for=condition=Available sts/web --timeout=60s");
    cluster.until_available("web", 2);

    // A program that ends at once, and whose probe keeps it from being Ready even for that moment.
    let mut bad = set(&cluster, json!({}))["spec"]["template"]["spec"]["containers"].clone();
    bad[0]["command"] = json!(["sh", "-c", "exit 1"]);
    bad[0]["readinessProbe"]["exec"]["command"] = json!(["false"]);
    patch(
        &cluster,
        &json!({"spec": {"template": {"spec": {"containers": bad}}}}),
    );
    cluster.kubectl("wait --for=condition=Available=False sts/web --timeout=60s");
    cluster.until("pod web-1", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CrashLoopBackOff"
    });
    cluster.kubectl("rollout undo sts/web");
    cluster.kubectl("wait --for=condition=Progressing=False sts/web --timeout=60s");
    let described = cluster.kubectl("describe sts web");
    for part in [
        "RolloutBlocked",
        "kubectl delete pod web-1 -n default",
        "exit code 1",
    ] {
        assert!(described.contains(part), "no {part:?} in\n{described}");
    }
    let stuck = cluster.get("pod web-1");
    cluster.kubectl("annotate sts web petset.dev/unblock-rollout=true");
    until_rolled_out(&cluster, 2);
    let new = cluster.get("pod web-1");
    assert_ne!(text(&new["metadata"]["uid"]), text(&stuck["metadata"]["uid"]));
    cluster.kubectl("wait --for=condition=Progressing=True sts/web --timeout=60s");
}
