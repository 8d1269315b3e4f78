//! A pod's own name, before its first process.
//!
//! A headless Service with `publishNotReadyAddresses` names its pods though they are not ready: members of a quorum find
//! one another, and themselves, before any of them is up. Kubernetes leaves open when; a program whose first act is to look
//! for itself has to try again. Here its first container waits until its name is answered:
//!
//! 1. The pod's address is written into its status at once, not together with the first news of its containers.
//! 2. The Service's EndpointSlices are watched until they show the pod.
//! 3. The DNS server follows them by itself a moment later. Where the kubelet knows it, it asks, as the pod will, until
//!    the answer has the pod's address.
//!
//! That costs two writes of the API server and a question. It is done beside the making of volumes, only for pods that such
//! a Service governs, and for no longer than [`PATIENCE`]: a Service without anybody who minds its slices holds nobody up.

mod ask;
mod slices;

pub(crate) use slices::Followed;

use crate::Kubelet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a pod's start waits for its name.
const PATIENCE: Duration = Duration::from_secs(1);

/// Wait until the name of `pod` is answered with `address`, if that is to be so before it runs. `hurry` is called when
/// it is: the API has to be told the address now.
pub(crate) async fn until_answered(kubelet: &Kubelet, pod: &Pod, address: IpAddr, hurry: impl FnOnce()) {
    let (Some(namespace), Some(uid), Some((hostname, subdomain))) =
        (&pod.metadata.namespace, &pod.metadata.uid, own_name(pod))
    else {
        return;
    };
    let services: Api<Service> = Api::namespaced(kubelet.client.clone(), namespace);
    match services.get_opt(subdomain).await {
        Ok(Some(service)) if names_before_ready(&service, pod) => hurry(),
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(service = subdomain, %error, "cannot see whether a pod's name comes before it");
            return;
        }
    }
    let answered = async {
        let slices = kubelet.slices.of(&kubelet.client, namespace, subdomain);
        slices.until_listed(uid).await;
        let cluster = &kubelet.options.cluster_dns;
        let pods = || Some(SocketAddr::new(*cluster.servers.first()?, 53));
        if let Some(server) = kubelet.options.dns_server.or_else(pods) {
            let domain = cluster.domain.trim_matches('.');
            let name = format!("{hostname}.{subdomain}.{namespace}.svc.{domain}.");
            ask::until_answered(server, &name, address).await;
        }
    };
    if tokio::time::timeout(PATIENCE, answered).await.is_err() {
        tracing::warn!(
            pod = %format!("{namespace}/{hostname}"),
            "the pod starts though its name is not answered yet: service {subdomain}"
        );
    }
}

/// The two labels of a name of the pod's own, if it asks for one.
fn own_name(pod: &Pod) -> Option<(&str, &str)> {
    let spec = pod.spec.as_ref()?;
    let label = |label: &'_ Option<String>| label.as_deref().is_some_and(|label| !label.is_empty());
    (label(&spec.hostname) && label(&spec.subdomain))
        .then(|| Some((spec.hostname.as_deref()?, spec.subdomain.as_deref()?)))?
}

/// Whether the Service that governs a pod names it before it is ready.
fn names_before_ready(service: &Service, pod: &Pod) -> bool {
    let Some(spec) = &service.spec else { return false };
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let publishes = spec.publish_not_ready_addresses == Some(true);
    // Without a selector its endpoints are somebody's to write by hand.
    let selects = spec.selector.as_ref().is_some_and(|selector| {
        let labels = pod.metadata.labels.as_ref();
        let has = |(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value);
        !selector.is_empty() && selector.iter().all(has)
    });
    is_headless && publishes && selects && service.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let metadata = json!({"name": "web-0", "namespace": "default", "labels": {"app": "web", "n": "0"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    #[test]
    fn a_name_of_its_own_has_a_hostname_and_a_subdomain() {
        let of = |spec: Value| {
            let pod = pod(spec);
            own_name(&pod).map(|(hostname, subdomain)| format!("{hostname}.{subdomain}"))
        };
        let both = json!({"containers": [], "hostname": "web-0", "subdomain": "web"});
        assert_eq!(of(both).as_deref(), Some("web-0.web"));
        assert_eq!(of(json!({"containers": [], "hostname": "web-0"})), None);
        assert_eq!(of(json!({"containers": [], "subdomain": "web"})), None);
        assert_eq!(
            of(json!({"containers": [], "hostname": "", "subdomain": "web"})),
            None
        );
    }

    #[test]
    fn only_a_headless_service_that_selects_the_pod_and_publishes_it_unready_names_it_before_it_runs() {
        let full = json!({"clusterIP": "None", "publishNotReadyAddresses": true, "selector": {"app": "web"}});
        let with = |field: &str, value: Value| {
            let mut spec = full.clone();
            spec[field] = value;
            let service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
            let service = serde_json::from_value(service).expect("a Service");
            names_before_ready(&service, &pod(json!({"containers": []})))
        };
        assert!(with("clusterIP", json!("None")));
        for (field, value) in [
            ("clusterIP", json!("10.0.0.1")),
            ("publishNotReadyAddresses", json!(false)),
            ("selector", Value::Null),
            ("selector", json!({})),
            ("selector", json!({"app": "web", "n": "1"})),
        ] {
            assert!(!with(field, value.clone()), "{field}: {value}");
        }
    }
}
