//! Names that are not the cluster's: asked of other servers, for whoever is allowed to.

mod servers;

pub use servers::Servers;
