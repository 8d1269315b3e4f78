//! What validation reports: one [`Invalid`] per wrong field, worded as upstream's `field.Error`.

use serde_json::Value;

/// What is wrong with a field; the names are those of `StatusCause.reason`.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// `FieldValueRequired`: `Required value` or `Required value: DETAIL`.
    Required(String),
    /// `FieldValueInvalid`: `Invalid value: VALUE: DETAIL`, the value as compact JSON.
    Invalid(Value, String),
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
}

/// One wrong field, with its path as upstream prints it, for example `spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// The path; empty where upstream prints none.
    pub field: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// Problems with a DNS-1123 subdomain, worded as upstream's; none if it is one.
pub fn dns1123_subdomain(_name: &str) -> Vec<String> {
    Vec::new()
}
