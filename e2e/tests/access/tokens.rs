//! Service accounts: their tokens, in pods and elsewhere.

use crate::{account, bind_account, create, delete, token, until_code, with_token};
use e2e::binary::{Cluster, PATIENCE, eventually, run};
use serde_json::{Value, json};
use std::process::Command;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn review(cluster: &Cluster, token: &str, audiences: &Value) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    create(cluster, "/apis/authentication.k8s.io/v1/tokenreviews", &review)["status"].clone()
}

fn pod(name: &str, account: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": account,
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "sh", "command": ["sh", "-c", script]}],
        },
    })
}

#[test]
fn a_token_is_who_its_account_is_until_what_it_is_bound_to_goes() {
    let cluster = Cluster::up();
    account(&cluster, "web");
    bind_account(&cluster, "web", "system:kube-scheduler");
    let free = token(&cluster, "web", &json!({}));
    with_token(&cluster, &free, PODS).expect(200);
    let status = review(&cluster, &free, &json!([]));
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:web");
    assert_eq!(
        status["audiences"],
        json!(["https://kubernetes.default.svc.cluster.local"])
    );

    let elsewhere = token(&cluster, "web", &json!({"audiences": ["vault"]}));
    with_token(&cluster, &elsewhere, PODS).expect(401);
    assert_eq!(
        review(&cluster, &elsewhere, &json!(["vault", "x"]))["audiences"],
        json!(["vault"])
    );
    assert_eq!(
        review(&cluster, &elsewhere, &json!(["x"])).get("authenticated"),
        None
    );

    create(&cluster, PODS, &pod("p", "web", "sleep 1000"));
    let bound =
        |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let of_pod = token(&cluster, "web", &bound("Pod", "p"));
    with_token(&cluster, &of_pod, PODS).expect(200);
    create(
        &cluster,
        "/api/v1/namespaces/default/secrets",
        &json!({"metadata": {"name": "s"}}),
    );
    let of_secret = token(&cluster, "web", &bound("Secret", "s"));
    with_token(&cluster, &of_secret, PODS).expect(200);
    delete(&cluster, "/api/v1/namespaces/default/secrets/s");
    with_token(&cluster, &of_secret, PODS).expect(401);
    delete(&cluster, &format!("{PODS}/p"));
    until_code("the pod's token ends with it", 401, || {
        with_token(&cluster, &of_pod, PODS)
    });
    let status = review(&cluster, &of_pod, &json!([]));
    assert_eq!(status["error"], "[invalid bearer token, pods \"p\" not found]");

    with_token(&cluster, &free, PODS).expect(200);
    delete(&cluster, "/api/v1/namespaces/default/serviceaccounts/web");
    with_token(&cluster, &free, PODS).expect(401);
    account(&cluster, "web");
    with_token(&cluster, &free, PODS).expect(401);
}

#[test]
fn a_token_that_cannot_be_given_is_refused_in_upstreams_words() {
    let cluster = Cluster::api_alone();
    account(&cluster, "web");
    account(&cluster, "other");
    create(&cluster, PODS, &pod("p", "other", "true"));
    let refused = |spec: &Value| {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let path = "http://petset/api/v1/namespaces/default/serviceaccounts/web/token";
        let reply = cluster.curl(&[
            "--unix-socket",
            &cluster.data("api.sock"),
            path,
            "-H",
            "Content-Type: application/json",
            "-d",
            &request.to_string(),
        ]);
        let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
        (reply.code, message)
    };
    for (spec, code, message) in [
        (
            json!({"expirationSeconds": 599}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}),
            400,
            "cannot bind token for serviceaccount \"web\" to pod running with different serviceaccount name.",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "gone"}}),
            404,
            "pods \"gone\" not found",
        ),
    ] {
        assert_eq!(refused(&spec), (code, message.to_owned()));
    }
}

#[test]
fn a_pod_reaches_the_api_by_what_it_finds_in_its_container() {
    let cluster = Cluster::up();
    account(&cluster, "reader");
    bind_account(&cluster, "reader", "view");
    let script = r#"
        d=/var/run/secrets/kubernetes.io/serviceaccount
        [ -d $d ] || d=$PETSET_ROOT$d
        while sleep 0.2; do
          curl -q -sS --noproxy '*' --cacert $d/ca.crt -H "Authorization: Bearer $(cat $d/token)" \
            "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat $d/namespace)/pods/p" \
            | grep -q '"name": *"p"' && echo reached && exit 0
        done"#;
    create(&cluster, PODS, &pod("p", "reader", script));
    cluster.until("pod p", |pod| pod["status"]["phase"] == "Succeeded");
    assert!(cluster.kubectl("logs p").contains("reached"));
    let mut unmounted = pod(
        "bare",
        "reader",
        "[ ! -e /var/run/secrets/kubernetes.io/serviceaccount/token ]",
    );
    unmounted["spec"]["automountServiceAccountToken"] = false.into();
    let made = create(&cluster, PODS, &unmounted);
    assert_eq!(made["spec"].get("volumes"), None, "{made}");
    cluster.until("pod bare", |pod| pod["status"]["phase"] == "Succeeded");
}

#[test]
fn pythons_library_finds_its_in_cluster_configuration() {
    let cluster = Cluster::up();
    let venv = cluster.home().join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).ok();
    let pip = venv.join("bin/pip");
    run(Command::new(pip).args(["install", "-q", "--disable-pip-version-check", "kubernetes"])).ok();
    account(&cluster, "reader");
    bind_account(&cluster, "reader", "view");
    let program = cluster.write(
        "incluster.py",
        "
import os, time
from kubernetes import client, config
from kubernetes.config import incluster_config as i
root = os.environ.get('PETSET_ROOT', '')
if not os.path.exists(i.SERVICE_TOKEN_FILENAME):
    i.InClusterConfigLoader(root + i.SERVICE_TOKEN_FILENAME, root + i.SERVICE_CERT_FILENAME).load_and_set()
else:
    config.load_incluster_config()
while True:
    try:
        print([p.metadata.name for p in client.CoreV1Api().list_namespaced_pod('default').items])
        break
    except client.ApiException as refused:
        print(refused.status)
        time.sleep(0.2)
",
    );
    let python = venv.join("bin/python").display().to_string();
    let mut object = pod("p", "reader", "true");
    object["spec"]["containers"][0]["command"] = json!([python, program]);
    create(&cluster, PODS, &object);
    let ended = cluster.until("pod p", |pod| {
        ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
    });
    assert_eq!(
        ended["status"]["phase"],
        "Succeeded",
        "{}",
        cluster.kubectl("logs p")
    );
    assert!(cluster.kubectl("logs p").contains("['p']"));
}

#[test]
fn a_secret_for_an_account_is_filled_and_goes_with_it() {
    let cluster = Cluster::up();
    account(&cluster, "robot");
    let secret = json!({
        "metadata": {"name": "robot", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    });
    create(&cluster, "/api/v1/namespaces/default/secrets", &secret);
    cluster.until("secret robot", |secret| {
        ["ca.crt", "namespace", "token"]
            .iter()
            .all(|key| secret["data"][key].is_string())
    });
    let text = cluster.kubectl("get secret robot -o go-template={{.data.token|base64decode}}");
    let me = with_token(&cluster, &text, "/api/v1/namespaces/default/pods").expect(403);
    let message = me["message"].as_str().unwrap_or_default().to_owned();
    assert!(
        message.contains("User \"system:serviceaccount:default:robot\" cannot list resource \"pods\""),
        "{message}"
    );
    delete(&cluster, "/api/v1/namespaces/default/serviceaccounts/robot");
    with_token(&cluster, &text, "/api/v1/namespaces/default/pods").expect(401);
    cluster.until_gone("secret robot");
}

#[test]
fn the_api_is_a_service_that_repairs_itself() {
    let cluster = Cluster::up();
    let service = cluster.get("svc kubernetes");
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let port: u64 = cluster
        .address("api")
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port);
    assert_eq!(
        cluster.get("endpoints kubernetes")["subsets"][0]["ports"][0]["port"],
        port
    );
    let slice = cluster.get("endpointslice kubernetes");
    assert_eq!(
        slice["metadata"]["labels"]["kubernetes.io/service-name"],
        "kubernetes"
    );
    let uid = service["metadata"]["uid"].clone();
    delete(&cluster, "/api/v1/namespaces/default/services/kubernetes");
    cluster.until("svc kubernetes", |service| service["metadata"]["uid"] != uid);
    eventually("its name answers", PATIENCE, || {
        let dug = cluster.dig("kubernetes.default.svc.cluster.local", "A");
        (dug.data() == ["10.96.0.1"])
            .then_some(())
            .ok_or_else(|| format!("{dug:?}"))
    });
    let names = run(Command::new("sh").args([
        "-c",
        "openssl x509 -noout -ext subjectAltName -in \"$0\"",
        &cluster.data("pki/apiserver.crt"),
    ]))
    .ok();
    for name in [
        "DNS:kubernetes,",
        "DNS:kubernetes.default,",
        "DNS:kubernetes.default.svc,",
        "DNS:kubernetes.default.svc.cluster.local",
        "DNS:localhost",
        "IP Address:10.96.0.1",
        "IP Address:127.0.0.1",
    ] {
        assert!(names.contains(name), "{name} in {names}");
    }
}
