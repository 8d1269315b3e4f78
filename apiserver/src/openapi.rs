//! `/openapi/v2` and `/openapi/v3`: what kubectl explains, validates and computes patches by.
//!
//! Nothing is made before somebody asks; then it is kept, since it never changes.

mod paths;
mod protobuf;
mod schemas;

use crate::discovery::with_etag;
use crate::error::Error;
use crate::resource::Kind;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use schemas::Dialect;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The documents, each made at its first use.
struct Documents {
    kinds: Vec<&'static dyn Kind>,
    v2: OnceLock<Bytes>,
    v2_protobuf: OnceLock<Bytes>,
    /// By path: `api/v1`, `apis/apps/v1`.
    v3: BTreeMap<String, OnceLock<(Bytes, String)>>,
}

impl Documents {
    fn new(kinds: Vec<&'static dyn Kind>) -> Documents {
        let v3 = kinds
            .iter()
            .map(|kind| (group_path(*kind), OnceLock::new()))
            .collect();
        Documents {
            kinds,
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            v3,
        }
    }

    fn v2(&self) -> Bytes {
        self.v2.get_or_init(|| v2(&self.kinds).to_string().into()).clone()
    }

    fn v2_protobuf(&self) -> Bytes {
        let make = || Bytes::from(protobuf::document(&v2(&self.kinds)));
        self.v2_protobuf.get_or_init(make).clone()
    }

    /// The document of a group and version, and its hash.
    fn v3(&self, path: &str) -> Option<&(Bytes, String)> {
        let document = self.v3.get(path)?;
        Some(document.get_or_init(|| {
            let kinds = self
                .kinds
                .iter()
                .copied()
                .filter(|kind| group_path(*kind) == path);
            let bytes = Bytes::from(v3(&kinds.collect::<Vec<_>>()).to_string());
            let hash = Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02X}"))
                .collect();
            (bytes, hash)
        }))
    }

    fn v3_index(&self) -> Value {
        let paths = self.v3.keys().filter_map(|path| Some((path, self.v3(path)?)));
        let paths: Map<String, Value> = paths
            .map(|(path, (_, hash))| {
                (
                    path.clone(),
                    json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
                )
            })
            .collect();
        json!({"paths": paths})
    }
}

fn group_path(kind: &dyn Kind) -> String {
    let names = kind.names();
    match names.group {
        "" => format!("api/{}", names.version),
        group => format!("apis/{group}/{}", names.version),
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": crate::version::GIT_VERSION})
}

fn v2(kinds: &[&'static dyn Kind]) -> Value {
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": all_paths(kinds, Dialect::V2),
        "definitions": all_schemas(kinds, Dialect::V2),
    })
}

fn v3(kinds: &[&'static dyn Kind]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": all_paths(kinds, Dialect::V3),
        "components": {"schemas": all_schemas(kinds, Dialect::V3)},
    })
}

fn all_paths(kinds: &[&'static dyn Kind], dialect: Dialect) -> Map<String, Value> {
    kinds
        .iter()
        .flat_map(|kind| paths::paths(*kind, dialect))
        .collect()
}

fn all_schemas(kinds: &[&'static dyn Kind], dialect: Dialect) -> Map<String, Value> {
    let names = kinds.iter().flat_map(|kind| paths::schemas(*kind));
    let mut schemas = schemas::definitions(names, dialect);
    for kind in kinds {
        let names = kind.names();
        let list = schemas::list_of(names.kind, names.schema, dialect);
        schemas.insert(format!("{}List", names.schema), list);
        for (schema, kind) in [
            (names.schema.to_owned(), names.kind.to_owned()),
            (format!("{}List", names.schema), format!("{}List", names.kind)),
        ] {
            let gvk = json!([{"group": names.group, "kind": kind, "version": names.version}]);
            if let Some(schema) = schemas.get_mut(&schema) {
                schema["x-kubernetes-group-version-kind"] = gvk;
            }
        }
    }
    schemas
}

/// The OpenAPI paths for these kinds.
pub fn routes<S: Clone + Send + Sync + 'static>(kinds: Vec<&'static dyn Kind>) -> Router<S> {
    let documents = Arc::new(Documents::new(kinds));
    let paths: Vec<String> = documents.v3.keys().cloned().collect();
    let index = {
        let documents = documents.clone();
        get(async move |headers: HeaderMap| {
            make(move || {
                let body = documents.v3_index().to_string();
                // Upstream's content type, although it is JSON.
                with_etag(&headers, "text/plain; charset=utf-8", body.into())
            })
            .await
        })
    };
    let v2 = {
        let documents = documents.clone();
        get(async move |headers: HeaderMap| make(move || v2_answer(&documents, &headers)).await)
    };
    let mut router = Router::new()
        .route("/openapi/v3", index.clone())
        .route("/openapi/v3/", index)
        .route("/openapi/v2", v2);
    for path in paths {
        let documents = documents.clone();
        let route = format!("/openapi/v3/{path}");
        let answer = get(async move |uri: Uri, headers: HeaderMap| {
            make(move || v3_answer(&documents, &path, uri.query().unwrap_or_default(), &headers)).await
        });
        router = router.route(&route, answer);
    }
    router
}

/// Off the threads that answer others: the first time takes some ten milliseconds.
async fn make(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(answer).await {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn v3_answer(documents: &Documents, path: &str, query: &str, headers: &HeaderMap) -> Response {
    let Some((body, hash)) = documents.v3(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = with_etag(headers, "application/json", body.clone());
    if query
        .split('&')
        .any(|pair| pair.strip_prefix("hash=") == Some(hash))
    {
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}

/// JSON for whoever takes it, protobuf for those who take only that.
fn v2_answer(documents: &Documents, headers: &HeaderMap) -> Response {
    let accept = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or("*/*");
    let clauses = crate::negotiation::clauses(accept);
    let json = |media_type: &str| matches!(media_type, "*/*" | "application/*" | "application/json");
    if clauses.iter().any(|clause| json(clause.media_type)) {
        return with_etag(headers, "application/json", documents.v2());
    }
    if clauses
        .iter()
        .any(|clause| [protobuf::MEDIA_TYPE, protobuf::CONTENT_TYPE].contains(&clause.media_type))
    {
        return with_etag(headers, protobuf::CONTENT_TYPE, documents.v2_protobuf());
    }
    Error::Status(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "only the following media types are accepted: application/json",
        "reason": "NotAcceptable", "code": 406,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Names, Subresource};
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    struct StatefulSets;
    struct Pods;

    const STATEFUL_SETS: Names = Names {
        group: "apps",
        version: "v1",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        categories: &["all"],
        namespaced: true,
        schema: "io.k8s.api.apps.v1.StatefulSet",
        storage_group: "apps",
    };
    static PODS: Names = Names {
        group: "",
        kind: "Pod",
        plural: "pods",
        schema: "io.k8s.api.core.v1.Pod",
        ..STATEFUL_SETS
    };

    impl Kind for StatefulSets {
        fn names(&self) -> &'static Names {
            &STATEFUL_SETS
        }
        fn subresources(&self) -> &'static [Subresource] {
            &[Subresource::Status, Subresource::Scale]
        }
    }

    impl Kind for Pods {
        fn names(&self) -> &'static Names {
            &PODS
        }
        fn subresources(&self) -> &'static [Subresource] {
            &[Subresource::Eviction, Subresource::Binding]
        }
    }

    fn kinds() -> Vec<&'static dyn Kind> {
        vec![&StatefulSets, &Pods]
    }

    /// Every `$ref` in a document, as what it names.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let documents = [
            (v2(&kinds()), "definitions"),
            (v3(&kinds()), "components/schemas"),
        ];
        for (document, place) in &documents {
            let mut found = Vec::new();
            references(document, &mut found);
            assert!(found.len() > 100, "{place}");
            for reference in found {
                let target = document.pointer(&reference[1..]);
                assert!(target.is_some_and(Value::is_object), "{reference}");
            }
        }
    }

    #[test]
    fn schemas_are_upstreams() {
        let document = v3(&kinds());
        let schema = |name: &str| &document["components"]["schemas"][format!("io.k8s.api.{name}")];
        let set = schema("apps.v1.StatefulSet");
        assert_eq!(
            set["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "kind": "StatefulSet", "version": "v1"}])
        );
        assert_eq!(set.get("required"), None);
        assert_eq!(
            set["properties"]["spec"]["allOf"],
            json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.StatefulSetSpec"}])
        );
        let spec = schema("apps.v1.StatefulSetSpec");
        assert_eq!(spec["required"], json!(["selector", "template"]));
        assert_eq!(spec["properties"]["replicas"]["type"], "integer");
        assert!(
            spec["properties"]["replicas"]["description"]
                .as_str()
                .unwrap()
                .starts_with("replicas is")
        );
        let containers = &schema("core.v1.PodSpec")["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        let volumes = &schema("core.v1.PodSpec")["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let ports = &schema("core.v1.Container")["properties"]["ports"];
        assert_eq!(
            ports["x-kubernetes-list-map-keys"],
            json!(["containerPort", "protocol"])
        );
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        let command = &schema("core.v1.Container")["properties"]["command"];
        assert_eq!(command["x-kubernetes-list-type"], "atomic");
    }

    #[test]
    fn kubectl_finds_which_parameters_and_patches_a_kind_takes() {
        let document = v3(&kinds());
        let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"];
        let patch = &path["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "kind": "StatefulSet", "version": "v1"})
        );
        let parameters = patch["parameters"].as_array().unwrap();
        let names: Vec<&str> = parameters.iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedStatefulSet");
        let paths = document["paths"].as_object().unwrap();
        for path in [
            "/apis/apps/v1/statefulsets",
            "/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}/scale",
            "/api/v1/namespaces/{namespace}/pods/{name}/eviction",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
    }

    #[tokio::test]
    async fn each_group_has_a_document_under_the_address_that_the_index_gives() {
        let router: Router = routes(kinds());
        let ask = async |path: &str, accept: &str| {
            let request = Request::get(path)
                .header(ACCEPT, accept)
                .body(Body::empty())
                .unwrap();
            let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (parts, serde_json::from_slice::<Value>(&body).unwrap_or_default())
        };
        let (_, index) = ask("/openapi/v3", "application/json").await;
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap();
        let (parts, document) = ask(url, "application/json").await;
        assert_eq!(document["openapi"], "3.0.0");
        assert_eq!(parts.headers[CACHE_CONTROL], "public, immutable");
        assert_eq!(ask("/openapi/v2", "application/json").await.1["swagger"], "2.0");
        for spelling in [protobuf::MEDIA_TYPE, protobuf::CONTENT_TYPE] {
            let (parts, _) = ask("/openapi/v2", spelling).await;
            assert_eq!(parts.headers["content-type"], protobuf::CONTENT_TYPE);
        }
        let unknown = ask("/openapi/v2", "text/html").await.0.status;
        assert_eq!(unknown, StatusCode::NOT_ACCEPTABLE);
    }
}
