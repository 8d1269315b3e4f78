//! `pods/binding`: a scheduler says on which node a pod runs.

use crate::body::Expected;
use crate::call::Call;
use crate::error::{Error, Target};
use crate::options::WriteOptions;
use crate::validation::Invalid;
use crate::verbs::update::{Outcome, Part, Write};
use crate::{metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};

/// Set the pod's node, once.
pub async fn bind(call: &Call, body: Body) -> Result<Response, Error> {
    let options = WriteOptions::parse("CreateOptions", &call.query)?;
    let expected = Expected {
        group: "",
        version: "v1",
        kind: "Binding",
    };
    let schema = "io.k8s.api.core.v1.Binding";
    let binding = call.read_as(body, expected, schema, options.validation).await?;
    let node = node(&binding, call.name())?;
    loop {
        let entry = call.server.store.get(&call.key()).await?;
        let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
        let old = stored::decode(call.kind, &entry);
        check(&old, call.name(), metadata::text(&binding, "uid"))?;
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.as_str().into();
        set_scheduled(&mut new, &call.server.now().to_string());
        let write = Write {
            part: Part::Binding,
            options: &options,
            entry: &entry,
            old: &old,
        };
        if let Outcome::Done(_) = write.commit(call, new).await? {
            return Ok(respond::created(call));
        }
    }
}

/// The node that a binding names.
fn node(binding: &Value, name: &str) -> Result<String, Error> {
    let target = &binding["target"];
    let text = |field: &str| target[field].as_str().unwrap_or_default();
    let mut problems = Vec::new();
    if !matches!(text("kind"), "" | "Node") {
        problems.push(Invalid::not_supported(
            "target.kind",
            text("kind"),
            &["Node", "<empty>"],
        ));
    }
    if text("name").is_empty() {
        problems.push(Invalid::required("target.name", ""));
    }
    let of = Target {
        resource: "Binding".into(),
        name: name.into(),
        ..Target::default()
    };
    metadata::refuse(of, problems)?;
    Ok(text("name").to_string())
}

fn check(pod: &Value, name: &str, uid: &str) -> Result<(), Error> {
    let conflict = |why: String| {
        let target = Target {
            resource: "pods/binding".into(),
            name: name.into(),
            ..Target::default()
        };
        Err(Error::Conflict(target, why))
    };
    let actual = metadata::text(pod, "uid");
    if !uid.is_empty() && uid != actual {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"
        ));
    }
    if metadata::is_deleting(pod) {
        return conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    match pod["spec"]["nodeName"].as_str().unwrap_or_default() {
        "" => Ok(()),
        node => conflict(format!("pod {name} is already assigned to node {node:?}")),
    }
}

/// The condition that tells that the pod has its node.
fn set_scheduled(pod: &mut Value, now: &str) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|existing| existing["type"] != "PodScheduled");
        conditions.push(condition);
    }
}
