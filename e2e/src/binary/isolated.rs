//! Clusters in each isolation, as root and as an ordinary user, without a trace in the network of the machine.

use super::{Cluster, petset_binary, run};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chown, geteuid};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Nobody's on any machine.
const ORDINARY: u32 = 231_072;

/// Who runs petset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the tests.
    #[default]
    Tester,
    /// A user without any right; if the tests are not run by root, whoever runs them.
    Ordinary,
}

/// How pods are kept apart, and who runs petset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What is given as `--isolation`.
    pub isolation: &'static str,
    /// Who runs it.
    pub who: Who,
}

impl Default for Level {
    /// That in which tests run which are not about isolation.
    fn default() -> Self {
        Self::MOUNTS
    }
}

impl Level {
    /// Mount and UTS namespaces, by whoever runs the tests.
    pub const MOUNTS: Self = Self {
        isolation: "mounts",
        who: Who::Tester,
    };
    /// All namespaces, by whoever runs the tests (root, where all of them are run).
    pub const ROOT: Self = Self {
        isolation: "namespaces",
        who: Who::Tester,
    };
    /// All namespaces, by an ordinary user.
    pub const ORDINARY: Self = Self {
        isolation: "namespaces",
        who: Who::Ordinary,
    };
    /// No namespace, by an ordinary user.
    pub const PLAIN: Self = Self {
        isolation: "none",
        who: Who::Ordinary,
    };

    /// Whether pods have addresses on the machine's loopback.
    pub fn is_on_loopback(self) -> bool {
        self.isolation != "namespaces"
    }

    fn is_another_user(self) -> bool {
        self.who == Who::Ordinary && geteuid().is_root()
    }

    /// petset, run by the right user; `home` is a directory of that user's.
    pub(super) fn command(self, home: &Path) -> Command {
        if !self.is_another_user() {
            return Command::new(petset_binary());
        }
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={ORDINARY}"), format!("--regid={ORDINARY}"));
        command
            .args([&user, &group, "--clear-groups"])
            .arg(home.join("petset"));
        command
    }

    /// Make the home such that the user can live in it. The directories above the binary may be closed to others.
    fn prepare(self, home: &Path) {
        if !self.is_another_user() {
            return;
        }
        let own = home.join("petset");
        let linked = std::fs::hard_link(petset_binary(), &own);
        linked
            .or_else(|_| std::fs::copy(petset_binary(), &own).map(drop))
            .expect("petset can be copied");
        let (user, group) = (Uid::from_raw(ORDINARY), Gid::from_raw(ORDINARY));
        chown(home, Some(user), Some(group)).expect("root may give directories away");
    }
}

impl Cluster {
    /// How its pods are kept apart.
    pub fn level(&self) -> Level {
        self.level
    }

    /// A directory that exists inside of pods, is nobody else's, and can be written to there.
    pub fn inside(&self) -> PathBuf {
        if self.level.isolation == "namespaces" {
            return "/tmp".into();
        }
        // The host's, which goes with the cluster.
        let directory = self.home().join("inside");
        std::fs::create_dir_all(&directory).expect("a directory");
        if self.level.is_another_user() {
            let (user, group) = (Uid::from_raw(ORDINARY), Gid::from_raw(ORDINARY));
            chown(&directory, Some(user), Some(group)).expect("root may give directories away");
        }
        directory
    }

    /// An empty data directory on which nothing runs yet. As root the calling thread, and what it starts from now on, is in
    /// a network of its own: a bridge that petset makes is in nobody's way.
    pub fn at(level: Level) -> Self {
        if geteuid().is_root() {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            run(Command::new("ip").args(["link", "set", "lo", "up"])).ok();
        }
        let mut cluster = Self::new();
        cluster.level = level;
        level.prepare(cluster.home());
        cluster
    }
}
