//! The system calls that seccomp's `RuntimeDefault` refuses: those of containerd's default profile, as a list of what is
//! denied instead of what is allowed. A capability that a container was given brings back what it is needed for.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, c_long, sock_filter, sock_fprog,
};
use rustix::thread::CapabilitySet as Cap;
use std::io;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where the kernel shows a filter the call's number, its architecture, and the low half of its first argument.
const NUMBER: u32 = 0;
const KIND: u32 = 4;
const FIRST: u32 = 16;

/// Numbers of the x32 ABI have this bit.
const X32: u32 = 0x4000_0000;

/// Every flag of `clone` that makes a namespace.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Personalities that only change what `uname` says and how memory is laid out.
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Denied to everybody.
const ALWAYS: &[c_long] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_nfsservctl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// Denied without a capability.
const UNLESS: &[(Cap, &[c_long])] = &[
    (
        Cap::SYS_ADMIN,
        &[
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_pivot_root,
            libc::SYS_lookup_dcookie,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_umount2,
            libc::SYS_unshare,
        ],
    ),
    (
        Cap::SYS_BOOT,
        &[libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_kexec_file_load],
    ),
    (Cap::SYS_CHROOT, &[libc::SYS_chroot]),
    (
        Cap::SYS_MODULE,
        &[
            libc::SYS_delete_module,
            libc::SYS_init_module,
            libc::SYS_finit_module,
        ],
    ),
    (Cap::SYS_PACCT, &[libc::SYS_acct]),
    (Cap::SYS_PTRACE, &[libc::SYS_kcmp, libc::SYS_pidfd_getfd]),
    #[cfg(target_arch = "x86_64")]
    (Cap::SYS_RAWIO, &[libc::SYS_ioperm, libc::SYS_iopl]),
    (
        Cap::SYS_TIME,
        &[
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
        ],
    ),
    (Cap::SYS_TTY_CONFIG, &[libc::SYS_vhangup]),
    (
        Cap::SYS_NICE,
        &[libc::SYS_get_mempolicy, libc::SYS_mbind, libc::SYS_set_mempolicy],
    ),
    (Cap::SYSLOG, &[libc::SYS_syslog]),
    (Cap::DAC_READ_SEARCH, &[libc::SYS_open_by_handle_at]),
    (Cap::BPF, &[libc::SYS_bpf]),
    (Cap::PERFMON, &[libc::SYS_perf_event_open]),
];

/// Filter the calling thread's system calls from now on, and those of everything that comes from it.
pub fn install(capabilities: Cap) -> io::Result<()> {
    let mut program = program(capabilities);
    let filter = sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` points at `program` with its length, and both live through the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Each test that fails to match goes on with the next; one that matches ends with its answer.
fn program(capabilities: Cap) -> Vec<sock_filter> {
    let mut program = vec![
        load(KIND),
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        refuse(libc::ENOSYS),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(BPF_JSET, X32, 0, 1), refuse(libc::ENOSYS)]);
    }
    let mut deny = |call: &c_long| {
        program.extend([jump(BPF_JEQ, *call as u32, 0, 1), refuse(libc::EPERM)]);
    };
    ALWAYS.iter().for_each(&mut deny);
    let missing = UNLESS
        .iter()
        .filter(|(capability, _)| !capabilities.intersects(*capability));
    missing.flat_map(|(_, calls)| *calls).for_each(&mut deny);
    if !capabilities.contains(Cap::SYS_ADMIN) {
        // Its flags are in memory, where no filter can look; the C library then uses `clone`.
        program.extend([jump(BPF_JEQ, libc::SYS_clone3 as u32, 0, 1), refuse(libc::ENOSYS)]);
        program.extend([
            jump(BPF_JEQ, libc::SYS_clone as u32, 0, 5),
            load(FIRST),
            statement(BPF_ALU | BPF_AND | BPF_K, NAMESPACES),
            jump(BPF_JEQ, 0, 1, 0),
            refuse(libc::EPERM),
            allow(),
        ]);
    }
    let choices = PERSONALITIES.len() as u8;
    program.extend([
        jump(BPF_JEQ, libc::SYS_personality as u32, 0, choices + 3),
        load(FIRST),
    ]);
    for (index, personality) in (0u8..).zip(PERSONALITIES) {
        program.push(jump(BPF_JEQ, personality, choices - index, 0));
    }
    program.extend([refuse(libc::EPERM), allow()]);
    program.extend([
        jump(BPF_JEQ, libc::SYS_socket as u32, 0, 3),
        load(FIRST),
        jump(BPF_JEQ, libc::AF_VSOCK as u32, 0, 1),
        refuse(libc::EPERM),
        allow(),
    ]);
    program
}

fn statement(code: u32, value: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn jump(test: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter {
        jt: if_true,
        jf: if_false,
        ..statement(BPF_JMP | test | BPF_K, value)
    }
}

fn refuse(errno: i32) -> sock_filter {
    statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno as u32)
}

fn allow() -> sock_filter {
    statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a filter says to a call: a machine for the few instructions that are used.
    fn run(program: &[sock_filter], kind: u32, number: u32, first: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            let code = u32::from(instruction.code);
            let branch = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
            match code {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    value = match instruction.k {
                        NUMBER => number,
                        KIND => kind,
                        _ => first,
                    }
                }
                c if c == BPF_ALU | BPF_AND | BPF_K => value &= instruction.k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += branch(value == instruction.k),
                c if c == BPF_JMP | BPF_JSET | BPF_K => at += branch(value & instruction.k != 0),
                _ => return instruction.k,
            }
        }
    }

    #[test]
    fn dangerous_calls_are_refused_and_ordinary_ones_are_not() {
        let none = program(Cap::empty());
        let with = program(Cap::SYS_ADMIN | Cap::SYS_TIME);
        let refused = SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let unknown = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let of =
            |program: &[sock_filter], call: c_long, first| run(program, ARCHITECTURE, call as u32, first);
        for (call, first, expected, privileged) in [
            (libc::SYS_read, 0, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW),
            (libc::SYS_execve, 0, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW),
            (libc::SYS_ptrace, 0, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW),
            (libc::SYS_mount, 0, refused, SECCOMP_RET_ALLOW),
            (libc::SYS_unshare, 0, refused, SECCOMP_RET_ALLOW),
            (libc::SYS_keyctl, 0, refused, refused),
            (libc::SYS_bpf, 0, refused, refused),
            (libc::SYS_clock_settime, 0, refused, SECCOMP_RET_ALLOW),
            (libc::SYS_clone3, 0, unknown, SECCOMP_RET_ALLOW),
            (
                libc::SYS_clone,
                libc::SIGCHLD as u32,
                SECCOMP_RET_ALLOW,
                SECCOMP_RET_ALLOW,
            ),
            (
                libc::SYS_clone,
                libc::CLONE_NEWUSER as u32,
                refused,
                SECCOMP_RET_ALLOW,
            ),
            (
                libc::SYS_personality,
                0x2_0008,
                SECCOMP_RET_ALLOW,
                SECCOMP_RET_ALLOW,
            ),
            (libc::SYS_personality, 0x40_0000, refused, refused),
            (
                libc::SYS_socket,
                libc::AF_INET as u32,
                SECCOMP_RET_ALLOW,
                SECCOMP_RET_ALLOW,
            ),
            (libc::SYS_socket, libc::AF_VSOCK as u32, refused, refused),
        ] {
            assert_eq!(of(&none, call, first), expected, "call {call} with {first}");
            assert_eq!(
                of(&with, call, first),
                privileged,
                "call {call} with {first}, privileged"
            );
        }
        assert_eq!(run(&none, ARCHITECTURE ^ 1, libc::SYS_read as u32, 0), unknown);
    }
}
