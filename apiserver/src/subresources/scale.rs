//! `scale`: an `autoscaling/v1` Scale over `spec.replicas`.

use crate::body::{self, Expected};
use crate::call::Call;
use crate::error::{Error, Target};
use crate::managed_fields::scale::{to_object, to_scale};
use crate::managed_fields::{Apply, ApplyError, Reset, Writer};
use crate::options::WriteOptions;
use crate::resource::{Column, Kind, Names};
use crate::resources::parts;
use crate::validation::Invalid;
use crate::verbs::apply::{Configuration, is_apply};
use crate::verbs::patch::{ATTEMPTS, patch_type, patched};
use crate::verbs::update::{MODIFIED, Outcome, Part, Write, check_preconditions};
use crate::{metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

/// What tables say of a Scale, which is no resource of its own.
struct Scale;

static NAMES: Names = Names {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    plural: "scales",
    singular: "scale",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: SCHEMA,
    storage_group: "autoscaling",
};

static COLUMNS: [Column; 4] = [
    parts::column("Name", "schema:metadata.name"),
    Column {
        r#type: "integer",
        ..parts::column("Desired", "schema:spec.replicas")
    },
    Column {
        r#type: "integer",
        ..parts::column("Available", "schema:status.replicas")
    },
    parts::AGE,
];

impl Kind for Scale {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, scale: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let replicas = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0).into();
        vec![
            parts::name(scale),
            replicas("spec"),
            replicas("status"),
            parts::age(scale, now),
        ]
    }
}

fn shown(call: &Call, scale: &Value) -> Response {
    respond::object_of(call, &Scale, scale, StatusCode::OK)
}

/// Answer a request to `scale`.
pub async fn answer(call: &Call, method: &Method, body: Body) -> Result<Response, Error> {
    match *method {
        Method::GET => {
            let entry = call.server.store.get(&call.key()).await?;
            let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
            let scale = scale_of(&stored::decode(call.kind, &entry));
            Ok(shown(call, &scale))
        }
        Method::PUT => {
            let options = WriteOptions::parse("UpdateOptions", &call.query)?;
            let expected = Expected {
                group: "autoscaling",
                version: "v1",
                kind: "Scale",
            };
            let scale = call.read_as(body, expected, SCHEMA, options.validation).await?;
            write(call, &options, |_| Ok(scale.clone())).await
        }
        Method::PATCH if is_apply(call) => {
            let bytes = body::read(body).await?;
            let options = WriteOptions::parse_apply(&call.query)?;
            let config = Configuration::parse(&bytes)?;
            write(call, &options, |old| {
                let mut scale = scale_of(old);
                scale["metadata"]["managedFields"] = to_scale(&old["metadata"]["managedFields"]);
                apply(call, &scale, &config, &options)
            })
            .await
        }
        Method::PATCH => {
            let patch_type = patch_type(call)?;
            let patch = body::read(body).await?;
            let options = WriteOptions::parse("PatchOptions", &call.query)?;
            write(call, &options, |old| {
                let scale = scale_of(old);
                patched(call, SCHEMA, &scale, patch_type, &patch, options.validation)
            })
            .await
        }
        _ => Err(Error::MethodNotAllowed),
    }
}

/// `current` with a configuration merged into it.
fn apply(
    call: &Call,
    current: &Value,
    config: &Configuration,
    options: &WriteOptions,
) -> Result<Value, Error> {
    ApplyError::check_type(&config.object, "autoscaling/v1", "Scale")?;
    let manager = call.manager(options);
    let apply = Apply {
        schema: SCHEMA,
        live: current,
        config: &config.object,
        writer: Writer {
            manager: &manager,
            subresource: Part::Scale.name(),
            time: (call.server.options.clock)(),
        },
        force: options.force,
        reset: Reset::These(&[]),
    };
    let scale = apply.run()?;
    config.check_strict(call, options.validation)?;
    Ok(scale)
}

/// Set the replicas that the Scale has which `change` makes of the current object; an apply says who owns them.
async fn write(
    call: &Call,
    options: &WriteOptions,
    change: impl Fn(&Value) -> Result<Value, Error>,
) -> Result<Response, Error> {
    for _ in 0..ATTEMPTS {
        let entry = call.server.store.get(&call.key()).await?;
        let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
        let old = stored::decode(call.kind, &entry);
        let scale = change(&old)?;
        metadata::check_name(&scale, call.name())?;
        validate(&scale, call.name())?;
        check_preconditions(call, &scale, &old)?;
        let mut new = old.clone();
        new["spec"]["replicas"] = scale["spec"]["replicas"].as_i64().unwrap_or(0).into();
        let write = Write {
            part: Part::Scale,
            options,
            entry: &entry,
            old: &old,
        };
        let committed = if is_apply(call) {
            let owners = &scale["metadata"]["managedFields"];
            let before = new["metadata"]["managedFields"].take();
            let managed_fields = to_object(&before, owners, &stored::api_version(call.kind));
            new["metadata"]["managedFields"] = managed_fields;
            write.commit_applied(call, new).await?
        } else {
            write.commit(call, new).await?
        };
        match committed {
            Outcome::Done(object) => return Ok(shown(call, &scale_of(&object))),
            Outcome::Lost => {}
        }
    }
    Err(Error::Conflict(call.target(call.name()), MODIFIED.into()))
}

fn validate(scale: &Value, name: &str) -> Result<(), Error> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let target = Target {
        group: "autoscaling".into(),
        resource: "Scale".into(),
        name: name.into(),
    };
    let detail = "must be greater than or equal to 0";
    Err(Error::Invalid(
        target,
        vec![Invalid::malformed("spec.replicas", replicas, detail)],
    ))
}

/// The Scale of an object with `spec.replicas`, `spec.selector` and `status.replicas`.
fn scale_of(object: &Value) -> Value {
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !object["metadata"][field].is_null() {
            scale["metadata"][field] = object["metadata"][field].clone();
        }
    }
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas != 0 {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A LabelSelector as the text that `?labelSelector=` takes.
fn selector_text(selector: &Value) -> String {
    let mut requirements: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        requirements.push((key.clone(), format!("{key}={value}")));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten();
        let mut values: Vec<&str> = values.filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_string(),
            _ => format!("!{key}"),
        };
        requirements.push((key.to_string(), text));
    }
    requirements.sort_by(|a, b| a.0.cmp(&b.0));
    let texts: Vec<String> = requirements.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_told_as_text() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        });
        assert_eq!(selector_text(&selector), "app=web,!old,tier in (a,b)");
    }

    #[test]
    fn no_replicas_are_left_out_of_the_spec() {
        let object = json!({"metadata": {"name": "web"}, "spec": {"replicas": 0}});
        assert_eq!(scale_of(&object)["spec"], json!({}));
        assert_eq!(scale_of(&object)["status"], json!({"replicas": 0}));
    }
}
