//! Writing a container's log, in the lines that container runtimes write (`TIME STREAM F|P TEXT`), rotated. [`crate::log`]
//! reads it back.

use super::protocol::Log;
use super::protocol::pod::said;
use jiff::Timestamp;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The log of one instance of a container.
pub struct Writer {
    log: Log,
    file: File,
    size: u64,
    /// Kept for its memory.
    lines: Vec<u8>,
    /// Whether a write has failed, and it has been said.
    failed: bool,
}

impl Writer {
    /// A log that is there already is continued.
    pub fn open(log: &Log) -> io::Result<Self> {
        let file = open(&log.path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            file,
            log: log.clone(),
            lines: Vec::new(),
            failed: false,
        })
    }

    /// What was said. A line that does not end with the chunk is a part (`P`) of one.
    pub fn write(&mut self, tag: u8, chunk: &[u8]) {
        self.format(tag, chunk, Timestamp::now());
        match self.append() {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                super::complain(&format!("output is lost: {}: {error}", self.log.path.display()));
            }
            Err(_) => {}
        }
        self.lines.clear();
    }

    fn format(&mut self, tag: u8, chunk: &[u8], now: Timestamp) {
        let stream = if tag == said::STDERR { "stderr" } else { "stdout" };
        let mut text = chunk;
        while !text.is_empty() {
            let end = text.iter().position(|b| *b == b'\n');
            let (line, mark) = match end {
                Some(end) => (&text[..end], 'F'),
                None => (text, 'P'),
            };
            // Writing to a vector cannot fail.
            let _ = write!(self.lines, "{now} {stream} {mark} ");
            self.lines.extend_from_slice(line);
            self.lines.push(b'\n');
            text = &text[end.map_or(text.len(), |n| n + 1)..];
        }
    }

    fn append(&mut self) -> io::Result<()> {
        if self.size >= self.log.max_size {
            rotate(&self.log.path, self.log.max_files)?;
            self.file = open(&self.log.path)?;
            self.size = 0;
        }
        self.file.write_all(&self.lines)?;
        self.size += self.lines.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The `n`th file before the current one.
pub(crate) fn numbered(path: &Path, n: usize) -> PathBuf {
    path.with_extension(format!("log.{n}"))
}

/// `N.log` becomes `N.log.1`, that `N.log.2`, and so on; the oldest goes.
fn rotate(path: &Path, max_files: usize) -> io::Result<()> {
    let kept = max_files.max(1);
    if kept == 1 {
        return fs::remove_file(path);
    }
    for n in (1..kept).rev() {
        let from = if n == 1 {
            path.to_owned()
        } else {
            numbered(path, n - 1)
        };
        match fs::rename(from, numbered(path, n)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(directory: &Path, max_size: u64, max_files: usize) -> Writer {
        let log = Log {
            path: directory.join("0.log"),
            max_size,
            max_files,
        };
        Writer::open(&log).expect("opened")
    }

    #[test]
    fn lines_and_parts_of_lines_are_marked_and_timed() {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut writer = writer(directory.path(), 1 << 20, 2);
        let now = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        writer.format(said::STDERR, b"one\ntw", now);
        let text = String::from_utf8_lossy(&writer.lines).into_owned();
        let time = "2026-01-02T03:04:05.5Z stderr";
        assert_eq!(text, format!("{time} F one\n{time} P tw\n"));
    }

    #[test]
    fn a_log_that_has_grown_is_rotated_and_only_so_many_files_are_kept() {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut writer = writer(directory.path(), 100, 3);
        for n in 0..20 {
            writer.write(said::STDOUT, format!("{n:0>80}\n").as_bytes());
        }
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .expect("listed")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
    }
}
