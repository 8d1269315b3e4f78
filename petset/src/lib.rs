//! petset: Kubernetes StatefulSets as plain local processes. This crate wires the parts together: [`cluster::Cluster`]
//! is a whole cluster in this process, [`args`] the command line.

pub mod args;
pub mod cluster;
pub mod component;
pub mod connect;
pub mod data;
pub mod dns_looks;
pub mod dns_records;
pub mod explain;
pub mod image;
pub mod manifest;
pub mod nodes;
pub mod pod_dns;
pub mod pod_network;
pub mod shell;
pub mod status;
pub mod table;
pub mod up;
pub mod volumes;
