//! Label selectors as objects hold them (`matchLabels`, `matchExpressions`): their rules, and whether they
//! match. Selectors in a query string are another grammar and not here.

use super::{Invalid, Path, go, metadata, names};
use serde_json::{Map, Value};

/// Problems with a label selector; nothing for one that is not there.
pub fn label_selector(selector: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = metadata::labels(&selector["matchLabels"], &path.child("matchLabels"));
    for (i, requirement) in items(&selector["matchExpressions"]).enumerate() {
        problems.extend(label_requirement(
            requirement,
            &path.child("matchExpressions").index(i),
        ));
    }
    problems
}

fn label_requirement(requirement: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let values: Vec<&Value> = items(&requirement["values"]).collect();
    match requirement["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" => {
            if values.is_empty() {
                problems.push(Invalid::required(
                    path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                problems.push(Invalid::forbidden(
                    path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
        }
        other => problems.push(Invalid::malformed(
            path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = requirement["key"].as_str().unwrap_or_default();
    problems.extend(Invalid::each(path.child("key"), key, names::qualified_name(key)));
    for (i, value) in values.into_iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        problems.extend(Invalid::each(
            path.child("values").index(i),
            value,
            names::label_value(value),
        ));
    }
    problems
}

/// Whether a selector without problems has neither labels nor expressions.
pub fn is_empty(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().is_none_or(Map::is_empty);
    labels && items(&selector["matchExpressions"]).next().is_none()
}

/// Whether `selector` matches `labels`. One that is not there matches nothing, an empty one everything; a
/// requirement that cannot be satisfied or read matches nothing.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    let by_labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = items(&selector["matchExpressions"]);
    by_labels
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|requirement| {
            let held = requirement["key"].as_str().and_then(|key| labels.get(key));
            let listed = |held: &Value| items(&requirement["values"]).any(|value| value == held);
            match requirement["operator"].as_str() {
                Some("In") => held.is_some_and(listed),
                Some("NotIn") => !held.is_some_and(listed),
                Some("Exists") => held.is_some(),
                Some("DoesNotExist") => held.is_none(),
                _ => false,
            }
        })
}

/// A selector as Go prints it in a message.
pub fn print(selector: &Value) -> String {
    go::ordered(
        selector,
        &["matchLabels", "matchExpressions", "key", "operator", "values"],
    )
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_match_as_their_operators_say() {
        let labels = json!({"app": "web", "tier": "front"});
        let cases = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchLabels": {"nope": "web"}}), false),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "nope", "operator": "NotIn", "values": ["web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "Near"}]}),
                false,
            ),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn a_requirement_is_checked_for_operator_values_and_key() {
        let path = Path::new("spec").child("selector");
        let wrong = json!({"matchLabels": {"a": "b!"}, "matchExpressions": [
            {"key": "-", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["x"]}, {"key": "a", "operator": "Near"},
        ]});
        let fields: Vec<String> = label_selector(&wrong, &path)
            .into_iter()
            .map(|p| p.field)
            .collect();
        assert_eq!(
            fields,
            [
                "spec.selector.matchLabels",
                "spec.selector.matchExpressions[0].values",
                "spec.selector.matchExpressions[0].key",
                "spec.selector.matchExpressions[1].values",
                "spec.selector.matchExpressions[2].operator",
            ]
        );
    }
}
