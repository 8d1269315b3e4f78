//! petset's own server: `petset dns` for a `petset apiserver` that holds the objects. Two processes, so that what is
//! measured does DNS and nothing else; the API server idles on the other core.

use crate::machine::{self, Cores, spawn_on};
use crate::names::{Cluster, RANGE};
use crate::servers::Server;
use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
/// Requests at a time while objects are created.
const AT_ONCE: usize = 8;

/// An API server with the objects of a cluster, on a directory that is gone with it.
pub struct ApiServer {
    binary: PathBuf,
    data: tempfile::TempDir,
    cores: Cores,
    process: Child,
}

impl ApiServer {
    /// Start it.
    pub fn start(binary: &Path, cores: Cores) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let mut command = petset(binary, data.path());
        command
            .args(["apiserver", "--api", "127.0.0.1:0"])
            .stdout(Stdio::null());
        let mut process = spawn_on(cores.client, &mut command)?;
        let began = Instant::now();
        while !data.path().join("running.json").exists() {
            if let Some(status) = process.try_wait()? {
                bail!("petset apiserver ended: {status}");
            }
            if began.elapsed() > DEADLINE {
                bail!("petset apiserver does not say that it runs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self {
            binary: binary.to_owned(),
            data,
            cores,
            process,
        })
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data.path().join("kubeconfig")
    }

    /// A client for it.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let file = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Create all objects of a cluster.
    pub async fn fill(&self, cluster: Cluster) -> anyhow::Result<()> {
        let client = self.client().await?;
        create(&Api::default_namespaced(client.clone()), cluster.services()?).await?;
        create(&Api::default_namespaced(client), cluster.slices()?).await
    }

    /// A DNS server for it.
    pub fn dns(&self) -> anyhow::Result<Server> {
        let mut command = petset(&self.binary, self.data.path());
        command
            .args(["dns", "--dns", "127.0.0.1:0", "--pod-cidr", RANGE, "--kubeconfig"])
            .arg(self.kubeconfig())
            .stdout(Stdio::piped());
        Server::that_says("petset", spawn_on(self.cores.server, &mut command)?)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Its data is thrown away.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn petset(binary: &Path, data: &Path) -> Command {
    let mut command = machine::command(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PETSET_") {
            command.env_remove(name);
        }
    }
    command.env("PETSET_DATA_DIR", data).stdin(Stdio::null());
    command
}

async fn create<K>(api: &Api<K>, objects: Vec<K>) -> anyhow::Result<()>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let create = |object: K| async move { api.create(&PostParams::default(), &object).await.map(drop) };
    let all = stream::iter(objects).map(create).buffer_unordered(AT_ONCE);
    all.try_collect::<()>().await.context("an object of the cluster")
}
