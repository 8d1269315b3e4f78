//! What the kubelet and the shim of a pod say to each other. The shim speaks first, [`Report::Hello`]; after that
//! requests and reports are independent of each other.

use super::{Exit, Sandbox, Spec};
use crate::terminal::TerminalSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The shim's socket in the directory of its sandbox.
pub const SOCKET: &str = "shim.sock";

/// Kubelet to shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Start an instance of a container; the one before must be gone.
    Start {
        /// The container's name.
        container: String,
        /// 0 for its first instance, then 1, 2 …
        instance: i32,
        /// What to run.
        spec: Box<Spec>,
    },
    /// Send a signal to a container's main process.
    Signal {
        /// The container's name.
        container: String,
        /// Which.
        number: i32,
    },
    /// Kill every process of a container.
    Kill {
        /// The container's name.
        container: String,
    },
    /// Run another program in a container. Standard input, output and error come along as descriptors, or one that is
    /// its terminal, unless it gets one of the container's own. It is killed when this connection ends.
    Exec {
        /// Chosen by the kubelet, repeated in the reports.
        id: u64,
        /// The container's name.
        container: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// Whether it has a terminal.
        tty: bool,
        /// How large a terminal is that is to be the container's own.
        #[serde(default)]
        own_terminal: Option<TerminalSize>,
    },
    /// Kill what an earlier `Exec` started, with its process group.
    KillExec {
        /// The `Exec`'s id.
        id: u64,
    },
    /// Copy what a container's main process says from now on to the socket that comes along: see [`said`].
    Attach {
        /// Chosen by the kubelet, repeated in the report.
        id: u64,
        /// The container's name.
        container: String,
    },
    /// No more is to come on a container's standard input.
    CloseInput {
        /// The container's name.
        container: String,
    },
    /// Kill everything and end.
    End,
}

/// Shim to kubelet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// All that there is to know, to who has just connected.
    Hello(Box<Pod>),
    /// A container's main process runs.
    Started(Container),
    /// A container could not be started.
    Failed {
        /// The container's name.
        container: String,
        /// Which instance.
        instance: i32,
        /// What went wrong and where.
        message: String,
    },
    /// A container's main process has ended; the rest of its tree is being killed.
    Exited {
        /// The container's name.
        container: String,
        /// How.
        ending: Ending,
    },
    /// No process of the container is left, and its log is complete.
    Gone {
        /// The container's name.
        container: String,
    },
    /// An `Exec` has started with a terminal of the container's own, which comes along.
    ExecStarted {
        /// Its id.
        id: u64,
    },
    /// An `Exec` ended.
    ExecExited {
        /// Its id.
        id: u64,
        /// How.
        exit: Exit,
    },
    /// An `Exec` could not be started.
    ExecFailed {
        /// Its id.
        id: u64,
        /// What went wrong.
        message: String,
    },
    /// From here on everything that is said is copied. If the container reads from clients, its standard input comes along
    /// as a descriptor; for one with a terminal, that.
    Attached {
        /// The `Attach`'s id.
        id: u64,
        /// Whether a descriptor comes along.
        input: bool,
    },
    /// There is nothing to attach to.
    NotAttached {
        /// The `Attach`'s id.
        id: u64,
        /// Why.
        message: String,
    },
}

/// A shim and what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Process id of the shim.
    pub pid: i32,
    /// What it was made of.
    pub sandbox: Sandbox,
    /// Why the sandbox could not be made: then nothing can be started, and the shim is gone after this.
    pub failure: Option<String>,
    /// What of the sandbox this machine cannot do.
    pub warnings: Vec<String>,
    /// The newest instance of each container that has been started.
    pub containers: Vec<Container>,
}

/// An instance of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// 0 for the first, then 1, 2 …
    pub instance: i32,
    /// Process id of its main process, on the host.
    pub pid: i32,
    /// When that was started.
    pub started: Timestamp,
    /// How it ended, once it has.
    pub ending: Option<Ending>,
    /// Whether no process of it is left.
    pub gone: bool,
    /// Whether its main process has a terminal.
    pub tty: bool,
    /// Who its programs are, as they see themselves. `None`: an older petset has started it.
    #[serde(default)]
    pub user: Option<Identity>,
    /// What of its spec this machine cannot enforce, in plain sentences.
    pub warnings: Vec<String>,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All of its groups, that one included.
    pub groups: Vec<u32>,
}

/// How and when a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// How.
    pub exit: Exit,
    /// When.
    pub at: Timestamp,
    /// Whether the kernel killed it for the memory it used.
    pub oom_killed: bool,
}

/// What goes over an attached socket: frames of a head and the bytes that were said. A socket that ends without
/// [`said::END`] belongs to a client that was too slow.
pub mod said {
    /// Length of a frame's head: one of the tags, then the length of the rest as four bytes, the highest first.
    pub const HEAD: usize = 5;
    /// Nothing more is to come.
    pub const END: u8 = 0;
    /// Standard output; with a terminal all output.
    pub const STDOUT: u8 = 1;
    /// Standard error.
    pub const STDERR: u8 = 2;

    /// The head of a frame.
    pub fn head(tag: u8, length: usize) -> [u8; HEAD] {
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        [tag, a, b, c, d]
    }
}
