//! How much a directory holds: the blocks allocated to everything in it, as `du -x` counts.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `st_blocks` counts in these, whatever the file system's own block size is.
const BLOCK: u64 = 512;

/// What a walk has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Allocated bytes.
    pub bytes: u64,
    /// Whether everything was seen; otherwise there may be more.
    pub complete: bool,
}

/// Count the allocated bytes in `path`, itself included: each file once however many names it has, symlinks for
/// themselves only, nothing on other file systems. `go_on` is asked before each directory and may end it. What
/// vanishes meanwhile is not there; what cannot be read makes the answer incomplete.
pub fn measure(path: &Path, mut go_on: impl FnMut() -> bool) -> io::Result<Measured> {
    let root = fs::symlink_metadata(path)?;
    let mut measured = Measured {
        bytes: root.blocks() * BLOCK,
        complete: true,
    };
    if !root.is_dir() {
        return Ok(measured);
    }
    let mut seen = HashSet::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        if !go_on() {
            measured.complete = false;
            break;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                measured.complete &= error.kind() == io::ErrorKind::NotFound;
                continue;
            }
        };
        for entry in entries {
            // `DirEntry::metadata` does not follow links.
            let found = entry.and_then(|entry| Ok((entry.metadata()?, entry)));
            let (metadata, entry) = match found {
                Ok(found) => found,
                Err(error) => {
                    measured.complete &= error.kind() == io::ErrorKind::NotFound;
                    continue;
                }
            };
            if metadata.dev() != root.dev() {
                continue;
            }
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.nlink() > 1 && !seen.insert(metadata.ino()) {
                continue;
            }
            measured.bytes += metadata.blocks() * BLOCK;
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    fn all(path: &Path) -> u64 {
        let measured = measure(path, || true).expect("it is there");
        assert!(measured.complete);
        measured.bytes
    }

    /// A file whose bytes are on disk, so that its blocks are allocated.
    fn fill(path: &Path, bytes: usize) -> u64 {
        fs::write(path, vec![7; bytes]).expect("written");
        File::open(path).and_then(|f| f.sync_all()).expect("synced");
        fs::metadata(path).expect("it is there").blocks() * BLOCK
    }

    #[test]
    fn what_is_allocated_counts_once_and_links_lead_nowhere() {
        let root = tempfile::tempdir().expect("tempdir");
        let elsewhere = tempfile::tempdir().expect("tempdir");
        let empty = all(root.path());
        fill(&elsewhere.path().join("big"), 1 << 20);
        symlink(elsewhere.path(), root.path().join("link")).expect("linked");
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).expect("made");
        let before = all(root.path());
        assert!(
            before < empty + (1 << 20),
            "what a link points at is not in the volume"
        );
        let file = fill(&deep.join("file"), 300_000);
        assert_eq!(all(root.path()), before + file);
        fs::hard_link(deep.join("file"), root.path().join("again")).expect("linked");
        assert_eq!(all(root.path()), before + file, "one file with two names");
        // A hole is not allocated.
        let sparse = File::create(deep.join("sparse")).expect("made");
        sparse.set_len(1 << 40).expect("any length");
        assert!(all(root.path()) < before + file + (1 << 20));
    }

    #[test]
    fn other_file_systems_are_not_entered() {
        // Every Linux mounts a file system of its own there, and anybody may write to it.
        let (outer, inner) = (Path::new("/dev"), Path::new("/dev/shm"));
        let device = |path| fs::metadata(path).expect("it is there").dev();
        assert_ne!(
            device(outer),
            device(inner),
            "this test needs /dev/shm to be a mount"
        );
        let inside = tempfile::tempdir_in(inner).expect("tempdir");
        assert!(fill(&inside.path().join("file"), 4 << 20) >= 4 << 20);
        let measured = measure(outer, || true).expect("it is there");
        assert!(measured.bytes < 4 << 20, "{measured:?}");
    }

    #[test]
    fn a_walk_that_is_told_to_end_says_that_there_may_be_more() {
        let root = tempfile::tempdir().expect("tempdir");
        fs::create_dir(root.path().join("a")).expect("made");
        let mut left = 1;
        let measured = measure(root.path(), || {
            left -= 1;
            left >= 0
        });
        assert!(!measured.expect("it is there").complete);
        assert!(measure(&root.path().join("gone"), || true).is_err());
    }
}
