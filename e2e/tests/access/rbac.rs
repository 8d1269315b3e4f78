//! Roles and bindings decide.

use crate::{account, bind, bind_account, create, https, token, until_code, with_token};
use e2e::binary::Cluster;
use serde_json::{Value, json};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A request as somebody else, with the administrator's certificate.
#[track_caller]
fn acting(cluster: &Cluster, user: &str, path: &str, arguments: &[&str]) -> (u16, String) {
    let bearer = std::fs::read_to_string(cluster.data_dir().join("pki/admin.token")).expect("a token");
    let (user, bearer) = (
        format!("Impersonate-User: {user}"),
        format!("Authorization: Bearer {}", bearer.trim()),
    );
    let reply = https(
        cluster,
        path,
        &[&["-H", &user, "-H", &bearer], arguments].concat(),
    );
    let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
    (reply.code, message)
}

fn post(object: &Value) -> [String; 4] {
    [
        "-H".into(),
        "Content-Type: application/json".into(),
        "-d".into(),
        object.to_string(),
    ]
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn an_account_may_do_nothing_until_a_binding_says_so_and_then_at_once() {
    let cluster = Cluster::up();
    account(&cluster, "web");
    let token = token(&cluster, "web", &json!({}));
    let refused = with_token(&cluster, &token, PODS).expect(403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"system:serviceaccount:default:web\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(refused["details"], json!({"kind": "pods"}));
    let refused = with_token(&cluster, &token, "/metrics").expect(403);
    assert_eq!(
        refused["message"],
        "forbidden: User \"system:serviceaccount:default:web\" cannot get path \"/metrics\""
    );
    with_token(&cluster, &token, "/apis").expect(200);
    cluster.until("clusterrole view", |view| view["rules"].is_array());
    bind_account(&cluster, "web", "view");
    with_token(&cluster, &token, PODS).expect(200);
    with_token(&cluster, &token, SECRETS).expect(403);
    with_token(&cluster, &token, "/api/v1/pods").expect(403);
    crate::delete(
        &cluster,
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/web",
    );
    with_token(&cluster, &token, PODS).expect(403);
}

#[test]
fn the_administrator_may_act_as_somebody_else_and_others_may_not() {
    let cluster = Cluster::api_alone();
    let (code, message) = acting(&cluster, "jane", PODS, &[]);
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    account(&cluster, "web");
    let bearer = format!("Authorization: Bearer {}", token(&cluster, "web", &json!({})));
    let refused = https(&cluster, PODS, &["-H", &bearer, "-H", "Impersonate-User: jane"]).expect(403);
    assert_eq!(
        refused["message"],
        "users \"jane\" is forbidden: User \"system:serviceaccount:default:web\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let group = ["-H", "Impersonate-Group: system:masters"];
    assert_eq!(acting(&cluster, "jane", PODS, &group).0, 200);
}

#[test]
fn nobody_gives_away_more_than_they_have() {
    let cluster = Cluster::api_alone();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"verbs": ["create", "update"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    create(
        &cluster,
        &format!("{rbac}/namespaces/default/roles"),
        &json!({"metadata": {"name": "clerk"}, "rules": rules}),
    );
    create(
        &cluster,
        &format!("{rbac}/namespaces/default/rolebindings"),
        &json!({
            "metadata": {"name": "clerk"}, "subjects": [{"kind": "User", "name": "jane"}],
            "roleRef": {"kind": "Role", "name": "clerk"},
        }),
    );
    let roles = format!("{rbac}/namespaces/default/roles");
    let role = |name: &str, verb: &str| {
        let rule = json!({"verbs": ["get", verb], "apiGroups": [""], "resources": ["pods"]});
        json!({"metadata": {"name": name}, "rules": [rule]})
    };
    assert_eq!(
        acting(&cluster, "jane", &roles, &texts(&post(&role("same", "get")))).0,
        201
    );
    let (code, message) = acting(&cluster, "jane", &roles, &texts(&post(&role("more", "delete"))));
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    let bindings = format!("{rbac}/namespaces/default/rolebindings");
    let binding = |role: &str| {
        json!({
            "metadata": {"name": format!("to-{role}")}, "subjects": [{"kind": "User", "name": "bob"}],
            "roleRef": {"kind": "ClusterRole", "name": role},
        })
    };
    let (code, message) = acting(
        &cluster,
        "jane",
        &bindings,
        &texts(&post(&binding("cluster-admin"))),
    );
    assert_eq!(code, 403);
    assert!(
        message.contains(
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"
        ),
        "{message}"
    );
    let (code, message) = acting(&cluster, "jane", &bindings, &texts(&post(&binding("nothing"))));
    assert_eq!(
        (code, message.as_str()),
        (
            404,
            "clusterroles.rbac.authorization.k8s.io \"nothing\" not found"
        )
    );
    let same = json!({
        "metadata": {"name": "same"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"kind": "Role", "name": "same"},
    });
    assert_eq!(acting(&cluster, "jane", &bindings, &texts(&post(&same))).0, 201);
    assert_eq!(acting(&cluster, "bob", &format!("{PODS}/x"), &[]).0, 404);
}

#[test]
fn kubectl_shows_roles_and_acts_as_somebody_else() {
    let cluster = Cluster::up();
    cluster.until("clusterrole view", |view| view["rules"].is_array());
    bind(
        &cluster,
        "jane",
        "view",
        &json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}),
    );
    let refused = cluster.try_kubectl("get secrets --as jane").fails();
    assert_eq!(
        refused,
        "Error from server (Forbidden): secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"\n"
    );
    cluster.try_kubectl("get pods --as jane").ok();
    cluster
        .try_kubectl("get secrets --as jane --as-group system:masters")
        .ok();
    let table = cluster.kubectl("get rolebindings -o wide");
    assert!(table.starts_with("NAME   ROLE               AGE"), "{table}");
    assert!(
        table.contains("ClusterRole/view") && table.contains("jane"),
        "{table}"
    );
}

#[test]
fn with_always_allow_everybody_who_is_known_may_do_everything() {
    let mut cluster = Cluster::new();
    cluster.start_as(&["apiserver", "--authorization-mode", "AlwaysAllow"]);
    account(&cluster, "web");
    let token = token(&cluster, "web", &json!({}));
    until_code("it may", 200, || with_token(&cluster, &token, SECRETS));
    https(&cluster, SECRETS, &[]).expect(401);
}
