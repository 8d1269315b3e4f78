//! The list of kinds. Adding one means one file in `resources/` and one line here.

pub mod claim_spec;

use crate::resource::{Column, Kind};
use serde_json::Value;

/// Every kind that is served, in the order in which discovery tells them.
pub fn all() -> Vec<&'static dyn Kind> {
    vec![]
}

/// Name and Age: what a kind without printer columns shows.
pub static DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        r#type: "string",
        format: "name",
        description: "schema:metadata.name",
        priority: 0,
    },
    Column {
        name: "Created At",
        r#type: "date",
        format: "",
        description: "schema:metadata.creationTimestamp",
        priority: 0,
    },
];

/// The cells for [`DEFAULT_COLUMNS`].
pub fn default_cells(object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
    vec![
        object["metadata"]["name"].clone(),
        object["metadata"]["creationTimestamp"].clone(),
    ]
}
