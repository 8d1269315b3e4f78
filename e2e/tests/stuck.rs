//! A StatefulSet that does not get on says why, and petset's own annotations help it along.

use e2e::binary::{Cluster, PATIENCE, eventually, run};
use serde_json::{Value, json};

/// A set of two whose containers run this command; with a volume each.
fn manifest(command: &str, storage: &str, annotations: &str) -> String {
    format!(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: growing}}
provisioner: petset.dev/directory
allowVolumeExpansion: true
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
  annotations: {{{annotations}}}
spec:
  replicas: 2
  serviceName: web
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shell
        image: busybox
        command: [sh, -c, "{command}"]
        readinessProbe: {{exec: {{command: [sh, -c, "test ! -e /tmp/petset-no-such-file"]}}, periodSeconds: 1}}
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      storageClassName: growing
      accessModes: [ReadWriteOnce]
      resources: {{requests: {{storage: {storage}}}}}
"#
    )
}

fn apply(cluster: &Cluster, command: &str, storage: &str, annotations: &str) {
    cluster.write("set.yaml", &manifest(command, storage, annotations));
    cluster.kubectl("apply -f set.yaml");
}

fn condition(set: &Value, type_: &str) -> Value {
    let conditions = set["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut found = conditions
        .into_iter()
        .filter(|condition| condition["type"] == type_);
    found.next().unwrap_or_default()
}

fn explain(cluster: &Cluster) -> String {
    run(&mut cluster.petset(&["explain", "sts/web"])).ok()
}

/// The messages of the set's events with this reason.
fn told(cluster: &Cluster, reason: &str) -> Vec<String> {
    let events = cluster.get("events")["items"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let about = events
        .iter()
        .filter(|event| event["reason"] == reason && event["involvedObject"]["name"] == "web");
    about
        .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_blocked_rollout_says_so_and_goes_on_when_asked_to() {
    let cluster = Cluster::up();
    apply(&cluster, "exec sleep 1000", "1Mi", "");
    cluster.kubectl("wait --for=condition=Available sts/web --timeout=60s");
    assert!(explain(&cluster).contains("2 of 2 replicas available"));

    apply(&cluster, "exit 3", "1Mi", "");
    cluster.until("sts web", |set| {
        condition(set, "Progressing")["reason"] == "PodNotReady"
    });
    apply(&cluster, "exec sleep 2000", "1Mi", "");
    let set = cluster.until("sts web", |set| {
        condition(set, "Progressing")["reason"] == "RolloutBlocked"
    });
    assert_eq!(condition(&set, "Progressing")["status"], "False");
    assert_eq!(condition(&set, "Available")["status"], "False");
    // In the condition, in `kubectl describe`, in `petset explain`: the pod, why, and what helps.
    let message = condition(&set, "Progressing")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    eventually("the event is told", PATIENCE, || {
        let told = told(&cluster, "RolloutBlocked");
        (told == [message.as_str()])
            .then_some(())
            .ok_or_else(|| format!("{told:?}"))
    });
    for text in [cluster.kubectl("describe sts web"), explain(&cluster), message] {
        for part in [
            "web-1 is not Ready",
            "exit code 3",
            "kubectl delete pod web-1 -n default",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }

    cluster.kubectl("annotate sts web petset.dev/unblock-rollout=true");
    cluster.kubectl("rollout status sts web --timeout=60s");
    let set = cluster.until("sts web", |set| {
        condition(set, "Progressing")["reason"] == "Complete"
    });
    assert_eq!(set["status"]["currentRevision"], set["status"]["updateRevision"]);
    assert_eq!(told(&cluster, "RolloutUnblocked").len(), 1);
    assert!(explain(&cluster).contains("Nothing to do"));
}

#[test]
fn a_missing_governing_service_is_told_once_and_forgotten_when_it_comes() {
    let cluster = Cluster::up();
    apply(&cluster, "exec sleep 1000", "1Mi", "");
    cluster.until("sts web", |set| {
        condition(set, "GoverningService")["reason"] == "ServiceNotFound"
    });
    let wrong = explain(&cluster);
    assert!(wrong.contains("clusterIP: None"), "{wrong}");
    let govern = |app: &str| {
        let spec = json!({"clusterIP": "None", "selector": {"app": app}});
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
        cluster.write("service.json", &service.to_string());
        cluster.kubectl("apply -f service.json");
    };
    govern("other");
    cluster.until("sts web", |set| {
        condition(set, "GoverningService")["reason"] == "ServiceSelectsOthers"
    });
    govern("web");
    cluster.until("sts web", |set| {
        condition(set, "GoverningService")["status"] == "True"
    });
    for reason in ["ServiceNotFound", "ServiceSelectsOthers"] {
        assert_eq!(told(&cluster, reason).len(), 1, "{reason}");
    }
}

#[test]
fn claim_templates_grow_where_asked_and_their_claims_with_them() {
    let cluster = Cluster::up();
    apply(&cluster, "exec sleep 1000", "1Mi", "");
    cluster.until_available("web", 2);
    cluster.write("set.yaml", &manifest("exec sleep 1000", "2Mi", ""));
    let refused = cluster.try_kubectl("apply -f set.yaml").fails();
    assert!(
        refused.contains("spec: Forbidden: updates to statefulset spec for fields other than"),
        "{refused}"
    );

    let uid = cluster.get("pod web-0")["metadata"]["uid"].clone();
    apply(
        &cluster,
        "exec sleep 1000",
        "2Mi",
        r#"petset.dev/resize-claims: "true""#,
    );
    for claim in ["data-web-0", "data-web-1"] {
        let claim = cluster.until(&format!("pvc {claim}"), |claim| {
            claim["status"]["capacity"]["storage"] == "2Mi"
        });
        let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        assert_eq!(
            cluster.get(&format!("pv {volume}"))["spec"]["capacity"]["storage"],
            "2Mi"
        );
    }
    cluster.until("sts web", |set| {
        condition(set, "ClaimsResized")["status"] == "True"
    });
    assert_eq!(
        cluster.get("pod web-0")["metadata"]["uid"],
        uid,
        "no pod is replaced for it"
    );
}
