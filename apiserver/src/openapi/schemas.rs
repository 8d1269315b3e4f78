//! The schemas of an OpenAPI document: `k8s-openapi`'s, with what upstream's say about merging, in the
//! dialect of either version.

use crate::schema::facts::{Facts, ListKind, TypeFacts, enumeration};
use crate::schema::{roots, types};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

/// Which version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// 2.0, one document for everything.
    V2,
    /// 3.0, one document for each group and version.
    V3,
}

impl Dialect {
    /// Where a schema is found.
    pub(super) fn reference(self, name: &str) -> String {
        match self {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The schemas of the types called `names`, of all that they refer to, and of a list's metadata.
pub(super) fn definitions<'a>(names: impl Iterator<Item = &'a str>, dialect: Dialect) -> Map<String, Value> {
    let mut generator = SchemaGenerator::default();
    let mut definitions = Map::new();
    generator.subschema_for::<ListMeta>();
    for name in names {
        if let Some(generate) = roots::find(name) {
            definitions.insert(name.to_owned(), generate(&mut generator).to_value());
        }
    }
    for (name, schema) in generator.definitions() {
        definitions.entry(name).or_insert_with(|| schema.clone());
    }
    for (name, schema) in &mut definitions {
        match name.rsplit('.').next() {
            Some("Quantity") => either(schema, "string", "number", None, dialect),
            Some("IntOrString") => either(schema, "integer", "string", Some("int-or-string"), dialect),
            _ => complete(name, schema, dialect),
        }
    }
    definitions
}

/// A type that is written in two ways, which version 2 cannot say.
fn either(schema: &mut Value, one: &str, other: &str, format: Option<&str>, dialect: Dialect) {
    let mut out = json!({"description": schema["description"]});
    match dialect {
        Dialect::V2 => out["type"] = "string".into(),
        Dialect::V3 => out["oneOf"] = json!([{"type": one}, {"type": other}]),
    }
    if let Some(format) = format {
        out["format"] = format.into();
    }
    *schema = out;
}

fn complete(name: &str, schema: &mut Value, dialect: Dialect) {
    let type_facts = TypeFacts::of(types::table_name(name));
    if type_facts.atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    let is_object =
        schema["properties"]["apiVersion"].is_object() && schema["properties"]["metadata"].is_object();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (field, property) in properties {
            let facts = type_facts.field(field);
            merging(property, &facts);
            let values = facts
                .go_type
                .and_then(|go_type| enumeration(types::table_name(name), go_type));
            if let Some(values) = values {
                enumerate(property, &values);
            }
        }
    }
    // k8s-openapi requires an object's metadata; upstream does not.
    if is_object && let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "metadata");
        if required.is_empty() {
            schema.as_object_mut().map(|schema| schema.remove("required"));
        }
    }
    refer(schema, dialect);
}

/// Say which values there are: those of the field, of a list's items or of a map.
fn enumerate(property: &mut Value, values: &[&str]) {
    let inner = ["items", "additionalProperties"]
        .into_iter()
        .find(|inner| property[inner].is_object());
    let place = match inner {
        Some(inner) => &mut property[inner],
        None => property,
    };
    place["enum"] = json!(values);
}

/// How lists and maps merge, for server-side apply and for strategic merge patches: kubectl computes its
/// patches by this.
fn merging(property: &mut Value, facts: &Facts) {
    if property["type"] == "array" {
        match facts.list {
            ListKind::Atomic => property["x-kubernetes-list-type"] = "atomic".into(),
            ListKind::Set => property["x-kubernetes-list-type"] = "set".into(),
            ListKind::Map(keys) => {
                property["x-kubernetes-list-type"] = "map".into();
                property["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
    }
    if facts.atomic {
        property["x-kubernetes-map-type"] = "atomic".into();
    }
    let mut strategies = Vec::new();
    match facts.patch {
        ListKind::Atomic => {}
        ListKind::Set => strategies.push("merge"),
        ListKind::Map(keys) => {
            strategies.push("merge");
            if let Some(key) = keys.first() {
                property["x-kubernetes-patch-merge-key"] = (*key).into();
            }
        }
    }
    if facts.retain_keys {
        strategies.push("retainKeys");
    }
    if facts.patch_replaces {
        strategies.push("replace");
    }
    if !strategies.is_empty() {
        property["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
}

/// References as the dialect has them. In version 3 nothing may stand beside one.
fn refer(schema: &mut Value, dialect: Dialect) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    let wrapped = object.remove("allOf");
    let reference = object
        .remove("$ref")
        .or_else(|| Some(wrapped?.get(0)?.get("$ref")?.clone()));
    if let Some(name) = reference.as_ref().and_then(Value::as_str) {
        let target = dialect.reference(name.trim_start_matches("#/$defs/"));
        match dialect {
            Dialect::V2 => object.insert("$ref".to_owned(), target.into()),
            Dialect::V3 => object.insert("allOf".to_owned(), json!([{"$ref": target}])),
        };
    }
    for (key, value) in object {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties
                    .values_mut()
                    .for_each(|property| refer(property, dialect));
            }
            ("items" | "additionalProperties", value) => refer(value, dialect),
            _ => {}
        }
    }
}

/// The schema of a list of `kind`, whose own is `item`.
pub(super) fn list_of(kind: &str, item: &str, dialect: Dialect) -> Value {
    let reference = |name: &str, description: &str| match dialect {
        Dialect::V2 => json!({"description": description, "$ref": dialect.reference(name)}),
        Dialect::V3 => json!({"description": description, "allOf": [{"$ref": dialect.reference(name)}]}),
    };
    let mut element = reference(item, "");
    element
        .as_object_mut()
        .map(|element| element.remove("description"));
    json!({
        "description": format!("{kind}List is a list of {kind}."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this schema."},
            "kind": {"type": "string", "description": format!("{kind}List.")},
            "items": {"type": "array", "items": element, "description": "The objects."},
            "metadata": reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "The list's own metadata."),
        },
    })
}
