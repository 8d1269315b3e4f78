//! Archives in, images out: what is kept, what is shared, what is refused and leaves nothing behind.

use super::*;
use crate::image::archive::load;
use crate::image::testing::{Kind, layer, layout, saved};
use std::io::{Seek, Write};

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let store = Store::new(directory.path());
        Self { directory, store }
    }

    fn load(&self, archive: &[u8], name: Option<&str>) -> Result<Vec<Image>, Error> {
        let mut file = tempfile::tempfile().expect("tempfile");
        file.write_all(archive).expect("written");
        file.rewind().expect("rewound");
        let limits = Limits {
            keep_free: 0,
            bytes: 1 << 20,
            ..Limits::default()
        };
        let mut writer = self.store.writer(limits)?;
        let name = name.map(|name| name.parse().expect(name));
        load(&mut writer, file, name.as_ref(), &(), jiff::Timestamp::UNIX_EPOCH)
    }

    fn remove(&self, name: &str) -> Result<Removed, Error> {
        self.store.writer(Limits::default())?.remove(name)
    }

    /// Directories with layers, and what is being made.
    fn left(&self) -> (usize, usize) {
        let count = |name: &str| {
            let entries = fs::read_dir(self.directory.path().join("images").join(name))
                .into_iter()
                .flatten();
            entries.flatten().filter(|entry| entry.path().is_dir()).count()
        };
        (count("layers"), count("new"))
    }
}

#[test]
fn every_form_of_archive_is_an_image_with_the_same_layers() {
    let layers = [layer(&[("bin/a", "a")]), layer(&[("bin/b", "b")])];
    let config = r#"{"Entrypoint":["/bin/a"],"User":"7","StopSignal":"SIGQUIT"}"#;
    for (what, archive) in [
        ("saved", saved(&layers, config, &["app:1"], Kind::Plain)),
        (
            "saved, layers with gzip",
            saved(&layers, config, &["app:1"], Kind::Gzip),
        ),
        (
            "layout",
            layout(&layers, config, Some("docker.io/library/app:1"), Kind::Plain),
        ),
        (
            "layout with gzip",
            layout(&layers, config, Some("app:1"), Kind::Gzip),
        ),
        (
            "layout with zstd",
            layout(&layers, config, Some("app:1"), Kind::Zstd),
        ),
    ] {
        let place = Place::new();
        let images = place.load(&archive, None).expect(what);
        assert_eq!(images.len(), 1, "{what}");
        let found = place.store.find("app:1").expect("index").expect(what);
        assert_eq!(found, images[0]);
        assert_eq!(found.config.entrypoint, ["/bin/a"]);
        assert_eq!(found.size(), 2);
        let directories = place.store.layers(&found);
        // The uppermost comes first.
        assert_eq!(fs::read_to_string(directories[0].join("bin/b")).expect(what), "b");
        assert_eq!(fs::read_to_string(directories[1].join("bin/a")).expect(what), "a");
        assert_eq!(place.left(), (2, 0), "{what}");
    }
}

#[test]
fn an_archive_may_be_compressed_as_a_whole() {
    let archive = saved(&[layer(&[("a", "a")])], "{}", &["app:1"], Kind::Plain);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&archive).expect("compressed");
    let place = Place::new();
    place
        .load(&encoder.finish().expect("compressed"), None)
        .expect("loaded");
    assert!(place.store.find("app:1").expect("index").is_some());
}

#[test]
fn layers_are_shared_and_go_with_their_last_image() {
    let place = Place::new();
    let (base, one, two) = (
        layer(&[("base", "b")]),
        layer(&[("one", "1")]),
        layer(&[("two", "2")]),
    );
    let first = saved(&[base.clone(), one], "{}", &["first"], Kind::Plain);
    let second = saved(&[base, two], "{}", &["second", "other:2"], Kind::Plain);
    place.load(&first, None).expect("loaded");
    place.load(&second, None).expect("loaded");
    assert_eq!(place.left(), (3, 0));
    assert!(matches!(
        place.remove("first").expect("removed"),
        Removed::Image(_)
    ));
    assert_eq!(place.left(), (2, 0));
    assert_eq!(
        place.remove("second").expect("removed"),
        Removed::Name("docker.io/library/second:latest".into())
    );
    assert_eq!(place.left(), (2, 0));
    assert!(matches!(
        place.remove("other:2").expect("removed"),
        Removed::Image(_)
    ));
    assert_eq!(place.left(), (0, 0));
    let refused = place.remove("other:2").expect_err("gone").to_string();
    assert!(refused.contains("there is no image"), "{refused}");
}

#[test]
fn a_name_belongs_to_the_image_that_came_last() {
    let place = Place::new();
    let old = saved(&[layer(&[("a", "old")])], "{}", &["app:1"], Kind::Plain);
    let new = saved(&[layer(&[("a", "new")])], "{}", &["app:1"], Kind::Plain);
    let before = place.load(&old, None).expect("loaded")[0].id.clone();
    let after = place.load(&new, None).expect("loaded")[0].id.clone();
    assert_ne!(before, after);
    assert_eq!(
        place.store.find("app:1").expect("index").expect("named").id,
        after
    );
    // The other is still there, under its id.
    let unnamed = place
        .store
        .find(&before.to_string())
        .expect("index")
        .expect("there");
    assert!(unnamed.names.is_empty());
    place.remove(&before.to_string()).expect("removed");
    assert_eq!(place.left(), (1, 0));
}

#[test]
fn an_image_that_a_container_uses_stays() {
    let place = Place::new();
    let image = place.load(&saved(&[layer(&[("a", "a")])], "{}", &["app"], Kind::Plain), None);
    let id = image.expect("loaded")[0].id.clone();
    let container = place.directory.path().join("pods/default_web-0_uid/containers/c");
    fs::create_dir_all(&container).expect("made");
    place.store.hold(&id, &container).expect("held");
    let refused = place.remove("app").expect_err("used").to_string();
    assert!(refused.contains("is used by default_web-0_uid"), "{refused}");
    fs::remove_dir_all(place.directory.path().join("pods")).expect("gone");
    place.remove("app").expect("removed");
    fs::create_dir_all(&container).expect("made");
    place.store.hold(&id, &container).expect_err("gone");
}

#[test]
fn a_name_may_be_given_and_digests_find_images_too() {
    let place = Place::new();
    let archive = layout(&[layer(&[("a", "a")])], "{}", None, Kind::Plain);
    let image = place
        .load(&archive, Some("team/app:3"))
        .expect("loaded")
        .remove(0);
    assert!(image.names.contains("docker.io/team/app:3"));
    let by_digest = image.digests.first().expect("digest").clone();
    assert!(by_digest.starts_with("docker.io/team/app@sha256:"), "{by_digest}");
    assert_eq!(
        place.store.find(&by_digest).expect("index").expect("found").id,
        image.id
    );
    assert_eq!(image.image_id(), by_digest);
}

#[test]
fn what_is_damaged_or_promises_what_it_does_not_keep_is_refused_and_leaves_nothing() {
    let layers = [layer(&[("some/file", "content")])];
    let good = layout(&layers, "{}", Some("app:1"), Kind::Plain);
    let at = good
        .windows(7)
        .position(|bytes| bytes == b"content")
        .expect("there");
    let mut changed = good.clone();
    changed[at] ^= 1;
    let mut another = saved(&layers, "{}", &["app:1"], Kind::Plain);
    let at = another
        .windows(7)
        .position(|bytes| bytes == b"\"linux\"")
        .expect("there");
    another[at + 5] = b'X';
    for (what, archive, why) in [
        ("a changed layer", changed, "digest"),
        ("a changed configuration", another, "is damaged"),
        ("no image", layer(&[("a", "a")]), "this is no image"),
        ("no archive", b"x".repeat(2048), "checksum"),
        ("nothing", Vec::new(), "this is no image"),
        ("a cut archive", good[..good.len() / 2].to_vec(), "archive"),
        (
            "another machine",
            saved(&layers, "{}", &["app:1"], Kind::Sparc),
            "linux/sparc",
        ),
        (
            "an upward name",
            saved(&layers, "{}", &["../app"], Kind::Plain),
            "invalid reference",
        ),
        (
            "a hostile layer",
            saved(&[layer(&[("../x", "x")])], "{}", &["app:1"], Kind::Plain),
            "..",
        ),
    ] {
        let place = Place::new();
        let refused = place.load(&archive, None).expect_err(what).to_string();
        assert!(refused.contains(why), "{what}: {refused}");
        assert!(place.store.list().expect("index").is_empty(), "{what}");
        assert_eq!(place.left().1, 0, "{what}");
        assert!(!place.directory.path().join("images/x").exists(), "{what}");
    }
}

#[test]
fn a_compression_bomb_stops_at_the_limit() {
    let bomb = layer(&[("zeros", &"\0".repeat(4 << 20))]);
    let place = Place::new();
    let archive = layout(&[bomb], "{}", Some("app:1"), Kind::Gzip);
    assert!(archive.len() < 100_000);
    let refused = place.load(&archive, None).expect_err("too large").to_string();
    assert!(refused.contains("larger than 1048576 bytes"), "{refused}");
    assert_eq!(place.left(), (0, 0));
}

#[test]
fn what_an_interrupted_run_left_is_removed_by_the_next() {
    let place = Place::new();
    let left = place.directory.path().join("images/new/half/deep");
    fs::create_dir_all(&left).expect("made");
    fs::set_permissions(&left, fs::Permissions::from_mode(0o000)).expect("closed");
    drop(place.store.writer(Limits::default()).expect("writer"));
    assert_eq!(place.left(), (0, 0));
}
