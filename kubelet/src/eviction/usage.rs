//! How much of the disk a pod uses: what `du` would say of its directory. Links are not followed, nothing of another file
//! system counts, and a file with several names counts once.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a pod uses, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its own volumes, by name.
    pub volumes: BTreeMap<String, u64>,
    /// What containers have written outside of volumes, and their logs; by name.
    pub containers: BTreeMap<String, u64>,
    /// The other files of the pod.
    pub rest: u64,
}

/// Of `st_blocks`, whatever the file system's own are.
const BLOCK: u64 = 512;

impl Usage {
    /// Of the pod that has this directory; what cannot be read counts as nothing. Takes as long as there are files.
    pub fn of(directory: &Path) -> Self {
        let mut usage = Self::default();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_name().to_str() {
                Some("volumes") => usage.volumes = each(&entry.path()),
                Some("containers") => usage.containers = each(&entry.path()),
                _ => usage.rest += size(&entry.path()),
            }
        }
        usage
    }
}

/// The size of everything in a directory.
fn each(directory: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, size(&entry.path()))
        })
        .collect()
}

/// The size of one file, or of a directory with all that is in it, which may be going meanwhile.
fn size(path: &Path) -> u64 {
    let Ok(top) = fs::symlink_metadata(path) else {
        return 0;
    };
    let (mut bytes, mut several) = (top.blocks() * BLOCK, HashSet::new());
    let mut directories = Vec::new();
    if top.is_dir() {
        directories.push(path.to_owned());
    }
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_first =
                |found: &Metadata| found.is_dir() || found.nlink() < 2 || several.insert(found.ino());
            let found = entry.metadata().ok().filter(|found| found.dev() == top.dev());
            let Some(found) = found.filter(is_first) else {
                continue;
            };
            bytes += found.blocks() * BLOCK;
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_files_are_counted_where_they_are_and_once_whatever_links_there_are() {
        let directory = tempfile::tempdir().expect("tempdir");
        let outside = tempfile::tempdir().expect("tempdir");
        let place = |path: &str| directory.path().join(path);
        let write = |path: &Path, kib: usize| fs::write(path, vec![1; kib << 10]).expect("written");
        write(&outside.path().join("large"), 1024);
        for path in ["volumes/cache/deep", "volumes/other", "containers/c/view"] {
            fs::create_dir_all(place(path)).expect("made");
        }
        write(&place("volumes/cache/deep/file"), 256);
        fs::hard_link(place("volumes/cache/deep/file"), place("volumes/cache/again")).expect("linked");
        std::os::unix::fs::symlink(outside.path(), place("volumes/cache/out")).expect("linked");
        std::os::unix::fs::symlink(outside.path().join("large"), place("volumes/other/out")).expect("linked");
        write(&place("containers/c/0.log"), 64);
        write(&place("containers/c/view/file"), 64);
        write(&place("hosts"), 32);
        let usage = Usage::of(directory.path());
        // Directories take something, too, which file systems do not agree on.
        let about = |bytes: u64, kib: u64| (kib << 10..(kib + 64) << 10).contains(&bytes);
        assert!(about(usage.volumes["cache"], 256), "{usage:?}");
        assert!(about(usage.volumes["other"], 0), "{usage:?}");
        assert!(about(usage.containers["c"], 128), "{usage:?}");
        assert!(about(usage.rest, 32), "{usage:?}");
        assert_eq!(Usage::of(&place("nowhere")), Usage::default());
    }
}
