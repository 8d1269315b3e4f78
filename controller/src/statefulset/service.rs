//! Whether the governing Service gives the set's pods their names.
//!
//! Kubernetes does not look (kubernetes issue 72891): a missing or wrong Service is a set whose pods have no DNS names,
//! and nobody says why.

use super::observed::Observed;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// How long a new set's Service may come after it, as it does when both are in one file.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// Why a set's pods get no names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For machines.
    pub reason: &'static str,
    /// What is wrong and how to mend it.
    pub message: String,
    /// From when on it is worth telling (`None`: at once).
    pub due_at: Option<Timestamp>,
}

/// What is wrong with the set's Service. A set that names none wants none.
pub fn trouble(observed: &Observed) -> Option<Trouble> {
    let set = &observed.set;
    let spec = set.spec.as_ref()?;
    let name = spec.service_name.as_deref().filter(|name| !name.is_empty())?;
    let namespace = set.namespace().unwrap_or_default();
    let Some(service) = &observed.service else {
        let created = set.creation_timestamp().map(|time| time.0);
        return Some(Trouble {
            reason: "ServiceNotFound",
            message: format!(
                "spec.serviceName is {name:?}, and there is no such Service in namespace {namespace}: the pods have no DNS \
                 names. Create a headless Service (clusterIP: None) of this name that selects them"
            ),
            due_at: created.and_then(|created| created.checked_add(PATIENCE).ok()),
        });
    };
    let told = |reason, message| {
        Some(Trouble {
            reason,
            message,
            due_at: None,
        })
    };
    if !is_headless(service) {
        return told(
            "ServiceNotHeadless",
            format!(
                "Service {name} (spec.serviceName) is not headless: the pods have no DNS names of their own. Create it \
                 with clusterIP: None (it cannot be changed: delete it first)"
            ),
        );
    }
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.clone())
        .unwrap_or_default();
    let labels = observed
        .template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.clone());
    let labels = labels.unwrap_or_default();
    let missing: Vec<_> = selector
        .iter()
        .filter(|(key, value)| labels.get(*key) != Some(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if missing.is_empty() {
        return None;
    }
    told(
        "ServiceSelectsOthers",
        format!(
            "Service {name} (spec.serviceName) selects other pods than this set's, which lack {}: they have no DNS names. \
             Change the Service's selector, or the labels in spec.template",
            missing.join(",")
        ),
    )
}

fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn reason(service_name: &str, service: Option<Value>) -> Option<&'static str> {
        let set = json!({"metadata": {"name": "web", "namespace": "ns", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"serviceName": service_name, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web", "tier": "x"}}}}});
        let mut observed = Observed::new(&set).expect("a set");
        observed.service = service.map(|spec| {
            let service = json!({"metadata": {"name": "nginx", "namespace": "ns"}, "spec": spec});
            Arc::new(serde_json::from_value(service).expect("a Service"))
        });
        trouble(&observed).map(|trouble| trouble.reason)
    }

    #[test]
    fn what_is_wrong_with_a_governing_service_is_named() {
        let headless = |selector: Value| Some(json!({"clusterIP": "None", "selector": selector}));
        assert_eq!(reason("", None), None);
        assert_eq!(reason("nginx", None), Some("ServiceNotFound"));
        assert_eq!(reason("nginx", headless(json!({"app": "web"}))), None);
        assert_eq!(
            reason("nginx", headless(json!({"app": "web", "tier": "x"}))),
            None
        );
        assert_eq!(
            reason("nginx", headless(json!({"app": "nginx"}))),
            Some("ServiceSelectsOthers")
        );
        let with_address = Some(json!({"clusterIP": "10.0.0.1", "selector": {"app": "web"}}));
        assert_eq!(reason("nginx", with_address), Some("ServiceNotHeadless"));
        // Somebody makes its endpoints by hand.
        assert_eq!(reason("nginx", Some(json!({"clusterIP": "None"}))), None);
    }
}
