//! The holder as petset sees it.

use crate::shim::network::ClusterNetwork;
use crate::shim::protocol::holder::{Report, Request, SOCKET};
use crate::shim::protocol::{Isolation, Sandbox};
use crate::wire::{self, Receiver, Wire};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
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
    /// The error is for the user.
    pub async fn connect_or_start(
        executable: &Path,
        data_dir: &Path,
        isolation: Isolation,
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
        start(executable, data_dir, isolation).await?;
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

fn name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::None => "none",
        Isolation::Mounts => "mounts",
        Isolation::Namespaces => "namespaces",
    }
}

async fn start(executable: &Path, data_dir: &Path, isolation: Isolation) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot run {}: {error}", executable.display());
    let mut child = Command::new(executable)
        .args(["holder".as_ref(), data_dir.as_os_str(), name(isolation).as_ref()])
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
