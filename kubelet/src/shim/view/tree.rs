//! Trees of mounts by descriptor: taken up, made anew, changed and put down without a path that somebody could swap
//! meanwhile.

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A copy of what is mounted at `place` and below it.
pub fn take(place: BorrowedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(place, "", flags)?)
}

/// A new file system of a kind that needs no device.
pub fn fresh(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Let nothing be written through a tree, nor through what is mounted in it.
pub fn make_read_only(tree: BorrowedFd) -> io::Result<()> {
    set(tree, libc::MOUNT_ATTR_RDONLY, 0)
}

/// Keep a tree's mounts from showing up elsewhere, and others' from showing up in it.
pub fn make_private(tree: BorrowedFd) -> io::Result<()> {
    set(tree, 0, libc::MS_PRIVATE)
}

fn set(tree: BorrowedFd, attributes: u64, propagation: u64) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the path is a constant with its NUL, and `wanted` lives through the call, which gets its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Mount a tree over `place`.
pub fn put(tree: BorrowedFd, place: BorrowedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", place, "", flags)?)
}
