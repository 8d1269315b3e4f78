//! Who may come in, and what they may do: the real binary, asked with curl, kubectl and openssl.

mod files;
mod listeners;
mod rbac;
mod secrets;
mod tokens;

use e2e::binary::{Cluster, PATIENCE, Reply, curl, eventually};
use serde_json::{Value, json};

/// One HTTPS request with these curl arguments.
#[track_caller]
fn https(cluster: &Cluster, path: &str, arguments: &[&str]) -> Reply {
    let url = format!("{}{path}", cluster.address("api"));
    let authority = cluster.data("pki/ca.crt");
    curl(&[&["--cacert", &authority, &url], arguments].concat())
}

/// One request with a bearer token.
#[track_caller]
fn with_token(cluster: &Cluster, token: &str, path: &str) -> Reply {
    https(cluster, path, &["-H", &format!("Authorization: Bearer {token}")])
}

/// Create an object as the administrator; what was stored.
#[track_caller]
fn create(cluster: &Cluster, path: &str, object: &Value) -> Value {
    cluster
        .curl(&[
            "--unix-socket",
            &cluster.data("api.sock"),
            &format!("http://petset{path}"),
            "-H",
            "Content-Type: application/json",
            "-d",
            &object.to_string(),
        ])
        .expect(201)
}

/// Delete an object as the administrator.
#[track_caller]
fn delete(cluster: &Cluster, path: &str) {
    let body = json!({"gracePeriodSeconds": 0}).to_string();
    let reply = cluster.curl(&[
        "--unix-socket",
        &cluster.data("api.sock"),
        &format!("http://petset{path}"),
        "-X",
        "DELETE",
        "-H",
        "Content-Type: application/json",
        "-d",
        &body,
    ]);
    assert!(reply.code < 300, "{reply:?}");
}

/// A token of a service account in the default namespace.
#[track_caller]
fn token(cluster: &Cluster, account: &str, spec: &Value) -> String {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = create(cluster, &path, &request);
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

/// A service account in the default namespace.
#[track_caller]
fn account(cluster: &Cluster, name: &str) {
    create(
        cluster,
        "/api/v1/namespaces/default/serviceaccounts",
        &json!({"metadata": {"name": name}}),
    );
}

/// Give a user, group or service account of the default namespace a ClusterRole in that namespace.
#[track_caller]
fn bind(cluster: &Cluster, name: &str, role: &str, subject: &Value) {
    let binding = json!({
        "metadata": {"name": name},
        "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    });
    create(
        cluster,
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
        &binding,
    );
}

/// Give a service account of the default namespace a ClusterRole there, by a binding of its own name.
#[track_caller]
fn bind_account(cluster: &Cluster, name: &str, role: &str) {
    let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": "default"});
    bind(cluster, name, role, &subject);
}

/// Wait until the request has this code.
#[track_caller]
fn until_code(what: &str, code: u16, ask: impl Fn() -> Reply) {
    eventually(what, PATIENCE, || {
        let reply = ask();
        (reply.code == code)
            .then_some(())
            .ok_or_else(|| format!("{reply:?}"))
    });
}
