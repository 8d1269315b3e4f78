//! Writing a volume's files so that a reader never sees half an update: a fresh directory, then one symlink swap
//! (`..data`), as the kubelet's atomic writer does.

use super::payload::{File, Payload};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Make `directory` hold exactly `payload`. Nothing is written when it already does.
pub fn write(directory: &Path, payload: &Payload) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let current = fs::read_link(directory.join(DATA)).ok();
    if current
        .as_ref()
        .is_some_and(|c| holds(&directory.join(c), payload))
    {
        return Ok(());
    }
    let fresh = fresh_name(directory);
    for (path, file) in payload {
        let path = directory.join(&fresh).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    fs::create_dir_all(directory.join(&fresh))?;
    let next = directory.join(NEXT);
    let _ = fs::remove_file(&next);
    symlink(&fresh, &next)?;
    fs::rename(&next, directory.join(DATA))?;
    link_names(directory, payload)?;
    if let Some(old) = current {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(())
}

fn fresh_name(directory: &Path) -> PathBuf {
    (0u32..)
        .map(|n| PathBuf::from(format!("..{n}")))
        .find(|n| !directory.join(n).exists())
        .unwrap_or_default()
}

fn holds(directory: &Path, payload: &Payload) -> bool {
    let same = |(path, file): (&String, &File)| {
        let path = directory.join(path);
        let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
        mode.is_ok_and(|m| m == file.mode) && fs::read(&path).is_ok_and(|bytes| bytes == file.bytes)
    };
    payload.iter().all(same) && count(directory) == payload.len()
}

fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 })
        .sum()
}

/// The names that users see: links into `..data`.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.keys().map(|path| first(path)).collect();
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = directory.join(&name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), File::new(*text, None)))
            .collect()
    }

    #[test]
    fn an_update_replaces_everything_at_once_and_keeps_the_names() {
        let directory = tempfile::tempdir().expect("tempdir");
        let root = directory.path().join("v");
        write(&root, &payload(&[("a", "1"), ("sub/b", "2")])).expect("written");
        let first = fs::read_link(root.join(DATA)).expect("link");
        write(&root, &payload(&[("a", "1"), ("sub/b", "2")])).expect("unchanged");
        assert_eq!(fs::read_link(root.join(DATA)).expect("link"), first);
        write(&root, &payload(&[("a", "3"), ("c", "4")])).expect("written again");
        assert_ne!(fs::read_link(root.join(DATA)).expect("link"), first);
        assert_eq!(fs::read_to_string(root.join("a")).expect("a"), "3");
        assert_eq!(fs::read_to_string(root.join("c")).expect("c"), "4");
        assert!(!root.join("sub").exists() && !root.join(first).exists());
    }
}
