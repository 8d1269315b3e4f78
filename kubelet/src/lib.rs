//! The kubelet: runs the pods that are bound to its node as local processes.
//!
//! One [`worker`] per pod observes (the API object, what it knows of the containers), plans ([`plan`]) and acts; what
//! it knows becomes the pod's status ([`status`]). Only this crate starts processes, each through a [`shim`].

pub mod address;
pub mod console;
pub mod dns;
pub mod environment;
mod ephemeral;
mod event;
pub mod eviction;
pub mod exec;
pub mod handler;
pub mod holder;
pub mod hosts;
pub mod image;
pub mod isolation;
pub mod leftover;
pub mod log;
mod names;
pub mod network;
pub mod node;
mod own_name;
pub mod plan;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod record;
pub mod restart;
mod sandbox;
pub mod security;
pub mod server;
pub mod service;
pub mod shell;
pub mod shim;
mod start;
pub mod status;
mod stop;
pub mod stream;
pub mod terminal;
mod usage;
pub mod volume;
pub mod web;
mod wire;
pub mod worker;

use crate::address::{Addresses, Range};
use crate::event::Events;
use crate::holder::client::Holders;
use crate::image::Catalog;
use crate::log::Logs;
use crate::process::Launcher;
use crate::record::BackOff;
pub use crate::shim::protocol::Isolation;
use events::Clock;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a kubelet needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the Node object.
    pub node_name: String,
    /// Pods' directories are made in `pods/` below this; `images.yaml` is looked for here.
    pub data_dir: PathBuf,
    /// Where pod addresses come from.
    pub pod_range: Range,
    /// The way into the network that pods are in.
    pub network: network::Network,
    /// The network that pods are in, if not the host's.
    pub cluster_network: Option<shim::network::ClusterNetwork>,
    /// The node's own address.
    pub host_ip: IpAddr,
    /// Where the host finds node ports, and host ports of pods that name no address.
    pub node_port_address: IpAddr,
    /// Where pods reach the API server: host and port.
    pub api_server: Option<(String, u16)>,
    /// Where pods find names. Its addresses are not given to pods.
    pub cluster_dns: dns::ClusterDns,
    /// The petset binary, which is also the shim and the web server.
    pub executable: PathBuf,
    /// Delays between restarts.
    pub back_off: BackOff,
    /// How many processes and threads a container may have.
    pub most_processes: Option<u64>,
    /// How pods are isolated.
    pub isolation: Isolation,
    /// Whether pods go on when the kubelet is told to stop.
    pub keep_pods: bool,
    /// A container's log is rotated when it has grown to so many bytes …
    pub log_max_size: u64,
    /// … and so many of its files are kept.
    pub log_max_files: usize,
    /// `petset` version for the Node object.
    pub version: String,
    /// The DNS server that is asked whether a pod's name is answered before it runs; otherwise the first of `cluster_dns` is.
    pub dns_server: Option<SocketAddr>,
}

/// Why a kubelet ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The Node object cannot be kept.
    #[error("cannot register node {node}: {source}")]
    Node {
        /// Its name.
        node: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A part of it ended early.
    #[error("{0}")]
    Ended(String),
}

/// A kubelet: what its workers and its server share.
pub struct Kubelet {
    client: kube::Client,
    clock: Clock,
    options: Options,
    launcher: Launcher,
    logs: Logs,
    catalog: Catalog,
    addresses: Mutex<Addresses>,
    events: Events,
    slices: own_name::Followed,
    conversations: stream::Conversations,
    containers: exec::Containers,
    tokens: volume::token::Tokens,
    usage: usage::Sampler,
    api_service: service::ApiService,
}

/// What `petset holder …` and `petset web …` do: the processes that a kubelet starts from its own binary. `None`:
/// the arguments (without the program's name) are not for one of these. To be called before any thread is started.
pub fn internal_command(arguments: &[OsString]) -> Option<ExitCode> {
    let (command, rest) = arguments.split_first()?;
    match command.to_str()? {
        "holder" => Some(holder::main(rest)),
        "web" => Some(web::main(rest)),
        isolation::COMMAND => Some(isolation::main(rest)),
        _ => None,
    }
}

impl Kubelet {
    /// A kubelet that does not run yet.
    pub fn new(client: kube::Client, clock: Clock, options: Options) -> Arc<Self> {
        let recorder = events::Recorder::new(
            client.clone(),
            "kubelet",
            Some(options.node_name.clone()),
            clock.clone(),
        );
        let mut addresses = Addresses::new(options.pod_range);
        options
            .cluster_dns
            .servers
            .iter()
            .for_each(|server| addresses.reserve(*server));
        Arc::new(Self {
            client,
            clock,
            launcher: Launcher::new(options.network.holders().unwrap_or_else(|| {
                Arc::new(Holders::new(
                    options.executable.clone(),
                    options.data_dir.clone(),
                    options.isolation,
                    options.cluster_network.clone(),
                ))
            })),
            logs: Logs::default(),
            catalog: Catalog::new(&options.data_dir, options.executable.clone()),
            addresses: Mutex::new(addresses),
            events: Events::new(recorder),
            slices: own_name::Followed::default(),
            conversations: stream::Conversations::default(),
            containers: exec::Containers::default(),
            tokens: volume::token::Tokens::default(),
            usage: usage::Sampler::default(),
            api_service: service::ApiService::default(),
            options,
        })
    }

    fn now(&self) -> jiff::Timestamp {
        (self.clock)()
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods_directory(&self) -> PathBuf {
        self.options.data_dir.join("pods")
    }

    /// `pods/NAMESPACE_NAME_UID`: a pod's logs and working files.
    fn pod_directory(&self, pod: &Pod) -> PathBuf {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let name = format!(
            "{}_{}_{}",
            part(&metadata.namespace),
            part(&metadata.name),
            part(&metadata.uid)
        );
        self.pods_directory().join(name)
    }

    /// Run pods until `shutdown`; then stop their processes gracefully and leave the API objects as they are.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), Error> {
        let pods = self.pods_directory();
        std::fs::create_dir_all(&pods).map_err(|source| Error::Directory {
            path: pods.clone(),
            source,
        })?;
        node::register(&self.client, &self.options, &self.clock)
            .await
            .map_err(|source| Error::Node {
                node: self.options.node_name.clone(),
                source: Box::new(source),
            })?;
        let mut tasks = JoinSet::new();
        let this = self.clone();
        let lease = shutdown.clone();
        tasks.spawn(async move { node::keep(&this.client, &this.options, &this.clock, lease).await });
        let this = self.clone();
        let events = CancellationToken::new();
        let events_end = events.clone();
        tasks.spawn(async move { this.events.write(events_end).await });
        // Pods that are being stopped still need Services.
        let services = CancellationToken::new();
        let following = async {
            let followed = self.clone().follow_pods(shutdown.clone()).await;
            self.conversations.end().await;
            services.cancel();
            followed
        };
        let (followed, ()) = tokio::join!(following, service::run(self.clone(), services.clone()));
        followed?;
        if !self.options.keep_pods {
            self.launcher.leave().await;
        }
        events.cancel();
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Watch the node's pods and keep one worker for each.
    async fn follow_pods(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), Error> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.options.node_name));
        let mut pods = watcher(api, config).default_backoff().boxed();
        let mut workers = Workers::default();
        let mut listed = HashSet::new();
        loop {
            let event = tokio::select! {
                event = pods.next() => event,
                () = shutdown.cancelled() => break,
                Some(ended) = workers.tasks.join_next() => {
                    workers.forget(ended);
                    continue;
                }
            };
            match event {
                Some(Ok(watcher::Event::Apply(pod))) => workers.update(&self, pod, &shutdown),
                Some(Ok(watcher::Event::Delete(pod))) => workers.deleted(&pod),
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(pod))) => {
                    listed.extend(pod.metadata.uid.clone());
                    self.adopt_address(&pod);
                    workers.waiting.push(pod);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    // First: a pod that is gone may have the name of one that is there.
                    self.remove_stale_directories(&listed, &workers).await;
                    for pod in std::mem::take(&mut workers.waiting) {
                        workers.update(&self, pod, &shutdown);
                    }
                    workers.keep_only(&listed);
                }
                Some(Err(error)) => tracing::warn!(%error, "the watch on pods failed; trying again"),
                None => return Err(Error::Ended("the watch on pods ended".into())),
            }
        }
        while let Some(ended) = workers.tasks.join_next().await {
            workers.forget(ended);
        }
        Ok(())
    }

    /// All pods' addresses are known before the first one is given out.
    fn adopt_address(&self, pod: &Pod) {
        let ip = pod
            .status
            .as_ref()
            .and_then(|s| s.pod_ip.as_deref())
            .and_then(|ip| ip.parse().ok())
            .or_else(|| sandbox::noted_address(&self.pod_directory(pod)));
        if let (Some(ip), Some(uid), Some(name), Some(namespace)) =
            (ip, &pod.metadata.uid, &pod.metadata.name, &pod.metadata.namespace)
            && !plan::is_terminal(pod)
        {
            self.addresses().adopt(namespace, name, uid, ip);
        }
    }

    /// Pods that went while no kubelet was looking: their processes, if there are some, and their directories.
    async fn remove_stale_directories(&self, listed: &HashSet<String>, workers: &Workers) {
        let entries = std::fs::read_dir(self.pods_directory());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let uid = name.rsplit('_').next().unwrap_or_default();
            // One that has a worker is that one's.
            if listed.contains(uid) || workers.senders.contains_key(uid) {
                continue;
            }
            self.launcher.end(&entry.path()).await;
            if let Err(error) = volume::remove::tree(&entry.path()) {
                tracing::warn!(directory = %entry.path().display(), %error, "cannot remove a pod's directory");
            }
        }
    }
}

/// A pod's namespace and name.
fn named(wanted: &watch::Receiver<worker::Wanted>) -> (String, String) {
    let wanted = wanted.borrow();
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let metadata = &wanted.pod.metadata;
    (part(&metadata.namespace), part(&metadata.name))
}

/// The workers by pod UID.
#[derive(Default)]
struct Workers {
    senders: HashMap<String, watch::Sender<worker::Wanted>>,
    /// By namespace and name, held by the worker of the pod that has them: an identity never runs twice.
    names: HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>,
    tasks: JoinSet<String>,
    /// Pods of a list that is still coming in.
    waiting: Vec<Pod>,
}

impl Workers {
    fn update(&mut self, kubelet: &Arc<Kubelet>, pod: Pod, shutdown: &CancellationToken) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let wanted = worker::Wanted {
            pod: Arc::new(pod),
            removed: false,
        };
        if let Some(sender) = self.senders.get(&uid) {
            sender.send_replace(wanted);
            return;
        }
        let (sender, receiver) = watch::channel(wanted);
        self.senders.insert(uid.clone(), sender);
        let (kubelet, shutdown) = (kubelet.clone(), shutdown.clone());
        let name = self.names.entry(named(&receiver)).or_default().clone();
        self.tasks.spawn(async move {
            // Whoever had the name before may have been removed by force: its last process goes first.
            let held = match name.clone().try_lock_owned() {
                Ok(held) => Some(held),
                Err(_) => shutdown.run_until_cancelled(name.lock_owned()).await,
            };
            if held.is_some() {
                worker::run(kubelet, receiver, shutdown).await;
            }
            uid
        });
    }

    fn deleted(&self, pod: &Pod) {
        if let Some(sender) = pod.metadata.uid.as_ref().and_then(|uid| self.senders.get(uid)) {
            sender.send_modify(|wanted| wanted.removed = true);
        }
    }

    fn keep_only(&self, listed: &HashSet<String>) {
        for (_, sender) in self.senders.iter().filter(|(uid, _)| !listed.contains(*uid)) {
            sender.send_modify(|wanted| wanted.removed = true);
        }
    }

    fn forget(&mut self, ended: Result<String, tokio::task::JoinError>) {
        self.names.retain(|_, name| Arc::strong_count(name) > 1);
        match ended {
            Ok(uid) => {
                self.senders.remove(&uid);
            }
            Err(error) => tracing::error!(%error, "a pod's worker failed"),
        }
    }
}
