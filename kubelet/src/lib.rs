//! The kubelet: runs pods as local processes.

pub mod address;
pub mod environment;
pub mod handler;
pub mod image;
pub mod leftover;
pub mod log;
pub mod plan;
pub mod probe;
pub mod process;
pub mod record;
pub mod shim;
pub mod status;
pub mod volume;
pub mod web;
