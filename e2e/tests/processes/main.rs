//! StatefulSets of real processes with the real binary: what Kubernetes' own end-to-end tests do with containers and
//! volumes (`E…` and `I…` are theirs). What they do with `kubectl exec` is done to the files of a pod's volume here.

mod sets;

mod availability;
mod identity;
mod ordinals;
mod peers;
mod retention;
mod rollout;
