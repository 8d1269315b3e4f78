//! The shim: the process that holds a pod, between the kubelet and its containers.
//!
//! The [holder](crate::holder) forks one for each pod (`pod`). It makes what the pod's containers share, starts their
//! programs (`launch`), writes down what they say (`output`) and knows how they ended. It is the *subreaper* of
//! everything that comes from them, so that a process tree of whatever shape can be killed to the last process, and the
//! kernel itself says when none is left. It speaks [`protocol`] with whoever connects to its socket: the kubelet, or the
//! next one. When a kubelet goes, even by `kill -9`, the shim and its pod go on.
//!
//! One thread, no runtime: a process that makes a user namespace must have one thread only.

pub mod cgroup;
pub mod confine;
mod container;
mod launch;
pub(crate) mod log;
pub(crate) mod mountinfo;
pub mod network;
mod output;
mod pod;
pub mod protocol;
mod spawn;
pub(crate) mod stat;
mod tree;
pub mod user;
pub mod view;
pub(crate) mod wire;

pub(crate) use pod::serve;
pub use tree::descendants;
pub(crate) use tree::{kill_descendants, kill_each, kill_with_descendants, processes};

use nix::unistd::{Gid, Uid};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// In a new user namespace: the user is `uid` inside who is `outer_uid` outside, and likewise the group.
pub(crate) fn map_ids(uid: Uid, outer_uid: Uid, gid: Gid, outer_gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1"))
}

/// Nothing to read, nothing to write but complaints, which go to this file.
pub(crate) fn detach_standard_streams(log: &Path) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    spawn::null_to(&[0, 1])?;
    spawn::replace(log.as_raw_fd(), 2)?;
    Ok(())
}

/// What there is no kubelet to tell.
pub(crate) fn complain(message: &str) {
    let (now, pid) = (jiff::Timestamp::now(), std::process::id());
    let _ = writeln!(io::stderr(), "{now} {pid} {message}");
}
