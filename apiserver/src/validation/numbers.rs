//! Rules for numbers: signs, ranges, ports, IntOrString.

use super::{Invalid, Path, names};
use serde_json::Value;

/// `must be greater than or equal to 0`.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// A number that may not be negative; nothing for a field that is not there.
pub fn non_negative(value: &Value, path: &Path) -> Vec<Invalid> {
    match value.as_i64() {
        Some(n) if n < 0 => vec![Invalid::malformed(path, n, NOT_NEGATIVE)],
        _ => Vec::new(),
    }
}

/// Problems with a number outside `low..=high`, in upstream's words.
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        return Vec::new();
    }
    vec![format!("must be between {low} and {high}, inclusive")]
}

/// Problems with a port number.
pub fn port(value: i64) -> Vec<String> {
    in_range(value, 1, 65535)
}

/// A port given as a number or as the name of a container's port.
pub fn port_number_or_name(value: &Value, path: &Path) -> Vec<Invalid> {
    match value {
        Value::String(name) => Invalid::each(path, name, names::port_name(name)),
        Value::Null => vec![Invalid::malformed(path, 0, in_range(0, 1, 65535).concat())],
        number => {
            let number = number.as_i64().unwrap_or_default();
            let one = |message| Invalid::malformed(path, number, message);
            port(number).into_iter().map(one).collect()
        }
    }
}

/// An IntOrString that is a number not below zero, or a percentage.
pub fn non_negative_int_or_percent(value: &Value, path: &Path) -> Vec<Invalid> {
    match value {
        Value::String(text) => Invalid::each(path, text, names::percent(text)),
        number => non_negative(number, path),
    }
}

/// The percentage that an IntOrString holds, if it is one.
pub fn percentage(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// A percentage may not exceed 100 %.
pub fn not_more_than_100_percent(value: &Value, path: &Path) -> Vec<Invalid> {
    match percentage(value) {
        Some(n) if n > 100 => vec![Invalid::malformed(
            path,
            value.clone(),
            "must not be greater than 100%",
        )],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_numbers_in_range_or_names() {
        let path = Path::new("p");
        for right in [json!(1), json!(65535), json!("http")] {
            assert_eq!(port_number_or_name(&right, &path), [], "{right}");
        }
        for wrong in [json!(0), json!(65536), json!(null), json!("HTTP")] {
            assert!(!port_number_or_name(&wrong, &path).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn percentages_stop_at_one_hundred() {
        let path = Path::new("p");
        assert_eq!(not_more_than_100_percent(&json!("100%"), &path), []);
        assert_eq!(
            not_more_than_100_percent(&json!("150%"), &path)[0].to_string(),
            r#"p: Invalid value: "150%": must not be greater than 100%"#
        );
        assert_eq!(non_negative_int_or_percent(&json!(-1), &path).len(), 1);
        assert_eq!(non_negative_int_or_percent(&json!("x"), &path).len(), 1);
    }
}
