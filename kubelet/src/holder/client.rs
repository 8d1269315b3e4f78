//! The holder as petset sees it: one that runs ([`Holder`]), and all that a data directory has one after the other
//! ([`Holders`]).

use crate::isolation::name;
use crate::shim::network::{ClusterNetwork, cluster};
use crate::shim::protocol::holder::{Report, Request, SOCKET};
use crate::shim::protocol::{Isolation, Sandbox};
use crate::wire::{self, Receiver, Wire};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Mutex;

/// A holder that runs.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    /// What it was started for.
    pub isolation: Isolation,
    wire: Arc<Wire>,
    receiver: Arc<Mutex<Receiver>>,
}

impl Holder {
    /// The one that answers in a data directory.
    pub async fn connect(data_dir: &Path) -> io::Result<Self> {
        let (wire, receiver) = wire::connect(data_dir, SOCKET).await?;
        let mut holder = Self {
            pid: 0,
            isolation: Isolation::default(),
            wire,
            receiver: Arc::new(Mutex::new(receiver)),
        };
        match holder.ask(Request::Hello).await? {
            (Report::Hello { pid, isolation, .. }, _) => (holder.pid, holder.isolation) = (pid, isolation),
            (report, _) => return Err(io::Error::other(format!("{report:?}"))),
        }
        Ok(holder)
    }

    /// The same, or a new one, which is `executable` called with `holder`. The data directory must be this process's alone.
    /// `network`: the network namespace that the cluster has had so far. The error is for the user.
    async fn connect_or_start(
        executable: &Path,
        data_dir: &Path,
        isolation: Isolation,
        network: Option<&File>,
    ) -> Result<Self, String> {
        if let Ok(holder) = Self::connect(data_dir).await {
            if holder.isolation == isolation {
                return Ok(holder);
            }
            let held = name(holder.isolation);
            holder.leave().await.map_err(|why| {
                format!(
                    "pods of {} run with --isolation {held} ({why})",
                    data_dir.display()
                )
            })?;
        }
        start(executable, data_dir, isolation, network).await?;
        let connected = Self::connect(data_dir).await;
        connected.map_err(|e| format!("the holder does not answer: {e}"))
    }

    /// One request and its answer. Nobody can come in between, even if the caller gives up.
    async fn ask(&self, request: Request) -> io::Result<(Report, Option<OwnedFd>)> {
        let this = self.clone();
        let asking = tokio::spawn(async move {
            let mut receiver = this.receiver.lock().await;
            this.wire.send(&request, &[]).await?;
            let line = receiver.next().await;
            let line = line.ok_or_else(|| io::Error::other("the holder is gone"))?;
            Ok((serde_json::from_slice(&line)?, receiver.take()))
        });
        asking.await.map_err(io::Error::other)?
    }

    /// Whether it still answers.
    pub(crate) fn is_there(&self) -> bool {
        !self.wire.is_closed()
    }

    async fn tell(&self, request: Request) -> Result<Option<OwnedFd>, String> {
        match self.ask(request).await {
            Ok((Report::Failed { message }, _)) => Err(message),
            Ok((_, descriptor)) => Ok(descriptor),
            Err(error) => Err(format!("the holder does not answer: {error}")),
        }
    }

    /// Make the cluster's network, or bring it up to date.
    pub async fn network(&self, network: ClusterNetwork) -> Result<(), String> {
        self.tell(Request::Network(network)).await.map(drop)
    }

    /// Open a socket in the cluster's network.
    pub async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        let request = Request::Socket {
            domain,
            kind,
            protocol,
        };
        let socket = self.tell(request).await.map_err(io::Error::other)?;
        socket.ok_or_else(|| io::Error::other("the holder sent no socket"))
    }

    /// Fork a shim; it can be connected to from now on.
    pub(crate) async fn fork(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.tell(Request::Sandbox(Box::new(sandbox.clone())))
            .await
            .map(drop)
    }

    /// Let it go, if it holds no pod.
    pub async fn leave(&self) -> Result<(), String> {
        self.tell(Request::Leave).await?;
        self.until_gone().await;
        Ok(())
    }

    /// Kill every pod that it holds, and let it go.
    pub async fn end(&self) -> Result<(), String> {
        self.tell(Request::End).await?;
        self.until_gone().await;
        Ok(())
    }

    async fn until_gone(&self) {
        while self.receiver.lock().await.next().await.is_some() {}
    }
}

/// The holders of a data directory, one after the other: should one be gone, the next is started, in the same network.
#[derive(Debug)]
pub struct Holders {
    executable: PathBuf,
    data_dir: PathBuf,
    isolation: Isolation,
    network: Option<ClusterNetwork>,
    /// A network namespace of the cluster's own, which may have no process while there is no holder.
    namespace: OnceLock<File>,
    /// Locked while one is started, so that there is never a second one.
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    holder: Option<Holder>,
    /// It was let go: there is to be no other.
    has_left: bool,
}

impl Holders {
    /// None is started yet. `executable` is called with `holder`; the data directory must be this process's alone.
    /// `network` is what each makes, or finds there.
    pub fn new(
        executable: PathBuf,
        data_dir: PathBuf,
        isolation: Isolation,
        network: Option<ClusterNetwork>,
    ) -> Self {
        Self {
            executable,
            data_dir,
            isolation,
            network,
            namespace: OnceLock::new(),
            last: Mutex::default(),
        }
    }

    /// How the pods of all of them are isolated.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// The one that answers, or a new one. The error is for the user.
    pub async fn current(&self) -> Result<Holder, String> {
        let mut last = self.last.lock().await;
        if last.has_left {
            return Err("the holder has been let go".into());
        }
        if let Some(holder) = last.holder.as_ref().filter(|holder| holder.is_there()) {
            return Ok(holder.clone());
        }
        let (executable, data_dir) = (&self.executable, &self.data_dir);
        let namespace = self.namespace.get();
        let holder = Holder::connect_or_start(executable, data_dir, self.isolation, namespace).await?;
        if let Some(network) = &self.network {
            if let Err(why) = holder.network(network.clone()).await {
                // One that has pods stays.
                let _ = holder.leave().await;
                return Err(format!("cannot make the pods' network: {why}"));
            }
            if network.own
                && let Ok(namespace) = File::open(format!("/proc/{}/ns/net", holder.pid))
            {
                let _ = self.namespace.set(namespace);
            }
        }
        last.holder = Some(holder.clone());
        Ok(holder)
    }

    /// Let the one that answers go, if there is one and it holds no pod. Nothing is asked of it any more.
    pub async fn leave(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        last.has_left = true;
        match Holder::connect(&self.data_dir).await {
            Ok(holder) => holder.leave().await,
            // One that was killed has left its bridge behind.
            Err(_) => match self.network.as_ref().filter(|network| !network.own) {
                Some(network) => cluster::tear_down(&network.bridge).map_err(|e| e.to_string()),
                None => Ok(()),
            },
        }
    }
}

async fn start(
    executable: &Path,
    data_dir: &Path,
    isolation: Isolation,
    network: Option<&File>,
) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot run {}: {error}", executable.display());
    let network = network.map(|n| format!("/proc/{}/fd/{}", std::process::id(), n.as_raw_fd()));
    let mut child = Command::new(executable)
        .args(["holder".as_ref(), data_dir.as_os_str(), name(isolation).as_ref()])
        .args(network)
        .env_clear()
        .current_dir("/")
        // What is typed at petset's terminal is not for it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let (mut said, mut complaint) = (String::new(), String::new());
    if let (Some(stdout), Some(stderr)) = (&mut child.stdout, &mut child.stderr) {
        // Both end when it is ready, too.
        stdout.read_to_string(&mut said).await.map_err(cannot)?;
        stderr.read_to_string(&mut complaint).await.map_err(cannot)?;
    }
    if said.trim() != "ready" {
        let _ = child.wait().await;
        return Err(format!("the holder did not start: {}", complaint.trim()));
    }
    // It is our child for as long as we live.
    tokio::spawn(async move { child.wait().await });
    Ok(())
}
