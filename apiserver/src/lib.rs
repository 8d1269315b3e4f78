//! The Kubernetes API over a store: a function from a [`store::Store`] to an axum router, and a server
//! for it. Start reading at `resource.rs` (what a kind is) and `resources.rs` (the list of kinds).

pub mod auth;
pub mod discovery;
pub mod error;
pub mod health;
pub mod managed_fields;
pub mod metrics;
pub mod negotiation;
pub mod openapi;
pub mod patch;
pub mod resource;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod serve;
pub mod table;
pub mod validation;
pub mod version;
