//! One component alone: the API server over a data directory, or a controller, kubelet or DNS server against any API
//! server that a kubeconfig names.

use crate::args;
use crate::cluster::{Cluster, Components, Options, bind_host_dns, bind_unix, dns_options, kubelet_options};
use crate::connect;
use crate::data::DataDir;
use crate::dns_looks::{DnsLooks, metrics_url};
use crate::nodes::SOCKET_ANNOTATION;
use crate::pod_network::PodNetwork;
use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kubelet::isolation::{self, Wanted};
use kubelet::shim::protocol::Isolation;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first SIGINT or SIGTERM.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        token.cancel();
    });
    Ok(stop)
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output")
}

/// `petset apiserver`
pub async fn apiserver(arguments: args::Apiserver) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let data_dir = DataDir::open(arguments.data.data_dir.as_deref())?;
    let options = Options {
        data_dir,
        api: arguments.api.api,
        http: arguments.api.http,
        authorization: arguments.api.authorization_mode,
        in_flight: arguments.api.in_flight(),
        components: None,
    };
    let mut cluster = Cluster::start(options).await?;
    say(&format!("API server at {}", cluster.running().api))?;
    say(&format!("kubeconfig: {}", cluster.running().kubeconfig.display()))?;
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        error = cluster.failed() => Some(error),
    };
    cluster.stop().await;
    failed.map_or(Ok(()), Err)
}

/// `petset controller`
pub async fn controller(arguments: args::Controller) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let (client, config) = connect::remote(&arguments.remote).await?;
    let data = DataDir::open(arguments.data.data_dir.as_deref())?;
    let options = controller::Options {
        controllers: arguments.controllers,
        volumes_dir: data.volumes(),
        root_ca: root_certificates(&config),
        ..controller::Options::default()
    };
    say(&format!("controllers work for {}", config.cluster_url))?;
    controller::run(client, Arc::new(jiff::Timestamp::now), options, stop).await?;
    Ok(())
}

/// The certificates that this component trusts the API server by, in PEM: what pods are to trust it by, too.
fn root_certificates(config: &kube::Config) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let pem = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .filter_map(|l| std::str::from_utf8(l).ok())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    config
        .root_cert
        .as_ref()
        .map(|certificates| certificates.iter().map(pem).collect())
}

/// What `--pod-cidr` and its like say about pods.
pub fn components(
    pods: &args::Pods,
    names: Option<(&args::Names, &args::PodNames)>,
) -> anyhow::Result<Components> {
    let node_name = match &pods.node_name {
        Some(name) => name.clone(),
        None => host_name(),
    };
    let max = jiff::SignedDuration::from_secs(i64::from(pods.crash_loop_max));
    let default = kubelet::record::BackOff::default();
    Ok(Components {
        dns: names.map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |(n, _)| n.dns),
        dns_upstream: names.and_then(|(n, _)| n.dns_upstream.0.clone()),
        pod_dns: names.map_or(Some(args::PodDns(None)), |(_, pod)| pod.pod_dns),
        dns_looks: names.map_or_else(DnsLooks::default, |(n, _)| DnsLooks::new(&n.looks)),
        pod_dns_upstream: names.and_then(|(_, pod)| pod.pod_dns_upstream.0.clone()),
        cluster_domain: names.map_or_else(|| "cluster.local".into(), |(n, _)| n.cluster_domain.clone()),
        isolation: pods.isolation,
        pod_range: pods.pod_cidr,
        node_port_address: pods.node_port_address,
        node_name,
        executable: executable()?,
        back_off: kubelet::record::BackOff {
            initial: default.initial.min(max),
            max,
        },
        keep_pods: pods.keep_pods,
        log_max_size: pods.container_log_max_size,
        log_max_files: pods.container_log_max_files as usize,
        most_processes: pods.pod_max_pids,
    })
}

/// This binary, also when its file has been replaced by a newer one meanwhile.
fn executable() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find petset's own binary")?;
    if path.exists() {
        Ok(path)
    } else {
        Ok(PathBuf::from("/proc/self/exe"))
    }
}

/// As upstream's kubelet names its node.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c))
        .collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "petset".into() } else { name }
}

/// `petset kubelet`
pub async fn kubelet(arguments: args::Kubelet) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let (client, config) = connect::remote(&arguments.remote).await?;
    let data = DataDir::open(arguments.data.data_dir.as_deref())?;
    let _lock = data.lock_pods()?;
    let mut components = components(&arguments.pods, None)?;
    if components.isolation == Wanted::Auto {
        // Neither the API server nor the DNS server need be reachable from a network of the pods' own.
        components.isolation = without_networks(&components.executable).await;
    }
    let services = apiserver::Options::default().service_network;
    let pods = PodNetwork::make(
        &data,
        &components.executable,
        components.isolation,
        components.pod_range,
        services,
    )
    .await?;
    let mut options = kubelet_options(&components, &pods, data.path(), None);
    options.cluster_dns.servers = arguments.cluster_dns;
    options.cluster_dns.domain = arguments.cluster_domain.trim_matches('.').to_lowercase();
    let url = &config.cluster_url;
    options.api_server = url
        .host()
        .map(|host| (host.to_owned(), url.port_u16().unwrap_or(443)));
    let kubelet = kubelet::Kubelet::new(client.clone(), Arc::new(jiff::Timestamp::now), options);
    let socket = data.kubelet_socket();
    let listener = bind_unix(&socket)?;
    let router = kubelet::server::router(kubelet.clone());
    let shutdown = stop.clone().cancelled_owned();
    let serving = tokio::spawn(
        axum::serve(listener, router)
            .with_graceful_shutdown(shutdown)
            .into_future(),
    );
    let running = tokio::spawn(kubelet.run(stop.clone()));
    let announced = announce(&client, &components.node_name, &socket, &stop).await;
    if announced.is_ok() {
        say(&format!(
            "kubelet of node {} works for {url}",
            components.node_name
        ))?;
    } else {
        stop.cancel();
    }
    running.await??;
    serving.await??;
    let _ = std::fs::remove_file(socket);
    announced
}

/// The best isolation in which pods are on the host's network.
async fn without_networks(executable: &std::path::Path) -> Wanted {
    let mounts = isolation::probe(executable, Isolation::Mounts).await;
    Wanted::Exactly(mounts.map_or(Isolation::None, |()| Isolation::Mounts))
}

/// Say on the Node object, once it is there, where its kubelet's socket is.
async fn announce(
    client: &kube::Client,
    node: &str,
    socket: &std::path::Path,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let annotation = serde_json::json!({"metadata": {"annotations": {SOCKET_ANNOTATION: socket}}});
    loop {
        match nodes
            .patch(node, &PatchParams::default(), &Patch::Merge(&annotation))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => return Ok(result.map(drop)?),
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// `petset dns`
pub async fn dns(arguments: args::Dns) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    // The API server may come later than its DNS: until then, answers say that nothing is known yet.
    let (client, config) = connect::unchecked(&arguments.remote).await?;
    let names = arguments.names;
    let listener = bind_host_dns(names.dns, names.dns_upstream.0)?;
    let address = listener.address()?;
    let looks = DnsLooks::new(&names.looks);
    let metrics = looks.bind().await?;
    let ranges = arguments.ranges.reverse();
    let now = jiff::Timestamp::now();
    let options = dns_options(&names.cluster_domain, ranges, address, &looks, now);
    say(&format!("DNS at {address} for {}", config.cluster_url))?;
    if let Some(metrics) = &metrics {
        say(&format!("metrics at {}", metrics_url(metrics.local_addr()?)))?;
    }
    let listeners = dns::status::Listeners { owner: None, metrics };
    dns::run(client, options, vec![listener], listeners, stop).await?;
    Ok(())
}
