//! What makes a batch durable: sled, used in the one way that survived simulated power cuts.
//!
//! `Db::flush` starts the write-back of its file but neither waits for the device nor syncs the file's
//! size, so after each flush we `fdatasync` the same file through a handle of our own. One tree, no
//! transactions, no subscribers, records of at most [`record::SLOT`] bytes in segments of 2 MiB: a log
//! record over a quarter of a segment would go to a separate file that sled never syncs.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    memory::State,
    record::{self, Put, Recovery, Slots},
};

const SEGMENT: usize = 2 << 20;
const CACHE: u64 = 64 << 20;
/// sled collects its garbage in this rhythm, and only in it.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// A file that only takes up space. A sled on a full disk cannot be opened; giving this up makes room.
const BALLAST: &str = "ballast";
const BALLAST_SIZE: u64 = 16 << 20;
/// Below this much free space the ballast is given up when opening.
const FULL: u64 = 8 << 20;
/// The ballast is made only where it is a small part of the free space.
const PLENTY: u64 = 8 * BALLAST_SIZE;
/// Free space that only deletes may use, and that nothing may use: sled must never meet a full disk.
const RESERVE: u64 = 8 << 20;
const LAST_RESERVE: u64 = 4 << 20;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has the directory open.
    #[error("the store in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The directory or a file in it could not be read or written.
    #[error("the store in {} could not be opened: {source}", .dir.display())]
    Io {
        /// The store's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer petset wrote it.
    #[error("the store in {} cannot be read: {reason}", .dir.display())]
    Newer {
        /// The store's directory.
        dir: PathBuf,
        /// The two formats.
        reason: String,
    },
    /// What is there is not a whole store. Nothing was changed.
    #[error("the store in {} is damaged: {reason}; restore a backup, or move the directory away to start anew", .dir.display())]
    Damaged {
        /// The store's directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An open database; one per directory.
pub(crate) struct Disk {
    dir: PathBuf,
    db: ::sled::Db,
    /// sled's own file, opened by us to be synced.
    file: File,
    /// What is where in the tree, once the batches put together so far are written.
    pub slots: Slots,
}

impl Disk {
    /// Open or create the database in `dir` and read all of it.
    pub fn open(dir: &Path) -> Result<(Disk, State), OpenError> {
        let io = |source| OpenError::Io {
            dir: dir.to_owned(),
            source,
        };
        let path = dir.join("db");
        let new = !path.exists();
        fs::create_dir_all(dir).map_err(io)?;
        if !new {
            check_unused(dir, &path)?;
        }
        remove_unfinished(dir).map_err(io)?;
        if free_space(&File::open(dir).map_err(io)?).is_some_and(|free| free < FULL) {
            give_up_ballast(dir);
        }
        let config = ::sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT)
            .cache_capacity(CACHE)
            .flush_every_ms(Some(FLUSH_EVERY.as_millis() as u64));
        let sled_error = |error| open_error(dir, error);
        let db = config.open().map_err(sled_error)?;
        let file = File::open(&path).map_err(io)?;
        let (state, slots) = load(&db, dir)?;
        let disk = Disk {
            dir: dir.to_owned(),
            db,
            file,
            slots,
        };
        if new {
            disk.sync_names().map_err(io)?;
        }
        disk.make_ballast();
        Ok((disk, state))
    }

    /// Make the names of new files durable: their contents are worth nothing without.
    fn sync_names(&self) -> io::Result<()> {
        File::open(self.dir.join("conf"))?.sync_all()?;
        self.file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        let parent = self.dir.canonicalize()?;
        parent
            .parent()
            .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// Write records, and remove those without a value, all or none; on return they survive a power cut.
    /// After an error the database must not be written to again: a sync that failed once says nothing by
    /// succeeding later.
    pub fn commit(&self, mut records: Vec<Put>) -> Result<(), String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("writing to {} failed: {error}", self.dir.display());
        // One record is atomic by itself, and much quicker to write than a batch of one.
        let written = match records.pop() {
            Some((key, Some(value))) if records.is_empty() => self.db.insert(key, value).map(drop),
            last => {
                let mut batch = ::sled::Batch::default();
                for (key, value) in records.into_iter().chain(last) {
                    match value {
                        Some(value) => batch.insert(key, value),
                        None => batch.remove(key),
                    }
                }
                self.db.apply_batch(batch)
            }
        };
        written.map_err(|error| failed(&error))?;
        self.db.flush().map_err(|error| failed(&error))?;
        self.file.sync_data().map_err(|error| failed(&error))
    }

    /// How much may be written now.
    pub fn room(&self) -> Room<'_> {
        Room {
            dir: &self.dir,
            free: free_space(&self.file),
        }
    }

    fn make_ballast(&self) {
        let path = self.dir.join(BALLAST);
        let there = fs::metadata(&path).is_ok_and(|file| file.len() == BALLAST_SIZE);
        if there || free_space(&self.file).is_some_and(|free| free < PLENTY) {
            return;
        }
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .and_then(allocate);
        if let Err(error) = made {
            tracing::warn!(path = %path.display(), %error, "no space could be set aside for a full disk");
            give_up_ballast(&self.dir);
        }
    }

    /// Release the directory. On return it can be opened again.
    pub fn close(self) {
        let Disk { dir, db, file, .. } = self;
        // sled ends its threads and syncs when the last handle goes, and panics if that fails. All that
        // was answered is durable already.
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(dir = %dir.display(), "closing the database failed; what was answered is durable");
        }
        // A thread of sled's pool, or a child process between fork and exec, may hold the lock for a
        // moment longer.
        for _ in 0..2000 {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        tracing::warn!(dir = %dir.display(), "the database is closed but still locked");
    }
}

/// The free space at some moment.
pub(crate) struct Room<'a> {
    dir: &'a Path,
    /// In bytes; `None` if the file system does not say.
    free: Option<u64>,
}

impl Room<'_> {
    /// Whether there is room for a write; on a nearly full disk there is for deletes only.
    pub fn check(&self, puts: bool) -> Result<(), String> {
        let reserve = if puts { RESERVE } else { LAST_RESERVE };
        match self.free {
            Some(free) if free < reserve => Err(format!(
                "the disk of {} is full: {} KiB are free, {} KiB are kept in reserve; make some room",
                self.dir.display(),
                free >> 10,
                reserve >> 10,
            )),
            _ => Ok(()),
        }
    }
}

/// sled's lock, tried by us: its own error is a sentence.
fn check_unused(dir: &Path, path: &Path) -> Result<(), OpenError> {
    let file = File::open(path).map_err(|source| OpenError::Io {
        dir: dir.to_owned(),
        source,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            dir: dir.to_owned(),
            source,
        }),
    }
}

/// Read everything. The first thing in a new database is its format; it becomes durable with the first
/// batch.
fn load(db: &::sled::Db, dir: &Path) -> Result<(State, Slots), OpenError> {
    let invalid = |invalid: record::Invalid| match invalid {
        record::Invalid::Newer(_) => OpenError::Newer {
            dir: dir.to_owned(),
            reason: invalid.to_string(),
        },
        record::Invalid::Corrupt(reason) => OpenError::Damaged {
            dir: dir.to_owned(),
            reason,
        },
    };
    let mut recovery = Recovery::default();
    let mut empty = true;
    for record in db.iter() {
        let (key, value) = record.map_err(|error| open_error(dir, error))?;
        recovery.add(&key, &value).map_err(invalid)?;
        empty = false;
    }
    let recovered = recovery.finish(Instant::now()).map_err(invalid)?;
    if empty {
        let format = record::number(record::FORMAT);
        db.insert(record::FORMAT_KEY, format)
            .map_err(|error| open_error(dir, error))?;
    }
    Ok(recovered)
}

/// Remove snapshots that a crash left half written: sled would write over them without truncating.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "generating")
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn open_error(dir: &Path, error: ::sled::Error) -> OpenError {
    let dir = dir.to_owned();
    match error {
        ::sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock") => {
            OpenError::InUse(dir)
        }
        ::sled::Error::Io(source) => OpenError::Io { dir, source },
        error => OpenError::Damaged {
            dir,
            reason: error.to_string(),
        },
    }
}

fn give_up_ballast(dir: &Path) {
    match fs::remove_file(dir.join(BALLAST)) {
        Ok(()) => tracing::warn!(dir = %dir.display(), "the disk is full: gave up the space set aside"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(dir = %dir.display(), %error, "could not give up the space set aside"),
    }
}

/// Make `file` take up the ballast's size on the disk.
fn allocate(mut file: File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the descriptor is open for as long as `file` lives.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, BALLAST_SIZE as libc::off_t) };
        if result == 0 {
            return Ok(());
        }
    }
    // Where the file system cannot reserve space, zeros do; it is a fraction of a second, once.
    io::copy(&mut io::Read::take(io::repeat(0), BALLAST_SIZE), &mut file)?;
    file.flush()
}

/// What an unprivileged process may still write on the file system of `file`, in bytes.
fn free_space(file: &File) -> Option<u64> {
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open, and `answer` is read only after the call has filled it in.
    let answer = unsafe {
        if libc::fstatvfs(file.as_raw_fd(), answer.as_mut_ptr()) != 0 {
            return None;
        }
        answer.assume_init()
    };
    // Some file systems in user space say nothing: no blocks at all.
    (answer.f_blocks > 0).then(|| answer.f_bavail as u64 * answer.f_frsize as u64)
}
