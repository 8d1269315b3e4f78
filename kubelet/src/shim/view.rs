//! A container's own view of the file system, made in its (fresh) mount and PID namespaces: a root directory that it
//! may write to without the host or anybody else seeing it, the system's directories, and volumes at their mount paths.
//!
//! Everything is put together below `spec.scratch` and becomes the root by `pivot_root`; the mounts go with the last
//! process of the namespace. What volumes are made of is opened before, and their places are looked for step by
//! step, so that no link inside a volume or an image leads anywhere else ([`walk`]).

pub mod memory;
pub mod mirror;
mod overlay;
mod system;
pub mod tree;
pub mod walk;

use super::protocol::{Mount, Root, Spec};
use crate::shim::user;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode as Umask, umask};
use nix::unistd::pivot_root;
use overlay::{Kind, Overlays, Wanted};
use rustix::fs::{FileType, Mode};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use walk::{Above, Make};

/// What went wrong, with the path it went wrong at.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {source}")]
pub struct Error {
    doing: &'static str,
    path: String,
    source: io::Error,
}

fn at<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.display().to_string();
    move |source| Error {
        doing,
        path,
        source: source.into(),
    }
}

/// Make the calling process's mount namespace show what `spec` says. What could not be had as a container runtime would
/// have it is said in sentences.
pub fn build(spec: &Spec) -> Result<Vec<String>, Error> {
    // What is made for the container is exactly as permitted as is said here.
    let former = umask(Umask::empty());
    let built = Building::start(spec).and_then(|building| building.finish(spec));
    umask(former);
    built
}

/// Whether this machine lets the calling process, in a mount namespace of its own, build views below `scratch`.
pub fn probe(scratch: &Path) -> Result<(), String> {
    let spec = Spec {
        scratch: scratch.to_path_buf(),
        ..Spec::default()
    };
    build(&spec).map(drop).map_err(|error| error.to_string())
}

/// A root directory that is being put together.
struct Building {
    root: OwnedFd,
    /// What is mounted in it later: opened now, so that it is what it is outside.
    volumes: Vec<(OwnedFd, Mount, bool)>,
    said: Vec<String>,
}

impl Building {
    fn start(spec: &Spec) -> Result<Self, Error> {
        let none: Option<&str> = None;
        let root = Path::new("/");
        mount(none, root, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(at("cannot make mounts private below", root))?;
        let mut mounts = spec.mounts.clone();
        // An outer target first, or it would hide the inner one.
        mounts.sort_by_key(|m| m.target.components().count());
        let open = |mount: Mount| {
            let (source, is_directory) = open_source(&mount)?;
            Ok((source, mount, is_directory))
        };
        let volumes = mounts.into_iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        let mut said = Vec::new();
        if let Err(error) = Self::lay(spec, &volumes) {
            // A file system that cannot hold an upper layer, as an overlay cannot: then memory does.
            let scratch = &spec.scratch;
            let memory = tree::fresh(
                "tmpfs",
                &[("mode", "0700")],
                rustix::mount::MountAttrFlags::empty(),
            );
            let put = |memory: OwnedFd| tree::put(memory.as_fd(), walk::place(scratch)?.as_fd());
            memory
                .and_then(put)
                .map_err(at("cannot mount a tmpfs at", scratch))?;
            Self::lay(spec, &volumes)?;
            said.push(format!(
                "What is written outside of volumes stays in memory ({error})"
            ));
        }
        Ok(Self {
            root: walk::place(Path::new("root")).map_err(at("cannot open", &spec.scratch))?,
            volumes,
            said,
        })
    }

    /// Put the root directory together in `root` below the scratch directory, which becomes the current one.
    fn lay(spec: &Spec, volumes: &[(OwnedFd, Mount, bool)]) -> Result<(), Error> {
        let scratch = &spec.scratch;
        clear(scratch).map_err(at("cannot empty", scratch))?;
        std::env::set_current_dir(scratch).map_err(at("cannot enter", scratch))?;
        let root = Path::new("root");
        fs::create_dir(root).map_err(at("cannot create", root))?;
        match &spec.root {
            Root::Layers(layers) => Overlays::new(user::is_single(), BTreeSet::new()).layers(layers, root),
            Root::Host => {
                let places = volumes.iter().map(|(_, mount, is_directory)| Wanted {
                    path: on_the_host(&mount.target),
                    kind: if *is_directory {
                        Kind::Directory
                    } else {
                        Kind::File
                    },
                });
                let working = spec.working_dir.iter().map(|directory| Wanted {
                    path: on_the_host(directory),
                    kind: Kind::Directory,
                });
                let hidden = spec.hidden.iter().map(|directory| Wanted {
                    path: on_the_host(directory),
                    kind: Kind::Hidden,
                });
                Overlays::new(user::is_single(), places.chain(working).chain(hidden).collect()).host(root)
            }
        }
    }

    fn finish(mut self, spec: &Spec) -> Result<Vec<String>, Error> {
        for (_, mount, is_directory) in &self.volumes {
            self.place(&mount.target, *is_directory)?;
        }
        if let Some(directory) = &spec.working_dir {
            self.place(directory, true)?;
        }
        let shown = system::places(self.root.as_fd())?;
        if spec.security.read_only_root {
            // The whole of it: nothing but its own directories is mounted yet.
            let root = walk::place(Path::new("root")).map_err(at("cannot open", &spec.scratch))?;
            tree::make_read_only(root.as_fd()).map_err(at("cannot make read-only", Path::new("/")))?;
        }
        shown.fill(self.root.as_fd(), spec, &mut self.said)?;
        for (source, mount, is_directory) in &self.volumes {
            let put = || {
                if mount.read_only {
                    tree::make_read_only(source.as_fd())?;
                }
                tree::put(
                    source.as_fd(),
                    walk_to(self.root.as_fd(), &mount.target, *is_directory)?.as_fd(),
                )
            };
            put().map_err(|source| Error {
                doing: "cannot mount",
                path: format!("{} at {}", mount.source.display(), mount.target.display()),
                source,
            })?;
        }
        enter_root(&spec.scratch)?;
        Ok(self.said)
    }

    fn place(&self, target: &Path, is_directory: bool) -> Result<OwnedFd, Error> {
        walk_to(self.root.as_fd(), target, is_directory).map_err(at("cannot make the mount point", target))
    }
}

fn walk_to(root: BorrowedFd, target: &Path, is_directory: bool) -> io::Result<OwnedFd> {
    let make = if is_directory { Make::Directory } else { Make::File };
    walk::walk(
        root,
        &clean(target),
        make,
        Mode::from_raw_mode(0o755),
        Above::Stays,
    )
}

/// Take up what a mount shows; and whether it is a directory.
fn open_source(mount: &Mount) -> Result<(OwnedFd, bool), Error> {
    let place = open_place(mount)?;
    let take = || {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
        let tree = tree::take(place.as_fd())?;
        tree::make_private(tree.as_fd())?;
        Ok::<_, io::Error>((tree, kind == FileType::Directory))
    };
    take().map_err(at("cannot open", &mount.source))
}

/// Open what a mount shows, made if it is a missing `subPath`; never through a link that leads out of the volume.
fn open_place(mount: &Mount) -> Result<OwnedFd, Error> {
    let open = || {
        let volume = walk::place(&mount.source)?;
        let Some(sub_path) = &mount.sub_path else {
            return Ok(volume);
        };
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&volume)?.st_mode & 0o777);
        walk::walk(volume.as_fd(), sub_path, Make::Directory, mode, Above::Refused)
    };
    open().map_err(
        |source: io::Error| match (&mount.sub_path, source.raw_os_error()) {
            (Some(sub_path), Some(libc::EXDEV)) => Error {
                doing: "cannot use the subPath",
                path: sub_path.display().to_string(),
                source: io::Error::other("it leads out of the volume"),
            },
            _ => at("cannot open", &mount.source)(source),
        },
    )
}

/// The path without `.` and `..`, which a mount path may not climb with.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// Where a path of a container leads on the host: links followed as far as it exists.
fn on_the_host(path: &Path) -> PathBuf {
    let path = clean(path);
    for standing in path.ancestors() {
        if let Ok(real) = standing.canonicalize() {
            return real.join(path.strip_prefix(standing).unwrap_or(Path::new("")));
        }
    }
    path
}

/// Remove what an earlier instance left in its scratch directory.
fn clear(scratch: &Path) -> io::Result<()> {
    for entry in fs::read_dir(scratch)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            crate::volume::remove::tree(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Make the directory `root` the root directory, and let go of the host's.
fn enter_root(scratch: &Path) -> Result<(), Error> {
    let change = || -> io::Result<()> {
        std::env::set_current_dir("root")?;
        // The old one comes to lie over the new one and is taken away from there: no directory for it is needed.
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        std::env::set_current_dir("/")
    };
    change().map_err(at("cannot change the root to", &scratch.join("root")))
}
