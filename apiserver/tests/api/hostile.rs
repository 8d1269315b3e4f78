//! Requests that no client sends: whatever comes, the answer is a Status in time, and never a 500, which is what a
//! panic would be. Valid requests are mutated. `PETSET_FUZZ_CASES` runs more of them than the usual few.

use crate::client::Api;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

/// What one answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PETSET_FUZZ_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(usual),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const PATHS: [&str; 17] = [
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/a",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/pods/a",
    "/api/v1/namespaces/default/pods/a/status",
    "/api/v1/namespaces/default/pods/a/binding",
    "/api/v1/namespaces/default/pods/a/eviction",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/services/a",
    "/api/v1/namespaces/default/persistentvolumeclaims",
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/apis/apps/v1/namespaces/default/statefulsets",
    "/apis/apps/v1/namespaces/default/statefulsets/a",
    "/apis/apps/v1/namespaces/default/statefulsets/a/scale",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
];

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"];

const MEDIA_TYPES: [&str; 9] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "",
];

const ACCEPTED: [&str; 6] = [
    "*/*",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf, application/json;q=0.5",
    "application/yaml",
    ";;q=,=/*",
];

const QUERIES: [&str; 14] = [
    "",
    "limit=1",
    "limit=2&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",
    "labelSelector=a%3Db%2Cc%20in%20(d%2Ce)%2C!f",
    "fieldSelector=metadata.name%3Da%2Cstatus.phase!%3DRunning",
    "resourceVersion=1&resourceVersionMatch=Exact",
    "resourceVersion=99999999999999999999",
    "watch=1&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    "watch=true&timeoutSeconds=1&resourceVersion=1",
    "dryRun=All&fieldManager=m&fieldValidation=Strict",
    "gracePeriodSeconds=-1&propagationPolicy=Foreground",
    "fieldManager=x&force=true",
    "pretty=true&includeObject=Object&timeout=1m",
    "timeoutSeconds=1&watch",
];

fn bodies() -> Vec<Vec<u8>> {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": {"serviceName": "a", "replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1",
                "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 80}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}});
    let texts = [
        json!({"metadata": {"name": "a"}, "data": {"k": "v"}}),
        json!({"metadata": {"name": "a", "finalizers": ["x.io/a"]}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        json!({"metadata": {"generateName": "a"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
        json!([{"op": "replace", "path": "/spec/replicas", "value": 3}, {"op": "test", "path": "/metadata/name", "value": "a"}]),
        json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "c"}],
            "containers": [{"name": "c", "$patch": "delete"}], "$retainKeys": ["containers"]}}}}),
        json!({"spec": {"replicas": 1}, "status": {"replicas": 1}}),
        json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan", "dryRun": ["All"]}),
        json!({"target": {"name": "n"}, "metadata": {"name": "a"}}),
        json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        set,
    ];
    let mut bodies: Vec<Vec<u8>> = texts.iter().map(|text| text.to_string().into_bytes()).collect();
    bodies.push(b"metadata: &m {name: a}\ndata: {k: !!binary aGk=, <<: *m}\n---\n".to_vec());
    // A ConfigMap called a with one datum, in protobuf.
    let mut envelope = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0f\x0a\x05\x0a\x01a\x2a\x00\x12\x06\x0a\x01k\x12\x01v".to_vec();
    envelope.extend_from_slice(b"\x1a\x00\x22\x00");
    bodies.push(envelope);
    bodies
}

/// Something done to bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let pieces: Vec<&[u8]> = vec![
        b"null",
        b"-1",
        b"1e999",
        b"[]",
        b"{}",
        b"\"\"",
        b"{",
        b"[[[[[[",
        b"\\ud800",
        b"\xff",
        b"\0",
        b"~",
        b"/-",
        b"99999999999999999999",
        b"\"$patch\":\"replace\",",
        b"*a",
        b"%",
        b",",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x7f",
    ];
    let pieces = prop::sample::select(pieces).prop_map(<[u8]>::to_vec);
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), pieces).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at(), 1..20_u8).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), 1..60_u8, 1..200_u8).prop_map(|(at, size, times)| Change::Repeat(at, size, times)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let size = bytes.len();
        match change {
            Change::Set(at, byte) if size > 0 => bytes[at.index(size)] = *byte,
            Change::Insert(at, piece) => {
                let at = at.index(size + 1);
                bytes.splice(at..at, piece.iter().copied());
            }
            Change::Remove(at, count) if size > 0 => {
                let at = at.index(size);
                bytes.drain(at..(at + usize::from(*count)).min(size));
            }
            Change::Repeat(at, count, times) if size > 0 => {
                let at = at.index(size);
                let piece = bytes[at..(at + usize::from(*count)).min(size)].repeat((*times).into());
                bytes.splice(at..at, piece);
            }
            _ => {}
        }
    }
    bytes
}

/// The answer must come, and be what every answer is.
async fn check(api: &Api, request: Request<Bytes>) -> Result<(), TestCaseError> {
    let shown = format!("{request:?}");
    let answered = tokio::time::timeout(PATIENCE, async {
        let response = api
            .router
            .clone()
            .oneshot(request.map(Body::from))
            .await
            .expect("the router cannot fail");
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    });
    let Ok((parts, bytes)) = answered.await else {
        return Err(TestCaseError::fail(format!("no answer in time: {shown}")));
    };
    let code = parts.status.as_u16();
    prop_assert!(code != 500, "{shown}: {}", String::from_utf8_lossy(&bytes));
    let media_type = parts
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if code >= 400 && media_type == "application/json" && !bytes.is_empty() {
        let status: Value =
            serde_json::from_slice(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&status["kind"], "Status", "{}", shown);
        prop_assert_eq!(&status["code"], code, "{}", shown);
    }
    Ok(())
}

fn request(
    method: &str,
    uri: &[u8],
    headers: [(&'static str, Vec<u8>); 2],
    body: Vec<u8>,
) -> Option<Request<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, HeaderValue::from_bytes(&value).ok()?);
    }
    request.body(body.into()).ok()
}

/// One server for a round of cases: what they create and delete is part of the mess.
fn run(cases: u32, strategy: impl Strategy<Value = Request<Bytes>>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let api = runtime.block_on(async {
        let api = Api::start().await;
        let set: Value = serde_json::from_slice(&bodies()[9]).expect("JSON");
        api.post("/apis/apps/v1/namespaces/default/statefulsets", set)
            .await;
        let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        api.post("/api/v1/namespaces/default/configmaps", map).await;
        api
    });
    let mut runner = proptest::test_runner::TestRunner::new(config(cases));
    let outcome = runner.run(&strategy, |request| runtime.block_on(check(&api, request)));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn mutated_bodies_are_answered_with_a_status() {
    let strategy = (
        prop::sample::select(METHODS[1..5].to_vec()),
        prop::sample::select(PATHS.to_vec()),
        prop::sample::select(MEDIA_TYPES.to_vec()),
        prop::sample::select(bodies()),
        prop::collection::vec(change(), 0..4),
    );
    let strategy = strategy.prop_filter_map("a request", |(method, path, media_type, body, changes)| {
        let headers = [("content-type", media_type.into()), ("accept", b"*/*".to_vec())];
        let uri = format!("{path}?fieldManager=m");
        request(method, uri.as_bytes(), headers, changed(body, &changes))
    });
    run(400, strategy);
}

#[test]
fn mutated_paths_queries_and_headers_are_answered_with_a_status() {
    let strategy = (
        prop::sample::select(METHODS.to_vec()),
        prop::sample::select(PATHS.to_vec()),
        prop::sample::select(QUERIES.to_vec()),
        prop::sample::select(ACCEPTED.to_vec()),
        [
            prop::collection::vec(change(), 0..2),
            prop::collection::vec(change(), 0..3),
            prop::collection::vec(change(), 0..2),
        ],
    );
    let strategy = strategy.prop_filter_map("a request", |(method, path, query, accept, changes)| {
        let path = changed(path.into(), &changes[0]);
        let query = changed(query.into(), &changes[1]);
        let accept = changed(accept.into(), &changes[2]);
        let headers = [("content-type", b"application/json".to_vec()), ("accept", accept)];
        // A watch without a short timeout would go on for an hour.
        let query = String::from_utf8_lossy(&query).replace("timeoutSeconds", "x");
        let uri = [&path[..], b"?timeoutSeconds=1&", query.as_bytes()].concat();
        request(method, &uri, headers, bodies().swap_remove(1))
    });
    run(150, strategy);
}
