//! The types that can be asked for by name: every kind the API may serve, and the bodies of requests.

use k8s_openapi::api as k;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as registration;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Generates a type's schema, and those of the types it refers to into the generator's definitions.
pub(crate) type Generate = fn(&mut SchemaGenerator) -> Schema;

/// The generator of the type called `name`, for example `io.k8s.api.core.v1.Pod`.
pub(crate) fn find(name: &str) -> Option<Generate> {
    ROOTS
        .iter()
        .find(|(root, _)| *root == name)
        .map(|(_, generate)| *generate)
}

/// The name of `kind` in `api_version` (`v1`, `apps/v1`): groups are known by their first label.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    let suffix = format!(".{group}.{version}.{kind}");
    ROOTS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| name.ends_with(&suffix))
}

/// All names, in the order of the table.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROOTS.iter().map(|(name, _)| *name)
}

macro_rules! roots {
    ($($group:literal $module:path { $($kind:ident)* })*) => {
        const ROOTS: &[(&str, Generate)] = &[
            $($({
                use $module as module;
                (concat!("io.k8s.", $group, ".", stringify!($kind)), <module::$kind as JsonSchema>::json_schema)
            },)*)*
        ];
    };
}

roots! {
    "api.admissionregistration.v1" k::admissionregistration::v1 {
        MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
        ValidatingWebhookConfiguration
    }
    "api.apps.v1" k::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
    "api.authentication.v1" k::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
    "api.authorization.v1" k::authorization::v1 {
        LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
    }
    "api.autoscaling.v1" k::autoscaling::v1 { HorizontalPodAutoscaler Scale }
    "api.autoscaling.v2" k::autoscaling::v2 { HorizontalPodAutoscaler }
    "api.batch.v1" k::batch::v1 { CronJob Job }
    "api.certificates.v1" k::certificates::v1 { CertificateSigningRequest }
    "api.coordination.v1" k::coordination::v1 { Lease }
    "api.core.v1" k::core::v1 {
        Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
    }
    "api.discovery.v1" k::discovery::v1 { EndpointSlice }
    "api.events.v1" k::events::v1 { Event }
    "api.flowcontrol.v1" k::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
    "api.networking.v1" k::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
    "api.node.v1" k::node::v1 { RuntimeClass }
    "api.policy.v1" k::policy::v1 { Eviction PodDisruptionBudget }
    "api.rbac.v1" k::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
    "api.scheduling.v1" k::scheduling::v1 { PriorityClass }
    "api.storage.v1" k::storage::v1 {
        CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
    }
    "apiextensions-apiserver.pkg.apis.apiextensions.v1" extensions { CustomResourceDefinition }
    "apimachinery.pkg.apis.meta.v1" meta { DeleteOptions ObjectMeta Status }
    "kube-aggregator.pkg.apis.apiregistration.v1" registration { APIService }
    "metrics.pkg.apis.metrics.v1beta1" super::metrics { NodeMetrics PodMetrics }
}
