//! `pods/log`: the node's kubelet has the logs; this server knows the node and the containers.

use crate::call::Call;
use crate::error::{Error, Target};
use crate::metadata;
use crate::options::Query;
use crate::stored;
use crate::validation::Invalid;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::Value;

/// The longest error text of a kubelet that is passed on.
const ERROR_LIMIT: usize = 2048;

/// The parameters that the kubelet is told.
const PASSED: [&str; 9] = [
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
    "insecureSkipTLSVerifyBackend",
];

/// Stream a container's log.
pub async fn get(call: &Call) -> Result<Response, Error> {
    let entry = call.server.store.get(&call.key()).await?;
    let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
    let pod = stored::decode(call.kind, &entry);
    validate(&call.query, call.name())?;
    let container = container(&pod, call.query.get("container")).map_err(Error::BadRequest)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        let why = format!("pod {} does not have a host assigned", call.name());
        return Err(Error::BadRequest(why));
    }
    let namespace = call.namespace().unwrap_or_default();
    let mut path = format!("/containerLogs/{namespace}/{}/{container}", call.name());
    for name in PASSED {
        if let Some(value) = call.query.get(name) {
            add_parameter(&mut path, name, value);
        }
    }
    let request = http::Request::get(path).body(Body::empty());
    let request = request.map_err(|error| Error::BadRequest(error.to_string()))?;
    let answer = call
        .server
        .options
        .nodes
        .call(node, request)
        .await
        .map_err(Error::Plain)?;
    if answer.status() == StatusCode::OK {
        let headers = [(header::CONTENT_TYPE, "text/plain")];
        return Ok((headers, answer.into_body()).into_response());
    }
    let code = answer.status();
    let text = axum::body::to_bytes(answer.into_body(), ERROR_LIMIT)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_string();
    Err(match code {
        StatusCode::BAD_REQUEST => Error::BadRequest(text),
        _ => Error::Plain(text),
    })
}

/// Give a path one more parameter in its query.
pub(super) fn add_parameter(path: &mut String, name: &str, value: &str) {
    let separator = if path.contains('?') { '&' } else { '?' };
    let value: String = value.chars().map(encode).collect();
    path.push_str(&format!("{separator}{name}={value}"));
}

/// A character of a query value as it stands in a URI.
fn encode(c: char) -> String {
    if c.is_ascii_alphanumeric() || "-._~:".contains(c) {
        return c.to_string();
    }
    let mut buffer = [0; 4];
    c.encode_utf8(&mut buffer)
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect()
}

fn validate(query: &Query, name: &str) -> Result<(), Error> {
    let mut problems = Vec::new();
    let mut at_least = |field: &str, low: i64, detail: &str| -> Result<(), Error> {
        if let Some(value) = query.integer(field)?
            && value < low
        {
            problems.push(Invalid::malformed(field, value, detail));
        }
        Ok(())
    };
    at_least("tailLines", 0, "must be greater than or equal to 0")?;
    at_least("limitBytes", 1, "must be greater than 0")?;
    at_least("sinceSeconds", 1, "must be greater than 0")?;
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        problems.push(Invalid::forbidden("", detail));
    }
    let target = Target {
        resource: "PodLogOptions".into(),
        name: name.into(),
        ..Target::default()
    };
    metadata::refuse(target, problems)
}

/// The container that a request means; the error is the whole message of a 400.
pub(super) fn container(pod: &Value, asked: Option<&str>) -> Result<String, String> {
    let name = metadata::text(pod, "name");
    let names = |list: &str| -> Vec<&str> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["name"].as_str())
            .collect()
    };
    let lists = ["containers", "initContainers", "ephemeralContainers"].map(names);
    if let Some(asked) = asked {
        return match lists.iter().flatten().any(|container| *container == asked) {
            true => Ok(asked.to_string()),
            false => Err(format!("container {asked} is not valid for pod {name}")),
        };
    }
    let [containers, init, ephemeral] = &lists;
    match containers.as_slice() {
        [only] => Ok((*only).to_string()),
        [] => Err(format!("a container name must be specified for pod {name}")),
        several => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            for (what, list) in [("init", init), ("ephemeral", ephemeral)] {
                if !list.is_empty() {
                    message += &format!(" or one of the {what} containers: [{}]", list.join(" "));
                }
            }
            Err(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_the_only_one_or_the_one_named() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let two = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
        });
        assert_eq!(container(&one, None), Ok("a".into()));
        assert_eq!(container(&two, Some("i")), Ok("i".into()));
        assert_eq!(
            container(&two, None),
            Err("a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]".into())
        );
        assert_eq!(
            container(&one, Some("x")),
            Err("container x is not valid for pod p".into())
        );
    }
}
