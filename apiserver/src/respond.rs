//! Answers: an object, a list, a Status, in the form that the client asked for.

use crate::call::Call;
use crate::error::{Error, Target};
use crate::negotiation::{Output, PROTOBUF};
use crate::resource::Kind;
use crate::schema::protobuf;
use crate::stored::{self, Form};
use crate::table;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use store::Entry;

/// The most bytes of warnings that a response carries.
const WARNINGS_LIMIT: usize = 4096;

/// One object.
pub fn object(call: &Call, object: &Value, code: StatusCode) -> Response {
    object_of(call, call.kind, object, code)
}

/// One object of another kind than the path's.
pub fn object_of(call: &Call, kind: &dyn Kind, object: &Value, code: StatusCode) -> Response {
    let shown = match call.output {
        Output::Json | Output::Yaml | Output::Protobuf => return value(call, object, code),
        Output::PartialObjectMetadata => table::partial_object_metadata(object),
        Output::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let now = (call.server.options.clock)();
            table::table(
                kind,
                std::slice::from_ref(object),
                without_nulls(metadata),
                call.include,
                true,
                now,
            )
        }
    };
    value(call, &shown, code)
}

/// One stored object; plain JSON needs no decoding.
pub fn entry(call: &Call, entry: &Entry) -> Response {
    if call.output != Output::Json || call.pretty {
        return object(call, &stored::decode(call.kind, entry), StatusCode::OK);
    }
    let mut out = Vec::with_capacity(entry.value.len() + 128);
    stored::write(call.kind, &entry.value, entry.modified, Form::Object, &mut out);
    out.push(b'\n');
    json_bytes(StatusCode::OK, out)
}

/// A list of stored objects; plain JSON needs no decoding.
pub fn list(call: &Call, entries: &[Entry], metadata: &Value) -> Response {
    if call.output == Output::Json && !call.pretty {
        return json_bytes(StatusCode::OK, plain_list(call, entries, metadata));
    }
    let objects: Vec<Value> = entries
        .iter()
        .map(|entry| stored::decode(call.kind, entry))
        .collect();
    list_of_values(call, objects, metadata)
}

/// A list of objects that carry their `apiVersion` and `kind`.
pub fn list_of_values(call: &Call, mut objects: Vec<Value>, metadata: &Value) -> Response {
    let shown = match call.output {
        Output::Table => {
            let now = (call.server.options.clock)();
            table::table(call.kind, &objects, metadata.clone(), call.include, true, now)
        }
        Output::PartialObjectMetadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": objects.iter().map(table::partial_object_metadata).collect::<Vec<_>>(),
        }),
        Output::Json | Output::Yaml | Output::Protobuf => {
            for object in objects.iter_mut().filter_map(Value::as_object_mut) {
                object.remove("kind");
                object.remove("apiVersion");
            }
            json!({
                "kind": format!("{}List", call.kind.names().kind),
                "apiVersion": stored::api_version(call.kind),
                "metadata": metadata,
                "items": objects,
            })
        }
    };
    value(call, &shown, StatusCode::OK)
}

fn plain_list(call: &Call, entries: &[Entry], metadata: &Value) -> Vec<u8> {
    let size: usize = entries.iter().map(|entry| entry.value.len() + 32).sum();
    let mut out = Vec::with_capacity(size + 128);
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
        call.kind.names().kind,
        stored::api_version(call.kind)
    );
    out.extend_from_slice(head.as_bytes());
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        stored::write(call.kind, &entry.value, entry.modified, Form::Item, &mut out);
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// A success without an object: what was done to which.
pub fn success(call: &Call, target: &Target, uid: &str, code: StatusCode) -> Response {
    let mut details = json!({"name": target.name, "kind": target.resource});
    if !target.group.is_empty() {
        details["group"] = target.group.as_str().into();
    }
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    value(call, &status, code)
}

/// A success with a code and nothing else: what bindings and evictions answer.
pub fn created(call: &Call) -> Response {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    });
    value(call, &status, StatusCode::CREATED)
}

/// Any value in the encoding that was asked for; JSON if it is of a type that has no protobuf form.
pub fn value(call: &Call, value: &Value, code: StatusCode) -> Response {
    if call.output == Output::Protobuf
        && let Some(bytes) = protobuf::encode(value)
    {
        return (code, [(header::CONTENT_TYPE, PROTOBUF)], bytes).into_response();
    }
    let output = match call.output {
        Output::Protobuf => Output::Json,
        other => other,
    };
    let headers = [(header::CONTENT_TYPE, output.content_type())];
    (code, headers, output.encode(value, call.pretty)).into_response()
}

/// An error, in protobuf if that was asked for; its headers stay.
pub fn error(call: &Call, error: Error) -> Response {
    let status = (call.output == Output::Protobuf).then(|| error.status());
    let mut response = error.into_response();
    let bytes = status.as_ref().and_then(protobuf::encode);
    if let Some(bytes) = bytes {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        headers.remove(header::CONTENT_LENGTH);
        *response.body_mut() = bytes.into();
    }
    response
}

fn json_bytes(code: StatusCode, bytes: Vec<u8>) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    value
}

/// Put `Warning: 299 - "TEXT"` headers into a response.
pub fn add_warnings(response: &mut Response, warnings: Vec<String>) {
    let mut size = 0;
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let value = format!("299 - \"{quoted}\"");
        size += value.len();
        if size > WARNINGS_LIMIT {
            return;
        }
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .append(HeaderName::from_static("warning"), value);
        }
    }
}
