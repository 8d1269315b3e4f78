//! What may not change on an update: immutable fields, and the diff by which upstream shows a forbidden
//! change of a whole structure.
//!
//! The structure is printed as Go prints its internal types: every field by its Go name, in the order of
//! declaration, one space per level. Two such texts are compared line by line as Python's difflib does, which
//! upstream's library is a copy of.

use crate::validation::{Invalid, go};
use serde_json::Value;
use std::fmt::Write;

/// Lines around a change that a diff shows.
const CONTEXT: usize = 3;

/// One field that must stay as it is.
pub fn immutable(field: &str, new: &Value, old: &Value) -> Vec<Invalid> {
    if new == old {
        return Vec::new();
    }
    vec![Invalid::malformed(field, new.clone(), "field is immutable")]
}

/// How a value in JSON looks as a field of an internal Go type.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// As in JSON, `null` if it is not there: maps, lists of texts, pointers to plain values, and types of
    /// `metav1`, which have no internal twin.
    Same,
    /// A text that is empty if it is not there.
    Text,
    /// A boolean that is false if it is not there.
    Flag,
    /// A structure that is always there.
    Struct(&'static [Field]),
    /// A pointer to a structure: `null` if it is not there.
    Pointer(&'static [Field]),
}

/// A field of an internal Go type: its Go name, its JSON name, its shape.
pub type Field = (&'static str, &'static str, Shape);

/// What changed between two values of `fields`, as the unified diff without its header that upstream appends
/// to its message.
pub fn diff(fields: &'static [Field], old: &Value, new: &Value) -> String {
    let print = |value| {
        let mut out = String::new();
        print_struct(&mut out, fields, value, 0);
        out
    };
    let (old, new) = (print(old), print(new));
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    unified(&lines(&old), &lines(&new))
}

fn print_struct(out: &mut String, fields: &[Field], value: &Value, depth: usize) {
    out.push_str("{\n");
    for (i, (go_name, json_name, shape)) in fields.iter().enumerate() {
        let _ = write!(out, "{}\"{go_name}\": ", " ".repeat(depth + 1));
        print_field(out, *shape, &value[*json_name], depth + 1);
        out.push_str(if i + 1 < fields.len() { ",\n" } else { "\n" });
    }
    let _ = write!(out, "{}}}", " ".repeat(depth));
}

fn print_field(out: &mut String, shape: Shape, value: &Value, depth: usize) {
    match (shape, value) {
        (Shape::Struct(fields), _) => print_struct(out, fields, value, depth),
        (Shape::Text, Value::Null) => out.push_str("\"\""),
        (Shape::Flag, Value::Null) => out.push_str("false"),
        (_, Value::Null) => out.push_str("null"),
        (Shape::Pointer(fields), _) => print_struct(out, fields, value, depth),
        _ => print_json(out, value, depth),
    }
}

/// JSON as Go indents it: one item per line, keys sorted, empty lists and maps on one line.
fn print_json(out: &mut String, value: &Value, depth: usize) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().map(|item| (String::new(), item)).collect(),
        Value::Object(map) => {
            let mut parts: Vec<_> = map
                .iter()
                .map(|(k, v)| (go::json(&k.as_str().into()) + ": ", v))
                .collect();
            parts.sort_by(|a, b| a.0.cmp(&b.0));
            parts
        }
        plain => {
            out.push_str(&go::json(plain));
            return;
        }
    };
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    out.push(open);
    for (i, (key, item)) in parts.iter().enumerate() {
        let _ = write!(
            out,
            "{}\n{}{key}",
            if i > 0 { "," } else { "" },
            " ".repeat(depth + 1)
        );
        print_json(out, item, depth + 1);
    }
    if !parts.is_empty() {
        let _ = write!(out, "\n{}", " ".repeat(depth));
    }
    out.push(close);
}

/// A run of lines: equal in both texts, or different.
#[derive(Clone, Copy, Debug)]
struct Run {
    equal: bool,
    old: (usize, usize),
    new: (usize, usize),
}

/// The hunks of a unified diff, each with its `@@` line.
fn unified(old: &[String], new: &[String]) -> String {
    let mut out = String::new();
    for hunk in hunks(runs(old, new)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
            continue;
        };
        let old_range = range(first.old.0, last.old.1);
        let new_range = range(first.new.0, last.new.1);
        let _ = writeln!(out, "@@ -{old_range} +{new_range} @@");
        for run in hunk {
            let (minus, plus) = if run.equal { (" ", None) } else { ("-", Some("+")) };
            for line in &old[run.old.0..run.old.1] {
                let _ = writeln!(out, "{minus}{line}");
            }
            for line in plus.into_iter().flat_map(|_| &new[run.new.0..run.new.1]) {
                let _ = writeln!(out, "+{line}");
            }
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    }
}

/// Group runs so that at most [`CONTEXT`] equal lines stand before and after each change.
fn hunks(mut runs: Vec<Run>) -> Vec<Vec<Run>> {
    if !runs.iter().any(|run| !run.equal) {
        return Vec::new();
    }
    if let Some(first) = runs.first_mut().filter(|run| run.equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = runs.last_mut().filter(|run| run.equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let mut hunks = vec![Vec::new()];
    for run in runs {
        let current = hunks
            .last_mut()
            .expect("there is always a hunk under construction");
        if run.equal && run.old.1 - run.old.0 > 2 * CONTEXT {
            let ends = |(start, end): (usize, usize)| ((start, start + CONTEXT), (end - CONTEXT, end));
            let (old, new) = (ends(run.old), ends(run.new));
            current.push(Run {
                old: old.0,
                new: new.0,
                ..run
            });
            hunks.push(vec![Run {
                old: old.1,
                new: new.1,
                ..run
            }]);
        } else {
            current.push(run);
        }
    }
    hunks
}

/// The texts as alternating equal and different runs: the longest common block first, then what lies before
/// and after it in the same way.
fn runs(old: &[String], new: &[String]) -> Vec<Run> {
    let mut blocks = Vec::new();
    matching(old, new, (0, old.len()), (0, new.len()), &mut blocks);
    blocks.push((old.len(), new.len(), 0));
    let mut runs: Vec<Run> = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (a, b, length) in blocks {
        if i < a || j < b {
            runs.push(Run {
                equal: false,
                old: (i, a),
                new: (j, b),
            });
        }
        (i, j) = (a + length, b + length);
        if length > 0 {
            match runs.last_mut().filter(|run| run.equal) {
                Some(run) => (run.old.1, run.new.1) = (i, j),
                None => runs.push(Run {
                    equal: true,
                    old: (a, i),
                    new: (b, j),
                }),
            }
        }
    }
    runs
}

fn matching(
    old: &[String],
    new: &[String],
    (old_low, old_high): (usize, usize),
    (new_low, new_high): (usize, usize),
    blocks: &mut Vec<(usize, usize, usize)>,
) {
    let mut best = (old_low, new_low, 0);
    let mut lengths = vec![0; new_high + 1];
    for (i, line) in old.iter().enumerate().take(old_high).skip(old_low) {
        let mut next = vec![0; new_high + 1];
        for j in new_low..new_high {
            if *line == new[j] {
                let length = if j > new_low { lengths[j - 1] } else { 0 } + 1;
                next[j] = length;
                if length > best.2 {
                    best = (i + 1 - length, j + 1 - length, length);
                }
            }
        }
        lengths = next;
    }
    let (a, b, length) = best;
    if length == 0 {
        return;
    }
    matching(old, new, (old_low, a), (new_low, b), blocks);
    blocks.push(best);
    matching(old, new, (a + length, old_high), (b + length, new_high), blocks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    static FIELDS: [Field; 6] = [
        ("A", "a", Shape::Same),
        ("B", "b", Shape::Text),
        (
            "C",
            "c",
            Shape::Struct(&[("D", "d", Shape::Flag), ("N", "n", Shape::Text)]),
        ),
        ("E", "e", Shape::Pointer(&[("F", "f", Shape::Text)])),
        ("G", "g", Shape::Same),
        ("H", "h", Shape::Same),
    ];

    #[test]
    fn a_change_is_shown_between_three_lines_on_either_side() {
        let old = json!({"a": ["x"], "g": {"z": 1, "y": "<"}});
        let mut new = old.clone();
        new["e"] = json!({"f": "g"});
        assert_eq!(
            diff(&FIELDS, &old, &new),
            "@@ -7,7 +7,9 @@\n   \"D\": false,\n   \"N\": \"\"\n  },\n- \"E\": null,\n+ \"E\": {\n+  \"F\": \"g\"\n+ },\n  \"G\": {\n   \"y\": \"\\u003c\",\n   \"z\": 1\n"
        );
    }

    #[test]
    fn distant_changes_are_separate_hunks() {
        let old: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let mut new = old.clone();
        new[0] = "a".into();
        new.push("b".into());
        assert_eq!(
            unified(&old, &new),
            "@@ -1,4 +1,4 @@\n-0\n+a\n 1\n 2\n 3\n@@ -18,3 +18,4 @@\n 17\n 18\n 19\n+b\n"
        );
    }

    #[test]
    fn nothing_changed_is_no_diff() {
        assert_eq!(diff(&FIELDS, &json!({"a": 1}), &json!({"a": 1})), "");
    }
}
