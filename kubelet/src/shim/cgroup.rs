//! How much a container may use, held by the kernel: cgroup v2 where a part of the tree may be written, v1's
//! controllers where they may be. A container gets a group of its own in each hierarchy, named after it, next to or below
//! petset's; it is made before the container's first process, which enters it by itself, and removed after the last.

use super::protocol::{Limits, Sandbox};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The controllers that petset has a use for.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// In microseconds; a processor limit is a part of it.
const PERIOD: u64 = 100_000;

/// How often and when a group is tried to be removed: its last process may still be on its way out.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// A container's groups.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<Group>,
    /// The limits that no group holds.
    left: Limits,
}

/// A group in one hierarchy.
#[derive(Debug)]
struct Group {
    directory: PathBuf,
    /// Kept open, because the container does not see the directory.
    processes: File,
}

/// Where groups can be made, and for which controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    directory: PathBuf,
    controllers: Vec<&'static str>,
    is_v2: bool,
}

/// Make the groups of a container with its limits; `None`: there are none here, or nothing is limited. The sentences say
/// what this machine cannot enforce.
pub fn create(sandbox: &Sandbox, container: &str, limits: &Limits) -> (Option<Cgroup>, Vec<String>) {
    let mut cgroup = Cgroup {
        groups: Vec::new(),
        left: limits.clone(),
    };
    if *limits == Limits::default() {
        return (None, Vec::new());
    }
    let mut trouble = None;
    for parent in parents() {
        if !parent.controllers.iter().any(|c| concerns(c, &cgroup.left)) {
            continue;
        }
        match create_in(&parent, &format!("{}{container}", prefix(sandbox)), limits) {
            Ok(group) => {
                cgroup.groups.push(group);
                settle(&parent.controllers, &mut cgroup.left);
            }
            Err(error) => trouble = Some(format!("{}: {error}", parent.directory.display())),
        }
    }
    let said = unheld(&cgroup.left, trouble.as_deref());
    ((!cgroup.groups.is_empty()).then_some(cgroup), said)
}

/// What the names of a pod's groups begin with.
fn prefix(sandbox: &Sandbox) -> String {
    format!("petset-{}-", sandbox.uid)
}

/// Let the calling process, and everything that it starts from now on, be in the groups.
pub fn enter(cgroup: &Cgroup) -> Result<(), String> {
    for group in &cgroup.groups {
        let entered = (&group.processes).write_all(b"0");
        entered.map_err(|e| format!("cannot enter the cgroup {}: {e}", group.directory.display()))?;
    }
    Ok(())
}

/// Whether a process was killed because the memory of all was used up.
pub fn was_oom_killed(cgroup: &Cgroup) -> bool {
    let files = ["memory.events", "memory.oom_control"];
    let mut paths = cgroup
        .groups
        .iter()
        .flat_map(|g| files.map(|f| g.directory.join(f)));
    paths.any(|path| {
        fs::read_to_string(path).is_ok_and(|text| oom_kills(&text).is_some_and(|kills| kills > 0))
    })
}

/// Remove the groups; all processes have ended.
pub fn remove(cgroup: Cgroup) {
    for group in cgroup.groups {
        if let Err(error) = remove_group(&group.directory) {
            super::complain(&format!(
                "cannot remove the cgroup {}: {error}",
                group.directory.display()
            ));
        }
    }
}

/// Remove what is left of a pod whose shim was killed; one that has processes refuses.
pub fn sweep(sandbox: &Sandbox) {
    let prefix = prefix(sandbox);
    for parent in parents() {
        for entry in fs::read_dir(&parent.directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Cgroup {
    /// Where it is, in every hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.groups.iter().map(|group| group.directory.clone())
    }

    /// The limits that no group holds.
    pub fn left(&self) -> &Limits {
        &self.left
    }
}

fn remove_group(directory: &Path) -> io::Result<()> {
    for _ in 1..TRIES {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(PAUSE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
    fs::remove_dir(directory)
}

fn oom_kills(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

/// Whether a controller has anything to do for these limits.
fn concerns(controller: &str, limits: &Limits) -> bool {
    match controller {
        "cpu" => limits.cpu.is_some() || limits.cpu_request.is_some(),
        "memory" => limits.memory.is_some(),
        _ => limits.processes.is_some(),
    }
}

/// Take out what these controllers hold.
fn settle(controllers: &[&str], limits: &mut Limits) {
    for controller in controllers {
        match *controller {
            "cpu" => (limits.cpu, limits.cpu_request) = (None, None),
            "memory" => limits.memory = None,
            _ => limits.processes = None,
        }
    }
}

/// A request for processor time is only about who comes first on a busy machine: nobody needs to hear of it.
fn unheld(left: &Limits, trouble: Option<&str>) -> Vec<String> {
    let why = match trouble {
        Some(trouble) => format!("a cgroup cannot be made ({trouble})"),
        None => "petset may not write to any cgroup with that controller".to_owned(),
    };
    let mut said = Vec::new();
    if left.memory.is_some() {
        said.push(format!(
            "The memory limit holds only roughly and for each process: {why}"
        ));
    }
    if left.cpu.is_some() {
        said.push(format!("The cpu limit is not enforced: {why}"));
    }
    if left.processes.is_some() {
        said.push(format!(
            "The limit of processes holds only for users other than root: {why}"
        ));
    }
    said
}

fn create_in(parent: &Parent, name: &str, limits: &Limits) -> io::Result<Group> {
    let directory = parent.directory.join(name);
    // One of an earlier container of this name counts what that one did.
    if directory.exists() {
        remove_group(&directory)?;
    }
    fs::create_dir(&directory)?;
    let filled = || {
        for (file, value) in settings(parent, limits) {
            match fs::write(directory.join(file), &value) {
                // Kernels without swap accounting and the like.
                Err(error) if OPTIONAL.contains(&file) && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if OPTIONAL.contains(&file) && error.kind() == io::ErrorKind::PermissionDenied => {
                }
                written => written?,
            }
        }
        OpenOptions::new()
            .write(true)
            .open(directory.join("cgroup.procs"))
    };
    match filled() {
        Ok(processes) => Ok(Group { directory, processes }),
        Err(error) => {
            let _ = fs::remove_dir(&directory);
            Err(error)
        }
    }
}

/// What a kernel need not have.
const OPTIONAL: [&str; 3] = [
    "memory.memsw.limit_in_bytes",
    "memory.swap.max",
    "memory.oom.group",
];

/// What is written where, in this order.
fn settings(parent: &Parent, limits: &Limits) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    for controller in &parent.controllers {
        match (*controller, parent.is_v2) {
            ("cpu", true) => {
                let quota = |cpu: u64| ("cpu.max", format!("{} {PERIOD}", cpu * PERIOD / 1000));
                files.extend(limits.cpu.map(quota));
                files.extend(
                    limits
                        .cpu_request
                        .map(|cpu| ("cpu.weight", weight(cpu).to_string())),
                );
            }
            ("cpu", false) => {
                let quota = |cpu: u64| ("cpu.cfs_quota_us", (cpu * PERIOD / 1000).max(1000).to_string());
                files.extend(limits.cpu.map(|_| ("cpu.cfs_period_us", PERIOD.to_string())));
                files.extend(limits.cpu.map(quota));
                files.extend(
                    limits
                        .cpu_request
                        .map(|cpu| ("cpu.shares", shares(cpu).to_string())),
                );
            }
            ("memory", true) => {
                if let Some(memory) = limits.memory {
                    files.push(("memory.max", memory.to_string()));
                    files.push(("memory.swap.max", "0".into()));
                    // One process alone would leave a container that is neither dead nor alive.
                    files.push(("memory.oom.group", "1".into()));
                }
            }
            ("memory", false) => {
                if let Some(memory) = limits.memory {
                    files.push(("memory.limit_in_bytes", memory.to_string()));
                    files.push(("memory.memsw.limit_in_bytes", memory.to_string()));
                }
            }
            _ => files.extend(limits.processes.map(|most| ("pids.max", most.to_string()))),
        }
    }
    files
}

/// Upstream's `MilliCPUToShares`.
fn shares(cpu: u64) -> u64 {
    (cpu * 1024 / 1000).clamp(2, 262_144)
}

/// From v1's range of shares (2 to 262144) to v2's of weights (1 to 10000).
fn weight(cpu: u64) -> u64 {
    1 + (shares(cpu) - 2) * 9999 / 262_142
}

/// Where the calling process may make groups.
fn parents() -> Vec<Parent> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let hierarchies = hierarchies(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let mut parents: Vec<Parent> = Vec::new();
    for hierarchy in hierarchies {
        let found = if hierarchy.is_v2 {
            delegated(&hierarchy)
        } else {
            Some(Parent {
                directory: hierarchy.own.clone(),
                controllers: hierarchy.controllers,
                is_v2: false,
            })
        };
        parents.extend(found.filter(|p| is_writable(&p.directory) && !p.controllers.is_empty()));
    }
    parents
}

/// A tree of groups, and the place of the calling process in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    top: PathBuf,
    own: PathBuf,
    controllers: Vec<&'static str>,
    is_v2: bool,
}

/// From `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn hierarchies(cgroup: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let mut before = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (before.next(), before.next()) else {
            continue;
        };
        let mut after = after.split(' ');
        let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
        let is_v2 = kind == "cgroup2";
        if !is_v2 && kind != "cgroup" {
            continue;
        }
        let has = |names: &str, name: &&str| names.split(',').any(|each| each == *name);
        let controllers: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|c| !is_v2 && has(options, c))
            .collect();
        if !is_v2 && controllers.is_empty() {
            continue;
        }
        let own = cgroup.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let same = if is_v2 {
                names.is_empty()
            } else {
                has(names, &controllers[0])
            };
            same.then_some(path)
        });
        // A mount that shows a part of the tree shows it as its top.
        let Some(below) = own.and_then(|own| Path::new(own).strip_prefix(root).ok()) else {
            continue;
        };
        found.push(Hierarchy {
            top: point.into(),
            own: Path::new(point).join(below),
            controllers,
            is_v2,
        });
    }
    found
}

/// The nearest group at or above the own one that may have children with controllers: one without processes. What
/// controllers it has to give are switched on.
fn delegated(hierarchy: &Hierarchy) -> Option<Parent> {
    let above = hierarchy
        .own
        .ancestors()
        .take_while(|d| d.starts_with(&hierarchy.top));
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    for directory in above {
        let is_top_of_all = !directory.join("cgroup.type").exists();
        let has_processes = !read(directory.join("cgroup.procs")).trim().is_empty();
        if has_processes && !is_top_of_all {
            continue;
        }
        if !is_writable(directory) {
            return None;
        }
        let switches = directory.join("cgroup.subtree_control");
        for controller in CONTROLLERS {
            // Those that are there are on afterwards, and that is looked at.
            let _ = fs::write(&switches, format!("+{controller}"));
        }
        let on = read(switches);
        let controllers: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|c| on.split_whitespace().any(|each| each == *c))
            .collect();
        return (!controllers.is_empty()).then(|| Parent {
            directory: directory.to_path_buf(),
            controllers,
            is_v2: true,
        });
    }
    None
}

fn is_writable(directory: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    let procs = directory.join("cgroup.procs");
    access(directory, AccessFlags::W_OK).is_ok() && access(&procs, AccessFlags::W_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
        33 32 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        36 32 0:33 /ours /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        37 32 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
        40 32 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_process_finds_its_place_in_every_hierarchy() {
        let cgroup = "9:freezer:/\n4:memory:/ours/deep\n1:cpu,cpuacct:/a\n0::/b\n";
        let found = hierarchies(cgroup, V1_MOUNTS);
        let own: Vec<_> = found
            .iter()
            .map(|h| (h.own.display().to_string(), h.controllers.clone(), h.is_v2))
            .collect();
        let expected = [
            ("/sys/fs/cgroup/cpu/a".to_owned(), vec!["cpu"], false),
            ("/sys/fs/cgroup/memory/deep".to_owned(), vec!["memory"], false),
            ("/sys/fs/cgroup/unified/b".to_owned(), vec![], true),
        ];
        assert_eq!(own, expected);
        assert_eq!(hierarchies("4:memory:/elsewhere\n", V1_MOUNTS), []);
    }

    #[test]
    fn limits_become_what_each_version_understands() {
        let limits = Limits {
            memory: Some(64 << 20),
            cpu: Some(250),
            cpu_request: Some(100),
            processes: Some(20),
        };
        let of = |is_v2| {
            let parent = Parent {
                directory: PathBuf::new(),
                controllers: CONTROLLERS.to_vec(),
                is_v2,
            };
            let files = settings(&parent, &limits).into_iter();
            files
                .map(|(file, value)| format!("{file}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(true),
            [
                "cpu.max=25000 100000",
                "cpu.weight=4",
                "memory.max=67108864",
                "memory.swap.max=0",
                "memory.oom.group=1",
                "pids.max=20"
            ]
        );
        assert_eq!(
            of(false),
            [
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=25000",
                "cpu.shares=102",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "pids.max=20"
            ]
        );
        assert_eq!((shares(0), weight(0), weight(1_000_000)), (2, 1, 10_000));
    }

    #[test]
    fn what_no_group_holds_is_said_once_and_in_words() {
        let mut left = Limits {
            memory: Some(1),
            cpu: Some(1),
            cpu_request: Some(1),
            processes: None,
        };
        assert_eq!(unheld(&left, None).len(), 2);
        settle(&["cpu", "memory"], &mut left);
        assert_eq!(left, Limits::default());
        assert_eq!(unheld(&left, None), Vec::<String>::new());
    }

    #[test]
    fn kills_are_counted_in_both_versions_words() {
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(
            oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(oom_kills("under_oom 0\n"), None);
    }
}
