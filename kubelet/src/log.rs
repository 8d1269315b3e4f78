//! Container logs: standard output and error of each instance of a container, in the lines that container runtimes
//! write (`TIME STREAM F|P TEXT`), rotated, read back for `kubectl logs` (reference, 3.11). Shims write them.
//!
//! A follower waits for the kernel to say that the directory has changed, and for the kubelet to say that the container
//! is gone; not on the clock.

mod files;
mod source;

use files::{Changes, Files};
use jiff::Timestamp;
use source::Source;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The logs of all containers that run now, for followers to find.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    open: Arc<Mutex<HashMap<PathBuf, watch::Receiver<()>>>>,
}

/// For as long as this is kept, a log may grow.
#[derive(Debug)]
pub struct Open {
    logs: Logs,
    path: PathBuf,
    _end: watch::Sender<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.logs.open().remove(&self.path);
    }
}

/// Where the log of instance number `instance` (0, 1, 2 …) is, in a container's directory.
pub fn path(directory: &Path, instance: i32) -> PathBuf {
    directory.join(format!("{instance}.log"))
}

/// Make room for an instance: instances older than the one before it are forgotten.
pub fn prepare(directory: &Path, instance: i32) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (number, path) in instances(directory)? {
        if number + 1 < instance {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Logs {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, watch::Receiver<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance runs.
    pub fn begin(&self, directory: &Path, instance: i32) -> Open {
        let path = path(directory, instance);
        let (end, ended) = watch::channel(());
        self.open().insert(path.clone(), ended);
        Open {
            logs: self.clone(),
            path,
            _end: end,
        }
    }
}

/// Every file of a container's directory with the number of its instance.
fn instances(directory: &Path) -> io::Result<Vec<(i32, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let number = |path: PathBuf| {
        let number = path.file_name()?.to_str()?.split('.').next()?.parse().ok()?;
        Some((number, path))
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| number(entry.path()))
        .collect())
}

/// What `kubectl logs` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Wait for more while the container runs.
    pub follow: bool,
    /// At most so many lines from the end.
    pub tail_lines: Option<usize>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<usize>,
}

/// About so much is read before somebody has to take it: a log may be much larger than what anybody reads at once.
const BATCH: usize = 128 << 10;

/// Reads a log; each call of [`Reader::next`] gives some more of it.
pub struct Reader {
    options: Options,
    files: Files,
    /// What is still to be read, the oldest first. The last is the newest file that is known.
    sources: VecDeque<Source>,
    /// Of one that is followed.
    following: Option<Following>,
    left: usize,
}

struct Following {
    changes: Changes,
    /// Says no more once the container is gone.
    running: watch::Receiver<()>,
}

impl Logs {
    /// Open the log of an instance for reading.
    pub fn read(&self, directory: &Path, instance: i32, options: Options) -> io::Result<Reader> {
        let path = path(directory, instance);
        let running = self.open().get(&path).cloned().filter(|_| options.follow);
        let follow = |running| {
            let changes = Changes::of(directory)?;
            Ok::<_, io::Error>(Following { changes, running })
        };
        // Changes are collected from before the first look on.
        let following = running.map(follow).transpose()?;
        let (files, found) = Files::open(path)?;
        if found.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut reader = Reader {
            left: options.limit_bytes.unwrap_or(usize::MAX),
            options,
            files,
            sources: found.into_iter().map(Source::new).collect(),
            following,
        };
        reader.begin()?;
        Ok(reader)
    }
}

impl Reader {
    /// Go to where the first line is that is wanted. What is added from now on is for those who wait for it.
    fn begin(&mut self) -> io::Result<()> {
        if self.following.is_none() {
            self.sources.iter_mut().try_for_each(Source::ends_here)?;
        }
        let Some(most) = self.options.tail_lines else {
            return Ok(());
        };
        let mut tail = VecDeque::new();
        for (number, source) in self.sources.iter_mut().enumerate() {
            let mut position = 0;
            while let Some(line) = source.next()? {
                if render(line, &self.options).is_some() {
                    tail.push_back((number, position));
                    if tail.len() > most {
                        tail.pop_front();
                    }
                }
                position = source.position();
            }
        }
        // No line of what is there is wanted: all of it has been read.
        let Some((number, position)) = tail.front().copied() else {
            return Ok(());
        };
        self.sources.drain(..number);
        for source in &mut self.sources {
            source.seek(0)?;
        }
        match self.sources.front_mut() {
            Some(source) => source.seek(position),
            None => Ok(()),
        }
    }

    /// The next bytes; `None` at the end, which a followed log has when its container is gone.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            // Looked at before the reading: there may be something left.
            let following = self.following.as_ref();
            let has_ended = following.is_none_or(|f| f.running.has_changed().is_err());
            let more = self.batch()?;
            if !more.is_empty() {
                return Ok(Some(self.limited(more)));
            }
            match &mut self.following {
                Some(following) if !has_ended => tokio::select! {
                    changed = following.changes.next() => changed?,
                    _ = following.running.changed() => {}
                },
                _ => return Ok(None),
            }
        }
    }

    /// What there is now, or the beginning of it.
    fn batch(&mut self) -> io::Result<Vec<u8>> {
        let mut more = Vec::new();
        while let Some(source) = self.sources.front_mut() {
            while let Some(line) = source.next()? {
                more.extend(render(line, &self.options).into_iter().flatten());
                if more.len() >= BATCH {
                    return Ok(more);
                }
            }
            if self.sources.len() > 1 {
                self.sources.pop_front();
                continue;
            }
            let newer = match &self.following {
                Some(_) => self.files.newer()?,
                None => Vec::new(),
            };
            if newer.is_empty() {
                break;
            }
            // First what was written to this one before it was put aside.
            self.sources.extend(newer.into_iter().map(Source::new));
        }
        Ok(more)
    }

    fn limited(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(self.left);
        self.left -= bytes.len();
        bytes
    }
}

/// A stored line as it is shown; `None` if it is too old. A part of a line has no line end.
fn render(line: &[u8], options: &Options) -> Option<Vec<u8>> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let (time, _stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let time = std::str::from_utf8(time).ok()?;
    if let Some(since) = options.since
        && time.parse::<Timestamp>().is_ok_and(|t| t < since)
    {
        return None;
    }
    let mut shown = Vec::with_capacity(line.len());
    if options.timestamps {
        shown.extend_from_slice(time.as_bytes());
        shown.push(b' ');
    }
    let text = if tag == b"P" {
        text.strip_suffix(b"\n").unwrap_or(text)
    } else {
        text
    };
    shown.extend_from_slice(text);
    Some(shown)
}

/// The newest instance that has a log in a container's directory.
pub fn newest(directory: &Path) -> Option<i32> {
    instances(directory)
        .ok()?
        .into_iter()
        .map(|(number, _)| number)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::log::Writer;
    use crate::shim::protocol::Log;
    use crate::shim::protocol::pod::said;
    use std::time::Duration;

    fn writer(directory: &Path, instance: i32, max_size: u64) -> Writer {
        let log = Log {
            path: path(directory, instance),
            max_size,
            max_files: 5,
        };
        Writer::open(&log).expect("opened")
    }

    async fn everything(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        while let Some(more) = reader.next().await.expect("readable") {
            text.extend(more);
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn what_a_container_said_is_read_back_by_tail_bytes_and_with_times() {
        let directory = tempfile::tempdir().expect("tempdir");
        let logs = Logs::default();
        let time = "2026-01-02T03:04:05.5Z";
        let text = format!("{time} stdout F one\n{time} stdout F two\n{time} stdout P three\n");
        fs::write(path(directory.path(), 0), text).expect("written");
        let read = |options: Options| logs.read(directory.path(), 0, options).expect("opened");
        assert_eq!(everything(&mut read(Options::default())).await, "one\ntwo\nthree");
        let tail = Options {
            tail_lines: Some(2),
            ..Options::default()
        };
        assert_eq!(everything(&mut read(tail)).await, "two\nthree");
        let limited = Options {
            limit_bytes: Some(5),
            ..Options::default()
        };
        assert_eq!(everything(&mut read(limited)).await, "one\nt");
        let timed = Options {
            timestamps: true,
            tail_lines: Some(1),
            ..Options::default()
        };
        assert_eq!(everything(&mut read(timed)).await, "2026-01-02T03:04:05.5Z three");
        let since = Options {
            since: Some("2026-01-02T03:04:06Z".parse().expect("time")),
            ..Options::default()
        };
        assert_eq!(everything(&mut read(since)).await, "");
    }

    #[tokio::test]
    async fn a_follower_sees_what_comes_over_all_rotations_and_ends_with_the_container() {
        let directory = tempfile::tempdir().expect("tempdir");
        let logs = Logs::default();
        let open = logs.begin(directory.path(), 0);
        let mut writer = writer(directory.path(), 0, 200);
        let follow = Options {
            follow: true,
            ..Options::default()
        };
        let mut reader = logs.read(directory.path(), 0, follow).expect("opened");
        let (mut seen, mut said) = (String::new(), String::new());
        for n in 0..100 {
            let line = format!("line {n}\n");
            writer.write(said::STDERR, line.as_bytes());
            said += &line;
            if n % 7 == 0 {
                while seen.len() < said.len() {
                    let more = tokio::time::timeout(Duration::from_secs(10), reader.next()).await;
                    let more = more.expect("in time").expect("readable").expect("no end");
                    seen += std::str::from_utf8(&more).expect("text");
                }
            }
        }
        drop(open);
        seen += &everything(&mut reader).await;
        assert_eq!(seen, said);
        assert!(directory.path().join("0.log.4").exists());
    }

    #[tokio::test]
    async fn a_long_log_comes_in_pieces_each_when_it_is_asked_for() {
        let directory = tempfile::tempdir().expect("tempdir");
        let logs = Logs::default();
        let open = logs.begin(directory.path(), 0);
        let mut writer = writer(directory.path(), 0, 1 << 20);
        let line = "x".repeat(999) + "\n";
        let mut say = |times| (0..times).for_each(|_| writer.write(said::STDOUT, line.as_bytes()));
        say(1500);
        for follow in [false, true] {
            let options = Options {
                follow,
                ..Options::default()
            };
            let mut reader = logs.read(directory.path(), 0, options).expect("opened");
            let first = reader.next().await.expect("readable").expect("something");
            assert!(first.len() < 2 * BATCH, "{}", first.len());
        }
        // What comes later belongs to those only who wait for it.
        let read = |options| logs.read(directory.path(), 0, options).expect("opened");
        let mut whole = read(Options::default());
        let mut tail = read(Options {
            tail_lines: Some(3),
            ..Options::default()
        });
        let mut nothing = read(Options {
            tail_lines: Some(0),
            ..Options::default()
        });
        let mut follower = read(Options {
            follow: true,
            tail_lines: Some(1),
            ..Options::default()
        });
        say(2);
        drop(open);
        assert_eq!(everything(&mut whole).await.len(), 1500 * 1000);
        assert_eq!(everything(&mut tail).await.len(), 3 * 1000);
        assert_eq!(everything(&mut nothing).await.len(), 0);
        assert_eq!(everything(&mut follower).await.len(), 3 * 1000);
    }

    #[tokio::test]
    async fn a_log_is_read_across_its_files() {
        let directory = tempfile::tempdir().expect("tempdir");
        let logs = Logs::default();
        let mut writer = writer(directory.path(), 3, 20_000);
        let text = "x".repeat(1000) + "\n";
        for _ in 0..50 {
            writer.write(said::STDOUT, text.as_bytes());
        }
        let mut reader = logs
            .read(directory.path(), 3, Options::default())
            .expect("opened");
        assert_eq!(everything(&mut reader).await.len(), text.len() * 50);
        assert_eq!(newest(directory.path()), Some(3));
    }
}
