//! Watches: the past, then the future, as a stream of JSON lines that ends with its timeout or the server.

use super::list::{self, Filter, Scope};
use crate::call::Call;
use crate::error::Error;
use crate::negotiation::Output;
use crate::options::ListOptions;
use crate::schema::protobuf;
use crate::stored::{self, Form};
use crate::table;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{StatusCode, header};
use rand::Rng;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Entry, Revision};
use tokio::time::Instant;

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// The shortest timeout of a watch that asks for none; up to twice as long, so that not all end at once.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// Answer a watch.
pub async fn watch(call: Arc<Call>, options: ListOptions) -> Result<Response, Error> {
    let store = call.server.store.clone();
    let scope = Scope::of(&call, &options.fields);
    let from_now = options.version.unwrap_or(0) == 0;
    let initial = options.initial_events.unwrap_or(from_now);
    let told_end = options.initial_events == Some(true) && options.bookmarks;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => TIMEOUT.mul_f64(1.0 + rand::rng().random::<f64>()),
    };
    let (bookmarks, version) = (options.bookmarks, options.version.unwrap_or(0));
    let filter = Filter::of(&call, options.clone())?;
    let content_type = match call.output {
        Output::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut watching = Watching {
        stop: call.server.options.stop.clone(),
        events: Events {
            call,
            scope,
            filter,
            with_columns: true,
        },
        source: None,
        out: Vec::new(),
        ends: Instant::now() + timeout,
        bookmark: bookmarks.then(|| Instant::now() + BOOKMARK_EVERY),
        last: false,
    };

    let mut since = version;
    if initial {
        let everything = ListOptions {
            watch: false,
            version: None,
            version_match: None,
            limit: 0,
            ..options
        };
        let (entries, metadata) = list::select(&watching.events.call, everything).await?;
        since = metadata["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        for entry in &entries {
            watching
                .events
                .write("ADDED", entry, entry.modified, &mut watching.out);
        }
        if told_end {
            watching.events.write_bookmark(since, true, &mut watching.out);
        }
    } else if from_now {
        since = store.current();
    }
    match store.watch(&watching.events.scope.prefix, since) {
        Ok(source) => watching.source = Some(source),
        // Upstream waits for the future; nothing of it can come before the timeout.
        Err(store::Error::Future { .. }) => {}
        Err(error) => watching.fail(&error),
    }
    let stream = stream::unfold(watching, |mut watching| async {
        let bytes = watching.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), watching))
    });
    let headers = [(header::CONTENT_TYPE, content_type)];
    Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
}

/// A running watch.
struct Watching {
    stop: tokio_util::sync::CancellationToken,
    events: Events,
    source: Option<Box<dyn store::Watch>>,
    /// What has been made and not been sent.
    out: Vec<u8>,
    ends: Instant,
    /// When the next bookmark is due.
    bookmark: Option<Instant>,
    /// Nothing comes after `out`.
    last: bool,
}

impl Watching {
    /// The next bytes of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.out.is_empty() {
                return Some(std::mem::take(&mut self.out).into());
            }
            if self.last {
                return None;
            }
            let due = self.bookmark.unwrap_or(self.ends);
            let changes = async {
                match &mut self.source {
                    Some(source) => source.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                changes = changes => match changes {
                    Ok(changes) => {
                        for change in &changes {
                            self.events.write_change(change, &mut self.out);
                        }
                    }
                    Err(error) => self.fail(&error),
                },
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep_until(due) => {
                    self.bookmark = Some(Instant::now() + BOOKMARK_EVERY);
                    if let Some(source) = &mut self.source {
                        self.events.write_bookmark(source.progress(), false, &mut self.out);
                    }
                }
            }
        }
    }

    /// Tell an error as the last event.
    fn fail(&mut self, error: &store::Error) {
        let error = match error {
            store::Error::Compacted { requested, oldest } => {
                let message = format!("too old resource version: {requested} ({oldest})");
                Error::Expired(message, None)
            }
            other => other.clone().into(),
        };
        self.events.write_value("ERROR", &error.status(), &mut self.out);
        self.last = true;
    }
}

/// Makes events of changes.
struct Events {
    call: Arc<Call>,
    scope: Scope,
    filter: Filter,
    /// Only the first Table of a watch has columns.
    with_columns: bool,
}

impl Events {
    fn write_change(&mut self, change: &Change, out: &mut Vec<u8>) {
        if !self.scope.contains(&change.key) {
            return;
        }
        let selected = |entry: &&Entry| self.filter.selects(&self.call, entry);
        let before = change.before.as_ref().filter(selected);
        let after = change.after.as_ref().filter(selected);
        // What is deleted, or no longer selected, is shown as it was, at the revision of its going.
        match (before, after) {
            (None, Some(after)) => self.write("ADDED", after, change.revision, out),
            (Some(_), Some(after)) => self.write("MODIFIED", after, change.revision, out),
            (Some(before), None) => self.write("DELETED", before, change.revision, out),
            (None, None) => {}
        }
    }

    fn write(&mut self, event: &str, entry: &Entry, revision: Revision, out: &mut Vec<u8>) {
        if !matches!(self.call.output, Output::Json | Output::Yaml) {
            let object = stored::decode_at(self.call.kind, &entry.value, revision);
            let shown = self.show(&object);
            return self.write_value(event, &shown, out);
        }
        out.extend_from_slice(format!(r#"{{"type":"{event}","object":"#).as_bytes());
        stored::write(self.call.kind, &entry.value, revision, Form::Object, out);
        out.extend_from_slice(b"}\n");
    }

    /// Write an event about an object in the form that it is to be shown in.
    fn write_value(&self, event: &str, object: &Value, out: &mut Vec<u8>) {
        if self.call.output == Output::Protobuf {
            // A kind without a protobuf form was not negotiated, and a Status has one.
            return out.extend(protobuf::watch_event(event, object).unwrap_or_default());
        }
        let event = json!({"type": event, "object": object});
        out.extend_from_slice(event.to_string().as_bytes());
        out.push(b'\n');
    }

    fn write_bookmark(&mut self, revision: Revision, ends_initial: bool, out: &mut Vec<u8>) {
        let mut object = json!({
            "kind": self.call.kind.names().kind,
            "apiVersion": stored::api_version(self.call.kind),
            "metadata": {"resourceVersion": revision.to_string()},
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shown = self.show(&object);
        self.write_value("BOOKMARK", &shown, out);
    }

    /// An object in the form that the client asked for.
    fn show(&mut self, object: &Value) -> Value {
        match self.call.output {
            Output::Json | Output::Yaml | Output::Protobuf => object.clone(),
            Output::PartialObjectMetadata => table::partial_object_metadata(object),
            Output::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table::table(
                    self.call.kind,
                    std::slice::from_ref(object),
                    metadata,
                    self.call.include,
                    std::mem::take(&mut self.with_columns),
                    (self.call.server.options.clock)(),
                )
            }
        }
    }
}
