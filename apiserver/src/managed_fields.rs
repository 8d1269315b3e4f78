//! `metadata.managedFields`: who set which field, kept on every write as upstream's field manager does.

use serde_json::Value;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `?fieldManager=`, or the User-Agent up to the first `/`.
    pub manager: &'a str,
    /// `status`, `scale` …; empty for the main resource.
    pub subresource: &'a str,
    /// Now.
    pub time: jiff::Timestamp,
}

/// Record in `after.metadata.managedFields` what an update (create, update or patch; not apply) changed.
/// `before` is the stored object, or `None` on create. `schema` names the type.
pub fn update(_schema: &str, _before: Option<&Value>, _after: &mut Value, _writer: Writer<'_>) {}
