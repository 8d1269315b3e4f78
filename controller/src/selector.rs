//! Label selectors as Services and claims carry them: does a set of labels match?

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// Labels, as an object's metadata has them.
pub type Labels = BTreeMap<String, String>;

/// Are all pairs of `selector` among `labels`? An empty selector matches everything.
pub fn equal(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Does a `LabelSelector` match? An operator that is not one of the four never does.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let pairs = selector.match_labels.as_ref();
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    pairs.is_none_or(|pairs| equal(pairs, labels))
        && expressions.iter().all(|expression| {
            let values = expression.values.as_deref().unwrap_or_default();
            requirement(&expression.key, &expression.operator, values, labels)
        })
}

/// One requirement of a selector; besides the four operators of labels also `Gt` and `Lt`, which only
/// node selectors have.
pub fn requirement(key: &str, operator: &str, values: &[String], labels: &Labels) -> bool {
    let label = labels.get(key);
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| {
        let pair = label
            .and_then(|label| number(label))
            .zip(values.first().and_then(|value| number(value)));
        pair.is_some_and(|(label, value)| holds(label, value))
    };
    match operator {
        "In" => label.is_some_and(|label| values.contains(label)),
        "NotIn" => label.is_none_or(|label| !values.contains(label)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => compare(|label, value| label > value),
        "Lt" => compare(|label, value| label < value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_follow_their_operator() {
        let labels: Labels = [("tier".into(), "db".into()), ("size".into(), "3".into())].into();
        let table = [
            ("tier", "In", vec!["db", "web"], true),
            ("tier", "In", vec!["web"], false),
            ("none", "In", vec!["web"], false),
            ("tier", "NotIn", vec!["db"], false),
            ("none", "NotIn", vec!["db"], true),
            ("tier", "Exists", vec![], true),
            ("none", "Exists", vec![], false),
            ("none", "DoesNotExist", vec![], true),
            ("size", "Gt", vec!["2"], true),
            ("size", "Gt", vec!["3"], false),
            ("size", "Lt", vec!["4"], true),
            ("tier", "Gt", vec!["1"], false),
            ("tier", "Unheard", vec!["db"], false),
        ];
        for (key, operator, values, expected) in table {
            let values: Vec<String> = values.into_iter().map(Into::into).collect();
            assert_eq!(
                requirement(key, operator, &values, &labels),
                expected,
                "{key} {operator} {values:?}"
            );
        }
    }
}
