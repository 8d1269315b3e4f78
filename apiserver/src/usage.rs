//! `metrics.k8s.io/v1beta1`: what nodes and pods use, for `kubectl top`. Nothing is stored of it: the nodes' kubelets are
//! asked (`/stats/summary`), and answers have the shape that metrics-server gives them.

use crate::call::{Call, target};
use crate::error::{Error, Target};
use crate::options::ListOptions;
use crate::path::ResourcePath;
use crate::resource::{Column, Kind, Names};
use crate::server::Server;
use crate::validation::quantity::Quantity;
use crate::{respond, schema, stored};
use axum::body::Body;
use axum::response::Response;
use futures::future::join_all;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For how long a node is waited for, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(10);
const SUMMARY_LIMIT: usize = 64 << 20;

/// What nodes, or pods, use.
pub struct Usage {
    names: &'static Names,
    /// The resource that it is about.
    of: &'static str,
}

/// Both, for discovery.
pub static KINDS: [Usage; 2] = [
    Usage {
        names: &NODES,
        of: "nodes",
    },
    Usage {
        names: &PODS,
        of: "pods",
    },
];

static NODES: Names = Names {
    kind: "NodeMetrics",
    plural: "nodes",
    singular: "",
    namespaced: false,
    schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics",
    ..PODS
};

static PODS: Names = Names {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "PodMetrics",
    plural: "pods",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics",
    storage_group: "metrics.k8s.io",
};

const fn column(name: &'static str, format: &'static str, description: &'static str) -> Column {
    Column {
        name,
        r#type: "string",
        format,
        description,
        priority: 0,
    }
}

static COLUMNS: [Column; 4] = [
    column("Name", "name", "Name of the resource"),
    column("cpu", "quantity", ""),
    column("memory", "quantity", ""),
    column("Window", "duration", ""),
];

impl Kind for Usage {
    fn names(&self) -> &'static Names {
        self.names
    }

    fn verbs(&self) -> &'static [&'static str] {
        &["get", "list"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        let sum = |resource: &str| {
            let containers = object["containers"].as_array();
            let usages = containers
                .into_iter()
                .flatten()
                .map(|container| &container["usage"]);
            let all = usages.chain(Some(&object["usage"]));
            all.filter_map(|usage| Quantity::from_json(&usage[resource]).ok())
                .map(|quantity| quantity.nanos())
                .sum::<i128>()
        };
        vec![
            object["metadata"]["name"].clone(),
            cpu(sum("cpu")).into(),
            memory(sum("memory") / 1_000_000_000).into(),
            object["window"].clone(),
        ]
    }
}

/// The kind that a path asks for.
pub fn of(path: &ResourcePath) -> Option<&'static dyn Kind> {
    let same = |usage: &&Usage| {
        let names = usage.names;
        (names.group, names.version, names.plural) == (&path.group, &path.version, &path.plural)
    };
    KINDS.iter().find(same).map(|usage| usage as &dyn Kind)
}

/// Whether `kind` is one of these.
pub fn is_usage(kind: &dyn Kind) -> bool {
    kind.names().group == PODS.group
}

/// Answer a get or a list.
pub async fn answer(call: &Call) -> Result<Response, Error> {
    let usage = KINDS
        .iter()
        .find(|usage| std::ptr::eq(usage.names, call.kind.names()))
        .ok_or(Error::NoSuchResource)?;
    let kind = call
        .server
        .kind("", "v1", usage.of)
        .ok_or(Error::NoSuchResource)?;
    match &call.path.name {
        Some(name) => {
            let entry = call
                .server
                .store
                .get(&stored::key(kind, call.namespace(), name))
                .await?;
            let entry = entry.ok_or_else(|| Error::NotFound(target(kind, name)))?;
            let object = stored::decode(kind, &entry);
            let mut metrics = measure(call, usage, std::slice::from_ref(&object)).await;
            let metrics = metrics.pop().ok_or_else(|| Error::NotFound(none(call, name)))?;
            Ok(respond::object(call, &metrics, StatusCode::OK))
        }
        None => {
            let options = ListOptions::parse(&call.query, false)?;
            let prefix = stored::prefix(kind, call.namespace());
            let page = call.server.store.list(&prefix, None, 0, None).await?;
            let objects: Vec<Value> = page
                .entries
                .iter()
                .map(|entry| stored::decode(kind, entry))
                .filter(|object| selects(&options, object))
                .collect();
            let metrics = measure(call, usage, &objects).await;
            Ok(respond::list_of_values(call, metrics, &json!({})))
        }
    }
}

fn selects(options: &ListOptions, object: &Value) -> bool {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let fields = [
        ("metadata.name", text("name")),
        ("metadata.namespace", text("namespace")),
    ];
    options.labels.matches(&object["metadata"]["labels"]) && options.fields.matches(&fields)
}

/// What is missing when a pod or node is there and nothing is known of it.
fn none(call: &Call, name: &str) -> Target {
    let names = call.kind.names();
    Target {
        group: names.group.into(),
        resource: names.kind.to_lowercase(),
        name: match call.namespace() {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.into(),
        },
    }
}

/// The metrics of those of `objects`, pods or nodes, whose nodes know them.
async fn measure(call: &Call, usage: &Usage, objects: &[Value]) -> Vec<Value> {
    let is_pods = usage.of == "pods";
    let node = |object: &Value| {
        let name = if is_pods {
            &object["spec"]["nodeName"]
        } else {
            &object["metadata"]["name"]
        };
        name.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let nodes: BTreeSet<String> = objects.iter().filter_map(node).collect();
    let asked = nodes.into_iter().map(async |node| {
        let summary = summary(&call.server, &node).await?;
        Some((node, summary))
    });
    let summaries: BTreeMap<String, Value> = join_all(asked).await.into_iter().flatten().collect();
    let of = |object: &Value| {
        let summary = summaries.get(&node(object)?)?;
        let now = call.server.now();
        if is_pods {
            pod_metrics(object, summary, now)
        } else {
            node_metrics(object, summary, now)
        }
    };
    objects.iter().filter_map(of).collect()
}

/// What a node's kubelet says of it and its pods; none if it cannot be reached.
async fn summary(server: &Server, node: &str) -> Option<Value> {
    let request = Request::get("/stats/summary").body(Body::empty()).ok()?;
    let asked = async {
        let answer = server.options.nodes.call(node, request).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the kubelet answers {}", answer.status()));
        }
        let bytes = axum::body::to_bytes(answer.into_body(), SUMMARY_LIMIT).await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    match answer.unwrap_or_else(|_| Err("it does not answer".into())) {
        Ok(summary) => Some(summary),
        Err(why) => {
            tracing::debug!(node, why, "no metrics of this node");
            None
        }
    }
}

fn node_metrics(node: &Value, summary: &Value, now: jiff::Timestamp) -> Option<Value> {
    let stats = &summary["node"];
    let mut metrics = head(node, stats, now)?;
    metrics["kind"] = NODES.kind.into();
    metrics["usage"] = used(stats);
    Some(metrics)
}

/// None unless all containers that run are known: half a sum would mislead.
fn pod_metrics(pod: &Value, summary: &Value, now: jiff::Timestamp) -> Option<Value> {
    let uid = &pod["metadata"]["uid"];
    let known = summary["pods"].as_array()?;
    let stats = known.iter().find(|known| known["podRef"]["uid"] == *uid)?;
    let containers = stats["containers"].as_array()?;
    let statuses = pod["status"]["containerStatuses"].as_array();
    let mut running = statuses
        .into_iter()
        .flatten()
        .filter(|status| status["state"]["running"].is_object());
    if !running.all(|status| containers.iter().any(|known| known["name"] == status["name"])) {
        return None;
    }
    let mut metrics = head(pod, containers.first()?, now)?;
    metrics["kind"] = PODS.kind.into();
    let each = containers
        .iter()
        .map(|stats| json!({"name": stats["name"], "usage": used(stats)}));
    metrics["containers"] = each.collect();
    Some(metrics)
}

/// All but the usage.
fn head(object: &Value, stats: &Value, now: jiff::Timestamp) -> Option<Value> {
    let seconds = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let time: jiff::Timestamp = stats["cpu"]["time"].as_str()?.parse().ok()?;
    let mut metadata = json!({"name": object["metadata"]["name"], "creationTimestamp": seconds(now)});
    for name in ["namespace", "labels"] {
        if !object["metadata"][name].is_null() {
            metadata[name] = object["metadata"][name].clone();
        }
    }
    Some(json!({
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata,
        "timestamp": seconds(time),
        "window": stats["cpu"]["window"],
    }))
}

fn used(stats: &Value) -> Value {
    let number = |value: &Value| i128::from(value.as_u64().unwrap_or(0));
    json!({
        "cpu": cpu(number(&stats["cpu"]["usageNanoCores"])),
        "memory": memory(number(&stats["memory"]["workingSetBytes"])),
    })
}

/// Billionths of a CPU as a quantity.
fn cpu(nanos: i128) -> String {
    canonical(format!("{nanos}n"))
}

/// Bytes as a quantity; memory is counted in pages.
fn memory(bytes: i128) -> String {
    canonical(format!("{}Ki", bytes / 1024))
}

fn canonical(quantity: String) -> String {
    schema::canonical_quantity(&quantity).unwrap_or(quantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(name: &str, cpu: u64, memory: u64) -> Value {
        json!({
            "name": name,
            "cpu": {"time": "2026-01-01T00:00:05.5Z", "window": "4s", "usageNanoCores": cpu},
            "memory": {"workingSetBytes": memory},
        })
    }

    fn now() -> jiff::Timestamp {
        "2026-01-01T00:00:06.25Z".parse().expect("a time")
    }

    #[test]
    fn metrics_are_as_metrics_server_gives_them() {
        let node = json!({"metadata": {"name": "n", "labels": {"a": "b"}}});
        let summary = json!({"node": stats("", 1_500_000_000, 3 << 20)});
        assert_eq!(
            node_metrics(&node, &summary, now()),
            Some(json!({
                "kind": "NodeMetrics",
                "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {"name": "n", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:06Z"},
                "timestamp": "2026-01-01T00:00:05Z",
                "window": "4s",
                "usage": {"cpu": "1500m", "memory": "3Mi"},
            }))
        );
    }

    #[test]
    fn a_pod_has_metrics_when_all_that_runs_of_it_is_known() {
        let status = |name: &str| json!({"name": name, "state": {"running": {}}});
        let pod = |statuses: Value| json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "status": {"containerStatuses": statuses}});
        let containers = [stats("a", 123, 4096), stats("b", 2_000_000, 1 << 30)];
        let summary = json!({"pods": [{"podRef": {"uid": "other"}}, {"podRef": {"uid": "u"}, "containers": containers}]});
        let two = pod(json!([status("a"), status("b")]));
        let metrics = pod_metrics(&two, &summary, now()).expect("all known");
        assert_eq!(
            metrics["containers"],
            json!([
                {"name": "a", "usage": {"cpu": "123n", "memory": "4Ki"}},
                {"name": "b", "usage": {"cpu": "2m", "memory": "1Gi"}},
            ])
        );
        assert_eq!(
            KINDS[1].cells(&metrics, now()),
            [json!("p"), json!("2000123n"), json!("1048580Ki"), json!("4s")]
        );
        let three = pod(json!([status("a"), status("b"), status("c")]));
        assert_eq!(pod_metrics(&three, &summary, now()), None);
    }
}
