//! One entry of `managedFields`.

use super::FieldSet;
use crate::validation::go;
use serde_json::{Map, Value};

/// What one writer owns through one operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub manager: String,
    /// `Update` or `Apply`.
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339 with whole seconds in UTC, so that texts compare as times.
    pub time: Option<String>,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether both are written by one writer in the same way. An apply is one whatever its version.
    pub(super) fn is_same_writer(&self, other: &Self) -> bool {
        let same_version = self.api_version == other.api_version || self.operation == "Apply";
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && same_version
    }

    /// The writer as messages name it: `"editor" with subresource "status" using v1`.
    pub(super) fn describe(&self) -> String {
        let mut text = go::quote(&self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {}", go::quote(&self.subresource));
        }
        if self.operation == "Update" {
            text += &format!(" using {}", self.api_version);
        }
        text
    }

    /// The order of entries: applies first, then by time, then by name.
    pub(super) fn order(&self) -> impl Ord + '_ {
        (
            &self.operation,
            &self.time,
            &self.manager,
            &self.api_version,
            &self.subresource,
        )
    }
}

/// Read a list of entries; none if there is no list, `None` if any entry makes no sense.
pub(super) fn decode(list: &Value) -> Option<Vec<Entry>> {
    let Some(list) = list.as_array() else {
        return Some(Vec::new());
    };
    list.iter().map(decode_one).collect()
}

fn decode_one(entry: &Value) -> Option<Entry> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let operation = text("operation");
    if entry["fieldsType"] != "FieldsV1" || !matches!(operation.as_str(), "Update" | "Apply") {
        return None;
    }
    let fields = match &entry["fieldsV1"] {
        Value::Null => FieldSet::default(),
        fields => FieldSet::decode(fields)?,
    };
    Some(Entry {
        manager: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: entry["time"].as_str().map(str::to_owned),
        fields,
    })
}

/// Write entries, in order.
pub(super) fn encode(mut entries: Vec<Entry>) -> Value {
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    entries.into_iter().map(encode_one).collect()
}

fn encode_one(entry: Entry) -> Value {
    let mut encoded = Map::new();
    encoded.insert("fieldsType".to_owned(), "FieldsV1".into());
    encoded.insert("fieldsV1".to_owned(), entry.fields.encode());
    let texts = [
        ("manager", entry.manager),
        ("operation", entry.operation),
        ("apiVersion", entry.api_version),
        ("subresource", entry.subresource),
        ("time", entry.time.unwrap_or_default()),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        encoded.insert(name.to_owned(), text.into());
    }
    Value::Object(encoded)
}
