//! What a request asks for, as an authorizer sees it: a verb and either a resource or a path. This looks at the
//! path by itself, and in doubt finds a resource: what no rule about resources allows must not be had as a path.

use crate::auth::User;
use crate::error::{Error, Target};
use crate::options::Query;
use crate::path::decode;
use http::{HeaderMap, Method, Uri};
use serde_json::json;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `impersonate` …
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// The namespace; empty at the cluster scope.
    pub namespace: String,
    /// The resource in the plural; empty for a path.
    pub resource: String,
    /// `status`, `exec` …
    pub subresource: String,
    /// The object's name, if it is about one.
    pub name: String,
    /// The path of what is no resource.
    pub path: Option<String>,
}

impl Attributes {
    /// What the request line asks for.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path = || Attributes {
            verb: method.as_str().to_lowercase(),
            path: Some(uri.path().to_owned()),
            ..Attributes::default()
        };
        let parts: Vec<String> = uri.path().trim_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _version, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _version, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => return path(),
        };
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        // `namespaces/x/status` and `namespaces/x/finalize` are of the namespace itself, as is `namespaces/x`.
        let (namespace, rest) = match rest {
            ["namespaces", namespace] | ["namespaces", namespace, "status" | "finalize", ..] => {
                (*namespace, rest)
            }
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let part = |n: usize| rest.get(n).copied().unwrap_or_default().to_owned();
        let mut attributes = Attributes {
            group: group.into(),
            namespace: namespace.into(),
            resource: part(0),
            name: part(1),
            subresource: part(2),
            ..Attributes::default()
        };
        let query = Query::of(uri);
        let named = !attributes.name.is_empty();
        attributes.verb = match *method {
            _ if watch => "watch",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD if query.flag("watch") == Some(true) => "watch",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => "",
        }
        .into();
        // A list of what has one name is about that object.
        if !named && matches!(attributes.verb.as_str(), "list" | "watch" | "deletecollection") {
            let name = query.get("fieldSelector").and_then(selected_name);
            attributes.name = name.unwrap_or_default();
        }
        attributes
    }

    /// The verb that an upgraded connection into a pod needs besides: to open one is to make something, whatever
    /// the method that a WebSocket begins with.
    pub fn of_upgrade(&self, headers: &HeaderMap) -> Option<Attributes> {
        let into_pod = self.group.is_empty()
            && self.resource == "pods"
            && matches!(self.subresource.as_str(), "exec" | "attach" | "portforward");
        let upgrades = headers.contains_key(http::header::UPGRADE);
        (into_pod && upgrades && self.verb == "get").then(|| Attributes {
            verb: "create".into(),
            ..self.clone()
        })
    }

    /// The resource with its subresource, as rules name it.
    pub fn combined_resource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    /// 403 in upstream's words.
    pub fn forbidden(&self, user: &User, reason: &str) -> Error {
        let (user, verb) = (&user.name, &self.verb);
        let mut message = match &self.path {
            Some(path) => format!("User {user:?} cannot {verb} path {path:?}"),
            None => {
                let place = match self.namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                let (resource, group) = (self.combined_resource(), &self.group);
                format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
            }
        };
        if !reason.is_empty() {
            message = format!("{message}: {reason}");
        }
        if self.path.is_some() {
            return forbidden(&message);
        }
        let target = Target {
            group: self.group.clone(),
            resource: self.resource.clone(),
            name: self.name.clone(),
        };
        Error::Forbidden(target, message)
    }
}

/// 403 about no resource in particular.
pub fn forbidden(message: &str) -> Error {
    Error::Status(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("forbidden: {message}"), "reason": "Forbidden", "details": {}, "code": 403,
    }))
}

/// The name that a field selector demands.
fn selected_name(selector: &str) -> Option<String> {
    let mut names = selector.split(',').filter_map(|term| {
        let (field, name) = term.split_once('=')?;
        (field == "metadata.name").then(|| name.trim_start_matches('='))
    });
    let name = names.next_back()?;
    let valid = crate::validation::names::path_segment(name).is_empty() && !name.is_empty();
    valid.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let a = Attributes::of(&method, &uri.parse().unwrap());
        match a.path {
            Some(path) => format!("{} {path}", a.verb),
            None => format!(
                "{} {:?} {} ns={} name={}",
                a.verb,
                a.group,
                Attributes::of(&method, &uri.parse().unwrap()).combined_resource(),
                a.namespace,
                a.name
            ),
        }
    }

    #[test]
    fn a_request_is_about_what_upstream_says() {
        for (method, uri, expected) in [
            ("GET", "/", "get /"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/api/v1/", "get /api/v1/"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("POST", "/healthz/ping", "post /healthz/ping"),
            ("GET", "/openapi/v3/apis/apps/v1", "get /openapi/v3/apis/apps/v1"),
            ("GET", "/api/v1/pods", "list \"\" pods ns= name="),
            ("GET", "/api/v1/pods?watch=1", "watch \"\" pods ns= name="),
            ("GET", "/api/v1/pods?watch=false", "list \"\" pods ns= name="),
            (
                "GET",
                "/api/v1/watch/namespaces/a/pods",
                "watch \"\" pods ns=a name=",
            ),
            ("GET", "/api/v1/namespaces/a", "get \"\" namespaces ns=a name=a"),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update \"\" namespaces/finalize ns=a name=a",
            ),
            ("GET", "/api/v1/namespaces", "list \"\" namespaces ns= name="),
            ("HEAD", "/api/v1/namespaces/a/pods/b", "get \"\" pods ns=a name=b"),
            (
                "GET",
                "/api/v1/namespaces/a/pods/b/log?follow=1",
                "get \"\" pods/log ns=a name=b",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/b/exec",
                "create \"\" pods/exec ns=a name=b",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/b/proxy/x/y",
                "get \"\" pods/proxy ns=a name=b",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/statefulsets/b/scale",
                "patch \"apps\" statefulsets/scale ns=a name=b",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "deletecollection \"\" pods ns=a name=",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods/b",
                "delete \"\" pods ns=a name=b",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Db",
                "list \"\" secrets ns=a name=b",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Db",
                "list \"\" secrets ns=a name=",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/secrets/",
                "list \"\" secrets ns=a name=",
            ),
            ("GET", "//api/v1/secrets", "list \"\" secrets ns= name="),
            ("GET", "/api/v1/%73ecrets", "list \"\" secrets ns= name="),
        ] {
            assert_eq!(asked(method, uri), expected, "{method} {uri}");
        }
    }

    #[test]
    fn a_websocket_into_a_pod_is_also_made() {
        let get = |uri: &str| Attributes::of(&Method::GET, &uri.parse().unwrap());
        let upgrade = HeaderMap::from_iter([(http::header::UPGRADE, "websocket".parse().unwrap())]);
        let exec = get("/api/v1/namespaces/a/pods/b/exec");
        assert_eq!(exec.of_upgrade(&HeaderMap::new()), None);
        let also = exec.of_upgrade(&upgrade).expect("another verb");
        assert_eq!((also.verb.as_str(), also.name.as_str()), ("create", "b"));
        assert_eq!(get("/api/v1/namespaces/a/pods/b/log").of_upgrade(&upgrade), None);
    }
}
