//! How pods are kept apart, and the network that goes with it: chosen and made before anything listens, since pods find
//! DNS and the API in it.

use crate::data::DataDir;
use anyhow::{Context, bail};
use kubelet::address::Range;
use kubelet::holder::client::{Holder, Holders};
use kubelet::isolation::{self, Chosen, Wanted};
use kubelet::network::{Network, Remembered, choose_range};
use kubelet::shim::network::{ClusterNetwork, cluster};
use kubelet::shim::protocol::Isolation;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

/// Where pods are without network namespaces if nobody says otherwise.
const LOOPBACK: &str = "127.244.0.0/16";

/// How pods are kept apart, and where they are.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    /// How, and why so.
    pub isolation: Chosen,
    /// Where their addresses come from.
    pub range: Range,
    /// The way to them.
    pub network: Network,
    /// What they are connected by, if not by the host's loopback.
    pub cluster: Option<ClusterNetwork>,
}

impl PodNetwork {
    /// Choose, and make what was chosen.
    pub async fn make(
        data: &DataDir,
        executable: &Path,
        wanted: Wanted,
        range: Option<Range>,
        services: (Ipv4Addr, u8),
    ) -> anyhow::Result<Self> {
        let possible = async |level| isolation::probe(executable, level).await;
        let chosen = isolation::choose(wanted, possible)
            .await
            .map_err(anyhow::Error::msg)?;
        if chosen.level == Isolation::Namespaces {
            return Self::with_namespaces(data, executable, chosen, range, services).await;
        }
        let range = match range {
            Some(range) if !range.is_loopback() => {
                let level = isolation::name(chosen.level);
                bail!(
                    "--pod-cidr {range}: with isolation {level} ({why}) pods live on the host's loopback, 127.0.0.0/8",
                    why = chosen.why
                )
            }
            Some(range) => range,
            None => LOOPBACK.parse().map_err(anyhow::Error::msg)?,
        };
        Ok(Self {
            isolation: chosen,
            range,
            network: Network::own(),
            cluster: None,
        })
    }

    async fn with_namespaces(
        data: &DataDir,
        executable: &Path,
        isolation: Chosen,
        range: Option<Range>,
        services: (Ipv4Addr, u8),
    ) -> anyhow::Result<Self> {
        let mut remembered = Remembered::read(data.path());
        let apart = !nix::unistd::geteuid().is_root();
        let others = if apart {
            Vec::new()
        } else {
            cluster::networks_but(&remembered.bridge)?
        };
        let range = choose_range(range, remembered.range(), services, &others).map_err(anyhow::Error::msg)?;
        remembered.pods = Some(range.to_string());
        remembered
            .write(data.path())
            .with_context(|| format!("cannot write to {}", data.path().display()))?;
        let cluster = ClusterNetwork {
            bridge: remembered.bridge,
            gateway: range.first(),
            prefix: range.prefix(),
            services,
            own: apart,
        };
        let (executable, data_dir) = (executable.to_owned(), data.path().to_owned());
        let holders = Holders::new(executable, data_dir, isolation.level, Some(cluster.clone()));
        holders.current().await.map_err(anyhow::Error::msg)?;
        let network = if apart {
            Network::held(Arc::new(holders))
        } else {
            Network::own()
        };
        Ok(Self {
            isolation,
            range,
            network,
            cluster: Some(cluster),
        })
    }

    /// Nothing was started: let the holder go, unless it has pods of an earlier run.
    pub async fn abandon(&self, data: &DataDir) {
        if self.cluster.is_some()
            && let Ok(holder) = Holder::connect(data.path()).await
        {
            let _ = holder.leave().await;
        }
    }

    /// Where pods find what this machine serves for them; `None`: on loopback, as the host does.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.cluster.as_ref().map(|cluster| cluster.gateway.into())
    }
}
