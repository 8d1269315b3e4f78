//! Field selectors: `metadata.name=web-0,status.phase!=Running`.

/// All terms must hold; none at all matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Parse `?fieldSelector=`. The error is the whole message of a 400.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).filter(|part| !part.is_empty()) {
            let (field, equal, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(Term {
                field: field.to_owned(),
                equal,
                value: unescape(value)?,
            });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether it selects an object whose selectable fields have these texts; a field that is not among them
    /// counts as empty (the caller has refused fields that the kind does not support).
    pub fn matches(&self, fields: &[(&str, String)]) -> bool {
        self.terms.iter().all(|term| {
            let field = fields.iter().find(|(name, _)| *name == term.field);
            let text = field.map_or("", |(_, text)| text.as_str());
            (text == term.value) == term.equal
        })
    }

    /// The fields that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.field.as_str())
    }

    /// The value that `field` must have, if the selector says so.
    pub fn required(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.equal && term.field == field);
        term.map(|term| term.value.as_str())
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

/// At commas, except those after a backslash.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

/// Field, whether it is to be equal, and value, at the first operator.
fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.find("!=").into_iter().chain(part.find('=')).min()?;
    let (field, rest) = part.split_at(at);
    let operators = [("!=", false), ("==", true), ("=", true)];
    operators
        .into_iter()
        .find_map(|(operator, equal)| Some((field, equal, rest.strip_prefix(operator)?)))
}

/// `\\`, `\,` and `\=` stand for the second character, and these three stand only so.
fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_compare_texts_and_a_missing_field_is_empty() {
        let fields = [
            ("metadata.name", "a".to_owned()),
            ("status.phase", "Running".to_owned()),
        ];
        let table = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a", true),
            ("metadata.name!=a", false),
            ("metadata.name=a,status.phase!=Pending", true),
            ("metadata.name=a,,status.phase=Pending", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
        ];
        for (selector, expected) in table {
            assert_eq!(
                FieldSelector::parse(selector).unwrap().matches(&fields),
                expected,
                "{selector}"
            );
        }
    }

    #[test]
    fn escapes_stand_for_themselves() {
        let selector = FieldSelector::parse(r"a=x\,y\=z\\,b!=c").unwrap();
        assert_eq!(selector.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(selector.required("a"), Some(r"x,y=z\"));
        assert_eq!(selector.required("b"), None);
    }

    #[test]
    fn errors_are_worded_as_upstreams() {
        let table = [
            (
                "a=b,nope",
                "invalid selector: 'a=b,nope'; can't understand 'nope'",
            ),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
            (
                "a=b=c",
                "invalid field selector: unescaped character in value: 61",
            ),
        ];
        for (selector, expected) in table {
            assert_eq!(
                FieldSelector::parse(selector).unwrap_err(),
                expected,
                "{selector}"
            );
        }
    }
}
