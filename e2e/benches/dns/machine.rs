//! What the machine gives: a core for the servers and one for whoever asks, and the processor time of a server.

use anyhow::{Context, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// The two cores.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// For every server, one at a time.
    pub server: usize,
    /// For dnsperf and everything else.
    pub client: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub fn find() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("which cores there are")?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let (Some(client), Some(server)) = (cores.next(), cores.next()) else {
            bail!("this bench needs two cores, one for the server and one for who asks");
        };
        Ok(Self { server, client })
    }
}

/// Bind this thread, and what it starts from now on, to a core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("core {core}"))
}

/// Start a program that stays on a core with all its threads and children.
pub fn spawn_on(core: usize, command: &mut Command) -> anyhow::Result<Child> {
    let before = sched_getaffinity(Pid::from_raw(0))?;
    pin(core)?;
    let started = command.spawn();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    started.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// A command for a program in a session of its own. Linux may divide processor time between sessions first: a server that
/// makes itself one would get more of a busy machine than others do.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setsid");
    command.arg(program);
    command
}

/// Where a program of a Debian package is; daemons are not in everybody's `PATH`.
pub fn program(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = places.into_iter().map(|place| place.join(name));
    found
        .into_iter()
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is missing: apt-get install {package}"))
}

/// Processor time, user's and system's, of a process and all its descendants that live.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // One that has ended meanwhile is none of ours: our servers do not end by themselves.
        if let Ok((parent, ticks)) = stat(&entry.path()) {
            processes.push((pid, parent, ticks));
        }
    }
    let mut family = vec![pid];
    let mut ticks = 0;
    while let Some(next) = family.pop() {
        family.extend(processes.iter().filter(|p| p.1 == next).map(|p| p.0));
        let own = processes.iter().find(|p| p.0 == next);
        ticks += own.with_context(|| format!("process {next} has ended"))?.2;
    }
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("ticks of the clock")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Parent, and ticks that its threads have used.
fn stat(process: &Path) -> anyhow::Result<(u32, u64)> {
    let stat = std::fs::read_to_string(process.join("stat"))?;
    // Process id and name come first, the name in brackets and with anything in it.
    let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [_, parent, ..] = fields[..] else {
        bail!("a stat line has a parent");
    };
    let times: Result<Vec<u64>, _> = fields[11..13].iter().map(|ticks| ticks.parse()).collect();
    Ok((parent.parse()?, times?.iter().sum()))
}
