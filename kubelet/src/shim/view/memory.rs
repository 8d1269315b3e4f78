//! A pod's directories in memory: mounted in the mount namespace of its shim, where every container's view begins.
//! They are the pod's processes' only, outlive containers, and go with the shim.

use super::{Error, at, tree, walk};
use crate::shim::protocol::Memory;
use crate::shim::user;
use nix::mount::{MsFlags, mount};
use rustix::mount::MountAttrFlags;
use std::os::fd::AsFd;
use std::path::Path;

/// Mount them, in a mount namespace of the calling process's own.
pub fn mount_all(directories: &[Memory]) -> Result<(), Error> {
    let none: Option<&str> = None;
    let root = Path::new("/");
    mount(none, root, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(at("cannot make mounts private below", root))?;
    for directory in directories {
        let options = options(directory, user::is_single());
        let options: Vec<_> = options
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let put = || {
            std::fs::create_dir_all(&directory.path)?;
            let memory = tree::fresh("tmpfs", &options, MountAttrFlags::empty())?;
            tree::put(memory.as_fd(), walk::place(&directory.path)?.as_fd())
        };
        put().map_err(at("cannot mount a tmpfs at", &directory.path))?;
    }
    Ok(())
}

/// Open to all, as an emptyDir is; an ordinary user's namespace has no group to give it to.
fn options(directory: &Memory, has_one_user: bool) -> Vec<(&'static str, String)> {
    let group = directory.group.filter(|_| !has_one_user);
    let mut options = vec![("mode", if group.is_some() { "2777" } else { "0777" }.to_owned())];
    options.extend(directory.size.map(|size| ("size", size.to_string())));
    options.extend(group.map(|group| ("gid", group.to_string())));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_group_are_the_file_systems_own() {
        let memory = Memory {
            path: "/x".into(),
            size: Some(4096),
            group: Some(7),
        };
        let text = |options: Vec<(&str, String)>| {
            let options = options.into_iter().map(|(key, value)| format!("{key}={value}"));
            options.collect::<Vec<_>>().join(",")
        };
        assert_eq!(text(options(&memory, false)), "mode=2777,size=4096,gid=7");
        assert_eq!(text(options(&memory, true)), "mode=0777,size=4096");
    }
}
