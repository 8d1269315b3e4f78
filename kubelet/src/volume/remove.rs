//! Removing a directory whatever its own user may do in it: an overlay's working directory has no permissions at all,
//! and a program can leave any behind.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Remove `directory` with everything in it; no link is followed. One that is not there is no error.
pub fn tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(directory)?;
            fs::remove_dir_all(directory)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Let its owner do everything in it and in the directories below.
fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_forbids_everything_is_removed_and_what_a_link_leads_to_stays() {
        let base = tempfile::tempdir().expect("tempdir");
        let kept = base.path().join("kept");
        fs::create_dir(&kept).expect("made");
        fs::write(kept.join("file"), "text").expect("written");
        let doomed = base.path().join("doomed");
        fs::create_dir_all(doomed.join("a/b")).expect("made");
        fs::write(doomed.join("a/b/c"), "").expect("written");
        std::os::unix::fs::symlink(&kept, doomed.join("a/link")).expect("linked");
        fs::set_permissions(doomed.join("a/b"), fs::Permissions::from_mode(0o000)).expect("changed");
        fs::set_permissions(doomed.join("a"), fs::Permissions::from_mode(0o000)).expect("changed");
        tree(&doomed).expect("removed");
        assert!(!doomed.exists());
        assert!(kept.join("file").exists());
        tree(&doomed).expect("removed already");
    }
}
