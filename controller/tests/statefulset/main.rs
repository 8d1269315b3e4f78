//! The StatefulSet controller's plan in a world of its own: against what Kubernetes was recorded to do, and
//! in every small state that pods can get into; and what it does beyond Kubernetes.

mod beyond;
mod exploration;
mod replay;
mod world;
