//! GET of a collection: everything, by selectors, page by page, now or as of an earlier revision.

use super::watch;
use crate::call::Call;
use crate::error::Error;
use crate::options::{ListOptions, VersionMatch};
use crate::respond;
use crate::selector::FieldSelector;
use crate::stored;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Entry, Revision};

const EXPIRED_PAGE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Which objects of a collection a request is about.
pub struct Scope {
    /// What their keys start with.
    pub prefix: String,
    /// The one key that can be meant, if the request names one.
    pub only: Option<String>,
}

impl Scope {
    /// By the path and the field selector.
    pub fn of(call: &Call, fields: &FieldSelector) -> Self {
        let names = call.kind.names();
        let namespace = call.namespace().or(fields
            .required("metadata.namespace")
            .filter(|namespace| names.namespaced && is_segment(namespace)));
        let name = call
            .path
            .name
            .as_deref()
            .or(fields.required("metadata.name"))
            .filter(|name| is_segment(name));
        let only = name
            .filter(|_| namespace.is_some() || !names.namespaced)
            .map(|name| stored::key(call.kind, namespace, name));
        Self {
            prefix: only
                .clone()
                .unwrap_or_else(|| stored::prefix(call.kind, namespace)),
            only,
        }
    }

    /// Whether a key under the prefix is meant.
    pub fn contains(&self, key: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == key)
    }
}

/// Whether it can be a part of a key.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// Which objects selectors select.
pub struct Filter {
    options: ListOptions,
    all: bool,
}

impl Filter {
    /// The selectors of a request; fields that the kind does not offer are refused.
    pub fn of(call: &Call, options: ListOptions) -> Result<Self, Error> {
        let offered = call.kind.selectable_fields(&Value::Null);
        let unknown = options.fields.names().find(|name| {
            !matches!(*name, "metadata.name" | "metadata.namespace")
                && !offered.iter().any(|(field, _)| field == name)
        });
        if let Some(name) = unknown {
            return Err(Error::BadRequest(if offered.is_empty() {
                format!(
                    "{name:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                format!("field label not supported: {name}")
            }));
        }
        let all = options.labels.is_empty() && options.fields.is_empty();
        Ok(Self { options, all })
    }

    /// Whether an entry is selected; it is decoded only if there is something to look at.
    pub fn selects(&self, call: &Call, entry: &Entry) -> bool {
        if self.all {
            return true;
        }
        if self.options.fields.is_empty() {
            return self.options.labels.matches(&labels(&entry.value));
        }
        let object = stored::decode(call.kind, entry);
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_string();
        let mut fields = call.kind.selectable_fields(&object);
        fields.push(("metadata.name", text("name")));
        fields.push(("metadata.namespace", text("namespace")));
        self.options.fields.matches(&fields) && self.options.labels.matches(&object["metadata"]["labels"])
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.all
    }
}

/// The labels of a stored object, without decoding the rest of it.
fn labels(bytes: &[u8]) -> Value {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        labels: Value,
    }
    let object: Result<Object, _> = serde_json::from_slice(bytes);
    object.map(|object| object.metadata.labels).unwrap_or_default()
}

/// Where the next page starts. Clients must not look inside.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of all pages; 0 means that consistency is given up.
    rv: Revision,
    /// The last key of the page before, without the collection's prefix.
    start: String,
}

impl Token {
    fn encode(revision: Revision, start: &str) -> String {
        let token = Token {
            v: "meta.k8s.io/v1".into(),
            rv: revision,
            start: start.into(),
        };
        let json = serde_json::to_vec(&token).expect("three plain fields become JSON");
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(text: &str) -> Result<Self, Error> {
        let invalid = |why: String| {
            Error::BadRequest(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len(),
            };
            invalid(format!("illegal base64 data at input byte {at}"))
        })?;
        serde_json::from_slice(&json).map_err(|_| invalid(crate::body::syntax_error(&json)))
    }
}

/// A list, or a watch if the query says so.
pub async fn list_or_watch(call: &Arc<Call>) -> Result<Response, Error> {
    let options = ListOptions::parse(&call.query, call.path.watch)?;
    if options.watch {
        return watch::watch(call.clone(), options).await;
    }
    let (entries, metadata) = select(call, options).await?;
    Ok(respond::list(call, &entries, &metadata))
}

/// The entries that a list answers with, and the list's metadata.
pub async fn select(call: &Call, options: ListOptions) -> Result<(Vec<Entry>, Value), Error> {
    let scope = Scope::of(call, &options.fields);
    let (mut at, mut after) = (None, None);
    if let Some(token) = &options.continue_token {
        let token = Token::decode(token)?;
        if options.version.is_some_and(|version| version != 0) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Error::BadRequest(why.into()));
        }
        at = Some(token.rv).filter(|revision| *revision != 0);
        after = Some(format!("{}{}", scope.prefix, token.start));
    } else if let Some(version) = options.version.filter(|version| *version != 0) {
        let exact = match options.version_match {
            Some(version_match) => version_match == VersionMatch::Exact,
            None => options.limit > 0,
        };
        let current = call.server.store.current();
        if version > current {
            return Err(Error::FutureVersion {
                requested: version,
                current,
            });
        }
        at = Some(version).filter(|_| exact);
    }
    let continued = options.continue_token.is_some();
    let limit = options.limit;
    let filter = Filter::of(call, options)?;

    let mut selected = Vec::new();
    loop {
        let wanted = if limit == 0 { 0 } else { limit - selected.len() };
        let page = call
            .server
            .store
            .list(&scope.prefix, after.as_deref(), wanted, at)
            .await;
        let page = match page {
            Err(store::Error::Compacted { .. }) if continued => {
                let start = after.as_deref().and_then(|key| key.strip_prefix(&scope.prefix));
                let token = Token::encode(0, start.unwrap_or_default());
                return Err(Error::Expired(EXPIRED_PAGE.into(), Some(token)));
            }
            page => page?,
        };
        at = Some(page.revision);
        let last = page.entries.last().map(|entry| entry.key.clone());
        let matching = |entry: &Entry| scope.contains(&entry.key) && filter.selects(call, entry);
        selected.extend(page.entries.into_iter().filter(matching));
        let more = page.remaining > 0;
        let full = limit > 0 && selected.len() >= limit;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        match (more, full, last) {
            (true, false, Some(last)) => after = Some(last),
            (true, true, Some(last)) => {
                let start = last.strip_prefix(&scope.prefix).unwrap_or_default();
                metadata["continue"] = Token::encode(page.revision, start).into();
                if filter.is_empty() {
                    metadata["remainingItemCount"] = page.remaining.into();
                }
                return Ok((selected, metadata));
            }
            _ => return Ok((selected, metadata)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_is_refused_in_upstreams_words() {
        let message = |text: &str| match Token::decode(text) {
            Ok(_) => String::new(),
            Err(error) => error.status()["message"].as_str().unwrap_or_default().to_string(),
        };
        assert_eq!(
            message("abc"),
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value"
        );
        assert_eq!(message(&Token::encode(5, "default/web")), "");
    }
}
