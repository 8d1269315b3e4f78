//! An API server and a client of it.

use apiserver::auth::User;
use apiserver::{Options, Server};
use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use store::MemoryStore;
use tower::ServiceExt;

pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";

pub const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
pub const WEB: &str = "/apis/apps/v1/namespaces/default/statefulsets/web";

/// An API server with its first namespaces, and an administrator as its client.
pub struct Api {
    pub router: Router,
    /// The same without a user.
    pub plain: Router,
    pub options: Options,
    pub store: Arc<MemoryStore>,
}

impl Api {
    pub async fn start() -> Api {
        let options = Options::default();
        let store = Arc::new(MemoryStore::new());
        let server = Server::new(store.clone(), options.clone());
        server.bootstrap().await.expect("the store takes namespaces");
        server.bootstrap().await.expect("and takes them once");
        let plain = apiserver::router(server);
        let router = plain.clone().layer(axum::Extension(User::admin()));
        Api {
            router,
            plain,
            options,
            store,
        }
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type);
        let request = request.body(body.into()).expect("a request");
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("the router cannot fail")
    }

    pub async fn json(&self, method: &str, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let response = self.send(method, path, content_type, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).expect("JSON"))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.json("GET", path, "", Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.json("POST", path, "application/json", body).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.json("PUT", path, "application/json", body).await
    }

    pub async fn delete(&self, path: &str, body: Value) -> (u16, Value) {
        self.json("DELETE", path, "application/json", body).await
    }

    pub async fn merge(&self, path: &str, body: Value) -> (u16, Value) {
        self.json("PATCH", path, MERGE, body).await
    }

    /// The object as it was created; it must be accepted.
    pub async fn created(&self, path: &str, object: &Value) -> Value {
        let (code, created) = self.post(path, object.clone()).await;
        assert_eq!(code, 201, "{object:#} gives {created:#}");
        created
    }

    /// The object at a path; it must be there.
    pub async fn found(&self, path: &str) -> Value {
        let (code, found) = self.get(path).await;
        assert_eq!(code, 200, "{found:#}");
        found
    }
}

/// A small StatefulSet named `web`, with what a merge patch changes in it.
pub fn set(changes: &Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]},
            },
        },
    });
    patch(&mut object, changes);
    object
}

/// A claim template that asks for a size.
pub fn claim(name: &str, size: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
}

/// Apply a JSON merge patch.
pub fn patch(target: &mut Value, changes: &Value) {
    let Value::Object(changes) = changes else {
        *target = changes.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, change) in changes {
        if change.is_null() {
            target.as_object_mut().map(|target| target.remove(field));
        } else {
            patch(&mut target[field.as_str()], change);
        }
    }
}
