//! What a container's processes may do: who they are, which capabilities they have, which system calls and how much of
//! what. Applied to the process itself, last of all before its program runs; for commands run in a container later, too.
//!
//! Root becomes whoever is wanted by `setuid`. In an ordinary user's namespace there is only one user to be; there a
//! child user namespace gives this one the wanted number, so that everything that is theirs looks like `runAsUser`'s.

mod seccomp;

use super::protocol::pod::Identity;
use super::protocol::{Limits, Security, Spec};
use super::user;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid};
use rustix::fs::{FileType, fchown, fstat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use std::fmt::Display;
use std::fs;

/// What containers have where nothing else is said: containerd's list.
const DEFAULT: CapabilitySet = CapabilitySet::from_bits_retain(
    CapabilitySet::CHOWN.bits()
        | CapabilitySet::DAC_OVERRIDE.bits()
        | CapabilitySet::FSETID.bits()
        | CapabilitySet::FOWNER.bits()
        | CapabilitySet::MKNOD.bits()
        | CapabilitySet::NET_RAW.bits()
        | CapabilitySet::SETGID.bits()
        | CapabilitySet::SETUID.bits()
        | CapabilitySet::SETFCAP.bits()
        | CapabilitySet::SETPCAP.bits()
        | CapabilitySet::NET_BIND_SERVICE.bits()
        | CapabilitySet::SYS_CHROOT.bits()
        | CapabilitySet::KILL.bits()
        | CapabilitySet::AUDIT_WRITE.bits(),
);

/// What a process may map beyond a memory limit that no cgroup enforces. What is mapped is not what is used (the stack
/// of each thread counts whole), so only a program that has run away may meet this limit.
const MEMORY_SLACK: u64 = 512 << 20;

/// Confine the calling process, which has one thread and is about to run its program. `left` are the limits that no
/// cgroup holds; `is_inside`: the process is in the container's user namespace already. The sentences say what this
/// machine cannot enforce.
pub fn apply(spec: &Spec, left: &Limits, is_inside: bool) -> Result<Vec<String>, String> {
    let has_one_user = user::is_single();
    let mut said = Vec::new();
    if has_one_user && Uid::effective().is_root() && !is_inside {
        become_in_namespace(spec)?;
    }
    limit(left)?;
    let held = held()?;
    let wanted = wanted(&spec.security, held)?;
    if spec.security.no_new_privileges {
        set_no_new_privs(true).map_err(failed("cannot set no_new_privs"))?;
    }
    if spec.security.seccomp_default && !spec.security.privileged {
        // Without the right to filter what a more privileged program does, there must never be one.
        if !effective()?.contains(CapabilitySet::SYS_ADMIN) {
            set_no_new_privs(true).map_err(failed("cannot set no_new_privs"))?;
        }
        seccomp::install(wanted).map_err(failed("cannot install the system call filter"))?;
    }
    if held.contains(CapabilitySet::SETPCAP) {
        for capability in held.difference(wanted).iter() {
            remove_capability_from_bounding_set(capability).map_err(failed("cannot drop a capability"))?;
        }
    }
    if has_one_user || !Uid::effective().is_root() {
        said.extend(unheld(spec));
    } else {
        become_by_number(spec)?;
    }
    keep(wanted)?;
    Ok(said)
}

/// What an ordinary user cannot give.
fn unheld(spec: &Spec) -> Vec<String> {
    let mut said = Vec::new();
    if spec.security.container_capabilities {
        let network = ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "ALL"];
        let is_asked = |name: &&str| {
            let mut added = spec.security.add_capabilities.iter();
            added.any(|added| added.to_uppercase().trim_start_matches("CAP_") == *name)
        };
        let asked: Vec<_> = network.into_iter().filter(is_asked).collect();
        if !asked.is_empty() {
            said.push(format!(
                "Capabilities ({}) hold in the container's own user namespace only, not for the network: petset does \
                 not run as root",
                asked.join(", ")
            ));
        }
    } else if spec.user.is_some_and(|user| Uid::effective().as_raw() != user) {
        said.push("runAsUser is not enforced: petset does not run as root".to_owned());
    }
    said
}

fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Who a program of this spec is going to be, for a process that is where it starts from.
pub fn identity(spec: &Spec) -> Identity {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let own_groups = || {
        let groups = nix::unistd::getgroups().unwrap_or_default();
        groups.into_iter().map(Gid::as_raw).collect()
    };
    let (uid, gid, groups) = if user::is_single() && uid.is_root() {
        let (uid, gid) = only_user(spec);
        (uid, gid, Vec::new())
    } else if uid.is_root() {
        let groups = if changes_user(spec) {
            spec.groups.clone()
        } else {
            own_groups()
        };
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        (spec.user.unwrap_or(uid), spec.group.unwrap_or(gid), groups)
    } else {
        (uid.as_raw(), gid.as_raw(), own_groups())
    };
    let others = groups.into_iter().filter(|group| *group != gid);
    Identity {
        uid,
        gid,
        groups: [gid].into_iter().chain(others).collect(),
    }
}

/// User and group in the namespace of the only user there is.
fn only_user(spec: &Spec) -> (u32, u32) {
    let own = |map: &str| user::map(map).first().map_or(0, |range| range.outside);
    let uid = spec.user.unwrap_or_else(|| own("uid_map"));
    let of_user = || if spec.user.is_some() { 0 } else { own("gid_map") };
    (uid, spec.group.unwrap_or_else(of_user))
}

/// Whether root changes who it is, its groups at least.
fn changes_user(spec: &Spec) -> bool {
    let is_own = spec.security.container_capabilities;
    is_own || spec.user.is_some() || spec.group.is_some() || !spec.groups.is_empty()
}

/// A user namespace in which the only user there is has the wanted number.
fn become_in_namespace(spec: &Spec) -> Result<(), String> {
    let (uid, gid) = only_user(spec);
    unshare(CloneFlags::CLONE_NEWUSER).map_err(failed("cannot make a user namespace"))?;
    let map = || {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} 0 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} 0 1"))
    };
    map().map_err(failed("cannot map the container's user"))
}

/// Root becomes the wanted user. Capabilities go with that, except root's.
fn become_by_number(spec: &Spec) -> Result<(), String> {
    if changes_user(spec) {
        let groups: Vec<Gid> = spec.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        nix::unistd::setgroups(&groups).map_err(failed("cannot set groups"))?;
    }
    if let Some(group) = spec.group {
        nix::unistd::setgid(Gid::from_raw(group)).map_err(|e| format!("cannot become group {group}: {e}"))?;
    }
    if let Some(user) = spec.user {
        give_standard_streams(user);
        nix::unistd::setuid(Uid::from_raw(user)).map_err(|e| format!("cannot become user {user}: {e}"))?;
    }
    Ok(())
}

/// Programs open `/dev/stdout` anew, and a pipe or terminal lets only its owner. What cannot be given away is something
/// else, and left alone.
fn give_standard_streams(user: u32) {
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let kind = fstat(stream).map(|found| FileType::from_raw_mode(found.st_mode));
        if matches!(kind, Ok(FileType::Fifo)) || rustix::termios::isatty(stream) {
            let _ = fchown(stream, Some(rustix::fs::Uid::from_raw(user)), None);
        }
    }
}

fn effective() -> Result<CapabilitySet, String> {
    Ok(capabilities(None)
        .map_err(failed("cannot read capabilities"))?
        .effective)
}

/// What the calling process could ever have.
fn held() -> Result<CapabilitySet, String> {
    let permitted = capabilities(None)
        .map_err(failed("cannot read capabilities"))?
        .permitted;
    let is_bound = |capability: &CapabilitySet| capability_is_in_bounding_set(*capability).unwrap_or(false);
    Ok(permitted.iter().filter(is_bound).collect())
}

/// What the program is to have out of what is `held`, as containerd reads a security context.
fn wanted(security: &Security, held: CapabilitySet) -> Result<CapabilitySet, String> {
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let (add, drop) = (&security.add_capabilities, &security.drop_capabilities);
    let mut wanted = if security.privileged {
        held
    } else if security.container_capabilities {
        DEFAULT
    } else {
        // Not even a pod's root may write past a quota, or the size of a volume would not be enforced for it.
        held.difference(CapabilitySet::SYS_RESOURCE)
    };
    if is_all(add) {
        wanted = held;
    }
    if is_all(drop) {
        wanted = CapabilitySet::empty();
    }
    wanted |= named(add)?;
    wanted &= !named(drop)?;
    Ok(wanted & held)
}

fn named(names: &[String]) -> Result<CapabilitySet, String> {
    let names = names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL"));
    let parse = |name: &String| {
        let upper = name.to_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        CapabilitySet::from_name(short).ok_or_else(|| format!("unknown capability \"CAP_{short}\""))
    };
    names.map(parse).collect()
}

/// Have these capabilities and pass on no other.
fn keep(wanted: CapabilitySet) -> Result<(), String> {
    let now = capabilities(None).map_err(failed("cannot read capabilities"))?;
    let kept = wanted & now.permitted;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed("cannot set capabilities"))
}

/// What rlimits can do.
fn limit(left: &Limits) -> Result<(), String> {
    if let Some(processes) = left.processes {
        setrlimit(Resource::RLIMIT_NPROC, processes, processes).map_err(failed("cannot limit processes"))?;
    }
    if let Some(memory) = left.memory {
        let most = memory.saturating_add(MEMORY_SLACK);
        setrlimit(Resource::RLIMIT_DATA, most, most).map_err(failed("cannot limit memory"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(add: &[&str], drop: &[&str]) -> Security {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Security {
            add_capabilities: own(add),
            drop_capabilities: own(drop),
            container_capabilities: true,
            ..Security::default()
        }
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_containerd_does() {
        let all = CapabilitySet::all();
        let of = |add: &[&str], drop: &[&str]| wanted(&security(add, drop), all).expect("known");
        assert_eq!(of(&[], &[]), DEFAULT);
        assert_eq!(of(&["NET_ADMIN"], &[]), DEFAULT | CapabilitySet::NET_ADMIN);
        assert_eq!(
            of(&["CAP_NET_ADMIN"], &["KILL"]),
            (DEFAULT | CapabilitySet::NET_ADMIN) & !CapabilitySet::KILL
        );
        assert_eq!(of(&[], &["ALL"]), CapabilitySet::empty());
        assert_eq!(
            of(&["NET_BIND_SERVICE"], &["ALL"]),
            CapabilitySet::NET_BIND_SERVICE
        );
        assert_eq!(of(&["ALL"], &["CHOWN"]), all & !CapabilitySet::CHOWN);
        assert_eq!(
            wanted(&security(&["FLYING"], &[]), all),
            Err("unknown capability \"CAP_FLYING\"".into())
        );
    }

    #[test]
    fn nobody_gets_what_petset_does_not_have_and_a_plain_process_keeps_all_but_the_exemption_from_quotas() {
        let few = CapabilitySet::CHOWN | CapabilitySet::SYS_RESOURCE;
        let of = |security: Security| wanted(&security, few).expect("known");
        assert_eq!(of(security(&["SYS_ADMIN"], &[])), CapabilitySet::CHOWN);
        assert_eq!(of(Security::default()), CapabilitySet::CHOWN);
        let privileged = Security {
            privileged: true,
            ..security(&[], &[])
        };
        assert_eq!(of(privileged), few);
    }
}
