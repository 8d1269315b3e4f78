//! The StatefulSet controller's plan in a world of its own: against what Kubernetes was recorded to do, and
//! in every small state that pods can get into; and what it does beyond Kubernetes.

mod api;
mod beyond;
mod exploration;
mod invariants;
mod model;
mod random;
mod replay;
mod scenarios;
mod settings;
mod world;
