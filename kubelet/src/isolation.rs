//! Which isolation pods have: what is asked for, or the first that this machine allows.
//!
//! Whether it allows one is tried in a child process (`petset isolation LEVEL`): namespaces are made and thrown away, and
//! nothing is left in the host's own.

use crate::shim::network::{self, ClusterNetwork};
use crate::shim::protocol::{Isolation, PodNetwork};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getgid, getuid};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::str::FromStr;

/// The first argument of the child process.
pub const COMMAND: &str = "isolation";

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The first of the others that is possible.
    #[default]
    Auto,
    /// This one.
    Exactly(Isolation),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let level = LEVELS.into_iter().find(|level| name(*level) == text);
        level
            .map(Self::Exactly)
            .ok_or_else(|| format!("{text:?} is none of auto, namespaces, mounts and none"))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Exactly(level) => name(*level),
        })
    }
}

/// The best first.
const LEVELS: [Isolation; 3] = [Isolation::Namespaces, Isolation::Mounts, Isolation::None];

/// As flags and `petset status` name it.
pub fn name(level: Isolation) -> &'static str {
    match level {
        Isolation::Namespaces => "namespaces",
        Isolation::Mounts => "mounts",
        Isolation::None => "none",
    }
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The isolation.
    pub level: Isolation,
    /// Why it is this one, for people.
    pub why: String,
}

/// Choose. `possible` says whether an isolation can be had, or why not; it is asked in order and no more than needed.
/// The error is for the user.
pub async fn choose<F: Future<Output = Result<(), String>>>(
    wanted: Wanted,
    mut possible: impl FnMut(Isolation) -> F,
) -> Result<Chosen, String> {
    if let Wanted::Exactly(level) = wanted {
        let name = name(level);
        possible(level)
            .await
            .map_err(|why| format!("--isolation {name} is not possible on this machine: {why}"))?;
        let why = "as --isolation says".to_owned();
        return Ok(Chosen { level, why });
    }
    let mut refused = Vec::new();
    for level in LEVELS {
        match possible(level).await {
            Ok(()) if refused.is_empty() => {
                let why = "this machine allows it".to_owned();
                return Ok(Chosen { level, why });
            }
            Ok(()) => {
                let why = refused.join("; ");
                return Ok(Chosen { level, why });
            }
            Err(why) => refused.push(format!("no {}: {why}", name(level))),
        }
    }
    Err(refused.join("; "))
}

/// Whether this machine allows it: tried in a process of its own.
pub async fn probe(executable: &Path, level: Isolation) -> Result<(), String> {
    if level == Isolation::None {
        return Ok(());
    }
    let output = tokio::process::Command::new(executable)
        .args([COMMAND, name(level)])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .await;
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(match said.as_str() {
                "" => format!("the attempt ended with {}", output.status),
                _ => said,
            })
        }
        Err(error) => Err(format!("cannot run {}: {error}", executable.display())),
    }
}

/// What `petset isolation LEVEL` does: try it, and say on standard error why it cannot be.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let level = arguments.first().and_then(|text| text.to_str());
    let tried = match level.map(str::parse) {
        Some(Ok(Wanted::Exactly(Isolation::Namespaces))) => try_namespaces(),
        Some(Ok(Wanted::Exactly(Isolation::Mounts))) => try_mounts(),
        Some(Ok(Wanted::Exactly(Isolation::None))) => Ok(()),
        _ => Err("expected namespaces, mounts or none".to_owned()),
    };
    match tried {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

/// New namespaces; with a new user namespace around them unless root makes them.
fn enter(flags: CloneFlags, inside: (u32, u32)) -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    if uid.is_root() {
        return unshare(flags).map_err(|errno| format!("root may not make namespaces here: {errno}"));
    }
    unshare(flags | CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| format!("user {uid} may not make namespaces: {errno}{}", remedy()))?;
    let map = || {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} {uid} 1", inside.0))?;
        fs::write("/proc/self/gid_map", format!("{} {gid} 1", inside.1))
    };
    map().map_err(|e: io::Error| {
        format!(
            "user {uid} may not be mapped into a user namespace: {e}{}",
            remedy()
        )
    })
}

/// What keeps ordinary users from namespaces on some machines, in parentheses.
fn remedy() -> String {
    let settings = [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    ];
    let set = |name: &str| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
    let found = settings
        .iter()
        .find(|(name, bad, _)| set(name).is_ok_and(|value| value.trim() == *bad));
    found.map_or_else(String::new, |(name, bad, good)| {
        format!(" ({name} is {bad}; run petset as root, or: sudo sysctl -w {name}={good})")
    })
}

fn private_mounts() -> Result<(), String> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| format!("mounts cannot be made private: {errno}"))
}

fn try_mounts() -> Result<(), String> {
    let ids = (getuid().as_raw(), getgid().as_raw());
    enter(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS, ids)?;
    private_mounts()
}

/// A network with one pod in it, and a process in all the other namespaces.
fn try_namespaces() -> Result<(), String> {
    let address = |last| Ipv4Addr::new(10, 244, 0, last);
    enter(CloneFlags::CLONE_NEWNET, (0, 0))?;
    let cluster = ClusterNetwork {
        bridge: "petset0".into(),
        gateway: address(1),
        prefix: 16,
        services: (Ipv4Addr::new(10, 96, 0, 0), 12),
        own: true,
    };
    network::cluster::set_up(&cluster).map_err(|e| e.to_string())?;
    let pod = PodNetwork {
        bridge: cluster.bridge,
        interface: "pet0".into(),
        address: address(2),
        prefix: 16,
        gateway: address(1),
    };
    network::pod::attach(&pod).map_err(|e| e.to_string())?;
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    unshare(rest).map_err(|errno| format!("mount, UTS, IPC and PID namespaces cannot be made: {errno}"))?;
    private_mounts()?;
    // The new PID namespace is its children's.
    // SAFETY: this process has one thread, so its child may do whatever a process may do.
    match unsafe { fork() }
        .map_err(|errno| format!("no process can be started in a PID namespace: {errno}"))?
    {
        ForkResult::Child => std::process::exit(i32::from(std::process::id() != 1)),
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            other => Err(format!(
                "a process in a PID namespace ended unexpectedly: {other:?}"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn chosen(wanted: &str, impossible: &[Isolation]) -> Result<Chosen, String> {
        let wanted: Wanted = wanted.parse().expect("one of them");
        let impossible = impossible.to_vec();
        choose(wanted, |level| {
            let refused = impossible.contains(&level);
            async move { if refused { Err("not here".into()) } else { Ok(()) } }
        })
        .await
    }

    #[tokio::test]
    async fn the_best_that_is_possible_is_taken_and_what_is_not_is_told() {
        use Isolation::{Mounts, Namespaces, None};
        let cases: [(&str, &[Isolation], Isolation, &str); 5] = [
            ("auto", &[], Namespaces, "this machine allows it"),
            ("auto", &[Namespaces], Mounts, "no namespaces: not here"),
            (
                "auto",
                &[Namespaces, Mounts],
                None,
                "no namespaces: not here; no mounts: not here",
            ),
            ("mounts", &[Namespaces], Mounts, "as --isolation says"),
            ("none", &[Namespaces, Mounts], None, "as --isolation says"),
        ];
        for (wanted, impossible, level, why) in cases {
            let expected = Chosen {
                level,
                why: why.into(),
            };
            assert_eq!(chosen(wanted, impossible).await, Ok(expected), "{wanted}");
        }
        let refused = chosen("namespaces", &[Namespaces]).await;
        assert_eq!(
            refused.expect_err("asked for"),
            "--isolation namespaces is not possible on this machine: not here"
        );
    }

    #[test]
    fn a_flag_is_one_of_four_words() {
        for word in ["auto", "namespaces", "mounts", "none"] {
            assert_eq!(word.parse::<Wanted>().expect(word).to_string(), word);
        }
        let refused = "Mounts".parse::<Wanted>().expect_err("another word");
        assert!(refused.contains("auto, namespaces, mounts and none"), "{refused}");
    }
}
