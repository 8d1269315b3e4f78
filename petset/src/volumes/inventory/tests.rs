//! What counts as a leftover, as a table.

use super::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const DIR: &str = "/data/volumes";

fn of<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn claim(name: &str, volume: Option<&str>) -> PersistentVolumeClaim {
    of(json!({
        "metadata": {"name": name, "namespace": "default", "uid": "0123abcd-claim", "resourceVersion": "7"},
        "spec": {"volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": if volume.is_some() { "Bound" } else { "Pending" }},
    }))
}

/// A volume with its directory in `volumes/`, of the claim `default/CLAIM`, whose UID is as [`claim`]'s.
fn volume(name: &str, phase: &str, claim: Option<&str>) -> PersistentVolume {
    let reference =
        claim.map(|claim| json!({"namespace": "default", "name": claim, "uid": "0123abcd-claim"}));
    of(json!({
        "metadata": {"name": name, "uid": format!("{name}-uid"), "resourceVersion": "8"},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "claimRef": reference,
            "hostPath": {"path": format!("{DIR}/default_{}_0123abcd", claim.unwrap_or(name))},
            "persistentVolumeReclaimPolicy": "Retain",
        },
        "status": {"phase": phase},
    }))
}

fn pod(name: &str, volume: &Value) -> Pod {
    let mut source = volume.clone();
    source["name"] = "v".into();
    of(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [], "volumes": [source]},
        "status": {"phase": "Succeeded"},
    }))
}

fn set(start: i32, replicas: i32) -> StatefulSet {
    of(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "ordinals": {"start": start}, "selector": {},
            "template": {"spec": {"containers": [],
                "volumes": [{"name": "s", "persistentVolumeClaim": {"claimName": "shared"}}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "www"}}],
        },
    }))
}

fn world() -> Observed {
    Observed {
        volumes_dir: DIR.into(),
        ..Observed::default()
    }
}

/// The standing of the one thing that there is.
fn standing(observed: &Observed) -> (&'static str, String) {
    let items = inventory(observed);
    assert_eq!(items.len(), 1, "{items:?}");
    (items[0].standing.word(), items[0].standing.why())
}

#[test]
fn a_claim_is_left_over_when_no_pod_uses_it_and_no_set_wants_it() {
    let uses = json!({"persistentVolumeClaim": {"claimName": "www-web-1"}});
    let other = json!({"persistentVolumeClaim": {"claimName": "www-web-0"}});
    let nobody = "no pod uses it, no StatefulSet wants it";
    let wanted = "StatefulSet web wants it for pod web-1";
    // claim, set (start, replicas), pod's volume, standing, why
    type Case<'a> = (&'a str, Option<(i32, i32)>, Option<&'a Value>, &'a str, &'a str);
    let table: [Case; 14] = [
        ("www-web-1", None, None, "leftover", nobody),
        ("www-web-1", None, Some(&other), "leftover", nobody),
        ("www-web-1", None, Some(&uses), "in use", "used by pod p-0"),
        ("www-web-1", Some((0, 2)), None, "wanted", wanted),
        ("www-web-1", Some((1, 1)), None, "wanted", wanted),
        (
            "www-web-1",
            Some((0, 2)),
            Some(&uses),
            "in use",
            "used by pod p-0",
        ),
        // A pod on its way out still has it.
        (
            "www-web-1",
            Some((0, 1)),
            Some(&uses),
            "in use",
            "used by pod p-0",
        ),
        (
            "www-web-1",
            Some((0, 1)),
            None,
            "leftover",
            "StatefulSet web has ordinals 0 to 0 only",
        ),
        (
            "www-web-1",
            Some((2, 3)),
            None,
            "leftover",
            "StatefulSet web has ordinals 2 to 4 only",
        ),
        (
            "www-web-1",
            Some((0, 0)),
            None,
            "leftover",
            "StatefulSet web has no replicas",
        ),
        // Names that only look like the set's.
        ("www-web-01", Some((0, 2)), None, "leftover", nobody),
        ("logs-web-1", Some((0, 2)), None, "leftover", nobody),
        ("www-web2-1", Some((0, 2)), None, "leftover", nobody),
        (
            "shared",
            Some((0, 0)),
            None,
            "wanted",
            "the pod template of StatefulSet web names it",
        ),
    ];
    for (name, range, volume, word, why) in table {
        let observed = Observed {
            claims: vec![claim(name, None)],
            sets: range
                .map(|(start, replicas)| set(start, replicas))
                .into_iter()
                .collect(),
            pods: volume.map(|volume| pod("p-0", volume)).into_iter().collect(),
            ..world()
        };
        assert_eq!(
            standing(&observed),
            (word, why.to_owned()),
            "{name} {range:?} {volume:?}"
        );
    }
}

#[test]
fn sets_and_pods_of_other_namespaces_do_not_count() {
    let mut elsewhere = set(0, 2);
    elsewhere.metadata.namespace = Some("other".into());
    let mut user = pod(
        "p-0",
        &json!({"persistentVolumeClaim": {"claimName": "www-web-1"}}),
    );
    user.metadata.namespace = Some("other".into());
    let observed = Observed {
        claims: vec![claim("www-web-1", None)],
        sets: vec![elsewhere],
        pods: vec![user],
        ..world()
    };
    assert_eq!(standing(&observed).0, "leftover");
}

#[test]
fn the_set_that_is_gone_is_named_where_it_is_known() {
    let mut volume = volume("v", "Bound", Some("www-web-1"));
    let claims = |claim: PersistentVolumeClaim, volume: &PersistentVolume| Observed {
        claims: vec![claim],
        volumes: vec![volume.clone()],
        ..world()
    };
    let why = |observed: &Observed| inventory(observed)[0].standing.why();
    let bound = claim("www-web-1", Some("v"));
    assert_eq!(
        why(&claims(bound.clone(), &volume)),
        "no pod uses it, no StatefulSet wants it"
    );
    volume
        .annotations_mut()
        .insert(LAST_USED_BY.into(), "default/web-1".into());
    assert_eq!(why(&claims(bound.clone(), &volume)), "StatefulSet web is gone");
    // A pod that is no member of any set says nothing about sets.
    volume
        .annotations_mut()
        .insert(LAST_USED_BY.into(), "default/debug".into());
    assert_eq!(
        why(&claims(bound.clone(), &volume)),
        "no pod uses it, no StatefulSet wants it"
    );
    let mut owned = bound;
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u"});
    owned.metadata.owner_references = Some(vec![of(owner)]);
    assert_eq!(why(&claims(owned, &volume)), "StatefulSet db is gone");
}

#[test]
fn an_ephemeral_volume_s_claim_is_its_pod_s() {
    let observed = Observed {
        claims: vec![claim("p-0-v", None)],
        pods: vec![pod("p-0", &json!({"ephemeral": {}}))],
        ..world()
    };
    assert_eq!(standing(&observed).0, "in use");
}

#[test]
fn a_claim_that_is_going_is_not_removed_twice() {
    let mut going = claim("www-web-1", None);
    going.metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    let observed = Observed {
        claims: vec![going],
        ..world()
    };
    assert_eq!(standing(&observed).0, "going");
}

#[test]
fn a_volume_is_left_over_by_its_phase_unless_a_claim_has_it() {
    let released = "claim default/www-web-1 is gone, reclaim policy Retain";
    let reserved = "reserved for claim default/www-web-1, which does not exist";
    let of_claim = Some("www-web-1");
    let table = [
        ("Released", of_claim, "leftover", released),
        ("Failed", of_claim, "leftover", "failed"),
        ("Available", None, "leftover", "no claim has it"),
        ("Available", of_claim, "leftover", reserved),
        ("Pending", None, "going", "its phase is about to change"),
        ("", None, "going", "its phase is about to change"),
        ("Bound", of_claim, "going", "its phase is about to change"),
    ];
    for (phase, claim_name, word, why) in table {
        let observed = Observed {
            volumes: vec![volume("v", phase, claim_name)],
            ..world()
        };
        assert_eq!(
            standing(&observed),
            (word, why.to_owned()),
            "{phase} {claim_name:?}"
        );
        // Whatever the phase says, a claim that has or wants the volume keeps it.
        for claims in [claim("www-web-1", Some("v")), claim("other", Some("v"))] {
            let observed = Observed {
                claims: vec![claims],
                ..observed.clone()
            };
            let standing = &inventory(&observed)[1].standing;
            assert_eq!(standing.word(), "bound", "{phase} {claim_name:?}");
        }
    }
    let for_a_set = Observed {
        volumes: vec![volume("v", "Available", of_claim)],
        sets: vec![set(0, 2)],
        ..world()
    };
    assert_eq!(standing(&for_a_set).0, "wanted");
    let mut namesake = claim("www-web-1", None);
    namesake.metadata.uid = Some("later".into());
    let after_a_namesake = Observed {
        volumes: vec![volume("v", "Released", of_claim)],
        claims: vec![namesake],
        ..world()
    };
    assert_eq!(inventory(&after_a_namesake)[1].standing.why(), released);
}

#[test]
fn a_volume_whose_directory_a_pod_mounts_by_its_path_is_in_use() {
    for (path, word) in [
        (format!("{DIR}/default_www-web-1_0123abcd"), "in use"),
        (format!("{DIR}/default_www-web-1_0123abcd/deep"), "in use"),
        (format!("{DIR}/default_www-web-1_0123abcde"), "leftover"),
    ] {
        let observed = Observed {
            volumes: vec![volume("v", "Released", Some("www-web-1"))],
            pods: vec![pod("p", &json!({"hostPath": {"path": path}}))],
            ..world()
        };
        assert_eq!(standing(&observed).0, word, "{path}");
    }
}

#[test]
fn a_directory_is_left_over_when_no_volume_mentions_it_and_no_claim_is_about_to() {
    let found = |name: &str| Observed {
        directories: vec![Directory {
            name: name.into(),
            made: None,
        }],
        ..world()
    };
    let ours = "default_www-web-1_0123abcd";
    assert_eq!(standing(&found(ours)).0, "leftover");
    for foreign in [
        "lost+found",
        "default_www-web-1",
        "_www_0123abcd",
        "a__0123abcd",
        "a_b_0123abcg",
        "a_b_0123abc",
    ] {
        assert_eq!(inventory(&found(foreign)), [], "{foreign} was not made by petset");
    }
    let being_provisioned = Observed {
        claims: vec![claim("www-web-1", None)],
        ..found(ours)
    };
    assert_eq!(inventory(&being_provisioned)[1].standing.word(), "wanted");
    let mentioned = Observed {
        volumes: vec![volume("v", "Released", Some("www-web-1"))],
        ..found(ours)
    };
    assert_eq!(inventory(&mentioned).len(), 1, "only the volume is listed");
    let mounted = Observed {
        pods: vec![pod("p", &json!({"hostPath": {"path": format!("{DIR}/{ours}")}}))],
        ..found(ours)
    };
    assert_eq!(standing(&mounted).0, "in use");
}

#[test]
fn only_data_in_a_directory_that_petset_made_and_no_other_volume_mentions_may_be_removed() {
    let own = |volumes: Vec<PersistentVolume>| inventory(&Observed { volumes, ..world() })[0].own_data;
    let released = volume("a", "Released", Some("c"));
    assert!(own(vec![released.clone()]));
    let mut twin = released.clone();
    twin.metadata.name = Some("b".into());
    assert!(!own(vec![released.clone(), twin]));
    for path in [
        "/srv/data",
        "/data/volumes",
        "/data/volumes/mine",
        "/data/volumes/default_c_0123abcd/../x",
        "/",
    ] {
        let mut elsewhere = released.clone();
        let spec = elsewhere.spec.as_mut().expect("it has one");
        spec.host_path.as_mut().expect("it has one").path = path.into();
        assert!(!own(vec![elsewhere]), "{path}");
    }
    let mut nfs = released;
    nfs.spec.as_mut().expect("it has one").host_path = None;
    assert!(!own(vec![nfs]));
}

#[test]
fn an_item_tells_what_there_is_to_know() {
    let mut used = volume("v", "Bound", Some("www-web-1"));
    let annotations = used.annotations_mut();
    annotations.insert(LAST_USED_BY.into(), "default/web-1".into());
    annotations.insert(LAST_USED.into(), "2026-01-02T03:04:05Z".into());
    let observed = Observed {
        claims: vec![claim("www-web-1", Some("v"))],
        volumes: vec![used],
        ..world()
    };
    let item = &inventory(&observed)[0];
    assert_eq!(item.to_string(), "pvc/www-web-1");
    assert_eq!(item.volume.as_deref(), Some("v"));
    assert_eq!(
        item.capacity,
        Some(2 << 30),
        "what the volume has, not what was asked for"
    );
    assert_eq!(item.last_used_by.as_deref(), Some("default/web-1"));
    assert_eq!(
        item.last_used.map(|at| at.to_string()).as_deref(),
        Some("2026-01-02T03:04:05Z")
    );
    let elsewhere = Observed {
        claims: vec![claim("www-web-2", Some("v"))],
        volumes: vec![volume("v", "Bound", None)],
        ..world()
    };
    assert_eq!(
        inventory(&elsewhere)[0].volume,
        None,
        "the volume does not know this claim"
    );
}
