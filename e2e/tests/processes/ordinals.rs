//! Processes when the names of a set begin somewhere else.

use crate::sets::{ends, is_ready, patch, pods, uid, until_says, with_ready};
use e2e::binary::{PATIENCE, eventually};
use serde_json::{Value, json};

/// Move the ordinals of two pods; the names there are in the end, and who went in which order.
fn moves(from: i64, to: &Value, expected: [&str; 2], gone: &[&str]) {
    let cluster = with_ready(json!({"replicas": 2, "ordinals": {"start": from}}));
    let before = pods(&cluster);
    let stays: Vec<_> = before
        .iter()
        .filter(|name| expected.contains(&name.as_str()))
        .collect();
    let uids: Vec<_> = stays
        .iter()
        .map(|name| uid(&cluster.get(&format!("pod {name}"))).to_owned())
        .collect();
    patch(&cluster, &json!({"spec": {"ordinals": to}}));
    eventually("the pods have moved", PATIENCE, || {
        let pods = pods(&cluster);
        (pods == expected).then_some(()).ok_or_else(|| pods.join(" "))
    });
    cluster.until_available("web", 2);
    for name in expected {
        let pod = cluster.get(&format!("pod {name}"));
        assert!(is_ready(&pod), "{pod:#}");
        let index = name.trim_start_matches("web-");
        assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], index);
        until_says(&cluster, name, "hostname", &format!("{name}\n"));
    }
    for (name, old) in stays.iter().zip(&uids) {
        assert_eq!(
            uid(&cluster.get(&format!("pod {name}"))),
            old,
            "it had no part in it"
        );
    }
    assert_eq!(ends(&cluster), gone);
}

/// E30.
#[test]
fn a_start_that_moves_up_leaves_exactly_the_new_pods() {
    moves(2, &json!({"start": 4}), ["web-4", "web-5"], &["web-3", "web-2"]);
}

/// E31.
#[test]
fn a_start_that_moves_down_leaves_exactly_the_new_range() {
    moves(3, &json!({"start": 2}), ["web-2", "web-3"], &["web-4"]);
}

/// E32.
#[test]
fn without_ordinals_the_pods_begin_at_0() {
    moves(3, &Value::Null, ["web-0", "web-1"], &["web-4", "web-3"]);
}
