//! The system's directories of a container: `/proc` of its own processes, `/sys` to look at, `/dev` with what every
//! program expects, and the cover over what would let a program harm the host (runc's list).

use super::walk::{Above, Make, place, walk};
use super::{Error, at, tree};
use crate::shim::protocol::Spec;
use crate::shim::user;
use rustix::fs::{FileType, Mode, mkdirat, mknodat, symlinkat};
use rustix::mount::MountAttrFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Devices by name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What root could change the host with.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What root could learn of the host.
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/sys/firmware",
];

/// Where the system's directories go in a root directory.
pub struct Places {
    proc: OwnedFd,
    sys: OwnedFd,
    dev: OwnedFd,
}

/// Find or make the places, while the root directory can be written.
pub fn places(root: BorrowedFd) -> Result<Places, Error> {
    let find = |path| {
        let path = Path::new(path);
        place_in(root, path).map_err(at("cannot make the mount point", path))
    };
    Ok(Places {
        proc: find("/proc")?,
        sys: find("/sys")?,
        dev: find("/dev")?,
    })
}

/// An image in which one of them is a link would have it mounted over something else.
fn place_in(root: BorrowedFd, path: &Path) -> io::Result<OwnedFd> {
    let name = path.strip_prefix("/").unwrap_or(path);
    if rustix::fs::readlinkat(root, name, Vec::new()).is_ok() {
        return Err(io::Error::other("it is a link"));
    }
    walk(
        root,
        path,
        Make::Directory,
        Mode::from_raw_mode(0o755),
        Above::Stays,
    )
}

impl Places {
    /// Mount the system's directories there.
    pub fn fill(&self, root: BorrowedFd, spec: &Spec, said: &mut Vec<String>) -> Result<(), Error> {
        let user = user::is_single();
        let privileged = spec.security.privileged;
        self.proc(said).map_err(at("cannot mount", Path::new("/proc")))?;
        self.sys(root, privileged)
            .map_err(at("cannot mount", Path::new("/sys")))?;
        if privileged {
            let all = take("/dev").and_then(|dev| tree::put(dev.as_fd(), self.dev.as_fd()));
            return all.map_err(at("cannot mount", Path::new("/dev")));
        }
        let dev = self
            .dev(root, user)
            .map_err(at("cannot fill", Path::new("/dev")))?;
        // To an ordinary user these belong to somebody else anyway.
        if !user {
            let cover = || cover(root, dev.as_fd());
            cover().map_err(at("cannot cover", Path::new("/proc")))?;
        }
        Ok(())
    }

    fn proc(&self, said: &mut Vec<String>) -> io::Result<()> {
        let proc = match tree::fresh("proc", &[], restricted()) {
            Ok(proc) => proc,
            Err(error) => {
                said.push(format!("/proc shows the host's processes ({error})"));
                take("/proc")?
            }
        };
        tree::put(proc.as_fd(), self.proc.as_fd())
    }

    fn sys(&self, root: BorrowedFd, writable: bool) -> io::Result<()> {
        let find = |path| walk(root, Path::new(path), Make::Nothing, Mode::empty(), Above::Stays);
        match tree::fresh("sysfs", &[], restricted()) {
            Ok(sys) => {
                tree::put(sys.as_fd(), self.sys.as_fd())?;
                // Programs look here for how much they may use.
                if let (Ok(groups), Ok(target)) = (take("/sys/fs/cgroup"), find("/sys/fs/cgroup")) {
                    tree::put(groups.as_fd(), target.as_fd())?;
                }
            }
            // Another's network: then it is the host's.
            Err(_) => tree::put(take("/sys")?.as_fd(), self.sys.as_fd())?,
        }
        if writable {
            return Ok(());
        }
        tree::make_read_only(find("/sys")?.as_fd())
    }

    /// The container's own `/dev`.
    fn dev(&self, root: BorrowedFd, user: bool) -> io::Result<OwnedFd> {
        let options = [("mode", "0755"), ("size", "64m")];
        let dev = tree::fresh("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        tree::put(dev.as_fd(), self.dev.as_fd())?;
        for (name, target) in LINKS {
            symlinkat(target, &dev, name)?;
        }
        for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)] {
            mkdirat(&dev, name, Mode::from_raw_mode(mode))?;
        }
        let below = |name: &str, make| {
            walk(
                dev.as_fd(),
                Path::new(name),
                make,
                Mode::from_raw_mode(0o666),
                Above::Stays,
            )
        };
        for (name, major, minor) in DEVICES {
            if user {
                let device = take(&format!("/dev/{name}"))?;
                tree::put(device.as_fd(), below(name, Make::File)?.as_fd())?;
            } else {
                let number = rustix::fs::makedev(major, minor);
                mknodat(
                    &dev,
                    name,
                    FileType::CharacterDevice,
                    Mode::from_raw_mode(0o666),
                    number,
                )?;
            }
        }
        let terminals: &[(&str, &str)] = if user {
            &[("ptmxmode", "0666"), ("mode", "0620")]
        } else {
            &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")]
        };
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let terminals = tree::fresh("devpts", terminals, flags)?;
        tree::put(terminals.as_fd(), below("pts", Make::Nothing)?.as_fd())?;
        // Only with an IPC namespace of one's own; few programs look for it.
        if let Ok(queues) = tree::fresh("mqueue", &[], restricted()) {
            tree::put(queues.as_fd(), below("mqueue", Make::Nothing)?.as_fd())?;
        }
        walk(
            root,
            Path::new("/dev"),
            Make::Nothing,
            Mode::empty(),
            Above::Stays,
        )
    }
}

fn restricted() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// What the host has at a path.
fn take(path: &str) -> io::Result<OwnedFd> {
    tree::take(place(Path::new(path))?.as_fd())
}

/// Hide what is of the host only, and keep the rest of it from being written.
fn cover(root: BorrowedFd, dev: BorrowedFd) -> io::Result<()> {
    let find = |path| walk(root, Path::new(path), Make::Nothing, Mode::empty(), Above::Stays);
    for path in READ_ONLY {
        if let Ok(found) = find(path) {
            let same = tree::take(found.as_fd())?;
            tree::make_read_only(same.as_fd())?;
            tree::put(same.as_fd(), found.as_fd())?;
        }
    }
    let null = walk(dev, Path::new("null"), Make::Nothing, Mode::empty(), Above::Stays)?;
    for path in MASKED {
        let Ok(found) = find(path) else { continue };
        let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Directory;
        let cover = if is_directory {
            tree::fresh(
                "tmpfs",
                &[("size", "0"), ("mode", "0555")],
                MountAttrFlags::MOUNT_ATTR_RDONLY,
            )?
        } else {
            tree::take(null.as_fd())?
        };
        tree::put(cover.as_fd(), found.as_fd())?;
    }
    Ok(())
}
