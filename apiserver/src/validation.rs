//! What validation reports: one [`Invalid`] per wrong field, worded as upstream's `field.Error`, and the
//! [`Path`] to the field. The rules that several kinds share are in `validation/`, one file per subject.

pub mod go;
pub mod metadata;
pub mod names;
pub mod numbers;
pub mod quantity;
pub mod selector;

use serde_json::Value;
use std::fmt;

pub use names::{dns1035_label, dns1123_label, dns1123_subdomain};

/// What is wrong with a field; the names are those of `StatusCause.reason`.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// `FieldValueRequired`: `Required value` or `Required value: DETAIL`.
    Required(String),
    /// `FieldValueInvalid`: `Invalid value: VALUE: DETAIL`, the value as compact JSON.
    Invalid(Value, String),
    /// Like [`Problem::Invalid`] with the value as it is to be printed: for structures, whose fields Go
    /// prints in the order of their declaration.
    InvalidText(String, String),
    /// `FieldValueNotSupported`: `Unsupported value: VALUE: supported values: "A", "B"`.
    NotSupported(Value, Vec<String>),
    /// `FieldValueForbidden`: `Forbidden: DETAIL`.
    Forbidden(String),
    /// `FieldValueDuplicate`: `Duplicate value: VALUE`.
    Duplicate(Value),
    /// `FieldValueNotFound`: `Not found: VALUE`.
    NotFound(Value),
    /// `FieldValueTooLong`: `Too long: may not be more than N bytes`.
    TooLong(usize),
    /// `FieldValueTooMany`: `Too many: ACTUAL: must have at most MAX items`.
    TooMany(usize, usize),
    /// `FieldValueTypeInvalid`: `Invalid value: VALUE: DETAIL`.
    TypeInvalid(Value, String),
    /// `InternalError`: `Internal error: DETAIL`.
    Internal(String),
}

/// One wrong field, with its path as upstream prints it, for example `spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// The path; empty where upstream prints none.
    pub field: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl Invalid {
    fn new(field: impl Into<String>, problem: Problem) -> Self {
        Invalid {
            field: field.into(),
            problem,
        }
    }

    /// A value that must be there; `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(field, Problem::Required(detail.into()))
    }

    /// A malformed value.
    pub fn malformed(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(field, Problem::Invalid(value.into(), detail.into()))
    }

    /// A malformed structure, already printed as Go prints it.
    pub fn malformed_text(
        field: impl Into<String>,
        printed: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(field, Problem::InvalidText(printed.into(), detail.into()))
    }

    /// A value outside an enumeration, whose values are told in the given order (upstream sorts most).
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| (*s).to_owned()).collect();
        Self::new(field, Problem::NotSupported(value.into(), supported))
    }

    /// A value that may not be there.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(field, Problem::Forbidden(detail.into()))
    }

    /// A value that must be unique and is not.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(field, Problem::Duplicate(value.into()))
    }

    /// A reference to something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(field, Problem::NotFound(value.into()))
    }

    /// A value of more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(field, Problem::TooLong(max))
    }

    /// A list of `actual` items where `max` are allowed.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        Self::new(field, Problem::TooMany(actual, max))
    }

    /// One [`Problem::Invalid`] per message, as upstream wraps what a name rule says.
    pub fn each(field: impl Into<String>, value: &str, messages: Vec<String>) -> Vec<Self> {
        let field = field.into();
        let one = |message| Self::malformed(field.clone(), value, message);
        messages.into_iter().map(one).collect()
    }

    /// The name that a `StatusCause` gives as its reason.
    pub fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required(_) => "FieldValueRequired",
            Problem::Invalid(..) | Problem::InvalidText(..) => "FieldValueInvalid",
            Problem::NotSupported(..) => "FieldValueNotSupported",
            Problem::Forbidden(_) => "FieldValueForbidden",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::NotFound(_) => "FieldValueNotFound",
            Problem::TooLong(_) => "FieldValueTooLong",
            Problem::TooMany(..) => "FieldValueTooMany",
            Problem::TypeInvalid(..) => "FieldValueTypeInvalid",
            Problem::Internal(_) => "InternalError",
        }
    }

    /// The message without the path, as a `StatusCause` has it.
    pub fn message(&self) -> String {
        let detailed = |start: String, detail: &str| match detail {
            "" => start,
            _ => format!("{start}: {detail}"),
        };
        match &self.problem {
            Problem::Required(detail) => detailed("Required value".to_owned(), detail),
            Problem::Invalid(value, detail) | Problem::TypeInvalid(value, detail) => {
                detailed(format!("Invalid value: {}", go::print(value)), detail)
            }
            Problem::InvalidText(text, detail) => detailed(format!("Invalid value: {text}"), detail),
            Problem::NotSupported(value, supported) => {
                let start = format!("Unsupported value: {}", go::print(value));
                if supported.is_empty() {
                    return start;
                }
                let quoted: Vec<String> = supported.iter().map(|s| go::quote(s)).collect();
                format!("{start}: supported values: {}", quoted.join(", "))
            }
            Problem::Forbidden(detail) => detailed("Forbidden".to_owned(), detail),
            Problem::Duplicate(value) => format!("Duplicate value: {}", go::print(value)),
            Problem::NotFound(value) => format!("Not found: {}", go::print(value)),
            Problem::TooLong(max) => format!("Too long: may not be more than {max} {}", plural(*max, "byte")),
            Problem::TooMany(actual, max) => {
                format!(
                    "Too many: {actual}: must have at most {max} {}",
                    plural(*max, "item")
                )
            }
            Problem::Internal(detail) => detailed("Internal error".to_owned(), detail),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// The way to a field, printed as upstream's `field.Path`: `spec.containers[0].resources[cpu]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path that starts with the field `name`; an empty name is the object itself.
    pub fn new(name: &str) -> Self {
        Path(name.to_owned())
    }

    /// The field `name` of this one.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Path::new(name);
        }
        Path(format!("{}.{name}", self.0))
    }

    /// The item `index` of this list.
    pub fn index(&self, index: usize) -> Self {
        Path(format!("{}[{index}]", self.0))
    }

    /// The value under `key` of this map.
    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Path> for String {
    fn from(path: &Path) -> String {
        path.0.clone()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_prints_fields_indexes_and_keys() {
        let path = Path::new("spec")
            .child("containers")
            .index(2)
            .child("limits")
            .key("cpu");
        assert_eq!(path.to_string(), "spec.containers[2].limits[cpu]");
        assert_eq!(Path::default().child("data").to_string(), "data");
    }

    #[test]
    fn every_problem_is_worded_as_upstream_words_it() {
        let cases = [
            (Invalid::required("a", ""), "a: Required value"),
            (Invalid::required("a", "why"), "a: Required value: why"),
            (
                Invalid::malformed("a", "x\"y", "why"),
                r#"a: Invalid value: "x\"y": why"#,
            ),
            (Invalid::malformed("a", -1, "why"), "a: Invalid value: -1: why"),
            (Invalid::malformed("a", Value::Null, ""), "a: Invalid value: null"),
            (
                Invalid::malformed("a", json!({"b": "<"}), ""),
                r#"a: Invalid value: {"b":"\u003c"}"#,
            ),
            (
                Invalid::not_supported("a", "x", &["B", "C"]),
                r#"a: Unsupported value: "x": supported values: "B", "C""#,
            ),
            (Invalid::forbidden("a", "why"), "a: Forbidden: why"),
            (Invalid::duplicate("a", "x"), r#"a: Duplicate value: "x""#),
            (Invalid::not_found("a", "x"), r#"a: Not found: "x""#),
            (
                Invalid::too_long("a", 63),
                "a: Too long: may not be more than 63 bytes",
            ),
            (
                Invalid::too_many("a", 3, 1),
                "a: Too many: 3: must have at most 1 item",
            ),
        ];
        for (invalid, text) in cases {
            assert_eq!(invalid.to_string(), text);
        }
    }
}
