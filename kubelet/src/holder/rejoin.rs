//! The way back into the cluster's network for the holder of an ordinary user that comes after one which was killed: pods
//! live on, and with them their network, which only the user can enter again.

use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `NS_GET_USERNS` of `ioctl_ns(2)`: which user namespace a namespace belongs to.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// Enter the user and network namespaces of the cluster, for which the process must have one thread. `kept`: where petset
/// still has the network namespace open; `shims`: they have it open, too. False: nobody has it.
pub fn rejoin(kept: Option<&Path>, shims: impl IntoIterator<Item = i32>) -> Result<bool, String> {
    let of_shims = shims.into_iter().flat_map(networks_of);
    for path in kept.map(Path::to_owned).into_iter().chain(of_shims) {
        // Whoever had it open may have gone meanwhile.
        let Ok(network) = File::open(&path) else {
            continue;
        };
        return match enter(&network) {
            Ok(()) => Ok(true),
            Err(error) => Err(format!(
                "cannot enter the network of pods that run ({}): {error}",
                path.display()
            )),
        };
    }
    Ok(false)
}

/// What a shim has open of network namespaces: the cluster's, for it has left no other.
fn networks_of(shim: i32) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{shim}/fd"));
    let paths = open.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_network = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("net:["))
    };
    paths.filter(is_network).collect()
}

fn enter(network: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the request takes no argument.
    let raw = unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    let user = unsafe { OwnedFd::from_raw_fd(raw) };
    // First the one that gives the right to the other.
    setns(&user, CloneFlags::CLONE_NEWUSER)?;
    setns(network, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_has_a_network_there_is_nothing_to_enter() {
        let nowhere = Path::new("/proc/self/fd/1000000");
        assert_eq!(rejoin(Some(nowhere), [-1]), Ok(false));
    }

    #[test]
    fn a_network_that_is_open_is_found() {
        let own = std::process::id() as i32;
        let network = File::open("/proc/self/ns/net").expect("opened");
        let found = networks_of(own);
        let expected = PathBuf::from(format!("/proc/{own}/fd/{}", network.as_raw_fd()));
        assert!(found.contains(&expected), "{found:?}");
    }
}
