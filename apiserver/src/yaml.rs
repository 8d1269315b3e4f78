//! YAML as Kubernetes reads it: by version 1.1 in all that people notice. `0400` is an octal number; `yes`, `on` and `y` are
//! true unless they are quoted. What would keep a reader busy (nesting without end, aliases of aliases) is refused.
//!
//! One thing is read otherwise on purpose: a key is the text that it is written as, also where Go would make `true` of `y`.

use serde_json::Value;

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false }
}

/// The one document of a text. The error says what is wrong, and where.
pub fn parse(yaml: &[u8]) -> Result<Value, String> {
    serde_saphyr::from_slice_with_options(yaml, options()).map_err(|error| error.to_string())
}

/// The one document of a text in which a key may be given twice: the last counts, and what a strict reader would
/// have said comes along. That and errors are told in the words of Go's parser, where it has words for them.
pub fn parse_lenient(yaml: &[u8]) -> Result<(Value, Option<String>), String> {
    let strict = match parse(yaml) {
        Ok(value) => return Ok((value, None)),
        Err(error) => error,
    };
    let lenient = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    match serde_saphyr::from_slice_with_options(yaml, lenient) {
        Ok(value) => Ok((value, Some(in_gos_words(&strict, yaml)))),
        Err(_) => Err(in_gos_words(&strict, yaml)),
    }
}

/// An error of this parser (`WHAT at line 1, column 5`) as Go's tells it (`line 1: WHAT`).
fn in_gos_words(error: &str, yaml: &[u8]) -> String {
    let (what, place) = error.rsplit_once(" at line ").unwrap_or((error, ""));
    let line = place.split(',').next().unwrap_or_default();
    let duplicate = what.strip_prefix("duplicate mapping key: ");
    if let Some(key) = duplicate.and_then(|rest| rest.split_once(", set ")) {
        return format!(
            "unmarshal errors:\n  line {line}: key {:?} already set in map",
            key.0
        );
    }
    let expects_node = matches!(yaml.trim_ascii_end().last(), Some(b'[' | b'{' | b',' | b':'));
    let what = match what {
        what if what.starts_with("unclosed bracket") && expects_node => "did not find expected node content",
        "unclosed bracket '['" => "did not find expected ',' or ']'",
        "unclosed bracket '{'" => "did not find expected ',' or '}'",
        "unclosed quote" => "found unexpected end of stream",
        what if what.starts_with("unexpected character:") => "found character that cannot start any token",
        what if what.starts_with("while ") => what.split_once(", ").map_or(what, |(_, problem)| problem),
        what => what,
    };
    match line {
        "" => what.to_owned(),
        line => format!("line {line}: {what}"),
    }
}

/// The documents of a text, in order, up to the first that does not parse; those with nothing in them are left out. Lines in
/// errors are counted from the start of the whole text.
pub fn documents(yaml: &str) -> Vec<Result<Value, String>> {
    let mut reader = yaml.as_bytes();
    let mut documents = Vec::new();
    for document in serde_saphyr::read_with_options(&mut reader, options()) {
        let document: Result<Value, _> = document;
        let failed = document.is_err();
        documents.push(document.map_err(|error| error.to_string()));
        if failed {
            break;
        }
    }
    documents
}

/// A value as YAML that reads back as itself: a text that another type could be taken for is quoted.
pub fn write(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options).expect("a JSON value has a YAML form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        for (yaml, expected) in [
            ("0400", json!(256)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("0", json!(0)),
            ("-1", json!(-1)),
            ("1.5", json!(1.5)),
            ("08", json!(8.0)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!(true)),
            ("N", json!(false)),
            ("true", json!(true)),
            ("~", json!(null)),
            ("", json!(null)),
            ("'0400'", json!("0400")),
            ("\"yes\"", json!("yes")),
            ("1Gi", json!("1Gi")),
            ("1:30", json!("1:30")),
            ("2024-01-01", json!("2024-01-01")),
            ("nginx:1.27", json!("nginx:1.27")),
            ("!!str 1", json!("1")),
        ] {
            assert_eq!(parse(yaml.as_bytes()), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_is_written_as_yaml_reads_back_as_it_was() {
        for text in [
            "yes", "y", "N", "off", "0400", "08", "1e3", "0x1F", "true", "null", "~", "", "1.5", "1_000",
            "=", "<<", "a: b", " x", "- a", "1:30", ".inf", "+1", "0o17", "0b1", "#a", "!b", "&c", "*d",
            "a\nb\n", "é",
        ] {
            for value in [
                json!({ "k": text }),
                json!([text, { "k": [text] }]),
                json!({ text: text }),
            ] {
                let written = write(&value);
                assert_eq!(parse(written.as_bytes()), Ok(value), "{written}");
            }
        }
        let numbers =
            json!({"a": [1, -1, 0.5, 1e300, u64::MAX, true, null, {}, []], "long": "x ".repeat(200)});
        assert_eq!(parse(write(&numbers).as_bytes()), Ok(numbers));
    }

    #[test]
    fn anchors_merges_and_blocks_are_read() {
        let yaml = "base: &base {a: 1}\nmore:\n  <<: *base\n  b: 2\ntext: |\n  x\n  y\n80: web\ny: key\n";
        assert_eq!(
            parse(yaml.as_bytes()),
            Ok(
                json!({"base": {"a": 1}, "more": {"a": 1, "b": 2}, "text": "x\ny\n", "80": "web", "y": "key"})
            )
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (yaml, line) in [
            ("a: [", "line 1"),
            ("a: 1\nb: 2\na: 3\n", "line 3"),
            ("a: b\n  c: d\n", "line 2"),
        ] {
            let error = parse(yaml.as_bytes()).expect_err(yaml);
            assert!(error.contains(line), "{yaml}: {error}");
        }
        assert!(parse(b"a: 1\n---\nb: 2\n").is_err(), "a body is one object");
        assert!(parse(b"\xff\xfe\xff").is_err());
    }

    #[test]
    fn errors_are_told_in_the_words_of_gos_parser() {
        for (yaml, error) in [
            ("{a: [", "line 1: did not find expected node content"),
            ("[a", "line 1: did not find expected ',' or ']'"),
            ("x: 1\ny: {a: 1", "line 2: did not find expected ',' or '}'"),
            (
                "a: b: c",
                "line 1: mapping values are not allowed in this context",
            ),
            ("a: @x", "line 1: found character that cannot start any token"),
            ("a: \"x", "line 1: found unexpected end of stream"),
            ("a: \"\\q\"", "line 1: found unknown escape character"),
            ("- a\nb: 1", "line 2: did not find expected '-' indicator"),
        ] {
            assert_eq!(parse_lenient(yaml.as_bytes()), Err(error.to_owned()), "{yaml}");
        }
    }

    #[test]
    fn of_a_key_that_is_given_twice_the_last_counts_and_a_strict_reader_is_told() {
        let told = |error: &str| Some(format!("unmarshal errors:\n  {error}"));
        for (yaml, expected, strict) in [
            ("a: 1\nb: 1\n", json!({"a": 1, "b": 1}), None),
            (
                "a: 1\na: 2\n",
                json!({"a": 2}),
                told("line 2: key \"a\" already set in map"),
            ),
            (
                r#"{"x": {"b": 1, "b": 2}}"#,
                json!({"x": {"b": 2}}),
                told("line 1: key \"b\" already set in map"),
            ),
        ] {
            assert_eq!(parse_lenient(yaml.as_bytes()), Ok((expected, strict)), "{yaml}");
        }
    }

    #[test]
    fn documents_come_one_by_one() {
        let found = documents("a: 1\n---\n# nothing\n---\nb: yes\n---\nc: [\n");
        assert_eq!(found[..2], [Ok(json!({"a": 1})), Ok(json!({"b": true}))]);
        assert_eq!(found.len(), 3);
        let error = found[2].as_ref().expect_err("it is not closed");
        assert!(error.contains("line 7") || error.contains("line 8"), "{error}");
        assert_eq!(documents("# nothing\n"), []);
    }
}
