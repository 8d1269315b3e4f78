//! `fsGroup`: a volume's files belong to a group that the pod's containers are in, as upstream's `SetVolumeOwnership`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// What the group may do with files: read and write them, or read them.
const READ_WRITE: u32 = 0o660;
const READ: u32 = 0o440;

/// Directories are entered, and what is made in them gets their group.
const DIRECTORY: u32 = 0o2110;

/// Give `directory` and everything in it to `group`. With `unless_root_fits` (`fsGroupChangePolicy: OnRootMismatch`) only
/// if the directory itself is not that group's yet. No link is followed.
pub fn give(directory: &Path, group: u32, read_only: bool, unless_root_fits: bool) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let wanted = mode(found.mode(), true, read_only);
    if unless_root_fits && found.gid() == group && found.mode() & 0o7777 == wanted {
        return Ok(());
    }
    give_tree(directory, group, read_only)
}

fn give_tree(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    // The other way round would take away the bit that a new file's group follows from.
    lchown(path, None, Some(group))?;
    if found.is_symlink() {
        return Ok(());
    }
    let wanted = mode(found.mode(), found.is_dir(), read_only);
    fs::set_permissions(path, Permissions::from_mode(wanted))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give_tree(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}

fn mode(mode: u32, is_directory: bool, read_only: bool) -> u32 {
    let more = if read_only { READ } else { READ_WRITE };
    mode & 0o7777 | more | if is_directory { DIRECTORY } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_volume_becomes_its_groups_and_what_links_lead_to_does_not() {
        let base = tempfile::tempdir().expect("tempdir");
        let own = fs::metadata(base.path()).expect("there").gid();
        let (volume, outside) = (base.path().join("v"), base.path().join("outside"));
        fs::create_dir_all(volume.join("sub")).expect("made");
        for file in [volume.join("sub/file"), outside.clone()] {
            fs::write(&file, "").expect("written");
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("changed");
        }
        symlink(&outside, volume.join("link")).expect("linked");
        let mode_of = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
        // The tests' own group is one that everybody may give to.
        give(&volume, own, false, false).expect("given");
        assert_eq!(mode_of(&volume.join("sub")), 0o2775);
        assert_eq!(mode_of(&volume.join("sub/file")), 0o660);
        assert_eq!(mode_of(&outside), 0o600);
        fs::set_permissions(volume.join("sub/file"), Permissions::from_mode(0o600)).expect("changed");
        give(&volume, own, false, true).expect("fits");
        assert_eq!(mode_of(&volume.join("sub/file")), 0o600);
        assert_eq!(mode(0o644, false, true), 0o644);
        assert_eq!(mode(0o400, false, true), 0o440);
    }
}
