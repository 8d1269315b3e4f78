//! Which users there are in the calling process's user namespace.

use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A line of `/proc/self/uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first id inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// Whether there is only one user: then the namespace was made by an ordinary one.
pub fn is_single() -> bool {
    matches!(map("uid_map").as_slice(), [range] if range.count == 1)
}

/// Whether a process is in another user namespace than the calling one.
pub fn is_anothers(process: Pid) -> bool {
    let namespace = |process: &str| {
        fs::metadata(format!("/proc/{process}/ns/user"))
            .map(|n| n.ino())
            .ok()
    };
    namespace(&process.to_string()) != namespace("self")
}

/// The ranges of a map, `uid_map` or `gid_map`.
pub fn map(name: &str) -> Vec<Range> {
    parse(&fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Range {
            inside: next()?,
            outside: next()?,
            count: next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_line_by_line() {
        let range = |inside, outside, count| Range {
            inside,
            outside,
            count,
        };
        assert_eq!(
            parse("         0       1000          1\n         1     100000      65536\n"),
            [range(0, 1000, 1), range(1, 100_000, 65536)]
        );
        assert_eq!(parse("0 0 4294967295\n"), [range(0, 0, u32::MAX)]);
        assert_eq!(parse("nonsense"), []);
    }
}
