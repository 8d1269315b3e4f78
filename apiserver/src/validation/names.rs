//! Rules for names: DNS labels and subdomains, label keys and values, ports, environment variables, keys of
//! ConfigMaps, paths. Each gives the messages of what is wrong, none if the value is right.

/// The character classes that names are made of; hand-written matching keeps a regex engine out.
fn edge(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// `first([…middle…]*[last])?`: starts with `first`, ends with `last`, only `middle` in between.
fn framed(
    text: &[u8],
    first: impl Fn(u8) -> bool,
    middle: impl Fn(u8) -> bool,
    last: impl Fn(u8) -> bool,
) -> bool {
    match text {
        [] => false,
        [only] => first(*only),
        [head, inner @ .., tail] => first(*head) && last(*tail) && inner.iter().all(|c| middle(*c)),
    }
}

fn is_label(text: &str) -> bool {
    framed(text.as_bytes(), edge, |c| edge(c) || c == b'-', edge)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// `must be no more than N characters`.
pub fn max_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be no more than N bytes`.
fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// A message about a regular expression, with examples, joined as upstream joins them.
pub fn regex_message(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

fn subdomain_message() -> String {
    regex_message(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        SUBDOMAIN,
        &["example.com"],
    )
}

/// Problems with a DNS-1123 subdomain, worded as upstream's; none if it is one.
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 253 {
        problems.push(max_characters(253));
    }
    if !is_subdomain(name) {
        problems.push(subdomain_message());
    }
    problems
}

/// Problems with a DNS-1123 subdomain whose labels may also have underscores (resolver search paths).
pub fn dns1123_subdomain_with_underscore(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 253 {
        problems.push(max_characters(253));
    }
    let label = |text: &str| {
        let text = text.strip_prefix('_').unwrap_or(text);
        framed(
            text.as_bytes(),
            edge,
            |c| edge(c) || matches!(c, b'-' | b'_'),
            edge,
        )
    };
    if !name.split('.').all(label) {
        problems.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    problems
}

/// Problems with a DNS-1123 label.
pub fn dns1123_label(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 63 {
        problems.push(max_characters(63));
    }
    if !is_label(name) {
        problems.push(if is_subdomain(name) {
            "must not contain dots".to_owned()
        } else {
            regex_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    problems
}

/// Problems with a DNS-1035 label, which may not start with a digit.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 63 {
        problems.push(max_characters(63));
    }
    if !framed(
        name.as_bytes(),
        |c| c.is_ascii_lowercase(),
        |c| edge(c) || c == b'-',
        edge,
    ) {
        problems.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// Problems with a wildcard DNS-1123 subdomain (`*.example.com`).
pub fn wildcard_dns1123_subdomain(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 253 {
        problems.push(max_characters(253));
    }
    if !name.strip_prefix("*.").is_some_and(is_subdomain) {
        problems.push(regex_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    problems
}

fn is_qualified_part(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_alphanumeric();
    framed(
        text.as_bytes(),
        alphanumeric,
        |c| alphanumeric(c) || matches!(c, b'-' | b'_' | b'.'),
        alphanumeric,
    )
}

const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
const QUALIFIED_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Problems with a qualified name: a label or annotation key, a condition type, a resource name.
pub fn qualified_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<&str> = name.split('/').collect();
    let part = match parts[..] {
        [only] => only,
        [prefix, rest] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                if prefix.len() > 253 {
                    problems.push(format!("prefix part {}", max_bytes(253)));
                }
                if !is_subdomain(prefix) {
                    problems.push(format!("prefix part {}", subdomain_message()));
                }
            }
            rest
        }
        _ => {
            let message = regex_message(
                &format!("a qualified name {QUALIFIED_WORDS}"),
                QUALIFIED,
                &QUALIFIED_EXAMPLES,
            );
            return vec![format!(
                "{message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if part.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if part.len() > 63 {
        problems.push(format!("name part {}", max_bytes(63)));
    }
    if !is_qualified_part(part) {
        let message = regex_message(QUALIFIED_WORDS, QUALIFIED, &QUALIFIED_EXAMPLES);
        problems.push(format!("name part {message}"));
    }
    problems
}

/// Problems with the value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push(max_bytes(63));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        problems.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// Problems with the name of a port (RFC 6335).
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |wrong: bool, message: &str| {
        if wrong {
            problems.push(message.to_owned());
        }
    };
    say(name.len() > 15, &max_characters(15));
    say(
        name.is_empty() || !name.bytes().all(|c| edge(c) || c == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    say(
        !name.bytes().any(|c| c.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    say(name.contains("--"), "must not contain consecutive hyphens");
    say(
        name.starts_with('-') || name.ends_with('-'),
        "must not begin or end with a hyphen",
    );
    problems
}

/// Problems with the name of an environment variable, by the relaxed rule that is the default since 1.34.
pub fn env_var_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if !name.bytes().all(|c| matches!(c, b' '..=b'~') && c != b'=') {
        problems.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned());
    }
    problems
}

/// Problems with a key of a ConfigMap or Secret, or with the name of a file in a volume made from one.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if key.len() > 253 {
        problems.push(max_characters(253));
    }
    if key.is_empty()
        || !key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'))
    {
        problems.push(regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// Problems with the name of an HTTP header.
pub fn http_header_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![regex_message(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// Problems with a percentage such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_message(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// Problems with a name that becomes one segment of a URL path, the loosest rule for object names.
pub fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|c| name.contains(**c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    }
}

/// Problems with an IP address.
pub fn ip(text: &str) -> Vec<String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// Whether a path has a `..` element.
pub fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused_as_their_patterns_say() {
        type Rule = fn(&str) -> Vec<String>;
        let long_label = "a".repeat(63);
        let cases: [(Rule, &[&str], &[&str]); 9] = [
            (
                dns1123_label,
                &["a", "0", "a-b", &long_label],
                &["", "-a", "a-", "A", "a.b", "a_b", "é"],
            ),
            (
                dns1123_subdomain,
                &["a", "a.b", "0.1"],
                &["", "a..b", ".a", "a.", "A.b", "a.-b"],
            ),
            (dns1035_label, &["a", "a0", "a-0"], &["0", "0a", "a-", "", "A"]),
            (
                qualified_name,
                &["a", "A.b_c-d", "example.com/x"],
                &["", "/x", "x/", "a/b/c", "-a", "A.com/x", "a b"],
            ),
            (
                label_value,
                &["", "a", "A_b.c-d", "1"],
                &["-a", "a-", "a b", "a/b"],
            ),
            (
                port_name,
                &["http", "a-1", "1a"],
                &["", "1", "-a", "a-", "a--b", "HTTP", "abcdefghijklmnop"],
            ),
            (env_var_name, &["A", "1", "a b", "-"], &["", "a=b", "é", "a\tb"]),
            (config_map_key, &["a.b", "_"], &["", ".", "..", "a/b", "..a"]),
            (percent, &["0%", "150%"], &["%", "5", "a%", "-1%"]),
        ];
        for (i, (rule, right, wrong)) in cases.into_iter().enumerate() {
            for name in right {
                assert_eq!(rule(name), Vec::<String>::new(), "rule {i} on {name:?}");
            }
            for name in wrong {
                assert!(!rule(name).is_empty(), "rule {i} accepts {name:?}");
            }
        }
    }

    #[test]
    fn a_label_with_dots_is_told_apart_from_other_mistakes() {
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("Web_1"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            dns1123_label(&"a".repeat(64)),
            ["must be no more than 63 characters"]
        );
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }
}
