//! Unpacking a layer into a directory of its own. A layer is hostile until the opposite is proved, which is never.
//!
//! *Guarantees.* Nothing outside the directory is read, written, linked to or removed: a parent directory is opened with
//! `openat2` in a way that resolves links as if the directory were `/` and leaves it by no road (`..`, absolute links, mount
//! points, magic links); the last component is never followed. Devices are not made. The stream is bounded in bytes
//! and entries, and stops while the disk still has room.
//!
//! *Whiteouts* become what overlayfs understands: `.wh.NAME` a character device 0/0, which needs no privilege, and
//! `.wh..wh..opq` the attributes `user.overlay.opaque` (for mounts with `userxattr`) and, as root, `trusted.overlay.opaque`.
//! Attributes of an archive that overlayfs would believe are left out.
//!
//! *Assumption.* Nobody else writes to the directory meanwhile.

use super::entries::{Entries, Entry};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::EntryType;

/// Bounds on what one layer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes that stay free on the disk.
    pub keep_free: u64,
}

impl Default for Limits {
    /// 32 GiB, a million entries, and 256 MiB left for others.
    fn default() -> Self {
        Self {
            bytes: 32 << 30,
            entries: 1_000_000,
            keep_free: 256 << 20,
        }
    }
}

/// How much of the free disk may be used between two looks at it.
const LOOK_EVERY: u64 = 64 << 20;

/// Longest sum of the names of directories whose times and permissions are kept until the end.
const LONGEST_DIRECTORIES: usize = 64 << 20;

/// Deepest directory, and longest name of one, counted from the root of the machine.
const DEEPEST: usize = 300;
const LONGEST_PATH: usize = 3800;

/// Unpack the uncompressed tar archive `from` into `directory`, which exists and is empty. All of `from` is read. The
/// answer is the number of bytes of content.
pub fn unpack(from: impl Read, directory: &Path, limits: Limits) -> io::Result<u64> {
    let from = Bounded {
        from,
        left: limits.bytes,
        limit: limits.bytes,
    };
    let mut layer = Layer {
        root: File::open(directory)?,
        as_root: Uid::effective().is_root(),
        limits,
        written: 0,
        looked_at: None,
        directories: Vec::new(),
        directories_length: 0,
    };
    let mut entries = Entries::new(from);
    let mut count = 0;
    while let Some(entry) = entries.next_entry()? {
        count += 1;
        if count > limits.entries {
            return Err(refused(format!("it has more than {} entries", limits.entries)));
        }
        layer
            .add(&entry, &mut entries)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", shown(&entry.path))))?;
    }
    // What follows the end of an archive counts for its digest.
    io::copy(&mut entries.into_inner(), &mut io::sink())?;
    layer.finish()?;
    Ok(layer.written)
}

/// A reader that fails after so many bytes.
struct Bounded<R> {
    from: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(refused(format!("it is larger than {} bytes", self.limit))),
        }
        Ok(read)
    }
}

/// A layer that is being unpacked.
struct Layer {
    root: File,
    as_root: bool,
    limits: Limits,
    written: u64,
    /// What had been written when the free disk was last looked at.
    looked_at: Option<u64>,
    /// Permissions and times of directories, which their content changes.
    directories: Vec<(Vec<u8>, u32, i64)>,
    directories_length: usize,
}

impl Layer {
    fn add(&mut self, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let path = components(&entry.path)?;
        let Some((name, parents)) = path.split_last() else {
            if entry.kind() == EntryType::Directory {
                let root = self.root.try_clone()?;
                return self.directory(b".", &root, entry);
            }
            return Err(refused("the root is no directory".to_owned()));
        };
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return match hidden {
                b".wh..opq" => set_opaque(&self.open_directory(&self.parent(parents)?, b".")?, self.as_root),
                // Notes of a file system that Docker once used.
                _ if hidden.starts_with(b".wh.") => Ok(()),
                b"" | b"." | b".." => Err(refused("a whiteout of nothing".to_owned())),
                hidden => self.whiteout(&self.parent(parents)?, hidden),
            };
        }
        let parent = self.parent(parents)?;
        match entry.kind() {
            EntryType::Directory => self.make_directory(&parent, name, &path.join(&b'/'), entry),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_file(&parent, name, entry, content)
            }
            EntryType::Symlink => {
                self.clear(&parent, name)?;
                symlinkat(os(&entry.link), &parent, os(name))?;
                self.own_link(&parent, name, entry)
            }
            EntryType::Link => self.make_link(&parent, name, entry),
            EntryType::Fifo => {
                self.clear(&parent, name)?;
                mknodat(
                    &parent,
                    os(name),
                    SFlag::S_IFIFO,
                    Mode::from_bits_truncate(entry.mode),
                    0,
                )?;
                self.own_link(&parent, name, entry)
            }
            // Containers have devices of their own.
            EntryType::Char | EntryType::Block => Ok(()),
            kind => Err(refused(format!(
                "a layer has no entries of type {:?}",
                char::from(kind.as_byte())
            ))),
        }
    }

    /// The directory in which an entry belongs, made if it is missing.
    fn parent(&self, parents: &[&[u8]]) -> io::Result<OwnedFd> {
        match self.resolve(&parents.join(&b'/')) {
            Ok(directory) => return Ok(directory),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => return Err(unresolved(error)),
        }
        let mut directory = self.resolve(b"").map_err(unresolved)?;
        for depth in 1..=parents.len() {
            let path = parents[..depth].join(&b'/');
            directory = match self.resolve(&path) {
                Ok(next) => next,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let name = parents[depth - 1];
                    match stat(&directory, name)? {
                        Some(found) if is_whiteout(&found) => {
                            unlinkat(&directory, os(name), UnlinkatFlags::NoRemoveDir)?;
                            set_opaque(&self.make_unnamed(&directory, name)?, self.as_root)?;
                        }
                        Some(_) => return Err(refused(format!("{} is no directory", shown(&path)))),
                        None => drop(self.make_unnamed(&directory, name)?),
                    }
                    self.resolve(&path).map_err(unresolved)?
                }
                Err(error) => return Err(unresolved(error)),
            };
        }
        Ok(directory)
    }

    /// An existing directory below the root, links followed as if the root were `/`.
    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_IN_ROOT
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        let path = if path.is_empty() { b"." } else { path };
        loop {
            match openat2(&self.root, os(path), how) {
                // A rename elsewhere on the machine while `..` was resolved.
                Err(Errno::EAGAIN) => {}
                result => return result,
            }
        }
    }

    /// A directory that has no entry of its own, or not yet.
    fn make_unnamed(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<File> {
        check_depth(parent)?;
        mkdirat(parent, os(name), Mode::S_IRWXU)?;
        let directory = self.open_directory(parent, name)?;
        // Whatever the umask.
        fchmod(&directory, Mode::from_bits_truncate(0o755))?;
        Ok(directory)
    }

    fn open_directory(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(parent, os(name), flags, Mode::empty())?.into())
    }

    fn whiteout(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match stat(parent, name)? {
            // Only what is below is hidden, not what this layer brings itself.
            Some(found) if is_directory(&found) => {
                set_opaque(&self.open_directory(parent, name)?, self.as_root)
            }
            Some(_) => Ok(()),
            None => Ok(mknodat(parent, os(name), SFlag::S_IFCHR, Mode::empty(), 0)?),
        }
    }

    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> io::Result<()> {
        let found = stat(parent, name)?;
        if !found.as_ref().is_some_and(is_directory) {
            self.clear(parent, name)?;
            check_depth(parent)?;
            mkdirat(parent, os(name), Mode::S_IRWXU)?;
        }
        let directory = self.open_directory(parent, name)?;
        if found.as_ref().is_some_and(is_whiteout) {
            set_opaque(&directory, self.as_root)?;
        }
        self.directory(path, &directory, entry)
    }

    /// What is said of a directory that is there; some of it waits for the end.
    fn directory(&mut self, path: &[u8], directory: &File, entry: &Entry) -> io::Result<()> {
        self.own(directory.as_fd(), entry)?;
        set_attributes(directory, entry, self.as_root);
        self.directories_length += path.len();
        if self.directories_length > LONGEST_DIRECTORIES {
            return Err(refused("its directories have too long names".to_owned()));
        }
        self.directories.push((path.to_vec(), entry.mode, entry.modified));
        Ok(())
    }

    fn make_file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        content: &mut impl Read,
    ) -> io::Result<()> {
        self.clear(parent, name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file: File = openat(parent, os(name), flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into();
        let mut buffer = vec![0; 1 << 16];
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = content.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(refused("it ends early".to_owned()));
            }
            self.look_at_disk(&file)?;
            file.write_all(&buffer[..read])?;
            self.written += read as u64;
            left -= read as u64;
        }
        self.own(file.as_fd(), entry)?;
        set_attributes(&file, entry, self.as_root);
        // After the owner, the change of which takes the set-user-id bit away.
        fchmod(&file, Mode::from_bits_truncate(entry.mode))?;
        let modified = TimeSpec::new(entry.modified, 0);
        Ok(nix::sys::stat::futimens(&file, &modified, &modified)?)
    }

    fn make_link(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = components(&entry.link)?;
        let gone = || {
            refused(format!(
                "it is a link to {}, which is not in the layer",
                shown(&entry.link)
            ))
        };
        let (target, directories) = target.split_last().ok_or_else(gone)?;
        let directory = match self.resolve(&directories.join(&b'/')) {
            Ok(directory) => directory,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(gone()),
            Err(error) => return Err(unresolved(error)),
        };
        let found = stat(&directory, target)?.filter(|found| !is_whiteout(found));
        let found = found.ok_or_else(gone)?;
        if is_directory(&found) {
            return Err(refused("it is a hard link to a directory".to_owned()));
        }
        // A link to itself would remove what it points to.
        if stat(parent, name)?.is_some_and(|old| (old.st_dev, old.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.clear(parent, name)?;
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is a link to that itself.
        Ok(linkat(
            &directory,
            os(target),
            parent,
            os(name),
            AtFlags::empty(),
        )?)
    }

    /// Make room for an entry that replaces another.
    fn clear(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match unlinkat(parent, os(name), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) => {
                let directory = format!("/proc/self/fd/{}", parent.as_raw_fd());
                std::fs::remove_dir_all(Path::new(&directory).join(os(name)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn own(&self, file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        if !self.as_root {
            return Ok(());
        }
        let (owner, group) = owners(entry)?;
        Ok(nix::unistd::fchown(file, Some(owner), Some(group))?)
    }

    fn own_link(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        if self.as_root {
            let (owner, group) = owners(entry)?;
            fchownat(
                parent,
                os(name),
                Some(owner),
                Some(group),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        let modified = TimeSpec::new(entry.modified, 0);
        Ok(utimensat(
            parent,
            os(name),
            &modified,
            &modified,
            UtimensatFlags::NoFollowSymlink,
        )?)
    }

    fn look_at_disk(&mut self, file: &File) -> io::Result<()> {
        if self.looked_at.is_some_and(|at| self.written - at < LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(self.written);
        let disk = nix::sys::statvfs::fstatvfs(file)?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < self.limits.keep_free.saturating_add(LOOK_EVERY) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("only {} MiB are left on the disk", free >> 20),
            ));
        }
        Ok(())
    }

    /// Permissions and times of directories, the deepest first, now that nothing is put into them any more.
    fn finish(&self) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(
            ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        );
        for (path, mode, modified) in self.directories.iter().rev() {
            // One that a later entry replaced.
            let Ok(directory) = openat2(&self.root, os(path), how) else {
                continue;
            };
            fchmod(&directory, Mode::from_bits_truncate(*mode))?;
            let modified = TimeSpec::new(*modified, 0);
            nix::sys::stat::futimens(&directory, &modified, &modified)?;
        }
        Ok(())
    }
}

/// The parts of a path below the root, without `.` and empty ones.
fn components(path: &[u8]) -> io::Result<Vec<&[u8]>> {
    if path.contains(&0) {
        return Err(refused("its name has a zero byte".to_owned()));
    }
    let parts: Vec<_> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(refused("its name leads upwards (..)".to_owned()));
    }
    Ok(parts)
}

/// Links could lead into a tree deeper and deeper, until nobody can walk and remove it any more.
fn check_depth(parent: &OwnedFd) -> io::Result<()> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    match path {
        Ok(path) if path.components().count() <= DEEPEST && path.as_os_str().len() <= LONGEST_PATH => Ok(()),
        _ => Err(refused("its directories are nested too deeply".to_owned())),
    }
}

fn owners(entry: &Entry) -> io::Result<(Uid, Gid)> {
    // The highest number means "leave it as it is".
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (id(entry.uid), id(entry.gid)) {
        (Some(owner), Some(group)) => Ok((Uid::from_raw(owner), Gid::from_raw(group))),
        _ => Err(refused(format!("{}:{} is no owner", entry.uid, entry.gid))),
    }
}

/// Attributes that are kept: file capabilities, which only root can give, and `user.*`, without those that overlayfs reads. A
/// file system that has none is no reason to fail: containers run without them.
fn set_attributes(file: &File, entry: &Entry, as_root: bool) {
    for (name, value) in &entry.attributes {
        let kept = match name.strip_prefix("user.") {
            Some(rest) => !rest.starts_with("overlay."),
            None => as_root && name == "security.capability",
        };
        if kept {
            let _ = set_attribute(file, name, value);
        }
    }
}

/// Hide what lower layers have in this directory.
fn set_opaque(directory: &File, as_root: bool) -> io::Result<()> {
    let trusted = as_root && set_attribute(directory, "trusted.overlay.opaque", b"y").is_ok();
    match set_attribute(directory, "user.overlay.opaque", b"y") {
        Err(error) if !trusted => Err(io::Error::new(
            error.kind(),
            format!("this file system cannot keep what hides a directory's lower layers: {error}"),
        )),
        _ => Ok(()),
    }
}

fn set_attribute(file: &File, name: &str, value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the descriptor is open, the name ends with a zero byte, and the value is as long as is said.
    let set = unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What there is by this name; links are not followed.
fn stat(parent: &OwnedFd, name: &[u8]) -> io::Result<Option<FileStat>> {
    match fstatat(parent, os(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

fn is_directory(found: &FileStat) -> bool {
    kind(found) == SFlag::S_IFDIR
}

fn is_whiteout(found: &FileStat) -> bool {
    kind(found) == SFlag::S_IFCHR && found.st_rdev == 0
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// A name for a message: at most 100 characters of it, on one line.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars().take(100).flat_map(char::escape_default).collect()
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn unresolved(error: Errno) -> io::Error {
    match error {
        Errno::ENOSYS => io::Error::other("unpacking needs openat2 (Linux 5.6), which this machine refuses"),
        Errno::ELOOP | Errno::EXDEV => refused("its name leads through links that go nowhere".to_owned()),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests;
