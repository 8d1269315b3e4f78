//! A whole cluster in this process: API server, controllers, kubelet and DNS, started together and stopped in order.
//!
//! Components talk through a `kube::Client` whose service is the API server's router itself: no socket in between.

use crate::data::{DataDir, Lock, PodDns, Pods, Running, write_private};
use crate::dns_looks::{DnsLooks, metrics_url};
use crate::nodes::{InProcess, Sockets};
use crate::pod_dns;
use crate::pod_network::PodNetwork;
use anyhow::{Context, bail};
use apiserver::auth::User;
use apiserver::auth::pki::Pki;
use apiserver::auth::token::Tokens;
use apiserver::authorization::Mode;
use apiserver::bootstrap::kubernetes_service;
use apiserver::dial::{Dial, Direct};
use apiserver::serve::{Tls, serve_http, serve_tls, serve_unix};
use async_trait::async_trait;
use axum::extract::Request;
use axum::{Extension, Router};
use dns::upstream::Servers;
use events::Clock;
use http::HeaderValue;
use http::header::USER_AGENT;
use jiff::Timestamp;
use kubelet::Kubelet;
use kubelet::address::Range;
use kubelet::dns::{Alone, ClusterDns};
use kubelet::isolation::{self, Wanted};
use kubelet::network::Network;
use kubelet::record::BackOff;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::{Options as StoreOptions, SledStore};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: DataDir,
    /// HTTPS address of the API; port 0 picks a free one.
    pub api: SocketAddr,
    /// Plain HTTP address of the API, loopback only.
    pub http: Option<SocketAddr>,
    /// How it is decided who may do what.
    pub authorization: Mode,
    /// How many requests are served at a time, and how long one may take.
    pub in_flight: apiserver::filters::InFlight,
    /// DNS, controllers and kubelet; `None`: an API server alone.
    pub components: Option<Components>,
}

/// What is not the API server.
#[derive(Clone, Debug)]
pub struct Components {
    /// DNS address.
    pub dns: SocketAddr,
    /// Who is asked for names outside the cluster, by whoever asks at `dns`.
    pub dns_upstream: Option<Servers>,
    /// What can be seen of the DNS server.
    pub dns_looks: DnsLooks,
    /// What `--pod-dns` says of the pods' own DNS address.
    pub pod_dns: Option<crate::args::PodDns>,
    /// Who is asked for names outside the cluster, by pods.
    pub pod_dns_upstream: Option<Servers>,
    /// The zone of the cluster's names.
    pub cluster_domain: String,
    /// How far pods are to be kept apart.
    pub isolation: Wanted,
    /// Where pod addresses are to come from.
    pub pod_range: Option<Range>,
    /// Where the host finds node ports and host ports.
    pub node_port_address: IpAddr,
    /// Name of the node.
    pub node_name: String,
    /// The petset binary, which the kubelet starts again as its shims.
    pub executable: PathBuf,
    /// Delays between restarts of a container.
    pub back_off: BackOff,
    /// Whether pods go on when petset is told to stop.
    pub keep_pods: bool,
    /// Size in bytes at which a container's log is rotated.
    pub log_max_size: u64,
    /// How many files of it are kept.
    pub log_max_files: usize,
    /// How many processes and threads a container may have.
    pub most_processes: Option<u64>,
}

/// How often and for how long the default namespace's service account is looked for.
const ACCOUNT_LOOK: Duration = Duration::from_millis(2);
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// A running cluster. [`Cluster::stop`] stops it in order; dropping it stops it anyhow.
pub struct Cluster {
    running: Running,
    router: Router,
    stops: Stops,
    /// What runs, in groups; a task that ends early is an error.
    components: JoinSet<anyhow::Result<()>>,
    kubelet: JoinSet<anyhow::Result<()>>,
    dns: JoinSet<anyhow::Result<()>>,
    listeners: JoinSet<anyhow::Result<()>>,
    store: Arc<SledStore>,
    dns_socket: PathBuf,
    _locks: Vec<Lock>,
}

/// Each ends one group.
#[derive(Default)]
struct Stops {
    controllers: CancellationToken,
    kubelet: CancellationToken,
    dns: CancellationToken,
    listeners: CancellationToken,
}

impl Drop for Stops {
    fn drop(&mut self) {
        for token in [&self.controllers, &self.kubelet, &self.dns, &self.listeners] {
            token.cancel();
        }
    }
}

/// Sockets that are bound, so that a port in use is said before anything else has been started.
struct Listeners {
    api: TcpListener,
    /// Where pods reach the API, if that is not where the host does.
    pods_api: Option<TcpListener>,
    http: Option<TcpListener>,
    unix: UnixListener,
    dns: Option<Dns>,
}

/// The sockets of the DNS server.
struct Dns {
    host: dns::Listener,
    pods: pod_dns::Bound,
    looks: dns::status::Listeners,
}

/// What the components are started with.
struct Given<'a> {
    components: &'a Components,
    pods: &'a PodNetwork,
    /// Where pods reach the API.
    api: SocketAddr,
    data: &'a DataDir,
    pki: &'a Pki,
    clock: &'a Clock,
    nodes: &'a InProcess,
}

impl Cluster {
    /// Start everything. Once this returns the API answers.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let data = options.data_dir.clone();
        let mut locks = vec![data.lock()?];
        if options.components.is_some() {
            locks.push(data.lock_pods()?);
        }
        let pods = match &options.components {
            Some(components) => Some(components.pod_network(&data).await?),
            None => None,
        };
        let started = Self::start_with(&options, &data, pods.as_ref(), locks).await;
        if let (Err(_), Some(pods)) = (&started, &pods) {
            pods.abandon(&data).await;
        }
        started
    }

    async fn start_with(
        options: &Options,
        data: &DataDir,
        pods: Option<&PodNetwork>,
        locks: Vec<Lock>,
    ) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(options, pods).await?;
        let clock: Clock = Arc::new(Timestamp::now);
        let (store, pki) = open_disk(data, options, pods, &clock).await?;
        let running = describe(data, options, pods, &listeners, clock())?;
        write_private(&data.kubeconfig(), pki.kubeconfig(&running.api).as_bytes())?;

        let stops = Stops::default();
        let tokens = Arc::new(Tokens::new(&pki.service_account_key).context("pki/sa.key")?);
        let (nodes, sockets) = (Arc::new(InProcess::default()), Arc::new(Sockets::default()));
        let server_options = apiserver::Options {
            clock: clock.clone(),
            stop: stops.listeners.clone(),
            nodes: match options.components {
                Some(_) => nodes.clone(),
                None => sockets.clone(),
            },
            pods: pods.map_or_else(
                || Arc::new(Direct) as Arc<dyn Dial>,
                |pods| Arc::new(Dialer(pods.network.clone())),
            ),
            tokens: Some(tokens),
            authorization: options.authorization,
            admin_token: Some(apiserver::auth::digest(&pki.admin_token)),
            in_flight: options.in_flight,
            ..apiserver::Options::default()
        };
        let server = apiserver::Server::new(store.clone(), server_options);
        let bootstrapped = server.bootstrap().await;
        bootstrapped.map_err(|e| anyhow::anyhow!("cannot create what every cluster has: {e:?}"))?;
        let router = apiserver::router(server.clone());
        let tls = Tls::new(&pki, server.authenticator())?;

        let mut cluster = Self {
            running,
            router,
            stops,
            components: JoinSet::new(),
            kubelet: JoinSet::new(),
            dns: JoinSet::new(),
            listeners: JoinSet::new(),
            store,
            dns_socket: data.dns_socket(),
            _locks: locks,
        };
        sockets.look_up_with(cluster.client());
        let (stopping, joined) = (cluster.stops.listeners.clone(), server.clone());
        spawn(&mut cluster.listeners, async move {
            stopping.cancelled().await;
            tokio::join!(sockets.end(), joined.joined_ended());
            Ok(())
        });
        let api = listeners.api_for_pods(pods)?;
        let kept = kubernetes_service::reconcile(&server, api).await;
        kept.map_err(|e| anyhow::anyhow!("cannot create the Service default/kubernetes: {e:?}"))?;
        cluster.keep_service(server, api);
        let dns = cluster.listen(listeners, tls);
        if let (Some(components), Some(pods), Some(dns)) = (&options.components, pods, dns) {
            let given = Given {
                components,
                pods,
                api,
                data,
                pki: &pki,
                clock: &clock,
                nodes: &nodes,
            };
            cluster.start_components(&given, dns)?;
            cluster.create_default_class().await?;
            cluster.until_pods_are_taken().await;
        }
        data.write_running(&cluster.running)?;
        Ok(cluster)
    }

    /// Repair the Service `default/kubernetes` for as long as the API answers.
    fn keep_service(&mut self, server: Arc<apiserver::Server>, api: SocketAddr) {
        let stop = self.stops.listeners.clone();
        spawn(&mut self.listeners, async move {
            let keeping = kubernetes_service::keep(&server, api);
            match stop.run_until_cancelled(keeping).await {
                Some(Err(error)) => bail!("cannot keep the Service default/kubernetes: {error:?}"),
                _ => Ok(()),
            }
        });
    }

    fn listen(&mut self, listeners: Listeners, tls: Tls) -> Option<Dns> {
        let router = &self.router;
        let stop = &self.stops.listeners;
        for listener in std::iter::once(listeners.api).chain(listeners.pods_api) {
            let serving = serve_tls(listener, router.clone(), tls.clone(), stop.clone());
            spawn(&mut self.listeners, async {
                serving.await;
                Ok(())
            });
        }
        let serving = serve_unix(listeners.unix, router.clone(), stop.clone());
        spawn(&mut self.listeners, async {
            serving.await;
            Ok(())
        });
        if let Some(http) = listeners.http {
            let serving = serve_http(http, router.clone(), stop.clone());
            spawn(&mut self.listeners, async {
                serving.await;
                Ok(())
            });
        }
        listeners.dns
    }

    fn start_components(&mut self, given: &Given<'_>, sockets: Dns) -> std::io::Result<()> {
        let Given {
            components,
            pods,
            data,
            clock,
            ..
        } = given;
        let client = self.client_of(
            "system:kube-controller-manager",
            &["system:masters"],
            "kube-controller-manager",
        );
        let controllers = controller::Options {
            volumes_dir: data.volumes(),
            root_ca: Some(given.pki.authority.clone()),
            ..controller::Options::default()
        };
        let running = controller::run(
            client,
            (*clock).clone(),
            controllers,
            self.stops.controllers.clone(),
        );
        spawn(&mut self.components, async { Ok(running.await?) });

        let client = self.client_of(
            &format!("system:node:{}", components.node_name),
            &["system:nodes", "system:masters"],
            "kubelet",
        );
        let mut kubelet_options = kubelet_options(components, pods, data.path(), Some(given.api));
        let pod_dns = sockets.pods.as_ref().ok().and_then(|pods| pods.address().ok());
        let pod_dns = pod_dns.map(|address| address.ip());
        kubelet_options.cluster_dns.servers.extend(pod_dns);
        kubelet_options.dns_server = sockets.host.address().ok().map(reachable);
        let kubelet = Kubelet::new(client, (*clock).clone(), kubelet_options);
        given
            .nodes
            .serve(&components.node_name, kubelet::server::router(kubelet.clone()));
        let running = kubelet.run(self.stops.kubelet.clone());
        spawn(&mut self.kubelet, async { Ok(running.await?) });

        let client = self.client_of("system:kube-dns", &["system:masters"], "petset-dns");
        // The pods' range and upstream's default one of Services.
        let ranges = vec![pods.range.to_string(), "10.96.0.0/12".into()];
        let address = sockets.host.address()?;
        let names = dns_options(
            &components.cluster_domain,
            ranges,
            address,
            &components.dns_looks,
            clock(),
        );
        let listeners = std::iter::once(sockets.host).chain(sockets.pods.ok()).collect();
        let running = dns::run(client, names, listeners, sockets.looks, self.stops.dns.clone());
        spawn(&mut self.dns, async { Ok(running.await?) });
        Ok(())
    }

    /// As every cluster for trying things out has one: the class of claims that name none.
    async fn create_default_class(&self) -> anyhow::Result<()> {
        use k8s_openapi::api::storage::v1::StorageClass;
        let class: StorageClass = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "petset.dev/directory",
            "allowVolumeExpansion": true,
        }))?;
        let classes: kube::Api<StorageClass> = kube::Api::all(self.client());
        match classes.create(&kube::api::PostParams::default(), &class).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).context("cannot create the default StorageClass"),
        }
    }

    /// The default namespace takes pods a moment after it was made, when the controllers have given it a service account.
    async fn until_pods_are_taken(&self) {
        use k8s_openapi::api::core::v1::ServiceAccount;
        let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(self.client(), "default");
        let made = async {
            while !matches!(accounts.get_opt("default").await, Ok(Some(_))) {
                tokio::time::sleep(ACCOUNT_LOOK).await;
            }
        };
        // Without one the cluster is of some use, too.
        let _ = tokio::time::timeout(ACCOUNT_PATIENCE, made).await;
    }

    /// What runs where.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> kube::Client {
        self.client_of("system:admin", &["system:masters"], "petset")
    }

    /// A client in the process: who it is, and the program whose writes these are in managedFields.
    fn client_of(&self, name: &str, groups: &[&str], program: &'static str) -> kube::Client {
        let agent = MapRequestLayer::new(move |mut request: Request| {
            let headers = request.headers_mut();
            headers.insert(USER_AGENT, HeaderValue::from_static(program));
            request
        });
        let user = Extension(User::new(name, groups));
        kube::Client::new(self.router.clone().layer(user).layer(agent), "default")
    }

    /// Wait until some part ends that should not; why.
    pub async fn failed(&mut self) -> anyhow::Error {
        let (part, ended) = tokio::select! {
            Some(ended) = self.components.join_next() => ("the controllers", ended),
            Some(ended) = self.kubelet.join_next() => ("the kubelet", ended),
            Some(ended) = self.dns.join_next() => ("the DNS server", ended),
            Some(ended) = self.listeners.join_next() => ("an API listener", ended),
        };
        let why = match ended {
            Ok(Ok(())) => anyhow::anyhow!("it ended without being told to"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        why.context(format!("{part} failed"))
    }

    /// Stop in order: controllers (or they would replace what goes), kubelet with its pods, DNS, HTTP, store.
    pub async fn stop(mut self) {
        for (token, tasks) in [
            (&self.stops.controllers, &mut self.components),
            (&self.stops.kubelet, &mut self.kubelet),
            (&self.stops.dns, &mut self.dns),
            (&self.stops.listeners, &mut self.listeners),
        ] {
            token.cancel();
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended.map_err(anyhow::Error::from).and_then(|result| result) {
                    tracing::error!(error = %format!("{error:#}"), "while stopping");
                }
            }
        }
        let _ = std::fs::remove_file(&self.running.socket);
        let _ = std::fs::remove_file(&self.dns_socket);
        self.store.close().await;
    }
}

fn spawn(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(work);
}

/// The kubelet's options, for one in this process and for one alone.
pub fn kubelet_options(
    components: &Components,
    pods: &PodNetwork,
    data_dir: &Path,
    api: Option<SocketAddr>,
) -> kubelet::Options {
    kubelet::Options {
        node_name: components.node_name.clone(),
        data_dir: data_dir.to_owned(),
        pod_range: pods.range,
        network: pods.network.clone(),
        cluster_network: pods.cluster.clone(),
        host_ip: pods.gateway().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        node_port_address: components.node_port_address,
        api_server: api.map(|address| (address.ip().to_string(), address.port())),
        cluster_dns: ClusterDns {
            servers: Vec::new(),
            domain: components.cluster_domain.trim_matches('.').to_lowercase(),
            alone_for: match &pods.cluster {
                None => Alone::Nobody,
                Some(cluster) if cluster.own => Alone::Everybody,
                Some(_) => Alone::OwnNetworks,
            },
        },
        executable: components.executable.clone(),
        back_off: components.back_off,
        isolation: pods.isolation.level,
        keep_pods: components.keep_pods,
        log_max_size: components.log_max_size,
        log_max_files: components.log_max_files,
        most_processes: components.most_processes,
        version: env!("CARGO_PKG_VERSION").into(),
        dns_server: None,
    }
}

/// What the DNS server at this address is told. The time makes its serial numbers grow over restarts.
pub fn dns_options(
    domain: &str,
    ranges: Vec<String>,
    address: SocketAddr,
    looks: &DnsLooks,
    now: Timestamp,
) -> dns::Options {
    dns::Options {
        cluster_domain: domain.into(),
        reverse_ranges: ranges,
        addresses: vec![reachable(address).ip()],
        // Serial numbers may wrap around (RFC 1982).
        first_serial: (now.as_second() & i64::from(u32::MAX))
            .try_into()
            .unwrap_or_default(),
        allow_transfer: looks.allow_transfer.clone(),
        log: looks.log,
    }
}

/// Store and certificates, side by side: both are disk work.
async fn open_disk(
    data: &DataDir,
    options: &Options,
    pods: Option<&PodNetwork>,
    clock: &Clock,
) -> anyhow::Result<(Arc<SledStore>, Pki)> {
    let directory = data.store();
    let opening = tokio::task::spawn_blocking(move || SledStore::open(&directory, StoreOptions::default()));
    let (directory, now) = (data.pki(), clock());
    let addresses = own_names(options, pods);
    let keys = tokio::task::spawn_blocking(move || Pki::open(&directory, &addresses, now));
    let store = opening
        .await?
        .with_context(|| format!("cannot open the store in {}", data.store().display()))?;
    let pki = keys
        .await?
        .with_context(|| format!("credentials in {}", data.pki().display()))?;
    Ok((Arc::new(store), pki))
}

/// The names and addresses by which clients know this API server, besides those it always has.
fn own_names(options: &Options, pods: Option<&PodNetwork>) -> Vec<String> {
    let service = kubernetes_service::address(apiserver::Options::default().service_network);
    let mut names = vec![service.to_string()];
    if let Some(components) = &options.components {
        let domain = components.cluster_domain.trim_matches('.').to_lowercase();
        names.push(format!("kubernetes.default.svc.{domain}"));
    }
    if !options.api.ip().is_unspecified() {
        names.push(options.api.ip().to_string());
    }
    names.extend(
        pods.and_then(PodNetwork::gateway)
            .map(|gateway| gateway.to_string()),
    );
    names
}

fn describe(
    data: &DataDir,
    options: &Options,
    pods: Option<&PodNetwork>,
    listeners: &Listeners,
    started: Timestamp,
) -> anyhow::Result<Running> {
    let api = reachable(listeners.api.local_addr()?);
    let http = listeners.http.as_ref().map(TcpListener::local_addr).transpose()?;
    let (mut dns, mut pod_dns) = (None, None);
    if let Some(sockets) = &listeners.dns {
        dns = Some(sockets.host.address()?);
        pod_dns = Some(match &sockets.pods {
            Ok(listener) => PodDns::At(listener.address()?.to_string()),
            Err(why) => PodDns::Missing(why.clone()),
        });
    }
    let dns_metrics = listeners.dns.as_ref().and_then(|dns| dns.looks.metrics.as_ref());
    let dns_metrics = dns_metrics.map(TcpListener::local_addr).transpose()?;
    let pods_api = listeners.api_for_pods(pods)?;
    Ok(Running {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        started,
        api: format!("https://{api}"),
        http: http.map(|address| format!("http://{address}")),
        socket: data.api_socket(),
        dns: dns.map(|address| reachable(address).to_string()),
        dns_metrics: dns_metrics.map(|address| metrics_url(reachable(address))),
        pod_dns,
        pods: pods.map(|pods| Pods {
            isolation: isolation::name(pods.isolation.level).into(),
            why: pods.isolation.why.clone(),
            range: pods.range.to_string(),
            apart: pods.cluster.as_ref().is_some_and(|cluster| cluster.own),
            api: format!("https://{pods_api}"),
        }),
        cluster_domain: options.components.as_ref().map(|c| c.cluster_domain.clone()),
        kubeconfig: data.kubeconfig(),
    })
}

/// An address that a client on this machine can use for one that was listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    }
}

impl Listeners {
    /// The API's address as pods use it.
    fn api_for_pods(&self, pods: Option<&PodNetwork>) -> std::io::Result<SocketAddr> {
        let api = self.api.local_addr()?;
        if let Some(listener) = &self.pods_api {
            return listener.local_addr();
        }
        let gateway = pods.and_then(PodNetwork::gateway);
        Ok(gateway.map_or_else(|| reachable(api), |gateway| SocketAddr::new(gateway, api.port())))
    }

    async fn bind(options: &Options, pods: Option<&PodNetwork>) -> anyhow::Result<Self> {
        let api = bind_tcp(options.api, "the API", "--api").await?;
        let pods_api = match pods {
            Some(pods) => bind_for_pods(api.local_addr()?, pods).await?,
            None => None,
        };
        let http = match options.http {
            Some(address) if !address.ip().is_loopback() => {
                bail!("--http {address}: this listener asks for no credentials, so it must be on loopback")
            }
            Some(address) => Some(bind_tcp(address, "plain HTTP", "--http").await?),
            None => None,
        };
        let dns = match (&options.components, pods) {
            (Some(components), Some(pods)) => Some(Dns {
                host: bind_host_dns(components.dns, components.dns_upstream.clone())?,
                pods: pod_dns::bind(
                    pod_dns::Wanted::new(components.pod_dns, pods.range),
                    &pods.network,
                    components.pod_dns_upstream.clone(),
                )
                .await?,
                looks: dns::status::Listeners {
                    owner: Some(bind_unix(&options.data_dir.dns_socket())?),
                    metrics: components.dns_looks.bind().await?,
                },
            }),
            _ => None,
        };
        let socket = options.data_dir.api_socket();
        Ok(Self {
            api,
            pods_api,
            http,
            unix: bind_unix(&socket)?,
            dns,
        })
    }
}

/// Where pods find the API: at their gateway, at the host's port for it if that is free there. `None`: where the host
/// finds it, pods do.
async fn bind_for_pods(api: SocketAddr, pods: &PodNetwork) -> anyhow::Result<Option<TcpListener>> {
    let Some(cluster) = &pods.cluster else {
        return Ok(None);
    };
    if !cluster.own && api.ip().is_unspecified() {
        return Ok(None);
    }
    let usual = SocketAddr::new(cluster.gateway.into(), api.port());
    let listener = match pods.network.listen(usual).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            pods.network.listen(SocketAddr::new(usual.ip(), 0)).await
        }
        listening => listening,
    };
    let listener = listener.with_context(|| format!("cannot listen on {usual} for the API of pods"))?;
    Ok(Some(listener))
}

/// The proxy's way to pods.
struct Dialer(Network);

#[async_trait]
impl Dial for Dialer {
    async fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.0.connect(to).await
    }
}

impl Components {
    async fn pod_network(&self, data: &DataDir) -> anyhow::Result<PodNetwork> {
        let services = apiserver::Options::default().service_network;
        PodNetwork::make(data, &self.executable, self.isolation, self.pod_range, services).await
    }
}

/// A Unix socket that only its owner can open, from its first moment on: it is made in a directory of its own and
/// moved into place. One left behind by an earlier run is replaced: the caller holds the lock.
pub fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let private = path.with_extension("new");
    let made = private.join("s");
    let bind = || {
        let _ = std::fs::remove_dir_all(&private);
        std::fs::DirBuilder::new().mode(0o700).create(&private)?;
        let listener = UnixListener::bind(&made)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, path)?;
        std::fs::remove_dir(&private)?;
        Ok(listener)
    };
    let listener: std::io::Result<UnixListener> = bind();
    listener.with_context(|| format!("cannot listen on {}", path.display()))
}

/// Listen, or say what for it was and which flag chooses another address.
pub async fn bind_tcp(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| cannot_listen(address, what, flag))
}

fn cannot_listen(address: SocketAddr, what: &str, flag: &str) -> String {
    format!(
        "cannot listen on {address} for {what} (choose another with {flag} ADDR:PORT; port 0 picks a free one)"
    )
}

/// Where the host's programs ask.
pub fn bind_host_dns(address: SocketAddr, upstream: Option<Servers>) -> anyhow::Result<dns::Listener> {
    dns::Listener::bind(address, upstream).with_context(|| cannot_listen(address, "DNS", "--dns"))
}
