//! A volume's size as the file system's promise: its directory is a project of its own (ext4 and xfs, mounted with
//! `prjquota`, by a user who may set limits), and the project's hard limit is the volume's capacity.
//!
//! The directory itself carries the project's id, so nothing has to be remembered elsewhere: a restart, or another
//! petset on the same file system, finds it there. Where it is not possible nothing is done and nothing is said: the
//! volume's usage is measured instead.

mod kernel;

use kernel::{Account, BLOCK, Membership};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Ids that petset gives away. What others use by custom lies elsewhere: people count from 1, kubelets from
/// 1048577.
const OURS: std::ops::Range<u32> = 0x5000_0000..0x6000_0000;

/// How many ids are looked at before giving up; the first is nearly always free.
const TRIES: u32 = 64;

/// A volume whose size the file system enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Allocated bytes.
    pub used: u64,
    /// The most there may be, in bytes.
    pub limit: u64,
}

/// Make a new, empty directory a project of its own, before anything is written into it: only what is made
/// afterwards counts. One that is a project already stays it. `false`: not possible here.
pub fn adopt(path: &Path) -> bool {
    let adopted = open(path).and_then(|directory| adopt_open(path, &directory));
    adopted.is_ok_and(|project| project.is_some())
}

/// Hold the volume to `bytes`: set the limit where it differs. `None`: not possible here, or the directory had
/// content before it could become a project.
pub fn hold(path: &Path, bytes: u64) -> Option<Held> {
    let held = open(path).and_then(|directory| {
        let Some(project) = adopt_open(path, &directory)? else {
            return Ok(None);
        };
        let limit = blocks(bytes);
        let account = kernel::account(&directory, project)?;
        if account.limit != limit * BLOCK {
            kernel::set_limit(&directory, project, limit)?;
        }
        Ok(Some(Held {
            used: account.used,
            limit: limit * BLOCK,
        }))
    });
    held.unwrap_or_else(|error| {
        tracing::debug!(path = %path.display(), %error, "no limit set");
        None
    })
}

/// What holds for the volume now; changes nothing. `None`: no limit is enforced, or this user may not know.
pub fn held(path: &Path) -> Option<Held> {
    let directory = open(path).ok()?;
    let project = project(path, &directory).ok()??;
    let Account { used, limit, .. } = kernel::account(&directory, project).ok()?;
    (limit > 0 && kernel::enforces(&directory).ok()?).then_some(Held { used, limit })
}

/// Do `remove` to the directory and, if that was successful, take its project's limit away.
pub fn forgetting(path: &Path, remove: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let project = open(path)
        .and_then(|directory| project(path, &directory))
        .ok()
        .flatten();
    remove()?;
    if let (Some(project), Some(parent)) = (project, path.parent()) {
        // A limit on nothing harms nobody; the next directory with this id gets its own.
        if let Err(error) = open(parent).and_then(|parent| kernel::set_limit(&parent, project, 0)) {
            tracing::debug!(project, %error, "limit of a removed volume not taken away");
        }
    }
    Ok(())
}

/// The directory itself, not what a link in its place points at.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

/// The id that petset has given to the directory.
fn project(path: &Path, directory: &File) -> io::Result<Option<u32>> {
    let parent = match path.parent() {
        Some(parent) => kernel::membership(&open(parent)?)?.project,
        None => 0,
    };
    let membership = kernel::membership(directory)?;
    Ok(is_ours(membership, parent).then_some(membership.project))
}

fn adopt_open(path: &Path, directory: &File) -> io::Result<Option<u32>> {
    if !kernel::enforces(directory)? {
        return Ok(None);
    }
    if let Some(project) = project(path, directory)? {
        return Ok(Some(project));
    }
    let before = kernel::membership(directory)?;
    if before.project != 0 && Some(before.project) != parent_project(path)? {
        // Somebody else's arrangement.
        return Ok(None);
    }
    for id in candidates(directory.metadata()?.ino()) {
        if !is_free(kernel::account(directory, id)?) {
            continue;
        }
        kernel::join(
            directory,
            Membership {
                project: id,
                inherited: true,
            },
        )?;
        // Looked at afterwards: what is made from now on counts.
        if fs::read_dir(path)?.next().is_some() {
            kernel::join(directory, before)?;
            return Ok(None);
        }
        return Ok(Some(id));
    }
    Ok(None)
}

fn parent_project(path: &Path) -> io::Result<Option<u32>> {
    let parent = path.parent().map(open).transpose()?;
    let membership = parent.map(|parent| kernel::membership(&parent)).transpose()?;
    Ok(membership.map(|membership| membership.project))
}

/// Whether petset made the directory a project: the id is one of ours, and not just what a project around all
/// volumes has handed down.
fn is_ours(membership: Membership, parent: u32) -> bool {
    membership.inherited && OURS.contains(&membership.project) && membership.project != parent
}

/// Ids for a directory, in the order in which they are tried. The inode's number tells apart directories that are
/// there at the same time.
fn candidates(inode: u64) -> impl Iterator<Item = u32> {
    let size = OURS.end - OURS.start;
    (0..TRIES).map(move |offset| {
        let place = (inode % u64::from(size) + u64::from(offset)) % u64::from(size);
        OURS.start + u32::try_from(place).expect("less than the range's size")
    })
}

/// Nothing on the file system belongs to the project: neither one of our directories, nor anybody else's file. A
/// limit alone is what a directory has left that somebody removed by hand.
fn is_free(account: Account) -> bool {
    account.used == 0 && account.files == 0
}

/// A limit in the kernel's blocks: at least what was asked for, and never 0, which would mean none.
fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_rounded_up_and_never_none() {
        for (bytes, expected) in [(0, 1), (1, 1), (1024, 1), (1025, 2), (1 << 30, 1 << 20)] {
            assert_eq!(blocks(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn directories_that_exist_at_the_same_time_get_different_ids_of_ours() {
        let first = |inode| candidates(inode).next().expect("one at least");
        assert_ne!(first(12), first(13));
        for inode in [0, 1, 0x0fff_ffff, 0x1000_0000, u64::MAX] {
            let ids: Vec<u32> = candidates(inode).collect();
            assert!(ids.iter().all(|id| OURS.contains(id)), "{inode}: {ids:?}");
            let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
            assert_eq!(distinct.len(), ids.len(), "{inode}");
        }
    }

    #[test]
    fn an_id_is_free_when_nothing_belongs_to_it() {
        let account = |used, files, limit| Account { used, files, limit };
        assert!(is_free(account(0, 0, 0)));
        assert!(
            is_free(account(0, 0, 1 << 20)),
            "left by a directory that is gone"
        );
        assert!(!is_free(account(4096, 1, 0)));
        assert!(!is_free(account(0, 1, 0)));
    }

    #[test]
    fn only_an_id_that_petset_gave_to_this_directory_is_ours() {
        let ours = OURS.start + 7;
        let table = [
            (ours, true, 0, true),
            (ours, true, OURS.start + 8, true),
            // Handed down from the directory of all volumes.
            (ours, true, ours, false),
            // An administrator's.
            (42, true, 0, false),
            (OURS.end, true, 0, false),
            (0, false, 0, false),
            (ours, false, 0, false),
        ];
        for (project, inherited, parent, expected) in table {
            let membership = Membership { project, inherited };
            assert_eq!(
                is_ours(membership, parent),
                expected,
                "{membership:?} in {parent}"
            );
        }
    }

    #[test]
    fn where_it_is_not_possible_nothing_happens_and_removal_goes_on() {
        let root = tempfile::tempdir().expect("tempdir");
        let gone = root.path().join("gone");
        assert!(!adopt(&gone));
        assert_eq!(hold(&gone, 1), None);
        let mut removed = false;
        let result = forgetting(&gone, || {
            removed = true;
            Ok(())
        });
        assert!(removed && result.is_ok());
        let refused = forgetting(&gone, || Err(io::Error::other("busy")));
        assert!(refused.is_err());
    }

    #[test]
    fn a_link_in_the_place_of_a_volume_is_not_followed() {
        let root = tempfile::tempdir().expect("tempdir");
        let link = root.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("made");
        assert!(open(&link).is_err());
    }
}
