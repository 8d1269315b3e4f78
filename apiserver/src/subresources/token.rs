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

/// A token for one pod that asks for exactly so many seconds is one that nobody chose: it is valid for longer,
/// for programs that read it only once.
const UNCHOSEN: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * 3600;

/// Answer a TokenRequest.
pub async fn issue(call: &Call, body: Body) -> Result<Response, Error> {
    let options = WriteOptions::parse("CreateOptions", &call.query)?;
    let expected = Expected {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
    };
    let mut request = call.read_as(body, expected, SCHEMA, options.validation).await?;
    let namespace = call.namespace().unwrap_or_default();
    fits_path(&request, namespace, call.name())?;
    let entry = call.server.store.get(&call.key()).await?;
    let entry = entry.ok_or_else(|| Error::NotFound(call.target(call.name())))?;
    let account = stored::decode(call.kind, &entry);
    let seconds = seconds(&request)?;
    let tokens = call.server.options.tokens.as_ref();
    let tokens =
        tokens.ok_or_else(|| Error::Internal("this server has no key to sign tokens with".into()))?;

    let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
    let mut audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_string).collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.into());
    }
    let bound = bound_object(call, &request["spec"]["boundObjectRef"]).await?;
    let now = call.server.now();
    let after = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let unchosen = bound.pod.is_some() && seconds == UNCHOSEN && audiences == [ISSUER];
    let token = tokens.issue(&Grant {
        namespace,
        account: Account {
            name: call.name(),
            uid: metadata::text(&account, "uid"),
        },
        pod: bound.pod.as_ref().map(Referred::account),
        secret: bound.secret.as_ref().map(Referred::account),
        node: bound.node.as_ref().map(Referred::account),
        warn_after: unchosen.then(|| after(seconds)),
        audiences: &audiences,
        expires: after(if unchosen { EXTENDED } else { seconds }),
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
    request["status"] = json!({"token": token, "expirationTimestamp": after(seconds).to_string()});
    Ok(respond::value(call, &request, StatusCode::CREATED))
}

fn refused(name: &str, problem: Invalid) -> Error {
    let target = Target {
        group: "authentication.k8s.io".into(),
        resource: "TokenRequest".into(),
        name: name.into(),
    };
    Error::Invalid(target, vec![problem])
}

/// A name or namespace in the request must be those of the path.
fn fits_path(request: &Value, namespace: &str, name: &str) -> Result<(), Error> {
    for (field, here) in [("name", name), ("namespace", namespace)] {
        let said = metadata::text(request, field);
        if !said.is_empty() && said != here {
            let detail = format!("must match the service account {field} if specified");
            return Err(refused(
                name,
                Invalid::malformed(format!("metadata.{field}"), said, detail),
            ));
        }
    }
    Ok(())
}

fn seconds(request: &Value) -> Result<i64, Error> {
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(USUAL);
    let detail = match asked {
        SHORTEST..=LONGEST => return Ok(asked),
        _ if asked < SHORTEST => "may not specify a duration less than 10 minutes",
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    Err(refused(
        "",
        Invalid::malformed("spec.expirationSeconds", asked, detail),
    ))
}

/// An object that a token mentions.
struct Referred {
    name: String,
    uid: String,
}

impl Referred {
    fn account(&self) -> Account<'_> {
        Account {
            name: &self.name,
            uid: &self.uid,
        }
    }
}

/// What a token is bound to.
#[derive(Default)]
struct BoundTo {
    pod: Option<Referred>,
    secret: Option<Referred>,
    node: Option<Referred>,
}

async fn bound_object(call: &Call, reference: &Value) -> Result<BoundTo, Error> {
    let mut bound = BoundTo::default();
    if !reference["kind"].is_string() {
        return Ok(bound);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let namespace = call.namespace().unwrap_or_default();
    let plural = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        (api_version, kind) => {
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Error::BadRequest(why));
        }
    };
    let name = text("name");
    let target = |resource: &str| Target {
        resource: resource.into(),
        name: name.into(),
        ..Target::default()
    };
    let object = lookup(call, &format!("/core/{plural}/{namespace}/{name}")).await?;
    let object = object.ok_or_else(|| Error::NotFound(target(plural)))?;
    let uid = metadata::text(&object, "uid");
    if plural == "pods" && object["spec"]["serviceAccountName"] != call.name() {
        return Err(Error::BadRequest(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name()
        )));
    }
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Error::Conflict(target(text("kind")), why));
    }
    let referred = Referred {
        name: name.into(),
        uid: uid.into(),
    };
    if plural == "secrets" {
        bound.secret = Some(referred);
        return Ok(bound);
    }
    bound.pod = Some(referred);
    if let Some(node) = object["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty())
    {
        let found = lookup(call, &format!("/core/nodes/{node}"))
            .await?
            .unwrap_or_default();
        bound.node = Some(Referred {
            name: node.into(),
            uid: metadata::text(&found, "uid").into(),
        });
    }
    Ok(bound)
}

async fn lookup(call: &Call, key: &str) -> Result<Option<Value>, Error> {
    let entry = call.server.store.get(key).await?;
    Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
}
