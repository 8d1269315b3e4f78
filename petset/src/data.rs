//! The data directory: where everything is, and who holds it.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A data directory. Nothing in it is locked yet.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// What a running `petset up` writes down for `petset status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// `0.1.0`
    pub version: String,
    /// When it was started.
    pub started: jiff::Timestamp,
    /// `https://127.0.0.1:6443`
    pub api: String,
    /// `http://127.0.0.1:8080`, if it is served.
    pub http: Option<String>,
    /// The Unix socket that serves the API to its owner.
    pub socket: PathBuf,
    /// `127.0.0.1:1053`; none for an API server alone.
    pub dns: Option<String>,
    /// `http://127.0.0.1:9153/metrics`, the DNS server's for Prometheus, if they are served.
    #[serde(default)]
    pub dns_metrics: Option<String>,
    /// The pods' own DNS; none for an API server alone.
    #[serde(default)]
    pub pod_dns: Option<PodDns>,
    /// How pods run; none for an API server alone.
    #[serde(default)]
    pub pods: Option<Pods>,
    /// The zone.
    pub cluster_domain: Option<String>,
    /// For kubectl.
    pub kubeconfig: PathBuf,
}

/// How pods run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// `namespaces`, `mounts` or `none`.
    pub isolation: String,
    /// Why it is this one.
    pub why: String,
    /// `10.244.0.0/16`
    pub range: String,
    /// Whether only `petset shell` and what petset passes on reach pods: they are in a network that is not the host's.
    pub apart: bool,
    /// The API as pods reach it, `https://10.244.0.1:6443`.
    pub api: String,
}

/// What became of the pods' own DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodDns {
    /// `127.244.0.1:53`
    At(String),
    /// Pods use the host's, and why.
    Missing(String),
}

/// Holds a data directory, or one component's part of it, for this process.
#[derive(Debug)]
pub struct Lock {
    // Held for the lock on it, which ends when it is closed.
    _file: File,
}

impl DataDir {
    /// `given`, else `petset` in the XDG data directory; made absolute, and created (0700).
    pub fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let path = chosen(given)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create the data directory {}", path.display()))?;
        Ok(Self(path))
    }

    /// The same directory for whoever only looks: nothing is created, and one in which there has never been a petset is
    /// an error.
    pub fn existing(given: Option<&Path>) -> anyhow::Result<Self> {
        let data = Self(chosen(given)?);
        let lock = data.0.join("lock");
        if !lock
            .try_exists()
            .with_context(|| format!("cannot look at {}", lock.display()))?
        {
            bail!(
                "nothing runs on {path}: there is no petset there (start one with: petset up --data-dir {path})",
                path = data.0.display()
            );
        }
        Ok(data)
    }

    /// What to tell somebody who needs a petset that runs on this directory.
    pub fn nothing_runs(&self) -> String {
        format!("nothing runs on {} (start it with: petset up)", self.0.display())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Objects, in sled's files.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// One directory per PersistentVolume.
    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// For kubectl and curl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// Plain HTTP for the owner.
    pub fn api_socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    /// What the DNS server says about itself, for `petset dns records`.
    pub fn dns_socket(&self) -> PathBuf {
        self.0.join("dns.sock")
    }

    /// A kubelet's own API, for the API server.
    pub fn kubelet_socket(&self) -> PathBuf {
        self.0.join("kubelet.sock")
    }

    /// What `petset shell` mounts.
    pub fn shell(&self) -> PathBuf {
        self.0.join("shell")
    }

    /// Take the directory for the API server and what goes with it.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let lock = self.lock_file("lock", "petset")?;
        make_private(&self.store())?;
        Ok(lock)
    }

    /// Take the part of it in which pods run.
    pub fn lock_pods(&self) -> anyhow::Result<Lock> {
        let lock = self.lock_file("kubelet.lock", "kubelet")?;
        make_private(&self.0.join("pods"))?;
        Ok(lock)
    }

    fn lock_file(&self, name: &str, who: &str) -> anyhow::Result<Lock> {
        let path = self.0.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: the descriptor is open for as long as `file` is.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "the data directory {} is in use by another {who} (pid {}): stop that one, or choose another \
                 directory with --data-dir",
                self.0.display(),
                holder.trim()
            );
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock { _file: file })
    }

    fn running_file(&self) -> PathBuf {
        self.0.join("running.json")
    }

    /// Say what runs.
    pub fn write_running(&self, running: &Running) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(running)?;
        write_private(&self.running_file(), &text)
    }

    /// What runs; `None` when nothing does, whatever an earlier run has left behind.
    pub fn running(&self) -> anyhow::Result<Option<Running>> {
        let Ok(lock) = File::open(self.0.join("lock")) else {
            return Ok(None);
        };
        // SAFETY: as above. A lock that can be had is let go of when the file is closed.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0 {
            return Ok(None);
        }
        match fs::read(self.running_file()) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).context("running.json")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read {}", self.running_file().display()))
            }
        }
    }
}

/// Make a directory that only the owner can enter, or make one that is there such: Secrets are in it.
fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("cannot make {} private", directory.display()))
}

/// Write a file that only the owner can read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| {
            // One that an earlier run left half written has the mode that it had.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(content)
        })
        .and_then(|()| fs::rename(&part, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn chosen(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => default_path()?,
    };
    std::path::absolute(&path).with_context(|| format!("data directory {}", path.display()))
}

fn default_path() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    if let Some(data) = absolute("XDG_DATA_HOME") {
        return Ok(data.join("petset"));
    }
    let home =
        absolute("HOME").context("neither XDG_DATA_HOME nor HOME is set: say where with --data-dir")?;
    Ok(home.join(".local/share/petset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_the_second_is_told_which() {
        let directory = tempfile::tempdir().expect("tempdir");
        let data = DataDir::open(Some(directory.path())).expect("opened");
        let held = data.lock().expect("locked");
        let refused = data.lock().expect_err("held").to_string();
        assert!(
            refused.contains(&format!("pid {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        data.lock().expect("free again");
    }

    #[test]
    fn looking_for_a_petset_makes_no_directory() {
        let directory = tempfile::tempdir().expect("tempdir");
        for path in [directory.path().to_owned(), directory.path().join("nowhere")] {
            let refused = DataDir::existing(Some(&path))
                .expect_err("there is none")
                .to_string();
            assert!(refused.contains("there is no petset there"), "{refused}");
        }
        assert!(!directory.path().join("nowhere").exists());
        let data = DataDir::open(Some(directory.path())).expect("opened");
        drop(data.lock().expect("locked"));
        DataDir::existing(Some(directory.path())).expect("there was one");
    }

    #[test]
    fn what_an_earlier_run_left_behind_does_not_run() {
        let directory = tempfile::tempdir().expect("tempdir");
        let data = DataDir::open(Some(directory.path())).expect("opened");
        let running = Running {
            pid: 1,
            version: "0".into(),
            started: jiff::Timestamp::UNIX_EPOCH,
            api: String::new(),
            http: None,
            socket: PathBuf::new(),
            dns: None,
            dns_metrics: None,
            pod_dns: None,
            pods: None,
            cluster_domain: None,
            kubeconfig: PathBuf::new(),
        };
        let held = data.lock().expect("locked");
        data.write_running(&running).expect("written");
        assert_eq!(data.running().expect("read"), Some(running));
        drop(held);
        assert_eq!(data.running().expect("read"), None);
    }
}
