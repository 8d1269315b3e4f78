//! ControllerRevisions: their data is written once, their number moves.

use crate::client::Api;
use crate::refusal::assert_invalid;
use serde_json::{Value, json};

const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const FIRST: &str = "/apis/apps/v1/namespaces/default/controllerrevisions/web-1";

fn revision(changes: &Value) -> Value {
    let mut object =
        json!({"metadata": {"name": "web-1"}, "revision": 1, "data": {"spec": {"template": {"x": 1}}}});
    crate::client::patch(&mut object, changes);
    object
}

#[tokio::test]
async fn a_revision_needs_a_name_data_and_a_number_that_counts() {
    let api = Api::start().await;
    let subdomain = "metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    for (row, change, name, causes) in [
        (
            "name",
            json!({"metadata": {"name": "Web_1"}}),
            "Web_1",
            vec![("FieldValueInvalid", subdomain)],
        ),
        (
            "data",
            json!({"data": null}),
            "web-1",
            vec![("FieldValueRequired", "data: Required value: data is mandatory")],
        ),
        (
            "revision",
            json!({"revision": -1}),
            "web-1",
            vec![(
                "FieldValueInvalid",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            )],
        ),
    ] {
        let answer = api.post(REVISIONS, revision(&change)).await;
        assert_invalid(row, answer, "ControllerRevision.apps", name, &causes);
    }
    // Unlike the name of a set it may have dots and be long.
    let long = format!("{}.x", "w".repeat(200));
    api.created(REVISIONS, &revision(&json!({"metadata": {"name": long}})))
        .await;
}

#[tokio::test]
async fn the_data_of_a_revision_stays_and_its_number_moves() {
    let api = Api::start().await;
    api.created(REVISIONS, &revision(&json!({}))).await;
    for number in [5, 2, 0] {
        let (code, moved) = api.merge(FIRST, json!({ "revision": number })).await;
        assert_eq!((code, &moved["revision"]), (200, &json!(number)), "{moved:#}");
    }
    let answer = api
        .merge(FIRST, json!({"data": {"spec": {"template": {"x": 2}}}}))
        .await;
    let frozen = (
        "FieldValueInvalid",
        "data: Invalid value: {\"spec\":{\"template\":{\"x\":2}}}: field is immutable",
    );
    assert_invalid("data", answer, "ControllerRevision.apps", "web-1", &[frozen]);
    let answer = api.put(FIRST, revision(&json!({"revision": -7}))).await;
    let negative = (
        "FieldValueInvalid",
        "revision: Invalid value: -7: must be greater than or equal to 0",
    );
    assert_invalid(
        "revision",
        answer,
        "ControllerRevision.apps",
        "web-1",
        &[negative],
    );
    let labelled = api
        .merge(FIRST, json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    assert_eq!(labelled.0, 200, "{labelled:?}");
}
