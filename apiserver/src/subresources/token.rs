//! `serviceaccounts/token`: a signed token for a service account.

use crate::auth::token::{Account, Grant, ISSUER};
use crate::body::Expected;
use crate::call::Call;
use crate::error::{Error, Target};
use crate::managed_fields::{self, Writer};
use crate::options::WriteOptions;
use crate::validation::Invalid;
use crate::{metadata, respond, stored};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

/// The lifetimes of tokens in seconds: the shortest, the usual, the longest.
const SHORTEST: i64 = 600;
const USUAL: i64 = 3600;
const LONGEST: i64 = 1 << 32;

const SCHEMA: &str = "io.k8s.api.authentication.v1.TokenRequest";

/// Answer a TokenRequest.
pub async fn issue(call: &Call, body: Body) -> Result<Response, Error> {
    let options = WriteOptions::parse("CreateOptions", &call.query)?;
    let expected = Expected {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
    };
    let mut request = call.read_as(body, expected, SCHEMA, options.validation).await?;
    let entry = call.server.store.get(&call.key()).await?;
    let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
    let account = stored::decode(call.kind, &entry);
    let seconds = seconds(&request, call.name())?;
    let tokens = call.server.options.tokens.as_ref();
    let tokens =
        tokens.ok_or_else(|| Error::Internal("this server has no key to sign tokens with".into()))?;

    let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
    let mut audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_string).collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let bound = &request["spec"]["boundObjectRef"];
    let pod = match bound["kind"].as_str() {
        Some("Pod") => Some(bound_pod(call, bound).await?),
        _ => None,
    };
    let now = call.server.now();
    let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let token = tokens.issue(&Grant {
        namespace: call.namespace().unwrap_or_default(),
        account: Account {
            name: call.name(),
            uid: metadata::text(&account, "uid"),
        },
        pod: pod.as_ref().map(|(name, uid)| Account { name, uid }),
        audiences: &audiences,
        expires,
        now,
    });
    request["metadata"] = json!({
        "name": call.name(),
        "namespace": call.namespace(),
        "uid": metadata::text(&account, "uid"),
        "creationTimestamp": now.to_string(),
    });
    let writer = Writer {
        manager: &call.manager(&options),
        subresource: "token",
        time: now,
    };
    managed_fields::update(SCHEMA, None, &mut request, writer);
    let bound = Some(&request["spec"]["boundObjectRef"]).filter(|bound| bound["kind"].is_string());
    let bound = bound.cloned().unwrap_or_default();
    request["spec"] = json!({
        "audiences": audiences,
        "expirationSeconds": seconds,
        "boundObjectRef": bound,
    });
    request["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
    Ok(respond::value(call, &request, StatusCode::CREATED))
}

fn seconds(request: &Value, name: &str) -> Result<i64, Error> {
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(USUAL);
    let detail = match asked {
        SHORTEST..=LONGEST => return Ok(asked),
        _ if asked < SHORTEST => "may not specify a duration less than 10 minutes",
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let target = Target {
        group: "authentication.k8s.io".into(),
        resource: "TokenRequest".into(),
        name: name.into(),
    };
    let problem = Invalid::malformed("spec.expirationSeconds", asked, detail);
    Err(Error::Invalid(target, vec![problem]))
}

/// Name and UID of the pod that a token is bound to.
async fn bound_pod(call: &Call, bound: &Value) -> Result<(String, String), Error> {
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    let namespace = call.namespace().unwrap_or_default();
    let target = || Target {
        resource: "pods".into(),
        name: text("name").into(),
        ..Target::default()
    };
    let key = format!("/core/pods/{namespace}/{}", text("name"));
    let entry = call.server.store.get(&key).await?;
    let entry = entry.ok_or_else(|| Error::NotFound(target()))?;
    let pod: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let uid = metadata::text(&pod, "uid");
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Error::Conflict(target(), why));
    }
    Ok((text("name").to_string(), uid.to_string()))
}
