//! Questions to the server that nothing is stored of: who am I, what may I do, whose token is this.

use crate::auth::{MASTERS, User};
use crate::body::Expected;
use crate::call::Call;
use crate::error::Error;
use crate::managed_fields::{self, Writer};
use crate::options::WriteOptions;
use crate::path::ResourcePath;
use crate::resource::{Kind, Names};
use crate::respond;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

/// A kind of question.
pub struct Review {
    names: Names,
}

impl Kind for Review {
    fn names(&self) -> &'static Names {
        let own = KINDS
            .iter()
            .find(|review| review.names.plural == self.names.plural);
        &own.expect("every review is one of KINDS").names
    }

    fn verbs(&self) -> &'static [&'static str] {
        &["create"]
    }
}

/// All of them, for discovery.
pub static KINDS: [Review; 6] = [
    review(
        "authentication.k8s.io",
        "SelfSubjectReview",
        "selfsubjectreviews",
        "selfsubjectreview",
        "io.k8s.api.authentication.v1.SelfSubjectReview",
        false,
    ),
    review(
        "authentication.k8s.io",
        "TokenReview",
        "tokenreviews",
        "tokenreview",
        "io.k8s.api.authentication.v1.TokenReview",
        false,
    ),
    review(
        "authorization.k8s.io",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        true,
    ),
    review(
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        false,
    ),
    review(
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        false,
    ),
    review(
        "authorization.k8s.io",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
        "io.k8s.api.authorization.v1.SubjectAccessReview",
        false,
    ),
];

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    schema: &'static str,
    namespaced: bool,
) -> Review {
    Review {
        names: Names {
            group,
            version: "v1",
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced,
            schema,
            storage_group: group,
        },
    }
}

/// The review that a path asks for.
pub fn of(path: &ResourcePath) -> Option<&'static dyn Kind> {
    let review = KINDS.iter().find(|review| {
        let names = &review.names;
        (names.group, names.version, names.plural) == (&path.group, &path.version, &path.plural)
    })?;
    Some(review)
}

/// Whether `kind` is a review.
pub fn is_review(kind: &dyn Kind) -> bool {
    let names = kind.names();
    KINDS
        .iter()
        .any(|review| (review.names.group, review.names.plural) == (names.group, names.plural))
}

/// Who may do anything; everybody else may do nothing. There are no roles yet: administrators and the
/// cluster's own components (service accounts among them) are trusted.
pub fn may_do_anything(user: &User) -> bool {
    trusted(&user.name, user.groups.iter().map(String::as_str))
}

fn trusted<'a>(name: &str, mut groups: impl Iterator<Item = &'a str>) -> bool {
    let component = name.starts_with("system:") && name != "system:anonymous";
    component || groups.any(|group| group == MASTERS)
}

/// Answer a review.
pub async fn answer(call: &Call, body: Body) -> Result<Response, Error> {
    let options = WriteOptions::parse("CreateOptions", &call.query)?;
    let names = call.kind.names();
    let expected = Expected {
        group: names.group,
        version: names.version,
        kind: names.kind,
    };
    let mut review = call
        .read_as(body, expected, names.schema, options.validation)
        .await?;
    let now = call.server.now();
    let writer = Writer {
        manager: &call.manager(&options),
        subresource: "",
        time: now,
    };
    managed_fields::update(names.schema, None, &mut review, writer);
    let spec = &review["spec"];
    let status = match names.kind {
        "SelfSubjectAccessReview" => access(may_do_anything(&call.user)),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let groups = spec["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            access(trusted(spec["user"].as_str().unwrap_or_default(), groups))
        }
        "SelfSubjectRulesReview" => {
            review["spec"] = json!({});
            json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            })
        }
        "TokenReview" => token(call, spec["token"].as_str().unwrap_or_default(), now),
        _ => json!({"userInfo": user_info(&call.user)}),
    };
    review["status"] = status;
    Ok(respond::value(call, &review, StatusCode::CREATED))
}

fn access(allowed: bool) -> Value {
    let mut status = json!({"allowed": allowed});
    if allowed {
        status["reason"] = "petset trusts administrators and the cluster's components".into();
    }
    status
}

fn token(call: &Call, token: &str, now: jiff::Timestamp) -> Value {
    let tokens = call.server.options.tokens.as_ref();
    match tokens.map(|tokens| tokens.verify(token, now)) {
        Some(Ok(claims)) => json!({
            "authenticated": true,
            "user": user_info(&claims.user()),
            "audiences": claims.aud,
        }),
        _ => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if let Some(uid) = &user.uid {
        info["uid"] = uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
