//! What a container that has ended says of it: the end of its termination log, or of its log if it asks for that.

use super::Worker;
use crate::shim::protocol::Exit;
use k8s_openapi::api::core::v1::Pod;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of a termination log.
const MOST: usize = 4096;

/// Bytes and lines of a log.
const MOST_OF_LOG: usize = 2048;
const LINES_OF_LOG: usize = 80;

/// Bytes of a log's file in which these lines are looked for: a line of it has at most 16 KiB.
const LOOKED_AT: usize = 2 << 20;

impl Worker {
    /// The message of a container that has ended like this.
    pub(super) fn termination_message(&self, pod: &Pod, name: &str, exit: Exit) -> Option<String> {
        let container = self.container(pod, name)?;
        let directory = self.kubelet.pod_directory(pod).join("containers").join(name);
        let text = end_of(&directory.join("termination-log"), MOST).unwrap_or_default();
        if !text.is_empty() {
            return Some(text);
        }
        let falls_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if exit.code == 0 || !falls_back {
            return None;
        }
        let instance = self.record.containers.get(name).map_or(0, |r| r.restarts);
        let log = end_of(&crate::log::path(&directory, instance), LOOKED_AT).ok()?;
        Some(tail(&log)).filter(|text| !text.is_empty())
    }
}

/// The last bytes of a file, as text.
fn end_of(path: &Path, most: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most as u64)))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines that were logged, without times and streams, and of these the last bytes.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(LINES_OF_LOG)..] {
        // The first may be half a line.
        let mut parts = line.splitn(4, ' ').skip(2);
        if let (Some(part), Some(said)) = (parts.next(), parts.next()) {
            text.push_str(said);
            text.push_str(if part == "P" { "" } else { "\n" });
        }
    }
    let from = (text.len().saturating_sub(MOST_OF_LOG)..).find(|at| text.is_char_boundary(*at));
    text.split_off(from.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(lines: &[&str]) -> String {
        let line = |text: &&str| format!("2026-01-01T00:00:00Z stdout {text}\n");
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_end_of_a_log_is_eighty_lines_or_two_kilobytes_as_they_were_said() {
        assert_eq!(tail(&logged(&["F one", "P tw", "F o", "F "])), "one\ntwo\n\n");
        let many: Vec<String> = (0..100).map(|n| format!("F {n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let said = tail(&logged(&many));
        assert!(said.starts_with("20\n") && said.ends_with("99\n"), "{said}");
        let long = format!("F {}", "ö".repeat(2000));
        assert_eq!(tail(&logged(&[&long])), format!("{}\n", "ö".repeat(1023)));
        assert_eq!(tail("half\n"), "");
        assert_eq!(tail(""), "");
    }

    #[test]
    fn of_a_long_file_the_end_is_read_whatever_its_bytes_are() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [b"begin".as_slice(), &[0xff; 10], b"end"].concat()).expect("written");
        assert_eq!(end_of(file.path(), 4).expect("read"), "\u{fffd}end");
        assert!(end_of(Path::new("/nowhere"), 4).is_err());
    }
}
