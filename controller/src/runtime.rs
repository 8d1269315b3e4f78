//! What every controller stands on: a queue of keys ([`Queue`]), the loop that syncs them ([`work`]),
//! watches that say what moved ([`watch`]) and a way to tell events without waiting for them ([`Teller`]).
//!
//! A controller is one future that joins these:
//! ```ignore
//! let queue = Queue::default();
//! let pods = Cache::default();
//! tokio::join!(
//!     watch(Api::<Pod>::all(client), Config::default(), &pods, |moved| queue.add(moved.key())),
//!     work(&queue, 5, |key| sync(key)),
//! );
//! ```

mod events;
mod queue;
mod watch;

pub use self::events::{Teller, Telling, tell};
pub use queue::{Queue, work};
pub use watch::{Cache, Moved, version_of, watch};

use crate::Options;
use ::events::Clock;
use kube::{Resource, ResourceExt};
use std::fmt;

/// What a controller is given to work with.
#[derive(Clone)]
pub struct Context {
    /// The way to the API.
    pub client: kube::Client,
    /// What time it is.
    pub clock: Clock,
    /// What the user has set.
    pub options: Options,
}

/// An object's place: namespace (empty for a cluster-scoped object) and name. Shown as `default/web`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object that has a name, which every object from the API has.
    pub fn of<T: Resource>(object: &T) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Whether the API refused because somebody else was there first (`AlreadyExists`, `Conflict`) or because
/// the object is gone (`NotFound`): reasons to look again rather than errors.
pub fn lost_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// Whether the API said that the object is not there.
pub fn not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API said that there is such an object already. (A stale write is 409, too; its reason is
/// `Conflict`.)
pub fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}
