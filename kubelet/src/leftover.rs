//! Processes of an earlier kubelet. A shim takes its tree down when its kubelet goes, so normally there are none;
//! but a pod is started again only when that is *proven*: each container's shim is written down with its start
//! time, and no process with that id and start time may be left.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The file in a container's directory.
const FILE: &str = "shim";

/// How long a shim gets to kill its tree by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Write down the shim of a container that has been started.
pub fn note(directory: &Path, shim: i32) -> io::Result<()> {
    let started = start_time(shim).unwrap_or_default();
    fs::write(directory.join(FILE), format!("{shim} {started}\n"))
}

/// Wait until no shim that is written down anywhere below `pods` is left; kill those that do not go.
pub async fn wait_for_all(pods: &Path) {
    for (shim, started) in noted(pods) {
        let mut waited = Duration::ZERO;
        let mut pause = Duration::from_millis(1);
        while start_time(shim) == Some(started) {
            if waited >= PATIENCE {
                tracing::warn!(shim, "a container of an earlier run does not end: killing it");
                for pid in crate::shim::descendants(shim) {
                    kill(pid);
                }
                kill(shim);
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

fn kill(pid: i32) {
    // One that has gone meanwhile is what we want.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Every `PODS/POD/containers/NAME/shim`.
fn noted(pods: &Path) -> Vec<(i32, u64)> {
    let list = |directory: &Path| -> Vec<_> {
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    };
    let containers = list(pods)
        .into_iter()
        .flat_map(|pod| list(&pod.join("containers")));
    let parse = |text: String| {
        let (shim, started) = text.trim().split_once(' ')?;
        Some((shim.parse().ok()?, started.parse().ok()?))
    };
    containers
        .filter_map(|c| parse(fs::read_to_string(c.join(FILE)).ok()?))
        .collect()
}

/// When a process started, in clock ticks since boot: the 22nd field of its `stat`. `None`: there is none, or only
/// its zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
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
    async fn a_process_of_the_same_id_but_another_start_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("tempdir");
        let container = directory.path().join("pod/containers/c");
        fs::create_dir_all(&container).expect("made");
        let own = std::process::id() as i32;
        note(&container, own).expect("noted");
        let started = start_time(own).expect("we run");
        assert_eq!(noted(directory.path()), [(own, started)]);
        fs::write(container.join(FILE), format!("{own} {}\n", started - 1)).expect("written");
        wait_for_all(directory.path()).await;
    }
}
