//! What `/proc/PID/stat` says.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::SplitWhitespace;

/// More than there ever is. The kernel writes it anew for each read, so that one is better than several.
const MOST: usize = 1024;

/// That of a process; `None`: there is none.
pub fn read(pid: i32) -> Option<String> {
    read_in(Path::new(&format!("/proc/{pid}")))
}

/// That of the process or thread with this directory.
pub fn read_in(directory: &Path) -> Option<String> {
    let mut stat = [0; MOST];
    let length = File::open(directory.join("stat")).ok()?.read(&mut stat).ok()?;
    Some(String::from_utf8_lossy(&stat[..length]).into_owned())
}

/// The fields from the third on, the state. The second, the program's name in parentheses, may hold anything.
pub fn fields(stat: &str) -> Option<SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}
