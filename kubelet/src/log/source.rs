//! One file of a log, read line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

/// A file, and how far it has been read.
pub struct Source {
    file: BufReader<File>,
    position: u64,
    /// Nothing from here on is read.
    end: u64,
    /// Kept for its memory.
    line: Vec<u8>,
}

impl Source {
    /// From its beginning.
    pub fn new(file: File) -> Self {
        Self {
            file: BufReader::new(file),
            position: 0,
            end: u64::MAX,
            line: Vec::new(),
        }
    }

    /// Where the next line begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Go on there, where a line begins.
    pub fn seek(&mut self, position: u64) -> io::Result<()> {
        self.position = self.file.seek(SeekFrom::Start(position))?;
        Ok(())
    }

    /// Nothing that is added from now on is read.
    pub fn ends_here(&mut self) -> io::Result<()> {
        self.end = self.file.get_ref().metadata()?.len();
        Ok(())
    }

    /// The next line with its end; `None`: there is no whole one now. The writer adds whole lines only, but a read may meet one
    /// half way.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let length = self.file.read_until(b'\n', &mut self.line)? as u64;
        if self.line.last() != Some(&b'\n') || self.position + length > self.end {
            let back = i64::try_from(length).unwrap_or(0);
            self.file.seek_relative(-back)?;
            return Ok(None);
        }
        self.position += length;
        Ok(Some(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn rest(source: &mut Source) -> String {
        let mut text = Vec::new();
        while let Some(line) = source.next().expect("readable") {
            text.extend_from_slice(line);
        }
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn only_whole_lines_are_read_and_from_where_one_was() {
        let mut written = tempfile::NamedTempFile::new().expect("a file");
        let mut source = Source::new(written.reopen().expect("opened"));
        written.write_all(b"one\ntw").expect("written");
        assert_eq!(rest(&mut source), "one\n");
        let second = source.position();
        written.write_all(b"o\nthree\n").expect("written");
        assert_eq!(rest(&mut source), "two\nthree\n");
        source.ends_here().expect("it has a size");
        written.write_all(b"four\n").expect("written");
        assert_eq!(rest(&mut source), "");
        source.seek(second).expect("there");
        assert_eq!(rest(&mut source), "two\nthree\n");
    }
}
