//! What petset's StatefulSets do beyond Kubernetes': conditions, one event per cause, rollouts that unblock themselves.

use crate::world::World;
use kube::ResourceExt;
use serde_json::{Value, json};

/// A set whose pods become Ready, unless the image's name contains "bad".
fn set(policy: &str, image: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z", "annotations": annotations},
        "spec": {"replicas": 3, "podManagementPolicy": policy, "selector": {"matchLabels": {"app": "web"}},
            "template": template(image)},
    })
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}})
}

fn world(set: Value) -> World {
    let mut world = World::new();
    world.create_set(set);
    world.settle();
    world
}

fn roll_out(world: &mut World, image: &str) {
    world.patch_set(&json!({"spec": {"template": template(image)}}));
    world.settle();
}

/// The status and reason of a condition.
fn condition(world: &World, type_: &str) -> Option<(String, String)> {
    let set = world.set.as_ref()?;
    let conditions = set["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == type_)?;
    let text = |field: &str| condition[field].as_str().map(str::to_owned);
    text("status").zip(text("reason"))
}

fn is(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.into(), reason.into()))
}

fn images(world: &World) -> Vec<String> {
    let images = world.pods.values().map(|pod| {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        spec.containers[0].image.clone().unwrap_or_default()
    });
    images.collect()
}

fn reasons(world: &World) -> Vec<&str> {
    world.news.iter().map(|news| news.reason.as_str()).collect()
}

#[test]
fn a_set_that_is_all_there_is_available_and_complete() {
    let world = world(set("OrderedReady", "good", json!({})));
    assert_eq!(condition(&world, "Available"), is("True", "AllReplicasAvailable"));
    assert_eq!(condition(&world, "Progressing"), is("True", "Complete"));
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn a_bad_rollout_blocks_an_ordered_set_and_is_told_once() {
    let mut world = world(set("OrderedReady", "good", json!({})));
    roll_out(&mut world, "bad");
    assert_eq!(condition(&world, "Available"), is("False", "ReplicasUnavailable"));
    assert_eq!(condition(&world, "Progressing"), is("False", "PodNotReady"));
    // Upstream's behaviour, by default: a repaired template does not help (67250).
    roll_out(&mut world, "better");
    assert_eq!(images(&world), ["good", "good", "bad"]);
    assert_eq!(condition(&world, "Progressing"), is("False", "RolloutBlocked"));
    assert_eq!(reasons(&world), ["PodNotReady", "RolloutBlocked"]);
    let told = &world.news[1].message;
    for part in [
        "web-2",
        "kubectl delete pod web-2 -n ns",
        "petset.dev/unblock-rollout=true",
    ] {
        assert!(told.contains(part), "{told} has no {part}");
    }
    // What it says to do helps.
    world.delete_pod("web-2");
    world.settle();
    assert_eq!(images(&world), ["better", "better", "better"]);
    assert_eq!(condition(&world, "Progressing"), is("True", "Complete"));
}

#[test]
fn a_set_that_wants_it_replaces_what_blocks_its_rollout() {
    let mut world = world(set(
        "OrderedReady",
        "bad",
        json!({"petset.dev/unblock-rollout": "true"}),
    ));
    assert_eq!(images(&world), ["bad"]);
    roll_out(&mut world, "good");
    assert_eq!(images(&world), ["good", "good", "good"]);
    roll_out(&mut world, "bad");
    assert_eq!(images(&world), ["good", "good", "bad"]);
    roll_out(&mut world, "better");
    assert_eq!(images(&world), ["better", "better", "better"]);
    let unblocked = world
        .events
        .iter()
        .filter(|event| event.reason == "RolloutUnblocked");
    assert_eq!(unblocked.count(), 2);
}

#[test]
fn unblocking_leaves_pods_below_the_partition_and_pods_of_the_new_template_alone() {
    let mut world = world(set(
        "OrderedReady",
        "bad",
        json!({"petset.dev/unblock-rollout": "true"}),
    ));
    world.patch_set(&json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}, "template": template("good")}}));
    world.settle();
    assert_eq!(images(&world), ["bad"]);
    world.patch_set(&json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}, "template": template("bad-too")}}));
    world.settle();
    assert_eq!(images(&world), ["bad-too"]);
    let uid = world.pods["web-0"].uid();
    world.settle();
    assert_eq!(world.pods["web-0"].uid(), uid);
}

#[test]
fn conditions_of_others_survive() {
    let mut world = world(set("OrderedReady", "good", json!({})));
    let theirs = json!({"type": "example.com/BackedUp", "status": "True", "reason": "Nightly"});
    let set = world.set.as_mut().expect("a set");
    set["status"]["conditions"]
        .as_array_mut()
        .expect("conditions")
        .push(theirs);
    roll_out(&mut world, "better");
    assert_eq!(condition(&world, "example.com/BackedUp"), is("True", "Nightly"));
    assert_eq!(condition(&world, "Progressing"), is("True", "Complete"));
}

#[test]
fn a_missing_service_is_told_once_and_after_a_while() {
    let mut missing = set("Parallel", "good", json!({}));
    missing["spec"]["serviceName"] = json!("nginx");
    let mut world = world(missing);
    roll_out(&mut world, "better");
    assert_eq!(reasons(&world), ["ServiceNotFound"]);
    assert_eq!(
        condition(&world, "GoverningService"),
        is("False", "ServiceNotFound")
    );
}
