//! The files of one log, while a shim rotates them: `N.log` is the newest, then come `N.log.1`, `N.log.2` ….

use crate::shim::log::numbered;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// More files than anybody keeps.
const MOST: usize = 1000;

/// Where one has got to.
pub struct Files {
    path: PathBuf,
    /// The newest file that has been given out, by its number.
    current: u64,
}

impl Files {
    /// All that are there, the oldest first.
    pub fn open(path: PathBuf) -> io::Result<(Self, Vec<File>)> {
        let mut files = Self { path, current: 0 };
        let all = files.newer()?;
        Ok((files, all))
    }

    /// Those that are newer than what has been given out, the oldest first. One that was removed before somebody read it
    /// is lost.
    pub fn newer(&mut self) -> io::Result<Vec<File>> {
        let mut found = Vec::new();
        // From the newest on: while we look, files can only move on into our way, never out of it.
        let mut newest = None;
        for n in 0..MOST {
            let path = if n == 0 {
                self.path.clone()
            } else {
                numbered(&self.path, n)
            };
            let file = match File::open(path) {
                Ok(file) => file,
                // It was just put aside, and the new one is not there yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound && n == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let number = file.metadata()?.ino();
            if number == self.current {
                break;
            }
            if newest == Some(number) {
                continue;
            }
            newest = Some(number);
            found.push((number, file));
        }
        if let Some((number, _)) = found.first() {
            self.current = *number;
        }
        found.reverse();
        Ok(found.into_iter().map(|(_, file)| file).collect())
    }
}

/// Says when something in a directory has changed.
#[derive(Debug)]
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// From now on.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(directory, changes)?;
        // SAFETY: an `OwnedFd` is open and stays the same for as long as it lives.
        let registered = unsafe { AsyncFd::register(OwnedFd::from(inotify)) };
        Ok(Self(registered.map_err(|error| error.into_parts().1)?))
    }

    /// Wait for a change since the last call.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut events)?)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}
