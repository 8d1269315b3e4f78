//! Event: what happened to an object. Stored in the form of the core group; `events.k8s.io` shows the same
//! objects under other names of their fields and checks new ones more strictly.

use super::changes::immutable;
use super::parts;
use crate::resource::{Column, Kind, Names};
use crate::table;
use crate::validation::{Invalid, names};
use serde_json::Value;

/// The longest texts that a new-style event may have, in bytes.
const MAX_WORD_BYTES: usize = 128;
const MAX_NOTE_BYTES: usize = 1024;

static CORE_NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    schema: "io.k8s.api.core.v1.Event",
    storage_group: "",
};

static NEW_NAMES: Names = Names {
    group: "events.k8s.io",
    schema: "io.k8s.api.events.v1.Event",
    ..CORE_NAMES
};

static COLUMNS: [Column; 10] = [
    parts::column("Last Seen", LAST_SEEN),
    parts::column("Type", TYPE),
    parts::column("Reason", REASON),
    parts::column("Object", "The object that this event is about."),
    parts::wide("Subobject", SUBOBJECT),
    parts::wide("Source", SOURCE),
    parts::column(
        "Message",
        "A human-readable description of the status of this operation.",
    ),
    parts::wide("First Seen", FIRST_SEEN),
    parts::wide("Count", "The number of times this event has occurred."),
    Column {
        priority: 1,
        ..parts::NAME
    },
];

// The words are those of the core group's schema; the other group's schema has others.
const LAST_SEEN: &str = "The time at which the most recent occurrence of this event was recorded.";
const TYPE: &str = "Type of this event (Normal, Warning), new types could be added in the future";
const REASON: &str = "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.";
const SUBOBJECT: &str = "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.";
const SOURCE: &str = "The component reporting this event. Should be a short machine understandable string.";
const FIRST_SEEN: &str =
    "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)";

/// The fields whose names differ: core, `events.k8s.io`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The event of the core group.
pub struct CoreEvent;

impl Kind for CoreEvent {
    fn names(&self) -> &'static Names {
        &CORE_NAMES
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        lenient(object)
    }

    // Events of the core group may have any name that fits into a path.
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let involved = &object["involvedObject"];
        let component = text(&object["source"]["component"]);
        let reporter = text(&object["reportingComponent"]);
        vec![
            ("involvedObject.kind", text(&involved["kind"])),
            ("involvedObject.namespace", text(&involved["namespace"])),
            ("involvedObject.name", text(&involved["name"])),
            ("involvedObject.uid", text(&involved["uid"])),
            ("involvedObject.apiVersion", text(&involved["apiVersion"])),
            (
                "involvedObject.resourceVersion",
                text(&involved["resourceVersion"]),
            ),
            ("involvedObject.fieldPath", text(&involved["fieldPath"])),
            ("reason", text(&object["reason"])),
            ("reportingComponent", reporter.clone()),
            ("source", if component.is_empty() { reporter } else { component }),
            ("type", text(&object["type"])),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

/// The event of `events.k8s.io`.
pub struct Event;

impl Kind for Event {
    fn names(&self) -> &'static Names {
        &NEW_NAMES
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value) -> Vec<Invalid> {
        let event = stored(object);
        let mut invalid = lenient(&event);
        invalid.extend(series(&event));
        if event["eventTime"].is_null() {
            invalid.push(Invalid::required("eventTime", ""));
        }
        let kind = event["type"].as_str().unwrap_or_default();
        if !["Normal", "Warning"].contains(&kind) {
            let detail = format!("has invalid value: {kind}");
            invalid.push(Invalid::malformed("type", "", detail));
        }
        let source = &event["source"];
        let unset = [
            ("firstTimestamp", event["firstTimestamp"].is_null()),
            ("lastTimestamp", event["lastTimestamp"].is_null()),
            ("count", event["count"].as_i64().unwrap_or_default() == 0),
            (
                "source",
                ["component", "host"]
                    .iter()
                    .all(|f| parts::text(&source[*f]) == ""),
            ),
        ];
        for (field, _) in unset.iter().filter(|(_, unset)| !unset) {
            invalid.push(Invalid::malformed(*field, "", "needs to be unset"));
        }
        invalid
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Invalid> {
        let (new, old) = (stored(new), stored(old));
        let mut invalid = lenient(&new);
        if new["series"] != old["series"] {
            invalid.extend(series(&new));
        }
        for (field, shown) in [
            ("involvedObject", "involvedObject"),
            ("reason", "reason"),
            ("message", "message"),
            ("source", "source"),
            ("firstTimestamp", "firstTimestamp"),
            ("lastTimestamp", "lastTimestamp"),
            ("count", "count"),
            ("reason", "reason"),
            ("type", "type"),
            ("eventTime", "eventTime"),
            ("action", "action"),
            ("related", "related"),
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ] {
            invalid.extend(immutable(shown, &new[field], &old[field]));
        }
        invalid
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let renamed = |field: &'static str| match field {
            "involvedObject.kind" => Some("regarding.kind"),
            "involvedObject.namespace" => Some("regarding.namespace"),
            "involvedObject.name" => Some("regarding.name"),
            "involvedObject.uid" => Some("regarding.uid"),
            "involvedObject.apiVersion" => Some("regarding.apiVersion"),
            "involvedObject.resourceVersion" => Some("regarding.resourceVersion"),
            "involvedObject.fieldPath" => Some("regarding.fieldPath"),
            "reportingComponent" => Some("reportingController"),
            "reason" | "type" => Some(field),
            _ => None,
        };
        let fields = CoreEvent.selectable_fields(&stored(object)).into_iter();
        fields
            .filter_map(|(field, value)| Some((renamed(field)?, value)))
            .collect()
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        cells(&stored(object), now)
    }

    fn from_storage(&self, object: &mut Value) {
        rename(object, RENAMED);
        // The core group shows these set or not, this one only if they are.
        for field in ["reportingController", "reportingInstance"] {
            if object[field] == ""
                && let Some(object) = object.as_object_mut()
            {
                object.remove(field);
            }
        }
    }

    fn to_storage(&self, object: &mut Value) {
        rename(object, RENAMED.map(|(core, new)| (new, core)));
        // The core group shows these set or not.
        for field in ["reportingComponent", "reportingInstance"] {
            if object[field].is_null() {
                object[field] = "".into();
            }
        }
    }
}

/// An event of `events.k8s.io` in the form of the core group.
fn stored(object: &Value) -> Value {
    let mut object = object.clone();
    Event.to_storage(&mut object);
    object
}

fn rename(object: &mut Value, names: [(&str, &str); 7]) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = object.remove(from) {
            object.insert(to.to_owned(), value);
        }
    }
}

/// The rules for every event; the paths are those of the stored form, as upstream's are.
fn lenient(event: &Value) -> Vec<Invalid> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let involved = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
    let agrees = match (event["eventTime"].is_null(), involved.is_empty()) {
        (true, true) => ["", "default"].contains(&namespace),
        (true, false) => involved == namespace,
        (false, true) => ["default", "kube-system"].contains(&namespace),
        (false, false) => true,
    };
    let mut invalid = Vec::new();
    if !agrees {
        let detail = "does not match event.namespace";
        invalid.push(Invalid::malformed("involvedObject.namespace", involved, detail));
    }
    if !event["eventTime"].is_null() {
        let controller = text("reportingComponent");
        if controller.is_empty() {
            invalid.push(Invalid::required("reportingController", ""));
        }
        let messages = names::qualified_name(controller);
        invalid.extend(Invalid::each("reportingController", controller, messages));
        for field in ["reportingInstance", "action", "reason"] {
            if text(field).is_empty() {
                invalid.push(Invalid::required(field, ""));
            }
            invalid.extend(too_long(field, text(field), MAX_WORD_BYTES));
        }
        invalid.extend(too_long("message", text("message"), MAX_NOTE_BYTES));
    }
    invalid.extend(Invalid::each(
        "namespace",
        namespace,
        names::dns1123_subdomain(namespace),
    ));
    invalid
}

fn too_long(field: &str, text: &str, max: usize) -> Option<Invalid> {
    let detail = format!("can have at most {max} characters");
    (text.len() > max).then(|| Invalid::malformed(field, "", detail))
}

fn series(event: &Value) -> Vec<Invalid> {
    let series = &event["series"];
    let mut invalid = Vec::new();
    if series.is_null() {
        return invalid;
    }
    if series["count"].as_i64().unwrap_or_default() < 2 {
        invalid.push(Invalid::malformed("series.count", "", "should be at least 2"));
    }
    if series["lastObservedTime"].is_null() {
        invalid.push(Invalid::required("series.lastObservedTime", ""));
    }
    invalid
}

/// The row of an event in the form of the core group.
fn cells(event: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let first_set = |times: &[&Value]| {
        let set = times.iter().find(|time| !time.is_null());
        table::age(set.unwrap_or(&&Value::Null), now)
    };
    let (first, time) = (&event["firstTimestamp"], &event["eventTime"]);
    let series = &event["series"];
    let (last_seen, count) = if series.is_null() {
        // A single event of the new kind has no count.
        let count = event["count"].as_i64().filter(|count| *count != 0).unwrap_or(1);
        (first_set(&[&event["lastTimestamp"], first, time]), count)
    } else {
        let count = series["count"].as_i64().unwrap_or_default();
        (first_set(&[&series["lastObservedTime"]]), count)
    };
    let involved = &event["involvedObject"];
    let mut object = text(&involved["kind"]).to_lowercase();
    if let Some(name) = involved["name"].as_str().filter(|name| !name.is_empty()) {
        object = format!("{object}/{name}");
    }
    vec![
        last_seen,
        parts::text(&event["type"]),
        parts::text(&event["reason"]),
        object.into(),
        parts::text(&involved["fieldPath"]),
        source(event).into(),
        text(&event["message"]).trim().into(),
        first_set(&[first, time]),
        count.into(),
        parts::name(event),
    ]
}

/// `component, host`: the old fields if they are set, else the new ones.
fn source(event: &Value) -> String {
    let either = |old: &Value, new: &Value| {
        let set = [old, new]
            .into_iter()
            .filter_map(Value::as_str)
            .find(|text| !text.is_empty());
        set.unwrap_or_default().to_owned()
    };
    let component = either(&event["source"]["component"], &event["reportingComponent"]);
    match either(&event["source"]["host"], &event["reportingInstance"]) {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Value {
        json!({
            "metadata": {"name": "e", "namespace": "n"},
            "regarding": {"kind": "Pod", "name": "p", "namespace": "n"},
            "eventTime": "2024-01-01T00:00:00.000000Z",
            "reportingController": "example.com/c", "reportingInstance": "c-1",
            "action": "Did", "reason": "R", "note": "m", "type": "Normal",
        })
    }

    fn fields(invalid: &[Invalid]) -> Vec<&str> {
        invalid.iter().map(|i| i.field.as_str()).collect()
    }

    #[test]
    fn both_groups_show_the_same_event() {
        let mut object = event();
        Event.to_storage(&mut object);
        assert_eq!(object["involvedObject"]["name"], "p");
        assert_eq!(object["message"], "m");
        assert_eq!(object["reportingComponent"], "example.com/c");
        Event.from_storage(&mut object);
        assert_eq!(object, event());
    }

    #[test]
    fn who_reports_is_always_told_by_the_core_group_only() {
        let mut object = json!({"metadata": {"name": "e"}});
        Event.to_storage(&mut object);
        assert_eq!(object["reportingComponent"], "");
        assert_eq!(object["reportingInstance"], "");
        Event.from_storage(&mut object);
        assert_eq!(object, json!({"metadata": {"name": "e"}}));
    }

    #[test]
    fn an_old_style_event_is_in_the_namespace_of_its_object() {
        let event = |namespace: &str, involved: Value| {
            let object =
                json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": involved}});
            CoreEvent.validate_create(&object).len()
        };
        assert_eq!(event("a", json!("a")), 0);
        assert_eq!(event("a", json!("b")), 1);
        assert_eq!(event("default", Value::Null), 0);
        assert_eq!(event("a", Value::Null), 1);
    }

    #[test]
    fn a_new_style_event_is_checked_more_strictly() {
        assert_eq!(Event.validate_create(&event()), []);
        let mut wrong = event();
        wrong["type"] = "Odd".into();
        wrong["deprecatedCount"] = 3.into();
        wrong["deprecatedSource"] = json!({"component": "x"});
        wrong["action"] = "".into();
        wrong["series"] = json!({"count": 1});
        assert_eq!(
            fields(&Event.validate_create(&wrong)),
            [
                "action",
                "series.count",
                "series.lastObservedTime",
                "type",
                "count",
                "source"
            ]
        );
    }

    #[test]
    fn only_the_series_of_a_new_style_event_changes() {
        let mut new = event();
        new["series"] = json!({"count": 2, "lastObservedTime": "2024-01-01T00:00:01.000000Z"});
        assert_eq!(Event.validate_update(&new, &event()), []);
        new["note"] = "other".into();
        assert_eq!(fields(&Event.validate_update(&new, &event())), ["message"]);
    }

    #[test]
    fn the_row_prefers_the_old_fields() {
        let now = "2024-01-01T00:02:00Z".parse().unwrap();
        let object = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"},
            "type": "Normal", "reason": "R", "message": " m\n", "count": 3,
            "source": {"component": "c", "host": "h"},
            "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:01:00Z",
        });
        assert_eq!(
            CoreEvent.cells(&object, now),
            [
                json!("60s"),
                json!("Normal"),
                json!("R"),
                json!("pod/p"),
                json!("f"),
                json!("c, h"),
                json!("m"),
                json!("2m"),
                json!(3),
                json!("e")
            ]
        );
        let cells = Event.cells(&event(), now);
        assert_eq!(
            [&cells[0], &cells[5], &cells[8]],
            [&json!("2m"), &json!("example.com/c, c-1"), &json!(1)]
        );
    }

    #[test]
    fn field_selectors_go_by_the_names_of_the_group() {
        let object = json!({"involvedObject": {"name": "p"}, "reportingComponent": "c", "reason": "R"});
        let core = CoreEvent.selectable_fields(&object);
        assert!(core.contains(&("involvedObject.name", "p".into())));
        assert!(core.contains(&("source", "c".into())));
        let new = Event.selectable_fields(&event());
        assert!(new.contains(&("regarding.name", "p".into())));
        assert!(new.contains(&("reportingController", "example.com/c".into())));
    }
}
