//! The Kubernetes API over a store: a function from a [`store::Store`] to an axum router, and a server
//! for it. Start reading at `resource.rs` (what a kind is) and `resources.rs` (the list of kinds); a
//! request's way is `router.rs`, `call.rs`, then one file of `verbs/` or `subresources/`.

mod admission;
mod allocation;
pub mod auth;
pub mod authorization;
mod body;
pub mod bootstrap;
mod call;
mod compression;
pub mod dial;
pub mod discovery;
pub mod error;
pub mod filters;
pub mod health;
pub mod managed_fields;
mod metadata;
pub mod metrics;
pub mod negotiation;
pub mod nodes;
pub mod openapi;
mod options;
pub mod patch;
mod path;
pub mod resource;
pub mod resources;
mod respond;
mod router;
pub mod schema;
pub mod selector;
pub mod serve;
pub mod server;
mod stored;
mod subresources;
pub mod table;
mod usage;
pub mod validation;
mod verbs;
pub mod version;
pub mod yaml;

pub use router::router;
pub use server::{Options, Server};
