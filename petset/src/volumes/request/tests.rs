//! What may be removed of what was named.

use super::*;

fn item(what: What, namespace: &str, name: &str, standing: Standing) -> Item {
    Item {
        what,
        namespace: (!namespace.is_empty()).then(|| namespace.into()),
        name: name.into(),
        uid: Some("u".into()),
        resource_version: Some("1".into()),
        phase: None,
        volume: None,
        reclaim_policy: None,
        path: None,
        own_data: false,
        capacity: None,
        created: None,
        used_by: vec![],
        last_used_by: None,
        last_used: None,
        standing,
    }
}

fn leftover() -> Standing {
    Standing::Leftover("nobody needs it".into())
}

fn world() -> Vec<Item> {
    vec![
        item(What::Claim, "default", "a", leftover()),
        item(
            What::Claim,
            "default",
            "used",
            Standing::InUse("used by pod p".into()),
        ),
        item(
            What::Claim,
            "default",
            "wanted",
            Standing::Wanted("StatefulSet web wants it for pod web-1".into()),
        ),
        item(
            What::Claim,
            "default",
            "going",
            Standing::Going("it is being deleted".into()),
        ),
        item(What::Claim, "other", "a", leftover()),
        item(What::Claim, "other", "b", leftover()),
        item(What::Volume, "default", "v", leftover()),
        item(
            What::Volume,
            "default",
            "bound",
            Standing::Bound("default/used".into()),
        ),
        item(What::Directory, "default", "d", leftover()),
    ]
}

#[test]
fn names_are_claims_unless_they_say_otherwise() {
    let items = world();
    let table = [
        ("a", 0),
        ("pvc/a", 0),
        ("persistentvolumeclaim/a", 0),
        ("other/a", 4),
        ("pv/v", 6),
        ("persistentvolume/v", 6),
        ("dir/d", 8),
    ];
    for (name, place) in table {
        let chosen = named(&items, &[name.into()], "default");
        assert_eq!(chosen.items, [&items[place]], "{name}");
        assert!(chosen.refused.is_empty(), "{name}: {:?}", chosen.refused);
    }
    assert_eq!(named(&items, &["a".into()], "other").items, [&items[4]]);
    let twice = named(&items, &["a".into(), "pvc/a".into(), "pv/v".into()], "default");
    assert_eq!(twice.items, [&items[0], &items[6]]);
}

#[test]
fn what_is_not_a_leftover_is_refused_with_the_reason_and_the_rest_is_not() {
    let items = world();
    let table = [
        (
            "used",
            "pvc/used is in use (used by pod p): delete the pod or scale its set down first",
        ),
        (
            "wanted",
            "pvc/wanted is still needed (StatefulSet web wants it for pod web-1)",
        ),
        ("going", "pvc/going cannot be removed now: it is being deleted"),
        (
            "pv/bound",
            "pv/bound is bound to claim default/used: prune that claim instead",
        ),
        (
            "b",
            "there is no claim b in namespace default; there is one in namespace other: say other/b",
        ),
        (
            "v",
            "there is no claim v in namespace default; did you mean pv/v?",
        ),
        ("nothing", "there is no claim nothing in namespace default"),
        ("pv/nothing", "there is no PersistentVolume nothing"),
        ("pv/../a", "there is no PersistentVolume ../a"),
        (
            "dir/nothing",
            "there is no directory nothing that petset made and no PersistentVolume mentions",
        ),
    ];
    for (name, why) in table {
        let chosen = named(&items, &["a".into(), name.into()], "default");
        assert_eq!(chosen.items, [&items[0]], "{name}");
        assert_eq!(chosen.refused, [why]);
    }
}

#[test]
fn what_has_changed_since_it_was_shown_stays() {
    let shown = item(What::Claim, "default", "a", leftover());
    assert_eq!(unchanged(&world(), &shown), Ok(&shown));
    let mut later = shown.clone();
    later.resource_version = Some("2".into());
    let mut another = shown.clone();
    another.uid = Some("other".into());
    let mut used = shown.clone();
    used.standing = Standing::InUse("used by pod p".into());
    let table = [
        (
            vec![later],
            "pvc/a is kept: it was changed meanwhile; look again with petset volumes",
        ),
        (
            vec![another],
            "pvc/a is kept: it was changed meanwhile; look again with petset volumes",
        ),
        (vec![used], "pvc/a is kept: used by pod p meanwhile"),
        (vec![], "pvc/a is gone already"),
    ];
    for (now, why) in table {
        assert_eq!(unchanged(&now, &shown), Err(why.to_owned()));
    }
}

#[test]
fn what_goes_is_said_exactly() {
    let path = || Some("/data/volumes/default_a_0123abcd".into());
    let mut claim = item(What::Claim, "default", "a", leftover());
    assert_eq!(claim.consequence(), "claim default/a, which has no volume");
    claim.volume = Some("v".into());
    claim.path = path();
    claim.own_data = true;
    claim.reclaim_policy = Some("Retain".into());
    assert_eq!(
        claim.consequence(),
        "claim default/a; its volume pv/v and the data stay (reclaim policy Retain)"
    );
    assert!(!claim.loses_data());
    claim.reclaim_policy = Some("Delete".into());
    assert_eq!(
        claim.consequence(),
        "claim default/a with its volume v and the data in /data/volumes/default_a_0123abcd (reclaim policy Delete)"
    );
    assert!(claim.loses_data());
    let mut volume = item(What::Volume, "default", "v", leftover());
    volume.path = path();
    assert_eq!(
        volume.consequence(),
        "volume v; the data in /data/volumes/default_a_0123abcd stays"
    );
    assert!(!volume.loses_data());
    volume.own_data = true;
    volume.reclaim_policy = Some("Retain".into());
    assert_eq!(
        volume.consequence(),
        "volume v with the data in /data/volumes/default_a_0123abcd"
    );
    assert!(volume.loses_data());
}
