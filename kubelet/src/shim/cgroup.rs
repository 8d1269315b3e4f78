//! How much a container may use.

use super::protocol::{Limits, Sandbox};

/// A container's control group.
#[derive(Debug)]
pub struct Cgroup;

/// Make the group of a container with its limits; `None`: there is none here. The sentences say what this machine cannot enforce.
pub fn create(_sandbox: &Sandbox, _container: &str, _limits: &Limits) -> (Option<Cgroup>, Vec<String>) {
    (None, Vec::new())
}

/// Put the calling process into it, before it has a root directory of its own.
pub fn enter(_cgroup: &Cgroup) -> Result<(), String> {
    Ok(())
}

/// Whether the kernel has killed a process of it for the memory that it used.
pub fn was_oom_killed(_cgroup: &Cgroup) -> bool {
    false
}

/// Remove it, once it is empty.
pub fn remove(_cgroup: Cgroup) {}
