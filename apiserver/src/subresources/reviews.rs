//! Questions to the server that nothing is stored of: who am I, what may I do, whose token is this.

use crate::auth::User;
use crate::authorization::{Attributes, Mode};
use crate::body::Expected;
use crate::call::Call;
use crate::error::{Error, Target};
use crate::managed_fields::{self, Writer};
use crate::options::WriteOptions;
use crate::path::ResourcePath;
use crate::resource::{Kind, Names};
use crate::resources::parts;
use crate::respond;
use crate::validation::Invalid;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::rbac::v1::PolicyRule;
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
        "SelfSubjectRulesReview" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default().to_owned();
            review["spec"] = json!({});
            rules(call, &namespace).await?
        }
        "TokenReview" => token(call, spec).await?,
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        kind => access(call, kind, spec).await?,
    };
    review["status"] = status;
    Ok(respond::value(call, &review, StatusCode::CREATED))
}

/// Whether the user in the review, or the one who asks, may do what the review says.
async fn access(call: &Call, kind: &str, spec: &Value) -> Result<Value, Error> {
    let for_itself = kind == "SelfSubjectAccessReview";
    let problems = access_problems(kind, spec);
    if !problems.is_empty() {
        let target = Target {
            group: "authorization.k8s.io".into(),
            resource: kind.into(),
            name: String::new(),
        };
        return Err(Error::Invalid(target, problems));
    }
    let namespace = call.namespace().unwrap_or_default();
    if kind == "LocalSubjectAccessReview" && spec["resourceAttributes"]["namespace"] != namespace {
        return Err(Error::BadRequest(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    let user = match for_itself {
        true => call.user.clone(),
        false => User {
            name: spec["user"].as_str().unwrap_or_default().to_owned(),
            groups: parts::texts(&spec["groups"]).map(str::to_owned).collect(),
            uid: spec["uid"].as_str().map(str::to_owned),
            extra: serde_json::from_value(spec["extra"].clone()).unwrap_or_default(),
        },
    };
    let decision = call.server.authorize(&user, &attributes(spec)).await?;
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(status)
}

fn access_problems(kind: &str, spec: &Value) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() && path.is_object() {
        let detail = "cannot be specified in combination with resourceAttributes";
        problems.push(Invalid::malformed(
            "spec.nonResourceAttributes",
            path.clone(),
            detail,
        ));
    }
    if !resource.is_object() && !path.is_object() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        problems.push(Invalid::malformed("spec.resourceAttributes", Value::Null, detail));
    }
    let nobody = spec["user"].as_str().unwrap_or_default().is_empty()
        && parts::items(&spec["groups"]).next().is_none();
    if kind != "SelfSubjectAccessReview" && nobody {
        let detail = "at least one of user or group must be specified";
        problems.push(Invalid::malformed("spec.user", "", detail));
    }
    problems
}

fn attributes(spec: &Value) -> Attributes {
    let path = &spec["nonResourceAttributes"];
    let asked = if path.is_object() {
        path
    } else {
        &spec["resourceAttributes"]
    };
    let text = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
    Attributes {
        verb: text("verb"),
        group: text("group"),
        namespace: text("namespace"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        path: path.is_object().then(|| text("path")),
    }
}

/// Everything that the user may do in a namespace.
async fn rules(call: &Call, namespace: &str) -> Result<Value, Error> {
    if namespace.is_empty() {
        return Err(Error::BadRequest("no namespace on request".into()));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    let mut add = |rule: &PolicyRule| match &rule.non_resource_urls {
        Some(urls) if !urls.is_empty() => {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": urls}));
        }
        _ => resources.push(json!(rule)),
    };
    let mut lost = Vec::new();
    if call.server.options.authorization == Mode::AlwaysAllow {
        let all = || Some(vec!["*".to_owned()]);
        add(&PolicyRule {
            verbs: vec!["*".into()],
            api_groups: all(),
            resources: all(),
            ..PolicyRule::default()
        });
        add(&PolicyRule {
            verbs: vec!["*".into()],
            non_resource_urls: all(),
            ..PolicyRule::default()
        });
    } else {
        lost = call.server.policy().await?.visit(&call.user, namespace, |held| {
            add(held.rule);
            true
        });
    }
    let mut status = json!({
        "resourceRules": resources,
        "nonResourceRules": paths,
        "incomplete": !lost.is_empty(),
    });
    if !lost.is_empty() {
        status["evaluationError"] = lost.join(", ").into();
    }
    Ok(status)
}

async fn token(call: &Call, spec: &Value) -> Result<Value, Error> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Error::BadRequest(
            "token is required for TokenReview in authentication".into(),
        ));
    }
    let audiences: Vec<String> = parts::texts(&spec["audiences"]).map(str::to_owned).collect();
    let reviewed = call.server.authenticator().review(token, &audiences).await;
    Ok(match reviewed {
        Ok((user, audiences)) => json!({
            "authenticated": true,
            "user": user_info(&user),
            "audiences": audiences,
        }),
        Err(why) => json!({"user": {}, "error": why}),
    })
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
