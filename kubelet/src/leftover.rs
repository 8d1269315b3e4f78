//! Processes that a shim left behind, should it have been killed. Normally there are none: what a shim holds dies with it
//! (`PDEATHSIG`, and the holder kills what it inherits). But a pod is started again only when that is *proven*: each shim
//! writes down what it holds, and nothing of that may be left.
//!
//! A process is known by its id and the time of its start, within one boot of the machine: ids are used again. What came from
//! a container's main process is known by its mount namespace; the number of one is used again at once, so that a mount out of
//! the shim's directory (every container has one, for its termination message) must be seen in it, too. Where containers have
//! no mount namespace, it is known by its environment, which says where the container's volumes are. Control groups go last.

use crate::shim::protocol::pod;
use crate::shim::{self, mountinfo, stat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file beside a shim's socket.
const FILE: &str = "shim.json";

/// How often and when a control group is tried to be removed.
const CGROUP_TRIES: u32 = 100;
const CGROUP_PAUSE: Duration = Duration::from_millis(10);

/// What a shim holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Of the running kernel.
    boot: String,
    /// The shim and main processes: ids, and starts in clock ticks since boot.
    processes: BTreeSet<(i32, u64)>,
    /// Which of them is the shim.
    #[serde(default)]
    shim: Option<(i32, u64)>,
    /// Numbers of mount namespaces that are not the host's.
    mounts: BTreeSet<u64>,
    /// Entries of the environment that nobody else's processes have.
    #[serde(default)]
    environment: BTreeSet<String>,
    /// Control groups that were made for containers.
    #[serde(default)]
    cgroups: BTreeSet<PathBuf>,
}

impl Held {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            boot: boot(),
            ..Self::default()
        }
    }

    /// This one, too. The first is the shim.
    pub fn add(&mut self, pid: i32) {
        let process = start_time(pid).map(|started| (pid, started));
        self.shim = self.shim.or(process);
        self.processes.extend(process);
        let mounts = mounts_of(pid).filter(|mounts| Some(*mounts) != mounts_of(std::process::id() as i32));
        self.mounts.extend(mounts);
    }

    /// Processes that have this entry in their environment, too; false: that has been known.
    pub fn add_environment(&mut self, name: &str, value: &str) -> bool {
        self.environment.insert(format!("{name}={value}"))
    }

    /// These control groups, too.
    pub fn add_cgroups(&mut self, directories: impl IntoIterator<Item = PathBuf>) {
        self.cgroups.extend(directories);
    }

    /// Write it down in the shim's directory.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{FILE}.new"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, directory.join(FILE))
    }

    fn read(directory: &Path) -> Option<Self> {
        let held: Self = serde_json::from_slice(&fs::read(directory.join(FILE)).ok()?).ok()?;
        (held.boot == boot()).then_some(held)
    }

    /// Kill what is left of the shim that had this directory; whether something was.
    fn kill(&self, directory: &Path) -> bool {
        let mut found = false;
        for (pid, started) in &self.processes {
            if start_time(*pid) == Some(*started) {
                found = true;
                shim::kill_with_descendants(*pid);
            }
        }
        let is_ours = |pid: i32| {
            mounts_of(pid).is_some_and(|mounts| self.mounts.contains(&mounts))
                && fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                    .is_ok_and(|table| mountinfo::shows(&table, directory))
        };
        let has_ours = |pid: i32| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                let mut entries = environment.split(|byte| *byte == 0);
                entries.any(|entry| self.environment.iter().any(|ours| entry == ours.as_bytes()))
            })
        };
        found
            | (!self.mounts.is_empty() && shim::kill_each(is_ours))
            | (!self.environment.is_empty() && shim::kill_each(has_ours))
    }
}

/// A shim that an earlier holder has forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its process id, as long as it runs.
    pub pid: i32,
    started: u64,
}

impl Orphan {
    /// Whether it runs.
    pub fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Kill it with all that it holds; whether there was anything left to kill.
    pub fn kill(self) -> bool {
        self.is_alive() && {
            shim::kill_with_descendants(self.pid);
            true
        }
    }
}

/// The shims of a data directory that run, at pods' places and at containers'.
pub fn orphans(data_dir: &Path) -> Vec<Orphan> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let pods = below(&data_dir.join("pods"));
    let containers = pods.iter().flat_map(|pod| below(&pod.join("containers")));
    let held = pods.iter().cloned().chain(containers);
    held.filter_map(|place| Held::read(&place)?.shim)
        .map(|(pid, started)| Orphan { pid, started })
        .filter(|orphan| orphan.is_alive())
        .collect()
}

/// Kill what a shim left behind, and wait until nothing of it is there any more. Not for one that answers.
pub async fn settle(directory: &Path) {
    let Some(held) = Held::read(directory) else {
        return;
    };
    let directory = &directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mut pause = Duration::from_millis(1);
    while held.kill(directory) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    for group in &held.cgroups {
        remove_cgroup(group).await;
    }
    forget(directory);
    let _ = fs::remove_file(directory.join(pod::SOCKET));
}

/// What a killed process was in goes only when the kernel has cleared it away.
async fn remove_cgroup(directory: &Path) {
    for _ in 0..CGROUP_TRIES {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => tokio::time::sleep(CGROUP_PAUSE).await,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let directory = directory.display();
                return tracing::warn!(%directory, %error, "a control group stays");
            }
            _ => return,
        }
    }
    tracing::warn!(directory = %directory.display(), "a control group stays: it is in use");
}

/// Nothing of what a shim held is left.
pub fn forget(directory: &Path) {
    let _ = fs::remove_file(directory.join(FILE));
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn mounts_of(pid: i32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino())
}

/// When a process started, in clock ticks since boot: the 22nd field of its `stat`. `None`: there is none, or only
/// its zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = stat::read(pid)?;
    let mut fields = stat::fields(&stat)?;
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_of_the_same_id_but_another_start_or_boot_is_left_alone() {
        let directory = tempfile::tempdir().expect("tempdir");
        let own = std::process::id() as i32;
        let started = start_time(own).expect("we run");
        let other_start = Held {
            processes: BTreeSet::from([(own, started - 1)]),
            ..Held::new()
        };
        other_start.write(directory.path()).expect("written");
        settle(directory.path()).await;
        let other_boot = Held {
            boot: "another".into(),
            processes: BTreeSet::from([(own, started)]),
            shim: Some((own, started)),
            mounts: mounts_of(own).into_iter().collect(),
            ..Held::new()
        };
        other_boot.write(directory.path()).expect("written");
        settle(directory.path()).await;
    }

    #[test]
    fn shims_that_run_are_found_at_pods_and_at_containers_and_those_of_another_start_or_boot_are_not() {
        let data_dir = tempfile::tempdir().expect("tempdir");
        let own = std::process::id() as i32;
        let write = |place: &str, held: Held| {
            let directory = data_dir.path().join("pods").join(place);
            fs::create_dir_all(&directory).expect("created");
            held.write(&directory).expect("written");
        };
        let held = || {
            let mut held = Held::new();
            held.add(own);
            held
        };
        let Some((_, started)) = held().shim else {
            panic!("we run")
        };
        write("isolated", held());
        write("plain/containers/c", held());
        let other_start = Some((own, started - 1));
        write(
            "restarted",
            Held {
                shim: other_start,
                ..held()
            },
        );
        write(
            "rebooted",
            Held {
                boot: "another".into(),
                ..held()
            },
        );
        let found = orphans(data_dir.path());
        assert_eq!(found, [Orphan { pid: own, started }; 2]);
        assert!(orphans(Path::new("/nowhere")).is_empty());
    }

    #[tokio::test]
    async fn what_is_written_down_is_killed_with_all_below() {
        let directory = tempfile::tempdir().expect("tempdir");
        // It is killed while it makes others, each of which has the other end of its output.
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "echo; for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; wait",
            ])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut stdout = child.stdout.take().expect("it is piped");
        io::Read::read_exact(&mut stdout, &mut [0; 1]).expect("it runs");
        let mut held = Held::new();
        held.add(child.id() as i32);
        held.write(directory.path()).expect("written");
        settle(directory.path()).await;
        assert!(!child.wait().expect("it ended").success());
        assert_eq!(Held::read(directory.path()), None);
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(io::copy(&mut stdout, &mut io::sink())));
        let rest = ended.recv_timeout(Duration::from_secs(30));
        rest.expect("a process is left").expect("it can be read");
    }

    #[tokio::test]
    async fn who_has_lost_all_parents_is_known_by_the_environment() {
        let directory = tempfile::tempdir().expect("tempdir");
        let value = directory.path().display().to_string();
        let start = |value: &str| {
            let mut command = std::process::Command::new("sleep");
            command.arg("1000").env("PETSET_ROOT", value);
            command.spawn().expect("sleep")
        };
        let (mut ours, mut other) = (start(&value), start(&format!("{value}/other")));
        let mut held = Held::new();
        assert!(held.add_environment("PETSET_ROOT", &value));
        assert!(!held.add_environment("PETSET_ROOT", &value));
        held.write(directory.path()).expect("written");
        settle(directory.path()).await;
        assert!(!ours.wait().expect("it ended").success());
        assert_eq!(other.try_wait().expect("it can be waited for"), None);
        other.kill().expect("it runs");
        other.wait().expect("it ends");
    }

    #[tokio::test]
    async fn another_process_in_a_mount_namespace_of_the_same_number_is_left_alone() {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut other = std::process::Command::new("unshare")
            .args(["--user", "--mount", "sh", "-c", "echo; exec sleep 1000"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = [0u8; 1];
        io::Read::read_exact(other.stdout.as_mut().expect("piped"), &mut line).expect("it is there");
        let held = Held {
            mounts: mounts_of(other.id() as i32).into_iter().collect(),
            ..Held::new()
        };
        assert!(!held.mounts.is_empty());
        held.write(directory.path()).expect("written");
        settle(directory.path()).await;
        assert_eq!(other.try_wait().expect("it can be waited for"), None);
        other.kill().expect("it runs");
        other.wait().expect("it ends");
    }
}
