//! Rules for labels and annotations, of an object or of a template inside one.

use super::{Invalid, Path, names};
use serde_json::Value;

/// The most bytes that all annotations of an object may have together.
pub const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// A map of labels (or nothing): keys are qualified names, values label values.
pub fn labels(map: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (key, value) in map.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        problems.extend(Invalid::each(path, key, names::qualified_name(key)));
        problems.extend(Invalid::each(path, value, names::label_value(value)));
    }
    problems
}

/// A map of annotations (or nothing): keys are qualified names in any case, values free but not endless.
pub fn annotations(map: &Value, path: &Path) -> Vec<Invalid> {
    let mut problems = Vec::new();
    let mut size = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        problems.extend(Invalid::each(
            path,
            key,
            names::qualified_name(&key.to_lowercase()),
        ));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_LIMIT {
        problems.push(Invalid::too_long(path, ANNOTATIONS_LIMIT));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_checked_by_key_and_by_value() {
        let path = Path::new("metadata").child("labels");
        assert_eq!(labels(&json!({"a": "b", "x.io/y": ""}), &path), []);
        assert_eq!(labels(&json!({"a": "-x-", "-": "b"}), &path).len(), 2);
        assert_eq!(labels(&Value::Null, &path), []);
    }

    #[test]
    fn annotations_may_be_upper_case_and_long_but_not_endless() {
        let path = Path::new("metadata").child("annotations");
        assert_eq!(
            annotations(&json!({"Example.COM/Note": "anything {}"}), &path),
            []
        );
        let huge = "x".repeat(ANNOTATIONS_LIMIT);
        assert_eq!(
            annotations(&json!({"a": huge}), &path)[0].to_string(),
            "metadata.annotations: Too long: may not be more than 262144 bytes"
        );
    }
}
