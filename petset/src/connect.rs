//! Clients for API servers that run elsewhere: one that a kubeconfig names, or the petset of a data directory.

use crate::args::{Data, Remote};
use crate::data::{DataDir, Running};
use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Where the API server is, and a client for it; an error when it does not answer.
pub async fn remote(remote: &Remote) -> anyhow::Result<(kube::Client, kube::Config)> {
    let (client, config) = unchecked(remote).await?;
    let version = client.apiserver_version().await;
    version.with_context(|| format!("cannot reach the API server at {}", config.cluster_url))?;
    Ok((client, config))
}

/// Where the API server is, and a client for it, whether it answers or not.
pub async fn unchecked(remote: &Remote) -> anyhow::Result<(kube::Client, kube::Config)> {
    let config = match &remote.kubeconfig {
        Some(path) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer()
            .await
            .context("no API server is configured: say which with --kubeconfig")?,
    };
    Ok((kube::Client::try_from(config.clone())?, config))
}

/// A client for the API server that `--kubeconfig` names, else for the petset that runs on the data directory.
pub async fn named_or_local(given: &Remote, data: &Data) -> anyhow::Result<kube::Client> {
    if given.kubeconfig.is_some() {
        return Ok(remote(given).await?.0);
    }
    let data = DataDir::existing(data.data_dir.as_deref())?;
    let Some(running) = data.running()? else {
        bail!(
            "nothing runs on {} (start it with: petset up; or say which API server is meant with --kubeconfig)",
            data.path().display()
        );
    };
    to(running).await
}

/// A client for the petset that runs on the data directory; an error when none does.
pub async fn local(data: &DataDir) -> anyhow::Result<kube::Client> {
    to(data.running()?.with_context(|| data.nothing_runs())?).await
}

async fn to(running: Running) -> anyhow::Result<kube::Client> {
    let kubeconfig = Some(running.kubeconfig);
    Ok(remote(&Remote { kubeconfig }).await?.0)
}
