//! What a layer may do, and what it may not, whoever unpacks it.

use super::*;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use tar::{Builder, Header};

/// An archive under construction whose paths and targets are taken as they are.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_000_000);
        // As root the owner is given to the file.
        header.set_uid(Uid::effective().as_raw().into());
        header.set_gid(Gid::effective().as_raw().into());
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).expect("major");
            header.set_device_minor(3).expect("minor");
        }
        // The builder's own functions refuse what is tried here.
        let gnu = header.as_gnu_mut().expect("gnu");
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("added");
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", 0o755, b"")
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, path, to, 0o777, b"")
    }

    fn hard_link(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Link, path, to, 0o644, b"")
    }

    fn attribute(mut self, name: &str, value: &str) -> Self {
        let name = format!("SCHILY.xattr.{name}");
        self.0
            .append_pax_extensions([(&*name, value.as_bytes())])
            .expect("added");
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("archive")
    }
}

/// A directory with a file beside the layer's, which nothing may touch.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("tempdir"));
        fs::create_dir(place.layer("")).expect("made");
        fs::write(place.outside(), "untouched").expect("written");
        place
    }

    fn layer(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join("layer").join(path)
    }

    fn outside(&self) -> std::path::PathBuf {
        self.0.path().join("outside")
    }

    fn unpack(&self, tar: Tar) -> io::Result<u64> {
        self.unpack_within(
            tar,
            Limits {
                keep_free: 0,
                ..Limits::default()
            },
        )
    }

    fn unpack_within(&self, tar: Tar, limits: Limits) -> io::Result<u64> {
        unpack(&tar.bytes()[..], &self.layer(""), limits)
    }

    /// What is there now beside the layer.
    fn assert_untouched(&self, what: &str) {
        let names: Vec<_> = fs::read_dir(self.0.path())
            .expect("read")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names.len(), 2, "{what}: {names:?}");
        assert_eq!(
            fs::read_to_string(self.outside()).expect("read"),
            "untouched",
            "{what}"
        );
        let metadata = fs::metadata(self.outside()).expect("metadata");
        assert_eq!(metadata.nlink(), 1, "{what}");
    }
}

fn attribute(path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("path");
    let mut value = vec![0; 64];
    // SAFETY: both strings end with a zero byte, and the buffer is as long as is said.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

#[test]
fn files_directories_and_links_come_out_as_they_went_in() {
    let place = Place::new();
    let written = place
        .unpack(
            Tar::new()
                .directory("./")
                .add(EntryType::Directory, "bin/", "", 0o555, b"")
                .add(EntryType::Regular, "bin/tool", "", 0o4755, b"tool")
                .hard_link("bin/same", "bin/tool")
                .link("tool", "/bin/tool")
                .file("implicit/deep/file", "x")
                .add(EntryType::Fifo, "pipe", "", 0o600, b""),
        )
        .expect("unpacked");
    assert_eq!(written, 5);
    let tool = fs::metadata(place.layer("bin/tool")).expect("tool");
    assert_eq!(
        (tool.mode() & 0o7777, tool.nlink(), tool.mtime()),
        (0o4755, 2, 1_000_000)
    );
    let bin = fs::metadata(place.layer("bin")).expect("bin");
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o555, 1_000_000));
    assert_eq!(
        fs::read_link(place.layer("tool")).expect("link"),
        Path::new("/bin/tool")
    );
    assert!(fs::metadata(place.layer("implicit/deep")).expect("made").is_dir());
    assert!(
        fs::symlink_metadata(place.layer("pipe"))
            .expect("pipe")
            .file_type()
            .is_fifo()
    );
    fs::set_permissions(place.layer("bin"), fs::Permissions::from_mode(0o755)).expect("for the removal");
}

#[test]
fn no_path_leads_out_of_the_layer() {
    let outside = Place::new();
    let absolute = outside.outside();
    let target = absolute.to_str().expect("text");
    let parent = outside.0.path().to_str().expect("text").to_owned();
    for (what, tar) in [
        ("..", Tar::new().file("../outside", "broken")),
        (
            ".. in the middle",
            Tar::new().directory("a").file("a/../../outside", "broken"),
        ),
        ("a whiteout upwards", Tar::new().file("../.wh.outside", "")),
        ("a whiteout of ..", Tar::new().file(".wh...", "")),
        (
            "an absolute link",
            Tar::new().link("up", &parent).file("up/outside", "broken"),
        ),
        (
            "a link to the file",
            Tar::new()
                .link("f", target)
                .file("f", "broken")
                .file("f/x", "broken"),
        ),
        (
            "links in a circle",
            Tar::new().link("a", "b").link("b", "a").file("a/x", "broken"),
        ),
        (
            "/proc",
            Tar::new().link("a", "/proc/self/cwd").file("a/outside", "broken"),
        ),
        ("a hard link upwards", Tar::new().hard_link("h", "../outside")),
        ("an absolute hard link", Tar::new().hard_link("h", target)),
        (
            "a hard link through a link",
            Tar::new().link("up", "..").hard_link("h", "up/outside"),
        ),
        (
            "a hard link to a directory",
            Tar::new().directory("d").hard_link("h", "d"),
        ),
        ("a hard link to nothing", Tar::new().hard_link("h", "none")),
        (
            "an opaque mark upwards",
            Tar::new()
                .link("up", "..")
                .file("up/.wh..wh..opq", "")
                .file("../x", ""),
        ),
        ("a file in a file", Tar::new().file("f", "").file("f/x", "broken")),
        ("the root as a file", Tar::new().file("./", "broken")),
        ("the root as a link", Tar::new().link("/", "..")),
        (
            "an unknown kind",
            Tar::new().add(EntryType::new(b'Q'), "q", "", 0o644, b""),
        ),
    ] {
        let place = Place::new();
        let refused = place.unpack(tar);
        place.assert_untouched(what);
        outside.assert_untouched(what);
        assert!(refused.is_err(), "{what}");
    }
}

#[test]
fn links_within_the_layer_are_followed_as_if_it_were_the_root() {
    let place = Place::new();
    place
        .unpack(
            Tar::new()
                .directory("usr/lib")
                .link("lib", "/usr/lib")
                .file("lib/one", "1")
                .link("up", "../../..")
                .file("up/two", "2"),
        )
        .expect("unpacked");
    assert_eq!(fs::read_to_string(place.layer("usr/lib/one")).expect("one"), "1");
    assert_eq!(fs::read_to_string(place.layer("two")).expect("two"), "2");
    place.assert_untouched("links upwards");
}

#[test]
fn what_comes_later_replaces_what_was_there_and_follows_no_link() {
    let place = Place::new();
    let outside = place.outside();
    place
        .unpack(
            Tar::new()
                .file("a", "old")
                .file("a", "new")
                .link("b", outside.to_str().expect("text"))
                .file("b", "a file now")
                .directory("c/d")
                .file("c", "a file, too")
                .link("e", "..")
                .directory("e"),
        )
        .expect("unpacked");
    assert_eq!(fs::read_to_string(place.layer("a")).expect("a"), "new");
    assert_eq!(fs::read_to_string(place.layer("b")).expect("b"), "a file now");
    assert!(fs::symlink_metadata(place.layer("c")).expect("c").is_file());
    assert!(fs::symlink_metadata(place.layer("e")).expect("e").is_dir());
    place.assert_untouched("replacing");
}

#[test]
fn devices_are_not_made() {
    let place = Place::new();
    let tar =
        Tar::new()
            .add(EntryType::Char, "null", "", 0o666, b"")
            .add(EntryType::Block, "disk", "", 0o666, b"");
    place.unpack(tar).expect("unpacked");
    assert_eq!(fs::read_dir(place.layer("")).expect("read").count(), 0);
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let place = Place::new();
    place
        .unpack(
            Tar::new()
                .file("etc/.wh.gone", "")
                .file("var/.wh..wh..opq", "")
                .file("var/kept", "x")
                .file(".wh..wh.plnk", "")
                .directory("own")
                .file(".wh.own", "")
                .file(".wh.again", "")
                .directory("again")
                .file(".wh.deep", "")
                .file("deep/file", "x"),
        )
        .expect("unpacked");
    let gone = fs::symlink_metadata(place.layer("etc/gone")).expect("gone");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(!place.layer(".wh..wh.plnk").exists());
    for opaque in ["var", "own", "again", "deep"] {
        let value = attribute(&place.layer(opaque), c"user.overlay.opaque");
        assert_eq!(value.as_deref(), Some(&b"y"[..]), "{opaque}");
    }
    assert_eq!(attribute(&place.layer("etc"), c"user.overlay.opaque"), None);
    assert!(place.layer("deep/file").exists());
}

#[test]
fn an_archive_cannot_speak_to_overlayfs_itself() {
    let place = Place::new();
    let tar = Tar::new()
        .attribute("user.overlay.redirect", "/etc")
        .directory("a")
        .attribute("trusted.overlay.redirect", "/etc")
        .directory("b")
        .attribute("user.note", "kept")
        .directory("c");
    place.unpack(tar).expect("unpacked");
    assert_eq!(attribute(&place.layer("a"), c"user.overlay.redirect"), None);
    assert_eq!(attribute(&place.layer("b"), c"trusted.overlay.redirect"), None);
    assert_eq!(
        attribute(&place.layer("c"), c"user.note").as_deref(),
        Some(&b"kept"[..])
    );
}

#[test]
fn bytes_entries_depth_and_disk_have_bounds() {
    let limits = Limits {
        bytes: 10_000,
        entries: 5,
        keep_free: 0,
    };
    let many = (0..6).fold(Tar::new(), |tar, n| tar.directory(&n.to_string()));
    let large = Tar::new().file("a", &"x".repeat(9_000));
    let no_room = Limits {
        keep_free: u64::MAX,
        ..limits
    };
    for (what, tar, limits) in [
        ("more than 5 entries", many, limits),
        ("larger than 10000 bytes", large, limits),
        ("left on the disk", Tar::new().file("a", "x"), no_room),
    ] {
        let refused = Place::new()
            .unpack_within(tar, limits)
            .expect_err(what)
            .to_string();
        assert!(refused.contains(what), "{refused}");
    }
    // Each link leads 40 directories deeper than the one before.
    let deep = "d/".repeat(40);
    let tar = (0..10).fold(Tar::new(), |tar, n| {
        let below = format!(
            "{}{deep}",
            if n == 0 {
                String::new()
            } else {
                format!("l{}/", n - 1)
            }
        );
        tar.directory(&below).link(&format!("l{n}"), &below)
    });
    let refused = Place::new().unpack(tar).expect_err("too deep").to_string();
    assert!(refused.contains("nested too deeply"), "{refused}");
}
