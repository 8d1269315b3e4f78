//! Server-side printing: a `meta.k8s.io/v1` Table of objects, its columns and cells from their kind.

mod duration;

pub use duration::{age, between, human_duration};

use crate::resource::{Column, Kind};
use crate::resources::DEFAULT_COLUMNS;
use crate::schema;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What comes with each row: `?includeObject=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`: the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// The parameter's value; the error is the whole message of a 400.
    pub fn parse(parameter: Option<&str>) -> Result<IncludeObject, String> {
        match parameter.unwrap_or_default() {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "Object" => Ok(IncludeObject::Object),
            "None" => Ok(IncludeObject::None),
            other => Err(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: \
                 must be 'Metadata', 'Object', 'None', or empty",
                Value::from(other)
            )),
        }
    }
}

/// A Table of `objects`, which carry their `apiVersion` and `kind`. `list_metadata` is the list's own (or,
/// for a single object, holds its `resourceVersion`). In a watch only the first Table has columns.
pub fn table(
    kind: &dyn Kind,
    objects: &[Value],
    list_metadata: Value,
    include: IncludeObject,
    with_columns: bool,
    now: jiff::Timestamp,
) -> Value {
    let columns = kind.columns();
    let definitions = with_columns.then(|| columns.iter().map(|c| definition(kind, c)).collect::<Vec<_>>());
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells = kind.cells(object, now).into_iter().zip(columns);
            let mut row =
                json!({ "cells": cells.map(|(cell, column)| or_zero(cell, column)).collect::<Vec<_>>() });
            if let Some(conditions) = kind.row_conditions(object) {
                row["conditions"] = conditions;
            }
            match include {
                IncludeObject::None => row["object"] = Value::Null,
                IncludeObject::Metadata => row["object"] = partial_object_metadata(object),
                IncludeObject::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    let mut table = json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "columnDefinitions": definitions,
        "rows": rows,
    });
    // Upstream's printer of the kinds that have none of their own begins with no list at all.
    if objects.is_empty() && std::ptr::eq(columns, DEFAULT_COLUMNS.as_slice()) {
        table["rows"] = Value::Null;
    }
    table["metadata"] = list_metadata;
    table
}

/// An object reduced to its metadata, `meta.k8s.io/v1`.
pub fn partial_object_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn definition(kind: &dyn Kind, column: &Column) -> Value {
    let description = match column.description.strip_prefix("schema:") {
        Some(path) => described(kind.names().schema, path),
        None => column.description.to_owned(),
    };
    json!({
        "name": column.name,
        "type": column.r#type,
        "format": column.format,
        "description": description,
        "priority": column.priority,
    })
}

/// A field's description, looked up once: there are few columns, and looking takes longer than a table.
fn described(schema: &'static str, path: &'static str) -> String {
    static KNOWN: Mutex<BTreeMap<(&str, &str), String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry((schema, path))
        .or_insert_with(|| schema::description(schema, path))
        .clone()
}

/// Go's zero value where an object has nothing to show, as in the row of a bookmark.
fn or_zero(cell: Value, column: &Column) -> Value {
    match (cell, column.r#type) {
        (Value::Null, "string") => "".into(),
        (Value::Null, "integer") => 0.into(),
        (Value::Null, "boolean") => false.into(),
        (cell, _) => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Names;

    struct Pet;

    static NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "Pet",
        plural: "pets",
        singular: "pet",
        short_names: &[],
        categories: &[],
        namespaced: true,
        schema: "io.k8s.api.core.v1.Secret",
        storage_group: "",
    };

    static COLUMNS: [Column; 3] = [
        Column {
            name: "Name",
            r#type: "string",
            format: "name",
            description: "Its name.",
            priority: 0,
        },
        Column {
            name: "Legs",
            r#type: "integer",
            format: "",
            description: "",
            priority: 1,
        },
        Column {
            name: "Age",
            r#type: "string",
            format: "",
            description: "",
            priority: 0,
        },
    ];

    impl Kind for Pet {
        fn names(&self) -> &'static Names {
            &NAMES
        }
        fn columns(&self) -> &'static [Column] {
            &COLUMNS
        }
        fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
            let metadata = &object["metadata"];
            vec![
                metadata["name"].clone(),
                object["legs"].clone(),
                age(&metadata["creationTimestamp"], now),
            ]
        }
    }

    fn cat() -> Value {
        json!({"apiVersion": "v1", "kind": "Pet", "legs": 4,
               "metadata": {"name": "cat", "creationTimestamp": "2026-01-02T03:04:00Z"}})
    }

    fn print(objects: &[Value], include: IncludeObject, with_columns: bool) -> Value {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        table(
            &Pet,
            objects,
            json!({"resourceVersion": "7"}),
            include,
            with_columns,
            now,
        )
    }

    #[test]
    fn a_row_has_the_kinds_cells_and_what_was_asked_to_come_with_it() {
        let printed = print(&[cat()], IncludeObject::Metadata, true);
        assert_eq!(printed["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(
            printed["columnDefinitions"][0],
            json!({"name": "Name", "type": "string", "format": "name", "description": "Its name.", "priority": 0})
        );
        assert_eq!(printed["rows"][0]["cells"], json!(["cat", 4, "5s"]));
        assert_eq!(printed["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(printed["rows"][0]["object"].get("legs"), None);
        assert_eq!(
            print(&[cat()], IncludeObject::Object, true)["rows"][0]["object"],
            cat()
        );
        assert_eq!(
            print(&[cat()], IncludeObject::None, true)["rows"][0]["object"],
            Value::Null
        );
    }

    #[test]
    fn later_tables_of_a_watch_have_no_columns_and_a_bookmark_has_zero_cells() {
        let printed = print(&[json!({"metadata": {}})], IncludeObject::Metadata, false);
        assert_eq!(printed["columnDefinitions"], Value::Null);
        assert_eq!(printed["rows"][0]["cells"], json!(["", 0, "<unknown>"]));
    }

    #[test]
    fn an_unknown_include_object_is_refused_in_upstreams_words() {
        assert_eq!(IncludeObject::parse(None), Ok(IncludeObject::Metadata));
        assert_eq!(IncludeObject::parse(Some("Object")), Ok(IncludeObject::Object));
        assert_eq!(
            IncludeObject::parse(Some("Some")).unwrap_err(),
            "Unable to convert to Table as requested: includeObject: Invalid value: \"Some\": \
             must be 'Metadata', 'Object', 'None', or empty"
        );
    }
}
