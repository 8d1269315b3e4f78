//! The root directory of a container: an image's layers with a writable directory over them, or a copy-on-write
//! view of the host's.
//!
//! The host's root has other file systems mounted in it, which an overlay does not show. Root lays one overlay over it, and
//! one more over each of those that matter: that takes a tenth of the files, and of the time, that an overlay for each
//! directory does. An ordinary user may not uncover what is mounted over, so there each directory becomes an overlay of its
//! own, and one with mounts below is taken apart once more.
//!
//! What an ordinary user does not own cannot be written in an overlay either, so the directories on the way to a
//! mount point are made in the upper layer beforehand (the *skeleton*): there they are the user's own.

use super::walk;
use super::{Error, at, tree};
use crate::shim::mountinfo;
use nix::mount::{MsFlags, mount};
use nix::unistd::{AccessFlags, access};
use rustix::fs::XattrFlags;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// Directories of the host's root that a container has of its own, or does not need.
const OWN: [&str; 6] = ["dev", LOST_AND_FOUND, "proc", "run", "sys", "tmp"];

/// Some file systems have it in their root directory. A container needs none.
const LOST_AND_FOUND: &str = "lost+found";

/// How deep directories with mounts below are taken apart, and up to how many entries.
const DEEPEST: usize = 3;
const MOST_ENTRIES: usize = 64;

/// File systems that are shown where they are mounted below a directory of the host's, when there is a choice.
const DISKS: [&str; 9] = [
    "ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "virtiofs",
];

/// Something that is to be there in a view of the host's root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Where, without links.
    pub path: PathBuf,
    /// What.
    pub kind: Kind,
}

/// What is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A place for a directory.
    Directory,
    /// A place for a file.
    File,
    /// A directory of which nothing is seen.
    Hidden,
}

/// Makes overlays; the current directory is where their upper layers go, and all paths of `onto` are relative to it.
pub struct Overlays {
    /// Whether the mounts belong to a user namespace.
    user: bool,
    wanted: BTreeSet<Wanted>,
    /// Where the host has mounts, and of which file systems.
    mounted: Vec<(PathBuf, String)>,
    next: usize,
}

impl Overlays {
    /// With a skeleton for everything that is `wanted`.
    pub fn new(user: bool, wanted: BTreeSet<Wanted>) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self {
            user,
            wanted,
            mounted: mountinfo::points(&table),
            next: 0,
        }
    }

    /// One overlay of `layers`, the first on top.
    pub fn layers(&mut self, layers: &[PathBuf], onto: &Path) -> Result<(), Error> {
        let upper = self.upper(layers.first().map(PathBuf::as_path))?;
        self.mount(&upper, layers, onto)
            .map_err(at("cannot mount the image's layers at", onto))
    }

    /// The host's root directory.
    pub fn host(&mut self, onto: &Path) -> Result<(), Error> {
        if self.user {
            self.each_directory(onto)
        } else {
            self.whole(onto)
        }
    }

    /// One overlay for everything but what is mounted.
    fn whole(&mut self, onto: &Path) -> Result<(), Error> {
        let root = Path::new("/");
        let upper = self.upper(Some(root))?;
        for name in OWN
            .into_iter()
            .filter(|name| *name != LOST_AND_FOUND || root.join(name).exists())
        {
            let own = upper.join(name);
            directory(&own, if name == "tmp" { 0o1777 } else { 0o755 })?;
            self.make_opaque(&own)?;
        }
        for (below, kind) in self.wanted_below(root) {
            if !is_own(&below) {
                self.skeleton(&upper, root, &below, kind)?;
            }
        }
        self.mount(&upper, &[root.to_path_buf()], onto)
            .map_err(at("cannot lay an overlay over", root))?;
        let is_shown = |path: &Path| path != root && !path.strip_prefix(root).is_ok_and(is_own);
        let mounted = self.mounted.iter().map(|(path, _)| path);
        let tops = mounted.filter(|path| path.parent() == Some(root) && is_shown(path));
        let tops: BTreeSet<PathBuf> = tops.cloned().collect();
        for top in &tops {
            self.show(top, &onto.join(top.strip_prefix(root).unwrap_or(top)), 0)?;
        }
        let is_left = |path: &Path| is_shown(path) && !tops.iter().any(|top| path.starts_with(top));
        self.disks(root, onto, is_left)
    }

    fn each_directory(&mut self, onto: &Path) -> Result<(), Error> {
        let root = Path::new("/");
        let none: Option<&str> = None;
        mount(Some(onto), onto, none, MsFlags::MS_BIND, none).map_err(at("cannot mount", onto))?;
        for name in ["dev", "proc", "run", "sys", "tmp"] {
            directory(&onto.join(name), 0o755)?;
        }
        set_mode(&onto.join("tmp"), 0o1777)?;
        for entry in fs::read_dir(root).map_err(at("cannot read", root))? {
            let entry = entry.map_err(at("cannot read", root))?;
            let name = entry.file_name();
            if !is_own(Path::new(&name)) {
                self.show(&entry.path(), &onto.join(&name), 0)?;
            }
        }
        for wanted in &self.wanted {
            if let Ok(below) = wanted.path.strip_prefix("/")
                && wanted.kind != Kind::Hidden
                && !root
                    .join(
                        below
                            .components()
                            .next()
                            .map_or(Path::new(""), |c| Path::new(c.as_os_str())),
                    )
                    .exists()
            {
                self.skeleton(onto, root, below, wanted.kind)?;
            }
        }
        Ok(())
    }

    /// One entry of the host's.
    fn show(&mut self, entry: &Path, onto: &Path, depth: usize) -> Result<(), Error> {
        let metadata = match fs::symlink_metadata(entry) {
            Ok(metadata) => metadata,
            // It went meanwhile, or is nothing for us.
            Err(_) => return Ok(()),
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let text = fs::read_link(entry).map_err(at("cannot read the link", entry))?;
            return symlink(text, onto).map_err(at("cannot create the link", onto));
        }
        if kind.is_file() {
            fs::write(onto, "").map_err(at("cannot create", onto))?;
            return only_look(entry, onto);
        }
        if !kind.is_dir() {
            return Ok(());
        }
        directory(onto, metadata.mode())?;
        let entries = match fs::read_dir(entry) {
            Ok(entries) if is_accessible(entry) => entries.take(MOST_ENTRIES + 1).collect::<Vec<_>>(),
            // What the user may not see is an empty directory that may be written.
            _ => return self.bare(entry, onto),
        };
        if entries.is_empty() {
            self.like(onto, entry)?;
            return self.bare(entry, onto);
        }
        let upper = self.upper_of(entry)?;
        match self.mount(&upper, &[entry.to_path_buf()], onto) {
            Ok(()) => self.disks(entry, onto, |path| path.starts_with(entry) && path != entry),
            Err(source) if !self.has_mounts_below(entry) => {
                Err(at("cannot lay an overlay over", entry)(source))
            }
            Err(_) if depth < DEEPEST && entries.len() <= MOST_ENTRIES => {
                self.like(onto, entry)?;
                for below in entries.into_iter().flatten() {
                    self.show(&below.path(), &onto.join(below.file_name()), depth + 1)?;
                }
                self.bare(entry, onto)
            }
            Err(_) => only_look(entry, onto),
        }
    }

    /// Where root lays an overlay over a directory, disks that are mounted below would be missing: these are not.
    fn disks(&mut self, directory: &Path, onto: &Path, these: impl Fn(&Path) -> bool) -> Result<(), Error> {
        let is_disk = |(path, kind): &&(PathBuf, String)| these(path) && DISKS.contains(&kind.as_str());
        let disks: Vec<PathBuf> = self
            .mounted
            .iter()
            .filter(is_disk)
            .map(|(path, _)| path.clone())
            .take(MOST_ENTRIES)
            .collect();
        for disk in disks {
            let below = onto.join(disk.strip_prefix(directory).unwrap_or(&disk));
            // One that another mount hides is not there to be shown.
            if !disk.is_dir() || !below.is_dir() {
                continue;
            }
            let upper = self.upper_of(&disk)?;
            self.mount(&upper, std::slice::from_ref(&disk), &below)
                .map_err(at("cannot lay an overlay over", &disk))?;
        }
        Ok(())
    }

    fn has_mounts_below(&self, directory: &Path) -> bool {
        self.mounted
            .iter()
            .any(|(path, _)| path.starts_with(directory) && path != directory)
    }

    /// What is wanted in a directory that is no overlay.
    fn bare(&self, entry: &Path, onto: &Path) -> Result<(), Error> {
        for (below, kind) in self.wanted_below(entry) {
            if kind != Kind::Hidden {
                self.skeleton(onto, Path::new("/nonexistent"), &below, kind)?;
            }
        }
        Ok(())
    }

    fn wanted_below(&self, directory: &Path) -> Vec<(PathBuf, Kind)> {
        let below = |wanted: &Wanted| {
            Some((
                wanted.path.strip_prefix(directory).ok()?.to_path_buf(),
                wanted.kind,
            ))
        };
        self.wanted
            .iter()
            .filter_map(below)
            .filter(|(below, _)| below.components().next().is_some())
            .collect()
    }

    /// An upper layer, with mode and owner of what it lies over.
    fn upper(&mut self, over: Option<&Path>) -> Result<PathBuf, Error> {
        let upper = PathBuf::from(format!("u{}", self.next));
        directory(&upper, 0o755)?;
        if let Some(over) = over {
            self.like(&upper, over)?;
        }
        Ok(upper)
    }

    /// The same for a directory of the host's, with the skeleton.
    fn upper_of(&mut self, entry: &Path) -> Result<PathBuf, Error> {
        let upper = self.upper(Some(entry))?;
        for (below, kind) in self.wanted_below(entry) {
            self.skeleton(&upper, entry, &below, kind)?;
        }
        Ok(upper)
    }

    /// Make `below` in `upper`, each directory like the one of `lower` that it will lie over.
    fn skeleton(&self, upper: &Path, lower: &Path, below: &Path, kind: Kind) -> Result<(), Error> {
        let (mut upper, mut lower) = (upper.to_path_buf(), lower.to_path_buf());
        let mut steps = below.components().peekable();
        while let Some(step) = steps.next() {
            upper.push(step);
            lower.push(step);
            let is_last = steps.peek().is_none();
            match fs::symlink_metadata(&lower) {
                Ok(found) if found.is_dir() => {
                    directory(&upper, found.mode())?;
                    self.like(&upper, &lower)?;
                    if is_last && kind == Kind::Hidden || !is_accessible(&lower) {
                        self.make_opaque(&upper)?;
                    }
                }
                Ok(_) => return Ok(()),
                Err(_) if kind == Kind::Hidden => return Ok(()),
                Err(_) if is_last && kind == Kind::File => {
                    return match fs::OpenOptions::new().write(true).create_new(true).open(&upper) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                            Err(at("cannot create", &upper)(error))
                        }
                        _ => Ok(()),
                    };
                }
                Err(_) => directory(&upper, 0o755)?,
            }
        }
        Ok(())
    }

    /// Nothing of the layers below is seen through this directory.
    fn make_opaque(&self, directory: &Path) -> Result<(), Error> {
        let name = if self.user {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        };
        rustix::fs::setxattr(directory, name, b"y", XattrFlags::empty()).map_err(at("cannot hide", directory))
    }

    /// Mode and, for root, owner of another directory.
    fn like(&self, directory: &Path, other: &Path) -> Result<(), Error> {
        let metadata = fs::metadata(other).map_err(at("cannot look at", other))?;
        if !self.user && (metadata.uid(), metadata.gid()) != (0, 0) {
            chown(directory, Some(metadata.uid()), Some(metadata.gid()))
                .map_err(at("cannot give away", directory))?;
        }
        if metadata.mode() & 0o7777 == 0o755 {
            return Ok(());
        }
        set_mode(directory, metadata.mode())
    }

    /// The layers' names may hold anything, and a mount's options only so much, so both are links.
    fn mount(&mut self, upper: &Path, layers: &[PathBuf], onto: &Path) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let mut lower = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let name = format!("l{number}_{index}");
            symlink(layer, &name)?;
            lower.push(name);
        }
        let work = format!("w{number}");
        fs::create_dir(&work)?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={work},volatile{}",
            lower.join(":"),
            upper.display(),
            if self.user { ",userxattr" } else { "" }
        );
        Ok(mount(
            Some("overlay"),
            onto,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?)
    }
}

/// Whether this, relative to the root directory, is in a directory that a container has of its own.
fn is_own(path: &Path) -> bool {
    OWN.iter().any(|own| path.starts_with(own))
}

/// Mount something of the host's as it is, not to be written.
fn only_look(entry: &Path, onto: &Path) -> Result<(), Error> {
    let put = || {
        let taken = tree::take(walk::place(entry)?.as_fd())?;
        tree::make_read_only(taken.as_fd())?;
        tree::put(taken.as_fd(), walk::place(onto)?.as_fd())
    };
    put().map_err(at("cannot show", entry))
}

fn is_accessible(directory: &Path) -> bool {
    access(directory, AccessFlags::R_OK | AccessFlags::X_OK).is_ok()
}

/// Make a directory that may be there already; as its owner may enter it.
fn directory(path: &Path, mode: u32) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(mode & 0o7777 | 0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at("cannot create", path)(error)),
        _ => Ok(()),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
        .map_err(at("cannot set the mode of", path))
}
