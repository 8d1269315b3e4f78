//! The servers that are measured, each as a process of its own on the servers' core: petset's, and beside it others with
//! one worker and the same zones from files.

use crate::machine::{self, Cores, spawn_on};
use crate::names::Cluster;
use crate::stock;
use anyhow::{Context, bail};
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server that runs; dropping it ends it.
pub struct Server {
    /// `petset`, `nsd`, …
    pub name: &'static str,
    /// Where it answers over UDP.
    pub address: SocketAddr,
    process: Child,
}

impl Server {
    /// Take over a process that says on its standard output where it is: `DNS at ADDRESS …`.
    pub fn that_says(name: &'static str, mut process: Child) -> anyhow::Result<Self> {
        let output = process.stdout.take().context("standard output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        let Some(address) = address else {
            // It has written to standard error what is wrong.
            let _ = process.kill();
            bail!(
                "{name} does not say where it is, but {line:?}, and {}",
                process.wait()?
            );
        };
        Ok(Self {
            name,
            address,
            process,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.process.id()) else {
            return;
        };
        // nsd's children are ended by nsd, which needs the time.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// A directory of zone files and configurations, and what serves them.
pub struct Others<'a> {
    directory: &'a Path,
    cores: Cores,
    zones: Vec<(String, PathBuf)>,
}

impl<'a> Others<'a> {
    /// Write the zone files of a cluster.
    pub fn new(cluster: Cluster, directory: &'a Path, cores: Cores) -> anyhow::Result<Self> {
        let zones = cluster.zone_files(directory)?;
        Ok(Self {
            directory,
            cores,
            zones,
        })
    }

    /// Name Server Daemon of NLnet Labs.
    pub fn nsd(&self) -> anyhow::Result<Server> {
        let (port, directory) = (free_port()?, self.directory.display());
        // Answers as short as ours, and no limit on what one client may ask.
        let mut text = format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  minimal-responses: yes\n  rrl-ratelimit: 0\n  \
             username: \"\"\n  zonesdir: \"{directory}\"\n  database: \"\"\n  pidfile: \"{directory}/nsd.pid\"\n  \
             xfrdfile: \"{directory}/xfrd.state\"\n  zonelistfile: \"{directory}/zone.list\"\n  \
             xfrdir: \"{directory}\"\n  logfile: \"{directory}/nsd.log\"\nremote-control:\n  control-enable: no\n"
        );
        for (apex, file) in &self.zones {
            write!(
                text,
                "zone:\n  name: \"{apex}\"\n  zonefile: \"{}\"\n",
                file.display()
            )?;
        }
        let file = self.directory.join("nsd.conf");
        std::fs::write(&file, text)?;
        let mut command = machine::command(&machine::program("nsd", "nsd")?);
        command.arg("-d").arg("-c").arg(file);
        self.start("nsd", &mut command, port)
    }

    /// Knot DNS of CZ.NIC.
    pub fn knotd(&self) -> anyhow::Result<Server> {
        let (port, directory) = (free_port()?, self.directory.display());
        let mut text = format!(
            "server:\n  listen: 127.0.0.1@{port}\n  rundir: \"{directory}\"\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ndatabase:\n  storage: \"{directory}\"\ntemplate:\n  - id: default\n    \
             storage: \"{directory}\"\n    zonefile-sync: -1\n    journal-content: none\nzone:\n"
        );
        for (apex, file) in &self.zones {
            write!(text, "  - domain: {apex}\n    file: \"{}\"\n", file.display())?;
        }
        let file = self.directory.join("knot.conf");
        std::fs::write(&file, text)?;
        let mut command = machine::command(&machine::program("knotd", "knot")?);
        command.arg("-c").arg(file);
        self.start("knotd", &mut command, port)
    }

    /// hickory-server with its own zone, in a child of this bench.
    pub fn hickory(&self) -> anyhow::Result<Server> {
        let mut command = machine::command(&std::env::current_exe()?);
        command
            .arg(stock::ARGUMENT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        for (apex, file) in &self.zones {
            command.arg(apex).arg(file);
        }
        Server::that_says("hickory-server", spawn_on(self.cores.server, &mut command)?)
    }

    fn start(&self, name: &'static str, command: &mut Command, port: u16) -> anyhow::Result<Server> {
        let log = std::fs::File::create(self.directory.join(format!("{name}.out")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = spawn_on(self.cores.server, command)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Server {
            name,
            address,
            process,
        })
    }
}

/// A port that nobody has; whoever wants it has to be quick.
fn free_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
