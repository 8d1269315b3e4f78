//! `pods/exec`, `pods/attach` and `pods/portforward`: the pod's kubelet speaks with the client; this server finds the
//! kubelet and the container, and hands it the request with its connection.

use super::connect::{Connect, asks_for_upgrade, get, upgrade_required};
use super::log;
use crate::error::Error;
use crate::options::Query;
use axum::extract::Request;
use axum::response::Response;
use http::Uri;
use serde_json::Value;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Run a program in a container.
    Exec,
    /// Connect with a container's main process.
    Attach,
    /// Connect with ports.
    PortForward,
}

/// Pass the request on.
pub async fn answer(connect: Connect, stream: Stream) -> Result<Response, Error> {
    let Connect {
        server,
        kind,
        path,
        request,
    } = connect;
    let query = Query::of(request.uri());
    let pod = get(&server, kind, &path, path.name.as_deref().unwrap_or_default()).await?;
    let namespace = path.namespace.as_deref().unwrap_or_default();
    let path = location(&pod, namespace, stream, &query)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !asks_for_upgrade(request.headers()) {
        return Err(upgrade_required(request.version()));
    }
    let (mut parts, body) = request.into_parts();
    let uri: Result<Uri, _> = path.parse();
    parts.uri = uri.map_err(|error| Error::BadRequest(error.to_string()))?;
    let request = Request::from_parts(parts, body);
    server
        .options
        .nodes
        .call(node, request)
        .await
        .map_err(Error::Plain)
}

/// The path of the kubelet's API. `Err`: the request is refused.
fn location(pod: &Value, namespace: &str, stream: Stream, query: &Query) -> Result<String, Error> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut path = match stream {
        Stream::PortForward => format!("/portForward/{namespace}/{name}"),
        Stream::Exec | Stream::Attach => {
            let container = log::container(pod, query.get("container")).map_err(Error::BadRequest)?;
            let verb = if stream == Stream::Exec { "exec" } else { "attach" };
            format!("/{verb}/{namespace}/{name}/{container}")
        }
    };
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return Err(Error::BadRequest(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let mut add = |name: &str, value: &str| log::add_parameter(&mut path, name, value);
    if stream == Stream::PortForward {
        query.all("ports").for_each(|port| add("port", port));
        return Ok(path);
    }
    // The kubelet has its own names for them.
    for (ours, kubelets) in [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ] {
        if query.flag(ours) == Some(true) {
            add(kubelets, "1");
        }
    }
    if stream == Stream::Exec {
        query.all("command").for_each(|word| add("command", word));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(node: &str) -> Value {
        json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": node, "containers": [{"name": "a"}, {"name": "b"}]},
        })
    }

    fn at(node: &str, stream: Stream, query: &str) -> Result<String, Error> {
        location(
            &pod(node),
            "x",
            stream,
            &Query::of(&format!("/?{query}").parse().expect("a URI")),
        )
    }

    #[test]
    fn the_kubelet_is_asked_in_its_own_words() {
        let asked =
            "container=a&stdin=true&stdout=true&stderr=0&tty=1&command=sh&command=-c&command=echo+%26";
        assert_eq!(
            at("n", Stream::Exec, asked),
            Ok("/exec/x/p/a?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20%26".into())
        );
        assert_eq!(
            at("n", Stream::Attach, "container=b&stdin=1"),
            Ok("/attach/x/p/b?input=1".into())
        );
        let two = at("n", Stream::PortForward, "ports=80&ports=81");
        assert_eq!(two, Ok("/portForward/x/p?port=80&port=81".into()));
    }

    #[test]
    fn a_pod_without_a_node_and_a_container_that_is_not_there_are_refused() {
        let refused =
            |answer: Result<String, Error>| answer.expect_err("refused").status()["message"].clone();
        assert_eq!(
            refused(at("", Stream::PortForward, "")),
            "pod p does not have a host assigned"
        );
        assert_eq!(
            refused(at("n", Stream::Exec, "container=c")),
            "container c is not valid for pod p"
        );
        assert_eq!(
            refused(at("n", Stream::Exec, "")),
            "a container name must be specified for pod p, choose one of: [a b]"
        );
    }
}
