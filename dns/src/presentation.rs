//! How names, types, classes and response codes are written: in zone files, by dig, and here in logs and metrics.

use hickory_proto::rr::Name;
use std::fmt::Write;

/// Types that have a place in the metrics; every other one counts as `other`, so that nobody can make the table endless.
pub const TYPES: [(u16, &str); 16] = [
    (1, "A"),
    (28, "AAAA"),
    (33, "SRV"),
    (12, "PTR"),
    (5, "CNAME"),
    (6, "SOA"),
    (2, "NS"),
    (16, "TXT"),
    (15, "MX"),
    (35, "NAPTR"),
    (43, "DS"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
];

/// Response codes (RFC 1035, 4.1.1; RFC 2136, 2.2; RFC 6891, 9) by their number; there are none between the last two.
const CODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE",
];
/// The first that does not fit into the header.
const BADVERS: u16 = 16;

/// An absolute name (RFC 1035, 5.1).
pub fn name(name: &Name) -> String {
    if name.is_root() {
        return ".".into();
    }
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        write_label(&mut text, label);
        text.push('.');
    }
    text
}

/// Add a label to a name: no byte of it can break a line, a terminal, a quotation or the name.
fn write_label(text: &mut String, label: &[u8]) {
    for &byte in label {
        // Writing to a String cannot fail.
        let _ = match byte {
            b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                write!(text, "\\{}", char::from(byte))
            }
            b'!'..=b'~' => write!(text, "{}", char::from(byte)),
            _ => write!(text, "\\{byte:03}"),
        };
    }
}

/// A string of TXT data, quoted (RFC 1035, 5.1).
pub fn string(bytes: &[u8]) -> String {
    let mut text = String::from('"');
    for &byte in bytes {
        // Writing to a String cannot fail.
        let _ = match byte {
            b'"' | b'\\' => write!(text, "\\{}", char::from(byte)),
            b' '..=b'~' => write!(text, "{}", char::from(byte)),
            _ => write!(text, "\\{byte:03}"),
        };
    }
    text.push('"');
    text
}

/// `AAAA`, or `TYPE1000` for one without a name here (RFC 3597, 5).
pub fn type_name(type_: u16) -> String {
    let known = TYPES.iter().find(|(number, _)| *number == type_);
    known.map_or_else(|| format!("TYPE{type_}"), |(_, name)| (*name).to_owned())
}

/// `IN`, or `CLASS42`.
pub fn class_name(class: u16) -> String {
    match class {
        1 => "IN".into(),
        3 => "CH".into(),
        4 => "HS".into(),
        254 => "NONE".into(),
        255 => "ANY".into(),
        other => format!("CLASS{other}"),
    }
}

/// `NXDOMAIN`; the whole code, with the upper bits that EDNS carries.
pub fn code_name(code: u16) -> String {
    match CODES.get(usize::from(code)) {
        Some(name) => (*name).to_owned(),
        None if code == BADVERS => "BADVERS".into(),
        None => format!("RCODE{code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_name_or_a_string_ends_it() {
        let odd = Name::from_labels([&b"a.b @\x1b"[..], b"C"]).expect("a name");
        assert_eq!(name(&odd), "a\\.b\\032\\@\\027.C.");
        assert_eq!(name(&Name::root()), ".");
        assert_eq!(string(b"a \"b\"; \\\xff"), "\"a \\\"b\\\"; \\\\\\255\"");
    }

    #[test]
    fn what_has_no_name_is_told_by_its_number() {
        assert_eq!(
            (type_name(28), type_name(1000)),
            ("AAAA".into(), "TYPE1000".into())
        );
        assert_eq!((class_name(1), class_name(9)), ("IN".into(), "CLASS9".into()));
        assert_eq!(
            (code_name(3), code_name(10)),
            ("NXDOMAIN".into(), "NOTZONE".into())
        );
        assert_eq!(
            (code_name(16), code_name(23)),
            ("BADVERS".into(), "RCODE23".into())
        );
    }
}
