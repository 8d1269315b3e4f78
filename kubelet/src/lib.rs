//! The kubelet: runs pods as local processes.

pub mod address;
pub mod environment;
pub mod image;
pub mod log;
pub mod plan;
pub mod process;
pub mod record;
pub mod shim;
pub mod status;
pub mod volume;
pub mod web;
