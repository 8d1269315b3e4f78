//! Services: what kube-proxy does on other clusters.
//!
//! [`port`] says where connections to a Service go, [`rules`] what the kernel is to do for that in the cluster's network, and
//! [`nft`] tells it. Both of the former are pure functions of what the API has.

pub mod nft;
pub mod port;
pub mod rules;
