//! One request to a resource: everything that a verb needs to know about it.

use crate::auth::User;
use crate::body::{self, Content, Expected};
use crate::error::{Error, Target};
use crate::negotiation::{self, NotAcceptable, Output};
use crate::options::{Query, WriteOptions};
use crate::path::ResourcePath;
use crate::resource::Kind;
use crate::schema::{self, Decoded, FieldValidation};
use crate::server::Server;
use crate::stored;
use crate::table::IncludeObject;
use axum::body::Body;
use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;
use std::sync::{Arc, Mutex};

/// A request to a resource.
pub struct Call {
    /// The server.
    pub server: Arc<Server>,
    /// Who asks.
    pub user: User,
    /// What is asked for.
    pub kind: &'static dyn Kind,
    /// The path's parts.
    pub path: ResourcePath,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The decoded query.
    pub query: Query,
    /// The form of the answer.
    pub output: Output,
    /// Whether the answer is indented.
    pub pretty: bool,
    /// What comes with a Table's rows.
    pub include: IncludeObject,
    /// Texts for `Warning` headers, of errors too.
    warnings: Mutex<Vec<String>>,
}

impl Call {
    /// What the parts of a request say. `query` is its raw query.
    pub fn new(
        server: Arc<Server>,
        user: User,
        kind: &'static dyn Kind,
        path: ResourcePath,
        parts: &http::request::Parts,
    ) -> Result<Self, Error> {
        let query = Query::of(&parts.uri);
        let collection = path.name.is_none() && path.subresource.is_none();
        let protobuf = schema::protobuf::is_known(kind.names().schema);
        let refuse = |why: NotAcceptable| Error::NotAcceptable(why, collection);
        Ok(Self {
            output: Output::from_headers(&parts.headers, protobuf).map_err(refuse)?,
            pretty: negotiation::is_pretty(parts.uri.query(), &parts.headers),
            include: IncludeObject::parse(query.get("includeObject")).map_err(Error::BadRequest)?,
            server,
            user,
            kind,
            path,
            headers: parts.headers.clone(),
            query,
            warnings: Mutex::default(),
        })
    }

    /// The namespace, for kinds that live in one.
    pub fn namespace(&self) -> Option<&str> {
        self.path
            .namespace
            .as_deref()
            .filter(|_| self.kind.names().namespaced)
    }

    /// The name in the path; empty for a collection.
    pub fn name(&self) -> &str {
        self.path.name.as_deref().unwrap_or_default()
    }

    /// The store's key of the object in the path.
    pub fn key(&self) -> String {
        self.key_of(self.name())
    }

    /// The store's key of the object `name` in the same place.
    pub fn key_of(&self, name: &str) -> String {
        stored::key(self.kind, self.namespace(), name)
    }

    /// The object `name` of this resource, for messages.
    pub fn target(&self, name: &str) -> Target {
        target(self.kind, name)
    }

    /// The same by kind, for 422.
    pub fn kind_target(&self, name: &str) -> Target {
        let names = self.kind.names();
        Target {
            group: names.group.into(),
            resource: names.kind.into(),
            name: name.into(),
        }
    }

    /// Say something in a `Warning` header.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self
            .warnings
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// What is to be said in `Warning` headers.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self
            .warnings
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut warnings)
    }

    /// Who writes, for managedFields: `?fieldManager=`, or the program in the User-Agent.
    pub fn manager(&self, options: &WriteOptions) -> String {
        if let Some(manager) = &options.field_manager {
            return manager.clone();
        }
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let program = agent.unwrap_or_default().split('/').next().unwrap_or_default();
        match program {
            "" => "unknown".into(),
            program => program.chars().take(128).collect(),
        }
    }

    /// The request's body as an object of this call's kind, with its defaults.
    pub async fn read_object(&self, body: Body, validation: FieldValidation) -> Result<Value, Error> {
        let names = self.kind.names();
        let expected = Expected {
            group: names.group,
            version: names.version,
            kind: names.kind,
        };
        let mut object = self.read_as(body, expected, names.schema, validation).await?;
        self.kind.set_defaults(&mut object);
        Ok(object)
    }

    /// The request's body as an object of any type, decoded against `schema`.
    pub async fn read_as(
        &self,
        body: Body,
        expected: Expected<'_>,
        schema: &str,
        validation: FieldValidation,
    ) -> Result<Value, Error> {
        let known = |api_version: &str, kind: &str| self.server.serves(api_version, kind);
        let handled = format!(
            "{} in version {:?} cannot be handled as a {}",
            expected.kind, expected.version, expected.kind
        );
        let decoded = match body::read_content(&self.headers, body).await? {
            Content::Json(json) => {
                body::identify(&json, expected, known)?;
                let json = if json.trim_ascii() == b"null" {
                    &b"{}"[..]
                } else {
                    &json
                };
                schema::decode(schema, json)
            }
            Content::Protobuf(_) if !schema::protobuf::is_known(schema) => {
                return Err(Error::UnsupportedMediaType(body::TEXT));
            }
            Content::Protobuf(bytes) => {
                let value = body::open(&bytes, expected, known)?.decode(schema);
                value.map(|value| Decoded {
                    value,
                    strict: Vec::new(),
                })
            }
        };
        let Decoded { mut value, strict } =
            decoded.map_err(|why| Error::BadRequest(format!("{handled}: {why}")))?;
        if !strict.is_empty() && validation == FieldValidation::Strict {
            let strict = strict.join(", ");
            return Err(Error::BadRequest(format!(
                "{handled}: strict decoding error: {strict}"
            )));
        }
        self.warn_strict(strict, validation);
        value["apiVersion"] = match expected.group {
            "" => expected.version.into(),
            group => format!("{group}/{}", expected.version).into(),
        };
        value["kind"] = expected.kind.into();
        if !value["metadata"].is_object() {
            value["metadata"] = Value::Object(serde_json::Map::new());
        }
        Ok(value)
    }

    /// Tell about unknown and duplicate fields if the client wants to know.
    pub fn warn_strict(&self, strict: Vec<String>, validation: FieldValidation) {
        if validation == FieldValidation::Warn {
            strict.into_iter().for_each(|text| self.warn(text));
        }
    }
}

/// The object `name` of `kind`, for messages.
pub fn target(kind: &dyn Kind, name: &str) -> Target {
    let names = kind.names();
    Target {
        group: names.group.into(),
        resource: names.plural.into(),
        name: name.into(),
    }
}
