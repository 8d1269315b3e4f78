//! The kubelet: runs pods as local processes.

pub mod process;
pub mod shim;
