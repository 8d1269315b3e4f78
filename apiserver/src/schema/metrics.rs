//! The types of `metrics.k8s.io/v1beta1`, which `k8s-openapi` does not have: their schemas only.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// What a node uses.
pub struct NodeMetrics;

/// What the containers of a pod use.
pub struct PodMetrics;

/// What one of them uses.
struct ContainerMetrics;

/// `cpu` and `memory`, as wherever resources are listed.
fn resource_list(generator: &mut SchemaGenerator) -> Schema {
    let requirements = ResourceRequirements::json_schema(generator).to_value();
    let mut list = requirements["properties"]["requests"].clone();
    list["description"] = "The memory usage is the memory working set.".into();
    list.try_into().unwrap_or_default()
}

/// Metadata, time and window, and what else there is.
fn metrics(generator: &mut SchemaGenerator, description: &str, name: &str, more: Schema) -> Schema {
    let text = |description: &str| json_schema!({"description": description, "type": "string"});
    let mut schema = json_schema!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": text("The version of this representation of an object."),
            "kind": text("The kind of this object."),
            "metadata": generator.subschema_for::<ObjectMeta>(),
            "timestamp": generator.subschema_for::<Time>(),
            "window": text("Metrics were collected in the interval that ends at the timestamp and is as long as this."),
        },
        "required": ["timestamp", "window", name],
    });
    if let Some(properties) = schema.ensure_object()["properties"].as_object_mut() {
        properties.insert(name.to_owned(), more.to_value());
    }
    schema
}

impl JsonSchema for NodeMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = resource_list(generator);
        metrics(generator, "NodeMetrics is what a node uses.", "usage", usage)
    }
}

impl JsonSchema for PodMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let containers = json_schema!({
            "description": "What each container uses.",
            "type": "array",
            "items": generator.subschema_for::<ContainerMetrics>(),
        });
        let description = "PodMetrics is what the containers of a pod use.";
        metrics(generator, description, "containers", containers)
    }
}

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = resource_list(generator);
        json_schema!({
            "description": "ContainerMetrics is what a container uses.",
            "type": "object",
            "properties": {
                "name": {"description": "The container's name.", "type": "string"},
                "usage": usage,
            },
            "required": ["name", "usage"],
        })
    }
}
