//! What is served: `/api`, `/apis`, each group and version, and the aggregated form that saves clients
//! asking for each of them.
//!
//! All of it follows from the list of kinds and never changes while the server runs, so every document is
//! made once and has an ETag.

use crate::error::Error;
use crate::negotiation::{self, Clause, NotAcceptable, Output};
use crate::resource::{Kind, Subresource};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A group with one version, as all those that are served have.
struct Group<'a> {
    name: &'static str,
    version: &'static str,
    kinds: Vec<&'a dyn Kind>,
}

impl Group<'_> {
    /// `v1`, `apps/v1`.
    fn group_version(&self) -> String {
        match self.name {
            "" => self.version.to_owned(),
            name => format!("{name}/{}", self.version),
        }
    }

    /// `/api/v1`, `/apis/apps/v1`.
    fn path(&self) -> String {
        match self.name {
            "" => format!("/api/{}", self.version),
            name => format!("/apis/{name}/{}", self.version),
        }
    }
}

/// The groups in the order of the list of kinds, the kinds of each in the order of their resource names.
fn groups<'a>(kinds: &[&'a dyn Kind]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for &kind in kinds {
        let names = kind.names();
        let same = |group: &&mut Group<'_>| (group.name, group.version) == (names.group, names.version);
        match groups.iter_mut().find(same) {
            Some(group) => group.kinds.push(kind),
            None => groups.push(Group {
                name: names.group,
                version: names.version,
                kinds: vec![kind],
            }),
        }
    }
    for group in &mut groups {
        group.kinds.sort_by_key(|kind| kind.names().plural);
    }
    groups
}

/// How a subresource is told: its name, the kind that it takes or gives (none: that of the object), the
/// group and version of that kind where they differ from the object's, and verbs.
struct SubresourceNames {
    name: &'static str,
    kind: Option<&'static str>,
    group_version: Option<(&'static str, &'static str)>,
    verbs: &'static [&'static str],
}

fn subresource_names(kind: &dyn Kind, subresource: Subresource) -> SubresourceNames {
    const CHANGE: &[&str] = &["get", "patch", "update"];
    const CREATE: &[&str] = &["create"];
    const CONNECT: &[&str] = &["create", "get"];
    let names = |name, kind, group_version, verbs| SubresourceNames {
        name,
        kind,
        group_version,
        verbs,
    };
    match subresource {
        Subresource::Status => names("status", None, None, CHANGE),
        Subresource::Scale => names("scale", Some("Scale"), Some(("autoscaling", "v1")), CHANGE),
        Subresource::Binding => names("binding", Some("Binding"), None, CREATE),
        Subresource::Eviction => names("eviction", Some("Eviction"), Some(("policy", "v1")), CREATE),
        Subresource::EphemeralContainers => names("ephemeralcontainers", None, None, CHANGE),
        Subresource::Resize => names("resize", None, None, CHANGE),
        Subresource::Log => names("log", None, None, &["get"]),
        Subresource::Finalize => names("finalize", None, None, &["update"]),
        Subresource::Token => names(
            "token",
            Some("TokenRequest"),
            Some(("authentication.k8s.io", "v1")),
            CREATE,
        ),
        Subresource::Exec => names("exec", Some("PodExecOptions"), None, CONNECT),
        Subresource::Attach => names("attach", Some("PodAttachOptions"), None, CONNECT),
        Subresource::PortForward => names("portforward", Some("PodPortForwardOptions"), None, CONNECT),
        Subresource::Proxy => {
            let options = match kind.names().kind {
                "Service" => "ServiceProxyOptions",
                "Node" => "NodeProxyOptions",
                _ => "PodProxyOptions",
            };
            let verbs = &["create", "delete", "get", "patch", "update"];
            names("proxy", Some(options), None, verbs)
        }
    }
}

fn subresources(kind: &dyn Kind) -> Vec<SubresourceNames> {
    let mut all: Vec<_> = kind
        .subresources()
        .iter()
        .copied()
        .map(|subresource| subresource_names(kind, subresource))
        .collect();
    all.sort_by_key(|subresource| subresource.name);
    all
}

/// `APIResourceList`: the answer to `/api/v1` and `/apis/GROUP/VERSION`.
fn resource_list(group: &Group<'_>) -> Value {
    let mut resources = Vec::new();
    for kind in &group.kinds {
        let names = kind.names();
        let mut resource = json!({
            "name": names.plural,
            "singularName": names.singular,
            "namespaced": names.namespaced,
            "kind": names.kind,
            "verbs": kind.verbs(),
        });
        add_words(&mut resource, *kind);
        resources.push(resource);
        for subresource in subresources(*kind) {
            let mut resource = json!({
                "name": format!("{}/{}", names.plural, subresource.name),
                "singularName": "",
                "namespaced": names.namespaced,
                "kind": subresource.kind.unwrap_or(names.kind),
                "verbs": subresource.verbs,
            });
            if let Some((group, version)) = subresource.group_version {
                resource["group"] = group.into();
                resource["version"] = version.into();
            }
            resources.push(resource);
        }
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": group.group_version(),
        "resources": resources,
    });
    // Upstream's core group has none.
    if !group.name.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    list
}

fn add_words(resource: &mut Value, kind: &dyn Kind) {
    let names = kind.names();
    if !names.short_names.is_empty() {
        resource["shortNames"] = json!(names.short_names);
    }
    if !names.categories.is_empty() {
        resource["categories"] = json!(names.categories);
    }
}

/// `APIGroup` without its `kind`, as it stands in a list.
fn api_group(group: &Group<'_>) -> Value {
    let version = json!({"groupVersion": group.group_version(), "version": group.version});
    json!({"name": group.name, "versions": [version], "preferredVersion": version})
}

/// `APIGroupDiscoveryList` in `apidiscovery.k8s.io/VERSION`.
fn aggregated<'a>(groups: impl Iterator<Item = &'a Group<'a>>, version: &str) -> Value {
    let items: Vec<Value> = groups
        .map(|group| {
            let resources: Vec<Value> = group
                .kinds
                .iter()
                .map(|kind| aggregated_resource(*kind))
                .collect();
            let metadata = match group.name {
                "" => json!({}),
                name => json!({"name": name}),
            };
            json!({
                "metadata": metadata,
                "versions": [{"version": group.version, "resources": resources, "freshness": "Current"}],
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &dyn Kind) -> Value {
    let names = kind.names();
    // Empty where it is the group and version that the list stands in.
    let response_kind = |kind: &str, group_version: Option<(&str, &str)>| {
        let (group, version) = group_version.unwrap_or_default();
        json!({"group": group, "version": version, "kind": kind})
    };
    let mut resource = json!({
        "resource": names.plural,
        "responseKind": response_kind(names.kind, None),
        "scope": if names.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": names.singular,
        "verbs": kind.verbs(),
    });
    add_words(&mut resource, kind);
    let subresources: Vec<Value> = subresources(kind)
        .iter()
        .map(|subresource| {
            json!({
                "subresource": subresource.name,
                "responseKind": response_kind(subresource.kind.unwrap_or(names.kind), subresource.group_version),
                "verbs": subresource.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

/// A document in the forms in which it can be had, with its aggregated ones (`/api` and `/apis` only).
struct Document {
    plain: Value,
    v2: Option<Bytes>,
    v2beta1: Option<Bytes>,
}

impl Document {
    fn plain(plain: Value) -> Document {
        Document {
            plain,
            v2: None,
            v2beta1: None,
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        for clause in negotiation::clauses(accept.unwrap_or_default()) {
            let version = aggregated_version(&clause);
            let body = match version {
                Some("v2") => self.v2.as_ref(),
                Some(_) => self.v2beta1.as_ref(),
                None => break,
            };
            if let (Some(body), Some(version)) = (body, version) {
                let form =
                    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                return with_etag(headers, &form, body.clone());
            }
        }
        match Output::from_accept(accept, false) {
            Ok(output @ (Output::Json | Output::Yaml)) => {
                let mut plain = self.plain.clone();
                if plain["serverAddressByClientCIDRs"].is_array() {
                    let host = headers
                        .get(HOST)
                        .and_then(|host| host.to_str().ok())
                        .unwrap_or_default();
                    plain["serverAddressByClientCIDRs"][0]["serverAddress"] = host.into();
                }
                let body = output.encode(&plain, negotiation::is_pretty(None, headers));
                with_etag(headers, output.content_type(), body)
            }
            Ok(_) => Error::NotAcceptable(NotAcceptable::Conversion, false).into_response(),
            Err(refused) => Error::NotAcceptable(refused, false).into_response(),
        }
    }
}

/// `v2` or `v2beta1`, if the clause asks for the aggregated form.
fn aggregated_version<'a>(clause: &Clause<'a>) -> Option<&'a str> {
    let version = clause.parameter("v");
    let asked = clause.media_type == "application/json"
        && clause.parameter("g") == "apidiscovery.k8s.io"
        && clause.parameter("as") == "APIGroupDiscoveryList"
        && matches!(version, "v2" | "v2beta1");
    asked.then_some(version)
}

/// A body that is not sent again to who has it already.
pub(crate) fn with_etag(headers: &HeaderMap, content_type: &str, body: Bytes) -> Response {
    let hash: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let etag = format!("\"{hash}\"");
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .unwrap_or_default();
    let unchanged = known
        .split(',')
        .any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag);
    let mut response = Response::new(if unchanged {
        Body::empty()
    } else {
        Body::from(body)
    });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let text = |text: &str| HeaderValue::from_str(text).expect("a hash or a media type");
    response.headers_mut().insert(ETAG, text(&etag));
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    if !unchanged {
        response.headers_mut().insert(CONTENT_TYPE, text(content_type));
    }
    response
}

/// Every document by its path, without a slash at its end.
fn documents(kinds: &[&dyn Kind]) -> Vec<(String, Document)> {
    let groups = groups(kinds);
    let bytes = |value: &Value| Bytes::from(value.to_string());
    let both = |core: bool, plain: Value| {
        let of = |version| {
            bytes(&aggregated(
                groups.iter().filter(|g| g.name.is_empty() == core),
                version,
            ))
        };
        Document {
            plain,
            v2: Some(of("v2")),
            v2beta1: Some(of("v2beta1")),
        }
    };
    let core = groups.iter().filter(|group| group.name.is_empty());
    let versions: Vec<&str> = core.map(|group| group.version).collect();
    let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]);
    let named = groups.iter().filter(|group| !group.name.is_empty());
    let api_groups: Vec<Value> = named.clone().map(api_group).collect();
    let mut all = vec![
        (
            "/api".to_owned(),
            both(
                true,
                json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses}),
            ),
        ),
        (
            "/apis".to_owned(),
            both(
                false,
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": api_groups}),
            ),
        ),
    ];
    for group in named {
        let mut answer = api_group(group);
        answer["kind"] = "APIGroup".into();
        answer["apiVersion"] = "v1".into();
        all.push((format!("/apis/{}", group.name), Document::plain(answer)));
    }
    all.extend(
        groups
            .iter()
            .map(|group| (group.path(), Document::plain(resource_list(group)))),
    );
    all
}

/// The discovery paths of these kinds, and `/`, which lists what else there is (`others`).
pub fn routes<S: Clone + Send + Sync + 'static>(kinds: &[&dyn Kind], others: &[&str]) -> Router<S> {
    let documents = documents(kinds);
    let mut paths: Vec<&str> = documents.iter().map(|(path, _)| path.as_str()).collect();
    paths.extend(others);
    paths.sort_unstable();
    let root = Document::plain(json!({"paths": paths}));
    let mut router = Router::new();
    for (path, document) in std::iter::once((String::new(), root)).chain(documents) {
        let document = Arc::new(document);
        let answer = get(async move |headers: HeaderMap| document.answer(&headers));
        router = router.route(&format!("{path}/"), answer.clone());
        if !path.is_empty() {
            router = router.route(&path, answer);
        }
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Names;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    struct Fake {
        names: &'static Names,
        subresources: &'static [Subresource],
    }

    impl Kind for Fake {
        fn names(&self) -> &'static Names {
            self.names
        }
        fn subresources(&self) -> &'static [Subresource] {
            self.subresources
        }
    }

    const POD: Names = Names {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        namespaced: true,
        schema: "io.k8s.api.core.v1.Pod",
        storage_group: "",
    };

    static KINDS: [Fake; 3] = [
        Fake {
            names: &POD,
            subresources: &[Subresource::Status, Subresource::Eviction],
        },
        Fake {
            names: &Names {
                kind: "Node",
                plural: "nodes",
                singular: "node",
                short_names: &[],
                categories: &[],
                namespaced: false,
                ..POD
            },
            subresources: &[],
        },
        Fake {
            names: &Names {
                group: "apps",
                kind: "StatefulSet",
                plural: "statefulsets",
                singular: "statefulset",
                ..POD
            },
            subresources: &[Subresource::Scale],
        },
    ];

    async fn ask(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Value) {
        let kinds: Vec<&dyn Kind> = KINDS.iter().map(|kind| kind as &dyn Kind).collect();
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router: Router = routes(&kinds, &["/healthz"]);
        let answer = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }

    #[tokio::test]
    async fn every_group_and_kind_is_told() {
        assert_eq!(ask("/api", &[]).await.2["versions"], json!(["v1"]));
        assert_eq!(
            ask("/apis", &[]).await.2["groups"],
            json!([{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                    "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"}}])
        );
        assert_eq!(ask("/apis/apps", &[]).await.2["kind"], "APIGroup");
        let core = ask("/api/v1/", &[]).await.2;
        let names: Vec<&Value> = core["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| &r["name"])
            .collect();
        assert_eq!(names, ["nodes", "pods", "pods/eviction", "pods/status"]);
        let apps = ask("/apis/apps/v1", &[]).await.2;
        assert_eq!(
            apps["resources"][1],
            json!({"name": "statefulsets/scale", "singularName": "", "namespaced": true, "kind": "Scale",
                   "group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"]})
        );
        assert_eq!(
            ask("/", &[]).await.2["paths"],
            json!([
                "/api",
                "/api/v1",
                "/apis",
                "/apis/apps",
                "/apis/apps/v1",
                "/healthz"
            ])
        );
        assert_eq!(ask("/apis/nope", &[]).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_client_gets_the_first_aggregated_form_that_it_names_or_the_plain_one() {
        const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        const BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let (_, headers, body) = ask("/api", &[("accept", &format!("{V2},{BETA},application/json"))]).await;
        assert_eq!(headers[CONTENT_TYPE], V2);
        assert_eq!(body["apiVersion"], "apidiscovery.k8s.io/v2");
        assert_eq!(
            body["items"][0]["versions"][0]["resources"][1]["subresources"][0],
            json!({"subresource": "eviction", "verbs": ["create"],
                   "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"}})
        );
        let (_, headers, _) = ask("/apis", &[("accept", &format!("{BETA},application/json"))]).await;
        assert_eq!(headers[CONTENT_TYPE], BETA);
        let (_, _, body) = ask("/api", &[("accept", "application/json")]).await;
        assert_eq!(body["kind"], "APIVersions");
        let (status, _, _) = ask("/apis/apps/v1", &[("accept", V2)]).await;
        assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
    }

    #[tokio::test]
    async fn who_has_a_document_does_not_get_it_again() {
        let (_, headers, _) = ask("/apis", &[]).await;
        let etag = headers[ETAG].to_str().unwrap().to_owned();
        assert_eq!(
            ask("/apis", &[("if-none-match", &etag)]).await.0,
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(
            ask("/apis", &[("if-none-match", "\"other\"")]).await.0,
            StatusCode::OK
        );
    }
}
