//! The cluster's DNS server: authoritative for the names of Services and pods, answering from memory.
//!
//! From objects to names: [`records`] says which names each object of the API makes (pure functions), [`table`] puts them
//! together as [`names`] whose [`set`]s are kept as they are sent, [`follow`] does so whenever a watch tells of a change,
//! [`zone`] is one version of it all. From a question to its answer: [`query`] reads it, [`answer`] puts the answer
//! together (a pure function), [`udp`] and [`tcp`] receive and send; what is not the cluster's goes to [`upstream`].
//! One answer comes from one version of the data.

pub mod answer;
mod batch;
pub mod config;
pub mod follow;
pub mod listener;
pub mod log;
pub mod message;
pub mod metrics;
pub mod name;
pub mod names;
pub mod presentation;
pub mod query;
pub mod records;
pub mod server;
pub mod set;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod tcp;
pub mod transfer;
pub mod udp;
pub mod upstream;
pub mod zone;
pub mod zonefile;

pub use config::{Config, Options};
pub use listener::Listener;

use metrics::Metrics;
use server::{Forwarder, Shared};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use upstream::Upstream;
use zone::Live;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// The watches on the API ended.
    #[error("the DNS server lost its watches on the API")]
    Watches,
    /// The sockets cannot be served.
    #[error("the DNS server's sockets failed: {0}")]
    Sockets(#[from] io::Error),
}

/// Follow the cluster, and answer on all sockets until `shutdown`.
pub async fn run(
    client: kube::Client,
    options: Options,
    listeners: Vec<Listener>,
    looks: status::Listeners,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let config = Arc::new(Config::new(&options)?);
    let live = Arc::new(Live::new(&config));
    let metrics = Metrics::new();
    let shared = Arc::new(Shared {
        live: live.clone(),
        metrics: metrics.clone(),
        log: options.log,
        transfers: options.allow_transfer,
    });
    let looking = status::serve(looks, live.clone(), metrics.clone());
    let mut server = Server::start(&shared, listeners)?;
    tokio::select! {
        () = shutdown.cancelled() => server.stop().await,
        () = follow::follow(client, config, live, metrics) => return Err(Error::Watches),
        ended = looking => return Err(ended.err().unwrap_or_else(|| io::Error::other("they were closed")).into()),
        error = server.threads.failed() => return Err(error.into()),
    }
    Ok(())
}

/// All sockets, being answered. Dropping it ends that.
pub struct Server {
    threads: udp::Threads,
    connections: JoinSet<()>,
    ending: CancellationToken,
}

impl Server {
    /// Begin to answer.
    ///
    /// # Errors
    /// Sockets that are none, or servers to ask that cannot be asked.
    pub fn start(shared: &Arc<Shared>, listeners: Vec<Listener>) -> Result<Self, Error> {
        let addresses: Result<Vec<SocketAddr>, _> = listeners.iter().map(Listener::address).collect();
        let ours = addresses?;
        let ending = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut sockets = Vec::new();
        for Listener { udp, tcp, upstream } in listeners {
            let forwarder = upstream
                .map(|servers| Upstream::new(servers, &ours).map(Forwarder))
                .transpose()
                .map_err(Error::Option)?;
            sockets.extend(udp.into_iter().map(|udp| (udp, forwarder.clone())));
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            connections.spawn(tcp::serve(tcp, shared.clone(), forwarder, ending.clone()));
        }
        let threads = udp::Threads::start(shared, sockets, &tokio::runtime::Handle::current())?;
        Ok(Self {
            threads,
            connections,
            ending,
        })
    }

    /// Stop answering; connections are closed.
    pub async fn stop(mut self) {
        self.ending.cancel();
        while self.connections.join_next().await.is_some() {}
    }
}
