//! The kernel's project quotas: what they say about an open directory. All unsafe code of this crate is here.
//!
//! `quotactl_fd` (Linux 5.14) needs no device name; the generic commands serve ext4 and xfs alike. A kernel, file
//! system or user that cannot do it answers with an error, which callers take as "not possible".

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const PROJECT: libc::c_int = 2;
/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in the directory gets its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
/// `XQM_CMD(5)`: which quotas are counted and which enforced.
const Q_XGETQSTAT: libc::c_int = 0x5805;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct fs_quota_stat` of linux/dqblk_xfs.h; only its flags are read.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct QuotaStat {
    version: i8,
    flags: u16,
    rest: [u64; 16],
}

/// Which project a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The project id; 0: none.
    pub project: u32,
    /// Whether what is made in it belongs there, too.
    pub inherited: bool,
}

/// What the file system has counted for a project, in bytes and files, and the most bytes it may have (0: any).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Allocated bytes.
    pub used: u64,
    /// Files and directories.
    pub files: u64,
    /// Hard limit in bytes.
    pub limit: u64,
}

/// Whether limits of projects are enforced on the file system, not only counted.
pub fn enforces(directory: &File) -> io::Result<bool> {
    let mut stat = QuotaStat::default();
    quotactl(directory, Q_XGETQSTAT, 0, &mut stat)?;
    Ok(stat.flags & FS_QUOTA_PDQ_ENFD != 0)
}

/// The project of a directory.
pub fn membership(directory: &File) -> io::Result<Membership> {
    let attributes = attributes(directory)?;
    Ok(Membership {
        project: attributes.projid,
        inherited: attributes.xflags & FS_XFLAG_PROJINHERIT != 0,
    })
}

/// Make a directory, and what will be made in it, the project's.
pub fn join(directory: &File, membership: Membership) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.projid = membership.project;
    attributes.xflags &= !FS_XFLAG_PROJINHERIT;
    if membership.inherited {
        attributes.xflags |= FS_XFLAG_PROJINHERIT;
    }
    // SAFETY: the descriptor is open, and the kernel reads one `struct fsxattr`, which this is.
    let result = unsafe {
        libc::ioctl(
            directory.as_raw_fd(),
            FS_IOC_FSSETXATTR as _,
            &raw const attributes,
        )
    };
    checked(result.into())
}

/// What is counted for a project on the directory's file system. Needs CAP_SYS_ADMIN.
pub fn account(directory: &File, project: u32) -> io::Result<Account> {
    let mut quota = empty_quota();
    match quotactl(directory, libc::Q_GETQUOTA, project, &mut quota) {
        // xfs has no record of a project that nothing belongs to.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Account::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(Account {
            used: quota.dqb_curspace,
            files: quota.dqb_curinodes,
            limit: quota.dqb_bhardlimit.saturating_mul(BLOCK),
        }),
    }
}

/// Quota limits are told in blocks of this size, whatever the file system's own is.
pub const BLOCK: u64 = 1024;

/// Set a project's hard limit in blocks of [`BLOCK`] bytes, 0 for none. Needs CAP_SYS_ADMIN.
pub fn set_limit(directory: &File, project: u32, blocks: u64) -> io::Result<()> {
    let mut quota = empty_quota();
    quota.dqb_bhardlimit = blocks;
    quota.dqb_valid = libc::QIF_BLIMITS;
    quotactl(directory, libc::Q_SETQUOTA, project, &mut quota)
}

fn empty_quota() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

fn attributes(directory: &File) -> io::Result<Fsxattr> {
    let mut attributes = Fsxattr::default();
    // SAFETY: the descriptor is open, and the kernel writes one `struct fsxattr`, for which there is room.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    checked(result.into())?;
    Ok(attributes)
}

/// `T` must be what `command` reads or writes.
fn quotactl<T>(directory: &File, command: libc::c_int, project: u32, content: &mut T) -> io::Result<()> {
    // SAFETY: the descriptor is open; of the three commands used here, Q_GETQUOTA and Q_SETQUOTA go with a
    // `struct if_dqblk` (libc's `dqblk`) and Q_XGETQSTAT with a `struct fs_quota_stat`, which `QuotaStat` is larger
    // than, and `content` is borrowed for the whole call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_raw_fd(),
            libc::QCMD(command, PROJECT),
            project,
            std::ptr::from_mut(content),
        )
    };
    checked(result)
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_large_as_the_kernel_s() {
        assert_eq!(size_of::<Fsxattr>(), 28, "the size is part of the ioctl's number");
        assert_eq!(std::mem::offset_of!(QuotaStat, flags), 2);
        // struct fs_quota_stat: 8 bytes, two fs_qfilestat of 24, and five numbers in 20.
        assert!(size_of::<QuotaStat>() >= 80);
        assert_eq!(size_of::<libc::dqblk>(), 72);
    }
}
