//! What the kubelet and the holder say to each other. Every request has one answer, in order.

use super::{Isolation, Sandbox};
use crate::shim::network::ClusterNetwork;
use serde::{Deserialize, Serialize};

/// The holder's socket in the data directory.
pub const SOCKET: &str = "holder.sock";

/// Kubelet to holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Who are you?
    Hello,
    /// Make the cluster's network, or bring it up to date; nothing is lost of one that is there.
    Network(ClusterNetwork),
    /// Fork a shim for these. It listens on [`super::pod::SOCKET`] in the sandbox's directory when the answer comes.
    Sandbox(Box<Sandbox>),
    /// Open a socket in the cluster's network: the numbers of `socket(2)`. It comes along with the answer.
    Socket {
        /// `AF_INET` and its like.
        domain: i32,
        /// `SOCK_STREAM` and its like, without flags; the descriptor is `SOCK_CLOEXEC`.
        kind: i32,
        /// 0, or for example `NETLINK_ROUTE`.
        protocol: i32,
    },
    /// End, unless shims are left.
    Leave,
    /// Kill every shim with all that it holds, then end.
    End,
}

/// Holder to kubelet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The answer to `Hello`.
    Hello {
        /// Its process id.
        pid: i32,
        /// What it was started for.
        isolation: Isolation,
        /// Of its binary.
        version: String,
    },
    /// A shim has been forked.
    Forked {
        /// Its process id.
        pid: i32,
    },
    /// It is done.
    Done,
    /// It could not be done.
    Failed {
        /// What went wrong and where.
        message: String,
    },
}
