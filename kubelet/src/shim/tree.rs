//! Killing a process tree whole. The shim is the subreaper of the tree, so whatever loses its parent becomes the
//! shim's own child: walking down from the shim finds every process there is.

use super::stat;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

/// SIGKILL to every process below this one, but for the children in `spared` and what is below those; true: there were
/// some. One that forks faster than this walks is met again when its parent's death is reaped: the caller repeats until
/// no child is left.
pub fn kill_descendants(spared: &BTreeSet<Pid>) -> bool {
    let found = descendants_but(std::process::id() as i32, spared);
    for pid in &found {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    !found.is_empty()
}

/// How often processes are looked at that do not stand still, because they wait for a disk or make others all the time.
const STOP_TRIES: u32 = 50;

/// SIGKILL to a process and to all below it, which this one is not the subreaper of. They are stopped first: what is forked
/// while this walks would lose the parent by which it is found, and then nobody would know whose it is.
pub fn kill_with_descendants(root: i32) {
    let mut stopped = BTreeSet::new();
    let mut found = Vec::new();
    for _ in 0..STOP_TRIES {
        // Who stood still before the look around makes no more.
        let all_stand_still = stopped.iter().all(|pid| stands_still(*pid));
        found = vec![root];
        found.extend(descendants(root));
        let known = stopped.len();
        for pid in &found {
            if stopped.insert(*pid) {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
            }
        }
        if all_stand_still && stopped.len() == known {
            break;
        }
    }
    // From the top: who sees its child end might go on to its next one.
    for pid in found {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Whether all threads of a process are stopped, or it has gone.
fn stands_still(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    threads.flatten().all(|thread| {
        let Some(stat) = stat::read_in(&thread.path()) else {
            return true;
        };
        let state = stat::fields(&stat).and_then(|mut fields| fields.next());
        state.is_none_or(|state| matches!(state, "T" | "t" | "Z" | "X"))
    })
}

/// SIGKILL to every process that is one of these; true: there were some.
pub fn kill_each(which: impl Fn(i32) -> bool) -> bool {
    let mut found = false;
    for pid in processes().into_iter().filter(|pid| which(*pid)) {
        found = true;
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    found
}

/// SIGKILL to every process in this mount namespace; true: there were some. As long as it is open, its number is no other's.
pub fn kill_in_mount_namespace(namespace: &File) -> bool {
    let Ok(ours) = namespace.metadata() else {
        return false;
    };
    // Of a process that has ended and waits for its parent, nobody can tell.
    kill_each(|pid| {
        fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|theirs| theirs.ino() == ours.ino())
    })
}

/// Every process that there is.
pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// Every process below `root`, as `/proc` shows them now.
pub fn descendants(root: i32) -> Vec<i32> {
    descendants_but(root, &BTreeSet::new())
}

fn descendants_but(root: i32, spared: &BTreeSet<Pid>) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in processes() {
        let parent = stat::read(pid).and_then(|stat| parent_of(&stat));
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            if pid == root && spared.contains(&Pid::from_raw(child)) {
                continue;
            }
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// The fourth field of `/proc/PID/stat`.
fn parent_of(stat: &str) -> Option<i32> {
    stat::fields(stat)?.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::time::{Duration, Instant};

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_confuse() {
        assert_eq!(parent_of("12 (a) b ) (c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of("12 (sh"), None);
    }

    #[test]
    fn a_grandchild_is_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 30 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = [0u8; 1];
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut line).expect("the shell speaks");
        let found = descendants(child.id() as i32);
        for pid in &found {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        child.wait().expect("sh ends");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn whether_a_process_stands_still_is_seen_whatever_its_name_is() {
        let directory = tempfile::tempdir().expect("tempdir");
        let program = directory.path().join(OsStr::from_bytes(b"sl\xffep"));
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
        let mut child = std::process::Command::new(&program)
            .arg("30")
            .spawn()
            .expect("sleep");
        let pid = child.id() as i32;
        assert!(!stands_still(pid));
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !stands_still(pid) {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::yield_now();
        }
        child.kill().expect("it is there");
        child.wait().expect("it ends");
    }
}
