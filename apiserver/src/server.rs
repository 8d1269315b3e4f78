//! What every request shares: the store, the clock, the kinds, and what the embedder chose.

use crate::auth::token::Tokens;
use crate::auth::{Authenticator, Clock};
use crate::authorization::{Mode, View};
use crate::bootstrap;
use crate::dial::{Dial, Direct};
use crate::error::Error;
use crate::filters::InFlight;
use crate::nodes::{NoNodes, Nodes};
use crate::resource::Kind;
use crate::{resources, stored};
use serde_json::json;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the embedder chooses.
#[derive(Clone)]
pub struct Options {
    /// What time it is.
    pub clock: Clock,
    /// Ends all watches: a graceful shutdown waits for their bodies otherwise.
    pub stop: CancellationToken,
    /// The way to the kubelets, for logs.
    pub nodes: Arc<dyn Nodes>,
    /// The way to pods, for the proxy.
    pub pods: Arc<dyn Dial>,
    /// Who signs service account tokens; without it they are not issued.
    pub tokens: Option<Arc<Tokens>>,
    /// The digest of the administrator's bearer token ([`crate::auth::digest`]), if there is one.
    pub admin_token: Option<[u8; 32]>,
    /// How it is decided who may do what.
    pub authorization: Mode,
    /// The addresses of Services: network and prefix length.
    pub service_network: (std::net::Ipv4Addr, u8),
    /// The node ports of Services.
    pub node_ports: RangeInclusive<u16>,
    /// How many requests are served at a time.
    pub in_flight: InFlight,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(jiff::Timestamp::now),
            stop: CancellationToken::new(),
            nodes: Arc::new(NoNodes),
            pods: Arc::new(Direct),
            tokens: None,
            admin_token: None,
            authorization: Mode::default(),
            service_network: (std::net::Ipv4Addr::new(10, 96, 0, 0), 12),
            node_ports: 30000..=32767,
            in_flight: InFlight::default(),
        }
    }
}

/// The API server's state. It is shared by all requests and holds nothing that the store does not.
pub struct Server {
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// What the embedder chose.
    pub options: Options,
    /// Every kind by group, version and plural.
    kinds: HashMap<(&'static str, &'static str, &'static str), &'static dyn Kind>,
    /// Held from looking for a free address or port until the Service that uses it is stored.
    pub(crate) allocating: tokio::sync::Mutex<()>,
    /// Roles and bindings, arranged for questions.
    pub(crate) view: View,
    /// Clients that are joined with others, and the connections to these.
    pub(crate) joined: TaskTracker,
}

impl Server {
    /// A server over `store` for all kinds of [`resources::all`].
    pub fn new(store: Arc<dyn Store>, options: Options) -> Arc<Self> {
        let kinds = resources::all()
            .into_iter()
            .map(|kind| {
                let names = kind.names();
                ((names.group, names.version, names.plural), kind)
            })
            .collect();
        Arc::new(Self {
            store,
            options,
            kinds,
            allocating: tokio::sync::Mutex::new(()),
            view: View::default(),
            joined: TaskTracker::new(),
        })
    }

    /// Wait until nobody is joined with anybody through this server: soon after [`Options::stop`].
    pub async fn joined_ended(&self) {
        self.joined.close();
        self.joined.wait().await;
    }

    /// The kind served at `/apis/GROUP/VERSION/…/PLURAL`.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static dyn Kind> {
        self.kinds.get(&(group, version, plural)).copied()
    }

    /// Whether a kind is served in an API version (`apps/v1`).
    pub fn serves(&self, api_version: &str, kind: &str) -> bool {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds.values().any(|served| {
            let names = served.names();
            (names.group, names.version, names.kind) == (group, version, kind)
        })
    }

    /// Whether anything is served in this group.
    pub fn has_group(&self, group: &str) -> bool {
        self.kinds.keys().any(|(known, _, _)| *known == group)
    }

    /// Who knows the credentials of this server's users.
    pub fn authenticator(&self) -> Authenticator {
        Authenticator {
            tokens: self.options.tokens.clone(),
            admin_token: self.options.admin_token,
            clock: self.options.clock.clone(),
            store: self.store.clone(),
        }
    }

    /// Now, in whole seconds as objects record it.
    pub fn now(&self) -> jiff::Timestamp {
        let now = (self.options.clock)();
        jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Create the namespaces, roles and bindings that every cluster has, unless they are there.
    pub async fn bootstrap(&self) -> Result<(), Error> {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({
                "metadata": {
                    "name": name,
                    "uid": uuid::Uuid::new_v4().to_string(),
                    "creationTimestamp": self.now().to_string(),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            });
            let key = stored::namespace_key(name);
            match self.store.create(&key, stored::encode(&namespace)).await {
                Ok(_) | Err(store::Error::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bootstrap::access::reconcile(self).await
    }
}
