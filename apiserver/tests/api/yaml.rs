//! Manifests sent as YAML, as people paste them.

use crate::client::{Api, SETS, WEB};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

const YAML: &str = "application/yaml";

const MANIFEST: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
  annotations: {answer: 'yes', mode: '0400'}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      hostNetwork: off
      containers:
      - name: c
        image: nginx:1.27
        securityContext: {readOnlyRootFilesystem: yes}
        env: [{name: MODE, value: MODE_VALUE}]
        volumeMounts: [{name: keys, mountPath: /keys}]
      volumes:
      - name: keys
        secret: {secretName: keys, defaultMode: 0400}
";

#[tokio::test]
async fn octal_modes_and_old_booleans_mean_what_they_mean_to_upstream() {
    let api = Api::start().await;
    let manifest = MANIFEST.replace("MODE_VALUE", "'0400'");
    let response = api.send("POST", SETS, YAML, manifest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let spec = api.found(WEB).await["spec"]["template"]["spec"].clone();
    assert_eq!(spec["volumes"][0]["secret"]["defaultMode"], 0o400);
    assert_eq!(
        spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"],
        true
    );
    assert_eq!(spec["containers"][0]["env"][0]["value"], "0400");
}

#[tokio::test]
async fn a_number_or_a_boolean_is_no_text() {
    let api = Api::start().await;
    for (value, what) in [
        ("yes", "bool"),
        ("0400", "number"),
        ("on", "bool"),
        ("5432", "number"),
    ] {
        let response = api
            .send("POST", SETS, YAML, MANIFEST.replace("MODE_VALUE", value))
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{value}");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        let why = format!(
            "json: cannot unmarshal {what} into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
        );
        assert!(text.contains(&why), "{value}: {text}");
    }
}

#[tokio::test]
async fn what_is_read_as_yaml_may_be_written_back() {
    let api = Api::start().await;
    let manifest = MANIFEST.replace("MODE_VALUE", "'off'");
    assert_eq!(api.send("POST", SETS, YAML, manifest).await.status(), 201);
    let before = api.found(WEB).await;
    let request = Request::get(WEB).header("accept", YAML).body(Body::empty());
    let response = api.router.clone().oneshot(request.expect("a request")).await;
    let body = response
        .expect("the router cannot fail")
        .into_body()
        .collect()
        .await;
    let yaml = body.expect("a body").to_bytes();
    let response = api.send("PUT", WEB, YAML, yaml).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.found(WEB).await, before);
}
