//! `petset up`: a cluster in the foreground, manifests applied to it, and what happens shown.

mod apply;
mod progress;

use crate::args::Up;
use crate::cluster::{Cluster, Options};
use crate::component::{components, stop_on_signal};
use crate::data::{DataDir, Running};
use crate::manifest::{self, Manifest};
use progress::Screen;

/// Run until SIGINT, SIGTERM or a failure.
pub async fn run(arguments: Up) -> anyhow::Result<()> {
    // A manifest that does not parse is said before anything is started.
    let manifests = manifest::read_all(&arguments.filename)?;
    let stop = stop_on_signal()?;
    let data_dir = DataDir::open(arguments.data.data_dir.as_deref())?;
    let options = Options {
        data_dir,
        api: arguments.api.api,
        http: arguments.api.http,
        authorization: arguments.api.authorization_mode,
        in_flight: arguments.api.in_flight(),
        components: Some(components(
            &arguments.pods,
            Some((&arguments.names, &arguments.pod_names)),
        )?),
    };
    let screen = Screen::new();
    let mut cluster = Cluster::start(options).await?;
    let shown = show(&screen, cluster.client(), cluster.running().clone(), &manifests);
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        error = cluster.failed() => Err(error),
        Err(error) = shown => Err(error),
    };
    screen.say(if arguments.pods.keep_pods {
        "stopping: pods go on without petset; the next start takes them over"
    } else {
        "stopping: pods get their grace period; objects and volumes are kept"
    });
    cluster.stop().await;
    outcome
}

/// Say how to reach the cluster, apply the manifests, and show pods coming up for as long as the cluster runs.
async fn show(
    screen: &Screen,
    client: kube::Client,
    running: Running,
    manifests: &[Manifest],
) -> anyhow::Result<()> {
    screen.say(&format!("petset {} is up", running.version));
    for line in how_to_reach(&running, manifests) {
        screen.say(&line);
    }
    let networks = running
        .pods
        .as_ref()
        .is_some_and(|pods| pods.isolation == "namespaces");
    for line in privileged_ports(manifests) {
        // In networks of the pods' own every port is everybody's.
        if !networks {
            screen.say(&line);
        }
    }
    apply::apply(&client, manifests, |line| screen.say(line)).await?;
    progress::follow(client, screen).await
}

/// A kubectl, a curl and a dig line that work when pasted.
fn how_to_reach(running: &Running, manifests: &[Manifest]) -> Vec<String> {
    let mut lines = vec![
        format!(
            "  kubectl  kubectl --kubeconfig {} get pods -o wide",
            running.kubeconfig.display()
        ),
        format!(
            "  curl     curl --unix-socket {} http://petset/api/v1/namespaces/default/pods",
            running.socket.display()
        ),
    ];
    lines.extend(
        running
            .http
            .as_ref()
            .map(|http| format!("  curl     curl {http}/api/v1/namespaces/default/pods")),
    );
    if let (Some(dns), Some(domain)) = (&running.dns, &running.cluster_domain) {
        let (host, port) = dns.rsplit_once(':').unwrap_or((dns, "53"));
        let service = manifests.iter().find(|m| m.object["kind"] == "Service");
        let text = |pointer: &str| {
            service
                .and_then(|s| s.object.pointer(pointer))
                .and_then(|v| v.as_str())
        };
        let name = match text("/metadata/name") {
            Some(name) => format!(
                "{name}.{}.svc.{domain}",
                text("/metadata/namespace").unwrap_or("default")
            ),
            None => domain.clone(),
        };
        let type_ = if service.is_some() { "A" } else { "SOA" };
        lines.push(format!(
            "  dig      dig @{} -p {port} {name} {type_}",
            host.trim_matches(['[', ']'])
        ));
    }
    lines
}

/// What pods of the manifests cannot have here, with what to do about it.
fn privileged_ports(manifests: &[Manifest]) -> Vec<String> {
    let mut lines = Vec::new();
    for manifest in manifests {
        let spec = ["/spec/template/spec", "/spec"]
            .into_iter()
            .find_map(|p| manifest.object.pointer(p));
        let containers = spec.and_then(|s| s["containers"].as_array());
        for container in containers.into_iter().flatten() {
            let ports = container["ports"].as_array();
            let ports = ports
                .into_iter()
                .flatten()
                .filter_map(|p| p["containerPort"].as_u64());
            let remedies = ports.filter_map(|p| kubelet::privilege::remedy(u16::try_from(p).ok()?));
            let name = container["name"].as_str().unwrap_or_default();
            lines.extend(
                remedies.map(|remedy| format!("warning: {}: container {name}: {remedy}", manifest.origin)),
            );
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_dig_line_asks_for_the_service_that_was_applied() {
        let running = Running {
            pid: 1,
            version: "0.1.0".into(),
            started: jiff::Timestamp::UNIX_EPOCH,
            api: "https://127.0.0.1:6443".into(),
            http: None,
            socket: "/d/api.sock".into(),
            dns: Some("127.0.0.1:1053".into()),
            dns_metrics: None,
            pod_dns: None,
            pods: None,
            cluster_domain: Some("cluster.local".into()),
            kubeconfig: "/d/kubeconfig".into(),
        };
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nginx"}});
        let lines = how_to_reach(
            &running,
            &[Manifest {
                origin: String::new(),
                object,
            }],
        );
        assert_eq!(
            lines[2].trim(),
            "dig      dig @127.0.0.1 -p 1053 nginx.default.svc.cluster.local A"
        );
    }
}
