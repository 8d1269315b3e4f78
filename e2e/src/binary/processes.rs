//! What a cluster has started.

use super::Cluster;
use std::process::Child;

impl Cluster {
    /// Processes that run on this data directory: pods' and shims'. `petset` itself is left out, and while it runs the
    /// holder, too.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.data_dir().display().to_string();
        let own = self.process.as_ref().map(Child::id);
        let all = std::fs::read_dir("/proc").expect("this is Linux").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| Some(*pid) != own)
            .filter_map(|pid| {
                let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
                let line = text(read("cmdline"));
                if own.is_some() && text(read("comm")).trim() == "petset-holder" {
                    return None;
                }
                // A pod's process knows its directories by their place inside the pod; its mounts tell where they are.
                let traces = [line.clone(), text(read("environ")), text(read("mountinfo"))];
                let ours = traces.iter().any(|trace| trace.contains(&mark));
                ours.then(|| format!("{pid}: {line}"))
            })
            .collect()
    }
}
