//! What a cluster has started, and the end of it.

use super::{Cluster, PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Child;

impl Cluster {
    /// Processes that run on this data directory: pods' and shims'. `petset` itself is left out, and while it runs the
    /// holder, too.
    pub fn processes(&self) -> Vec<String> {
        let own = self.process.as_ref().map(Child::id);
        let others = self.all().into_iter().filter(|process| Some(process.pid) != own);
        let pods = others.filter(|process| own.is_none() || process.name != HOLDER);
        pods.map(|process| format!("{}: {}", process.pid, process.line))
            .collect()
    }

    /// The holder, if there is one.
    pub fn holder(&self) -> Option<Pid> {
        let mut all = self.all().into_iter();
        all.find(|process| process.name == HOLDER)
            .map(|process| Pid::from_raw(process.pid as i32))
    }

    /// Kill the holder where it stands.
    pub fn kill_holder(&self) {
        let holder = self.holder().expect("there is one");
        kill(holder, Signal::SIGKILL).expect("it is ours to kill");
        eventually("the holder is gone", PATIENCE, || match self.holder() {
            Some(left) if left == holder => Err(holder.to_string()),
            _ => Ok(()),
        });
    }

    /// Kill everything at once, as a power failure would.
    pub fn lose_power(&mut self) {
        self.kill();
        eventually("no process is left", PATIENCE, || {
            let left = self.all();
            for process in &left {
                let _ = kill(Pid::from_raw(process.pid as i32), Signal::SIGKILL);
            }
            let lines: Vec<String> = left.into_iter().map(|process| process.line).collect();
            lines.is_empty().then_some(()).ok_or_else(|| lines.join("\n"))
        });
    }

    fn all(&self) -> Vec<Process> {
        let mark = self.data_dir().display().to_string();
        let all = std::fs::read_dir("/proc").expect("this is Linux").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
            let line = text(read("cmdline"));
            // A pod's process knows its directories by their place inside the pod; its mounts tell where they are.
            let traces = [line.clone(), text(read("environ")), text(read("mountinfo"))];
            let ours = traces.iter().any(|trace| trace.contains(&mark));
            ours.then(|| Process {
                pid,
                name: text(read("comm")).trim().to_owned(),
                line,
            })
        })
        .collect()
    }
}

const HOLDER: &str = "petset-holder";

struct Process {
    pid: u32,
    /// What the kernel calls it.
    name: String,
    /// Its command line.
    line: String,
}
