//! Walking down a path that somebody else may be changing: every step is taken from the directory that the last one
//! opened and follows no link by itself, so what was looked at is what is used.

use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// What is made where there is nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Nothing: it must be there.
    Nothing,
    /// Directories, all the way.
    Directory,
    /// Directories, and at the end an empty file.
    File,
}

/// What a link or `..` that leads above the beginning does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// It is an error (`EXDEV`): the beginning is a volume.
    Refused,
    /// It stays there: the beginning is a root directory.
    Stays,
}

/// Open (`O_PATH`) what is at `path` below `base`. What is made gets `mode`, less the umask.
pub fn walk(base: BorrowedFd, path: &Path, make: Make, mode: Mode, above: Above) -> io::Result<OwnedFd> {
    let mut todo: VecDeque<OsString> = steps(path);
    let mut way = vec![base.try_clone_to_owned()?];
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            match (way.len(), above) {
                (1, Above::Refused) => return Err(Errno::XDEV.into()),
                (1, Above::Stays) => {}
                _ => drop(way.pop()),
            }
            continue;
        }
        let here = way.last().unwrap_or(&way[0]).as_fd();
        let next = match step(here, &name) {
            Err(Errno::NOENT) if make != Make::Nothing => {
                create(here, &name, make == Make::File && todo.is_empty(), mode)?;
                step(here, &name)?
            }
            found => found?,
        };
        if FileType::from_raw_mode(fstat(&next)?.st_mode) != FileType::Symlink {
            way.push(next);
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let text = readlinkat(&next, "", Vec::new())?;
        let text: OsString = std::os::unix::ffi::OsStringExt::from_vec(text.into_bytes());
        let target = Path::new(&text);
        if target.is_absolute() {
            if above == Above::Refused {
                return Err(Errno::XDEV.into());
            }
            way.truncate(1);
        }
        let mut ahead = steps(target);
        ahead.append(&mut todo);
        todo = ahead;
    }
    Ok(way.swap_remove(way.len() - 1))
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let step = |component: Component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

fn step(from: BorrowedFd, name: &OsString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(from, name, flags, Mode::empty())
}

/// Somebody else may have made it at the same time; then it is looked at like everything else.
fn create(parent: BorrowedFd, name: &OsString, file: bool, mode: Mode) -> rustix::io::Result<()> {
    let made = if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(parent, name, flags, mode & Mode::from_raw_mode(0o666)).map(drop)
    } else {
        mkdirat(parent, name, mode)
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Open a directory or file as a place, not to read it.
pub fn place(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn shown(descriptor: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).expect("our own descriptor")
    }

    #[test]
    fn a_volume_cannot_be_left_and_a_root_directory_clamps() {
        let directory = tempfile::tempdir().expect("tempdir");
        let base = directory.path().canonicalize().expect("there");
        fs::create_dir_all(base.join("v/in")).expect("made");
        for (link, target) in [
            ("out", "/etc"),
            ("up", "../.."),
            ("side", "../v2"),
            ("fine", "in"),
            ("round", "round"),
            ("dot", "in/../in/."),
        ] {
            symlink(target, base.join("v").join(link)).expect("linked");
        }
        let volume = place(&base.join("v")).expect("opened");
        let mode = Mode::from_raw_mode(0o755);
        let refused = |path: &str| {
            walk(
                volume.as_fd(),
                Path::new(path),
                Make::Directory,
                mode,
                Above::Refused,
            )
            .map(|found| shown(&found))
            .map_err(|error| error.raw_os_error())
        };
        for path in [
            "out",
            "out/x",
            "up",
            "up/etc",
            "side",
            "..",
            "in/../..",
            "in/../../v",
        ] {
            assert_eq!(refused(path), Err(Some(libc::EXDEV)), "{path}");
        }
        assert_eq!(refused("round"), Err(Some(libc::ELOOP)));
        assert_eq!(refused("fine/new/deep"), Ok(base.join("v/in/new/deep")));
        assert_eq!(refused("dot"), Ok(base.join("v/in")));
        assert!(!base.join("v2").exists());

        let inside = |path: &str, make| {
            walk(volume.as_fd(), Path::new(path), make, mode, Above::Stays).map(|found| shown(&found))
        };
        assert_eq!(
            inside("out/x/f", Make::File).expect("made"),
            base.join("v/etc/x/f")
        );
        assert!(base.join("v/etc/x/f").is_file());
        assert_eq!(inside("/up", Make::Nothing).expect("the root"), base.join("v"));
        assert!(inside("missing", Make::Nothing).is_err());
    }
}
