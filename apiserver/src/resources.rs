//! The list of kinds. Adding one means one file in `resources/` and one line here.

mod address;
mod changes;
pub mod claim_spec;
mod config_map;
mod controllerrevision;
mod endpoint_slice;
mod endpoints;
mod event;
mod json;
mod lease;
mod namespace;
mod node;
pub(crate) mod parts;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_template;
mod quantities;
mod role;
mod role_binding;
mod secret;
mod service;
mod service_account;
mod statefulset;
pub mod storage_class;

use crate::resource::{Column, Kind};
use serde_json::Value;

/// Every kind that is served, in the order in which discovery tells them.
pub fn all() -> Vec<&'static dyn Kind> {
    vec![
        &config_map::ConfigMap,
        &endpoints::Endpoints,
        &event::CoreEvent,
        &namespace::Namespace,
        &node::Node,
        &persistent_volume_claim::PersistentVolumeClaim,
        &persistent_volume::PersistentVolume,
        &pod::Pod,
        &pod_template::PodTemplate,
        &secret::Secret,
        &service_account::ServiceAccount,
        &service::Service,
        &controllerrevision::ControllerRevision,
        &statefulset::StatefulSet,
        &lease::Lease,
        &endpoint_slice::EndpointSlice,
        &event::Event,
        &role_binding::IN_CLUSTER,
        &role::ClusterRole,
        &role_binding::IN_NAMESPACE,
        &role::Role,
        &storage_class::StorageClass,
    ]
}

/// Name and Age: what a kind without printer columns shows.
pub static DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        r#type: "string",
        format: "name",
        description: "schema:metadata.name",
        priority: 0,
    },
    Column {
        name: "Created At",
        r#type: "date",
        format: "",
        description: "schema:metadata.creationTimestamp",
        priority: 0,
    },
];

/// The cells for [`DEFAULT_COLUMNS`].
pub fn default_cells(object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
    vec![
        object["metadata"]["name"].clone(),
        object["metadata"]["creationTimestamp"].clone(),
    ]
}
