//! The paths of an OpenAPI document: what can be asked of each kind. kubectl looks up here which patches and
//! parameters a kind takes.

use super::schemas::Dialect;
use crate::resource::{Kind, Names, Subresource};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const LIST: [&str; 10] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

/// A verb on a path, with what goes in and comes out.
struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    /// The start of its id, `read`, and its end, `Status`.
    id: (&'static str, &'static str),
    query: Vec<&'static str>,
    body: Option<Body<'a>>,
    answer: &'a str,
    created: bool,
}

enum Body<'a> {
    Json(&'a str),
    Patch,
}

/// What a subresource is in a document: its name, schema (none: the object's own), its kind if it differs,
/// and methods.
struct Part {
    name: &'static str,
    schema: Option<&'static str>,
    kind: Option<(&'static str, &'static str, &'static str)>,
    methods: &'static [&'static str],
}

/// `None`: what joins a client with somebody else is in no document, because it has no schema.
fn part(subresource: Subresource) -> Option<Part> {
    const CHANGE: &[&str] = &["get", "put", "patch"];
    let part = |name, methods| Part {
        name,
        schema: None,
        kind: None,
        methods,
    };
    Some(match subresource {
        Subresource::Exec | Subresource::Attach | Subresource::PortForward | Subresource::Proxy => {
            return None;
        }
        Subresource::Status => part("status", CHANGE),
        Subresource::EphemeralContainers => part("ephemeralcontainers", CHANGE),
        Subresource::Resize => part("resize", CHANGE),
        Subresource::Finalize => part("finalize", &["put"]),
        Subresource::Log => part("log", &["get"]),
        Subresource::Scale => Part {
            schema: Some("io.k8s.api.autoscaling.v1.Scale"),
            kind: Some(("autoscaling", "v1", "Scale")),
            ..part("scale", CHANGE)
        },
        Subresource::Binding => Part {
            schema: Some("io.k8s.api.core.v1.Binding"),
            kind: Some(("", "v1", "Binding")),
            ..part("binding", &["post"])
        },
        Subresource::Eviction => Part {
            schema: Some("io.k8s.api.policy.v1.Eviction"),
            kind: Some(("policy", "v1", "Eviction")),
            ..part("eviction", &["post"])
        },
        Subresource::Token => Part {
            schema: Some("io.k8s.api.authentication.v1.TokenRequest"),
            kind: Some(("authentication.k8s.io", "v1", "TokenRequest")),
            ..part("token", &["post"])
        },
    })
}

/// The schemas that the paths of `kind` refer to.
pub(super) fn schemas(kind: &dyn Kind) -> Vec<&'static str> {
    let parts = kind
        .subresources()
        .iter()
        .filter_map(|subresource| part(*subresource)?.schema);
    let own = [
        kind.names().schema,
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    ];
    own.into_iter().chain(parts).collect()
}

/// All paths of a kind.
pub(super) fn paths(kind: &dyn Kind, dialect: Dialect) -> Vec<(String, Value)> {
    let names = kind.names();
    let list = format!("{}List", names.schema);
    let status = format!("{META}.Status");
    let delete_options = format!("{META}.DeleteOptions");
    let base = match names.group {
        "" => format!("/api/{}", names.version),
        group => format!("/apis/{group}/{}", names.version),
    };
    let plural = names.plural;
    let collection = match names.namespaced {
        true => format!("{base}/namespaces/{{namespace}}/{plural}"),
        false => format!("{base}/{plural}"),
    };
    let operation = |method, action, id| Operation {
        method,
        action,
        id: (id, ""),
        query: Vec::new(),
        body: None,
        answer: names.schema,
        created: false,
    };
    let delete = |method, action, id, query: &[&'static str]| Operation {
        query: query.to_vec(),
        body: Some(Body::Json(&delete_options)),
        answer: &status,
        ..operation(method, action, id)
    };
    let on_collection = [
        Operation {
            query: LIST.to_vec(),
            answer: &list,
            ..operation("get", "list", "list")
        },
        Operation {
            query: WRITE.to_vec(),
            body: Some(Body::Json(names.schema)),
            created: true,
            ..operation("post", "post", "create")
        },
        delete(
            "delete",
            "deletecollection",
            "deleteCollection",
            &["dryRun", "fieldSelector", "labelSelector"],
        ),
    ];
    let patch = || Operation {
        query: WRITE.iter().copied().chain(["force"]).collect(),
        body: Some(Body::Patch),
        ..operation("patch", "patch", "patch")
    };
    let put = || Operation {
        query: WRITE.to_vec(),
        body: Some(Body::Json(names.schema)),
        ..operation("put", "put", "replace")
    };
    let on_object = [
        operation("get", "get", "read"),
        put(),
        patch(),
        delete(
            "delete",
            "delete",
            "delete",
            &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        ),
    ];
    let gvk = (names.group, names.version, names.kind);
    let mut all = Vec::new();
    if names.namespaced {
        let everywhere = Operation {
            query: LIST.to_vec(),
            answer: &list,
            id: ("list", "ForAllNamespaces"),
            ..operation("get", "list", "list")
        };
        all.push((
            format!("{base}/{plural}"),
            item(names, gvk, &[everywhere], &[], dialect),
        ));
    }
    let scope: &[&str] = if names.namespaced { &["namespace"] } else { &[] };
    let named: Vec<&str> = scope.iter().copied().chain(["name"]).collect();
    all.push((
        collection.clone(),
        item(names, gvk, &on_collection, scope, dialect),
    ));
    all.push((
        format!("{collection}/{{name}}"),
        item(names, gvk, &on_object, &named, dialect),
    ));
    for part in kind
        .subresources()
        .iter()
        .filter_map(|subresource| part(*subresource))
    {
        let schema = part.schema.unwrap_or(names.schema);
        let operations: Vec<_> = part
            .methods
            .iter()
            .map(|method| {
                let mut operation = match *method {
                    "put" => Operation {
                        body: Some(Body::Json(schema)),
                        ..put()
                    },
                    "patch" => patch(),
                    "post" => Operation {
                        query: WRITE.to_vec(),
                        body: Some(Body::Json(schema)),
                        created: true,
                        ..operation("post", "post", "create")
                    },
                    _ => operation("get", "get", "read"),
                };
                operation.answer = schema;
                operation.id.1 = part.name;
                operation
            })
            .collect();
        let path = format!("{collection}/{{name}}/{}", part.name);
        all.push((
            path,
            item(names, part.kind.unwrap_or(gvk), &operations, &named, dialect),
        ));
    }
    all
}

fn item(
    names: &Names,
    (group, version, kind): (&str, &str, &str),
    operations: &[Operation<'_>],
    in_path: &[&str],
    dialect: Dialect,
) -> Value {
    let mut item = Map::new();
    for operation in operations {
        let id = format!(
            "{}{}{}{}{}{}",
            operation.id.0,
            capital(
                names
                    .group
                    .split('.')
                    .next()
                    .filter(|group| !group.is_empty())
                    .unwrap_or("core")
            ),
            capital(names.version),
            if in_path.contains(&"namespace") {
                "Namespaced"
            } else {
                ""
            },
            names.kind,
            capital(operation.id.1)
        );
        let mut parameters: Vec<Value> = operation
            .query
            .iter()
            .map(|name| parameter(name, "query", dialect))
            .collect();
        let mut described = json!({
            "operationId": id,
            "tags": [if names.group.is_empty() { "core" } else { names.group }],
            "responses": responses(operation, dialect),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
        });
        match (&operation.body, dialect) {
            (Some(body), Dialect::V3) => described["requestBody"] = body_v3(body),
            (Some(body), Dialect::V2) => {
                described["consumes"] = json!(media_types(body));
                parameters.push(body_v2(body));
            }
            (None, _) => {}
        }
        described["parameters"] = parameters.into();
        item.insert(operation.method.to_owned(), described);
    }
    let in_path = in_path.iter().map(|name| parameter(name, "path", dialect));
    let pretty = parameter("pretty", "query", dialect);
    item.insert("parameters".to_owned(), in_path.chain([pretty]).collect());
    item.into()
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

fn parameter(name: &str, place: &str, dialect: Dialect) -> Value {
    let r#type = match name {
        "allowWatchBookmarks" | "force" | "sendInitialEvents" | "watch" => "boolean",
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        _ => "string",
    };
    let mut parameter = json!({"name": name, "in": place, "uniqueItems": true});
    if place == "path" {
        parameter["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => parameter["type"] = r#type.into(),
        Dialect::V3 => parameter["schema"] = json!({"type": r#type, "uniqueItems": true}),
    }
    if dialect == Dialect::V3 {
        parameter
            .as_object_mut()
            .map(|parameter| parameter.remove("uniqueItems"));
    }
    parameter
}

fn media_types(body: &Body<'_>) -> &'static [&'static str] {
    match body {
        Body::Json(_) => &["application/json", "application/yaml"],
        Body::Patch => &[
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ],
    }
}

fn body_v3(body: &Body<'_>) -> Value {
    let schema = match body {
        Body::Json(name) => json!({"$ref": Dialect::V3.reference(name)}),
        Body::Patch => json!({"type": "object"}),
    };
    let content: Map<String, Value> = media_types(body)
        .iter()
        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
        .collect();
    json!({"content": content, "required": true})
}

fn body_v2(body: &Body<'_>) -> Value {
    let schema = match body {
        Body::Json(name) => json!({"$ref": Dialect::V2.reference(name)}),
        Body::Patch => json!({"type": "object"}),
    };
    json!({"name": "body", "in": "body", "required": true, "schema": schema})
}

fn responses(operation: &Operation<'_>, dialect: Dialect) -> Value {
    let schema = json!({"$ref": dialect.reference(operation.answer)});
    let answer = |description: &str| match dialect {
        Dialect::V2 => json!({"description": description, "schema": schema}),
        Dialect::V3 => json!({
            "description": description,
            "content": {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}},
        }),
    };
    let mut responses = json!({"200": answer("OK"), "401": {"description": "Unauthorized"}});
    if operation.created {
        responses["201"] = answer("Created");
    }
    responses
}
