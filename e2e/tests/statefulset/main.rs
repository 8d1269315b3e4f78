//! StatefulSets against the API with every controller and a played kubelet, all in this process on a paused clock:
//! the scenarios that Kubernetes' own end-to-end and integration tests go through (`E…`, `I…`), and what the rules of
//! its controller (`R…`) say about the corners between them.

mod cluster;

mod beyond;
mod collection;
mod identity;
mod membership;
mod ordinals;
mod retention;
mod revisions;
mod rollout;
mod scale;
