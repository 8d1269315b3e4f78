//! What a 422 looks like: the whole `Status`, made from its causes alone.

use serde_json::{Value, json};

/// One cause: the name of its reason, and `FIELD: MESSAGE`.
pub type Cause<'a> = (&'a str, &'a str);

/// The `Status` of an object that is refused. `kind` is `StatefulSet.apps`, or `Pod` in the core group.
pub fn invalid(kind: &str, name: &str, causes: &[Cause]) -> Value {
    let all: Vec<&str> = causes.iter().map(|(_, text)| *text).collect();
    let summary = match all[..] {
        [only] => only.to_owned(),
        _ => format!("[{}]", all.join(", ")),
    };
    let causes = causes.iter().map(|(reason, text)| {
        let (field, message) = text.split_once(": ").expect("a cause has a field and a message");
        json!({"reason": reason, "field": field, "message": message})
    });
    let (short, group) = kind.split_once('.').unwrap_or((kind, ""));
    let mut details = json!({"kind": short, "causes": causes.collect::<Vec<_>>()});
    for (field, text) in [("name", name), ("group", group)] {
        if !text.is_empty() {
            details[field] = text.into();
        }
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
        "message": format!("{kind} \"{name}\" is invalid: {summary}"),
        "details": details,
    })
}

/// The answer to something that was refused must be just this.
#[track_caller]
pub fn assert_invalid(row: &str, answer: (u16, Value), kind: &str, name: &str, causes: &[Cause]) {
    let expected = (422, invalid(kind, name, causes));
    assert_eq!(answer.0, expected.0, "{row}: {:#}", answer.1);
    assert_eq!(answer.1, expected.1, "{row}");
}
