//! The form of label keys and values.

use crate::validation::dns1123_subdomain;

const MUST: &str = "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn is_word(text: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

/// Problems with a label's key.
pub fn qualified_name(key: &str) -> Vec<String> {
    let regex = format!(
        "must {MUST} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{REGEX}')"
    );
    let mut problems = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        ["", name] => {
            problems.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            problems.extend(
                dns1123_subdomain(prefix)
                    .into_iter()
                    .map(|problem| format!("prefix part {problem}")),
            );
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {regex} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_word(name) {
        problems.push(format!("name part {regex}"));
    }
    problems
}

/// Problems with a label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push("must be no more than 63 bytes".to_owned());
    }
    if !value.is_empty() && !is_word(value) {
        problems.push(format!(
            "a valid label must be an empty string or {MUST} (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({REGEX})?')"
        ));
    }
    problems
}
