//! The Node object and its lease: that this machine is there, and still is.

use crate::Options;
use events::Clock;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the lease is renewed, and how long it holds (upstream: 10 s and 40 s).
const RENEWAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;

/// How many pods a node takes (upstream: 110).
const PODS: u32 = 110;

/// Milli-CPUs and bytes of memory of this machine, as they were when they were asked for first: a node says at its start what
/// it has.
pub fn capacity() -> (i64, i64) {
    static CAPACITY: OnceLock<(i64, i64)> = OnceLock::new();
    *CAPACITY.get_or_init(read_capacity)
}

fn read_capacity() -> (i64, i64) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|l| {
        l.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse()
            .ok()
    });
    (
        i64::try_from(cpus).unwrap_or(1) * 1000,
        kib.unwrap_or(0i64) * 1024,
    )
}

/// Make the Node object, or bring the one of an earlier run up to date.
pub async fn register(client: &kube::Client, options: &Options, clock: &Clock) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(options.node_name.clone()),
            labels: Some(labels(&options.node_name)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        ..Node::default()
    };
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let labels = serde_json::json!({"metadata": {"labels": node.metadata.labels}});
            nodes
                .patch(&options.node_name, &PatchParams::default(), &Patch::Merge(labels))
                .await?;
        }
        Err(error) => return Err(error),
    }
    let now = clock();
    let before = nodes.get(&options.node_name).await?;
    let status = serde_json::json!({"status": status(options, &before, now)});
    nodes
        .patch_status(&options.node_name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    renew(client, options, &before, now).await
}

/// Renew the lease until `shutdown`.
pub async fn keep(client: &kube::Client, options: &Options, clock: &Clock, shutdown: CancellationToken) {
    let nodes: Api<Node> = Api::all(client.clone());
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEWAL) => {}
            () = shutdown.cancelled() => return,
        }
        let renewed = match nodes.get_opt(&options.node_name).await {
            Ok(Some(node)) => renew(client, options, &node, clock()).await,
            // Somebody has deleted the node; as upstream's kubelet would after a restart, be there again.
            Ok(None) => register(client, options, clock).await,
            Err(error) => Err(error),
        };
        if let Err(error) = renewed {
            tracing::warn!(node = options.node_name, %error, "the node's lease is not renewed; trying again");
        }
    }
}

async fn renew(
    client: &kube::Client,
    options: &Options,
    node: &Node,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let name = &options.node_name;
    let renewal = serde_json::json!({"spec": {"renewTime": MicroTime(now), "holderIdentity": name}});
    match leases
        .patch(name, &PatchParams::default(), &Patch::Merge(renewal))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        result => return result.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&PostParams::default(), &lease).await.map(drop)
}

fn labels(name: &str) -> BTreeMap<String, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = [
        ("beta.kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
    ];
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn status(options: &Options, before: &Node, now: Timestamp) -> NodeStatus {
    let (cpu, memory) = capacity();
    let resources: BTreeMap<String, Quantity> = [
        ("cpu", (cpu / 1000).to_string()),
        ("memory", format!("{}Ki", memory / 1024)),
        ("pods", PODS.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), Quantity(value)))
    .collect();
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.into(),
        address,
    };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", options.host_ip.to_string()),
            address("Hostname", options.node_name.clone()),
        ]),
        allocatable: Some(resources.clone()),
        capacity: Some(resources),
        conditions: Some(conditions(before, now)),
        node_info: Some(system_info(options)),
        ..NodeStatus::default()
    }
}

fn conditions(before: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let earlier = before
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let all = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let condition = |(type_, status, reason, message): (&str, &str, &str, &str)| {
        let same = earlier.iter().find(|c| c.type_ == type_ && c.status == status);
        NodeCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: same
                .and_then(|c| c.last_transition_time.clone())
                .or(Some(Time(now))),
        }
    };
    all.map(condition).to_vec()
}

fn system_info(options: &Options) -> NodeSystemInfo {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map(|t| t.trim().to_owned())
            .unwrap_or_default()
    };
    let release = read("/etc/os-release");
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux");
    NodeSystemInfo {
        architecture: labels("").remove("kubernetes.io/arch").unwrap_or_default(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("petset://{}", options.version),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: format!("v1.36.2+petset.{}", options.version),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: name.trim_matches('"').to_owned(),
        system_uuid: read("/etc/machine-id"),
        ..NodeSystemInfo::default()
    }
}
