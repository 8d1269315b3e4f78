//! From an HTTP request to a verb: the function that this crate is.

use crate::auth::User;
use crate::call::Call;
use crate::error::Error;
use crate::filters::Filters;
use crate::metrics::Metrics;
use crate::path;
use crate::resource::{Kind, Subresource};
use crate::respond;
use crate::server::Server;
use crate::subresources::connect::Connect;
use crate::{
    authorization, compression, discovery, health, openapi, resources, subresources, usage, verbs, version,
};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::Method;
use std::any::Any;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// The whole API as a tower service: `kube::Client::new(router, "default")` is a client of it, and a
/// listener serves it. Requests carry their [`User`] as an extension; without one the answer is 401.
pub fn router(server: Arc<Server>) -> Router {
    let reviews = subresources::reviews::KINDS
        .iter()
        .map(|review| review as &dyn Kind);
    let usage = usage::KINDS.iter().map(|usage| usage as &dyn Kind);
    let kinds: Vec<&'static dyn Kind> = resources::all().into_iter().chain(reviews).chain(usage).collect();
    let filters = Filters::new(server.options.in_flight);
    let metrics = Metrics::new(&kinds, server.store.clone());
    Router::new()
        .merge(discovery::routes(&kinds, &OTHER_PATHS))
        .merge(health::routes(server.store.clone(), server.options.stop.clone()))
        .merge(version::routes())
        .merge(openapi::routes(kinds))
        .merge(metrics.routes())
        .fallback(resource)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .with_state(server.clone())
        .layer(compression::layer())
        .layer(axum::middleware::from_fn_with_state(server, authorization::guard))
        .layer(axum::middleware::from_fn_with_state(metrics, Metrics::count))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(filters, Filters::pass))
}

/// What `/` lists besides discovery.
const OTHER_PATHS: [&str; 7] = [
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/version",
];

/// A panic in a handler: the client gets a Status, the log the panic's words.
// tower-http calls it with the box.
#[allow(clippy::needless_pass_by_value)]
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let words = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned());
    tracing::error!(
        panic = words.as_deref().unwrap_or("?"),
        "a request handler panicked"
    );
    Error::Internal("the API server failed while it handled this request".into()).into_response()
}

async fn resource(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(user) = parts.extensions.get::<User>().cloned() else {
        return Error::Unauthorized.into_response();
    };
    let unknown = || unknown_path(&server, parts.uri.path()).into_response();
    let Some(path) = path::parse(parts.uri.path()) else {
        return unknown();
    };
    let kind = server.kind(&path.group, &path.version, &path.plural);
    let kind = kind.or_else(|| subresources::reviews::of(&path));
    let Some(kind) = kind.or_else(|| usage::of(&path)) else {
        return unknown();
    };
    if path.namespace.is_some() && !kind.names().namespaced {
        return Error::NoSuchResource.into_response();
    }
    // What joins the client with somebody else takes the request as it is.
    let joined = path
        .subresource
        .as_deref()
        .and_then(|name| subresource(kind, name));
    if let Some(joined) = joined.filter(|joined| subresources::connect::joins(*joined)) {
        let request = Request::from_parts(parts, body);
        let connect = Connect {
            server,
            kind,
            path,
            request,
        };
        let answer = connect.answer(joined).await;
        return answer.unwrap_or_else(IntoResponse::into_response);
    }
    let call = match Call::new(server.clone(), user, kind, path, &parts) {
        Ok(call) => Arc::new(call),
        Err(error) => return error.into_response(),
    };
    let answer = dispatch(call.clone(), &parts.method, body).await;
    let mut response = answer.unwrap_or_else(|error| respond::error(&call, error));
    respond::add_warnings(&mut response, call.warnings());
    response
}

/// The verb that a method and a path ask for.
async fn dispatch(call: Arc<Call>, method: &Method, body: axum::body::Body) -> Result<Response, Error> {
    if let Some(name) = &call.path.subresource {
        let subresource = subresource(call.kind, name).ok_or(Error::NoSuchResource)?;
        return subresources::dispatch(call, subresource, method, body).await;
    }
    let named = call.path.name.is_some();
    let collection = !named && (call.namespace().is_some() || !call.kind.names().namespaced);
    let verb = match *method {
        Method::GET if call.path.watch => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST if collection => "create",
        Method::PUT if named => "update",
        Method::PATCH if named => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE if collection => "deletecollection",
        _ => return Err(Error::MethodNotAllowed),
    };
    if !call.kind.verbs().contains(&verb) {
        return Err(Error::MethodNotAllowed);
    }
    // A path to an object of a kind with namespaces needs the namespace.
    if named && call.kind.names().namespaced && call.namespace().is_none() {
        return Err(Error::NoSuchResource);
    }
    match verb {
        "get" | "list" if usage::is_usage(call.kind) => usage::answer(&call).await,
        "get" => verbs::get::get(&call).await,
        "list" | "watch" => verbs::list::list_or_watch(&call).await,
        "create" if subresources::reviews::is_review(call.kind) => {
            subresources::reviews::answer(&call, body).await
        }
        "create" => verbs::create::create(&call, body).await,
        "update" => verbs::update::update(&call, body, verbs::update::Part::Main).await,
        "patch" => verbs::patch::patch(&call, body, verbs::update::Part::Main).await,
        "delete" => verbs::delete::delete(&call, body).await,
        _ => verbs::deletecollection::delete_collection(&call, body).await,
    }
}

fn subresource(kind: &dyn Kind, name: &str) -> Option<Subresource> {
    let subresource = match name {
        "status" => Subresource::Status,
        "scale" => Subresource::Scale,
        "binding" => Subresource::Binding,
        "eviction" => Subresource::Eviction,
        "ephemeralcontainers" => Subresource::EphemeralContainers,
        "resize" => Subresource::Resize,
        "log" => Subresource::Log,
        "finalize" => Subresource::Finalize,
        "token" => Subresource::Token,
        "exec" => Subresource::Exec,
        "attach" => Subresource::Attach,
        "portforward" => Subresource::PortForward,
        "proxy" => Subresource::Proxy,
        _ => return None,
    };
    kind.subresources().contains(&subresource).then_some(subresource)
}

/// Below a group that is served, upstream's router answers; elsewhere nothing does.
fn unknown_path(server: &Server, path: &str) -> Error {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("api"), _) => Error::NoSuchResource,
        (Some("apis"), Some(group)) if server.has_group(group) => Error::NoSuchResource,
        _ => Error::NoSuchPath,
    }
}
