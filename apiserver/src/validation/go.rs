//! How Go prints values in messages: `%q` for strings, `encoding/json` for everything else.

use serde_json::Value;
use std::fmt::Write;

/// A value as `field.Error` prints it: strings quoted as by `%q`, all else compact JSON.
pub fn print(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => json(other),
    }
}

/// A string as Go's `%q` quotes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => push(&mut out, format_args!("\\x{:02x}", c as u32)),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => push(&mut out, format_args!("\\u{:04x}", c as u32)),
            c => push(&mut out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// Compact JSON as `encoding/json` writes it: `<`, `>` and `&` and the line separators escaped. Object
/// fields come in the order of [`Value`], so for structures use [`ordered`].
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    // `Value`'s Display is compact JSON; these characters occur in it only within strings.
    for c in value.to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => push(&mut out, format_args!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// The structure `object` as compact JSON with its fields in the given order; absent ones are left out.
/// A field that is a structure of its own, or a list of them, is printed with the same order.
pub fn ordered(value: &Value, fields: &[&str]) -> String {
    match value {
        Value::Object(map) if map.keys().any(|key| fields.contains(&key.as_str())) => {
            let known = fields.iter().filter_map(|f| map.get_key_value(*f));
            let unknown = map.iter().filter(|(key, _)| !fields.contains(&key.as_str()));
            let printed: Vec<String> = known
                .chain(unknown)
                .map(|(key, v)| format!("{}:{}", json(&Value::from(key.as_str())), ordered(v, fields)))
                .collect();
            format!("{{{}}}", printed.join(","))
        }
        Value::Array(items) => {
            let printed: Vec<String> = items.iter().map(|item| ordered(item, fields)).collect();
            format!("[{}]", printed.join(","))
        }
        other => json(other),
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String does not fail");
}

/// An approximation of `unicode.IsPrint`: no control, separator, private-use or unassigned format character.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32, 0xad | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xfffb | 0xe0000..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_are_quoted_as_go_quotes_them() {
        assert_eq!(
            quote("a\"b\\c\n\u{1}\u{7f}é\u{200b}"),
            r#""a\"b\\c\n\x01\x7fé\u200b""#
        );
    }

    #[test]
    fn structures_keep_the_order_that_is_asked_for() {
        let selector = json!({"matchExpressions": [{"values": ["b"], "operator": "Near", "key": "a"}], "matchLabels": {"z": "&"}});
        assert_eq!(
            ordered(
                &selector,
                &["matchLabels", "matchExpressions", "key", "operator", "values"]
            ),
            r#"{"matchLabels":{"z":"\u0026"},"matchExpressions":[{"key":"a","operator":"Near","values":["b"]}]}"#
        );
    }
}
