//! Roles, bindings and reviews, without a listener in between.

use crate::client::Api;
use apiserver::auth::User;
use axum::Extension;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// One request as `user`, who is nobody's administrator.
async fn ask(api: &Api, user: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let router = api.plain.clone().layer(Extension(User::new(user, &[])));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string())
    };
    let response = router.oneshot(request.body(body).expect("a request")).await;
    let response = response.expect("the router cannot fail");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn allow(api: &Api, user: &str, rules: Value) {
    let name = format!("for-{user}");
    let role = json!({"metadata": {"name": name}, "rules": rules});
    api.created(&format!("{RBAC}/clusterroles"), &role).await;
    let binding = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": user}],
        "roleRef": {"kind": "ClusterRole", "name": name}});
    api.created(&format!("{RBAC}/clusterrolebindings"), &binding)
        .await;
}

#[tokio::test]
async fn a_change_of_a_role_counts_for_the_next_request() {
    let api = Api::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(ask(&api, "jane", "GET", pods, Value::Null).await.0, 403);
    allow(
        &api,
        "jane",
        json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]),
    )
    .await;
    for _ in 0..20 {
        assert_eq!(ask(&api, "jane", "GET", pods, Value::Null).await.0, 200);
        let role = format!("{RBAC}/clusterroles/for-jane");
        let (code, _) = api.merge(&role, json!({"rules": []})).await;
        assert_eq!(code, 200);
        assert_eq!(ask(&api, "jane", "GET", pods, Value::Null).await.0, 403);
        let rules = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["pods"]}]);
        assert_eq!(api.merge(&role, json!({"rules": rules})).await.0, 200);
    }
}

#[tokio::test]
async fn names_and_subresources_are_told_apart() {
    let api = Api::start().await;
    let rules = json!([
        {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"]},
        {"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"]},
        {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["statefulsets/scale"]},
        {"verbs": ["deletecollection"], "apiGroups": [""], "resources": ["services"]},
    ]);
    allow(&api, "jane", rules).await;
    let default = "/api/v1/namespaces/default";
    for (method, path, code) in [
        ("GET", format!("{default}/configmaps/mine"), 404),
        ("GET", format!("{default}/configmaps/yours"), 403),
        ("GET", format!("{default}/configmaps"), 403),
        (
            "GET",
            format!("{default}/configmaps?fieldSelector=metadata.name%3Dmine"),
            200,
        ),
        (
            "GET",
            "/apis/apps/v1/namespaces/default/statefulsets/web/scale".into(),
            404,
        ),
        (
            "GET",
            "/apis/apps/v1/namespaces/default/statefulsets/web".into(),
            403,
        ),
        ("DELETE", format!("{default}/services"), 200),
        ("DELETE", format!("{default}/services/x"), 403),
        ("GET", format!("{default}/pods/x/proxy/y/z"), 403),
        ("GET", "/healthz".into(), 200),
        ("GET", "/metrics".into(), 403),
    ] {
        let (got, answer) = ask(&api, "jane", method, &path, Value::Null).await;
        assert_eq!(got, code, "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn the_role_of_a_binding_cannot_be_changed() {
    let api = Api::start().await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let mut binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}});
    api.created(&bindings, &binding).await;
    binding["roleRef"]["name"] = "edit".into();
    let (code, answer) = api.put(&format!("{bindings}/b"), binding).await;
    assert_eq!(code, 422);
    assert_eq!(answer["details"]["causes"][0]["field"], "roleRef");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("cannot change roleRef"), "{message}");
}

#[tokio::test]
async fn reviews_tell_the_truth() {
    let api = Api::start().await;
    allow(
        &api,
        "jane",
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}]),
    )
    .await;
    let reviews = "/apis/authorization.k8s.io/v1";
    let attributes = |verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "subresource": "log", "namespace": "default"}});
    let review = json!({"spec": attributes("get")});
    let (code, answer) = ask(
        &api,
        "jane",
        "POST",
        &format!("{reviews}/selfsubjectaccessreviews"),
        review.clone(),
    )
    .await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(
        answer["status"],
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by ClusterRoleBinding \"for-jane\" of ClusterRole \"for-jane\" to User \"jane\"",
        })
    );
    let (_, answer) = ask(
        &api,
        "bob",
        "POST",
        &format!("{reviews}/selfsubjectaccessreviews"),
        review,
    )
    .await;
    assert_eq!(answer["status"], json!({"allowed": false}));
    let mut other = json!({"spec": attributes("get")});
    other["spec"]["user"] = "jane".into();
    let path = format!("{reviews}/subjectaccessreviews");
    assert_eq!(ask(&api, "bob", "POST", &path, other.clone()).await.0, 403);
    assert_eq!(api.created(&path, &other).await["status"]["allowed"], true);
    let local = format!("{reviews}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(api.created(&local, &other).await["status"]["allowed"], true);
    let elsewhere = format!("{reviews}/namespaces/kube-system/localsubjectaccessreviews");
    assert_eq!(
        api.post(&elsewhere, other).await.1["message"],
        "spec.resourceAttributes.namespace must match namespace: kube-system"
    );
    let (code, answer) = api.post(&path, json!({"spec": {}})).await;
    assert_eq!(code, 422);
    assert_eq!(
        answer["details"]["causes"].as_array().map(Vec::len),
        Some(2),
        "{answer}"
    );
    let rules = format!("{reviews}/selfsubjectrulesreviews");
    let (_, answer) = ask(
        &api,
        "jane",
        "POST",
        &rules,
        json!({"spec": {"namespace": "default"}}),
    )
    .await;
    let listed = answer["status"]["resourceRules"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(
        listed.iter().any(|rule| rule["resources"] == json!(["pods/log"])),
        "{answer}"
    );
    assert_eq!(answer["status"]["incomplete"], false);
    let (_, me) = ask(
        &api,
        "jane",
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        json!({}),
    )
    .await;
    assert_eq!(me["status"]["userInfo"]["username"], "jane");
}

#[tokio::test]
async fn a_pod_of_an_account_that_is_not_there_is_refused() {
    let api = Api::start().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "x", "containers": [{"name": "c", "image": "i"}]}});
    let (code, answer) = api.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "pods \"p\" is forbidden: error looking up service account default/x: serviceaccount \"x\" not found"
    );
}
