//! What Kubernetes 1.36's own controller did, step by step, and whether this one does the same.

use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Next to the repository, where there is one; it is no part of it.
const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/oracle");

/// The folder with the recordings: `PETSET_ORACLE`, or the one next to the repository.
fn oracle() -> PathBuf {
    std::env::var_os("PETSET_ORACLE").map_or_else(|| ORACLE.into(), PathBuf::from)
}

#[test]
fn every_recorded_trace_is_what_this_controller_does() {
    let path = oracle().join("statefulset-traces.json");
    if !path.exists() {
        eprintln!("NOT COMPARED: there are no recorded traces at {}", path.display());
        return;
    }
    let traces = std::fs::read_to_string(path).expect("the traces are readable");
    let traces: Value = serde_json::from_str(&traces).expect("the traces are JSON");
    let scenarios = traces["scenarios"].as_array().expect("scenarios");
    assert!(scenarios.len() >= 27, "only {} scenarios", scenarios.len());
    let differences: Vec<_> = scenarios.iter().flat_map(differences).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Play one scenario; what differs from the recording, in words.
fn differences(scenario: &Value) -> Vec<String> {
    let id = scenario["id"].as_str().expect("an id");
    let mut world = World::new();
    let mut found = vec![];
    let mut compare = |what: String, expected: Value, got: Value| {
        if expected != got {
            found.push(format!("{id}: {what}:\n  expected {expected}\n  got      {got}"));
        }
    };
    for (index, step) in scenario["steps"].as_array().expect("steps").iter().enumerate() {
        request(&mut world, step);
        world.settle();
        let number = index + 1;
        let observed = scenario["observed"].as_array().expect("observed");
        let changes = observed.iter().filter(|part| part["step"] == number);
        let changes: Vec<_> = changes
            .flat_map(|part| part["changes"].as_array().expect("changes"))
            .cloned()
            .collect();

        let is_unordered =
            step["method"] == "DELETE" || scenario["id"].as_str().expect("id").contains("parallel");
        let logs = [
            ("pod", &mut world.pod_log),
            ("claim", &mut world.claim_log),
            ("controllerrevision", &mut world.revision_log),
        ];
        for (kind, log) in logs {
            let mut expected: Vec<_> = changes
                .iter()
                .filter(|change| change.get(kind).is_some())
                .map(simplified)
                .collect();
            let mut got: Vec<_> = std::mem::take(log).iter().map(simplified).collect();
            if is_unordered {
                for log in [&mut expected, &mut got] {
                    log.sort_by_key(Value::to_string);
                }
            }
            compare(format!("step {number}, {kind}s"), json!(expected), json!(got));
        }
        let last_status = changes.iter().rev().find(|change| change["what"] == "status");
        if let (Some(last), Some(set)) = (last_status, &world.set) {
            let mut status = set["status"].clone();
            // Deliberate: Kubernetes' controller sets none.
            status.as_object_mut().expect("a status").remove("conditions");
            compare(
                format!("step {number}, last status"),
                last["status"].clone(),
                status,
            );
        }
    }
    compare(
        "events".into(),
        json!(recorded_events(scenario)),
        json!(told_events(&world)),
    );
    compare(
        "revisions".into(),
        recorded_revisions(scenario),
        created_revisions(&world),
    );
    if id != "adopt-matching-pod"
        && let Some(pod) = &world.first_pod
    {
        let (expected, got) = (
            &scenario["firstPod"],
            serde_json::to_value(pod).expect("a pod is JSON"),
        );
        for part in [
            "/metadata/name",
            "/metadata/generateName",
            "/metadata/labels",
            "/spec/hostname",
            "/spec/subdomain",
        ] {
            let at = |value: &Value| value.pointer(part).cloned().unwrap_or_default();
            compare(format!("first pod's {part}"), at(expected), at(&got));
        }
        compare(
            format!("first pod: {got} is in {}", expected["spec"]),
            json!(true),
            json!(is_within(&got["spec"], &expected["spec"])),
        );
    }
    found
}

fn request(world: &mut World, step: &Value) {
    let path: Vec<_> = step["path"]
        .as_str()
        .expect("a path")
        .split('/')
        .skip_while(|part| *part != "{ns}")
        .skip(1)
        .collect();
    let body = &step["body"];
    match (step["method"].as_str().expect("a method"), &path[..]) {
        ("POST", ["statefulsets"]) => world.create_set(body.clone()),
        ("POST", ["pods"]) => world.create_pod(serde_json::from_value(body.clone()).expect("a pod")),
        ("POST", ["persistentvolumeclaims"]) => {
            let mut claim = body.clone();
            claim["spec"]["volumeMode"] = json!("Filesystem");
            world.create_claim(serde_json::from_value(claim).expect("a claim"));
        }
        ("PATCH", ["statefulsets", _] | ["statefulsets", _, "scale"]) => world.patch_set(body),
        ("PATCH", ["pods", name, "status"]) => {
            world.finish_pod(name, body["status"]["phase"].as_str().expect("a phase"));
        }
        ("DELETE", ["pods", name]) => world.delete_pod(name),
        ("DELETE", ["statefulsets", _]) => {
            world.delete_set(body["propagationPolicy"].as_str().unwrap_or("Background"))
        }
        other => panic!("no such request: {other:?}"),
    }
}

/// A change without what is not the controller's: grace periods, the owners of a renumbered revision.
fn simplified(change: &Value) -> Value {
    let mut change = change.clone();
    let fields = change.as_object_mut().expect("a change is an object");
    fields.remove("gracePeriodSeconds");
    if fields.contains_key("controllerrevision") {
        fields.remove("owners");
    }
    change
}

fn recorded_events(scenario: &Value) -> BTreeSet<String> {
    let events = scenario["events"].as_array().expect("events").iter();
    events
        .map(|event| format!("{} {} {}", event["type"], event["reason"], event["message"]))
        .collect()
}

fn told_events(world: &World) -> BTreeSet<String> {
    let events = world.events.iter();
    events
        .map(|told| format!("\"{:?}\" {:?} {:?}", told.event_type, told.reason, told.message))
        .collect()
}

fn recorded_revisions(scenario: &Value) -> Value {
    let fields = |revision: &Value| {
        json!([
            revision["name"],
            revision["revision"],
            revision["labels"],
            revision["annotations"],
            revision["data"]
        ])
    };
    scenario["controllerRevisions"]
        .as_array()
        .expect("revisions")
        .iter()
        .map(fields)
        .collect()
}

fn created_revisions(world: &World) -> Value {
    let fields = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
        let metadata = &revision.metadata;
        json!([
            metadata.name,
            revision.revision,
            metadata.labels,
            metadata.annotations,
            revision.data
        ])
    };
    world.created_revisions.iter().map(fields).collect()
}

/// Whether everything in `part` is in `whole`, which the API server may have added to.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|other| is_within(value, other))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() <= whole.len() && part.iter().zip(whole).all(|(part, whole)| is_within(part, whole))
        }
        _ => part == whole,
    }
}
