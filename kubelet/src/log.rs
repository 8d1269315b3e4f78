//! Container logs: standard output and error of each instance of a container, in the lines that container runtimes
//! write (`TIME STREAM F|P TEXT`), rotated, read back for `kubectl logs` (reference, 3.11).
//!
//! A follower waits on the writer, not on the clock: both live in the kubelet.

use events::Clock;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead};
use tokio::sync::watch;

/// A file is rotated when it has grown to this many bytes, and so many files are kept.
const ROTATE_AT: u64 = 10 << 20;
const KEPT: usize = 5;

/// A longer line is split into parts (`P`), the last of which is marked as the end (`F`).
const LONGEST: usize = 16 << 10;

/// The writers of all containers that run now, for followers to find.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    open: Arc<Mutex<HashMap<PathBuf, watch::Receiver<Written>>>>,
}

/// How far a log has been written: rotations so far, bytes in the current file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    rotations: u64,
    bytes: u64,
}

/// The log of one instance of a container, open for writing.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    inner: Mutex<Inner>,
    logs: Logs,
    clock: DebugClock,
}

struct DebugClock(Clock);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Clock")
    }
}

#[derive(Debug)]
struct Inner {
    file: File,
    written: Written,
    tell: watch::Sender<Written>,
}

impl Logs {
    /// Open the log of instance number `instance` (0, 1, 2 …) in a container's directory; older instances than
    /// the one before are removed.
    pub fn create(&self, directory: &Path, instance: i32, clock: Clock) -> io::Result<Arc<Log>> {
        fs::create_dir_all(directory)?;
        for (number, path) in instances(directory)? {
            if number + 1 < instance {
                fs::remove_file(path)?;
            }
        }
        let path = directory.join(format!("{instance}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let written = Written {
            rotations: 0,
            bytes: file.metadata()?.len(),
        };
        let (tell, told) = watch::channel(written);
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.clone(), told);
        let inner = Mutex::new(Inner { file, written, tell });
        Ok(Arc::new(Log {
            path,
            inner,
            logs: self.clone(),
            clock: DebugClock(clock),
        }))
    }

    fn writer(&self, path: &Path) -> Option<watch::Receiver<Written>> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.logs
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.path);
    }
}

impl Log {
    /// Copy a stream of the container into the log until it ends.
    pub async fn copy(self: Arc<Self>, stream: &'static str, from: impl AsyncRead + Unpin) {
        let mut from = tokio::io::BufReader::with_capacity(LONGEST, from);
        loop {
            let chunk = match from.fill_buf().await {
                Ok([]) | Err(_) => return,
                Ok(chunk) => chunk,
            };
            let (mut text, mut lines) = (chunk, Vec::with_capacity(chunk.len() + 64));
            let now = (self.clock.0)();
            while !text.is_empty() {
                let end = text.iter().position(|b| *b == b'\n');
                let (line, tag) = (
                    &text[..end.unwrap_or(text.len())],
                    if end.is_some() { 'F' } else { 'P' },
                );
                // Writing to a vector cannot fail.
                let _ = write!(lines, "{now} {stream} {tag} ");
                lines.extend_from_slice(line);
                lines.push(b'\n');
                text = &text[end.map_or(text.len(), |n| n + 1)..];
            }
            let length = chunk.len();
            from.consume(length);
            if let Err(error) = self.append(&lines) {
                tracing::warn!(log = %self.path.display(), %error, "output of a container is lost");
            }
        }
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.written.bytes >= ROTATE_AT {
            rotate(&self.path)?;
            inner.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            inner.written = Written {
                rotations: inner.written.rotations + 1,
                bytes: 0,
            };
        }
        inner.file.write_all(lines)?;
        inner.written.bytes += lines.len() as u64;
        inner.tell.send_replace(inner.written);
        Ok(())
    }
}

/// `N.log` becomes `N.log.1`, that `N.log.2`, and so on; the oldest goes.
fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |n: usize| path.with_extension(format!("log.{n}"));
    for n in (1..KEPT).rev() {
        let from = if n == 1 { path.to_owned() } else { numbered(n - 1) };
        match fs::rename(from, numbered(n)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
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

/// Reads a log; each call of [`Reader::next`] gives some more of it.
pub struct Reader {
    path: PathBuf,
    options: Options,
    first: Option<Vec<u8>>,
    file: BufReader<File>,
    writer: Option<watch::Receiver<Written>>,
    rotations: u64,
    left: usize,
}

impl Logs {
    /// Open the log of an instance for reading.
    pub fn read(&self, directory: &Path, instance: i32, options: Options) -> io::Result<Reader> {
        let path = directory.join(format!("{instance}.log"));
        let writer = self.writer(&path).filter(|_| options.follow);
        let rotations = writer.as_ref().map_or(0, |w| w.borrow().rotations);
        let mut file = BufReader::new(File::open(&path)?);
        let mut tail = VecDeque::new();
        let mut take = |line: &[u8]| {
            if let Some(text) = render(line, &options) {
                tail.push_back(text);
                if options.tail_lines.is_some_and(|most| tail.len() > most) {
                    tail.pop_front();
                }
            }
        };
        for n in (1..KEPT).rev() {
            if let Ok(older) = File::open(path.with_extension(format!("log.{n}"))) {
                each_line(&mut BufReader::new(older), &mut take)?;
            }
        }
        each_line(&mut file, &mut take)?;
        let first = tail.into_iter().flatten().collect();
        let left = options.limit_bytes.unwrap_or(usize::MAX);
        Ok(Reader {
            path,
            options,
            first: Some(first),
            file,
            writer,
            rotations,
            left,
        })
    }
}

impl Reader {
    /// The next bytes; `None` at the end, which a followed log has when its container has ended.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        if let Some(first) = self.first.take().filter(|f| !f.is_empty()) {
            return Ok(Some(self.limited(first)));
        }
        loop {
            let Some(writer) = &mut self.writer else {
                return Ok(None);
            };
            // The writer may be gone with something left to read.
            let ended = writer.changed().await.is_err();
            let now = *writer.borrow_and_update();
            let mut more = Vec::new();
            let options = &self.options;
            let mut take = |line: &[u8]| more.extend(render(line, options).into_iter().flatten());
            each_line(&mut self.file, &mut take)?;
            if now.rotations != self.rotations {
                self.rotations = now.rotations;
                self.file = BufReader::new(File::open(&self.path)?);
                each_line(&mut self.file, &mut take)?;
            }
            if ended {
                self.writer = None;
            }
            if !more.is_empty() {
                return Ok(Some(self.limited(more)));
            }
        }
    }

    fn limited(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(self.left);
        self.left -= bytes.len();
        bytes
    }
}

/// Whole lines only: the writer appends whole lines, but a read may meet one half way.
fn each_line(file: &mut BufReader<File>, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = file.by_ref().read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            file.seek_relative(-i64::try_from(length).unwrap_or(0))?;
            return Ok(());
        }
        take(&line);
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

    fn clock() -> Clock {
        Arc::new(|| "2026-01-02T03:04:05.5Z".parse().expect("a time"))
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
        let log = logs.create(directory.path(), 0, clock()).expect("created");
        log.clone().copy("stdout", &b"one\ntwo\nthree"[..]).await;
        drop(log);
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
    async fn a_follower_sees_what_comes_and_ends_with_the_container() {
        let directory = tempfile::tempdir().expect("tempdir");
        let logs = Logs::default();
        let log = logs.create(directory.path(), 0, clock()).expect("created");
        let mut reader = logs
            .read(
                directory.path(),
                0,
                Options {
                    follow: true,
                    ..Options::default()
                },
            )
            .expect("opened");
        let follower = tokio::spawn(async move { everything(&mut reader).await });
        for n in 0..10 {
            log.clone().copy("stderr", format!("line {n}\n").as_bytes()).await;
            tokio::task::yield_now().await;
        }
        drop(log);
        let seen = follower.await.expect("ended");
        assert_eq!(seen.lines().count(), 10, "{seen}");
    }

    #[tokio::test]
    async fn a_log_is_rotated_and_read_across_its_files() {
        let directory = tempfile::tempdir().expect("tempdir");
        let logs = Logs::default();
        let log = logs.create(directory.path(), 3, clock()).expect("created");
        let text = "x".repeat(1000) + "\n";
        let lines = ROTATE_AT as usize / 1000 + 100;
        log.clone().copy("stdout", text.repeat(lines).as_bytes()).await;
        drop(log);
        assert!(directory.path().join("3.log.1").exists());
        let mut reader = logs
            .read(directory.path(), 3, Options::default())
            .expect("opened");
        assert_eq!(everything(&mut reader).await.len(), text.len() * lines);
        assert_eq!(newest(directory.path()), Some(3));
    }
}
