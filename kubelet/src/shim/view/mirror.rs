//! The view of isolation `mounts`: the host's file system with volumes at their real mount paths, nothing created on
//! the host.
//!
//! In a private mount namespace a source is bound over its target. A target that the host does not have needs a
//! directory to stand in: its nearest existing ancestor is *mirrored* into a tmpfs (every entry bound to the real
//! one), the missing directories are made there, and the mirror is mounted over the ancestor. For the root
//! directory the mirror becomes the new root by `pivot_root`.

use super::{Error, at, clean};
use crate::shim::protocol::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Make the calling process's (fresh) mount namespace show `mounts`. `scratch` is an empty directory.
pub fn build(mounts: &[Mount], scratch: &Path) -> Result<(), Error> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(at("cannot make mounts private below", Path::new("/")))?;
    let mut mounts = mounts.to_vec();
    // An outer target first, or it would hide the inner one.
    mounts.sort_by_key(|m| m.target.components().count());
    if mounts
        .iter()
        .any(|m| nearest_existing(&clean(&m.target)) == Path::new("/"))
    {
        renew_root(scratch)?;
    }
    // Where directories may be made without touching the host.
    let mut ours = BTreeSet::from([PathBuf::from("/")]);
    // Those among them that show the host's own entries.
    let mut mirrors = BTreeSet::new();
    for each in &mounts {
        let target = clean(&each.target);
        let opened = sub_path(each)?;
        let source = opened.as_ref().map_or(each.source.clone(), |opened| {
            PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
        });
        prepare(&target, source.is_dir(), scratch, &mut ours, &mut mirrors)?;
        match bind(&source, &target) {
            // A root that is a mirror itself cannot be bound, so it is mirrored once more (`hostPath` with `/`).
            Err(_) if each.source == Path::new("/") => mirror(Path::new("/"), &target)?,
            bound => bound?,
        }
        if each.read_only {
            make_read_only(&target)?;
        }
        // A mount point inside a volume is made in that volume, as container runtimes do.
        ours.insert(target);
    }
    Ok(())
}

/// What a `subPath` is, held open so that it stays what it is.
fn sub_path(mount: &Mount) -> Result<Option<OwnedFd>, Error> {
    match mount.sub_path {
        None => Ok(None),
        Some(_) => super::open_place(mount).map(Some),
    }
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

/// Make `target` exist as a mount point of the right type.
fn prepare(
    target: &Path,
    directory: bool,
    scratch: &Path,
    ours: &mut BTreeSet<PathBuf>,
    mirrors: &mut BTreeSet<PathBuf>,
) -> Result<(), Error> {
    if target.exists() && target.is_dir() == directory {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    let standing = nearest_existing(parent).to_path_buf();
    if !ours.iter().any(|m| *m == standing) {
        let place = scratch.join(format!("mirror-{}", ours.len()));
        fs::create_dir_all(&place).map_err(at("cannot create", &place))?;
        mirror(&standing, &place)?;
        mount(
            Some(&place),
            &standing,
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )
        .map_err(at("cannot mount the mirror of", &standing))?;
        mirrors.insert(standing.clone());
        ours.insert(standing);
    }
    // A link that leads nowhere: to write through it would make a file on the host.
    if mirrors.contains(parent) && target.is_symlink() {
        fs::remove_file(target).map_err(at("cannot remove the link", target))?;
    }
    // What is made from here on lies in our own tmpfs, so nothing needs mirroring there.
    let mut made = parent.to_path_buf();
    fs::create_dir_all(parent).map_err(at("cannot create", parent))?;
    while ours.insert(made.clone()) && made.pop() {}
    if directory {
        fs::create_dir_all(target).map_err(at("cannot create", target))
    } else {
        fs::write(target, "").map_err(at("cannot create", target))
    }
}

/// Fill a tmpfs at `place` with everything that stands in `original`.
fn mirror(original: &Path, place: &Path) -> Result<(), Error> {
    mount(
        Some("petset"),
        place,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .map_err(at("cannot mount a tmpfs at", place))?;
    // The scratch directory lies somewhere below what is bound now: the mirror must not contain itself.
    mount(
        None::<&str>,
        place,
        None::<&str>,
        MsFlags::MS_UNBINDABLE,
        None::<&str>,
    )
    .map_err(at("cannot make unbindable", place))?;
    if let Ok(metadata) = fs::metadata(original) {
        let mode = fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777);
        fs::set_permissions(place, mode).map_err(at("cannot set the mode of", place))?;
    }
    for entry in fs::read_dir(original).map_err(at("cannot read", original))? {
        let entry = entry.map_err(at("cannot read", original))?;
        let (from, to) = (entry.path(), place.join(entry.file_name()));
        // The mirror is no part of what it shows.
        if is_virtual_console(&from) || from == place {
            continue;
        }
        let kind = entry.file_type().map_err(at("cannot look at", &from))?;
        if kind.is_symlink() {
            let link = fs::read_link(&from).map_err(at("cannot read the link", &from))?;
            symlink(link, &to).map_err(at("cannot create the link", &to))?;
        } else if kind.is_dir() {
            fs::create_dir(&to).map_err(at("cannot create", &to))?;
            bind(&from, &to)?;
        } else if !kind.is_fifo() {
            fs::write(&to, "").map_err(at("cannot create", &to))?;
            bind(&from, &to)?;
        }
    }
    Ok(())
}

/// Whether this is one of the machine's text consoles (`/dev/tty1`, `/dev/vcs1` …). No container has them, there are
/// dozens, and each would cost a mount whenever something is put into `/dev`.
fn is_virtual_console(path: &Path) -> bool {
    let name = path.strip_prefix("/dev").ok().and_then(Path::to_str);
    name.is_some_and(|name| {
        let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        name.starts_with("vcs") || name.strip_prefix("tty").is_some_and(is_number)
    })
}

/// Put a mirror of the root directory in its place.
fn renew_root(scratch: &Path) -> Result<(), Error> {
    let root = scratch.join("root");
    fs::create_dir_all(&root).map_err(at("cannot create", &root))?;
    mirror(Path::new("/"), &root)?;
    let old = root.join(".petset-old-root");
    fs::create_dir(&old).map_err(at("cannot create", &old))?;
    pivot_root(&root, &old).map_err(at("cannot change the root to", &root))?;
    std::env::set_current_dir("/").map_err(at("cannot enter", Path::new("/")))?;
    let old = Path::new("/.petset-old-root");
    umount2(old, MntFlags::MNT_DETACH).map_err(at("cannot let go of", old))?;
    fs::remove_dir(old).map_err(at("cannot remove", old))
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    let none: Option<&str> = None;
    mount(
        Some(source),
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .map_err(|errno| Error {
        doing: "cannot mount",
        path: format!("{} at {}", source.display(), target.display()),
        source: errno.into(),
    })
}

/// A remount must repeat the flags that a user namespace may not drop.
fn make_read_only(target: &Path) -> Result<(), Error> {
    let held = statvfs(target).map_err(at("cannot look at", target))?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (_, flag) in kept.iter().filter(|(fs_flag, _)| held.contains(*fs_flag)) {
        flags |= *flag;
    }
    let none: Option<&str> = None;
    mount(none, target, none, flags, none).map_err(at("cannot make read-only", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_text_consoles_are_no_part_of_a_pods_dev_and_terminals_and_devices_are() {
        for console in ["/dev/tty1", "/dev/tty63", "/dev/vcs", "/dev/vcsa1"] {
            assert!(is_virtual_console(Path::new(console)), "{console}");
        }
        for other in ["/dev/tty", "/dev/ttyS0", "/dev/ttyUSB0", "/dev/null", "/srv/tty1"] {
            assert!(!is_virtual_console(Path::new(other)), "{other}");
        }
    }
}
