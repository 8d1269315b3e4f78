//! What a container's processes may do.

use super::protocol::Spec;
use super::spawn;

/// In the container's child, last before its program starts: become its user and give up what it must not have. The
/// sentences say what this machine cannot enforce.
pub fn apply(spec: &Spec) -> Result<Vec<String>, String> {
    spawn::become_user(spec)?;
    Ok(Vec::new())
}
