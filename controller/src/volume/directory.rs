//! The directories behind provisioned volumes: the only data on disk that this crate makes or removes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Make the directory and those above it; one that is there is kept with all that is in it. Where the file system
/// can limit what a directory holds, it is made ready for that. A new one is open to whoever a pod's containers run as, as
/// those of other provisioners of local directories are; others of the host do not come this far.
pub fn make(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    fs::create_dir_all(path)?;
    if is_new {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    super::quota::adopt(path);
    Ok(())
}

/// Fail if there is no directory.
pub fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// Remove the directory and all that is in it. Symlinks are removed, never followed; what is not there
/// is removed already. `path` must be one that `provision::directory` has called ours.
pub fn remove(path: &Path) -> io::Result<()> {
    super::quota::forgetting(path, || remove_tree(path))
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn removal_takes_the_tree_and_leaves_what_links_point_at() {
        let root = tempfile::tempdir().unwrap();
        let precious = root.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "data").unwrap();
        let volume = root.path().join("volumes/v");
        make(&volume.join("deep")).unwrap();
        symlink(&precious, volume.join("deep/link")).unwrap();
        remove(&volume).unwrap();
        assert!(!volume.exists());
        let link = root.path().join("volumes/link");
        symlink(&precious, &link).unwrap();
        remove(&link).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert_eq!(fs::read(precious.join("file")).unwrap(), b"data");
        remove(&volume).unwrap();
    }

    #[test]
    fn only_a_directory_that_is_there_passes_the_check() {
        let root = tempfile::tempdir().unwrap();
        check(root.path()).unwrap();
        let file = root.path().join("file");
        assert_eq!(check(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&file, "data").unwrap();
        assert_eq!(check(&file).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn making_a_directory_again_keeps_its_data() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("v");
        make(&volume).unwrap();
        fs::write(volume.join("file"), "data").unwrap();
        make(&volume).unwrap();
        assert_eq!(fs::read(volume.join("file")).unwrap(), b"data");
    }
}
