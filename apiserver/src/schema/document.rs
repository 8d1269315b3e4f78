//! JSON text as a document that keeps what `serde_json` drops: the order of fields, fields given twice, and
//! numbers as they were written. Errors are worded as those of Go's `encoding/json`.

use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

/// Deeper nesting is refused. Go allows 10000; what is stored must be read again by `serde_json`, which
/// allows 128.
const MAX_DEPTH: usize = 120;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Document<'a> {
    Null,
    Bool(bool),
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    Array(Vec<Document<'a>>),
    Object(Vec<(Cow<'a, str>, Document<'a>)>),
}

impl<'a> Document<'a> {
    /// Parse a whole text.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, String> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let document = parser.value()?;
        parser.space();
        match parser.peek() {
            None => Ok(document),
            Some(_) => Err(parser.invalid("after top-level value")),
        }
    }

    /// A value as a document, its texts borrowed.
    pub(crate) fn from_value(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Number(number) => Self::Number(number.to_string().into()),
            Value::String(text) => Self::String(text.as_str().into()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from_value).collect()),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(key, item)| (key.as_str().into(), Self::from_value(item)))
                    .collect(),
            ),
        }
    }

    /// The fields that are given more than once, in Go's strict words (`duplicate field "a.b[0].c"`).
    pub(crate) fn duplicates(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.find_duplicates(&mut String::new(), &mut found);
        found
    }

    fn find_duplicates(&self, path: &mut String, found: &mut Vec<String>) {
        let end = path.len();
        match self {
            Self::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    write!(path, "[{index}]").expect("a string takes all that is written");
                    item.find_duplicates(path, found);
                    path.truncate(end);
                }
            }
            Self::Object(fields) => {
                let mut seen = HashSet::new();
                for (key, item) in fields {
                    path.push_str(if end > 0 { "." } else { "" });
                    path.push_str(key);
                    if !seen.insert(key) {
                        let error = format!("duplicate field {path:?}");
                        if !found.contains(&error) {
                            found.push(error);
                        }
                    }
                    item.find_duplicates(path, found);
                    path.truncate(end);
                }
            }
            _ => {}
        }
    }

    /// What Go calls it in `cannot unmarshal …`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// As a value; of fields given twice the last counts.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Number(text) => number(text),
            Self::String(text) => Value::String(text.clone().into_owned()),
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(key, item)| (key.clone().into_owned(), item.to_value()))
                    .collect(),
            ),
        }
    }
}

/// A number as it was written; null where it is beyond all floating point numbers.
fn number(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(integer), _) => integer.into(),
        (_, Ok(float)) => serde_json::Number::from_f64(float).map_or(Value::Null, Value::Number),
        _ => Value::Null,
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The error about the present byte, or about there being none.
    fn invalid(&self, context: &str) -> String {
        match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", quoted(byte)),
        }
    }

    fn expect(&mut self, byte: u8, context: &str) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.invalid(context));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<Document<'a>, String> {
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(Document::String(self.string()?)),
            Some(b't') => self.literal("true", Document::Bool(true)),
            Some(b'f') => self.literal("false", Document::Bool(false)),
            Some(b'n') => self.literal("null", Document::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.invalid("looking for beginning of value")),
        }
    }

    fn nested(
        &mut self,
        parse: fn(&mut Self) -> Result<Document<'a>, String>,
    ) -> Result<Document<'a>, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        self.at += 1;
        let document = parse(self);
        self.depth -= 1;
        document
    }

    fn object(&mut self) -> Result<Document<'a>, String> {
        let mut fields = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Document::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.invalid("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.space();
            self.expect(b':', "after object key")?;
            fields.push((key, self.value()?));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break self.at += 1,
                _ => return Err(self.invalid("after object key:value pair")),
            }
        }
        Ok(Document::Object(fields))
    }

    fn array(&mut self) -> Result<Document<'a>, String> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Document::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break self.at += 1,
                _ => return Err(self.invalid("after array element")),
            }
        }
        Ok(Document::Array(items))
    }

    fn literal(&mut self, word: &str, document: Document<'a>) -> Result<Document<'a>, String> {
        for byte in word.bytes() {
            let expecting = char::from(byte);
            self.expect(byte, &format!("in literal {word} (expecting '{expecting}')"))?;
        }
        Ok(document)
    }

    fn number(&mut self) -> Result<Document<'a>, String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.invalid("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.invalid("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.invalid("in exponent of numeric literal"));
            }
            self.digits();
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).expect("digits, signs, a point and an e");
        Ok(Document::Number(text.into()))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let mut start = self.at;
        let mut unescaped = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    let rest = String::from_utf8_lossy(&self.text[start..self.at]);
                    self.at += 1;
                    if unescaped.is_empty() {
                        return Ok(rest);
                    }
                    return Ok(Cow::Owned(unescaped + &rest));
                }
                Some(b'\\') => {
                    unescaped.push_str(&String::from_utf8_lossy(&self.text[start..self.at]));
                    self.at += 1;
                    unescaped.push(self.escape()?);
                    start = self.at;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.invalid("in string literal")),
            }
        }
    }

    /// What follows a backslash; half a surrogate pair becomes U+FFFD, as in Go.
    fn escape(&mut self) -> Result<char, String> {
        let simple = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.hex()?;
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let second = self.hex()?;
                    if (0xdc00..0xe000).contains(&second) {
                        let point = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        return Ok(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = back;
                }
                return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => return Err(self.invalid("in string escape code")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn hex(&mut self) -> Result<u32, String> {
        let mut point = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.invalid("in \\u hexadecimal character escape"));
            };
            point = point * 16 + digit;
            self.at += 1;
        }
        Ok(point)
    }
}

/// A byte as Go quotes a character: it takes the byte for a code point.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        Document::parse(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn syntax_errors_are_in_the_words_of_go() {
        assert_eq!(error(""), "unexpected end of JSON input");
        assert_eq!(error("{\"a\": 1,"), "unexpected end of JSON input");
        assert_eq!(
            error("{\"a\": 1,}"),
            "invalid character '}' looking for beginning of object key string"
        );
        assert_eq!(error("[1 2]"), "invalid character '2' after array element");
        assert_eq!(error("{\"a\" 1}"), "invalid character '1' after object key");
        assert_eq!(
            error("{\"a\": 1 \"b\"}"),
            "invalid character '\"' after object key:value pair"
        );
        assert_eq!(error("{} x"), "invalid character 'x' after top-level value");
        assert_eq!(
            error("nope"),
            "invalid character 'o' in literal null (expecting 'u')"
        );
        assert_eq!(
            error("[1.]"),
            "invalid character ']' after decimal point in numeric literal"
        );
        assert_eq!(error("-a"), "invalid character 'a' in numeric literal");
        assert_eq!(
            error("1ex"),
            "invalid character 'x' in exponent of numeric literal"
        );
        assert_eq!(error("01"), "invalid character '1' after top-level value");
        assert_eq!(error("\"a\nb\""), "invalid character '\\n' in string literal");
        assert_eq!(error("\"\\q\""), "invalid character 'q' in string escape code");
        assert_eq!(
            error("\"\\u12g4\""),
            "invalid character 'g' in \\u hexadecimal character escape"
        );
        assert_eq!(error("é"), "invalid character 'Ã' looking for beginning of value");
        assert_eq!(error(&"[".repeat(5000)), "exceeded max depth");
    }

    #[test]
    fn strings_are_unescaped_as_go_does() {
        let parse = |text: &str| Document::parse(text.as_bytes()).expect("valid").to_value();
        assert_eq!(parse(r#""a\n\u00e9\ud83d\ude00""#), "a\né😀");
        assert_eq!(parse(r#""\ud83dx""#), "\u{fffd}x");
        assert_eq!(
            Document::parse(b"\"\xff\"").expect("valid").to_value(),
            "\u{fffd}"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_back(value in any_json()) {
            let text = serde_json::to_vec_pretty(&value).expect("writes");
            prop_assert_eq!(Document::parse(&text).expect("valid").to_value(), value);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let ours = Document::parse(&bytes);
            if serde_json::from_slice::<Value>(&bytes).is_ok() {
                prop_assert!(ours.is_ok());
            }
        }
    }
}
