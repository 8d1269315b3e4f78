//! Services: what kube-proxy does on other clusters, and host ports.
//!
//! [`port`] says where connections to a Service go, [`mod@rules`] what the kernel is to do for that in the cluster's network, and
//! [`nft`] tells it. [`listener`] says which addresses of the host are relayed to whom, and `relay` does that. `port`, `rules` and
//! `listener` are pure functions of what the API has.
//!
//! The rules live on when petset dies, as pods do; node ports and host ports are petset's own sockets and go with it.

pub mod listener;
pub mod nft;
pub mod port;
mod relay;
pub mod rules;

use crate::Kubelet;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use nft::{Place, Socket};
use relay::Relays;
use rules::{Rules, rules};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// When rules that could not be written are tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Keep Services and host ports working until `shutdown`; then the rules go if the pods have gone.
pub(crate) async fn run(kubelet: Arc<Kubelet>, shutdown: CancellationToken) {
    let client = &kubelet.client;
    let own = watcher::Config::default().fields(&format!("spec.nodeName={}", kubelet.options.node_name));
    let mut services = Followed::<Service>::new(Api::all(client.clone()), watcher::Config::default());
    let mut slices = Followed::<EndpointSlice>::new(Api::all(client.clone()), watcher::Config::default());
    let mut pods = Followed::<Pod>::new(Api::all(client.clone()), own);
    let mut kernel = Kernel::new(&kubelet);
    let mut relays = Relays::new(kubelet.clone());
    let mut again = None;
    loop {
        let trying = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = services.changed() => {}
            () = slices.changed() => {}
            () = pods.changed() => {}
            () = trying => {}
            () = shutdown.cancelled() => break,
        }
        if !(services.complete && slices.complete && pods.complete) {
            continue;
        }
        let ports = port::service_ports(&services.all(), &slices.all(), &kubelet.options.node_name);
        let apart = kubelet.options.cluster_network.is_some();
        let address = kubelet.options.node_port_address;
        relays.set(listener::wanted(&ports, &pods.all(), address, apart));
        let kept = kernel.keep(&ports).await;
        kubelet.note_api(&ports, kept.is_ok());
        again = match kept {
            Ok(()) => None,
            Err(why) => {
                tracing::warn!(%why, "Services have no rules yet; trying again");
                Some(Instant::now() + AGAIN)
            }
        };
    }
    kernel.end().await;
}

/// Where the Service `default/kubernetes` is, once it is known whether its address leads to the API server. `Some(None)`: it
/// does not.
pub(crate) type ApiService = watch::Sender<Option<Option<SocketAddrV4>>>;

/// For how long a pod's first start waits for that to be known.
const API_KNOWN: Duration = Duration::from_secs(2);

impl Kubelet {
    /// Where pods find the API server now: at its Service's address as soon as that carries their traffic.
    pub(crate) fn api_server(&self) -> Option<(String, u16)> {
        let service = self.api_service.borrow().flatten();
        let address = service.map(|address| (address.ip().to_string(), address.port()));
        address.or_else(|| self.options.api_server.clone())
    }

    /// Wait until it is known where pods find the API server for good.
    pub(crate) async fn api_known(&self) {
        if self.options.cluster_network.is_none() || self.options.api_server.is_none() {
            return;
        }
        let mut known = self.api_service.subscribe();
        let waiting = known.wait_for(Option::is_some);
        if tokio::time::timeout(API_KNOWN, waiting).await.is_err() {
            // The next pod does not wait again.
            self.api_service
                .send_if_modified(|known| known.replace(known.flatten()).is_none());
        }
    }

    fn note_api(&self, ports: &[port::ServicePort], are_kept: bool) {
        // Elsewhere there are no rules that could be kept.
        let has_rules = self.options.cluster_network.is_some();
        let server = self.options.api_server.as_ref().filter(|_| has_rules);
        let server = server.and_then(|(host, port)| Some(SocketAddrV4::new(host.parse().ok()?, *port)));
        let at = server
            .filter(|_| are_kept)
            .and_then(|server| port::leading_to(ports, server));
        let has_service = ports.iter().any(port::ServicePort::is_api);
        // What was there is not taken back for a moment of trouble; pods that run have been told.
        if at.is_some() || !are_kept || has_service {
            self.api_service.send_if_modified(|known| {
                let next = Some(at.or(known.flatten()));
                std::mem::replace(known, next) != next
            });
        }
    }
}

/// The objects of a kind, as they are now.
struct Followed<K: kube::Resource + 'static>
where
    K::DynamicType: Eq + Hash,
{
    store: Store<K>,
    events: BoxStream<'static, watcher::Result<watcher::Event<K>>>,
    /// Whether all of them are known.
    complete: bool,
}

impl<K> Followed<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + Send + Sync + serde::de::DeserializeOwned + 'static,
{
    fn new(api: Api<K>, config: watcher::Config) -> Self {
        let (store, writer) = reflector::store();
        let events = reflector::reflector(writer, watcher(api, config).default_backoff()).boxed();
        Self {
            store,
            events,
            complete: false,
        }
    }

    /// Wait for a change, and take what has come with it.
    async fn changed(&mut self) {
        let mut next = self.events.next().await;
        loop {
            match next {
                Some(Ok(watcher::Event::InitDone)) => self.complete = true,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "a watch for Services and host ports failed; trying again")
                }
                // A watcher does not end.
                None => std::future::pending().await,
            }
            next = match self.events.next().now_or_never() {
                Some(next) => next,
                None => return,
            };
        }
    }

    fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }
}

/// The rules in the kernel, where pods have a network of their own.
struct Kernel<'a> {
    kubelet: &'a Kubelet,
    place: Option<Place>,
    /// What is there, as far as this process knows.
    written: Option<Rules>,
}

impl<'a> Kernel<'a> {
    fn new(kubelet: &'a Kubelet) -> Self {
        let network = kubelet.options.cluster_network.as_ref();
        let place = network.map(|network| Place {
            // Distinct, as there may be several clusters in the host's network.
            table: network.bridge.clone(),
            bridge: network.bridge.clone(),
            pods: (network.gateway, network.prefix),
        });
        Self {
            kubelet,
            place,
            written: None,
        }
    }

    /// Have the rules for these ports written, if they are not yet.
    async fn keep(&mut self, ports: &[port::ServicePort]) -> Result<(), nft::Error> {
        let (Some(place), Some(network)) = (&self.place, &self.kubelet.options.cluster_network) else {
            return Ok(());
        };
        let rules = rules(ports, Some(network.gateway));
        if self.written.as_ref() != Some(&rules) {
            self.carry_out(nft::replace(place, &rules)).await?;
            self.written = Some(rules);
        }
        Ok(())
    }

    /// The rules go with the pods.
    async fn end(self) {
        if let Some(place) = &self.place
            && self.written.is_some()
            && !self.kubelet.options.keep_pods
            && let Err(why) = self.carry_out(nft::remove(&place.table)).await
        {
            tracing::warn!(%why, "the rules for Services stay");
        }
    }

    async fn carry_out(&self, batch: Vec<u8>) -> Result<(), nft::Error> {
        let network = &self.kubelet.options.network;
        let socket = network
            .socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
            .await
            .map_err(nft::Error::Send)?;
        // The kernel may take a while.
        let done = tokio::task::spawn_blocking(move || Socket::new(socket).carry_out(&batch));
        done.await
            .unwrap_or_else(|panicked| Err(nft::Error::Silent(panicked.into())))
    }
}
